"""Contract sections 1 to 3: names, hosts, origins, bodies, the shape of every answer."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

import pytest

from tests.support.http import raw_exchange
from tests.support.server import Server

BAD_NAMES = ["..%2fsecret", ".hidden", "-dash", "a" * 129, "sp%20ace", "semi;colon", "nul%00", "%C3%A9", "line%0abreak"]


def status_of(answer: bytes) -> int:
    """The status of a raw HTTP/1.1 answer."""
    return int(answer.split(b" ", 2)[1])


def get(port: int, path: str, *headers: str) -> bytes:
    """A raw request with exactly these header lines."""
    lines = [f"GET {path} HTTP/1.1", *headers, "Connection: close", "", ""]
    return raw_exchange(port, "\r\n".join(lines).encode())


# -- names ------------------------------------------------------------------------------------


@pytest.mark.critical
@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_bad_name_is_refused_before_it_reaches_anything(sidecar: Server, name: str) -> None:
    """A name becomes a path and a log line: ``../`` and line breaks must stop at the door."""
    api = sidecar.api()
    for method, path in (
        ("GET", f"/api/context/{name}/python-specialist"),
        ("GET", f"/api/context/issue/{name}"),
        ("DELETE", f"/api/cache/context/{name}"),
        ("GET", f"/api/results?issue_id={name}"),
        ("GET", f"/api/events/wait/{name}?timeout=0"),
    ):
        answer = api.request(method, path)
        assert answer.status in (400, 404) if "%2f" in name else answer.status == 400, answer
    api.request("POST", f"/api/events/{name}", body={"topic": "testing", "data": {}}).expect(400, 404)


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "", ".", "x" * 129, "a\nb", 5, None, ["a"]])
def test_a_bad_name_in_a_body_is_refused(sidecar: Server, issue: str, name: Any) -> None:
    """The same names, by the other door."""
    api = sidecar.api()
    result = {"agent_type": "python-specialist", "issue_id": name, "result": {"status": "success"}}
    api.post("/api/results", result).refused(400, "REQ_001")
    api.post("/api/events/noted", {"topic": name, "data": {}}).refused(400)
    spawn = {"agent_type": "python-specialist", "issue_id": name, "task": "t"}
    api.post("/api/agents/spawn", spawn).refused(400, "REQ_001")
    api.post("/api/projects", {"project_id": name, "path": "/"}).refused(400, "REQ_001")


def test_the_longest_name_works(sidecar: Server) -> None:
    """128 characters are allowed; file systems take 255."""
    name = "L" + "0._-" * 31 + "xyz"
    assert len(name) == 128
    body = {"agent_type": "python-specialist", "issue_id": name, "result": {"status": "success"}}
    sidecar.api().post("/api/results", body).expect(201)


# -- host and origin --------------------------------------------------------------------------


@pytest.mark.critical
@pytest.mark.parametrize(
    "host", ["evil.example", "0.0.0.0", "127.0.0.1.evil.example", "localhost.evil.example", "[::2]"]
)
def test_a_foreign_host_is_misdirected(sidecar: Server, host: str) -> None:
    """DNS rebinding: a page of a foreign name that resolves to 127.0.0.1 must not be answered."""
    assert status_of(get(sidecar.port, "/health", f"Host: {host}:{sidecar.port}")) == 421
    assert status_of(get(sidecar.port, "/health", f"Host: {host}")) == 421


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]", "127.0.0.2"])
def test_loopback_names_are_served(sidecar: Server, host: str) -> None:
    """The check must not lock out those it protects."""
    assert status_of(get(sidecar.port, "/health", f"Host: {host}:{sidecar.port}")) == 200


def test_a_missing_host_is_misdirected(sidecar: Server) -> None:
    """Hypercorn hands such a request to the application."""
    assert status_of(raw_exchange(sidecar.port, b"GET /health HTTP/1.0\r\n\r\n")) == 421
    assert status_of(get(sidecar.port, "/health")) in (400, 421)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1.evil.example", "file://"])
def test_a_foreign_origin_is_forbidden(sidecar: Server, origin: str) -> None:
    """A page of another site may send requests, though it may not read answers: publishing needs no reading."""
    for method, path in (("GET", "/health"), ("POST", "/api/events/noted")):
        answer = sidecar.api().request(
            method,
            path,
            content=b"{}" if method == "POST" else None,
            headers={"Origin": origin, "Content-Type": "application/json"},
        )
        assert answer.status == 403, answer
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_an_own_origin_is_served(sidecar: Server) -> None:
    """The dashboard and local tools send an Origin too."""
    answer = sidecar.anonymous().get("/health", headers={"Origin": f"http://127.0.0.1:{sidecar.port}"})
    answer.expect(200)
    assert answer.headers.get("Access-Control-Allow-Origin") != "*"
    assert sidecar.anonymous().get("/health", headers={"Origin": "http://localhost:5173"}).status == 200


# -- every answer -----------------------------------------------------------------------------


@pytest.mark.smoke
def test_every_answer_is_marked(sidecar: Server) -> None:
    """``nosniff`` and a request id must not be missing on errors, where they are needed most."""
    api = sidecar.api()
    answers = [
        api.get("/health"),
        api.get("/api/results"),
        api.get("/api/context/i/no-such-type"),
        api.get("/nowhere"),
        api.post("/health", {}),
        sidecar.anonymous().get("/api/results"),
        api.request("POST", "/api/results", content=b"{", headers={"Content-Type": "application/json"}),
    ]
    for answer in answers:
        assert answer.headers["X-Content-Type-Options"] == "nosniff", answer
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", answer.headers["X-Request-ID"]), answer
    assert len({answer.headers["X-Request-ID"] for answer in answers}) == len(answers)
    for answer in answers[2:]:
        error = answer.refused(answer.status)
        assert re.fullmatch(r"[a-z0-9_]+", error["error"])
        assert re.fullmatch(r"[A-Z]+_\d{3}", error["code"])
        assert datetime.fromisoformat(error["timestamp"]).utcoffset() is not None
        assert error["message"]
        assert "Traceback" not in answer.body.decode()
    assert [answer.status for answer in answers[3:5]] == [404, 405]


def test_a_valid_request_id_is_echoed_and_another_is_not(sidecar: Server) -> None:
    """It goes to the log: what could break a log line must be replaced."""
    api = sidecar.anonymous()
    assert api.get("/health", headers={"X-Request-ID": "trace-1.2_3"}).headers["X-Request-ID"] == "trace-1.2_3"
    for bad in ("a b", "x" * 500, '"quoted"', "a\tb"):
        assert api.get("/health", headers={"X-Request-ID": bad}).headers["X-Request-ID"] != bad


# -- bodies -----------------------------------------------------------------------------------

BAD_BODIES = {
    "nothing": b"",
    "not JSON": b"{",
    "a list": b"[]",
    "a number": b"5",
    "null": b"null",
    "bad UTF-8": b'{"issue_id": "\xff"}',
    "a lone surrogate": b'{"issue_id": "\\ud800", "result": {"status": "success"}}',
    "too deep": b'{"result": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "wrong types": b'{"issue_id": 5, "result": []}',
    "a missing field": b'{"issue_id": "i"}',
    "not a number of JSON": b'{"issue_id": "i", "result": {"status": "success", "metrics": {"x": NaN}}}',
    "an unknown status": b'{"issue_id": "i", "result": {"status": "great"}}',
}


@pytest.mark.critical
@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES.keys())
def test_a_bad_body_is_a_bad_request(sidecar: Server, body: bytes) -> None:
    """Each of these has ended in a 500 or a dead worker somewhere."""
    answer = sidecar.api("python-specialist").request(
        "POST", "/api/results", content=body, headers={"Content-Type": "application/json"}
    )
    error = answer.refused(400, "REQ_001")
    assert len(error["message"]) < 1000


@pytest.mark.parametrize("path", ["/api/agents/spawn", "/api/events/noted", "/api/projects"])
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'"text"'])
def test_no_route_takes_a_bad_body(sidecar: Server, path: str, body: bytes) -> None:
    """The parser is shared; a route that goes around it shows here."""
    sidecar.api().request("POST", path, content=body, headers={"Content-Type": "application/json"}).refused(400)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None])
def test_a_body_that_is_not_called_json_is_refused(sidecar: Server, kind: str | None) -> None:
    """Forms and plain text are what a browser sends without asking first."""
    answer = sidecar.api().request(
        "POST",
        "/api/events/noted",
        content=b'{"topic": "testing", "data": {}}',
        headers={} if kind is None else {"Content-Type": kind},
    )
    answer.refused(415)


def test_json_with_a_charset_is_json(sidecar: Server) -> None:
    """Many clients add one."""
    sidecar.api().request(
        "POST",
        "/api/events/noted",
        content=b'{"topic": "testing", "data": {}}',
        headers={"Content-Type": "application/json; charset=utf-8"},
    ).expect(202)


def test_a_body_over_ten_megabytes_is_too_large(sidecar: Server) -> None:
    """Said by its length before it is read, and found while reading when it has none."""
    text = json.dumps({"topic": "testing", "data": {"x": "y" * 10_000_001}}).encode()
    api = sidecar.api()
    api.request("POST", "/api/events/noted", content=text, headers={"Content-Type": "application/json"}).refused(
        413, "REQ_002"
    )
    chunk = b"186a0\r\n" + b" " * 100_000 + b"\r\n"
    head = (
        f"POST /api/events/noted HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {api.token}\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    try:
        answer = raw_exchange(sidecar.port, head.encode() + chunk * 120 + b"0\r\n\r\n")
    except (ConnectionResetError, BrokenPipeError):
        # The connection was cut while the rest was being sent, as it may be after the answer.
        answer = b""
    assert not answer or status_of(answer) == 413
    api.get("/health").expect(200)


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=x", "timeout=-1", "timeout=300001", "timeout=soon", "since=never", "ack=x"],
)
def test_a_parameter_out_of_range_is_a_bad_request(sidecar: Server, query: str) -> None:
    """Clamping silently would make a caller believe that it waits longer than it does."""
    sidecar.api().get(f"/api/events/wait/noted?{query}").refused(400)


@pytest.mark.parametrize("path", ["/api/results?limit=0", "/api/results?from=yesterday", "/api/agents?status=asleep"])
def test_other_parameters_are_checked_too(sidecar: Server, path: str) -> None:
    """A parameter that is silently ignored answers another question than was asked."""
    sidecar.api().get(path).refused(400)

"""What every request meets before a route: hosts, origins, ids, bodies."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from api import asgi_body
from orchestrator.config import RateLimitSettings, ServerSettings, Settings
from tests.support.api_fakes import api_world

OFF = RateLimitSettings(enabled=False)
EVENT = {"topic": "testing", "data": {"n": 1}}


@pytest.mark.parametrize(("method", "target"), [("GET", "/health"), ("POST", "/api/events/x"), ("GET", "/nowhere")])
async def test_a_foreign_host_or_origin_reaches_nothing(tmp_path: Path, method: str, target: str) -> None:
    """The short way and the framework's way must both stand behind the check."""
    async with api_world(tmp_path) as world:
        client = world.client()
        for host in ("evil.example", None):
            answer = await client.request(method, target, json_body=EVENT, headers={"Host": host})
            assert (answer.status, answer.code) == (421, "REQ_008")
        answer = await client.request(method, target, json_body=EVENT, headers={"Origin": "null"})
        assert (answer.status, answer.code) == (403, "AUTH_005")
        assert "access-control-allow-origin" not in answer.headers
        assert world.services.bus.events == {}


async def test_a_preflight_of_a_local_page_is_answered(tmp_path: Path) -> None:
    """Without it the dashboard on another port cannot send a token."""
    async with api_world(tmp_path) as world:
        headers = {"Origin": "http://localhost:5173", "Access-Control-Request-Method": "POST"}
        answer = await world.anonymous().request("OPTIONS", "/api/events/x", headers=headers)
        assert answer.status == 204
        assert answer.headers["access-control-allow-origin"] == "http://localhost:5173"
        assert "Authorization" in answer.headers["access-control-allow-headers"]
        headers["Origin"] = "http://evil.example"
        assert (await world.anonymous().request("OPTIONS", "/api/events/x", headers=headers)).status == 403
        assert (await world.anonymous().request("OPTIONS", "/health")).headers["allow"].startswith("GET")


async def test_a_good_request_id_is_echoed_on_every_kind_of_answer(tmp_path: Path) -> None:
    """A caller must find its request in the log, whether it failed early, late or not at all."""
    async with api_world(tmp_path) as world:
        for target in (
            "/health",
            "/nowhere",
            "/api/results",
            "/api/context/i/python-specialist",
            "/api/context/..%2f/x",
        ):
            answer = await world.anonymous().get(target, {"X-Request-ID": "trace-1.2"})
            assert answer.headers["x-request-id"] == "trace-1.2"
            again = await world.anonymous().get(target, {"X-Request-ID": "a\tb"})
            assert again.headers["x-request-id"].startswith("req_")
            if answer.status >= 400:
                assert answer.json()["request_id"] == "trace-1.2"


@pytest.mark.parametrize(
    "kind", ["text/plain", "multipart/form-data; boundary=x", "application/json; charset=latin1", None]
)
async def test_other_media_types_are_refused(tmp_path: Path, kind: str | None) -> None:
    """Plain text and forms are what a foreign page can send without asking first."""
    async with api_world(tmp_path) as world:
        answer = await world.client().request("POST", "/api/events/x", json_body=EVENT, headers={"Content-Type": kind})
        assert (answer.status, answer.code) == (415, "REQ_006")


async def test_a_compressed_body_is_not_unpacked(tmp_path: Path) -> None:
    """A bomb of a few kilobytes would become gigabytes."""
    async with api_world(tmp_path) as world:
        answer = await world.client().request(
            "POST", "/api/events/x", json_body=EVENT, headers={"Content-Encoding": "gzip"}
        )
        assert answer.status == 415


async def test_a_cloudevent_is_read_where_events_are_published_only(tmp_path: Path) -> None:
    """The type is legal for one route, not for all."""
    async with api_world(tmp_path) as world:
        cloud = {
            "specversion": "1.0",
            "id": "e-1",
            "source": "/ci",
            "type": "built",
            "subject": "testing",
            "data": {"ok": True},
            "correlationid": "c",
            "priority": "high",
            "ttlseconds": 60,
            "references": "evt_1,evt_2",
            "round": 3,
        }
        kind = {"Content-Type": "application/cloudevents+json"}
        answer = await world.client().post("/api/events/built", cloud, kind)
        assert (answer.status, answer.json()["event_id"]) == (202, "e-1")
        assert (await world.client().post("/api/events/other", cloud, kind)).code == "EVT_002"
        del cloud["subject"]
        assert (await world.client().post("/api/events/built", cloud, kind)).code == "REQ_001"
        assert (await world.client().post("/api/results", {}, kind)).status == 415
        batch = await world.client().get("/api/events", {"Accept": "application/cloudevents-batch+json"})
        assert batch.headers["content-type"] == "application/cloudevents-batch+json"
        (event,) = batch.json()
        assert (event["id"], event["type"], event["subject"], event["data"]) == (
            "e-1",
            "built",
            "testing",
            {"ok": True},
        )
        assert batch.headers["x-next-cursor"] == event["sequence"] == "1"
        assert {key: event[key] for key in cloud} == {**cloud, "source": event["source"]}


async def test_a_body_over_the_limit_is_refused_by_its_length_and_by_count(tmp_path: Path) -> None:
    """A length that lies, or none at all, must not get around the limit."""
    settings = Settings(rate_limits=OFF, server=ServerSettings(body_limit_bytes=1000))
    async with api_world(tmp_path, settings=settings) as world:
        client = world.client()
        declared = await client.request("POST", "/api/events/x", body=b" " * 1001)
        kind = {"Content-Type": "application/json"}
        counted = await client.request("POST", "/api/events/x", chunks=[b" " * 400] * 3, headers=kind)
        single = await client.request("POST", "/api/events/x", chunks=[b" " * 5000], headers=kind)
        for answer in (declared, counted, single):
            assert (answer.status, answer.code) == (413, "REQ_002")
        odd = await client.request("POST", "/api/events/x", headers={"Content-Length": "-1"})
        assert odd.status == 400


async def test_a_body_that_does_not_come_is_timed_out(tmp_path: Path) -> None:
    """A body held its connection: one in drops, and for ever one of which not even the first byte came."""
    settings = Settings(rate_limits=OFF, server=ServerSettings(body_timeout_s=0.05))
    async with api_world(tmp_path, settings=settings) as world:
        for begun in ([b"{"], []):
            async with asyncio.timeout(5):
                answer = await world.client().request(
                    "POST", "/api/events/x", chunks=begun, headers={"Content-Length": "10"}, never_ends=True
                )
            assert (answer.status, answer.code) == (408, "REQ_007")


async def test_a_refused_body_is_taken_in_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that never stops sending must not be read for ever just to be told no."""
    monkeypatch.setattr(asgi_body, "DISCARD_S", 0.05)
    settings = Settings(rate_limits=OFF, server=ServerSettings(body_limit_bytes=100))
    async with api_world(tmp_path, settings=settings) as world:
        async with asyncio.timeout(5):
            answer = await world.client().request(
                "POST", "/api/events/x", headers={"Content-Length": "1000"}, never_ends=True
            )
        assert answer.status == 413


async def test_a_client_that_leaves_within_its_body_is_a_bad_request(tmp_path: Path) -> None:
    """Half a body must not be taken for a whole one."""
    gone = asyncio.Event()
    gone.set()
    async with api_world(tmp_path) as world:
        answer = await world.client().request(
            "POST",
            "/api/events/x",
            chunks=[b'{"topic":"testing"}'],
            headers={"Content-Type": "application/json"},
            never_ends=True,
            disconnect=gone,
        )
        assert answer.status == 400
        assert world.services.bus.events == {}


@pytest.mark.parametrize(
    "path", ["/api/context/..%2f..%2fetc/x", "/api/results/%00", "/api/results/%2e%2e", "/api/../x"]
)
async def test_odd_paths_are_bad_requests(tmp_path: Path, path: str) -> None:
    """An encoded slash would otherwise change which route and which name is meant."""
    async with api_world(tmp_path) as world:
        answer = await world.client().get(path)
        assert (answer.status, answer.code) == (400, "REQ_001")


@pytest.mark.allow_blocking("the renderer of the console, which a server does not log by, looks for source files")
async def test_an_unexpected_error_tells_nothing_of_its_inside(tmp_path: Path) -> None:
    """Tracebacks and messages of libraries hold paths and secrets."""
    async with api_world(tmp_path) as world:
        world.services.agents.failure = RuntimeError("secret at /home/me")
        body = {"agent_type": "go-specialist", "issue_id": "i", "task": "t"}
        answer = await world.client().post("/api/agents/spawn", body)
        assert (answer.status, answer.code) == (500, "SYS_001")
        assert b"secret" not in answer.body
        assert answer.json()["request_id"] == answer.headers["x-request-id"]


async def test_answers_are_counted_by_route_pattern(tmp_path: Path) -> None:
    """A label per issue would fill the monitor's memory and tell names of issues."""
    async with api_world(tmp_path) as world:
        client = world.client()
        await client.get("/api/context/secret-issue/python-specialist")
        await client.get("/api/results/secret-result")
        await client.get("/nowhere-secret")
        text = (await client.get("/metrics")).body.decode()
        assert 'route="/api/context/<issue_id>/<agent_type>",status="200"' in text
        assert 'route="/api/results/<result_id>",status="404"' in text
        assert 'route="unknown",status="404"' in text
        assert "secret" not in text

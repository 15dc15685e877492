"""Requests, retries and errors of both clients, over real connections to a scripted server."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.client import APIError, AsyncClient, BadAnswer, Client, ClientError, Retry, SidecarUnavailable, calls
from api.client.request import NotSent, Request, normal_url
from tests.support.scripted import Reply, ScriptedServer, Seen, error_reply

Send = Callable[[str, Request[Any], Retry], Any]
QUICK = Retry(base_s=0.001, cap_s=0.002)


def send_blocking(url: str, request: Request[Any], retry: Retry) -> Any:
    with Client(url, "token", retry=retry, timeout_s=0.5) as client:
        return client.send(request)


def send_async(url: str, request: Request[Any], retry: Retry) -> Any:
    async def go() -> Any:
        async with AsyncClient(url, "token", retry=retry, timeout_s=0.5) as client:
            return await client.send(request)

    return asyncio.run(go())


both = pytest.mark.parametrize("send", [send_blocking, send_async], ids=["blocking", "asyncio"])


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@both
def test_token_and_body(send: Send) -> None:
    """Prevents a request without its token, its content type, or with a body that is not what was meant."""
    with ScriptedServer([Reply(201, {"agent_id": "a"})]) as server:
        assert send(server.url, calls.spawn("code-reviewer", "i", "Look"), QUICK) == {"agent_id": "a"}
    seen = server.seen[0]
    assert seen.path == "/api/agents/spawn"
    assert seen.headers["authorization"] == "Bearer token"
    assert seen.headers["content-type"] == "application/json"
    assert seen.json == {"agent_type": "code-reviewer", "issue_id": "i", "task": "Look"}


@both
def test_names_cannot_leave_their_place(send: Send) -> None:
    """Prevents an id with a slash from reaching another endpoint."""
    with ScriptedServer([Reply(200, {})]) as server:
        send(server.url, calls.agent("../tokens?x=1#y"), QUICK)
    assert server.seen[0].path == "/api/agents/..%2Ftokens%3Fx%3D1%23y"


@both
def test_error_body_becomes_an_error(send: Send) -> None:
    """Prevents a refusal from losing its code, message, status or request id."""
    with ScriptedServer([error_reply(404, "AGT_003", "no agent 'x'")]) as server, pytest.raises(APIError) as caught:
        send(server.url, calls.agent("x"), QUICK)
    error = caught.value
    assert (error.code, error.message, error.status, error.request_id) == ("AGT_003", "no agent 'x'", 404, "r1")
    assert len(server.seen) == 1


@both
def test_retry_after_is_obeyed(send: Send) -> None:
    """Prevents hammering a sidecar that has said when to come back."""
    with ScriptedServer([error_reply(429, "RATE_001", Retry_After="0"), Reply(200, {"agents": []})]) as server:
        assert send(server.url, calls.agents(), QUICK) == {"agents": []}
    assert len(server.seen) == 2


@both
def test_too_long_retry_after_is_told_at_once(send: Send) -> None:
    """Prevents a command that hangs for an hour because it was told to."""
    refusal = error_reply(429, "RATE_001", Retry_After="3600")
    with ScriptedServer([refusal]) as server, pytest.raises(APIError) as caught:
        send(server.url, calls.agents(), QUICK)
    assert caught.value.retry_after_s == 3600
    assert len(server.seen) == 1


@both
def test_attempts_are_bounded(send: Send) -> None:
    """Prevents trying for ever."""
    with ScriptedServer([error_reply(503, "STR_001")]) as server, pytest.raises(APIError):
        send(server.url, calls.store_result("i", {"status": "success"}), QUICK._replace(attempts=3))
    assert len(server.seen) == 3


@both
def test_retried_result_keeps_its_key(send: Send) -> None:
    """Prevents a result whose answer got lost from being stored twice."""
    lost = Reply(201, {"id": "x"}, cut_after=2)
    with ScriptedServer([lost, Reply(201, {"id": "r"})]) as server:
        assert send(server.url, calls.store_result("i", {"status": "success"}), QUICK) == {"id": "r"}
    keys = {seen.headers["idempotency-key"] for seen in server.seen}
    assert len(server.seen) == 2
    assert len(keys) == 1


@both
def test_retried_event_keeps_its_id(send: Send) -> None:
    """Prevents an event whose answer got lost from being published twice."""
    with ScriptedServer([Reply(raw=b""), Reply(202, {"event_id": "e"})]) as server:
        send(server.url, calls.publish("deployed", "deployment"), QUICK)
    assert len({seen.json["event_id"] for seen in server.seen}) == 1
    assert len(server.seen) == 2


@both
def test_lost_spawn_is_not_repeated(send: Send) -> None:
    """Prevents two agents from one request: nobody knows whether the first one was started."""
    with ScriptedServer([Reply(201, {"agent_id": "a"}, cut_after=2)]) as server, pytest.raises(SidecarUnavailable):
        send(server.url, calls.spawn("code-reviewer", "i", "Look"), QUICK)
    assert len(server.seen) == 1


@both
def test_silent_sidecar_times_out(send: Send) -> None:
    """Prevents waiting for ever for a sidecar that is stopped (SIGSTOP) but still listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(SidecarUnavailable) as caught:
            send(url, calls.agents(), Retry.never())
    assert caught.value.is_timeout


@both
def test_nothing_listens(send: Send) -> None:
    """Prevents a bare 'connection refused': the message says where it looked and how to start one."""
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(SidecarUnavailable) as caught:
        send(url, calls.spawn("x", "i", "t"), QUICK)
    assert isinstance(caught.value, NotSent)
    assert url in str(caught.value)
    assert "orchestrator serve" in str(caught.value)


@both
@pytest.mark.parametrize(
    "reply",
    [Reply(raw=b"SSH-2.0-OpenSSH_9.2\r\n"), Reply(200, b"<html>", {"Content-Type": "text/html"}), Reply(200, b"[" * 9)],
    ids=["another protocol", "a web page", "torn JSON"],
)
def test_not_a_sidecar(send: Send, reply: Reply) -> None:
    """Prevents a decoding error's traceback when something else listens on the port."""
    with ScriptedServer([reply]) as server, pytest.raises(ClientError) as caught:
        send(server.url, calls.agents(), Retry.never())
    assert isinstance(caught.value, BadAnswer)


@both
def test_wrong_shape_is_told(send: Send) -> None:
    """Prevents a KeyError from the inside of the client."""
    with ScriptedServer([Reply(200, {"unexpected": 1})]) as server, pytest.raises(BadAnswer):
        send(server.url, calls.refresh_token(), Retry.never())


@both
def test_unhealthy_answer_is_a_value(send: Send) -> None:
    """Prevents the health of an unhealthy sidecar (503) from being retried and reported as an error."""
    with ScriptedServer([Reply(503, {"status": "unhealthy"})]) as server:
        assert send(server.url, calls.health(), QUICK)["status"] == "unhealthy"
    assert len(server.seen) == 1


def test_connections_are_reused_and_replaced() -> None:
    """Prevents a connection for each call, and failing on one that the server has closed meanwhile."""
    replies = [Reply(200, {}), Reply(200, {}), Reply(200, {}, is_closing=True), Reply(200, {})]
    with ScriptedServer(replies) as server, Client(server.url) as client:
        for _ in range(4):
            client.status()
        assert server.connections == 2


async def test_cancelled_call_leaves_no_half_answer() -> None:
    """Prevents the next call from reading the answer of a cancelled one."""
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def script(seen: Seen) -> Reply:
        if "slow" in seen.path:
            asyncio.run_coroutine_threadsafe(release.wait(), loop).result()
        return Reply(200, {"path": seen.path})

    with ScriptedServer(script) as server:
        async with AsyncClient(server.url) as client:
            task = asyncio.create_task(client.send(calls.agent("slow")))
            while not server.seen:
                await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            release.set()
            assert dict(await client.agent("quick")) == {"path": "/api/agents/quick"}


async def test_many_long_polls_at_once() -> None:
    """Prevents a client that can wait only as often as a pool of threads is large."""
    ready = asyncio.Event()
    loop = asyncio.get_running_loop()

    def script(_: Seen) -> Reply:
        asyncio.run_coroutine_threadsafe(ready.wait(), loop).result()
        return Reply(200, {"events": [], "more_available": False, "next_cursor": "0", "timestamp": ""})

    with ScriptedServer(script) as server:
        async with AsyncClient(server.url) as client:
            waiting = [asyncio.create_task(client.send(calls.wait_events())) for _ in range(60)]
            while len(server.seen) < 60:
                await asyncio.sleep(0.005)
            ready.set()
            assert len(await asyncio.gather(*waiting)) == 60


@pytest.mark.parametrize(
    ("given_url", "wanted"),
    [
        ("http://127.0.0.1:3001/api", "http://127.0.0.1:3001"),
        ("127.0.0.1:3001", "http://127.0.0.1:3001"),
        ("https://host:1/", "https://host:1"),
        ("http://[::1]:3001/api/", "http://[::1]:3001"),
    ],
)
def test_urls(given_url: str, wanted: str) -> None:
    """Prevents doubled `/api` where an agent hands on its SIDECAR_URL."""
    assert normal_url(given_url) == wanted


@pytest.mark.parametrize("given_url", ["ftp://x", "", "http://", "http://a b", "http://a\r\nX: y"])
def test_bad_urls(given_url: str) -> None:
    """Prevents header injection and a confusing failure much later."""
    with pytest.raises(ValueError, match="http://HOST:PORT"):
        normal_url(given_url)


@given(st.integers(1, 50), st.floats(0.001, 10), st.floats(0.001, 100))
def test_waits_stay_in_their_bounds(attempt: int, base_s: float, cap_s: float) -> None:
    """Prevents a wait that overflows, is negative or passes the cap."""
    retry = Retry(attempts=100, base_s=base_s, cap_s=cap_s)
    delay_s = retry.delay_s(attempt, calls.agents(), APIError("STR_001", "x", 503))
    assert delay_s is not None
    assert 0 <= delay_s <= cap_s


def test_agent_side_is_standard_library_only() -> None:
    """Prevents an agent from paying for click, msgspec or h11 at each of a hundred starts."""
    program = (
        "import sys; before = set(sys.modules); import api.client.agent; "
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "['api']"

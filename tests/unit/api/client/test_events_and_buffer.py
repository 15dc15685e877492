"""Following events and output, and results that wait on disk for the sidecar."""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from api.client import AgentClient, APIError, AsyncClient, Client, EventGap, ResultBuffer, Retry
from tests.support.scripted import Reply, ScriptedServer, Seen, error_reply

QUICK = Retry(attempts=2, base_s=0.001, cap_s=0.002)


def page(*numbers: int, cursor: str, **extra: Any) -> Reply:
    """An answer with events of these numbers."""
    events = [{"event_id": f"e{n}", "cursor": str(n), "data": {"n": n}} for n in numbers]
    return Reply(200, {"events": events, "more_available": False, "next_cursor": cursor, "timestamp": "", **extra})


def query_of(seen: Seen) -> dict[str, str]:
    """The parameters of a request."""
    return {name: values[0] for name, values in parse_qs(urlsplit(seen.path).query).items()}


def token(expires_at: float) -> str:
    """Something with the form of a JWT."""
    claims = base64.urlsafe_b64encode(json.dumps({"exp": expires_at}).encode()).rstrip(b"=").decode()
    return f"e30.{claims}.c2ln"


def test_events_go_on_from_the_cursor() -> None:
    """Prevents an event from being given twice or left out between two polls."""
    replies = [page(1, 2, cursor="2"), page(cursor="2", timeout=True), page(3, cursor="3")]
    with ScriptedServer(replies) as server, Client(server.url, retry=QUICK) as client:
        found = [event["data"]["n"] for event in islice(client.iterate_events("a,b", since="earliest"), 3)]
        assert found == [1, 2, 3]
        assert [query_of(seen)["since"] for seen in server.seen] == ["earliest", "2", "2"]
        assert urlsplit(server.seen[0].path).path == "/api/events/wait/a,b"


def test_durable_consumer_acknowledges_after_the_work() -> None:
    """Prevents an event from counting as received while its reader may still fail on it."""
    replies = [page(1, 2, cursor="2"), page(3, cursor="3"), page(cursor="3", timeout=True), page(4, cursor="4")]
    with ScriptedServer(replies) as server, Client(server.url, retry=QUICK) as client:
        events = client.iterate_events("a", since=None, consumer="me")
        assert next(events)["cursor"] == "1"
        assert next(events)["cursor"] == "2"
        assert [query_of(seen)["ack"] for seen in server.seen] == ["none"]
        assert [event["cursor"] for event in islice(events, 2)] == ["3", "4"]
        assert [query_of(seen)["ack"] for seen in server.seen] == ["none", "2", "3", "3"]
        assert "since" not in query_of(server.seen[0])


def test_gap_is_raised_unless_told() -> None:
    """Prevents lost events from being skipped silently."""
    gap = page(7, cursor="7", gap=True, oldest_cursor="6")
    with ScriptedServer([gap]) as server, Client(server.url, retry=QUICK) as client:
        with pytest.raises(EventGap) as caught:
            next(client.iterate_events(since="2"))
        assert (caught.value.since, caught.value.oldest_cursor, caught.value.resume) == ("2", "6", "7")
        told: list[Any] = []
        assert next(client.iterate_events(since="2", on_gap=told.append))["cursor"] == "7"
        assert told[0]["oldest_cursor"] == "6"


def test_a_sidecar_that_comes_back_is_waited_for() -> None:
    """Prevents a follower from dying of a restart."""
    replies = [page(1, cursor="1"), Reply(raw=b""), Reply(raw=b""), page(2, cursor="2")]
    with ScriptedServer(replies) as server:
        client = Client(server.url, retry=Retry.never(), sleep=lambda _: None)
        found = islice(client.iterate_events(since="earliest", patience_s=30.0), 2)
        assert [event["cursor"] for event in found] == ["1", "2"]
        client.close()


async def test_asyncio_events_and_output() -> None:
    """Prevents the two clients from differing."""

    def script(seen: Seen) -> Reply:
        if "/wait/" in seen.path:
            return page(1, 2, cursor="2")
        if "/output" in seen.path:
            since = int(query_of(seen)["since"])
            data = b"hello world"[since : since + 6]
            octets = {"X-Next-Offset": str(since + len(data)), "Content-Type": "application/octet-stream"}
            return Reply(200, data, octets)
        return Reply(200, {"status": "completed"})

    with ScriptedServer(script) as server:
        async with AsyncClient(server.url, retry=QUICK) as client:
            events = client.iterate_events(since="earliest")
            assert [(await anext(events))["cursor"], (await anext(events))["cursor"]] == ["1", "2"]
            assert [data async for data in client.follow_output("a")] == [b"hello ", b"world"]


def test_output_is_followed_to_its_very_end() -> None:
    """Prevents losing what an agent says between the last empty read and the news of its end."""
    parts = {0: b"one\n", 4: b"", 8: b""}
    states: Iterator[str] = iter(["running", "completed", "completed"])
    looks: list[str] = []

    def script(seen: Seen) -> Reply:
        if "/output" not in seen.path:
            status = next(states)
            if status == "completed":
                parts[4] = b"two\n"  # said just before the end, after it was looked for
            looks.append(status)
            return Reply(200, {"status": status})
        since = int(query_of(seen)["since"])
        return Reply(200, parts[since], {"X-Next-Offset": str(since + len(parts[since]))})

    with ScriptedServer(script) as server, Client(server.url, retry=QUICK, sleep=lambda _: None) as client:
        assert list(client.follow_output("a")) == [b"one\n", b"two\n"]
        assert looks[:2] == ["running", "completed"]


def test_buffer_keeps_what_cannot_be_sent(tmp_path: Path) -> None:
    """Prevents an agent's work from being lost while the sidecar is away (degradation)."""
    buffer = ResultBuffer(tmp_path / "outbox")
    for number in range(3):
        path = buffer.put("i", {"status": "success", "n": number}, agent_type="code-reviewer")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    away = Client("http://127.0.0.1:1", retry=Retry.never())
    assert buffer.flush(away) == ([], 3, [])
    with ScriptedServer([Reply(201, {"id": "r"})]) as server, Client(server.url, retry=QUICK) as client:
        assert len(buffer.flush(client).stored) == 3
        assert [seen.json["result"]["n"] for seen in server.seen] == [0, 1, 2]
        assert len({seen.headers["idempotency-key"] for seen in server.seen}) == 3
    assert len(buffer) == 0


def test_buffer_sends_again_under_the_same_key(tmp_path: Path) -> None:
    """Prevents a second copy when the answer to the first attempt got lost."""
    buffer = ResultBuffer(tmp_path)
    path = buffer.put("i", {"status": "success"})
    with ScriptedServer([Reply(201, {"id": "r"}, cut_after=1)]) as server:
        assert buffer.flush(Client(server.url, retry=Retry.never())).waiting == 1
        first = server.seen[0].headers["idempotency-key"]
    with ScriptedServer([Reply(201, {"id": "r"})]) as server, Client(server.url) as client:
        assert buffer.flush(client).waiting == 0
        assert server.seen[0].headers["idempotency-key"] == first == path.stem


def test_buffer_sets_refused_results_aside(tmp_path: Path) -> None:
    """Prevents one bad result from blocking all that come after it."""
    buffer = ResultBuffer(tmp_path)
    buffer.put("i", {"status": "great"})
    (tmp_path / "00000000000000000000-torn.json").write_text("{", encoding="utf-8")
    buffer.put("i", {"status": "success"})

    def script(seen: Seen) -> Reply:
        is_bad = seen.json["result"]["status"] == "great"
        return error_reply(400, "REQ_001", "status must be ...") if is_bad else Reply(201, {"id": "r"})

    with ScriptedServer(script) as server, Client(server.url, retry=QUICK) as client:
        flushed = buffer.flush(client)
    assert len(flushed.stored) == 1
    assert flushed.waiting == 0
    reasons = [path.with_suffix(".reason").read_text(encoding="utf-8") for path in flushed.refused]
    assert "not a buffered result" in reasons[0]
    assert "REQ_001" in reasons[1]


def agent_environment(url: str, directory: Path, expires_at: float) -> dict[str, str]:
    """What the sidecar gives an agent."""
    return {
        "AGENT_ID": "agt_1",
        "AGENT_TYPE": "code-reviewer",
        "ISSUE_ID": "i",
        "PROJECT_ID": "p",
        "SIDECAR_URL": f"{url}/api",
        "JWT_TOKEN": token(expires_at),
        "AGENT_CONTEXT_FILE": str(directory / "context.json"),
    }


def test_agent_delivers_later_what_it_could_not_now(tmp_path: Path) -> None:
    """Prevents an agent from failing, or waiting for ever, because the sidecar is away."""
    env = agent_environment("http://127.0.0.1:1", tmp_path, 4e9)
    agent = AgentClient(env, retry=Retry.never())
    assert agent.deliver({"status": "success", "n": 1}) is None
    with ScriptedServer([Reply(201, {"id": "first"}), Reply(201, {"id": "second"})]) as server:
        agent = AgentClient({**env, "SIDECAR_URL": server.url}, retry=QUICK)
        stored = agent.deliver({"status": "success", "n": 2})
        assert stored is not None
        assert stored["id"] == "second"
        assert [seen.json["result"]["n"] for seen in server.seen] == [1, 2]
        assert server.seen[0].json["agent_id"] == "agt_1"
        agent.close()


def test_agent_is_told_of_a_refused_result(tmp_path: Path) -> None:
    """Prevents a malformed result from vanishing quietly."""
    with ScriptedServer([error_reply(400, "REQ_001", "result.status must be one of ...")]) as server:
        agent = AgentClient(agent_environment(server.url, tmp_path, 4e9), retry=QUICK)
        with pytest.raises(APIError, match=r"result\.status"):
            agent.deliver({"status": "great"})
        agent.close()


def test_agent_renews_its_token_in_time(tmp_path: Path) -> None:
    """Prevents an agent that works longer than its token lives from being locked out."""
    new = token(9000.0)

    def script(seen: Seen) -> Reply:
        return Reply(200, {"jwt_token": new}) if seen.path.endswith("/refresh") else Reply(200, {"events": []})

    now = [1000.0]
    with ScriptedServer(script) as server:
        env = agent_environment(server.url, tmp_path, 2000.0)
        agent = AgentClient(env, retry=QUICK, now=lambda: now[0])
        agent.events()
        now[0] = 1800.0
        agent.events()
        agent.events()
        agent.close()
    paths = [urlsplit(seen.path).path for seen in server.seen]
    assert paths == ["/api/events", "/api/tokens/refresh", "/api/events", "/api/events"]
    used = [seen.headers["authorization"] for seen in server.seen]
    assert used == [f"Bearer {env['JWT_TOKEN']}"] * 2 + [f"Bearer {new}"] * 2

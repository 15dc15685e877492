"""Routes over fakes: what is particular to each."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from tests.support.api_fakes import FakeClock, agent_record, api_world

RESULT = {"issue_id": "i", "result": {"status": "success", "own_key": {"kept": [1, None]}}}


async def test_an_idempotency_key_stores_once(tmp_path: Path) -> None:
    """A client whose answer was lost sends again: one round, and the first answer byte for byte."""
    async with api_world(tmp_path) as world:
        client = world.client("go-specialist")
        key = {"Idempotency-Key": "k-1"}
        first = await client.post("/api/results", RESULT, key)
        again = await client.post("/api/results", RESULT, key)
        assert first.status == again.status == 201
        assert first.body == again.body
        reused = await client.post("/api/results", {**RESULT, "issue_id": "other"}, key)
        assert (reused.status, reused.json()["error"]) == (409, "idempotency_key_reused")
        other = await world.client("go-specialist", agent_id="another").post("/api/results", RESULT, key)
        assert other.json()["id"] != first.json()["id"], "a key is its caller's own"
        assert (await client.post("/api/results", RESULT, {"Idempotency-Key": "x" * 256})).status == 400
        page = (await client.get("/api/results?issue_id=i")).json()
        assert len(page["results"]) == 2
        assert page["results"][0]["result"]["own_key"] == {"kept": [1, None]}


async def test_two_requests_with_one_key_at_once_store_once(tmp_path: Path) -> None:
    """The retry may overtake the first request's remembered answer."""
    async with api_world(tmp_path) as world:
        client = world.client("go-specialist")
        answers = await asyncio.gather(
            *(client.post("/api/results", RESULT, {"Idempotency-Key": "k"}) for _ in range(4))
        )
        assert len({answer.json()["id"] for answer in answers}) == 1
        assert len((await client.get("/api/results")).json()["results"]) == 1


async def test_a_long_poll_is_let_go_when_the_server_stops(tmp_path: Path) -> None:
    """Hypercorn's stop waits for open requests: a poll of 5 minutes would hold it."""
    async with api_world(tmp_path) as world:
        client = world.client()
        polling = asyncio.create_task(client.get("/api/events/wait/never?timeout=300000"))
        await world.services.bus.waiting.wait()
        assert world.waiters.release() == 1
        answer = await polling
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "SYS_002", "5")
        assert (await client.get("/api/events/wait/never?timeout=300000")).status == 503
        assert len(world.waiters) == 0


async def test_a_stream_tells_events_gaps_and_heartbeats_and_ends_with_the_server(tmp_path: Path) -> None:
    """A reader that is not told of a gap believes that it saw everything."""
    async with api_world(tmp_path) as world:
        client = world.client()
        for number in range(2):
            await client.post("/api/events/noted", {"topic": "testing", "data": {"n": number}})
        pieces = []
        async for piece in client.stream("/api/events/stream", {"Last-Event-ID": "1"}):
            pieces.append(piece)
            if piece.startswith(b": heartbeat"):
                await world.services.bus.waiting.wait()
                world.waiters.release()
        opened, event, gap, heartbeat = pieces
        assert opened == b": open\n\n"
        assert event.startswith(b"id: 2\nevent: noted\ndata: {")
        assert json.loads(event.split(b"data: ")[1])["data"] == {"n": 1}
        assert gap.startswith(b"id: 7\nevent: gap\n")
        assert heartbeat == b": heartbeat\n\n"
        assert world.services.bus.streams[0].is_closed
        for bad in ("x", "-1", "9" * 19):
            assert (await client.get("/api/events/stream", {"Last-Event-ID": bad})).status == 400
        assert (await client.get("/api/events/stream?filter=n")).code == "EVT_003"


async def test_a_stream_ends_with_its_token(tmp_path: Path) -> None:
    """A stolen token, or that of an agent that had ended, went on listening until the sidecar stopped."""
    clock = FakeClock()
    async with api_world(tmp_path, clock=clock) as world:
        for is_revoked in (True, False):
            client = world.client("chief-architect", agent_id=f"agent-{is_revoked}")
            heartbeats = 0
            async for piece in client.stream("/api/events/stream"):
                if not piece.startswith(b": heartbeat"):
                    continue
                heartbeats += 1
                assert heartbeats <= 2, "it goes on"
                if heartbeats == 2 and is_revoked:
                    await world.authority.revoke(await world.authority.verify(f"Bearer {client.token}".encode()))
                elif heartbeats == 2:
                    clock.seconds += 3601
                world.services.bus.streams[-1].beat.set()
            assert world.services.bus.streams[-1].is_closed


async def test_a_stream_ends_with_its_client(tmp_path: Path) -> None:
    """A reader that went away must free its place on the bus."""
    async with api_world(tmp_path) as world:
        stream = world.client().stream("/api/events/stream")
        async for piece in stream:
            if piece.startswith(b": heartbeat"):
                await world.services.bus.waiting.wait()
                break
        await stream.aclose()  # type: ignore[attr-defined]
        assert world.services.bus.streams[0].is_closed
        assert len(world.waiters) == 0


async def test_output_is_followed_byte_by_byte_once(tmp_path: Path) -> None:
    """Binary output, and a resume from where the connection broke."""
    async with api_world(tmp_path) as world:
        world.services.agents.records["a"] = agent_record("a", "one")
        world.services.agents.output_bytes = data = b"text\xff\x00\xfe!tail"
        client = world.client()
        raw = await client.get("/api/agents/a/output?since=2&limit=3")
        assert (raw.body, raw.headers["x-next-offset"]) == (data[2:5], "5")
        assert raw.headers["content-type"] == "application/octet-stream"

        async def follow(headers: dict[str, str | None]) -> list[tuple[str, dict[str, object]]]:
            text = b"".join([piece async for piece in client.stream("/api/agents/a/output?follow=true", headers)])
            found = []
            for part in text.decode().split("\n\n"):
                fields = dict(line.split(": ", 1) for line in part.splitlines() if not line.startswith(":"))
                if "data" in fields:
                    found.append((fields["id"], json.loads(fields["data"])))
            return found

        assert (await follow({}))[-1][1] == {"stream": "stdout", "next_offset": 12}
        world.services.agents.truncated_at = 12
        assert (await client.get("/api/agents/a/output")).headers["x-truncated-at"] == "12"
        whole = await follow({})
        assert [number for number, _ in whole] == ["4", "8", "12", "12"]
        assert whole[0][1]["text"] == "text"
        assert whole[1][1]["base64"] == "/wD+IQ=="
        assert whole[3][1] == {"stream": "stdout", "next_offset": 12, "truncated_at": 12}
        assert [number for number, _ in await follow({"Last-Event-ID": "8"})] == ["12", "12"]


async def test_an_unchanged_context_is_not_sent_again(tmp_path: Path) -> None:
    """ETag and If-None-Match, by the weak comparison that proxies use."""
    async with api_world(tmp_path) as world:
        client = world.client("go-specialist")
        path = "/api/context/i/go-specialist"
        assert (await client.get(path)).headers["etag"] == '"abc"'
        for tag in ('"abc"', 'W/"abc"', '"x", "abc"', "*"):
            answer = await client.get(path, {"If-None-Match": tag})
            assert (answer.status, answer.body) == (304, b"")
        assert (await client.get(path, {"If-None-Match": '"x"'})).status == 200


async def test_a_provisional_context_is_asked_for_and_kept_nowhere(tmp_path: Path) -> None:
    """A client or proxy went on with a provisional context; one was given to somebody who had not asked for it."""
    async with api_world(tmp_path) as world:
        client = world.client("go-specialist")
        path = "/api/context/i/go-specialist"
        answer = await client.get(f"{path}?partial=true", {"If-None-Match": '"abc"'})
        assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
        assert (await client.post(path, {"partial": True})).headers["cache-control"] == "no-store"
        assert (await client.get(path)).headers["cache-control"] == "private, no-cache"
        assert [request.partial for _, request in world.services.context.requests] == [True, True, False]
        assert (await client.get(f"{path}?partial=perhaps")).status == 400


async def test_only_an_operator_names_a_command(tmp_path: Path) -> None:
    """A command is code of the caller's choice with the operator's rights."""
    async with api_world(tmp_path) as world:
        body = {"agent_type": "go-specialist", "issue_id": "i", "task": "t", "command": ["sh"]}
        refused = await world.client("chief-architect").post("/api/agents/spawn", body)
        assert (refused.status, refused.json()["details"]["field"]) == (403, "command")
        assert (await world.client().post("/api/agents/spawn", body)).status == 201
        log = (tmp_path / "world" / "audit.log").read_text().splitlines()
        (line,) = [json.loads(text) for text in log]
        assert (line["action"], line["subject"], line["agent_id"]) == ("spawn", "me", "agt-1")


async def test_an_unhealthy_sidecar_answers_503(tmp_path: Path) -> None:
    """A monitor looks at the status alone."""
    async with api_world(tmp_path) as world:
        for status, code in (("healthy", 200), ("degraded", 200), ("unhealthy", 503)):
            world.services.health_answer["status"] = status
            assert (await world.anonymous().get("/health")).status == code


async def test_the_documents_name_every_route(tmp_path: Path) -> None:
    """A route that is not documented does not exist for its users; no reference may lead nowhere."""
    async with api_world(tmp_path) as world:
        client = world.anonymous()
        document = (await client.get("/openapi.json")).json()
        text = json.dumps(document)
        names = {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}
        assert names <= set(document["components"]["schemas"])
        page = (await client.get("/docs")).body.decode()
        for path, methods in document["paths"].items():
            assert path in page
            for operation in methods.values():
                assert operation["summary"]
                assert "REQ_001" in json.dumps(operation["responses"])
        assert "http://" not in page
        assert "<script" not in page
        assert "coordination" in (await client.get("/asyncapi.json")).json()["channels"]


async def test_a_run_tells_who_began_it(tmp_path: Path) -> None:
    """A run did not record its creator, so that the budget of triggers began anew behind it."""
    async with api_world(tmp_path) as world:
        architect = world.client("chief-architect", agent_id="ag_1")
        run = (await architect.post("/api/runs", {"issue_id": "i", "task": "t", "created_by": "someone"})).json()
        assert run["created_by"] == "ag_1"
        assert (await architect.get(f"/api/runs/{run['run_id']}")).json()["created_by"] == "ag_1"

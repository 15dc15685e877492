"""Conservation over HTTP: 50 publishers and 50 readers of every kind, through three kills of the real sidecar."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.client import APIError, AsyncClient, SidecarUnavailable
from tests.support.agents import spawn
from tests.support.processes import assert_no_survivors
from tests.support.repo import sample_repository
from tests.support.server import Server
from tests.support.waiting import until_async

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

KILLS = 3
PUBLISHERS = 50
POLLS, ITERATORS, STREAMS, CONSUMERS, AGENTS = 14, 6, 10, 10, 10
#: Events that must be acknowledged before each kill, and after the last.
EACH = 200
PATIENCE_S = 120.0
#: A topic that the agents' role subscribes to.
TOPIC, TYPE = "testing", "conserved"
#: What a client meets while the sidecar is down or starting.
AWAY = (SidecarUnavailable, APIError, httpx.HTTPError)


def free_port() -> int:
    """A port below those that the system gives to clients, since it must be free again after each kill."""
    while True:
        port = random.randrange(20_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class Reader:
    """What one reader saw, in the order in which it saw it."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.seen: list[str] = []
        self.known: set[str] = set()

    def take(self, event: Any) -> None:
        """Keep one event."""
        self.seen.append(event["event_id"])
        self.known.add(event["event_id"])


class Exchange:
    """Publishers and readers over one address; all go on by themselves when the sidecar is back."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.token = token
        self.acknowledged: dict[str, int] = {}
        self.sent_at: dict[str, float] = {}
        self.is_closing = False
        self.readers: list[Reader] = []

    def client(self) -> AsyncClient:
        """A client of its own for each party, so that no two share connections."""
        return AsyncClient(self.url, self.token)

    async def publish(self, worker: int) -> None:
        """Publish one after the other; what was not acknowledged is sent again under its id."""
        number = 0
        async with self.client() as client:
            while not self.is_closing:
                number += 1
                event_id = f"w{worker}-{number}"
                self.sent_at[event_id] = time.monotonic()
                while event_id not in self.acknowledged:
                    with suppress(*AWAY):
                        answer = await client.publish(TYPE, TOPIC, {"n": number}, event_id=event_id)
                        self.acknowledged[event_id] = int(answer["cursor"])
                        continue
                    await asyncio.sleep(0.05)

    async def poll(self, reader: Reader) -> None:
        """Long polls by cursor."""
        cursor = "earliest"
        async with self.client() as client:
            while True:
                with suppress(*AWAY):
                    page = await client.wait_events(TYPE, since=cursor, limit=40, timeout_ms=5000)
                    assert not page.get("gap")
                    for event in page["events"]:
                        reader.take(event)
                    cursor = page["next_cursor"]
                    continue
                await asyncio.sleep(0.05)

    async def iterate(self, reader: Reader) -> None:
        """The Python client's endless iterator, never restarted by hand."""
        async with self.client() as client:
            events = client.iterate_events(TYPE, since="earliest", patience_s=PATIENCE_S, poll_ms=5000)
            async for event in events:
                reader.take(event)

    async def consume(self, reader: Reader) -> None:
        """A durable consumer that forgets everything when the sidecar goes away, as if it had died too."""
        ack = "none"
        async with self.client() as client:
            while True:
                try:
                    page = await client.wait_events(TYPE, consumer=reader.kind, ack=ack, limit=40, timeout_ms=5000)
                except AWAY:
                    ack = "none"
                    await asyncio.sleep(0.05)
                    continue
                assert not page.get("gap")
                for event in page["events"]:
                    reader.take(event)
                ack = page["next_cursor"]

    async def stream(self, reader: Reader) -> None:
        """Server-sent events, resumed by ``Last-Event-ID``."""
        last_id = ""
        async with httpx.AsyncClient(trust_env=False, timeout=None) as client:
            while True:
                with suppress(httpx.HTTPError):
                    async for event_id, event in self._messages(client, last_id):
                        last_id = event_id
                        reader.take(event)
                await asyncio.sleep(0.05)

    async def _messages(self, client: httpx.AsyncClient, last_id: str) -> AsyncIterator[tuple[str, Any]]:
        headers = {"Authorization": f"Bearer {self.token}"} | ({"Last-Event-ID": last_id} if last_id else {})
        query = {"type": TYPE, "since": "earliest"}
        async with client.stream("GET", f"{self.url}/api/events/stream", params=query, headers=headers) as answer:
            fields: dict[str, str] = {}
            async for line in answer.aiter_lines():
                name, _, value = line.partition(":")
                if name:
                    fields[name] = value.strip()
                elif not line:
                    # Only a message that its empty line ended was received.
                    if "data" in fields:
                        assert fields["event"] == TYPE
                        yield fields["id"], json.loads(fields["data"])
                    fields = {}

    def start(self) -> list[asyncio.Task[None]]:
        """All readers, then all publishers."""
        tasks = []
        for kind, count in (("poll", POLLS), ("iterate", ITERATORS), ("stream", STREAMS), ("consume", CONSUMERS)):
            for number in range(count):
                reader = Reader(f"{kind}-{number}")
                self.readers.append(reader)
                tasks.append(asyncio.create_task(getattr(self, kind)(reader), name=reader.kind))
        return tasks + [asyncio.create_task(self.publish(n), name=f"publish-{n}") for n in range(PUBLISHERS)]


class Fed:
    """An agent that writes what comes on its stdin to a file; it ends with its sidecar."""

    def __init__(self, server: Server, file: Path) -> None:
        self.file = file
        spawn(server.api(), "conservation", f"exec cat > {file}", agent_type="python-specialist")
        self.since = time.monotonic()

    def events(self) -> list[str]:
        """Ids of the events it got, in order; a line that a kill tore off does not count."""
        if not self.file.exists():
            return []
        lines = [json.loads(line) for line in self.file.read_bytes().split(b"\n")[:-1]]
        return [line["event_id"] for line in lines if line.get("event_type") == TYPE]


async def one_life(server: Server, exchange: Exchange, directory: Path, life: int) -> list[Fed]:
    """Feed agents and let events flow until enough were acknowledged and every agent got some."""
    agents = [await asyncio.to_thread(Fed, server, directory / f"stdin-{life}-{n}") for n in range(AGENTS)]
    enough = len(exchange.acknowledged) + EACH
    await until_async(lambda: len(exchange.acknowledged) >= enough, timeout_s=PATIENCE_S, what="events flow")
    await until_async(lambda: all(agent.events() for agent in agents), timeout_s=PATIENCE_S, what="agents are fed")
    return agents


def check_fed(agents: list[Fed], order: list[str], exchange: Exchange, *, to_the_end: bool) -> None:
    """From its start on, each agent got an unbroken piece of the log, each event once."""
    for agent in agents:
        got = agent.events()
        first = order.index(got[0])
        assert got == order[first : first + len(got)]
        missed = [event_id for event_id in order[:first] if exchange.sent_at[event_id] > agent.since]
        assert not missed, "events that were published after the agent had started did not reach it"
        assert not to_the_end or got[-1] == order[-1]


async def test_conservation_through_three_kills(tmp_path: Path) -> None:
    """A kill lost, repeated or reordered an acknowledged event for some kind of reader."""
    storage, projects = tmp_path / "storage", {"sample": sample_repository(tmp_path / "sample")}
    settings = {"ORCHESTRATOR_RATE_LIMITS": "off"}
    server = Server(storage, projects, arguments=["--port", str(free_port())], environment=settings)
    tasks: list[asyncio.Task[None]] = []
    try:
        await asyncio.to_thread(server.start)
        exchange = Exchange(server.url, await asyncio.to_thread(server.token))
        tasks = exchange.start()
        killed: list[list[Fed]] = []
        for life in range(KILLS):
            killed.append(await one_life(server, exchange, tmp_path, life))
            await asyncio.to_thread(server.kill9)
            await asyncio.to_thread(assert_no_survivors, str(storage), timeout_s=5)
            await asyncio.to_thread(server.restart)
        last = await one_life(server, exchange, tmp_path, KILLS)
        exchange.is_closing = True
        await asyncio.wait_for(asyncio.gather(*tasks[-PUBLISHERS:]), PATIENCE_S)
        order = sorted(exchange.acknowledged, key=exchange.acknowledged.__getitem__)
        await until_async(
            lambda: failed(tasks) or all(len(reader.known) >= len(order) for reader in exchange.readers),
            timeout_s=PATIENCE_S,
            what=lambda: f"all get {len(order)}: { {r.kind: len(r.known) for r in exchange.readers} }",
        )
        assert not failed(tasks)
        await until_async(
            lambda: all(agent.events()[-1] == order[-1] for agent in last),
            timeout_s=PATIENCE_S,
            what=lambda: f"agents get all: {[len(agent.events()) for agent in last]}",
        )
        for agents in killed:
            check_fed(agents, order, exchange, to_the_end=False)
        check_fed(last, order, exchange, to_the_end=True)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(server.close, check=False)
    assert len(order) >= EACH * (KILLS + 1)
    for reader in exchange.readers:
        is_durable = reader.kind.startswith("consume")
        assert (list(dict.fromkeys(reader.seen)) if is_durable else reader.seen) == order, reader.kind


def failed(tasks: list[asyncio.Task[None]]) -> list[str]:
    """Readers and publishers that ended with an error."""
    return [f"{task.get_name()}: {task.exception()!r}" for task in tasks if task.done() and task.exception()]

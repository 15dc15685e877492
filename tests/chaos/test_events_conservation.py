"""Every acknowledged event reaches every reader through kills of the process that serves them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

pytestmark = pytest.mark.chaos

#: Publishers, cursor readers, durable readers and a stream over one bus; each line on stdout is one fact.
SCRIPT = """
import asyncio, sys
from pathlib import Path
from orchestrator.config import EventSettings
from orchestrator.events import EventBus, EventQuery
from orchestrator.models import Event, EventDraft
from orchestrator.storage import SqliteStorage

directory, run, publishers, cursors = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4].split(",")

def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + " .\\n")
    sys.stdout.flush()

async def publish(bus, worker):
    for n in range(10_000):
        draft = EventDraft(event_type="t", publisher="p", topic="t", data={"n": n}, event_id=f"{run}-{worker}-{n}")
        say("acknowledged", (await bus.publish("p1", draft)).event.event_id)

async def follow(bus, reader, cursor):
    while True:
        page = await bus.wait("p1", EventQuery(since=cursor, limit=50, timeout_s=1.0), subscriber=f"r{reader}")
        cursor = page.next_cursor
        say("cursor", reader, cursor, *[event.event_id for event in page.events])
        if page.timeout and not publishers:
            return

async def consume(bus, reader):
    ack = None
    while True:
        query = EventQuery(consumer=f"c{reader}", ack=ack or "none", limit=50, timeout_s=1.0)
        page = await bus.wait("p1", query, subscriber="x")
        say("durable", reader, page.next_cursor, *[event.event_id for event in page.events])
        ack = page.next_cursor
        if page.timeout and not publishers:
            return

async def main():
    storage = SqliteStorage(Path(directory))
    await storage.open()
    bus = EventBus(storage, EventSettings(keep=1_000_000))
    await bus.start()
    readers = [follow(bus, n, cursor) for n, cursor in enumerate(cursors)] + [consume(bus, n) for n in range(5)]
    await asyncio.gather(*readers, *[publish(bus, n) for n in range(publishers)])
    await bus.stop()
    await storage.close()

asyncio.run(main())
"""


class Facts:
    """What the processes said before they were killed."""

    def __init__(self) -> None:
        self.acknowledged: set[str] = set()
        self.cursors = ["0"] * 5
        self.by_cursor: defaultdict[str, list[str]] = defaultdict(list)
        self.by_durable: defaultdict[str, list[str]] = defaultdict(list)

    def take(self, line: str) -> None:
        """Keep one line; a torn one (without its end) was never said."""
        if not line.endswith(" .\n"):
            return
        kind, *words = line.split()[:-1]
        if kind == "acknowledged":
            self.acknowledged.add(words[0])
        elif kind == "cursor":
            self.cursors[int(words[0])] = words[1]
            self.by_cursor[words[0]] += words[2:]
        elif kind == "durable":
            self.by_durable[words[0]] += words[2:]


def serve(directory: Path, run: int, publishers: int, facts: Facts, *, kill_after: int | None) -> None:
    """Run the script; kill it after so many lines, or let it end."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(directory), str(run), str(publishers), ",".join(facts.cursors)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    with process:
        assert process.stdout is not None
        for number, line in enumerate(process.stdout):
            facts.take(line)
            if number == kill_after:
                process.kill()
    assert process.returncode == (0 if kill_after is None else -9)


def test_45_every_acknowledged_event_reaches_every_reader(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A kill lost an acknowledged event, repeated one to a cursor reader, or skipped one for a durable reader."""
    facts = Facts()
    rounds = max(3, request.config.option.chaos_rounds)
    for run in range(rounds):
        serve(tmp_path, run, 20, facts, kill_after=1500)
    serve(tmp_path, rounds, 0, facts, kill_after=None)
    assert len(facts.acknowledged) > rounds * 100
    orders = []
    for reader in map(str, range(5)):
        seen = facts.by_cursor[reader]
        assert len(seen) == len(set(seen)), "a cursor reader got an event twice"
        assert facts.acknowledged <= set(seen)
        durable = facts.by_durable[reader]
        assert facts.acknowledged <= set(durable)
        orders += [seen, list(dict.fromkeys(durable))]
    assert all(order == orders[0] for order in orders), "two readers saw different orders"

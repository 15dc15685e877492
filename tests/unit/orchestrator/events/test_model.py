"""A stateful property test: publish, wait, consume, expire, trim and restart against a plain model."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from orchestrator.config import EventSettings
from orchestrator.events import EventPage, EventQuery
from tests.support.events import PROJECT, Sidecar, draft
from tests.support.storages import ManualClock

KEEP = 8
_TYPES = st.sampled_from(["a", "b"])
_ASKED = st.sampled_from([None, ("a",), ("b",), ("a", "b")])
_LIMIT = st.integers(1, 4)


class EventLogMachine(RuleBasedStateMachine):
    """Drives a bus; the model is a list of ``(seq, type, k, expires_at)`` and positions of readers."""

    @initialize()
    def begin(self) -> None:
        """A fresh storage."""
        self.runner = asyncio.Runner()
        self.directory = tempfile.TemporaryDirectory()
        self.clock = ManualClock()
        settings_ = EventSettings(keep=KEEP)
        self.sidecar = Sidecar(Path(self.directory.name) / "s", self.clock, settings_)
        self.runner.run(self.sidecar.start())
        self.events: list[tuple[int, str, int, float]] = []
        self.ids: dict[str, int] = {}
        self.oldest = 1
        self.position: int | None = None
        self.acked: int | None = None
        self.delivered = 0

    def teardown(self) -> None:
        """Close everything."""
        if hasattr(self, "runner"):
            self.runner.run(self.sidecar.stop())
            self.runner.close()
            self.directory.cleanup()

    # -- the model -----------------------------------------------------------------------------

    @property
    def newest(self) -> int:
        """The model's newest sequence number."""
        return len(self.events)

    def floor(self) -> int:
        """The oldest retained sequence number."""
        self.oldest = max(self.oldest, self.newest - KEEP + 1)
        return self.oldest

    def live(self, after: int, types: tuple[str, ...] | None, k: int | None = None) -> list[int]:
        """What a reader may be given after a position."""
        floor = self.floor()
        return [
            seq
            for seq, event_type, value, expires_at in self.events
            if seq > after
            and seq >= floor
            and expires_at > self.clock.now()
            and (types is None or event_type in types)
            and (k is None or value == k)
        ]

    def wait(self, **fields: Any) -> EventPage:
        """A poll that does not wait."""
        return self.runner.run(self.sidecar.bus.wait(PROJECT, EventQuery(timeout_s=0.0, **fields), subscriber="r"))

    # -- rules ---------------------------------------------------------------------------------

    @rule(event_type=_TYPES, k=st.integers(0, 2), ttl=st.sampled_from([5, 86400]), count=st.integers(1, 5))
    def publish(self, event_type: str, k: int, ttl: int, count: int) -> None:
        """New events get the next numbers."""
        for _ in range(count):
            event = self.runner.run(self.sidecar.publish(event_type, data={"k": k}, ttl_seconds=ttl))
            self.events.append((event.seq, event_type, k, self.clock.now() + ttl))
            assert event.seq == len(self.events)

    @rule(event_id=st.sampled_from(["x", "y"]))
    def publish_with_id(self, event_id: str) -> None:
        """A repeated id keeps its first number."""
        published = self.runner.run(self.sidecar.bus.publish(PROJECT, draft("a", event_id=event_id)))
        assert published.is_duplicate == (event_id in self.ids)
        if not published.is_duplicate:
            self.ids[event_id] = published.event.seq
            self.events.append((published.event.seq, "a", -1, self.clock.now() + 86400))
        assert published.event.seq == self.ids[event_id]

    @rule(types=_ASKED, limit=_LIMIT, k=st.sampled_from([None, 1]))
    def read_from_the_beginning(self, types: tuple[str, ...] | None, limit: int, k: int | None) -> None:
        """All live matches, oldest first, page by page, each once."""
        expected = self.live(0, types, k)
        found: list[int] = []
        since: str | None = None
        while True:
            page = self.wait(types=types, limit=limit, since=since, filter=None if k is None else f"k:{k}")
            found += [event.seq for event in page.events]
            since = page.next_cursor
            assert not page.gap
            if not page.more_available:
                break
        assert found == expected
        assert since == str(self.newest)

    @rule(limit=_LIMIT)
    def read_on(self, limit: int) -> None:
        """A cursor reader gets every event once, or is told of a gap."""
        if self.position is None:
            self.position = self.newest
        page = self.wait(since=str(self.position), limit=limit)
        assert page.gap == (self.position + 1 < self.floor())
        expected = self.live(self.position, None)
        assert [event.seq for event in page.events] == expected[:limit]
        assert page.more_available == (len(expected) > limit)
        self.position = int(page.next_cursor)
        assert self.live(self.position, None) == expected[limit:]

    @rule(limit=_LIMIT, ack=st.sampled_from(["implicit", "none", "all", "first"]))
    def consume(self, limit: int, ack: str) -> None:
        """A durable reader misses nothing, and is given again exactly what it did not acknowledge."""
        if self.acked is None:
            self.acked = self.delivered = self.floor() - 1
        text: str | None = None
        until: int | None = None
        if ack == "implicit":
            self.acked = self.delivered
        elif ack == "none":
            text, until = "none", self.delivered
        else:
            outstanding = self.live(self.acked, ("a",))
            first = outstanding[0] if outstanding and outstanding[0] <= self.delivered else self.delivered
            self.acked = self.delivered if ack == "all" else max(self.acked, first)
            text = str(self.acked)
        page = self.wait(types=("a",), consumer="c", limit=limit, ack=text)
        assert page.gap == (self.acked + 1 < self.floor())
        expected = self.live(self.acked, ("a",))
        repeats = [seq for seq in expected if until is not None and seq <= until]
        given = [event.seq for event in page.events]
        assert given == (repeats or expected)[:limit]
        self.delivered = int(page.next_cursor)
        if not given:
            self.acked = self.delivered
        assert [seq for seq in expected if seq <= self.delivered] == given

    @rule(seconds=st.integers(1, 10))
    def let_time_pass(self, seconds: int) -> None:
        """Events expire."""
        self.clock.seconds += seconds

    @precondition(lambda self: self.events)
    @rule()
    def sweep(self) -> None:
        """Expired and surplus events are removed; the oldest retained number may move."""
        self.runner.run(self.sidecar.bus.sweep())
        live = self.live(0, None)
        self.oldest = max(self.oldest, live[0] if live else self.newest + 1)

    @rule()
    def restart(self) -> None:
        """All memory is lost."""
        self.runner.run(self.sidecar.restart())


EventLogMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
TestEventLog = EventLogMachine.TestCase

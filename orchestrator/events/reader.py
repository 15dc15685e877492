"""Reading by cursor: from memory where the events are there, else from the log."""

from __future__ import annotations

import asyncio

import msgspec

from orchestrator.clock import Clock
from orchestrator.events.query import EventPage, Matcher, parse_cursor
from orchestrator.events.tail import Tail
from orchestrator.models import Event
from orchestrator.storage.base import EventLog

#: Events read from the log at once.
CHUNK = 500
#: Events examined before the event loop gets a turn.
SLICE = 2000


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """What a read found: events, how far the log was examined, and what was lost on the way."""

    events: list[Event]
    position: int
    has_more: bool
    has_gap: bool


class LogReader:
    """Reads one project's events through its tail.

    Args:
        retention_s: events older than this are not given, whatever their own time to live.
    """

    def __init__(self, log: EventLog, clock: Clock, *, retention_s: float) -> None:
        self._log = log
        self._clock = clock
        self._retention_s = retention_s

    async def read(
        self, project_id: str, tail: Tail, matcher: Matcher, after: int, limit: int, *, until: int | None = None
    ) -> Slice:
        """At most ``limit`` live matches with ``after < seq <= until``, in order."""
        found: list[Event] = []
        position = max(after, tail.oldest - 1)
        has_gap = False
        examined = 0
        while position < tail.floor and (until is None or position < until) and len(found) <= limit:
            floor = tail.floor
            # What is committed but not yet in the tail has no cursor that a reader could know: leave it out.
            chunk = [event for event in await self._log.read(project_id, position, CHUNK) if event.seq <= tail.newest]
            self._collect(chunk, matcher, found, limit, until)
            position = max(position, chunk[-1].seq) if chunk else floor
            if position + 1 < tail.oldest:
                has_gap, position = True, tail.oldest - 1
        # A reader that wants few of many that match should not make the first look at thousands.
        size = min(SLICE, max(128, limit + 1))
        while len(found) <= limit:
            batch = tail.after(position, matcher.types, size)
            self._collect(batch, matcher, found, limit, until)
            if len(batch) < size:
                # No await since the slice was taken: everything up to the newest was examined.
                position = max(position, tail.newest)
                break
            position, examined = batch[-1].seq, examined + size
            if until is not None and position >= until:
                break
            if examined >= SLICE:
                examined = 0
                await asyncio.sleep(0)
                if position + 1 < tail.oldest:
                    has_gap, position = True, tail.oldest - 1
            size = SLICE
        if len(found) > limit:
            return Slice(events=found[:limit], position=found[limit - 1].seq, has_more=True, has_gap=has_gap)
        reached = position if until is None else min(position, until)
        return Slice(events=found, position=max(after, reached), has_more=False, has_gap=has_gap)

    def _collect(
        self, events: list[Event], matcher: Matcher, found: list[Event], limit: int, until: int | None
    ) -> None:
        now = self._clock.now()
        for event in matcher.select(events):
            if len(found) > limit or (until is not None and event.seq > until):
                return
            if event.published_at + min(event.ttl_seconds, self._retention_s) > now:
                found.append(event)


def start_of(tail: Tail, since: str | None, default: str) -> tuple[int, bool]:
    """Sequence number to read after, and whether what followed the asked cursor is gone."""
    since = since or default
    if since == "earliest":
        return tail.oldest - 1, False
    if since == "latest":
        return tail.newest, False
    start = parse_cursor(since, "since")
    if start > tail.newest:
        # Not a cursor of this log as it is now: a backup was restored, or it is another project's.
        return tail.newest, True
    return start, start + 1 < tail.oldest


def page_of(tail: Tail, found: Slice, *, timeout: bool, has_gap: bool) -> EventPage:
    """An answer from what was found."""
    gap = has_gap or found.has_gap
    return EventPage(
        events=found.events,
        more_available=found.has_more,
        next_cursor=str(found.position),
        timeout=timeout,
        gap=gap,
        oldest_cursor=str(tail.oldest - 1) if gap else None,
    )

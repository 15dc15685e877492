"""An endless reader: the next event, a heartbeat, or word of a gap; it holds a page at most."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec

from orchestrator.events.reader import Slice
from orchestrator.events.subscribers import Subscriber
from orchestrator.models import Event

#: Events read ahead; a slow reader makes nothing grow beyond this.
PAGE = 64
#: Seconds between two reads of the newest events: at thousands of events a second a turn for each would slow their
#: publishers down. An event that comes later than this after the one before is given at once.
PACE_S = 0.02


class Gap(msgspec.Struct, frozen=True):
    """Events were dropped before this reader came to them; it goes on after ``oldest_cursor``."""

    oldest_cursor: str


class EventStream(AsyncIterator[Event | Gap | None]):
    """Made by ``EventBus.stream``; None stands for a heartbeat. Close it (``aclose``) when done.

    Args:
        read: reads a page after a position.
        start: gives the sequence number after which it begins, and whether events before that are missing; asked once.
        oldest: gives the sequence number of the oldest retained event.
        is_closed: whether the bus has stopped.
        release: called once at the end.
    """

    def __init__(
        self,
        *,
        read: Callable[[int, int], Awaitable[Slice]],
        start: Callable[[], Awaitable[tuple[int, bool]]],
        oldest: Callable[[], int],
        is_closed: Callable[[], bool],
        subscriber: Subscriber,
        heartbeat_s: float,
        release: Callable[[], None],
    ) -> None:
        self._read = read
        self._start = start
        self._position: int | None = None
        self._oldest = oldest
        self._is_closed = is_closed
        self._subscriber = subscriber
        self._heartbeat_s = heartbeat_s
        self._release = release
        self._page: deque[Event] = deque()
        self._not_before = 0.0
        self._begins_with_gap = False
        self._is_done = False

    async def ready(self) -> None:
        """Fix where it begins; without this the first ``__anext__`` does."""
        if self._position is None:
            self._position, self._begins_with_gap = await self._start()

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event | Gap | None:
        if self._page:
            return self._page.popleft()
        await self.ready()
        while self._position is not None and not self._is_done and not self._is_closed():
            early_s = self._not_before - asyncio.get_running_loop().time()
            if early_s > 0:
                await asyncio.sleep(early_s)
            oldest = self._oldest()
            if self._position + 1 < oldest or self._begins_with_gap:
                self._begins_with_gap = False
                self._position = oldest - 1
                return Gap(str(oldest - 1))
            self._subscriber.clear()
            found = await self._read(self._position, PAGE)
            self._position = found.position
            if found.events and not found.has_more:
                self._not_before = asyncio.get_running_loop().time() + PACE_S
            if found.events:
                self._page.extend(found.events)
                if found.has_gap:
                    return Gap(str(found.events[0].seq - 1))
                return self._page.popleft()
            if not await self._subscriber.woken(self._heartbeat_s):
                return None
        await self.aclose()
        raise StopAsyncIteration

    def ahead(self) -> Event | None:
        """The next event if it has been read already, without waiting."""
        return self._page.popleft() if self._page else None

    async def aclose(self) -> None:
        """Free its place; idempotent."""
        if not self._is_done:
            self._is_done = True
            self._release()

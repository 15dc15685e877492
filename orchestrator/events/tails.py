"""The tails of all projects: loaded when first needed, kept in step with the log."""

from __future__ import annotations

import asyncio

import msgspec

from orchestrator.config import EventSettings
from orchestrator.events.tail import Tail
from orchestrator.models import Event, LogBounds
from orchestrator.storage.base import EventLog

#: Bytes of events' data that are kept in memory for one project; older events are read from the log.
TAIL_BYTES = 64 << 20
_CHUNK = 500


class Tails:
    """Gives each project's tail, loading it once."""

    def __init__(self, log: EventLog, settings: EventSettings, *, max_bytes: int = TAIL_BYTES) -> None:
        self._log = log
        self._keep = settings.keep
        self._max_bytes = max_bytes
        self._tails: dict[str, Tail] = {}
        self._loading: dict[str, asyncio.Lock] = {}
        self._trimmed: dict[str, int] = {}

    def get(self, project_id: str) -> Tail | None:
        """The tail, when it is loaded."""
        return self._tails.get(project_id)

    async def load(self, project_id: str) -> Tail:
        """The tail, loaded from the log at the first call."""
        async with self._loading.setdefault(project_id, asyncio.Lock()):
            tail = self._tails.get(project_id)
            if tail is not None:
                return tail
            bounds = await self._log.bounds(project_id)
            tail = Tail(keep=self._keep, max_bytes=self._max_bytes)
            tail.reset(oldest=bounds.oldest, newest=bounds.newest)
            floor = max(bounds.oldest - 1, bounds.newest - self._keep)
            tail.load(floor)
            position = floor
            while chunk := await self._log.read(project_id, position, _CHUNK):
                tail.extend(chunk, [_size(event) for event in chunk])
                position = chunk[-1].seq
            self._tails[project_id] = tail
            self._trimmed[project_id] = tail.newest
        self._loading.pop(project_id, None)
        return tail

    async def catch_up(self, project_id: str, tail: Tail) -> list[Event]:
        """Add what the log has and the tail has not; those events, in order."""
        seen: list[Event] = []
        newest = (await self._log.bounds(project_id)).newest
        while tail.newest < newest:
            chunk = await self._log.read(project_id, tail.newest, _CHUNK)
            if not chunk:
                return seen + tail.skip_to(newest)
            for event in chunk:
                if event.seq > tail.newest + 1:
                    seen += tail.skip_to(event.seq - 1)
                seen += tail.add(event, _size(event))
        return seen

    def wants_trim(self, project_id: str, newest: int) -> bool:
        """Whether so much was added since the last sweep that the log should not wait for the next."""
        return newest - self._trimmed.get(project_id, 0) > max(1000, self._keep // 4)

    def trimmed(self, project_id: str, bounds: LogBounds) -> None:
        """The log was swept: follow it."""
        self._trimmed[project_id] = bounds.newest
        tail = self._tails.get(project_id)
        if tail is not None:
            tail.drop_through(bounds.oldest - 1)


def _size(event: Event) -> int:
    return len(msgspec.json.encode(event.data))

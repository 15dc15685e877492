"""A bus over a real storage, for the tests of events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from orchestrator.config import EventSettings
from orchestrator.events import EventBus
from orchestrator.models import Event, EventDraft
from orchestrator.storage import SqliteStorage
from tests.support.storages import ManualClock

PROJECT = "p1"


def make_event(data: dict[str, Any] | None = None, **fields: Any) -> Event:
    """An event that was never published."""
    values: dict[str, Any] = {
        "event_id": "evt-1",
        "event_type": "note",
        "publisher": "ag_1",
        "topic": "testing",
        "data": data or {},
        "seq": 1,
        "published_at": 1_000_000.0,
    }
    return Event(**{**values, **fields})


def draft(event_type: str = "note", data: dict[str, Any] | None = None, **fields: Any) -> EventDraft:
    """A valid draft."""
    values: dict[str, Any] = {"publisher": "ag_1", "topic": "testing"}
    return EventDraft(event_type=event_type, data=data or {}, **{**values, **fields})


class Sidecar:
    """A storage with its bus, that can be restarted."""

    def __init__(self, directory: Path, clock: ManualClock, settings: EventSettings, **options: Any) -> None:
        self.directory = directory
        self.clock = clock
        self.settings = settings
        self.options = options
        self.storage: SqliteStorage
        self.bus: EventBus

    async def start(self) -> None:
        """Open and start."""
        self.storage = SqliteStorage(self.directory, clock=self.clock)
        await self.storage.open()
        self.bus = EventBus(self.storage, self.settings, clock=self.clock, **self.options)
        await self.bus.start()

    async def stop(self) -> None:
        """Stop and close."""
        await self.bus.stop()
        await self.storage.close()

    async def restart(self) -> None:
        """Lose all memory."""
        await self.stop()
        await self.start()

    async def publish(self, *args: Any, **fields: Any) -> Event:
        """Publish a valid draft."""
        return (await self.bus.publish(PROJECT, draft(*args, **fields))).event


@asynccontextmanager
async def running(
    directory: Path, *, clock: ManualClock | None = None, settings: EventSettings | None = None, **options: Any
) -> AsyncIterator[Sidecar]:
    """A started sidecar's bus, stopped at the end."""
    sidecar = Sidecar(directory, clock or ManualClock(), settings or EventSettings(), **options)
    await sidecar.start()
    try:
        yield sidecar
    finally:
        await sidecar.stop()

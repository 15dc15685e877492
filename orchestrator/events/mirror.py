"""``events/event-log.jsonl``: a copy of the log for ``tail -f``, rotated, rebuilt from the database when lost."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
import structlog

from orchestrator.config import EventSettings
from orchestrator.events.wire import EncodedEvents
from orchestrator.privacy import append_whole
from orchestrator.storage.base import EventLog
from orchestrator.storage.connection import make_private_directory, make_private_file

log = structlog.get_logger(__name__)

#: Seconds between two writes of what was published meanwhile.
WRITE_EVERY_S = 0.2
#: Bytes that wait for a write at most; beyond it lines are dropped (and counted): the database has them.
MAX_WAITING_BYTES = 32 << 20
FILE_NAME = "event-log.jsonl"


class LogMirror:
    """Appends lines ``{"project_id": …, …the event…}`` in a thread, well behind the publishers.

    Args:
        directory: ``<storage>/events``.
        settings: a file that reaches ``log_file_bytes`` becomes ``event-log.jsonl.1``.
        files: so many rotated files stay (``.1`` is the newest).
    """

    def __init__(self, directory: Path, settings: EventSettings, *, files: int = 3) -> None:
        self.path = directory / FILE_NAME
        self._max_bytes = settings.log_file_bytes
        self._files = files
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._task: asyncio.Task[None] | None = None
        self._is_failing = False
        self.dropped = 0

    def start(self) -> None:
        """Begin to write; call in the event loop."""
        if self._task is None:
            self._task = asyncio.create_task(self._write_forever(), name="event-mirror")

    async def stop(self) -> None:
        """Write what waits, then end; idempotent."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await self.flush()

    def append(self, project_id: str, encoded: bytes) -> None:
        """Take one event's JSON."""
        if self._waiting_bytes + len(encoded) > MAX_WAITING_BYTES:
            self.dropped += 1
            return
        self._waiting.append(mirror_line(project_id, encoded))
        self._waiting_bytes += len(encoded)

    async def flush(self) -> None:
        """Write what waits now. The first write that fails is logged; the copy can be rebuilt."""
        lines, self._waiting, self._waiting_bytes = self._waiting, [], 0
        if lines:
            try:
                await asyncio.to_thread(self._write, lines)
            except Exception as error:  # noqa: BLE001 - a copy must never disturb the bus
                self.dropped += len(lines)
                if not self._is_failing:
                    log.warning("event_mirror_failed", error=str(error), lines=len(lines))
                self._is_failing = True
            else:
                if self._is_failing:
                    log.warning("event_mirror_lacks_lines", dropped=self.dropped)
                self._is_failing = False

    async def _write_forever(self) -> None:
        while True:
            await asyncio.sleep(WRITE_EVERY_S)
            await asyncio.shield(asyncio.ensure_future(self.flush()))

    def _write(self, lines: list[bytes]) -> None:
        make_private_directory(self.path.parent)
        make_private_file(self.path)
        with self.path.open("ab", buffering=0) as file:
            append_whole(file.fileno(), b"".join(lines))
            size = file.tell()
        if size >= self._max_bytes:
            self._rotate()

    def _rotate(self) -> None:
        for number in range(self._files - 1, 0, -1):
            older = self.path.with_name(f"{FILE_NAME}.{number}")
            if older.exists():
                older.replace(self.path.with_name(f"{FILE_NAME}.{number + 1}"))
        self.path.replace(self.path.with_name(f"{FILE_NAME}.1"))


def mirror_line(project_id: str, encoded: bytes) -> bytes:
    """One line of the copy: the event's JSON with its project in front."""
    return b'{"project_id":' + msgspec.json.encode(project_id) + b"," + encoded[1:] + b"\n"


async def rebuild_mirror(events: EventLog, directory: Path) -> int:
    """Replace the copy by all retained events, project by project; how many lines it has."""
    target = directory / FILE_NAME
    partial = target.with_name(FILE_NAME + ".partial")
    encoder = EncodedEvents(max_bytes=1)
    count = 0
    await asyncio.to_thread(_begin, partial)
    for project_id in await events.event_projects():
        position = 0
        while chunk := await events.read(project_id, position, 1000):
            lines = [mirror_line(project_id, encoder.get(event)) for event in chunk]
            await asyncio.to_thread(_append, partial, lines)
            position = chunk[-1].seq
            count += len(chunk)
    await asyncio.to_thread(_finish, partial, target)
    return count


def _begin(partial: Path) -> None:
    make_private_directory(partial.parent)
    partial.unlink(missing_ok=True)
    make_private_file(partial)


def _append(partial: Path, lines: list[bytes]) -> None:
    with partial.open("ab") as file:
        file.write(b"".join(lines))


def _finish(partial: Path, target: Path) -> None:
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(target)

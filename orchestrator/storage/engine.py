"""The engine under all SQLite stores: one writer, one reader for the event loop, one for long scans."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import apsw
import structlog

from orchestrator.clock import Clock
from orchestrator.errors import StorageReadFailed, StorageWriteFailed
from orchestrator.storage.connection import (
    keep_out_of_git,
    make_private_directory,
    make_private_file,
    open_reader,
    read_error,
)
from orchestrator.storage.migrations import migrate
from orchestrator.storage.reserve import Reserve
from orchestrator.storage.writer import Batch, Writer

T = TypeVar("T")

log = structlog.get_logger(__name__)


class Engine:
    """Opens the file and runs operations on it.

    Point reads run in the event loop: they take microseconds, and readers of a write-ahead log never wait
    for its writer. Whatever may touch many rows goes to ``scan``, which has a thread and a connection.
    """

    def __init__(self, directory: Path, *, clock: Clock, busy_timeout_s: float, wal_limit_bytes: int) -> None:
        self.directory = directory
        self.clock = clock
        self.path = directory / "orchestrator.db"
        self._reserve = Reserve(directory / "reserve")
        self.writer = Writer(
            self.path,
            busy_timeout_s=busy_timeout_s,
            wal_limit_bytes=wal_limit_bytes,
            on_commit=self._reserve.top_up,
        )
        self.damaged: dict[str, str] = {}
        self._reader: apsw.Connection | None = None
        self._scanner: apsw.Connection | None = None
        self._threads: ThreadPoolExecutor | None = None

    def open(self) -> None:
        """Create or migrate the file. Raises StorageReadFailed, StorageWriteFailed."""
        make_private_directory(self.directory)
        keep_out_of_git(self.directory)
        make_private_file(self.path)
        self._start_writer()
        self._reserve.keep()
        self._reader = open_reader(self.path)
        self._scanner = open_reader(self.path)
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="storage-scan")

    def _start_writer(self) -> None:
        """Open the file for writing; on a full disk with the room that was kept back for this."""
        try:
            self.writer.start(lambda connection: void(migrate(connection)))
        except StorageWriteFailed as refused:
            if refused.slug != "storage_full" or not self._reserve.release():
                raise
            log.warning("storage_reserve_used", reason=refused.message)
            self.writer.start(lambda connection: void(migrate(connection)))

    async def close(self) -> None:
        """Readers first, so that the writer is the last and can fold the log into the file; idempotent."""
        threads, self._threads = self._threads, None
        if threads is not None:
            await asyncio.to_thread(threads.shutdown)
        for connection in (self._reader, self._scanner):
            if connection is not None:
                connection.close(True)
        self._reader = self._scanner = None
        await self.writer.stop()

    async def write(self, operation: Callable[[apsw.Connection], T]) -> T:
        """Run inside a group commit; see ``Writer.run``."""
        return await self.writer.run(operation)

    async def add(self, batch: Batch, item: Any) -> Any:
        """Run as one of a batch; see ``Writer.add``."""
        return await self.writer.add(batch, item)

    def read(self, operation: Callable[[apsw.Connection], T]) -> T:
        """Run a point read now. Raises StorageReadFailed."""
        if self._reader is None:
            raise StorageReadFailed("the storage is closed", slug="storage_closed")
        try:
            return operation(self._reader)
        except apsw.Error as error:
            raise read_error(error) from error

    async def scan(self, operation: Callable[[apsw.Connection], T]) -> T:
        """Run a read of many rows in the scan thread. Raises StorageReadFailed."""
        connection, threads = self._scanner, self._threads
        if connection is None or threads is None:
            raise StorageReadFailed("the storage is closed", slug="storage_closed")
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, operation, connection)
        except apsw.Error as error:
            raise read_error(error) from error

    def quarantine(self, record: str, reason: str) -> None:
        """Remember (and log once) that ``record`` is damaged and was left out of an answer."""
        if record not in self.damaged:
            self.damaged[record] = reason
            log.error("storage_record_damaged", record=record, reason=reason)


class Repository:
    """Base of the stores: something with an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine


def void(_: object) -> None:
    """Drop a value where None is wanted."""

"""SqliteStorage: all stores over one SQLite file, with its life, health and backup."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw

from orchestrator.clock import Clock, SystemClock
from orchestrator.errors import StorageReadFailed, StorageWriteFailed
from orchestrator.storage.agents import SqliteAgents
from orchestrator.storage.connection import make_private_file
from orchestrator.storage.consumers import SqliteConsumers
from orchestrator.storage.deliveries import SqliteDeliveries
from orchestrator.storage.engine import Engine
from orchestrator.storage.events import SqliteEvents
from orchestrator.storage.knowledge import SqliteKnowledge
from orchestrator.storage.migrations import SCHEMA_VERSION
from orchestrator.storage.projects import SqliteProjects, SqliteRuns
from orchestrator.storage.results import SqliteResults
from orchestrator.storage.tokens import SqliteAnswers, SqliteTokens

#: Below this much free disk the storage calls itself degraded.
LOW_DISK_BYTES = 256 << 20


class SqliteStorage(
    SqliteProjects,
    SqliteEvents,
    SqliteConsumers,
    SqliteDeliveries,
    SqliteResults,
    SqliteAgents,
    SqliteTokens,
    SqliteAnswers,
    SqliteRuns,
    SqliteKnowledge,
):
    """Implements ``base.Storage`` in ``<directory>/orchestrator.db``.

    Args:
        directory: where the file is; made 0700 when missing.
        clock: gives ``published_at`` and decides expiry.
        busy_timeout_s: how long a write waits for a lock of another program.
        wal_limit_bytes: writes are refused while a foreign reader keeps the write-ahead log above this.
    """

    def __init__(
        self,
        directory: Path,
        *,
        clock: Clock | None = None,
        busy_timeout_s: float = 5.0,
        wal_limit_bytes: int = 1 << 30,
    ) -> None:
        self.directory = directory
        super().__init__(
            Engine(
                directory,
                clock=clock or SystemClock(),
                busy_timeout_s=busy_timeout_s,
                wal_limit_bytes=wal_limit_bytes,
            )
        )

    @property
    def engine(self) -> Engine:
        """The engine below, for repair and for figures."""
        return self._engine

    async def open(self) -> None:
        """Create or migrate. Raises StorageReadFailed for a newer schema, StorageWriteFailed."""
        await asyncio.to_thread(self._engine.open)

    async def close(self) -> None:
        """Commit what waits and close; idempotent."""
        await self._engine.close()

    async def check(self) -> dict[str, Any]:
        """Measured health: a real write and its time, the log's size, free disk, damaged records."""
        writer = self._engine.writer
        report: dict[str, Any] = {
            "status": "ok",
            "engine": f"sqlite {apsw.sqlite_lib_version()}",
            "schema_version": SCHEMA_VERSION,
            "queued_writes": writer.queued,
            "commits": writer.commits,
            "operations": writer.operations,
            "wal_bytes": await asyncio.to_thread(writer.wal_bytes),
            "damaged_records": len(self._engine.damaged),
        }
        started = time.monotonic()
        try:
            await self._engine.write(_probe)
            report["write_ms"] = round((time.monotonic() - started) * 1000, 3)
            self._engine.read(lambda connection: connection.execute("SELECT count(*) FROM projects").fetchall())
            free = await asyncio.to_thread(shutil.disk_usage, self.directory)
            report["disk_free_bytes"] = free.free
        except (StorageWriteFailed, StorageReadFailed) as error:
            report["status"] = "failed" if error.slug in ("storage_failed", "storage_closed") else "degraded"
            report["error"] = error.message
            return report
        except OSError as error:
            report.update(status="degraded", error=f"free disk space is unknown: {error}")
            return report
        if self._engine.damaged or report["disk_free_bytes"] < LOW_DISK_BYTES:
            report["status"] = "degraded"
            report["error"] = "damaged records were left out" if self._engine.damaged else "the disk is nearly full"
        return report

    async def size_bytes(self) -> int:
        """Size of the database with its log."""
        return await asyncio.to_thread(_total_size, self._engine.path)

    async def backup(self, target: str) -> None:
        """A consistent copy while running, complete or not there at all. Raises StorageWriteFailed.

        Copies in the scan thread through SQLite's backup API; ``target`` appears by an atomic rename.
        """
        try:
            await self._engine.scan(lambda connection: _copy(connection, Path(target)))
        except (OSError, StorageReadFailed) as error:
            raise StorageWriteFailed(f"{target}: the backup could not be written: {error}") from error

    def features(self) -> Sequence[str]:
        """Names for diagnosis."""
        return (f"sqlite {apsw.sqlite_lib_version()}", f"apsw {apsw.apsw_version()}", "wal", "synchronous=full", "fts5")


def _probe(connection: apsw.Connection) -> None:
    connection.execute("INSERT INTO health VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET beats = beats + 1")


def _copy(source: apsw.Connection, target: Path) -> None:
    partial = target.with_name(target.name + ".partial")
    partial.unlink(missing_ok=True)
    make_private_file(partial)
    try:
        copy = apsw.Connection(str(partial))
        try:
            with copy.backup("main", source, "main") as job:
                while not job.done:
                    job.step(1024)
            copy.execute("PRAGMA journal_mode = DELETE")
        finally:
            copy.close(True)
        _sync(partial)
        os.replace(partial, target)
        _sync(target.parent)
    finally:
        partial.unlink(missing_ok=True)


def _total_size(database: Path) -> int:
    total = 0
    for suffix in ("", "-wal", "-shm"):
        try:
            total += os.stat(f"{database}{suffix}").st_size
        except OSError:
            continue
    return total


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""The writer: one thread, the only one that writes and checkpoints, committing whole groups at once.

Callers enqueue an operation with a future. The thread takes all that is waiting, runs it inside one
``BEGIN IMMEDIATE … COMMIT`` (one fsync of the write-ahead log), and resolves all futures with one call into
their event loop. While a commit waits for the disk the next group gathers, so groups grow with the load.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import apsw
import structlog

from orchestrator.errors import SidecarError, StorageWriteFailed
from orchestrator.storage.connection import is_fatal, open_writer, write_error

T = TypeVar("T")
Operation = Callable[[apsw.Connection], Any]
#: Runs many items in one go; gives one result per item, in order; an exception as a result fails that item.
Batch = Callable[[apsw.Connection, list[Any]], Sequence[Any]]

#: At most so many operations share a commit, which bounds the time to the first answer.
MAX_GROUP = 2000

log = structlog.get_logger(__name__)


class Job:
    """One operation (or one item of a batch) and who waits for it."""

    __slots__ = ("batch", "future", "item", "loop")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], batch: Batch | None, item: Any
    ) -> None:
        self.loop = loop
        self.future = future
        self.batch = batch
        self.item = item


class Writer:
    """Owns the writing connection from ``start`` to ``stop``.

    An operation must depend on nothing but the connection: when a group fails, each of its operations is
    run again in a transaction of its own, so that one that cannot succeed does not take others with it.
    ``on_commit`` is called in the thread after every commit.
    """

    def __init__(
        self,
        path: Path,
        *,
        busy_timeout_s: float = 5.0,
        wal_limit_bytes: int = 1 << 30,
        on_commit: Callable[[], None] = lambda: None,
    ) -> None:
        self._path = path
        self._on_commit = on_commit
        self._wal = path.with_name(path.name + "-wal")
        self._busy_timeout_s = busy_timeout_s
        self._wal_limit_bytes = wal_limit_bytes
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._pid = 0
        self._identity: tuple[int, int] = (0, 0)
        self.fatal: str | None = None
        self.last_error: str | None = None
        self.commits = 0
        self.operations = 0

    def start(self, prepare: Callable[[apsw.Connection], None]) -> None:
        """Open the file, run ``prepare`` (migrations) and start the thread. Raises SidecarError."""
        try:
            connection = open_writer(self._path, busy_timeout_s=self._busy_timeout_s)
        except apsw.Error as error:
            raise write_error(error) from error
        try:
            prepare(connection)
            connection.execute("BEGIN IMMEDIATE; COMMIT")
        except apsw.Error as error:
            connection.close()
            raise write_error(error) from error
        except BaseException:
            connection.close()
            raise
        self._pid = os.getpid()
        self._identity = self._inodes()
        self.fatal = None
        self._thread = threading.Thread(target=self._run, args=(connection,), name="storage-writer", daemon=True)
        self._thread.start()

    @property
    def queued(self) -> int:
        """Operations that wait now."""
        return self._queue.qsize()

    async def run(self, operation: Callable[[apsw.Connection], T]) -> T:
        """What ``operation`` returned, once it is durable. Raises what it raised, or StorageWriteFailed."""
        result: T = await self._submit(None, operation)
        return result

    async def add(self, batch: Batch, item: Any) -> Any:
        """The result of ``item``, which ran together with all others of ``batch`` that were waiting."""
        return await self._submit(batch, item)

    def _submit(self, batch: Batch | None, item: Any) -> asyncio.Future[Any]:
        thread = self._thread
        if self.fatal is not None:
            raise StorageWriteFailed(self.fatal, slug="storage_failed")
        if thread is None or self._pid != os.getpid():
            # A forked child shares the descriptors but not the thread; writing there would corrupt the file.
            raise StorageWriteFailed("the storage is not open in this process", slug="storage_closed")
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._queue.put(Job(loop, future, batch, item))
        return future

    async def stop(self) -> None:
        """Commit what waits, checkpoint, close the file; idempotent."""
        thread, self._thread = self._thread, None
        if thread is None or self._pid != os.getpid():
            return
        self._queue.put(None)
        while thread.is_alive():
            await asyncio.to_thread(thread.join, 0.5)

    # -- in the thread -------------------------------------------------------------------------

    def _run(self, connection: apsw.Connection) -> None:
        is_stopping = False
        while not is_stopping:
            jobs: list[Job] = []
            job = self._queue.get()
            while job is not None:
                jobs.append(job)
                if len(jobs) >= MAX_GROUP:
                    break
                try:
                    job = self._queue.get_nowait()
                except queue.Empty:
                    break
            is_stopping = job is None
            if jobs:
                self._process(connection, jobs)
        self._close(connection)

    def _process(self, connection: apsw.Connection, jobs: list[Job]) -> None:
        outcomes: list[Any]
        try:
            refusal = self._refusal(connection)
            outcomes = [refusal] * len(jobs) if refusal else self._commit_all(connection, jobs)
        except Exception as error:  # noqa: BLE001 - the edge of the thread: every waiter must get an answer
            log.error("storage_writer_failed", error=str(error), kind=type(error).__name__)
            self.fatal = f"the storage's writer failed: {error}"
            outcomes = [StorageWriteFailed(self.fatal, slug="storage_failed")] * len(jobs)
        waiting: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = defaultdict(list)
        for job, outcome in zip(jobs, outcomes, strict=True):
            waiting[job.loop].append((job.future, outcome))
        for loop, answers in waiting.items():
            try:
                loop.call_soon_threadsafe(_resolve, answers)
            except RuntimeError:
                log.warning("storage_waiter_gone", operations=len(answers))

    def _commit_all(self, connection: apsw.Connection, jobs: list[Job]) -> list[Any]:
        try:
            outcomes = self._transaction(connection, jobs)
        except Exception as error:  # noqa: BLE001 - operations are foreign code; each failure is answered below
            if len(jobs) == 1 or is_fatal(error) or isinstance(error, apsw.BusyError):
                return [self._failure(error)] * len(jobs)
            return [self._commit_one(connection, job) for job in jobs]
        self.commits += 1
        self.operations += len(jobs)
        if self.last_error is not None:
            log.info("storage_writes_again", last_error=self.last_error)
            self.last_error = None
        self._on_commit()
        return outcomes

    def _commit_one(self, connection: apsw.Connection, job: Job) -> Any:
        if self.fatal is not None:
            return StorageWriteFailed(self.fatal, slug="storage_failed")
        return self._commit_all(connection, [job])[0]

    def _transaction(self, connection: apsw.Connection, jobs: list[Job]) -> list[Any]:
        outcomes: list[Any] = [None] * len(jobs)
        batches: dict[Batch, list[int]] = {}
        connection.execute("BEGIN IMMEDIATE")
        try:
            for index, job in enumerate(jobs):
                if job.batch is None:
                    outcomes[index] = job.item(connection)
                else:
                    batches.setdefault(job.batch, []).append(index)
            for batch, indexes in batches.items():
                for index, outcome in zip(indexes, batch(connection, [jobs[i].item for i in indexes]), strict=True):
                    outcomes[index] = outcome
            connection.execute("COMMIT")
        except BaseException:
            # SQLite may have rolled back by itself (disk full); a second ROLLBACK would hide the cause.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return outcomes

    def _failure(self, error: Exception) -> Exception:
        if isinstance(error, SidecarError):
            return error
        if isinstance(error, apsw.Error):
            is_first = self.last_error is None
            self.last_error = f"{type(error).__name__}: {error}"
            if is_fatal(error):
                self.fatal = (
                    f"the storage stopped writing after a fault of the disk or the file ({error}); "
                    "stop the sidecar, check the disk, run `orchestrator repair`"
                )
                log.error("storage_fail_stop", error=str(error), kind=type(error).__name__)
                return StorageWriteFailed(self.fatal, slug="storage_failed")
            if is_first:  # a full disk refuses thousands; the next line of this tells of its end
                log.warning("storage_write_failed", error=str(error), kind=type(error).__name__)
            return write_error(error)
        return error

    def _refusal(self, connection: apsw.Connection) -> StorageWriteFailed | None:
        """Why nothing can be written now: someone took the files away, or a reader pins a huge log."""
        if self.fatal is not None:
            return StorageWriteFailed(self.fatal, slug="storage_failed")
        if self._inodes() != self._identity:
            # The open log has no name any more: move what is acknowledged into the database while we can.
            try:
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_FULL)
            except apsw.Error as error:
                log.error("storage_rescue_failed", error=str(error))
            self.fatal = (
                f"{self._path.name} or its -wal file was removed or replaced while in use; "
                "restart the sidecar, and copy a running storage only with `orchestrator backup`"
            )
            log.error("storage_files_replaced", path=str(self._path))
            return StorageWriteFailed(self.fatal, slug="storage_failed")
        return self._pinned(connection)

    def _pinned(self, connection: apsw.Connection) -> StorageWriteFailed | None:
        if self.wal_bytes() <= self._wal_limit_bytes:
            return None
        try:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.BusyError:
            pass
        except apsw.Error as error:
            return StorageWriteFailed(f"the write-ahead log cannot be folded back: {error}")
        if self.wal_bytes() <= self._wal_limit_bytes:
            return None
        self.last_error = "a reader outside the sidecar pins the write-ahead log"
        return StorageWriteFailed(
            f"another program keeps a long read open on {self._path.name}; end it, then try again",
            slug="wal_pinned",
            retry_after_s=5.0,
        )

    def wal_bytes(self) -> int:
        """Size of the write-ahead log now."""
        try:
            return self._wal.stat().st_size
        except OSError:
            return 0

    def _inodes(self) -> tuple[int, int]:
        try:
            return (os.stat(self._path).st_ino, os.stat(self._wal).st_ino)
        except OSError:
            return (-1, -1)

    def _close(self, connection: apsw.Connection) -> None:
        try:
            if self.fatal is None:
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            else:
                # Closing would checkpoint pages that may be damaged; the next start recovers from the log.
                connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        except apsw.Error as error:
            log.warning("storage_checkpoint_failed", error=str(error))
        connection.close(True)


def _resolve(answers: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, outcome in answers:
        if future.done():
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

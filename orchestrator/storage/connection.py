"""Connections to the SQLite file: how they are opened, and what their errors mean."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw

from orchestrator.errors import SidecarError, StorageReadFailed, StorageWriteFailed

Row = tuple[Any, ...]

#: Extended result codes after which the kernel may have dropped dirty pages: what a later fsync says about
#: them is worthless (PostgreSQL's "fsyncgate", 2018), so nothing is retried after one.
FATAL_IO = frozenset(
    {
        apsw.SQLITE_IOERR_FSYNC,
        apsw.SQLITE_IOERR_DIR_FSYNC,
        apsw.SQLITE_IOERR_TRUNCATE,
        apsw.SQLITE_IOERR_CORRUPTFS,
        apsw.SQLITE_IOERR_DATA,
    }
)

#: A write past a size limit, and an index of the write-ahead log that cannot grow: no room, no damage.
FULL_IO = frozenset({apsw.SQLITE_IOERR_WRITE, apsw.SQLITE_IOERR_SHMSIZE})

#: What the sidecar itself puts into its storage directory.
_OWN_NAMES = frozenset(
    {"agents", "context", "events", "keys", "logs", "reserve", "results", "runs", "sidecar.json", "sidecar.lock",
     "sidecar.pid", "orchestrator.db", "orchestrator.db-shm", "orchestrator.db-wal"}
)  # fmt: skip


def make_private_directory(path: Path) -> None:
    """Create ``path`` (0700 whatever the umask). Raises StorageWriteFailed."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.chmod(0o700)
    except OSError as error:
        raise StorageWriteFailed(
            f"{path}: the storage directory cannot be made or used: {error.strerror}; "
            "choose another with --storage or ORCHESTRATOR_STORAGE",
            slug="storage_not_writable",
            details={"path": str(path)},
        ) from error


def keep_out_of_git(directory: Path) -> None:
    """Write a ``.gitignore`` that ignores all of a storage directory into it, once.

    In a work tree its keys and tokens would else be committed with the next ``git add .``, and the security auditor
    would report them. A directory that holds anything else is left alone: its other files may be somebody's work.

    Raises:
        StorageWriteFailed: it cannot be written.
    """
    path = directory / ".gitignore"
    try:
        if path.exists() or any(entry.name not in _OWN_NAMES for entry in directory.iterdir()):
            return
        make_private_file(path)
        path.write_text("# Keys, tokens and results: nothing of this belongs into a repository.\n*\n", encoding="ascii")
    except OSError as error:
        raise StorageWriteFailed(
            f"{path}: cannot be written: {error.strerror}; choose another directory with --storage",
            slug="storage_not_writable",
            details={"path": str(path)},
        ) from error


def make_private_file(path: Path) -> None:
    """Create ``path`` when it is missing, 0600 whatever the umask. Raises StorageWriteFailed."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StorageWriteFailed(
            f"{path}: cannot be written: {error.strerror}; choose another directory with --storage",
            slug="storage_not_writable",
            details={"path": str(path)},
        ) from error


def open_writer(path: Path, *, busy_timeout_s: float) -> apsw.Connection:
    """The one connection that writes: WAL, synchronous=FULL. SQLite gives ``-wal`` the database's mode."""
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(int(busy_timeout_s * 1000))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA journal_size_limit = 67108864")
    connection.execute("PRAGMA cache_size = -16384")
    # Checkpoints run inside this connection's commits only; 16 MiB of log between two keeps them rare.
    connection.wal_autocheckpoint(4096)
    return connection


def open_reader(path: Path) -> apsw.Connection:
    """A connection that only reads; it waits at most a quarter of a second for a lock."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    connection.set_busy_timeout(250)
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA cache_size = -8192")
    connection.wal_autocheckpoint(0)
    return connection


def fetch_all(connection: apsw.Connection, sql: str, bindings: Sequence[Any] = ()) -> list[Row]:
    """All rows of a query."""
    return list(connection.execute(sql, tuple(bindings)))


def fetch_one(connection: apsw.Connection, sql: str, bindings: Sequence[Any] = ()) -> Row | None:
    """The first row of a query, or None."""
    row: Row | None = connection.execute(sql, tuple(bindings)).fetchone()
    return row


def is_fatal(error: BaseException) -> bool:
    """Whether the file can no longer be trusted, so that the writer has to stop for good."""
    if isinstance(error, (apsw.CorruptError, apsw.NotADBError)):
        return True
    return isinstance(error, apsw.Error) and getattr(error, "extendedresult", 0) in FATAL_IO


def write_error(error: apsw.Error) -> SidecarError:
    """StorageWriteFailed for an error of a write, naming cause and way out."""
    if isinstance(error, (apsw.BusyError, apsw.LockedError)):
        return StorageWriteFailed(
            "the database is locked by another program; nothing was stored, try again",
            slug="storage_busy",
            retry_after_s=1.0,
        )
    if isinstance(error, apsw.FullError) or getattr(error, "extendedresult", 0) in FULL_IO:
        return StorageWriteFailed(
            "the disk is full or a file size limit is reached; nothing was stored, free some space and try again",
            slug="storage_full",
            retry_after_s=5.0,
        )
    return StorageWriteFailed(f"the database refused a write: {error}", details={"engine": type(error).__name__})


def read_error(error: apsw.Error) -> SidecarError:
    """StorageReadFailed for an error of a read."""
    return StorageReadFailed(f"the database could not be read: {error}", details={"engine": type(error).__name__})

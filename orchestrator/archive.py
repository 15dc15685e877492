"""Backups: one compressed file that holds a storage directory's truth, checked before it is put back.

What can be rebuilt (results' JSON files, the event log's copy) is left out, keys unless asked for: a new sidecar
makes new ones, and whoever has them is the operator.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import apsw
import msgspec

from orchestrator.clock import rfc3339
from orchestrator.errors import BadRequest, Conflict, SidecarError, StorageReadFailed, StorageWriteFailed
from orchestrator.privacy import make_private_directory
from orchestrator.storage.connection import open_reader
from orchestrator.storage.lock import StorageLock
from orchestrator.storage.migrations import SCHEMA_VERSION
from orchestrator.storage.renumber import newest_events, renumber_events

DATABASE = "orchestrator.db"
MANIFEST = "manifest.json"
FORMAT = 1
#: Directories that go along beside the database, and those that do only when asked for.
ALWAYS = ("runs",)
KEYS = "keys"
AGENTS = "agents"
_CHUNK = 1 << 20
_PAGES = 1024


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds: sizes and SHA-256 sums by name."""

    format: int
    schema_version: int
    created_at: str
    files: dict[str, str]
    size_bytes: int


def write_backup(storage: Path, target: Path, *, with_keys: bool = False, with_agents: bool = False) -> Manifest:
    """Write a consistent copy of ``storage`` to ``target`` (``.tar.gz``, 0600), also while a sidecar uses it.

    ``target`` appears whole or not at all. Raises StorageReadFailed (nothing there, damaged), StorageWriteFailed,
    Conflict (``target`` exists).
    """
    if not (storage / DATABASE).is_file():
        raise StorageReadFailed(f"{storage} holds no {DATABASE}; name the storage directory with --storage")
    if target.exists():
        raise Conflict(f"{target} exists already; choose another name")
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    copy = target.with_name(f".{target.name}.{os.getpid()}.db")
    names = [*ALWAYS, *([KEYS] if with_keys else []), *([AGENTS] if with_agents else [])]
    try:
        _copy_database(storage / DATABASE, copy)
        version = _check_database(copy)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            manifest = _write_archive(file, storage, copy, names, version)
            file.flush()
            os.fsync(file.fileno())
        os.rename(partial, target)
    except OSError as error:
        raise StorageWriteFailed(f"{target}: the backup could not be written: {error.strerror or error}") from error
    finally:
        for leftover in (partial, copy, Path(f"{copy}-wal"), Path(f"{copy}-shm")):
            leftover.unlink(missing_ok=True)
    return manifest


def restore_backup(source: Path, storage: Path, *, is_replacing: bool = False) -> Path | None:
    """Put a backup in place, after all of it was checked; no sidecar may be using ``storage``.

    With ``is_replacing`` what was there moves to ``replaced-<time>`` inside it, whose path is returned; keys of the
    old storage stay in force unless the backup has its own. Events are numbered anew (``renumber_events``).

    Raises BadRequest (not a backup, damaged, newer), Conflict (something is there already), StorageInUse,
    StorageWriteFailed.
    """
    if not source.is_file():
        raise BadRequest(f"{source} is not a file; name a backup that 'orchestrator backup' wrote")
    with StorageLock(storage):
        if (storage / DATABASE).exists() and not is_replacing:
            raise Conflict(f"{storage} holds a database already; --force moves it aside, --storage names another place")
        staging = storage / f".restore-{os.getpid()}"
        try:
            make_private_directory(staging)
            manifest = _unpack(source, staging)
            if manifest.schema_version > SCHEMA_VERSION:
                raise BadRequest(f"{source} was written by a newer version (schema {manifest.schema_version}); update")
            _check_database(staging / DATABASE)
            _renumber(staging / DATABASE, storage / DATABASE)
            return _swap(staging, storage)
        except OSError as error:
            raise StorageWriteFailed(f"{storage}: the restore failed: {error.strerror or error}") from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)


# -- writing ---------------------------------------------------------------------------------------


def _copy_database(source: Path, target: Path) -> None:
    """SQLite's online backup (sqlite.org/backup.html): a snapshot, whatever is being written meanwhile."""
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        reader = open_reader(source)
        copy = apsw.Connection(str(target))
        try:
            with copy.backup("main", reader, "main") as job:
                while not job.done:
                    job.step(_PAGES)
            copy.execute("PRAGMA journal_mode = DELETE")
        finally:
            copy.close(True)
            reader.close(True)
    except apsw.Error as error:
        raise StorageReadFailed(f"{source} could not be copied: {error}; see 'orchestrator repair'") from error


def _write_archive(file: IO[bytes], storage: Path, database: Path, names: list[str], version: int) -> Manifest:
    sums: dict[str, str] = {}
    total = 0
    # Level 1: a database shrinks three times at 100 MB/s; higher levels gain little and cost minutes.
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as archive:
        for name, path in [(DATABASE, database), *_members(storage, names)]:
            try:
                with path.open("rb") as content:
                    size = os.fstat(content.fileno()).st_size
                    reader = _Summing(content, size)
                    archive.addfile(_entry(name, size), reader)
            except FileNotFoundError:
                continue  # retention was faster
            sums[name] = reader.digest()
            total += size
        manifest = Manifest(
            format=FORMAT, schema_version=version, created_at=rfc3339(time.time()), files=sums, size_bytes=total
        )
        encoded = json.dumps(msgspec.to_builtins(manifest), indent=2).encode()
        archive.addfile(_entry(MANIFEST, len(encoded)), io.BytesIO(encoded))
    return manifest


def _members(storage: Path, names: list[str]) -> Iterator[tuple[str, Path]]:
    for name in names:
        for directory, _, files in os.walk(storage / name):
            for file in sorted(files):
                path = Path(directory) / file
                # Only regular files: a link in an agent's directory may point anywhere.
                if path.is_file() and not path.is_symlink():
                    yield str(path.relative_to(storage)), path


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size = size
    entry.mode = 0o600
    entry.mtime = int(time.time())
    return entry


class _Summing(io.RawIOBase):
    """Reads exactly ``size`` bytes (a growing log is cut, a shrinking one padded) and sums them."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._left = size
        self._sum = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        wanted = min(self._left, _CHUNK if size < 0 else size)
        data = self._file.read(wanted)
        data += b"\0" * (wanted - len(data))
        self._left -= len(data)
        self._sum.update(data)
        return data

    def digest(self) -> str:
        """The sum of what was read."""
        return self._sum.hexdigest()


# -- reading ---------------------------------------------------------------------------------------


def _unpack(source: Path, staging: Path) -> Manifest:
    """Extract into ``staging``, checking every sum. Raises BadRequest."""
    sums: dict[str, str] = {}
    encoded: bytes | None = None
    try:
        with tarfile.open(source, mode="r:gz") as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is None:
                    raise _bad(source, f"it holds {member.name!r}, which is no regular file")
                if member.name == MANIFEST:
                    encoded = content.read(_CHUNK << 4)
                    continue
                sums[member.name] = _extract(content, _safe_path(source, staging, member.name))
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise _bad(source, f"it cannot be read: {error}") from error
    try:
        manifest = msgspec.json.decode(encoded or b"", type=Manifest)
    except msgspec.DecodeError as error:
        raise _bad(source, "its manifest is missing or damaged") from error
    if manifest.format != FORMAT:
        raise _bad(source, f"its format {manifest.format} is unknown to this version")
    if manifest.files != sums:
        wrong = sorted({*manifest.files.items()} ^ {*sums.items()})
        raise _bad(source, f"{wrong[0][0]!r} is not what was backed up")
    if DATABASE not in sums:
        raise _bad(source, f"it holds no {DATABASE}")
    return manifest


def _safe_path(source: Path, staging: Path, name: str) -> Path:
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts or parts[0] not in (DATABASE, *ALWAYS, KEYS, AGENTS):
        raise _bad(source, f"it holds {name!r}, which is no part of a storage")
    return staging.joinpath(*parts)


def _extract(content: IO[bytes], target: Path) -> str:
    make_private_directory(target.parent)
    digest = hashlib.sha256()
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:
        while data := content.read(_CHUNK):
            digest.update(data)
            file.write(data)
        file.flush()
        os.fsync(descriptor)
    return digest.hexdigest()


def _check_database(path: Path) -> int:
    """The schema version of a sound database. Raises BadRequest."""
    try:
        connection = apsw.Connection(str(path))
        try:
            verdict = connection.execute("PRAGMA integrity_check(1)").fetchone()
            version: Any = connection.execute("PRAGMA user_version").fetchone()
        finally:
            connection.close(True)
    except apsw.Error as error:
        raise BadRequest(f"the database of the backup is damaged: {error}") from error
    if verdict is None or verdict[0] != "ok":
        raise BadRequest(f"the database is damaged: {verdict and verdict[0]}; see 'orchestrator repair'")
    return int(version[0])


def _renumber(restored: Path, replaced: Path) -> None:
    past = newest_events(replaced) if replaced.exists() else {}
    try:
        renumber_events(restored, past, time.time())
    except apsw.Error as error:
        raise StorageWriteFailed(f"the restored events could not be numbered anew: {error}") from error


def _swap(staging: Path, storage: Path) -> Path | None:
    """Move the old aside and the new into place; the database last, so that a crash leaves the old or the new."""
    aside = storage / f"replaced-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    arriving = {path.name for path in staging.iterdir()}
    leaving = arriving | {f"{DATABASE}-wal", f"{DATABASE}-shm", "results", "events"}
    existing = [name for name in sorted(leaving, reverse=True) if (storage / name).exists()]
    if existing:
        make_private_directory(aside)
    for name in existing:
        os.rename(storage / name, aside / name)
    for name in [*sorted(arriving - {DATABASE}), DATABASE]:
        os.rename(staging / name, storage / name)
    return aside if existing else None


def _bad(source: Path, reason: str) -> SidecarError:
    return BadRequest(f"{source} is not a usable backup: {reason}")

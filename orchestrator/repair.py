"""Rebuilding every copy from the one truth, the database, and saying what is damaged."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import apsw
import msgspec

from orchestrator.copies import write_copy
from orchestrator.errors import StorageReadFailed
from orchestrator.events.mirror import rebuild_mirror
from orchestrator.models import ResultQuery
from orchestrator.storage.knowledge import rebuild_index
from orchestrator.storage.lock import StorageLock
from orchestrator.storage.sqlite import SqliteStorage

#: Results read at once.
_PAGE = 500


class Repaired(msgspec.Struct, frozen=True, kw_only=True):
    """What a repair did.

    Attributes:
        is_sound: the database passed its own check and no record is damaged.
        problems: what is damaged, as SQLite or the records' checksums say it.
        results: JSON files of newest rounds that were written.
        removed: JSON files of results that the database does not know (any more).
        events: lines of the event log's copy.
        knowledge: entries of the search index.
    """

    is_sound: bool
    problems: list[str]
    results: int
    removed: int
    events: int
    knowledge: int


async def repair(storage_dir: Path) -> Repaired:
    """Rebuild results' files, the event log's copy and the search index; no sidecar may be running.

    Raises StorageInUse, StorageReadFailed (no database, or one that cannot be opened), StorageWriteFailed.
    """
    if not (storage_dir / "orchestrator.db").is_file():
        raise StorageReadFailed(f"{storage_dir} holds no orchestrator.db; name the storage directory with --storage")
    with StorageLock(storage_dir):
        storage = SqliteStorage(storage_dir)
        await storage.open()
        try:
            problems = await storage.engine.write(_integrity)
            knowledge = await storage.engine.write(rebuild_index)
            written, removed = await _rebuild_results(storage, storage_dir / "results")
            events = await rebuild_mirror(storage, storage_dir / "events")
            problems += [f"{record}: {reason}" for record, reason in storage.engine.damaged.items()]
        finally:
            await storage.close()
    return Repaired(
        is_sound=not problems,
        problems=problems,
        results=written,
        removed=removed,
        events=events,
        knowledge=knowledge,
    )


def _integrity(connection: apsw.Connection) -> list[str]:
    rows = connection.execute("PRAGMA integrity_check(20)").fetchall()
    return [str(row[0]) for row in rows if row[0] != "ok"]


async def _rebuild_results(storage: SqliteStorage, directory: Path) -> tuple[int, int]:
    """Write the newest round of every role of every issue beside the old tree, then put it in its place."""
    fresh = directory.with_name(f".{directory.name}.rebuilt")
    await asyncio.to_thread(shutil.rmtree, fresh, ignore_errors=True)
    seen: set[tuple[str, str, str]] = set()
    for project in await storage.list_projects():
        cursor: str | None = None
        while True:
            page = await storage.query_results(project.project_id, ResultQuery(limit=_PAGE, cursor=cursor))
            # Newest first: the first of a key is its newest round.
            for result in page.results:
                key = (project.project_id, result.issue_id, result.agent_type)
                if key not in seen:
                    seen.add(key)
                    await asyncio.to_thread(write_copy, fresh, result)
            cursor = page.next_cursor
            if cursor is None:
                break
    removed = await asyncio.to_thread(_count_unknown, directory, seen)
    await asyncio.to_thread(_replace_tree, fresh, directory)
    return len(seen), removed


def _count_unknown(directory: Path, known: set[tuple[str, str, str]]) -> int:
    files = (path.relative_to(directory).parts for path in directory.glob("*/*/*.json"))
    return sum((project, issue, name.removesuffix(".json")) not in known for project, issue, name in files)


def _replace_tree(fresh: Path, directory: Path) -> None:
    old = directory.with_name(f".{directory.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if directory.exists():
        directory.rename(old)
    if fresh.exists():
        fresh.rename(directory)
    shutil.rmtree(old, ignore_errors=True)

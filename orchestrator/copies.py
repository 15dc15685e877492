"""The newest round of each result as a JSON file: a copy for readers of the storage directory."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from pathlib import Path

import msgspec

from orchestrator.clock import rfc3339
from orchestrator.errors import StorageWriteFailed
from orchestrator.models import JSON, Result
from orchestrator.privacy import make_private_directory, replace_private

#: Files whose newest round is remembered; of one forgotten, the next round is simply written.
MAX_REMEMBERED = 50_000


class _File:
    """One file: the newest round that is wanted in it, and the newest that is there."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.wanted: Result | None = None
        self.written = 0


class ResultCopies:
    """Writes ``<directory>/<project>/<issue>/<agent type>.json``; rounds that come together share one write."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: OrderedDict[tuple[str, str, str], _File] = OrderedDict()

    async def keep(self, result: Result) -> Path:
        """Return the file's absolute path once it holds this round or a newer one. Raises StorageWriteFailed."""
        key = (result.project_id, result.issue_id, result.agent_type)
        file = self._files.setdefault(key, _File())
        self._files.move_to_end(key)
        if file.wanted is None or file.wanted.round < result.round:
            file.wanted = result
        async with file.lock:
            if file.written < result.round:
                newest = file.wanted
                await asyncio.to_thread(write_copy, self._directory, newest)
                file.written = newest.round
        while len(self._files) > MAX_REMEMBERED:
            self._files.popitem(last=False)
        return copy_path(self._directory, result)


def body_of(result: Result) -> JSON:
    """A result as the API shows it: ``id`` and ``round`` with the stored body."""
    return {
        "id": result.id,
        "round": result.round,
        "agent_id": result.agent_id,
        "agent_type": result.agent_type,
        "issue_id": result.issue_id,
        "project_id": result.project_id,
        "result": result.result,
        "status": result.status,
        "timestamp": result.timestamp,
        "stored_at": rfc3339(result.stored_at),
        "source": result.source,
        "attempt": result.attempt,
    }


def copy_path(directory: Path, result: Result) -> Path:
    """Where the copy of a result's role in its issue is, absolute."""
    return directory.absolute() / result.project_id / result.issue_id / f"{result.agent_type}.json"


def write_copy(directory: Path, result: Result) -> Path:
    """Write a round's file atomically (0600) and return its absolute path.

    File and directory are synced, so that a crash leaves the old file or the new one, never a torn one.
    Raises StorageWriteFailed.
    """
    target = copy_path(directory, result)
    data = msgspec.json.format(msgspec.json.encode(body_of(result)), indent=2) + b"\n"
    try:
        make_private_directory(target.parent)
        replace_private(target, data)
    except OSError as error:
        raise StorageWriteFailed(f"the result's file could not be written: {error.strerror}") from error
    return target

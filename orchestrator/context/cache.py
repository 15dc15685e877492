"""The cache of answers: least recently used first out, bounded by bytes."""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from orchestrator.context.models import Cleared

#: What an entry takes beside its body.
_ENTRY_BYTES = 1000


class Key(msgspec.Struct, frozen=True):
    """What an answer depends on, beside the project's state."""

    project_id: str
    issue_id: str
    agent_type: str
    revision: str
    task: str
    max_bytes: int
    requirements: tuple[str, ...]


class Entry(msgspec.Struct):
    """A built answer. ``body`` says ``cache_hit: true``; ``results`` names the issue's results it was made with."""

    body: bytes
    etag: str
    generation: int
    epoch: int
    results: str


class ContextCache:
    """Answers by key; not thread-safe (the event loop's).

    Args:
        capacity: bytes of bodies at most; a larger body alone is not kept.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[Key, Entry] = OrderedDict()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key) -> Entry | None:
        """The entry, now the most recently used."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def put(self, key: Key, entry: Entry) -> None:
        """Insert or replace, and drop the least recently used beyond the capacity."""
        self.drop(key)
        if len(entry.body) + _ENTRY_BYTES > self._capacity:
            return
        self._entries[key] = entry
        self.size_bytes += len(entry.body) + _ENTRY_BYTES
        while self.size_bytes > self._capacity:
            self.drop(next(iter(self._entries)))

    def drop(self, key: Key) -> int:
        """Remove an entry; the bytes freed."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return 0
        self.size_bytes -= len(entry.body) + _ENTRY_BYTES
        return len(entry.body) + _ENTRY_BYTES

    def clear(self, project_id: str, issue_id: str | None = None) -> Cleared:
        """Remove a project's entries, or those of one of its issues."""
        keys = [
            key
            for key in self._entries
            if key.project_id == project_id and (issue_id is None or key.issue_id == issue_id)
        ]
        freed = sum(self.drop(key) for key in keys)
        return Cleared(entries_removed=len(keys), bytes_freed=freed)

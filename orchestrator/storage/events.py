"""The event log's tables: appends in batches, reads by sequence number, trims."""

from __future__ import annotations

from typing import Any

import apsw

from orchestrator.errors import StorageReadFailed
from orchestrator.identifiers import new_id
from orchestrator.models import Appended, Event, EventDraft, LogBounds
from orchestrator.storage.codec import checksum, clean_text, decode_checked, encode
from orchestrator.storage.connection import Row, fetch_all, fetch_one
from orchestrator.storage.engine import Engine, Repository

INSERT_EVENT = (
    "INSERT INTO events (project_id, seq, published_at, expires_at, checksum, body) VALUES (?, ?, ?, ?, ?, ?)"
)
_REMEMBER = "INSERT INTO event_ids (project_id, event_id, seq, published_at) VALUES (?, ?, ?, ?)"
_SEEN = "SELECT seq, published_at FROM event_ids WHERE project_id = ? AND event_id = ?"
_HEAD = "SELECT newest FROM event_heads WHERE project_id = ?"
_SET_HEAD = "INSERT INTO event_heads VALUES (?, ?) ON CONFLICT (project_id) DO UPDATE SET newest = excluded.newest"
_READ = (
    "SELECT seq, checksum, body FROM events WHERE project_id = ? AND seq > ? AND expires_at > ? ORDER BY seq LIMIT ?"
)
_OLDEST = "SELECT seq FROM events WHERE project_id = ? ORDER BY seq LIMIT 1"

#: Reads of at most so many rows run in the event loop.
INLINE_ROWS = 64
#: Ids are remembered for so many times the number of events that are kept.
REMEMBERED_FACTOR = 10


class SqliteEvents(Repository):
    """Implements the log part of ``base.EventLog``."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        # One bound method object for all calls: the writer groups items by the identity of their batch.
        self._append_batch = self._append_all

    async def append(self, project_id: str, draft: EventDraft) -> Appended:
        """Append durably; a known ``event_id`` of the project is answered with the first one's event."""
        appended = await self._engine.add(self._append_batch, (project_id, draft))
        assert isinstance(appended, Appended)
        return appended

    async def flush(self) -> None:
        """Return when every append that was begun before this call is done."""
        await self._engine.write(lambda connection: None)

    async def read(self, project_id: str, after: int, limit: int) -> list[Event]:
        """Retained events with ``seq > after``, in order, expired ones left out."""
        now = self._engine.clock.now()

        def operation(connection: apsw.Connection) -> list[Row]:
            return fetch_all(connection, _READ, (project_id, after, now, limit))

        if limit <= INLINE_ROWS:
            rows = self._engine.read(operation)
        else:
            rows = await self._engine.scan(operation)
        return self._events(project_id, rows)

    async def bounds(self, project_id: str) -> LogBounds:
        """Oldest and newest retained sequence numbers; ``newest`` counts trimmed ones too."""

        def operation(connection: apsw.Connection) -> LogBounds:
            head = fetch_one(connection, _HEAD, (project_id,))
            newest = head[0] if head else 0
            row = fetch_one(connection, _OLDEST, (project_id,))
            return LogBounds(oldest=row[0] if row else newest + 1, newest=newest)

        return self._engine.read(operation)

    async def event_projects(self) -> list[str]:
        """Projects that have events, by id."""
        rows = self._engine.read(lambda c: fetch_all(c, "SELECT project_id FROM event_heads ORDER BY project_id"))
        return [row[0] for row in rows]

    async def trim(self, project_id: str, *, keep: int, older_than: float, now: float) -> int:
        """Drop events beyond the newest ``keep``, published before ``older_than`` or expired; how many."""

        def operation(connection: apsw.Connection) -> int:
            head = fetch_one(connection, _HEAD, (project_id,))
            if head is None:
                return 0
            before = connection.total_changes()
            connection.execute("DELETE FROM events WHERE project_id = ? AND seq <= ?", (project_id, head[0] - keep))
            connection.execute(
                "DELETE FROM events WHERE project_id = ? AND (published_at < ? OR expires_at <= ?)",
                (project_id, older_than, now),
            )
            dropped = connection.total_changes() - before
            connection.execute(
                "DELETE FROM event_ids WHERE project_id = ? AND (published_at < ? OR seq <= ?)",
                (project_id, older_than, head[0] - keep * REMEMBERED_FACTOR),
            )
            return dropped

        return await self._engine.write(operation)

    async def claim_once(self, project_id: str, key: str) -> bool:
        """True for exactly one caller ever per key."""

        def operation(connection: apsw.Connection) -> bool:
            connection.execute("INSERT OR IGNORE INTO claims VALUES (?, ?)", (project_id, clean_text(key)))
            return connection.changes() == 1

        return await self._engine.write(operation)

    # -- in the writer's thread ----------------------------------------------------------------

    def _append_all(self, connection: apsw.Connection, items: list[Any]) -> list[Any]:
        now = self._engine.clock.now()
        heads: dict[str, int] = {}
        fresh: dict[tuple[str, str], Event] = {}
        events: list[Row] = []
        ids: list[Row] = []
        outcomes: list[Any] = []
        for project_id, draft in items:
            event_id = draft.event_id
            if event_id is not None:
                known = fresh.get((project_id, event_id)) or self._seen(connection, project_id, event_id, draft)
                if known is not None:
                    outcomes.append(Appended(event=known, is_duplicate=True))
                    continue
            seq = heads.get(project_id)
            if seq is None:
                head = fetch_one(connection, _HEAD, (project_id,))
                seq = head[0] if head else 0
            event = _event(draft, event_id or new_id("evt"), seq + 1, now)
            body = encode(event)
            heads[project_id] = event.seq
            if event_id is not None:
                fresh[(project_id, event_id)] = event
            events.append((project_id, event.seq, now, event.expires_at, checksum(body), body))
            ids.append((project_id, event.event_id, event.seq, now))
            outcomes.append(Appended(event=event, is_duplicate=False))
        connection.executemany(INSERT_EVENT, events)
        connection.executemany(_REMEMBER, ids)
        connection.executemany(_SET_HEAD, list(heads.items()))
        return outcomes

    def _seen(self, connection: apsw.Connection, project_id: str, event_id: str, draft: EventDraft) -> Event | None:
        row = fetch_one(connection, _SEEN, (project_id, event_id))
        if row is None:
            return None
        stored = fetch_one(
            connection, "SELECT seq, checksum, body FROM events WHERE project_id = ? AND seq = ?", (project_id, row[0])
        )
        found = self._events(project_id, [stored]) if stored else []
        # Trimmed or damaged: the retry's own content with the first one's place says the same.
        return found[0] if found else _event(draft, event_id, row[0], row[1])

    def _events(self, project_id: str, rows: list[Row]) -> list[Event]:
        events = []
        for seq, check, body in rows:
            try:
                events.append(decode_checked(body, check, Event))
            except StorageReadFailed as error:
                self._engine.quarantine(f"event {project_id}/{seq}", error.message)
        return events


def _event(draft: EventDraft, event_id: str, seq: int, now: float) -> Event:
    return Event(
        event_id=event_id,
        event_type=draft.event_type,
        publisher=draft.publisher,
        topic=draft.topic,
        data=draft.data,
        seq=seq,
        published_at=now,
        ttl_seconds=draft.ttl_seconds,
        correlation_id=draft.correlation_id,
        priority=draft.priority,
        references=draft.references,
        round=draft.round,
    )

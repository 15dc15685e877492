"""Numbers events anew after a restore, so that no cursor that was ever given out names another event."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import apsw
import msgspec

from orchestrator.errors import StorageReadFailed
from orchestrator.models import Consumer, Event
from orchestrator.storage.codec import checksum, decode, decode_checked, encode
from orchestrator.storage.connection import fetch_all
from orchestrator.storage.consumers import put_consumer
from orchestrator.storage.events import INSERT_EVENT

#: Events that are held in memory at once.
_CHUNK = 200
_READ = (
    "SELECT seq, published_at, expires_at, checksum, body FROM events "
    "WHERE project_id = ? AND seq <= ? ORDER BY seq DESC LIMIT ?"
)


def newest_events(path: Path) -> dict[str, int]:
    """The newest sequence number of each project in a database; none where it cannot be read."""
    try:
        # Not to be written to, not even by the checkpoint of a last connection: it is what a user may go back to.
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            return dict(fetch_all(connection, "SELECT project_id, newest FROM event_heads"))
        finally:
            connection.close(True)
    except apsw.Error:
        return {}


def renumber_events(path: Path, past: Mapping[str, int], now: float) -> None:
    """Move every project's events, and its readers' positions with them, above all that was ever given out.

    The newest event gets the microseconds since the epoch as its number: more than any log has counted to, or can have
    counted to since an earlier restore of the same backup. Without holes, as everywhere; cursors of before are then
    older than what is retained, which is what their readers are told.

    Args:
        path: the database, which nobody uses.
        past: the newest numbers of the storage that it replaces.
        now: seconds since the epoch.

    Raises apsw.Error; then the database is as before.
    """
    connection = apsw.Connection(str(path))
    try:
        with connection:
            heads: dict[str, int] = dict(fetch_all(connection, "SELECT project_id, newest FROM event_heads"))
            known = {row[0] for row in fetch_all(connection, "SELECT project_id FROM projects")}
            for project_id in known | heads.keys() | past.keys():
                newest = heads.get(project_id, 0)
                raised = max(int(now * 1_000_000), newest + 1, past.get(project_id, 0) + 1)
                _move(connection, project_id, newest, raised - newest)
                connection.execute("INSERT OR REPLACE INTO event_heads VALUES (?, ?)", (project_id, raised))
    finally:
        connection.close(True)


def _move(connection: apsw.Connection, project_id: str, newest: int, offset: int) -> None:
    position = newest
    # From the newest on: each number is free once its own event has moved.
    while rows := fetch_all(connection, _READ, (project_id, position, _CHUNK)):
        for seq, published_at, expires_at, check, body in rows:
            connection.execute("DELETE FROM events WHERE project_id = ? AND seq = ?", (project_id, seq))
            connection.execute(
                INSERT_EVENT,
                (project_id, seq + offset, published_at, expires_at, *_moved(body, check, offset)),
            )
        position = rows[-1][0] - 1
    connection.execute("UPDATE event_ids SET seq = seq + ? WHERE project_id = ?", (offset, project_id))
    for (body,) in fetch_all(connection, "SELECT body FROM consumers WHERE project_id = ?", (project_id,)):
        try:
            consumer = decode(body, Consumer)
        except StorageReadFailed:
            continue  # damaged before: whoever reads it says so
        moved = msgspec.structs.replace(consumer, acked=consumer.acked + offset, delivered=consumer.delivered + offset)
        put_consumer(connection, project_id, moved)


def _moved(body: bytes, check: int, offset: int) -> tuple[int, bytes]:
    """Checksum and body of an event with its new number; as they are where it is damaged."""
    try:
        event = decode_checked(body, check, Event)
    except StorageReadFailed:
        return check, body
    moved = encode(msgspec.structs.replace(event, seq=event.seq + offset))
    return checksum(moved), moved

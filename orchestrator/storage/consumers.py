"""Durable readers' positions and dead letters."""

from __future__ import annotations

import apsw

from orchestrator.errors import StorageReadFailed
from orchestrator.models import Consumer, DeadLetter
from orchestrator.storage.codec import decode, encode
from orchestrator.storage.connection import fetch_all, fetch_one
from orchestrator.storage.engine import Repository

_PUT_CONSUMER = (
    "INSERT INTO consumers VALUES (?, ?, ?, ?) "
    "ON CONFLICT (project_id, name, event_type) DO UPDATE SET body = excluded.body"
)
PUT_LETTER = "INSERT OR REPLACE INTO dead_letters (project_id, id, body) VALUES (?, ?, ?)"


class SqliteConsumers(Repository):
    """Implements the consumers and dead letters of ``base.EventLog``."""

    async def get_consumer(self, project_id: str, name: str, event_type: str) -> Consumer | None:
        """The stored position, or None."""
        row = self._engine.read(
            lambda c: fetch_one(
                c,
                "SELECT body FROM consumers WHERE project_id = ? AND name = ? AND event_type = ?",
                (project_id, name, event_type),
            )
        )
        return decode(row[0], Consumer) if row else None

    async def put_consumer(self, project_id: str, consumer: Consumer) -> None:
        """Insert or replace."""
        await self._engine.write(lambda c: put_consumer(c, project_id, consumer))

    async def list_consumers(self, project_id: str) -> list[Consumer]:
        """All of a project, by name and type."""
        rows = self._engine.read(
            lambda c: fetch_all(
                c, "SELECT body FROM consumers WHERE project_id = ? ORDER BY name, event_type", (project_id,)
            )
        )
        return [decode(row[0], Consumer) for row in rows]

    async def drop_consumer(self, project_id: str, name: str, event_type: str) -> bool:
        """Whether there was one."""

        def operation(connection: apsw.Connection) -> bool:
            connection.execute(
                "DELETE FROM consumers WHERE project_id = ? AND name = ? AND event_type = ?",
                (project_id, name, event_type),
            )
            return connection.changes() == 1

        return await self._engine.write(operation)

    async def put_dead_letter(self, project_id: str, letter: DeadLetter) -> None:
        """Insert or replace."""
        await self._engine.write(
            lambda c: c.execute(PUT_LETTER, (project_id, letter.id, encode(letter))).fetchall() and None
        )

    async def list_dead_letters(self, project_id: str, *, after: str | None, limit: int) -> list[DeadLetter]:
        """Oldest first, with ids greater than ``after``."""
        rows = await self._engine.scan(
            lambda c: fetch_all(
                c,
                "SELECT id, body FROM dead_letters WHERE project_id = ? AND id > ? ORDER BY id LIMIT ?",
                (project_id, after or "", limit),
            )
        )
        letters = []
        for letter_id, body in rows:
            try:
                letters.append(decode(body, DeadLetter))
            except StorageReadFailed as error:
                self._engine.quarantine(f"dead letter {project_id}/{letter_id}", error.message)
        return letters

    async def get_dead_letter(self, project_id: str, letter_id: str) -> DeadLetter | None:
        """One, or None."""
        row = self._engine.read(
            lambda c: fetch_one(
                c, "SELECT body FROM dead_letters WHERE project_id = ? AND id = ?", (project_id, letter_id)
            )
        )
        return decode(row[0], DeadLetter) if row else None

    async def drop_dead_letter(self, project_id: str, letter_id: str) -> bool:
        """Whether there was one."""

        def operation(connection: apsw.Connection) -> bool:
            connection.execute("DELETE FROM dead_letters WHERE project_id = ? AND id = ?", (project_id, letter_id))
            return connection.changes() == 1

        return await self._engine.write(operation)

    async def count_dead_letters(self, project_id: str | None = None) -> int:
        """How many, of one project or of all."""
        row = self._engine.read(
            lambda c: fetch_one(
                c,
                "SELECT count(*) FROM dead_letters WHERE ?1 IS NULL OR project_id = ?1",
                (project_id,),
            )
        )
        return int(row[0]) if row else 0


def put_consumer(connection: apsw.Connection, project_id: str, consumer: Consumer) -> None:
    """Insert or replace, inside a transaction of the writer."""
    connection.execute(_PUT_CONSUMER, (project_id, consumer.name, consumer.event_type, encode(consumer)))

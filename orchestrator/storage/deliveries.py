"""Pushes that are still to be done (the outbox of webhooks, triggers and redrives)."""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from orchestrator.errors import StorageReadFailed
from orchestrator.models import Consumer, DeadLetter, Delivery
from orchestrator.storage.codec import decode, encode
from orchestrator.storage.connection import fetch_all, fetch_one
from orchestrator.storage.consumers import PUT_LETTER, put_consumer
from orchestrator.storage.engine import Repository

_PUT = "INSERT OR REPLACE INTO deliveries (project_id, id, next_at, body) VALUES (?, ?, ?, ?)"
_ADD = "INSERT OR IGNORE INTO deliveries (project_id, id, next_at, body) VALUES (?, ?, ?, ?)"
_DROP = "DELETE FROM deliveries WHERE project_id = ? AND id = ?"
_DROP_LETTER = "DELETE FROM dead_letters WHERE project_id = ? AND id = ?"
#: Keeps the newest ?2 of a project.
_BOUND_LETTERS = (
    "DELETE FROM dead_letters WHERE project_id = ?1 AND id IN "
    "(SELECT id FROM dead_letters WHERE project_id = ?1 ORDER BY id DESC LIMIT -1 OFFSET ?2)"
)


class SqliteDeliveries(Repository):
    """Implements ``base.DeliveryStore``."""

    async def enqueue_deliveries(self, project_id: str, position: Consumer, deliveries: Sequence[Delivery]) -> None:
        """Store deliveries and the position they were decided at, in one transaction; known ids are kept."""
        rows = [_row(delivery) for delivery in deliveries]

        def operation(connection: apsw.Connection) -> None:
            connection.executemany(_ADD, rows)
            put_consumer(connection, project_id, position)

        await self._engine.write(operation)

    async def due_deliveries(self, now: float, limit: int) -> list[Delivery]:
        """Of all projects, those with ``next_at <= now``, the longest due first."""
        rows = await self._engine.scan(
            lambda c: fetch_all(
                c,
                "SELECT project_id, id, body FROM deliveries WHERE next_at <= ? ORDER BY next_at, id LIMIT ?",
                (now, limit),
            )
        )
        due = []
        for project_id, delivery_id, body in rows:
            try:
                due.append(decode(body, Delivery))
            except StorageReadFailed as error:
                self._engine.quarantine(f"delivery {project_id}/{delivery_id}", error.message)
        return due

    async def next_delivery_at(self) -> float | None:
        """When the next one is due; None when there is none."""
        row = self._engine.read(lambda c: fetch_one(c, "SELECT min(next_at) FROM deliveries"))
        return None if row is None or row[0] is None else float(row[0])

    async def put_delivery(self, delivery: Delivery) -> None:
        """Insert or replace."""
        row = _row(delivery)

        def operation(connection: apsw.Connection) -> None:
            connection.execute(_PUT, row)

        await self._engine.write(operation)

    async def drop_delivery(self, project_id: str, delivery_id: str) -> bool:
        """Whether there was one."""

        def operation(connection: apsw.Connection) -> bool:
            connection.execute(_DROP, (project_id, delivery_id))
            return connection.changes() == 1

        return await self._engine.write(operation)

    async def give_up_delivery(self, delivery: Delivery, letter: DeadLetter, *, keep: int) -> int:
        """Replace a delivery by a dead letter; at most ``keep`` of the project stay: how many older ones went."""
        body = encode(letter)

        def operation(connection: apsw.Connection) -> int:
            connection.execute(_DROP, (delivery.project_id, delivery.id))
            connection.execute(PUT_LETTER, (delivery.project_id, letter.id, body))
            connection.execute(_BOUND_LETTERS, (delivery.project_id, keep))
            return connection.changes()

        return await self._engine.write(operation)

    async def redrive_dead_letter(self, project_id: str, letter_id: str, delivery: Delivery) -> bool:
        """Replace a dead letter by a delivery; whether there was one."""
        row = _row(delivery)

        def operation(connection: apsw.Connection) -> bool:
            connection.execute(_DROP_LETTER, (project_id, letter_id))
            if connection.changes() != 1:
                return False
            connection.execute(_PUT, row)
            return True

        return await self._engine.write(operation)

    async def count_deliveries(self, project_id: str | None = None) -> int:
        """How many wait, of one project or of all."""
        row = self._engine.read(
            lambda c: fetch_one(c, "SELECT count(*) FROM deliveries WHERE ?1 IS NULL OR project_id = ?1", (project_id,))
        )
        return int(row[0]) if row else 0


def _row(delivery: Delivery) -> tuple[str, str, float, bytes]:
    return (delivery.project_id, delivery.id, delivery.next_at, encode(delivery))

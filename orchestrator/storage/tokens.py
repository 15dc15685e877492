"""Revoked tokens and first answers to idempotent requests."""

from __future__ import annotations

import apsw

from orchestrator.storage.codec import clean_text
from orchestrator.storage.connection import fetch_all, fetch_one
from orchestrator.storage.engine import Repository

#: First answers are kept for so long; no client retries after a day.
ANSWERS_KEPT_S = 86400.0
#: Expired rows are removed in slices, so that no write waits for a large sweep.
_SLICE = 50


class SqliteTokens(Repository):
    """Implements ``base.TokenStore``."""

    async def revoke_token(self, jti: str, expires_at: float) -> bool:
        """Whether it was revoked now; exactly one caller gets True."""
        now = self._engine.clock.now()

        def operation(connection: apsw.Connection) -> bool:
            connection.execute(
                "DELETE FROM revoked_tokens WHERE jti IN (SELECT jti FROM revoked_tokens WHERE expires_at < ? LIMIT ?)",
                (now, _SLICE),
            )
            connection.execute("INSERT OR IGNORE INTO revoked_tokens VALUES (?, ?)", (clean_text(jti), expires_at))
            return connection.changes() == 1

        return await self._engine.write(operation)

    async def revoked_tokens(self, now: float) -> list[str]:
        """Those that would still be valid at ``now``."""
        rows = await self._engine.scan(
            lambda c: fetch_all(c, "SELECT jti FROM revoked_tokens WHERE expires_at >= ?", (now,))
        )
        return [row[0] for row in rows]


class SqliteAnswers(Repository):
    """Implements ``base.IdempotencyStore``."""

    async def get_answer(self, project_id: str, key: str) -> tuple[str, bytes] | None:
        """``(fingerprint of the request, answer body)`` of the first request, or None."""
        row = self._engine.read(
            lambda c: fetch_one(
                c,
                "SELECT fingerprint, answer FROM answers WHERE project_id = ? AND key = ?",
                (project_id, clean_text(key)),
            )
        )
        return (row[0], row[1]) if row else None

    async def put_answer(self, project_id: str, key: str, fingerprint: str, answer: bytes, now: float) -> None:
        """Keep the answer; the first one stays."""

        def operation(connection: apsw.Connection) -> None:
            connection.execute(
                "DELETE FROM answers WHERE rowid IN (SELECT rowid FROM answers WHERE created_at < ? LIMIT ?)",
                (now - ANSWERS_KEPT_S, _SLICE),
            )
            connection.execute(
                "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?)",
                (project_id, clean_text(key), fingerprint, answer, now),
            )

        await self._engine.write(operation)

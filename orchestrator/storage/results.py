"""Every round of every agent's outcome, with what can be searched in them."""

from __future__ import annotations

import apsw

from orchestrator.clock import rfc3339
from orchestrator.errors import BadRequest, StorageReadFailed
from orchestrator.models import Result, ResultDraft, ResultPage, ResultQuery
from orchestrator.storage.codec import checksum, decode_checked, encode
from orchestrator.storage.connection import Row, fetch_all, fetch_one
from orchestrator.storage.engine import Repository
from orchestrator.storage.knowledge import forget_results, index_result
from orchestrator.storage.paging import parse_page_cursor

_COLUMNS = "ordinal, project_id, id, checksum, body"
_INSERT = (
    "INSERT INTO results (project_id, id, issue_id, agent_type, agent_id, round, status, stored_at, checksum, body) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_NEXT_ROUND = (
    "INSERT INTO result_rounds VALUES (?, ?, ?, 1) ON CONFLICT (project_id, issue_id, agent_type) "
    "DO UPDATE SET newest = newest + 1 RETURNING newest"
)
_ONE = f"SELECT {_COLUMNS} FROM results WHERE project_id = ? AND id = ?"
_STATUSES = ("success", "failed", "partial")


class SqliteResults(Repository):
    """Implements ``base.ResultStore``."""

    async def insert_result(self, project_id: str, result_id: str, draft: ResultDraft, *, stored_at: float) -> Result:
        """Store a new round. A known ``result_id`` returns the stored one. Raises BadRequest for a bad status."""
        if draft.result.get("status") not in _STATUSES:
            raise BadRequest("result.status must be success, failed or partial", details={"field": "result.status"})

        def operation(connection: apsw.Connection) -> Result:
            known = fetch_one(connection, _ONE, (project_id, result_id))
            if known is not None:
                return self._decode(known)
            row = fetch_one(connection, _NEXT_ROUND, (project_id, draft.issue_id, draft.agent_type))
            assert row is not None
            result = _result(project_id, result_id, draft, stored_at, round_=row[0])
            body = encode(result)
            connection.execute(
                _INSERT,
                (
                    project_id,
                    result_id,
                    draft.issue_id,
                    draft.agent_type,
                    draft.agent_id,
                    result.round,
                    result.status,
                    stored_at,
                    checksum(body),
                    body,
                ),
            )
            index_result(connection, result)
            return result

        return await self._engine.write(operation)

    async def get_result(self, project_id: str, result_id: str) -> Result | None:
        """One of the project, or None. Raises StorageReadFailed when its record is damaged."""
        row = self._engine.read(lambda c: fetch_one(c, _ONE, (project_id, result_id)))
        return self._decode(row) if row else None

    async def query_results(self, project_id: str, query: ResultQuery) -> ResultPage:
        """Newest first; damaged records are left out. Raises BadRequest for a cursor that is none."""
        conditions = ["project_id = ?"]
        bindings: list[object] = [project_id]
        for column, value in (
            ("issue_id", query.issue_id),
            ("agent_type", query.agent_type),
            ("agent_id", query.agent_id),
            ("+status", query.status),
        ):
            if value is not None:
                conditions.append(f"{column} = ?")
                bindings.append(value)
        if query.since is not None:
            conditions.append("+stored_at >= ?")
            bindings.append(query.since)
        if query.until is not None:
            conditions.append("+stored_at <= ?")
            bindings.append(query.until)
        if query.cursor is not None:
            conditions.append("ordinal < ?")
            bindings.append(parse_page_cursor(query.cursor))
        sql = f"SELECT {_COLUMNS} FROM results WHERE {' AND '.join(conditions)} ORDER BY ordinal DESC LIMIT ?"
        rows = await self._engine.scan(lambda c: fetch_all(c, sql, (*bindings, query.limit + 1)))
        page = rows[: query.limit]
        following = str(page[-1][0]) if len(rows) > query.limit and page else None
        return ResultPage(results=self._readable(page), next_cursor=following)

    async def unannounced_results(self) -> list[Result]:
        """Results whose event was not yet confirmed, oldest first."""
        rows = await self._engine.scan(
            lambda c: fetch_all(c, f"SELECT {_COLUMNS} FROM results WHERE is_announced = 0 ORDER BY ordinal")
        )
        return self._readable(rows)

    async def mark_announced(self, project_id: str, result_id: str) -> None:
        """Confirm the result's event; idempotent."""

        def operation(connection: apsw.Connection) -> None:
            connection.execute(
                "UPDATE results SET is_announced = 1 WHERE project_id = ? AND id = ?", (project_id, result_id)
            )

        await self._engine.write(operation)

    async def count_results(self) -> int:
        """How many are stored, over all projects."""
        row = await self._engine.scan(lambda c: fetch_one(c, "SELECT count(*) FROM results"))
        return int(row[0]) if row else 0

    async def drop_results(self, *, older_than: float) -> int:
        """Remove those stored before ``older_than`` with what was searchable in them; how many."""

        def operation(connection: apsw.Connection) -> int:
            gone = fetch_all(connection, "SELECT project_id, id FROM results WHERE stored_at < ?", (older_than,))
            forget_results(connection, [(row[0], row[1]) for row in gone])
            connection.execute("DELETE FROM results WHERE stored_at < ?", (older_than,))
            return len(gone)

        return await self._engine.write(operation)

    def _decode(self, row: Row) -> Result:
        _, project_id, result_id, check, body = row
        try:
            return decode_checked(body, check, Result)
        except StorageReadFailed as error:
            self._engine.quarantine(f"result {project_id}/{result_id}", error.message)
            raise

    def _readable(self, rows: list[Row]) -> list[Result]:
        results = []
        for row in rows:
            try:
                results.append(self._decode(row))
            except StorageReadFailed:
                continue
        return results


def _result(project_id: str, result_id: str, draft: ResultDraft, stored_at: float, *, round_: int) -> Result:
    return Result(
        id=result_id,
        project_id=project_id,
        agent_id=draft.agent_id,
        agent_type=draft.agent_type,
        issue_id=draft.issue_id,
        round=round_,
        status=draft.result["status"],
        result=draft.result,
        timestamp=draft.timestamp or rfc3339(stored_at),
        stored_at=stored_at,
        source=draft.source,
        attempt=draft.attempt,
    )

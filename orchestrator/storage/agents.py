"""Agents' records."""

from __future__ import annotations

import apsw

from agentpool.states import FINAL_STATES
from orchestrator.errors import StorageReadFailed
from orchestrator.models import AgentPage, AgentQuery, AgentRecord
from orchestrator.storage.codec import decode, encode
from orchestrator.storage.connection import Row, fetch_all, fetch_one
from orchestrator.storage.engine import Repository
from orchestrator.storage.paging import parse_page_cursor

_PUT = (
    "INSERT INTO agents (agent_id, project_id, status, agent_type, issue_id, run_id, spawned_by, started_at, "
    "ended_at, is_open, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (agent_id) DO UPDATE SET "
    "status = excluded.status, started_at = excluded.started_at, ended_at = excluded.ended_at, "
    "is_open = excluded.is_open, body = excluded.body"
)
_FINAL = frozenset(str(state) for state in FINAL_STATES)


class SqliteAgents(Repository):
    """Implements ``base.AgentStore``."""

    async def put_agent(self, record: AgentRecord) -> None:
        """Insert or replace."""
        is_open = record.status not in _FINAL or not record.is_end_published
        row = (
            record.agent_id,
            record.project_id,
            record.status,
            record.agent_type,
            record.issue_id,
            record.request.run_id,
            record.request.spawned_by,
            record.started_at,
            record.ended_at,
            int(is_open),
            encode(record),
        )

        def operation(connection: apsw.Connection) -> None:
            connection.execute(_PUT, row)

        await self._engine.write(operation)

    async def get_agent(self, project_id: str, agent_id: str) -> AgentRecord | None:
        """One of the project, or None."""
        row = self._engine.read(
            lambda c: fetch_one(
                c, "SELECT body FROM agents WHERE agent_id = ? AND project_id = ?", (agent_id, project_id)
            )
        )
        return decode(row[0], AgentRecord) if row else None

    async def find_agent(self, agent_id: str) -> AgentRecord | None:
        """In any project."""
        row = self._engine.read(lambda c: fetch_one(c, "SELECT body FROM agents WHERE agent_id = ?", (agent_id,)))
        return decode(row[0], AgentRecord) if row else None

    async def find_spawned_by(self, project_id: str, spawned_by: str) -> AgentRecord | None:
        """The first agent whose request says so, or None."""
        row = self._engine.read(
            lambda c: fetch_one(
                c,
                "SELECT body FROM agents WHERE project_id = ? AND spawned_by = ? ORDER BY ordinal LIMIT 1",
                (project_id, spawned_by),
            )
        )
        return decode(row[0], AgentRecord) if row else None

    async def query_agents(self, project_id: str, query: AgentQuery) -> AgentPage:
        """Newest first. Raises BadRequest for a cursor that is none."""
        conditions = ["project_id = ?"]
        bindings: list[object] = [project_id]
        for column in ("status", "agent_type", "issue_id", "run_id"):
            value = getattr(query, column)
            if value is not None:
                # The leading + keeps the planner on the ordered index of the project or issue.
                conditions.append(f"{'' if column == 'issue_id' else '+'}{column} = ?")
                bindings.append(value)
        if query.cursor is not None:
            conditions.append("ordinal < ?")
            bindings.append(parse_page_cursor(query.cursor))
        sql = (
            f"SELECT ordinal, agent_id, body FROM agents WHERE {' AND '.join(conditions)} ORDER BY ordinal DESC LIMIT ?"
        )
        rows = await self._engine.scan(lambda c: fetch_all(c, sql, (*bindings, query.limit + 1)))
        page = rows[: query.limit]
        following = str(page[-1][0]) if len(rows) > query.limit and page else None
        return AgentPage(agents=self._records(page), next_cursor=following)

    async def unfinished_agents(self) -> list[AgentRecord]:
        """Whose status is not final, or whose end was not yet published; oldest first."""
        rows = await self._engine.scan(
            lambda c: fetch_all(c, "SELECT ordinal, agent_id, body FROM agents WHERE is_open = 1 ORDER BY ordinal")
        )
        return self._records(rows)

    async def count_agents(self) -> dict[str, int]:
        """How many by status, over all projects."""
        rows = self._engine.read(lambda c: fetch_all(c, "SELECT status, count(*) FROM agents GROUP BY status"))
        return dict(rows)

    async def average_duration_s(self) -> float | None:
        """Mean of ``ended_at - started_at`` of the ended ones; None without any."""
        row = await self._engine.scan(
            lambda c: fetch_one(
                c,
                "SELECT avg(ended_at - started_at) FROM agents WHERE ended_at IS NOT NULL AND started_at IS NOT NULL",
            )
        )
        return None if row is None or row[0] is None else float(row[0])

    def _records(self, rows: list[Row]) -> list[AgentRecord]:
        records = []
        for _, agent_id, body in rows:
            try:
                records.append(decode(body, AgentRecord))
            except StorageReadFailed as error:
                self._engine.quarantine(f"agent {agent_id}", error.message)
        return records

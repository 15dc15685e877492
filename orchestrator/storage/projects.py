"""Registered projects and runs."""

from __future__ import annotations

from pathlib import Path

import apsw

from orchestrator.models import Project, Run
from orchestrator.storage.codec import clean_text, decode, encode
from orchestrator.storage.connection import fetch_all, fetch_one, open_reader, read_error
from orchestrator.storage.engine import Repository

_PUT_RUN = (
    "INSERT INTO runs (run_id, project_id, status, body) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (run_id) DO UPDATE SET status = excluded.status, body = excluded.body"
)


class SqliteProjects(Repository):
    """Implements ``base.ProjectStore``."""

    async def put_project(self, project: Project) -> None:
        """Insert or replace."""
        row = (project.project_id, clean_text(project.path), project.created_at)

        def operation(connection: apsw.Connection) -> None:
            connection.execute("INSERT OR REPLACE INTO projects VALUES (?, ?, ?)", row)

        await self._engine.write(operation)

    async def get_project(self, project_id: str) -> Project | None:
        """One, or None."""
        row = self._engine.read(lambda c: fetch_one(c, "SELECT * FROM projects WHERE project_id = ?", (project_id,)))
        return Project(project_id=row[0], path=row[1], created_at=row[2]) if row else None

    async def list_projects(self) -> list[Project]:
        """All, by id."""
        rows = self._engine.read(lambda c: fetch_all(c, "SELECT * FROM projects ORDER BY project_id"))
        return [Project(project_id=row[0], path=row[1], created_at=row[2]) for row in rows]


def registered_projects(directory: Path) -> dict[str, str]:
    """Path by id of all projects in a storage directory, whether or not a sidecar runs on it; empty without a database.

    Raises StorageReadFailed.
    """
    path = directory / "orchestrator.db"
    if not path.is_file():
        return {}
    try:
        connection = open_reader(path)
        try:
            return {str(row[0]): str(row[1]) for row in fetch_all(connection, "SELECT project_id, path FROM projects")}
        finally:
            connection.close()
    except apsw.Error as error:
        raise read_error(error) from error


class SqliteRuns(Repository):
    """Implements ``base.RunStore``."""

    async def put_run(self, run: Run) -> None:
        """Insert or replace."""
        row = (run.run_id, run.project_id, run.status, encode(run))

        def operation(connection: apsw.Connection) -> None:
            connection.execute(_PUT_RUN, row)

        await self._engine.write(operation)

    async def get_run(self, project_id: str, run_id: str) -> Run | None:
        """One of the project, or None."""
        row = self._engine.read(
            lambda c: fetch_one(c, "SELECT body FROM runs WHERE project_id = ? AND run_id = ?", (project_id, run_id))
        )
        return decode(row[0], Run) if row else None

    async def list_runs(self, project_id: str, *, limit: int) -> list[Run]:
        """Newest first."""
        rows = await self._engine.scan(
            lambda c: fetch_all(
                c, "SELECT body FROM runs WHERE project_id = ? ORDER BY ordinal DESC LIMIT ?", (project_id, limit)
            )
        )
        return [decode(row[0], Run) for row in rows]

    async def unfinished_runs(self) -> list[Run]:
        """Of all projects, oldest first."""
        rows = await self._engine.scan(
            lambda c: fetch_all(
                c,
                "SELECT body FROM runs WHERE status NOT IN ('completed', 'failed', 'cancelled') ORDER BY ordinal",
            )
        )
        return [decode(row[0], Run) for row in rows]

"""Projects: the directory trees that agents work on, by id."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

from orchestrator.clock import Clock, SystemClock
from orchestrator.errors import BadRequest, Conflict, NotFound
from orchestrator.identifiers import check_identifier, is_identifier
from orchestrator.models import Project
from orchestrator.storage.base import ProjectStore


def project_id_for(path: Path) -> str:
    """An identifier made of a directory's name; odd characters become ``-``, an empty name ``project``."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.name).strip("-._")[:128]
    return name if is_identifier(name) else "project"


def is_project(directory: Path) -> bool:
    """Whether a directory says of itself that it is a project: a git checkout, or one with an ``orchestrator.toml``."""
    return (directory / ".git").exists() or (directory / "orchestrator.toml").is_file()


def check_directory(path: str) -> Path:
    """The absolute, real path of a project directory. Raises BadRequest when it is not a readable directory."""
    given = Path(path).expanduser()
    if not given.is_absolute():
        raise BadRequest(f"path must be absolute, not {path!r}", details={"field": "path"})
    try:
        real = given.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise BadRequest(
            f"path {path!r} cannot be used ({getattr(error, 'strerror', None) or 'a loop'}); name an existing one",
            details={"field": "path"},
        ) from error
    if not real.is_dir():
        raise BadRequest(f"path {path!r} is not a directory; name the project's directory", details={"field": "path"})
    return real


def _given_directory(path: str) -> Path:
    """A directory named by the operator, who may leave out where it begins."""
    return check_directory(os.path.abspath(os.path.expanduser(path)))


class ProjectService:
    """The registered projects, held in memory over a durable store.

    Args:
        store: where they are kept.
        on_added: told of each project before it can be used, those that were registered earlier too.

    Attributes:
        default_id: the project of requests that name none; None until one is added.
        given_ids: the projects that were named at the start.
    """

    def __init__(
        self,
        store: ProjectStore,
        *,
        on_added: Callable[[Project], Awaitable[None]] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._store = store
        self._on_added = on_added
        self._clock = clock or SystemClock()
        self._projects: dict[str, Project] = {}
        self.default_id: str | None = None
        self.given_ids: list[str] = []

    async def start(self, given: list[tuple[str | None, str]]) -> None:
        """Load what is registered, add ``given`` (id or None, path); the first given one is the default.

        Raises BadRequest for a path that is no directory and for an id that is given twice with different ones.
        """
        named: dict[str, Path] = {}
        for project in await self._store.list_projects():
            await self._take(project)
        for project_id, path in given:
            real = await asyncio.to_thread(_given_directory, path)
            if project_id is not None and named.setdefault(project_id, real) != real:
                raise BadRequest(
                    f"project_id {project_id!r} is given twice, for {named[project_id]} and {real}; choose two ids",
                    details={"field": "project_id"},
                )
            added = await self.add(project_id or self._free_id(real), str(real), is_replacing=True)
            self.given_ids.append(added.project_id)
            self.default_id = self.default_id or added.project_id
        if self.default_id is None and self._projects:
            self.default_id = min(self._projects.values(), key=lambda project: project.created_at).project_id

    def _free_id(self, real: Path) -> str:
        wanted = project_id_for(real)
        candidate, count = wanted, 1
        while candidate in self._projects and self._projects[candidate].path != str(real):
            count += 1
            candidate = f"{wanted[:120]}-{count}"
        return candidate

    def get(self, project_id: str) -> Project:
        """The project. Raises NotFound."""
        try:
            return self._projects[project_id]
        except KeyError:
            raise NotFound(
                f"project_id {project_id!r} is not registered; POST /api/projects or serve --project adds one",
                slug="unknown_project",
                details={"field": "project_id"},
            ) from None

    def has(self, project_id: str) -> bool:
        """Whether a project has this id."""
        return project_id in self._projects

    def list(self) -> list[Project]:
        """All, by id."""
        return [self._projects[key] for key in sorted(self._projects)]

    async def add(self, project_id: str, path: str, *, is_replacing: bool = False) -> Project:
        """Register a directory durably; the same id and path again is harmless.

        Raises BadRequest (id, path) and, unless ``is_replacing``, Conflict when the id names another directory.
        """
        check_identifier(project_id, "project_id")
        real = await asyncio.to_thread(check_directory, path)
        known = self._projects.get(project_id)
        if known is not None and known.path == str(real):
            return known
        if known is not None and not is_replacing:
            raise Conflict(
                f"project_id {project_id!r} already names another directory; choose another id",
                details={"field": "project_id"},
            )
        project = Project(project_id=project_id, path=str(real), created_at=self._clock.now())
        await self._store.put_project(project)
        await self._take(project)
        self.default_id = self.default_id or project_id
        return project

    async def _take(self, project: Project) -> None:
        if self._on_added is not None:
            await self._on_added(project)
        self._projects[project.project_id] = project

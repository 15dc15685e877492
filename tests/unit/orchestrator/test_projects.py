"""Projects: registration and its refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import BadRequest, Conflict, NotFound
from orchestrator.models import Project
from orchestrator.projects import ProjectService, project_id_for


class MemoryProjects:
    """A project store in memory."""

    def __init__(self) -> None:
        self.rows: dict[str, Project] = {}

    async def put_project(self, project: Project) -> None:
        self.rows[project.project_id] = project

    async def get_project(self, project_id: str) -> Project | None:
        return self.rows.get(project_id)

    async def list_projects(self) -> list[Project]:
        return list(self.rows.values())


@pytest.mark.parametrize(
    ("name", "project_id"), [("shop", "shop"), ("My Shop!", "My-Shop"), ("...", "project"), ("ünïcode", "n-code")]
)
def test_ids_are_made_of_directory_names(name: str, project_id: str) -> None:
    """A directory with a space in its name could not be served."""
    assert project_id_for(Path("/x") / name) == project_id


async def test_first_given_project_is_the_default(tmp_path: Path) -> None:
    """The default changed with the order of the database."""
    for name in ("b", "a", "other/a"):
        (tmp_path / name).mkdir(parents=True)
    service = ProjectService(MemoryProjects())
    await service.start([(None, str(tmp_path / "b")), (None, str(tmp_path / "a")), (None, str(tmp_path / "other/a"))])
    assert service.default_id == "b"
    assert [project.project_id for project in service.list()] == ["a", "a-2", "b"]


async def test_refusals_say_what_is_wrong(tmp_path: Path) -> None:
    """A file, a missing directory or a relative path was registered and failed much later."""
    (tmp_path / "file").touch()
    service = ProjectService(MemoryProjects())
    for path in (str(tmp_path / "file"), str(tmp_path / "missing"), "relative"):
        with pytest.raises(BadRequest) as caught:
            await service.add("p", path)
        assert caught.value.details["field"] == "path"
    with pytest.raises(BadRequest):
        await service.add("../p", str(tmp_path))
    with pytest.raises(NotFound):
        service.get("p")


async def test_an_id_is_not_taken_over(tmp_path: Path) -> None:
    """A second registration silently pointed running agents' project at another tree."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    service = ProjectService(MemoryProjects())
    first = await service.add("p", str(tmp_path / "one"))
    assert await service.add("p", str(tmp_path / "one")) == first
    with pytest.raises(Conflict):
        await service.add("p", str(tmp_path / "two"))


async def test_one_id_for_two_directories_is_refused_at_the_start(tmp_path: Path) -> None:
    """serve --project a=X --project a=Y silently worked on Y only."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    service = ProjectService(MemoryProjects())
    with pytest.raises(BadRequest, match="given twice"):
        await service.start([("a", str(tmp_path / "one")), ("a", str(tmp_path / "two"))])

"""``profiles``: what is shown of roles, what is found wrong, and what a new one begins with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from api.cli.app import run
from orchestrator.profiles import Profiles
from orchestrator.profiles.graph import mermaid
from orchestrator.profiles.schema import profile_schema
from tests.support.profiles import write_profile


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a time-out of its own for a shipped role, whose user has no profiles."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    root = tmp_path / "project"
    write_profile(
        root / ".orchestrator" / "profiles" / "code-reviewer.md", "name: code-reviewer\ntimeout_seconds: 77", ""
    )
    return root.resolve()


def said(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> str:
    """What a command prints to stdout; it must exit with ``code``."""
    assert run(["profiles", *map(str, arguments)]) == code, capsys.readouterr().err
    return capsys.readouterr().out


def row_of(table: str, key: str) -> str:
    """The line of a table that begins with ``key``."""
    return next(line for line in table.splitlines() if line.split(" ")[0] == key)


def test_show_tells_where_each_value_comes_from(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents an overlay whose effect nobody can see."""
    table = said(capsys, "show", "code-reviewer", "--project", project)
    line = row_of(table, "timeout_seconds")
    assert line.split() == ["timeout_seconds", "77", ".orchestrator/profiles/code-reviewer.md"]
    assert row_of(table, "category").endswith("profiles/code-reviewer.md")
    assert str(project) not in row_of(table, "category")
    assert row_of(table, "is_final").split()[-1] == "default"
    assert "debugger (findings)" in row_of(table, "hands_over_to")
    assert table.rstrip().endswith(Profiles().get("code-reviewer").instructions.rstrip())


def test_show_gives_programs_every_origin(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents values whose origin only the table for people tells."""
    shown: dict[str, Any] = json.loads(said(capsys, "show", "code-reviewer", "--project", project, "--format", "json"))
    assert shown["timeout_seconds"] == 77
    assert shown["origins"]["timeout_seconds"].startswith(str(project))
    assert shown["origins"]["sandbox"] == "default"


def test_show_tells_that_the_contract_added_the_tests(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents a hand-over that nobody wrote from being ascribed to the file."""
    path = write_profile(project / ".orchestrator" / "profiles" / "mine.md", "name: mine\nhands_over_to: [debugger]")
    line = row_of(said(capsys, "show", "mine", "--project", project), "hands_over_to")
    assert "debugger, test-engineer" in line
    assert line.endswith(f"{path.relative_to(project)}, contract")


def test_validate_finds_what_only_the_whole_shows(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents a check of single files where roles hang together: topics, classes, hand-overs to oneself."""
    write_profile(
        project / ".orchestrator" / "profiles" / "mine.md", "name: mine\npublishes: [deploys]\nhands_over_to: [mine]"
    )
    rows = json.loads(said(capsys, "validate", "--project", project, "--format", "json", code=1))
    reasons = [row["reason"] for row in rows if row["agent_type"] == "mine"]
    assert any("unknown topic 'deploys'" in reason for reason in reasons)
    assert any("hands over to itself" in reason for reason in reasons)
    assert any("no chain of hand-overs" in reason for reason in reasons)


def test_a_new_role_like_another_is_good_and_has_its_own_text(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prevents a copy under a second name: the needs are taken over, the text is not."""
    path = Path(said(capsys, "new", "house-reviewer", "--from", "code-reviewer", "--project", project).strip())
    assert path == project / ".orchestrator" / "profiles" / "house-reviewer.md"
    made, model = Profiles().get("house-reviewer", str(project)), Profiles().get("code-reviewer")
    assert (made.context, made.permission_class) == (model.context, model.permission_class)
    assert made.instructions != model.instructions
    said(capsys, "validate", path)


def test_a_new_role_takes_its_class_from_one_place(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents ``--class`` from being ignored silently beside ``--from``."""
    said(capsys, "new", "x", "--from", "code-reviewer", "--class", "support", "--project", project, code=2)
    assert not (project / ".orchestrator" / "profiles" / "x.md").exists()


def test_graph_is_bounded_by_steps_and_category(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents a drawing of all roles where one step was asked for."""
    root = Profiles().get("chief-architect")
    drawn = said(capsys, "graph", "--from", "chief-architect", "--depth", "1", "--project", project)
    assert drawn.count('["') - drawn.count("subgraph") == 1 + len(root.hands_over_to)
    few = said(capsys, "graph", "--category", "business", "--project", project)
    assert few.strip() == mermaid(p for p in Profiles().list() if p.category == "business").strip()


def test_schema_is_the_published_one(capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents a second schema that is less strict than the parser."""
    assert json.loads(said(capsys, "schema")) == profile_schema()

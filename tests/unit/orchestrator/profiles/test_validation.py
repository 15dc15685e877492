"""Validation: each rule must find the fault it is there for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from orchestrator.profiles import Problem, Profiles
from orchestrator.profiles.sources import shipped_directory
from orchestrator.profiles.validation import count_words, validate
from tests.support.profiles import write_profile


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    """A copy of the shipped profiles that a test may spoil."""
    return Path(shutil.copytree(shipped_directory(), tmp_path / "profiles"))


def _spoil(directory: Path, agent_type: str, old: str, new: str) -> list[Problem]:
    path = directory / f"{agent_type}.md"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return [problem for problem in validate(Profiles(directory)) if problem.agent_type == agent_type]


@pytest.mark.parametrize(
    ("agent_type", "old", "new", "reason"),
    [
        ("go-specialist", "permission_class: coding", "permission_class: architect", "permission_class is 'architect'"),
        ("go-specialist", "model: haiku", "model: opus", "tier is 'opus'"),
        ("go-specialist", "category: coding", "category: other", "category is 'other'"),
        ("go-specialist", "agent_type: golang-pro", "agent_type: golang-prof", "'golang-prof'"),
        (
            "go-specialist",
            "agent_type: test-engineer",
            "agent_type: debugger",
            "must always hand over to test-engineer",
        ),
        ("go-specialist", "priority: high", "priority: high\n    when: success", "must always hand over"),
        ("go-specialist", "subscribes: [implementation", "subscribes: [implementations", "'implementation'"),
        ("tag-agent", "publishes: []", "publishes: [testing]", "may not publish"),
        ("tag-agent", "is_final: true\n", "", "dead end"),
        ("tag-agent", "is_final: true", "hands_over_to: [tag-agent]", "hands over to itself"),
        ("go-specialist", "analysts.language:run", "analysts.nowhere:run", "no module"),
        ("go-specialist", "orchestrator.analysts.language:run", "go run .", "module:function"),
        ("rust-specialist", "pass it to rust-pro", "pass it on", "name none of the roles"),
    ],
)
def test_each_rule_finds_its_fault(shipped: Path, agent_type: str, old: str, new: str, reason: str) -> None:
    """A rule that finds nothing lets the fault through to users."""
    found = _spoil(shipped, agent_type, old, new)
    assert any(reason in problem.reason for problem in found), [str(problem) for problem in found]


def test_a_text_that_is_too_short_or_explains_no_hand_over_is_found(shipped: Path) -> None:
    """An emptied body must not pass."""
    path = shipped / "go-specialist.md"
    header = path.read_text(encoding="utf-8").split("---\n")[1]
    write_profile(path, header.strip(), "Write Go.")
    reasons = [problem.reason for problem in validate(Profiles(shipped)) if problem.agent_type == "go-specialist"]
    assert any("2 words" in reason for reason in reasons)
    assert any("name none of the roles" in reason for reason in reasons)


def test_a_missing_role_is_found(shipped: Path) -> None:
    """A deleted file must be told, with those who hand over to it."""
    (shipped / "sql-pro.md").unlink()
    problems = validate(Profiles(shipped))
    assert ("sql-pro", "this role has no profile") in [(problem.agent_type, problem.reason) for problem in problems]
    assert any("'sql-pro'" in problem.reason and problem.severity == "warning" for problem in problems)


def test_a_cut_chain_is_found(shipped: Path) -> None:
    """A role that nobody leads to any more must not become unreachable unnoticed."""
    for path in shipped.glob("*.md"):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("agent_type: tdd-coding-agent", "agent_type: debugger", 1), encoding="utf-8")
    found = [problem for problem in validate(Profiles(shipped)) if problem.agent_type == "tdd-coding-agent"]
    assert [problem.severity for problem in found] == ["error"]
    assert "no chain of hand-overs" in found[0].reason


def test_a_projects_roles_are_held_to_less(tmp_path: Path) -> None:
    """A user's role needs no roster entry and no hundred words, but is told what will disappoint."""
    project = tmp_path / "project"
    write_profile(project / ".orchestrator" / "profiles" / "mine.md", "name: mine\npublishes: [deploys]", "")
    problems = [problem for problem in validate(Profiles(), str(project)) if problem.agent_type == "mine"]
    assert {problem.severity for problem in problems} == {"warning", "note"}
    text = "\n".join(problem.reason for problem in problems)
    assert "the body is empty" in text
    assert "unknown topic 'deploys'" in text
    assert "description is missing" in text


def test_errors_come_first(tmp_path: Path) -> None:
    """The list must begin with what has to be mended."""
    directory = tmp_path / "project" / ".orchestrator" / "profiles"
    write_profile(directory / "aaa.md", "name: aaa", "")
    write_profile(directory / "zzz.md", "name: zzz\nmodel: [", "")
    severities = [problem.severity for problem in validate(Profiles(), str(tmp_path / "project"))]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    assert severities[0] == "error"


def test_words_are_counted_without_marks() -> None:
    """Markdown signs must not make a text look longer than it is."""
    assert count_words("- **two** words, `a_key` and 3.5 – “it's”") == 6

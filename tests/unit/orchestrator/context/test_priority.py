"""What gives way to what: under ``max_bytes``, and when the whole answer would be too large."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Collection
from pathlib import Path

import msgspec
import pytest

from orchestrator.context import library, priority, render
from orchestrator.context.library import Library
from orchestrator.context.models import JSON, BuildOrder, Role
from orchestrator.context.project import Limits
from orchestrator.context.ranking import Ranked
from tests.support.repo import repository

#: Files in the order in which they are to go in; each has 1,000 bytes and one block.
ORDER = (
    "pkg/tokenizer.py",
    "pkg/py.typed.in",  # the profile's, see below
    "pkg/today.py",
    "pkg/zebra.py",
    "tests/test_zebra.py",
    "zebra.toml",
    "docs/zebra.md",
    "zebra.unknown",
)
NOW = time.time()


def _git(root: Path, *arguments: str, days_ago: int) -> None:
    stamp = f"{int(NOW) - 86_400 * days_ago - 60} +0000"
    environment = dict(os.environ, GIT_AUTHOR_DATE=stamp, GIT_COMMITTER_DATE=stamp, GIT_CONFIG_GLOBAL=os.devnull)
    command = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org", *arguments]
    subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True)


def _text(name: str) -> str:
    comment = "<!--" if name.endswith(".md") else "#"
    word = "tokenizer" if "tokenizer" in name else "filler"
    line = f"{comment} {word} {name}"
    return (line.ljust(99, ".") + "\n") * 10


@pytest.fixture
def project(tmp_path: Path) -> Path:
    _git(tmp_path, "init", "-q", days_ago=9)
    for name in ORDER:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_text(name))
    _git(tmp_path, "add", "-A", days_ago=9)
    _git(tmp_path, "commit", "-qm", "begin", days_ago=9)
    (tmp_path / "pkg/today.py").write_text(_text("pkg/today.py").replace("..\n", "!!\n"))
    _git(tmp_path, "commit", "-qam", "elsewhere", days_ago=0)
    return tmp_path


def _build(root: Path, max_bytes: int, outputs: tuple[JSON, ...] = ()) -> JSON:
    order = BuildOrder(
        project_id="p",
        root=str(root),
        issue_id="i",
        role=Role(agent_type="anyone", include=("*.in",)),
        task="tokenizer",
        max_bytes=max_bytes,
        outputs=outputs,
        now=NOW,
    )
    document: JSON = msgspec.json.decode(Library(Limits(), 1 << 28).build(order).body)
    return document


def _paths(document: JSON) -> set[str]:
    return {entry["path"] for entry in document["context"]["relevant_files"]}


@pytest.mark.parametrize("count", range(1, len(ORDER) + 1))
def test_a_smaller_budget_leaves_out_the_last_tier_first(project: Path, count: int) -> None:
    """A document that had nothing to do with the task took the room of the file that somebody works on."""
    document = _build(project, 1000 * count + 90)
    assert _paths(document) == set(ORDER[:count])
    assert {entry["path"] for entry in document["omitted"]} == set(ORDER[count:])
    assert document["truncated"] is (count < len(ORDER))
    assert (document["truncation_strategy"] == "none") is (count == len(ORDER))
    assert document["total_size_bytes"] == 1000 * count
    assert document["file_count"] == count


def test_only_files_that_fit_into_what_is_left_are_weighed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a few bytes left the tiers of all of a project's files were told, which took as long as all the rest."""
    root = repository(tmp_path / "project", {f"part{n % 7}/file{n}.py": _text(f"file{n}.py") for n in range(300)})
    (root / "small.py").write_text("tokenizer = 1  # " + "." * 60 + "\n")
    weighed: list[str] = []

    def told(item: Ranked, changed: Collection[str], *, has_task: bool) -> int:
        weighed.append(item.facts.path)
        return priority.tier(item, changed, has_task=has_task)

    monkeypatch.setattr(library, "tier", told)
    chosen = _paths(_build(root, 2190))
    assert "small.py" in chosen
    assert len(chosen) == 3
    assert len(weighed) < 70


def test_an_answer_that_is_too_large_gives_up_the_least_first(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the best files fell away unsaid, and counts told of files that were not there."""
    outputs: tuple[JSON, ...] = ({"agent_type": "architect", "decisions": ["keep it. " * 70], "status": "success"},)
    whole = _build(project, 1 << 20, outputs)
    full = len(msgspec.json.encode(whole))
    seen = set()
    for limit in range(full + 1000, 3400, -300):
        monkeypatch.setattr(render, "ANSWER_BYTES", limit)
        document = _build(project, 1 << 20, outputs)
        context, paths = document["context"], _paths(document)
        assert paths == set(ORDER[: len(paths)]), "files go in the order of their tiers"
        if len(paths) < len(ORDER):
            assert not context["project_structure"]["files"]
            assert not context["git_context"]["recent_commits"]
        if not context["previous_agent_outputs"]:
            assert len(paths) <= 2, "decisions go after all but what the task needs"
        assert {entry["path"] for entry in document["omitted"]} == set(ORDER) - paths
        assert document["omitted_total"] == len(ORDER) - len(paths)
        assert document["file_count"] == len(paths)
        assert document["total_size_bytes"] == 1000 * len(paths)
        assert document["truncated"] is (document["truncation_strategy"] != "none")
        assert len(msgspec.json.encode(document)) <= limit
        seen.add((len(paths), bool(context["previous_agent_outputs"])))
    assert {(len(ORDER), True), (3, True), (2, False)} <= seen
    assert whole["truncation_strategy"] == "none"

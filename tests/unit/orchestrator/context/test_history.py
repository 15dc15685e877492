"""History follows HEAD wherever it is moved, and is the same as when it is read for the first time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from orchestrator.context.chronicle import Chronicle
from orchestrator.context.git import Repository
from orchestrator.context.history import commits, work_tree
from orchestrator.context.project import Limits, ProjectState
from orchestrator.context.words import Splitter
from tests.support.repo import git, repository, sample_repository, write_files


def _commit(root: Path, name: str, day: int) -> None:
    write_files(root, {f"{name}.py": f"account_{name} = 1\n"})
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", f"Add {name} to the account", date=f"2026-02-{day:02}T00:00:00Z")


def _moves(root: Path) -> Iterator[str]:
    """Move HEAD on, back, to a branch, to a merge of commits that are older than known ones, and away from it."""
    yield "first look"
    _commit(root, "first", 5)
    yield "forward"
    git(root, "checkout", "-q", "-b", "side", "HEAD~1")
    _commit(root, "older", 3)
    yield "to a branch"
    git(root, "checkout", "-q", "main")
    _commit(root, "second", 9)
    yield "back and forward"
    git(root, "merge", "-q", "--no-edit", "side", date="2026-02-10T00:00:00Z")
    yield "merged"
    _commit(root, "third", 11)
    yield "forward after a merge"
    git(root, "checkout", "-q", "--detach", "HEAD~3")
    yield "back"


def test_history_is_the_same_as_when_it_is_read_anew(tmp_path: Path) -> None:
    """After a merge the commits of the branch stood before newer ones, and messages of some were never searched."""
    root = sample_repository(tmp_path / "r").resolve()
    known = ProjectState(str(root), Limits())
    lengths = []
    for move in _moves(root):
        known.refresh()
        fresh = ProjectState(str(root), Limits())
        fresh.refresh()
        assert known.history == fresh.history, move
        expected = Chronicle(Splitter())
        expected.update(fresh.history)
        assert known.chronicle.commits == expected.commits, move
        assert known.chronicle.by_file == expected.by_file, move
        lengths.append(len(known.history))
    assert lengths[-1] == lengths[0] + 1
    assert lengths[-2] == lengths[0] + 4


def test_a_subdirectory_has_the_history_of_its_files(tmp_path: Path) -> None:
    """A project below the repository's top took over commits of other directories when HEAD moved on."""
    root = sample_repository(tmp_path / "r").resolve()
    state = ProjectState(str(root / "ledger"), Limits())
    state.refresh()
    before = len(state.history)
    _commit(root, "outside", 5)
    _commit(root, "ledger/inside", 6)
    state.refresh()
    assert [commit.files for commit in state.history[:-before]] == [("inside.py",)]


def test_no_more_commits_are_read_than_asked_for(tmp_path: Path) -> None:
    """The provisional answer read thousands of commits where it wanted some hundred."""
    root = sample_repository(tmp_path / "r")
    for day in range(3, 7):
        _commit(root, f"part{day}", day)
    asked = Repository(str(root.resolve()), 10.0)
    head = work_tree(asked).head
    everything = commits(asked, head, [])
    assert len(everything) > 4
    assert commits(asked, head, [], most=2) == everything[:2]
    assert commits(asked, head, everything[3:], most=2) == everything[:2]


def test_commits_of_a_day_are_found_whatever_their_order(tmp_path: Path) -> None:
    """A commit of today behind one with an old date was no longer found."""
    root = repository(tmp_path / "r", {"a.py": "a = 1\n"})
    for number, date in enumerate(("2026-03-01T00:00:00Z", "2020-01-01T00:00:00Z", "2026-02-28T23:00:00Z")):
        write_files(root, {f"m{number}.py": "x = 1\n"})
        git(root, "add", "--all")
        git(root, "commit", "--quiet", "--message", str(number), date=date)
    state = ProjectState(str(root), Limits())
    state.refresh()
    found = list(state.chronicle.since(1772236800.0))
    assert [commit.message for commit in found] == ["0", "2"]
    shutil.rmtree(root / ".git")
    state.refresh()
    assert not list(state.chronicle.since(0.0))

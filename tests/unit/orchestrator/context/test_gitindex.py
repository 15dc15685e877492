"""Git brings a copy of the index up to date: the repository stays as it is, and no change is hidden by the copy."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.context.git import GitFailed, Repository
from orchestrator.context.gitindex import IndexCopy
from orchestrator.context.history import WorkTree, work_tree
from orchestrator.context.project import Limits, ProjectState
from tests.support.repo import commit_all, git, sample_repository, write_files

#: A moment long ago, for files and index alike: what git cannot tell apart by time.
MOMENT_NS = 1_700_000_000_000_000_000


def _same_moment(root: Path) -> None:
    """Give the files and then the index one time, as a clone on a fast disk does."""
    for path in git(root, "ls-files").splitlines():
        os.utime(root / path, ns=(MOMENT_NS, MOMENT_NS))
    git(root, "update-index", "-q", "--refresh")
    os.utime(root / ".git/index", ns=(MOMENT_NS, MOMENT_NS))


def _git_files(root: Path) -> dict[str, tuple[int, bytes]]:
    """All files with what they hold; git touches the time of a shared index whenever it reads one."""
    files = (path for path in (root / ".git").rglob("*") if path.is_file())
    return {str(path): (path.stat().st_ino, path.read_bytes()) for path in files}


def _state(root: Path, tmp_path: Path) -> ProjectState:
    return ProjectState(str(root.resolve()), Limits(), str(tmp_path / "state"))


@pytest.mark.parametrize("setting", ["core.splitIndex", "core.untrackedCache", "index.skipHash"])
def test_the_repository_is_not_written_to(tmp_path: Path, setting: str) -> None:
    """Git brought the repository's own index up to date, beside a person's own git commands."""
    root = sample_repository(tmp_path / "r")
    git(root, "config", setting, "true")
    git(root, "status")
    _same_moment(root)
    before = _git_files(root)
    state = _state(root, tmp_path)
    for _ in range(2):
        state.refresh()
    assert _git_files(root) == before
    assert list((tmp_path / "state").glob("*.gitindex"))


def test_the_copy_is_brought_up_to_date_once(tmp_path: Path) -> None:
    """After a clone every look compared the contents of all files, for ever."""
    root = sample_repository(tmp_path / "r")
    _same_moment(root)
    state = _state(root, tmp_path)
    state.refresh()
    (copy,) = (tmp_path / "state").glob("*.gitindex")
    first = copy.stat()
    assert first.st_mtime_ns > MOMENT_NS
    state.refresh()
    assert (copy.stat().st_mtime_ns, copy.stat().st_ino) == (first.st_mtime_ns, first.st_ino)


def test_a_change_of_the_same_moment_and_size_is_seen(tmp_path: Path) -> None:
    """With a later time on the copy, git took a changed file for the one that the index knows."""
    root = sample_repository(tmp_path / "r")
    path = root / "ledger/money.py"
    _same_moment(root)
    ours = IndexCopy(str(tmp_path / "state" / "copy.gitindex"))
    data = path.read_bytes()
    path.write_bytes(bytes(reversed(data)))
    os.utime(path, ns=(MOMENT_NS, MOMENT_NS))
    for _ in range(2):
        tree = work_tree(Repository(str(root.resolve()), 10.0, index_copy=ours))
        assert tree.changes == (("ledger/money.py", "modified"),)


def test_what_is_staged_and_committed_meanwhile_is_seen(tmp_path: Path) -> None:
    """The copy went on showing an index that had been replaced."""
    root = sample_repository(tmp_path / "r")
    ours = IndexCopy(str(tmp_path / "state" / "copy.gitindex"))

    def changes() -> tuple[tuple[str, str], ...]:
        return work_tree(Repository(str(root.resolve()), 10.0, index_copy=ours)).changes

    assert changes() == ()
    write_files(root, {"fresh.py": "fresh = 1\n"})
    git(root, "add", "fresh.py")
    assert changes() == (("fresh.py", "added"),)
    commit_all(root, "Add fresh")
    assert changes() == ()


def test_without_room_for_a_copy_git_is_asked_as_before(tmp_path: Path) -> None:
    """A state directory that cannot be written failed every answer."""
    root = sample_repository(tmp_path / "r")
    (tmp_path / "state").write_text("no directory")
    write_files(root, {"ledger/money.py": "changed = 1\n"})
    state = _state(root, tmp_path)
    state.refresh()
    assert [change.path for change in state.changes] == ["ledger/money.py"]
    state.refresh()


def test_a_lock_that_a_killed_git_left_does_not_stay(tmp_path: Path) -> None:
    """A git that was killed while it wrote the copy left its lock, and the copy was never brought up to date again."""
    root = sample_repository(tmp_path / "r")
    _same_moment(root)
    state = _state(root, tmp_path)
    state.refresh()
    (copy,) = (tmp_path / "state").glob("*.gitindex")
    Path(f"{copy}.lock").write_text("")
    os.utime(root / ".git/index", ns=(MOMENT_NS, MOMENT_NS + 1_000_000_000))
    state.refresh()
    assert not Path(f"{copy}.lock").exists()


def test_what_is_staged_while_git_answers_is_in_the_next_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files of the copy were kept for those of an index that came later: a file that was staged in between was
    neither tracked nor untracked, until the index changed again."""
    root = sample_repository(tmp_path / "r")

    def stage(repository: Repository) -> WorkTree:
        tree = work_tree(repository)
        write_files(root, {"fresh.py": "fresh = 1\n"})
        git(root, "add", "fresh.py")
        return tree

    state = _state(root, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("orchestrator.context.scan.work_tree", stage)
        state.refresh()
    state.refresh()
    assert "fresh.py" in state.files


def test_a_fifo_in_place_of_gits_files_is_not_waited_for(tmp_path: Path) -> None:
    """Opening it waited for a writer: the thread that looked at the project never came back."""
    (tmp_path / "r/.git").mkdir(parents=True)
    (tmp_path / "marked").mkdir()
    (tmp_path / "shared/.git").mkdir(parents=True)
    for name in ("r/.git/index", "r/.git/HEAD", "shared/.git/commondir", "marked/.git"):
        os.mkfifo(tmp_path / name)
    assert IndexCopy(str(tmp_path / "copy")).of(str(tmp_path / "r/.git")) is None
    assert not Repository(str(tmp_path / "r"), 1.0).is_shallow
    with pytest.raises(GitFailed, match="not_a_repository"):
        Repository(str(tmp_path / "marked"), 1.0)
    with pytest.raises(GitFailed, match="git_elsewhere"):
        Repository(str(tmp_path / "shared"), 1.0)

"""Each uncommitted change has its diff, whatever git is configured to, and whatever the file is called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.context.git import GitFailed, Repository
from orchestrator.context.models import Change
from orchestrator.context.project import Limits, ProjectState
from tests.support.context import document
from tests.support.repo import commit_all, git, repository, sample_repository, write_files

_SETTINGS = {
    "color.diff": "always",
    "color.status": "always",
    "color.ui": "always",
    "column.ui": "always",
    "core.quotePath": "true",
    "diff.colorMoved": "zebra",
    "diff.context": "0",
    "diff.dirstat": "lines",
    "diff.external": "false",
    "diff.ignoreSubmodules": "all",
    "diff.interHunkContext": "50",
    "diff.mnemonicPrefix": "true",
    "diff.noprefix": "true",
    "diff.orderFile": "../order",
    "diff.relative": "true",
    "diff.renames": "copies",
    "diff.submodule": "log",
    "diff.suppressBlankEmpty": "true",
    "diff.wsErrorHighlight": "all",
    "format.pretty": "oneline",
    "i18n.logOutputEncoding": "ISO-8859-1",
    "log.date": "relative",
    "log.decorate": "full",
    "log.follow": "true",
    "log.showRoot": "false",
    "log.showSignature": "true",
    "status.branch": "true",
    "status.relativePaths": "false",
    "status.renames": "copies",
    "status.short": "true",
    "status.showStash": "true",
    "status.showUntrackedFiles": "no",
}


def _changes(root: Path) -> dict[str, Change]:
    state = ProjectState(str(root), Limits())
    state.refresh()
    return {change.path: change for change in state.changes}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository in which files were changed, moved, added and deleted; one is in a commit with an accent."""
    root = sample_repository(tmp_path / "r").resolve()
    numbers = [f"n{number} = {number}\n" for number in range(40)]
    write_files(root, {"docs/numbers.py": "\n".join(numbers), "docs/moved.py": "moved = 1\n" * 9})
    commit_all(root, "Écrire des numéros")
    numbers[3], numbers[16] = "n3 = 33\n", "n16 = 116\n"
    write_files(root, {"docs/numbers.py": "\n".join(numbers), "new.py": "new = 1\n"})
    git(root, "mv", "docs/moved.py", "docs/away.py")
    git(root, "rm", "-q", "NAME.txt")
    (root.parent / "order").write_text("*numbers*\n*money*\n")
    return root


@pytest.mark.parametrize("place", ["", "docs"])
@pytest.mark.parametrize("owner", ["the repository", "the person"])
def test_settings_of_git_change_nothing(root: Path, place: str, owner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``diff.noprefix`` or ``diff.mnemonicPrefix`` left every diff empty; others changed paths, messages and files."""
    monkeypatch.setenv("HOME", str(root.parent))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    before = document(root / place)["context"]["git_context"]
    for key, value in _SETTINGS.items():
        git(root, "config", *(["--global"] if owner == "the person" else []), key, value)
    assert document(root / place)["context"]["git_context"] == before
    changed = {change["path"]: change for change in before["uncommitted_changes"]}
    assert changed[os.path.relpath("docs/numbers.py", place or ".")]["diff"].count("\n@@ ") == 2


@pytest.mark.parametrize(
    "name",
    [
        b'quo"te.py',
        b"tab\t.py",
        b"line\nbreak.py",
        b"back\\slash.py",
        b"bell\x07\x7f\x01.py",
        b"not \xff UTF-8.py",
        b'both "\xfe\xff".py',
        b"caf\xc3\xa9.py",
        b"a b/b c.py",
        b"dir b/++ b/x.py",
        b" spaces .py",
    ],
)
def test_a_file_of_any_name_has_its_diff(tmp_path: Path, name: bytes) -> None:
    """Git writes some names in quotes, others are no text: their diffs were not found."""
    root = repository(tmp_path / "r", {"a.py": "a = 1\n"})
    path = os.path.join(os.fsencode(root), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    for value in ("before", "after"):
        with open(path, "w") as file:
            file.write(f"++ b/other.py\nvalue = '{value}'\n")
        if value == "before":
            commit_all(root, "Add")
    diff = _changes(root)[os.fsdecode(name)].diff
    assert "\n-value = 'before'\n+value = 'after'\n" in diff
    diff.encode()  # what is shown is text
    assert document(root)["context"]["git_context"]["uncommitted_changes"][0]["diff"] == diff


def test_content_is_not_taken_for_a_name(tmp_path: Path) -> None:
    """A line that began with ``++ b/`` gave the diff to the file that it named."""
    root = repository(tmp_path / "r", {"a.py": "-- a/z.py\n", "z.py": "z = 1\n"})
    write_files(root, {"a.py": "++ b/z.py\n", "z.py": "z = 2\n"})
    changes = _changes(root)
    assert "+++ b/z.py" in changes["a.py"].diff.split("@@")[-1]
    assert changes["z.py"].diff.endswith("-z = 1\n+z = 2\n\n")


@pytest.mark.parametrize("more", [1, 300])
def test_a_large_change_does_not_hide_others(tmp_path: Path, more: int) -> None:
    """One big change used up what is read of git's answer: later files had no diff, and nothing said so."""
    files = {"a_big.txt": "old line of text\n", **{f"s{number:03}.py": "x = 1\n" for number in range(more)}}
    root = repository(tmp_path / "r", {**files, "b_big.txt": "old\n"})
    write_files(root, dict.fromkeys(files, "x = 2\n"))
    for path in ("a_big.txt", "b_big.txt"):
        (root / path).write_text("".join(f"new line {number} of text\n" for number in range(60_000)))
    changes = _changes(root)
    for path in ("a_big.txt", "b_big.txt"):
        assert 19_000 < len(changes[path].diff) <= 20_006
        assert changes[path].diff.endswith("\n(cut)\n")
    assert all(changes[path].diff.rstrip().endswith("-x = 1\n+x = 2") for path in files if path != "a_big.txt")


def test_what_is_not_shown_is_told(tmp_path: Path) -> None:
    """Files beyond what is shown in all had an empty diff, as if nothing in them had changed."""
    names = [f"f{number:02}.txt" for number in range(20)]
    root = repository(tmp_path / "r", dict.fromkeys(names, "old\n"))
    for name in names:
        (root / name).write_text("".join(f"new line {number} of text\n" for number in range(10_000)))
    changes = _changes(root)
    assert all(changes[name].diff.endswith("(cut)\n") for name in names)
    assert sum(len(change.diff) for change in changes.values()) < 201_000
    assert changes[names[0]].diff.startswith("diff --git ")
    assert changes[names[-1]].diff == "(cut)\n"


def test_diffs_that_git_did_not_tell_are_asked_for_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A git that was too slow once left diffs empty until something else changed."""
    state = ProjectState(str(root), Limits())
    call = Repository.call

    def failing(repository: Repository, arguments: list[str], **options: object) -> object:
        if arguments[0] == "diff":
            raise GitFailed("git_timeout")
        return call(repository, arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Repository, "call", failing)
        state.refresh()
    assert {change.diff for change in state.changes if change.status != "untracked"} == {"(cut)\n"}
    assert state.refresh()
    assert "n3 = 33" in {change.path: change.diff for change in state.changes}["docs/numbers.py"]
    assert not state.refresh()

"""A project's state after a look at what changed is what a look at everything gives."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.context import digest, division, history, scan
from orchestrator.context.git import GitFailed, Repository
from orchestrator.context.library import Library
from orchestrator.context.models import BuildOrder
from orchestrator.context.project import Limits, ProjectState
from tests.support.context import document, new_library, order
from tests.support.repo import PYTHON_FILES, commit_all, git, repository, sample_repository, write_files
from tests.support.waiting import until


def _modify(root: Path) -> set[str]:
    write_files(root, {"ledger/money.py": "def add_money(account):\n    return account\n"})
    return {"ledger/money.py"}


def _modify_untracked(root: Path) -> set[str]:
    write_files(root, {"draft.py": "account_draft = 2\n"})
    return {"draft.py"}


def _revert(root: Path) -> set[str]:
    (root / "ledger/accounts.py").write_text(PYTHON_FILES["ledger/accounts.py"])
    return {"ledger/accounts.py"}


def _touch(root: Path) -> set[str]:
    os.utime(root / "ledger/money.py", (1_700_000_000, 1_700_000_000))
    return {"ledger/money.py"}


def _pass(root: Path) -> set[str]:
    return {"ledger/.money.py.swp", "gone/and/away"} | _modify(root)


def _delete(root: Path) -> set[str]:
    (root / "ledger/money.py").unlink()
    return {"ledger/money.py"}


def _create(root: Path) -> set[str]:
    write_files(root, {"ledger/fresh.py": "account_fresh = 1\n"})
    return {"ledger/fresh.py"}


def _replace_by_directory(root: Path) -> set[str]:
    (root / "draft.py").unlink()
    write_files(root, {"draft.py/inner.py": "account_inner = 1\n"})
    return {"draft.py"}


def _remove_directory(root: Path) -> set[str]:
    shutil.rmtree(root / "ledger")
    return {"ledger"}


def _ignore(root: Path) -> set[str]:
    write_files(root, {".gitignore": "draft.py\nbuild/\n"})
    return {".gitignore"}


def _change_submodule(root: Path) -> set[str]:
    write_files(root, {"inner/ledger/money.py": "account_in_submodule = 1\n"})
    return {"inner/ledger/money.py"}


def _make_secret(root: Path) -> set[str]:
    write_files(root, {"ledger/money.py": "password = 'x9!kQ2#vLp8@wZr4'\n"})
    return {"ledger/money.py"}


def _make_binary(root: Path) -> set[str]:
    (root / "ledger/money.py").write_bytes(b"\0account\0")
    return {"ledger/money.py"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with a submodule, a change that is staged, one that is not, and an untracked file."""
    inner = sample_repository(tmp_path / "other")
    root = sample_repository(tmp_path / "r")
    git(root, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner), "inner")
    commit_all(root, "Add inner")
    write_files(root, {"README.md": "# Staged account\n"})
    git(root, "add", "README.md")
    write_files(root, {"ledger/accounts.py": "account_edited = 1\n", "draft.py": "account_draft = 1\n"})
    return root


@pytest.mark.parametrize(
    "change",
    [
        _modify, _modify_untracked, _revert, _touch, _pass, _delete, _create, _replace_by_directory, _remove_directory,
        _ignore, _change_submodule, _make_secret, _make_binary,
    ],
)  # fmt: skip
@pytest.mark.parametrize("with_git", [True, False])
def test_a_look_at_what_changed_finds_the_same(root: Path, change: Callable[[Path], set[str]], with_git: bool) -> None:
    """After a change that the watch told of, the answer was another one than after a look at everything."""
    if not with_git:
        (root / "inner/.git").unlink()
        shutil.rmtree(root / ".git")
    some, everything = new_library(), new_library()
    asked = order(root, "account money")
    for library in (some, everything):
        library.build(asked)
        library.finish(asked.root)
    changed = change(root)
    assert some.build(asked, changed=changed).body == everything.build(asked).body


def test_a_modified_file_alone_is_looked_at(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One edit compared every file of the project, and asked git about all of them."""
    library = new_library()
    asked = order(root, "account money")
    before = library.build(asked)

    def refuse(*_: Any) -> bool:
        raise AssertionError("everything was looked at")

    monkeypatch.setattr(ProjectState, "refresh", refuse)
    after = library.build(asked, changed=_modify(root))
    assert after.generation == before.generation + 1
    assert b"add_money" in after.body
    assert library.build(asked, changed=(), known_generation=after.generation).body == b""
    # a name that came and went changes nothing
    assert library.build(asked, changed={"ledger/x.tmp"}, known_generation=after.generation).body == b""


def test_a_commit_between_two_looks_is_noticed(root: Path) -> None:
    """A commit that the watch told of only after the file's change was left out of the history."""
    library = new_library()
    asked = order(root, "account money")
    library.build(asked)
    changed = _modify(root)
    head = commit_all(root, "Spend the money of an account")
    assert f'"head":"{head}"'.encode() in library.build(asked, changed=changed).body


def _is_settled(library: Library, asked: BuildOrder) -> bool:
    """Whether nothing is to be looked at again; files that had just been written are, once more."""
    library.build(asked)
    return library.state(asked.root).is_unchanged()


def test_a_history_that_could_not_be_read_is_asked_for_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After one time limit of git the history stayed empty until HEAD moved, and nobody was told any more."""
    library, asked = new_library(), order(root, "account")
    call = Repository.call

    def fail(self: Repository, arguments: list[str], **options: Any) -> Any:
        if arguments[0] == "log":
            raise GitFailed("git_timeout", "no answer")
        return call(self, arguments, **options)

    with monkeypatch.context() as failing:
        failing.setattr(Repository, "call", fail)
        git_context = json.loads(library.build(asked).body)["context"]["git_context"]
        assert not git_context["recent_commits"]
        assert git_context["problems"]
    git_context = json.loads(library.build(asked).body)["context"]["git_context"]
    assert git_context["recent_commits"]
    assert "problems" not in git_context


@pytest.mark.parametrize("depth", ["--unshallow", "--deepen=1"])
def test_history_that_is_fetched_later_is_shown(tmp_path: Path, depth: str) -> None:
    """The history of a shallow clone stayed short, and its last commit all files', until HEAD moved."""
    source = repository(tmp_path / "source", {"a.py": "one = 1\n", "b.py": "two = 2\n"}, subject="First account")
    for number in range(3):
        write_files(source, {"a.py": f"one = {number}\n"})
        commit_all(source, f"Account {number}")
    root = (tmp_path / "clone").resolve()
    git(tmp_path, "clone", "-q", "--depth", "1", source.as_uri(), str(root))
    library, asked = new_library(tmp_path / "kept"), order(root, "account")
    before = library.build(asked)
    state = library.state(asked.root)
    until(lambda: _is_settled(library, asked))
    assert [commit.files for commit in state.history] == [("a.py", "b.py")]
    git(root, "fetch", "-q", depth)
    assert not state.is_unchanged()
    after = library.build(asked, known_generation=before.generation)
    assert after.body == new_library().build(asked).body
    assert len(state.history) == (4 if depth == "--unshallow" else 2)
    assert state.history[0].files == ("a.py",)


def test_a_shallow_history_is_not_kept_for_the_next_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clone that was completed while no sidecar ran kept the short history."""
    monkeypatch.setattr("orchestrator.context.project._SAVED_FILES", 1)
    source = repository(tmp_path / "source", {"a.py": "one = 1\n"})
    commit_all(source, "Account")
    root = (tmp_path / "clone").resolve()
    git(tmp_path, "clone", "-q", "--depth", "1", source.as_uri(), str(root))
    asked = order(root, "account")
    library = new_library(tmp_path / "kept")
    library.build(asked)
    library.save(asked.root)
    git(root, "fetch", "-q", "--unshallow")
    later = new_library(tmp_path / "kept")
    assert later.is_known(asked.root)
    later.build(asked)
    assert len(later.state(asked.root).history) == 2


@pytest.mark.parametrize("place", ["worktree", "subdirectory"])
@pytest.mark.parametrize("change", ["commit", "stage", "branch", "exclude"])
def test_what_git_is_told_outside_of_the_project_is_noticed(tmp_path: Path, place: str, change: str) -> None:
    """A commit in a linked work tree, or in the repository above the project, was never shown: no watch sees it."""
    top = sample_repository(tmp_path / "r")
    root = top / "ledger"
    if place == "worktree":
        root = (tmp_path / "linked").resolve()
        git(top, "worktree", "add", "-q", "-b", "other", str(root))
    write_files(root, {"money.py": "account = 1\n"})
    library, asked = new_library(), order(root, "account")
    library.build(asked)
    state = library.state(asked.root)
    until(lambda: _is_settled(library, asked))
    if change == "commit":
        commit_all(root, "Account")
    elif change == "stage":
        git(root, "add", "money.py")
    elif change == "branch":
        git(root, "checkout", "-q", "-b", "new/one")
    else:
        write_files(root, {"new.py": "account = 1\n"})
        library.build(asked)
        write_files(top, {".git/info/exclude": "new.py\n"})
    assert not state.is_unchanged()
    assert library.build(asked).body == new_library().build(asked).body
    until(lambda: _is_settled(library, asked))


def test_a_commit_elsewhere_and_a_changed_file_are_both_seen(tmp_path: Path) -> None:
    """The look at one changed file took what git had been told outside of the project for seen."""
    top = sample_repository(tmp_path / "r")
    root = top / "ledger"
    write_files(root, {"accounts.py": "account = 1\n", "money.py": "account = 1\n"})
    library, asked = new_library(), order(root, "account")
    library.build(asked)
    git(top, "checkout", "HEAD", "--", "ledger/money.py")
    git(top, "rm", "-q", "--cached", "ledger/money.py")
    write_files(root, {"accounts.py": "account = 2\n"})
    bodies = (library.build(asked, changed={"accounts.py"}).body, new_library().build(asked).body)
    some, everything = (json.loads(body)["context"]["git_context"] for body in bodies)
    assert some == everything
    assert ("money.py", "untracked") in {(change["path"], change["status"]) for change in some["uncommitted_changes"]}


def test_what_git_tracks_is_asked_again_when_its_index_changed(root: Path) -> None:
    """A file that was added to an ignored directory by force never came up."""
    write_files(root, {".gitignore": "build/\n", "build/kept.py": "account_kept = 1\n"})
    library = new_library()
    assert "build/kept.py" not in document(root, library=library)["context"]["project_structure"]["files"]
    git(root, "add", "-f", "build/kept.py")
    assert "build/kept.py" in document(root, library=library)["context"]["project_structure"]["files"]
    git(root, "rm", "-q", "--cached", "build/kept.py")
    assert "build/kept.py" not in document(root, library=library)["context"]["project_structure"]["files"]


def test_a_configuration_that_is_too_large_to_read_is_not_trusted(root: Path) -> None:
    """A filter behind megabytes of other settings was not switched off, and run (fault 71)."""
    with open(root / ".git/config", "a") as config:
        config.write("[junk]\n" + "".join(f"\tkey{n} = {'x' * 900}\n" for n in range(5000)))
        config.write(f'[filter "evil"]\n\tclean = touch {root.parent}/sprung; cat\n')
    write_files(root, {".gitattributes": "*.py filter=evil\n", "ledger/money.py": "changed = 1\n"})
    answer = document(root, "account")
    assert "configuration" in answer["context"]["git_context"]["problems"][0]
    assert "ledger/money.py" in answer["context"]["project_structure"]["files"]
    assert not (root.parent / "sprung").exists()


def test_a_state_that_was_given_up_is_not_taken_for_its_successor(root: Path) -> None:
    """A project that gave way to others for want of memory was answered as it had been before."""
    library = new_library()
    asked = order(root, "account money")
    before = library.build(asked)
    library.forget(asked.root)
    write_files(root, {"requirements.txt": "left-pad==1.2.3\n"})
    after = library.build(asked, known_generation=before.generation)
    assert after.body == new_library().build(asked).body
    assert b"left-pad" in after.body


def test_a_first_look_knows_what_belongs_to_the_project(tmp_path: Path) -> None:
    """Files were read as soon as git named them, so those that the project excludes stayed, and others were missed."""
    root = sample_repository(tmp_path / "r")
    write_files(root, {"orchestrator.toml": '[context]\nexclude = ["docs/"]\ninclude = ["build/kept.py"]\n'})
    write_files(root, {"build/kept.py": "kept = 1\n", "build/other.py": "other = 1\n", "draft.py": "draft = 1\n"})
    (root / "ledger/money.py").unlink()
    state = ProjectState(str(root), Limits())
    assert state.refresh()
    assert sorted(state.files) == [
        ".gitignore", "NAME.txt", "README.md", "build/kept.py", "draft.py", "ledger/__init__.py", "ledger/accounts.py",
        "orchestrator.toml", "pyproject.toml", "tests/test_accounts.py",
    ]  # fmt: skip
    assert state.index.count == len(state.readable())
    assert {change.path for change in state.changes} == {"draft.py", "ledger/money.py", "orchestrator.toml"}
    assert not state.refresh()


def test_a_first_look_reads_while_git_compares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was read until git had compared every file of a fresh clone with its index."""
    root = sample_repository(tmp_path / "r")
    is_read = threading.Event()
    look = digest.digest

    def looked(*arguments: Any) -> Any:
        is_read.set()
        return look(*arguments)

    def work_tree(*arguments: Any) -> Any:
        assert is_read.wait(10), "git came first"
        return history.work_tree(*arguments)

    monkeypatch.setattr(division, "digest", looked)
    monkeypatch.setattr(scan, "work_tree", work_tree)
    state = ProjectState(str(root), Limits())
    state.refresh()
    assert state.tree is not None
    assert "ledger/money.py" in state.files


def _refreshed(state: ProjectState) -> tuple[bool, int, dict[str, str]]:
    """Whether a look at everything found a change, then the generation, and the diffs by path."""
    has_changed = state.refresh()
    return has_changed, state.generation, {change.path: change.diff for change in state.changes}


def test_a_second_edit_of_a_file_that_is_not_read_is_shown(root: Path) -> None:
    """Files of more than 2 MiB have no checksum: their second edit counted as none, even for a refresh."""
    line = "one of very many lines\n"
    write_files(root, {"large.txt": line * 200_000})
    commit_all(root, "Add a large file")
    state = ProjectState(str(root.resolve()), Limits())
    diffs = []
    for number in range(2):
        write_files(root, {"large.txt": line * number + f"edit {number}\n" + line * 200_000})
        has_changed, generation, by_path = _refreshed(state)
        assert has_changed or number == 0
        assert f"+edit {number}\n" in by_path["large.txt"]
        diffs.append((generation, by_path["large.txt"]))
    assert diffs[0][0] < diffs[1][0]
    assert _refreshed(state) == (False, diffs[1][0], by_path)
    write_files(root, {"large.txt": "edit 2\n" + line * 200_000})
    assert state.refresh_some({"large.txt"})
    assert "+edit 2\n" in {change.path: change.diff for change in state.changes}["large.txt"]


def test_a_link_that_is_turned_twice_is_shown(root: Path) -> None:
    """A link is no file that is read: after its second change the diff of its first one stayed."""
    (root / "link").symlink_to("README.md")
    commit_all(root, "Add a link")
    state = ProjectState(str(root.resolve()), Limits())
    for name in ("a", "b", "c"):
        (root / "link").unlink()
        (root / "link").symlink_to(name)
        assert state.refresh_some({"link"}) if name == "c" else state.refresh()
        assert f"+{name}\n" in {change.path: change.diff for change in state.changes}["link"]
    assert not state.refresh()


def test_a_submodule_that_moves_on_twice_is_shown(root: Path) -> None:
    """Another commit in a submodule that was at another one already left the first one in the diff."""
    state = ProjectState(str(root.resolve()), Limits())
    generations = []
    for number in range(2):
        head = commit_all(root / "inner", f"Move {number}")
        _, generation, by_path = _refreshed(state)
        assert f"+Subproject commit {head}" in by_path["inner"]
        generations.append(generation)
    assert generations[0] < generations[1]
    assert not state.refresh()


def test_another_url_of_the_remote_is_shown(root: Path) -> None:
    """After ``git remote set-url`` the old URL stayed until something else changed."""
    git(root, "remote", "add", "origin", "https://one.invalid/a.git")
    state = ProjectState(str(root.resolve()), Limits())
    state.refresh()
    before = state.generation
    git(root, "remote", "set-url", "origin", "https://two.invalid/a.git")
    assert state.has_git_moved()
    assert state.refresh()
    assert state.remote == ("origin", "https://two.invalid/a.git")
    assert state.generation > before
    assert not state.refresh()

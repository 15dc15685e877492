"""Nothing outside the project is read, nothing planted in it is run, nothing in it blocks."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.context.reading import Refused, reading
from tests.support.context import document, new_library, order, paths
from tests.support.repo import commit_all, git, repository, sample_repository, write_files


def test_links_out_of_the_project_are_not_followed(tmp_path: Path) -> None:
    """A symbolic link in the project gave away files of the machine (fault 69)."""
    outside = tmp_path / "outside"
    write_files(outside, {"hidden.py": "hidden_value = 1\n", "dir/deep.py": "hidden_value = 2\n"})
    root = tmp_path / "r"
    write_files(root, {"a.py": "value = 1\n"})
    (root / "link.py").symlink_to(outside / "hidden.py")
    (root / "linked").symlink_to(outside / "dir")
    body = new_library().build(order(root, "hidden_value")).body
    assert b"hidden_value = " not in body
    with reading(str(root)) as reader:
        for path in (
            "link.py",
            "linked/deep.py",
            "../outside/hidden.py",
            "/etc/passwd",
            "a.py/x",
            "",
            "./a.py",
            "a\0b",
        ):
            with pytest.raises(Refused):
                reader.read(path, 1000)
        assert reader.read("a.py", 1000).data == b"value = 1\n"


def test_a_directory_swapped_for_a_link_while_reading_leads_nowhere(tmp_path: Path) -> None:
    """Between the check and the open a directory became a link to the outside (fault 69)."""
    write_files(tmp_path / "outside", {"f.py": "outside\n"})
    root = tmp_path / "r"
    write_files(root, {"d/f.py": "inside\n"})
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            (root / "d").rename(root / "kept")
            (root / "d").symlink_to(tmp_path / "outside")
            (root / "d").unlink()
            (root / "kept").rename(root / "d")

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        seen = set()
        for _ in range(3000):
            with reading(str(root)) as reader:
                try:
                    seen.add(reader.read("d/f.py", 100).data)
                except Refused:
                    pass
    finally:
        stop.set()
        thread.join()
    assert seen <= {b"inside\n"}


def test_what_is_no_regular_file_is_passed_over_at_once(tmp_path: Path) -> None:
    """A FIFO in the project blocked the scan for ever (fault 70)."""
    root = tmp_path / "r"
    write_files(root, {"a.py": "value = 1\n"})
    os.mkfifo(root / "pipe.py")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(root / "socket.py"))
        answer = document(root, "value")
        with reading(str(root)) as reader:
            for path in ("pipe.py", "socket.py", "."):
                with pytest.raises(Refused):
                    reader.read(path, 1000)
    assert paths(answer) == ["a.py"]


def test_one_answer_shows_one_state_of_a_file(tmp_path: Path) -> None:
    """Half of a file was of before a write and half of after, under a checksum of neither."""
    root = tmp_path / "r"
    write_files(root, {"a.py": ""})
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            (root / "a.py").write_text(f"v{number % 10} = 1\n" * 2000)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(100):
            with reading(str(root)) as reader:
                try:
                    data = reader.read("a.py", 1 << 20).data
                except Refused:
                    continue
            # the writer truncates and writes in one go: a prefix of one state is a state that was there
            assert len(set(data.split(b"\n")[:-1])) <= 1
    finally:
        stop.set()
        thread.join()


def test_a_planted_git_configuration_runs_nothing(tmp_path: Path) -> None:
    """Asking git about a hostile repository ran its hooks, filters, pagers or monitors (fault 71)."""
    root = sample_repository(tmp_path / "r")
    trap = tmp_path / "trap.sh"
    mark = tmp_path / "sprung"
    trap.write_text(f'#!/bin/sh\necho "$0 $*" >> {mark}\ncat\n')
    trap.chmod(0o755)
    for key in (
        "core.fsmonitor", "core.pager", "core.editor", "core.sshCommand", "diff.external", "diff.evil.textconv",
        "diff.evil.command", "filter.evil.clean", "filter.evil.smudge", "filter.evil.process", "gpg.program",
        "core.askPass", "credential.helper", "interactive.diffFilter", "sequence.editor", "pager.log", "pager.status",
        "core.alternateRefsCommand", "uploadpack.packObjectsHook", "alias.status", "alias.log", "alias.ls-files",
    ):  # fmt: skip
        git(root, "config", key, f"!{trap}" if key.startswith("alias.") else str(trap))
    git(root, "config", "log.showSignature", "true")
    git(root, "config", "core.hooksPath", str(tmp_path / "hooks"))
    (tmp_path / "hooks").mkdir()
    for hook in ("post-index-change", "fsmonitor-watchman", "pre-commit", "reference-transaction"):
        (tmp_path / "hooks" / hook).symlink_to(trap)
    write_files(root, {".gitattributes": "*.py filter=evil diff=evil\n", "ledger/money.py": "changed = 1\n"})
    answer = document(root, "money")
    assert {c["path"] for c in answer["context"]["git_context"]["uncommitted_changes"]} >= {"ledger/money.py"}
    assert not mark.exists(), mark.read_text()


def test_a_planted_work_tree_shows_nothing_of_the_outside(tmp_path: Path) -> None:
    """``core.worktree`` in a repository's configuration sent git to another directory."""
    write_files(tmp_path / "elsewhere", {"README.md": "outside_word\n"})
    root = sample_repository(tmp_path / "r")
    git(root, "config", "core.worktree", str(tmp_path / "elsewhere"))
    assert b"outside_word" not in new_library().build(order(root, "outside_word")).body.replace(b'"task"', b"")


def test_git_asking_changes_nothing(tmp_path: Path) -> None:
    """``git status`` rewrote the index, which woke the watcher, which asked again."""
    root = sample_repository(tmp_path / "r")
    (root / "ledger/money.py").touch()
    before = {path: path.stat().st_mtime_ns for path in (root / ".git").rglob("*") if path.is_file()}
    document(root, "x")
    after = {path: path.stat().st_mtime_ns for path in (root / ".git").rglob("*") if path.is_file()}
    assert after == before


def test_a_hanging_git_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A git that never answers held the context back for ever."""
    root = sample_repository(tmp_path / "r")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "git").write_text("#!/bin/sh\nexec sleep 1000\n")
    (programs / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    answer = new_library(git_timeout_s=0.3).build(order(root, "account"))
    assert b"git_timeout" in answer.body
    assert b"ledger/accounts.py" in answer.body


def test_without_git_the_files_are_still_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without git had no context at all."""
    root = sample_repository(tmp_path / "r")
    write_files(root, {"build/out.py": "ignored = 1\n"})
    monkeypatch.setenv("PATH", str(tmp_path))
    answer = document(root, "account")
    assert "ledger/accounts.py" in paths(answer)
    assert "build/out.py" not in answer["context"]["project_structure"]["files"]
    assert "git_missing" in answer["context"]["git_context"]["problems"][0]


@pytest.mark.parametrize(
    "state",
    [
        "unborn",
        "detached",
        "bare",
        "shallow",
        "worktree",
        "submodule",
        "empty submodule",
        "subdirectory",
        "lfs",
        "broken",
    ],
)
def test_every_state_of_a_repository_works(tmp_path: Path, state: str) -> None:
    """A repository in an unusual state failed the context."""
    root = sample_repository(tmp_path / "r")
    head = git(root, "rev-parse", "HEAD").strip()
    asked = root
    if state == "unborn":
        asked = tmp_path / "new"
        asked.mkdir()
        git(asked, "init", "-q")
        write_files(asked, {"a.py": "x = 1\n"})
        head = None  # type: ignore[assignment]
    elif state == "detached":
        git(root, "checkout", "-q", "--detach")
    elif state == "bare":
        git(tmp_path, "clone", "-q", "--bare", str(root), "bare.git")
        asked = tmp_path / "bare.git"
    elif state == "shallow":
        git(tmp_path, "clone", "-q", "--depth", "1", f"file://{root}", "shallow")
        asked = tmp_path / "shallow"
    elif state == "worktree":
        git(root, "worktree", "add", "-q", "../tree", "-b", "side")
        asked = tmp_path / "tree"
    elif state == "submodule":
        asked = repository(tmp_path / "outer", {"o.py": "outer = 1\n"})
        git(asked, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(root), "inner")
        head = commit_all(asked, "Add inner")
    elif state == "empty submodule":
        outer = repository(tmp_path / "outer", {"ledger/accounts.py": "outer = 1\n"})
        git(outer, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(root), "inner")
        head = commit_all(outer, "Add inner")
        git(tmp_path, "clone", "-q", str(outer), "clone")
        asked = tmp_path / "clone"
    elif state == "subdirectory":
        asked = root / "ledger"
    elif state == "lfs":
        pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12345\n"
        write_files(root, {"big.py": pointer, ".gitattributes": "big.py filter=lfs diff=lfs merge=lfs -text\n"})
        head = commit_all(root, "Add a pointer")
    elif state == "broken":
        (root / ".git/HEAD").write_text("rubbish")
    answer = document(asked, "account")
    context = answer["context"]
    missing = {"bare": "no work tree", "shallow": "--unshallow", "empty submodule": "inner is not checked out"}
    if state in missing:
        assert missing[state] in context["git_context"]["problems"][0]
    assert ({"path": "big.py", "reason": "lfs_pointer"} in answer["omitted"]) == (state == "lfs")
    if state == "broken":
        # the end of the arguments had stood there, which told nobody anything
        assert "`git status` exited with 128" in context["git_context"]["problems"][0]
        assert "ledger/accounts.py" in context["project_structure"]["files"]
        return
    assert context["git_context"]["head"] == head
    assert context["git_context"]["branch"] == {"detached": None, "worktree": "side"}.get(state, "main")
    expected = {"unborn": "a.py", "submodule": "inner/ledger/accounts.py", "subdirectory": "accounts.py", "bare": None}
    name = expected.get(state, "ledger/accounts.py")
    assert name is None or name in context["project_structure"]["files"]
    assert state == "unborn" or context["git_context"]["recent_commits"]


_NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=20).filter(
    lambda name: name not in (".", "..", ".git") and len(name.encode()) < 200
)


@settings(max_examples=30)
@given(st.dictionaries(_NAMES, st.binary(max_size=400), max_size=8), st.booleans(), st.text(max_size=50))
def test_odd_names_and_contents_never_fail(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], with_git: bool, task: str
) -> None:
    """A newline in a name, bytes that are no UTF-8 or an empty file failed the whole context."""
    root = tmp_path_factory.mktemp("odd")
    for name, data in files.items():
        (root / name).write_bytes(data)
    if with_git:
        git(root, "init", "-q")
    answer = document(root, task, max_bytes=2000)
    assert sum(len(entry["content"].encode()) for entry in answer["context"]["relevant_files"]) <= 2000


def test_names_that_are_no_unicode_and_deep_trees(tmp_path: Path) -> None:
    """A file name in Latin-1 or a path of 60 directories failed the scan."""
    root = tmp_path / "r"
    deep = root.joinpath(*(["d"] * 60))
    deep.mkdir(parents=True)
    (deep / "deep.py").write_text("deep_value = 1\n")
    with open(os.fsencode(root) + b"/caf\xe9.py", "wb") as file:
        file.write(b"caffeine = 1\n")
    for _ in range(2):
        answer = document(root, "deep_value caffeine", library=new_library(tmp_path / "state"))
        assert len(paths(answer)) == 2
        git(tmp_path, "init", "-q", "r")


def test_one_huge_file_is_listed_and_not_read_into_the_answer(tmp_path: Path) -> None:
    """A file of many megabytes took the memory and the budget."""
    root = tmp_path / "r"
    write_files(root, {"small.py": "needle = 1\n"})
    (root / "huge.py").write_bytes(b"needle = 2\n" * 1_000_000)
    answer = document(root, "needle")
    assert paths(answer) == ["small.py"]
    assert "huge.py" in answer["context"]["project_structure"]["files"]
    assert {"path": "huge.py", "reason": "too_large"} in answer["omitted"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a repository to someone else")
def test_a_repository_of_someone_else_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git refused a repository that belongs to another user, and the context had no history."""
    root = sample_repository(tmp_path / "r")
    head = git(root, "rev-parse", "HEAD").strip()
    for path in (root, *root.rglob("*")):
        os.chown(path, 12345, 12345, follow_symlinks=False)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    refused = subprocess.run(["git", "-C", str(root), "status"], capture_output=True, check=False)
    assert b"dubious ownership" in refused.stderr
    context = document(root, "account")["context"]
    assert context["git_context"]["head"] == head
    assert "problems" not in context["git_context"]


def test_without_git_its_other_ignore_rules_hold_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where git was missing, what a person or a repository ignores for itself came into the context."""
    root = sample_repository(tmp_path / "r")
    (root / ".git/info").mkdir(exist_ok=True)
    (root / ".git/info/exclude").write_text("private/\n!kept.tmp\n")
    write_files(tmp_path / "config", {"git/ignore": "*.tmp\n"})
    write_files(root, {"private/own.py": "x = 1\n", "scratch.tmp": "x\n", "kept.tmp": "x\n"})
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with_git = set(document(root)["context"]["project_structure"]["files"])
    monkeypatch.setenv("PATH", str(tmp_path))
    without = set(document(root)["context"]["project_structure"]["files"])
    assert without == with_git
    assert {"kept.tmp"} == without & {"private/own.py", "scratch.tmp", "kept.tmp"}

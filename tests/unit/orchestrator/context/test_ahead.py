"""Files that are opened ahead of the tasks that ask for them."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from orchestrator.context import library as module
from orchestrator.context.ahead import likeliest, open_ahead
from orchestrator.context.chronicle import Chronicle
from orchestrator.context.excerpts import View
from orchestrator.context.forkserver import ForkServer
from orchestrator.context.library import Library
from orchestrator.context.models import Commit, FileFacts, Stamp
from orchestrator.context.project import Limits
from orchestrator.context.words import Splitter
from tests.support.context import order
from tests.support.repo import PYTHON_FILES, repository, write_files

TASK = "posting to an account loses money"


@pytest.fixture
def two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where an assistant has a processor of its own."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})


def _refuse(*_: object) -> View:
    raise AssertionError("opened again")


@pytest.mark.usefixtures("two_processors")
def test_a_task_opens_nothing_that_was_opened_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first task of every sort waited for some 60 files; what was opened ahead was another text than theirs."""
    root = repository(tmp_path / "r", {**PYTHON_FILES, "keys.py": 'token = "ghp_' + "a1B2" * 9 + '"\naccount = 1\n'})
    asked = order(root, TASK)
    expected = Library(Limits(), 1 << 28).build(asked)
    forks = ForkServer()
    try:
        library = Library(Limits(), 1 << 28, hire=forks.assistant)
        library.build(order(root, "", max_bytes=1))
        library.open_ahead(asked.root)
    finally:
        forks.close()
    monkeypatch.setattr(module, "open_file", _refuse)
    answer = library.build(asked, changed=())
    assert answer.etag == expected.etag
    assert b"[redacted:github-token]" in answer.body


@pytest.mark.usefixtures("two_processors")
def test_a_change_after_it_shows(tmp_path: Path) -> None:
    """A file was shown as it had been when it was opened ahead."""
    root = repository(tmp_path / "r", PYTHON_FILES)
    forks = ForkServer()
    try:
        library = Library(Limits(), 1 << 28, hire=forks.assistant)
        library.build(order(root, TASK))
        library.open_ahead(str(root.resolve()))
    finally:
        forks.close()
    write_files(root, {"ledger/money.py": "account = 'changed since'\n"})
    assert b"changed since" in library.build(order(root, TASK)).body


def _nobody() -> socket.socket:
    raise OSError("no more processes")


def _silent() -> socket.socket:
    ours, theirs = socket.socketpair()
    theirs.close()
    return ours


@pytest.mark.usefixtures("two_processors")
@pytest.mark.parametrize("hire", [_nobody, _silent])
def test_without_an_assistant_tasks_open_files_themselves(tmp_path: Path, hire: object) -> None:
    """An assistant that could not be had, or ended at once, ended the work behind the answer."""
    root = repository(tmp_path / "r", PYTHON_FILES)
    library = Library(Limits(), 1 << 28, hire=hire)  # type: ignore[arg-type]
    expected = library.build(order(root, TASK))
    library.open_ahead(str(root.resolve()))
    assert library.build(order(root, TASK)).etag == expected.etag


def test_a_file_that_changed_meanwhile_is_missing(tmp_path: Path) -> None:
    """One file that could not be opened took its neighbours along."""
    write_files(tmp_path, {"a.py": "x = 1\n", "b.py": "y = 1\n"})
    library = Library(Limits(), 1 << 28)
    library.build(order(tmp_path, ""))
    files = library.state(str(tmp_path.resolve())).readable()
    (tmp_path / "a.py").write_text("x = 2\n")
    forks = ForkServer()
    try:
        found = {facts.path: view.lines.data for facts, view in open_ahead(forks.assistant, str(tmp_path), files)}
    finally:
        forks.close()
    assert found == {"b.py": b"y = 1\n"}


def test_an_assistant_is_asked_in_portions(tmp_path: Path) -> None:
    """All wishes were sent at once: each side waited for room in the socket until the other would read."""
    folder = "long" * 50
    write_files(tmp_path, {f"{folder}/{n}.txt": (f"{n}" * 400 + "\n") * 50 for n in range(16)})
    library = Library(Limits(), 1 << 28)
    library.build(order(tmp_path, ""))
    files = library.state(str(tmp_path.resolve())).readable() * 100
    forks = ForkServer()
    try:
        assert sum(1 for _ in open_ahead(forks.assistant, str(tmp_path), files)) == len(files) == 1600
    finally:
        forks.close()


def _facts(path: str, kind: str = "code", size: int = 1000) -> FileFacts:
    return FileFacts(path, Stamp(size, 0, 0, 0), kind, "python", "0" * 64, 1)


def test_what_changes_most_comes_first_and_only_as_much_as_fits() -> None:
    """Documents filled the room that sources need; one huge project took all of it."""
    chronicle = Chronicle(Splitter())
    chronicle.update([Commit("2", 2, "a", "Two", ("b.py",)), Commit("1", 1, "a", "One", ("b.py", "a.md"))])
    files = [_facts("a.md", "doc"), _facts("a.py"), _facts("b.py"), _facts("c.py", "test"), _facts("d.lock", "lock")]
    assert [facts.path for facts in likeliest(files, chronicle, 1 << 20)] == ["b.py", "a.py", "c.py", "a.md"]
    assert [facts.path for facts in likeliest(files, chronicle, 17_000)] == ["b.py", "a.py"]
    assert likeliest([_facts("large.py", size=1 << 20)], chronicle, 1 << 20) == []

"""Odd projects: none fails the builder, holds it up for ever, or makes the event loop stand still."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from orchestrator.context.process import BuilderProcess
from orchestrator.context.project import Limits
from tests.support.context import order
from tests.support.repo import commit_all, git, sample_repository, write_files

#: Processor time that one turn of the loop may take (other load of the machine does not count).
TURN_S = 0.02


def _empty(root: Path) -> None:
    root.mkdir()


def _unborn(root: Path) -> None:
    root.mkdir()
    git(root, "init", "-q")


def _one_huge_file(root: Path) -> None:
    write_files(root, {"huge.py": "x = 1\n" * 3_000_000})


def _a_sparse_file(root: Path) -> None:
    root.mkdir()
    with open(root / "sparse.py", "wb") as file:
        file.truncate(1 << 40)


def _long_lines(root: Path) -> None:
    """What makes patterns slow: lines of a million bytes that nearly match."""
    write_files(
        root,
        {
            "a.c": "\nint " + "export ()" * 100_000,
            "a.js": "\n" + "\tpub(:" * 150_000,
            "a.toml": "\n" + "[" * 1_000_000,
            "a.py": "password = " + ":]password" * 100_000,
            "b.py": "token: '" + "token=" * 150_000 + "\n" * 5000,
            "a.md": "ab\n" + "=" * 1_000_000 + "x\n",
            "a.java": "\n" + "public static " * 70_000 + "\n" * 2000,
            "a.rs": "\nimpl<" + "a " * 500_000,
            "a.sql": "\ncreate " + "or replace " * 90_000,
        },
    )


def _odd_names(root: Path) -> None:
    names = (
        "new\nline.py", "tab\t.py", 'quote".py', "-rf.py", "--.py", " .py", "\x1b[31m.py", "\u2028.py", "*.py",
        "a\\b.py", ":(top)x.py", "\r.py", "x" * 250 + ".py", "CON.py", "naïve/ÅÉ.py", "..py", "...",
    )  # fmt: skip
    write_files(root, dict.fromkeys(names, "account = 1\n"))
    for name in (b"latin\xe9.py", b"\xff\xfe", b"half\xc3.py"):
        Path(os.fsdecode(os.fsencode(root) + b"/" + name)).write_bytes(b"account = 2\n")
    directory = Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9"))
    directory.mkdir()
    (directory / "package.json").write_text('{"dependencies": {"react": "^18"}}')
    (directory / "pubspec.yaml").write_text("dependencies:\n  on: ^1.0\n  2:\n")
    commit_all(_repository(root), "Begin\n\n\x1b[31m\u2028 caf\xe9")
    (root / "new\nline.py").write_text("account = 3\n")


def _odd_contents(root: Path) -> None:
    root.mkdir()
    dice = random.Random(7)
    for number in range(120):
        suffix = dice.choice(["py", "js", "md", "toml", "json", "rs", "txt", "lock", "xml", "yml"])
        (root / f"f{number}.{suffix}").write_bytes(dice.randbytes(dice.randrange(3000)))
    (root / "utf16.py").write_bytes("account = 1\n".encode("utf-16"))
    (root / "bom.py").write_bytes(b"\xef\xbb\xbfaccount = 1\r\n")
    (root / "cr.py").write_bytes(b"account = 1\r" * 3000)
    (root / "empty.py").touch()
    for manifest in ("pyproject.toml", "package.json", "pom.xml", "coverage.xml", "junit.xml", "Cargo.toml", "go.mod"):
        (root / manifest).write_bytes(dice.randbytes(300))


def _deep(root: Path) -> None:
    """Deeper than a path may be long."""
    root.mkdir()
    (root / "top.py").write_text("account = 1\n")
    directory = os.open(root, os.O_RDONLY)
    for _ in range(60):
        name = "d" * 100
        os.mkdir(name, dir_fd=directory)
        inner = os.open(name, os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = inner
    os.close(os.open("deep.py", os.O_CREAT | os.O_WRONLY, dir_fd=directory))
    os.close(directory)


def _links_and_pipes(root: Path) -> None:
    write_files(root, {"a.py": "account = 1\n"})
    os.mkfifo(root / "pipe.py")
    (root / "loop").symlink_to(root)
    (root / "self.py").symlink_to("self.py")
    (root / "dangling.py").symlink_to("nowhere")
    (root / "zero.py").symlink_to("/dev/zero")


def _broken_repository(root: Path) -> None:
    sample_repository(root)
    (root / ".git/index").write_bytes(b"DIRC" + b"\xff" * 500)


def _git_file_of_rubbish(root: Path) -> None:
    write_files(root, {"a.py": "account = 1\n", ".git": "gitdir: \0\n"})


def _conflict(root: Path) -> None:
    sample_repository(root)
    for branch, text in (("one", "account = 1\n"), ("two", "account = 2\n")):
        git(root, "checkout", "-q", "-b", branch, "main")
        write_files(root, {"both.py": text})
        commit_all(root, branch)
    with pytest.raises(AssertionError):
        git(root, "merge", "-q", "one")


def _many_rules(root: Path) -> None:
    write_files(
        root, {"a.py": "account = 1\n", ".gitignore": "".join(f"*/x{n}/**/y*\n" for n in range(3000)) + "[\n!\n\\\n"}
    )


def _huge_rules(root: Path) -> None:
    write_files(root, {"a.py": "account = 1\n"})
    with open(root / ".gitignore", "wb") as file:
        file.truncate(1 << 40)


def _repository(root: Path) -> Path:
    git(root, "init", "-q")
    return root


PROJECTS = [
    _empty, _unborn, _one_huge_file, _a_sparse_file, _long_lines, _odd_names, _odd_contents, _deep, _links_and_pipes,
    _broken_repository, _git_file_of_rubbish, _conflict, _many_rules, _huge_rules,
]  # fmt: skip


@asynccontextmanager
async def _builder(tmp_path: Path) -> AsyncIterator[BuilderProcess]:
    builder = BuilderProcess(Limits(), 1 << 30, tmp_path / "state", on_stale=lambda *_: None, on_lost=_fail)
    await builder.start()
    try:
        yield builder
    finally:
        await builder.stop()


def _fail() -> None:
    """The end at ``stop`` is the only one; an earlier one makes the process id change, which the tests check."""


@asynccontextmanager
async def _turns() -> AsyncIterator[list[float]]:
    """The processor time of every turn of the loop."""
    turns: list[float] = []
    is_done = False

    async def watch() -> None:
        while not is_done:
            before = time.thread_time()
            await asyncio.sleep(0.001)
            turns.append(time.thread_time() - before)

    watching = asyncio.create_task(watch())
    try:
        yield turns
    finally:
        is_done = True
        await watching


async def _document(builder: BuilderProcess, root: Path) -> dict[str, Any]:
    asked = order(root.resolve(), "fix the account in the header", max_bytes=50_000)
    told = await builder.ask(what="build", root=str(root.resolve()), order=asked)
    document: dict[str, Any] = msgspec.json.decode(told.body)
    return document


@pytest.mark.parametrize("make", PROJECTS)
async def test_an_odd_project_is_answered_like_any_other(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """One odd file failed the context of its project, or held up every other project's."""
    root = tmp_path / "project"
    await asyncio.to_thread(make, root)
    async with _builder(tmp_path) as builder:
        process_id = builder.process_id
        async with _turns() as turns:
            document = await _document(builder, root)
            await builder.ask(what="search", root=str(root), query="account header", limit=5)
            await builder.ask(what="verify", root=str(root))
            again = await _document(builder, root)
        assert builder.process_id == process_id
    assert sum(len(entry["content"].encode()) for entry in document["context"]["relevant_files"]) <= 50_000
    assert again["context"]["relevant_files"] == document["context"]["relevant_files"]
    names = document["context"]["project_structure"]["files"]
    assert all("/zero.py" not in name and "pipe.py" not in name for name in names)
    assert max(turns) < TURN_S


@pytest.mark.load
async def test_a_hundred_thousand_files(tmp_path: Path) -> None:
    """A very large project took more than a gigabyte, or kept the loop from turning."""
    root = tmp_path / "project"
    await asyncio.to_thread(_write_many, root, 100_000)
    async with _builder(tmp_path) as builder:
        assert builder.process_id is not None
        memory = asyncio.create_task(_most_memory(builder.process_id))
        async with _turns() as turns:
            document = await _document(builder, root)
            await builder.ask(what="search", root=str(root), query="handler_77 timeout", limit=5)
            await _document(builder, root)
        stats = (await builder.ask(what="stats")).data
        memory.cancel()
        most = await memory
    assert document["context"]["project_structure"]["total_files"] == 100_000
    assert stats["bytes"] < 1 << 30
    assert most < 1 << 30
    assert max(turns) < TURN_S


def _write_many(root: Path, count: int) -> None:
    for number in range(count):
        directory = root / f"d{number // 1000}" / f"e{number // 50 % 20}"
        if number % 50 == 0:
            directory.mkdir(parents=True, exist_ok=True)
        text = f"def handler_{number}(request, timeout_{number % 977}):\n    return request.parse_{number % 5000}\n"
        (directory / f"module_{number}.py").write_text(text * 4)


async def _most_memory(process_id: int) -> int:
    """The most proportional memory of a process and its children, in bytes, until cancelled."""
    most = 0
    try:
        while True:
            most = max(most, await asyncio.to_thread(_memory, process_id))
            await asyncio.sleep(0.3)
    except asyncio.CancelledError:
        return most


def _memory(process_id: int) -> int:
    total = 0
    process = psutil.Process(process_id)
    for each in (process, *process.children(recursive=True)):
        try:
            total += each.memory_full_info().pss
        except psutil.Error:
            continue
    return total

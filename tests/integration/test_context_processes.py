"""The builder's own processes: assistants that share a first build, and the fork server that starts them."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import psutil
import pytest

from orchestrator.context.frames import Told
from orchestrator.context.process import BuilderProcess
from orchestrator.context.project import Limits
from tests.support.context import new_library, order
from tests.support.pools import is_living
from tests.support.repo import sample_repository, write_files
from tests.support.waiting import until_async

TASK = "fold the header line in part77"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """More than a megabyte, so that the work is shared."""
    root = tmp_path / "project"
    text = "def parse_header(line):\n    return HeaderParser2(line, is_folded=True)\n\n" * 80
    write_files(root, {f"pkg{n % 7}/module_{n}.py": f"class Part{n}:\n    pass\n{text}" for n in range(300)})
    return root.resolve()


@asynccontextmanager
async def _builder(tmp_path: Path) -> AsyncIterator[BuilderProcess]:
    builder = BuilderProcess(
        Limits(git_timeout_s=120.0),
        1 << 28,
        tmp_path / "state",
        on_stale=lambda root, epoch: None,
        on_lost=lambda: None,
    )
    await builder.start()
    try:
        yield builder
    finally:
        await builder.stop()


async def _build(builder: BuilderProcess, root: Path) -> Told:
    return await builder.ask(what="build", root=str(root), order=order(root, TASK))


def _family(builder: BuilderProcess) -> list[psutil.Process]:
    assert builder.process_id is not None
    return psutil.Process(builder.process_id).children(recursive=True)


async def test_assistants_are_gone_after_the_build(tmp_path: Path, root: Path) -> None:
    """Every first build left processes behind, or what was read in another process was ranked otherwise."""
    async with _builder(tmp_path) as builder:
        told = await _build(builder, root)
        alone = await asyncio.to_thread(new_library().build, order(root, TASK))
        assert told.body == alone.body
        await until_async(lambda: len(_family(builder)) == 1, what="only the fork server is left")
        family = _family(builder)
    # whoever they are left to may not have buried them yet
    assert not [process.pid for process in family if process.is_running() and is_living(process.pid)]


async def test_a_killed_fork_server_costs_only_its_help(tmp_path: Path, root: Path) -> None:
    """Without its fork server the builder answered with an error from then on."""
    async with _builder(tmp_path) as builder:
        expected = (await _build(builder, root)).body
        await until_async(lambda: len(_family(builder)) == 1, what="only the fork server is left")
        os.kill(_family(builder)[0].pid, signal.SIGKILL)
        await builder.ask(what="forget", root=str(root))
        assert (await _build(builder, root)).body == expected


async def test_a_killed_builder_takes_its_fork_server_along(tmp_path: Path, root: Path) -> None:
    """The fork server outlived a builder that was killed, and kept its memory for ever."""
    async with _builder(tmp_path) as builder:
        await _build(builder, root)
        family = _family(builder)
        assert family
        assert builder.process_id is not None
        os.kill(builder.process_id, signal.SIGKILL)
        await until_async(lambda: not any(map(_is_alive, family)), what="the fork server has ended")
        assert msgspec.json.decode((await _build(builder, root)).body)["file_count"] > 0


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


_HANGING_GIT = """#!/bin/sh
while [ -e "$PWD/hang" ]; do sleep 0.05; done
exec {git} "$@"
"""


@pytest.fixture
def hanging_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git does nothing in a project as long as there is a file ``hang`` in it."""
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text(_HANGING_GIT.format(git=shutil.which("git")))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.usefixtures("hanging_git")
async def test_many_who_ask_for_one_new_project_keep_no_other_waiting(tmp_path: Path) -> None:
    """Two agents of a new project took both threads for first looks, where the second only waited for the first, and
    another new project waited for both."""
    slow, other = (sample_repository(tmp_path / name) for name in ("slow", "other"))
    write_files(slow, {"hang": ""})
    async with _builder(tmp_path) as builder:
        waiting = [asyncio.create_task(_build(builder, slow)) for _ in range(9)]
        latest = asyncio.create_task(_build(builder, other))  # a task, so that it asks after those
        assert (await latest).body
        assert not any(task.done() for task in waiting)
        (slow / "hang").unlink()
        assert all(told.body for told in await asyncio.gather(*waiting))


@pytest.mark.usefixtures("hanging_git")
async def test_first_looks_keep_nobody_else_waiting(tmp_path: Path, root: Path) -> None:
    """Four projects that were looked at for the first time took all threads: known ones, and whoever would do with a
    provisional answer, waited for them."""
    slow = [sample_repository(tmp_path / f"slow{number}") for number in range(6)]
    write_files(tmp_path, {f"slow{number}/hang": "" for number in range(6)})
    async with _builder(tmp_path) as builder:
        await _build(builder, root)
        waiting = [asyncio.create_task(_build(builder, each)) for each in slow]
        write_files(tmp_path / "new", {f"m{n}.py": "value = 1\n" * 2000 for n in range(100)})
        new = (tmp_path / "new").resolve()
        assert (await _build(builder, root)).body
        assert (await builder.ask(what="search", root=str(root), query="header")).data["hits"]
        assert (await builder.ask(what="glance", root=str(new), order=order(new, TASK))).body
        assert not any(task.done() for task in waiting)
        for each in slow:
            (each / "hang").unlink()
        assert all(told.body for told in await asyncio.gather(*waiting))


async def test_a_kept_index_is_better_than_a_glance(tmp_path: Path, root: Path) -> None:
    """After a restart the full answer is quick, yet a provisional one was given."""
    for path in root.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    asked = order(root, TASK)
    async with _builder(tmp_path) as builder:
        assert (await builder.ask(what="glance", root=str(root), order=asked)).body
        await _build(builder, root)
        await until_async(lambda: any((tmp_path / "state").glob("*.index")), what="the index is kept")
    async with _builder(tmp_path) as builder:
        assert not (await builder.ask(what="glance", root=str(root), order=asked)).body

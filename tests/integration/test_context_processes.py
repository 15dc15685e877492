"""The builder's own processes: assistants that share a first build, and the fork server that starts them."""

from __future__ import annotations

import asyncio
import os
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
from tests.support.repo import write_files
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
        Limits(), 1 << 28, tmp_path / "state", on_stale=lambda root, epoch: None, on_lost=lambda: None
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
    assert not [process for process in family if process.is_running()]


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

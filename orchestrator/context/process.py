"""The supervisor's side of the builder process: start, ask, notice its end, stop."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from orchestrator.context.builder import BuilderOptions
from orchestrator.context.frames import Ask, Stale, Told, decode_answer, encode, length_of
from orchestrator.context.project import Limits
from orchestrator.errors import ContextFailed

_log = structlog.get_logger(__name__)
_STOP_S = 2.0


class BuilderProcess:
    """One builder process, started when first needed and again after it died.

    Args:
        limits: settings of all projects.
        capacity: bytes that its indexes may take.
        state_dir: where it keeps indexes between runs.
        on_stale: called with ``(root, epoch)`` when a project changed.
        on_lost: called when the process is gone, so that nothing it said before is trusted.
    """

    def __init__(
        self,
        limits: Limits,
        capacity: int,
        state_dir: Path,
        *,
        on_stale: Callable[[str, int], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._limits = limits
        self._capacity = capacity
        self._state_dir = state_dir
        self._on_stale = on_stale
        self._on_lost = on_lost
        self._numbers = itertools.count(1)
        self._pending: dict[int, asyncio.Future[Told]] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reader_task: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._is_stopped = False

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._writer is not None

    @property
    def process_id(self) -> int | None:
        """The process's id while it runs."""
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Start the process unless it runs. Raises ContextFailed."""
        async with self._starting:
            if self._is_stopped:
                raise ContextFailed("the context engine is stopped")
            if self._writer is not None:
                return
            ours, theirs = socket.socketpair()
            try:
                self._process = await asyncio.to_thread(self._spawn, theirs)
            except OSError as error:
                ours.close()
                raise ContextFailed(f"the context builder cannot be started: {error}") from error
            finally:
                theirs.close()
            reader, self._writer = await asyncio.open_connection(sock=ours, limit=1 << 20)
            self._reader_task = asyncio.create_task(self._read(reader), name="context builder")

    def _spawn(self, theirs: socket.socket) -> subprocess.Popen[bytes]:
        options = BuilderOptions(
            descriptor=theirs.fileno(),
            limits=self._limits,
            capacity=self._capacity,
            state_dir=str(self._state_dir),
        )
        argument = msgspec.json.encode(options).decode()
        return subprocess.Popen(
            [sys.executable, "-P", "-c", _ENTRY, os.pathsep.join(sys.path), argument],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    async def ask(self, **fields: object) -> Told:
        """Ask and wait for the answer. Raises ContextFailed when the builder says so or dies twice over it."""
        for attempt in (1, 2):
            await self.start()
            ask = msgspec.convert({"number": next(self._numbers), **fields}, Ask, from_attributes=True)
            future: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
            self._pending[ask.number] = future
            try:
                if self._writer is None:
                    raise EOFError("the builder is gone")
                # Not drained: asks are small, and a failed write is told by the reader's end, which every waiting
                # ask hears of exactly once.
                self._writer.write(encode(ask))
                told = await future
            except EOFError as error:
                if attempt == 2:
                    raise ContextFailed("the context builder died twice over this request; try again") from error
                continue
            finally:
                self._pending.pop(ask.number, None)
            if told.error is not None:
                raise ContextFailed(f"context cannot be gathered: {told.error}")
            return told
        raise ContextFailed("the context builder does not answer")

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                payload = await reader.readexactly(length_of(await reader.readexactly(4)))
                message = decode_answer(payload)
                if isinstance(message, Stale):
                    self._on_stale(message.root, message.epoch)
                    continue
                future = self._pending.get(message.number)
                if future is not None and not future.done():
                    future.set_result(message)
        except (asyncio.IncompleteReadError, ConnectionError, msgspec.DecodeError):
            await self._lost()

    async def _lost(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
        process, self._process = self._process, None
        self._on_lost()
        for future in self._pending.values():
            if not future.done():
                future.set_exception(EOFError("the builder is gone"))
        if process is not None:
            status = await asyncio.to_thread(_reap, process)
            if not self._is_stopped:
                _log.warning("context_builder_died", status=status)

    async def stop(self) -> None:
        """End the process and wait for it; idempotent."""
        async with self._starting:
            self._is_stopped = True
            if self._writer is not None:
                self._writer.close()
            if self._reader_task is not None:
                if self._process is not None:
                    await asyncio.to_thread(_reap, self._process)
                    self._process = None
                await self._reader_task
                self._reader_task = None


#: The child's first words: the parent's module path, then the builder.
_ENTRY = (
    "import sys; sys.path[:] = sys.argv[1].split(':'); from orchestrator.context.builder import main; main(sys.argv[2])"
)


def _reap(process: subprocess.Popen[bytes]) -> int:
    """Wait for the process, which ends by itself when its socket closes; kill it when it does not."""
    try:
        return process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()

"""One worker as the supervisor sees it: its process, its channel, and the agents that it keeps."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import IO

from agentpool import worker
from agentpool.channel import Channel
from agentpool.config import WorkerConfig
from agentpool.errors import ProtocolViolation
from agentpool.messages import AgentStarted, Command, Fact, Ping, Pong, VerifierStarted, WorkerReady, ZygoteStarted
from agentpool.specs import LaunchSpec

#: How long a worker may take to say that it is ready (an interpreter start on a busy machine).
READY_TIMEOUT_S = 60.0
#: How long a process may take to die after SIGKILL before its death is no longer waited for.
JOIN_TIMEOUT_S = 5.0
#: What a hung worker is given to write its traceback.
TRACE_WAIT_S = 0.5
#: So many commands go down in one piece, and the worker begins with them while the next are still being made.
COMMANDS_AT_ONCE = 8
_SPAWN_LOCK = threading.Lock()


@dataclass
class Kept:
    """An agent in a worker's keeping; ``started`` once its process exists, ``verifying`` once its verifier's does."""

    spec: LaunchSpec
    started: AgentStarted | None = None
    verifying: VerifierStarted | None = None


class WorkerHandle:
    """Starts a worker and passes its facts on.

    Args:
        config: what the worker is told.
        on_fact: called with each fact but those that only concern the handle.
        on_lost: called once when the worker is gone without having been asked to stop.
        tether: a descriptor that the worker is to hold as long as it lives (see ``warden``); -1 for none.
    """

    def __init__(
        self,
        config: WorkerConfig,
        on_fact: Callable[[WorkerHandle, Fact], None],
        on_lost: Callable[[WorkerHandle, str], None],
        tether: int = -1,
    ) -> None:
        self.config = config
        self.agents: dict[str, Kept] = {}
        self.zygotes: list[int] = []
        self.features: tuple[str, ...] = ()
        self.is_lost = False
        self.is_stopping = False
        self._on_fact = on_fact
        self._on_lost = on_lost
        self._tether = tether
        self._process: SpawnProcess | None = None
        self._pid = 0
        self._exit_code: int | None = None
        self._channel: Channel | None = None
        self._trace: IO[bytes] | None = None
        self._ready: asyncio.Future[None] | None = None
        self._ended = asyncio.Event()
        self._is_held = False
        self._pinged_at: float | None = None
        self._sequence = 0

    @property
    def index(self) -> int:
        """The worker's number."""
        return self.config.index

    @property
    def pid(self) -> int:
        """Its process; 0 before the start."""
        return self._pid

    @property
    def exit_code(self) -> int | None:
        """How its process ended; negative is a signal; None while it runs."""
        if self._exit_code is None and self._process is not None:
            return self._process.exitcode
        return self._exit_code

    async def start(self) -> None:
        """Start the process and wait until it is ready. Raises OSError, TimeoutError, ProtocolViolation."""
        loop = asyncio.get_running_loop()
        self._ready = loop.create_future()
        spawning = loop.create_task(asyncio.to_thread(self._spawn))
        try:
            self._channel = await asyncio.shield(spawning)
        except asyncio.CancelledError:
            # A thread cannot be cancelled: what it makes is taken over, so that ``discard`` finds it.
            self._channel = await spawning
            raise
        loop.add_reader(self._channel.fileno(), self._on_readable)
        async with asyncio.timeout(READY_TIMEOUT_S):
            await self._ready

    def send(self, command: Command) -> None:
        """Queue a command."""
        channel = self._channel
        if channel is None or channel.is_closed:
            return
        if not channel.wants_write:
            # What is sent in one turn of the loop goes in few pieces: the worker wakes once for each.
            asyncio.get_running_loop().call_soon(self._flush)
        channel.queue(command)
        if channel.queued % COMMANDS_AT_ONCE == 0:
            self._flush()

    def hold(self, is_held: bool) -> None:
        """Stop or go on reading facts; a held worker soon stops reading floods."""
        channel = self._channel
        if channel is None or channel.is_closed or is_held == self._is_held:
            return
        self._is_held = is_held
        loop = asyncio.get_running_loop()
        if is_held:
            loop.remove_reader(channel.fileno())
        else:
            loop.add_reader(channel.fileno(), self._on_readable)

    def ping(self, deadline_s: float) -> bool:
        """Ask for a sign of life; False when the last question has been open for ``deadline_s``."""
        now = time.monotonic()
        if self._is_held:
            self._pinged_at = None  # its answers are not being read; that is not its fault
            return True
        if self._pinged_at is not None:
            return now - self._pinged_at < deadline_s
        self._pinged_at = now
        self._sequence += 1
        self.send(Ping(sequence=self._sequence))
        return True

    async def abort(self) -> None:
        """End a hung worker so that it leaves a traceback, then for good."""
        if self._process is not None and self.exit_code is None:
            os.kill(self._pid, signal.SIGABRT)
            os.kill(self._pid, signal.SIGCONT)  # a stopped process takes no other signal before this one
            await asyncio.to_thread(self._process.join, TRACE_WAIT_S)
        self._lose("hung")

    async def discard(self) -> str:
        """Kill what is left of the process and close the pair; the traceback that it left, or ''."""
        self._close_channel()
        process = self._process
        if process is not None and self._exit_code is None:
            process.kill()
            await asyncio.to_thread(process.join, JOIN_TIMEOUT_S)
            self._exit_code = process.exitcode
            if self._exit_code is not None:
                process.close()
        return await asyncio.to_thread(self._read_trace)

    async def wait_ended(self, timeout_s: float) -> bool:
        """Wait for the end of the channel; False when it did not come in time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._ended.wait()
        except TimeoutError:
            return False
        return True

    def _spawn(self) -> Channel:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=True)
        self._trace = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the worker is discarded
        # A Connection is the one wrapper of a descriptor that multiprocessing hands to a spawned process.
        trace = Connection(os.dup(self._trace.fileno()), readable=False)
        tether = Connection(os.dup(self._tether), readable=False) if self._tether >= 0 else None
        try:
            process = context.Process(
                target=worker.main,
                args=(theirs, self.config, trace, tether),
                name=f"pool-worker-{self.index}",
                daemon=True,
            )
            with _lean_main():
                process.start()
            self._process = process
            self._pid = process.pid or 0
            return Channel.for_supervisor(socket.socket(fileno=os.dup(ours.fileno())))
        finally:
            for connection in (ours, theirs, trace, tether):
                if connection is not None:
                    connection.close()

    def _flush(self) -> None:
        channel = self._channel
        if channel is None or channel.is_closed:
            return
        channel.flush()
        if channel.wants_write:
            asyncio.get_running_loop().add_writer(channel.fileno(), self._on_writable)

    def _on_writable(self) -> None:
        channel = self._channel
        if channel is None or channel.is_closed:
            return
        channel.flush()
        if not channel.wants_write:
            asyncio.get_running_loop().remove_writer(channel.fileno())

    def _on_readable(self) -> None:
        if self._channel is None or self._channel.is_closed:
            return
        try:
            facts = self._channel.receive()
        except ProtocolViolation as error:
            self._lose(f"protocol: {error}")
            return
        if facts is None:
            self._lose("gone")
            return
        for fact in facts:
            self._take(fact)  # type: ignore[arg-type]

    def _take(self, fact: Fact) -> None:
        if isinstance(fact, Pong):
            self._pinged_at = None
        elif isinstance(fact, ZygoteStarted):
            self.zygotes.append(fact.pid)
        elif isinstance(fact, WorkerReady):
            self.features = fact.features
            if self._ready is not None and not self._ready.done():
                self._ready.set_result(None)
        else:
            self._on_fact(self, fact)

    def _lose(self, reason: str) -> None:
        if self.is_lost:
            return
        self.is_lost = True
        self._close_channel()
        self._ended.set()
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(ProtocolViolation(f"worker {self.index} ended before it was ready"))
            self._ready.exception()
        if not (self.is_stopping and reason == "gone"):
            self._on_lost(self, reason)

    def _close_channel(self) -> None:
        channel = self._channel
        if channel is not None and not channel.is_closed:
            loop = asyncio.get_running_loop()
            loop.remove_reader(channel.fileno())
            loop.remove_writer(channel.fileno())
            channel.close()

    def _read_trace(self) -> str:
        if self._trace is None or self._trace.closed:
            return ""
        self._trace.seek(0)
        text = self._trace.read(64 << 10).decode("utf-8", "replace")
        self._trace.close()
        return text


@contextlib.contextmanager
def _lean_main() -> Iterator[None]:
    """Hide the program's main module: ``spawn`` would run it again in the worker, with all that it imports."""
    with _SPAWN_LOCK:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main

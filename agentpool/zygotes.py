"""A worker's end of its zygote: starts it, orders forks, and passes on what became of them."""

from __future__ import annotations

import array
import itertools
import math
import os
import re
import resource
import signal
import socket
import sys
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from agentpool import launching
from agentpool.config import WorkerConfig
from agentpool.errors import LaunchFailed
from agentpool.proctable import read_entry
from agentpool.reactor import READ, WRITE, Reactor
from agentpool.runtimes.base import Invocation
from agentpool.signalling import signal_process
from agentpool.zygote import MARK_BYTES, MARK_NAME, READ_BYTES, SOCKET_FD

if TYPE_CHECKING:
    from agentpool.attempt import Attempt

#: Orders sent in one message, with their descriptors (the kernel takes 253): the zygote forks them in one go,
#: which copies fewer pages, and the first of them waits no longer than a few milliseconds for its answer.
ORDERS_AT_ONCE = 16
#: What a zygote may take for its first answer: the imports of the configured modules on a busy machine.
START_DEADLINE_S = 120.0

TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", re.ASCII)
BOOT = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from agentpool.zygote import main; main(sys.argv[3:], is_guarded=sys.argv[2] == 'guarded')"
)


class ZygoteMessage(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of the messages between a worker and its zygote: a JSON list on a line, the class's name first."""


class Fork(ZygoteMessage, frozen=True):
    """Fork an agent; the fields are the nonce and those of LaunchPlan, without the limit that the zygote has itself."""

    key: int
    target: str
    env: dict[str, str]
    cwd: str
    rlimits: tuple[tuple[int, int, int], ...]
    nice: int
    entrance: str | None
    nonce: str


class Signal(ZygoteMessage, frozen=True):
    """Signal the group of a child; ignored when it has been reaped."""

    pid: int
    number: int


class Ping(ZygoteMessage, frozen=True):
    """Ask for a sign of life."""


class Forked(ZygoteMessage, frozen=True):
    """The agent exists."""

    key: int
    pid: int


class ForkFailed(ZygoteMessage, frozen=True):
    """The system refused the fork."""

    key: int
    errno: int


class Left(ZygoteMessage, frozen=True):
    """A child ended; the rest of its group has been sent TERM."""

    pid: int
    exit_code: int | None
    signal: int | None
    cpu_seconds: float
    max_rss_bytes: int


class Pong(ZygoteMessage, frozen=True):
    """The answer to Ping."""


Order = Fork | Signal | Ping
Answer = Forked | ForkFailed | Left | Pong


class ZygoteOwner(Protocol):
    """What the link tells its worker."""

    def zygote_left(self, attempt: Attempt, left: Left) -> None:
        """An agent ended."""

    def zygote_lost(self, link: ZygoteLink, orphans: list[Attempt]) -> None:
        """The zygote is gone; these agents were its children."""


class ZygoteLink:
    """One zygote. It is started by the constructor; a lost one is not used again.

    It is pinged while it has agents or is to make one. One that is silent is continued, since any of its agents can
    have stopped it; one that stays so for ``ping_deadline_s`` is killed, and its agents with it.
    """

    def __init__(self, reactor: Reactor, owner: ZygoteOwner, config: WorkerConfig) -> None:
        self._reactor = reactor
        self._owner = owner
        self._config = config
        self._pending: dict[int, Attempt] = {}
        self._running: dict[int, Attempt] = {}
        self._outgoing: deque[tuple[memoryview, tuple[int, ...]]] = deque()
        self._rest = b""
        self._encoder = msgspec.json.Encoder()
        self._decoder = msgspec.json.Decoder[Any](Answer)
        self._next_key = 0
        self._is_flushing = False
        self._is_watched = False
        self._has_answered = False
        self._silent_looks = 0
        self.is_lost = False
        self._sock, theirs = socket.socketpair()
        try:
            self.pid = self._spawn(theirs.fileno(), config)
        except OSError:
            self._sock.close()
            raise
        finally:
            theirs.close()
        entry = read_entry(self.pid)
        self._start_ticks = entry.start_ticks if entry is not None else 0
        self._sock.setblocking(False)
        reactor.watch(self._sock.fileno(), READ, self._on_ready)

    @staticmethod
    def _spawn(sock: int, config: WorkerConfig) -> int:
        path = msgspec.json.encode([entry for entry in sys.path if entry]).decode()
        # Guarded: what is in its agents' cgroups is killed should this process and the supervisor die at once.
        argv = [sys.executable, "-c", BOOT, path, "guarded" if config.has_warden else "alone", *config.preload]
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        actions = [
            (os.POSIX_SPAWN_DUP2, null, 0),
            (os.POSIX_SPAWN_DUP2, null, 1),
            (os.POSIX_SPAWN_DUP2, sock, SOCKET_FD),
        ]
        # Bound now, once, instead of by each agent at its first call of a function.
        env = {"PATH": os.environ.get("PATH", launching.FALLBACK_PATH), "LC_ALL": "C.UTF-8", "LD_BIND_NOW": "1"}
        env[MARK_NAME] = "-" * MARK_BYTES
        try:
            return os.posix_spawn(sys.executable, argv, env, file_actions=actions)
        finally:
            os.close(null)

    def fork(self, plan: launching.LaunchPlan, attempt: Attempt) -> launching.Pipes:
        """Order an agent; ``attempt.started`` or ``attempt.fail_launch`` follows. Raises LaunchFailed, OSError."""
        if len(attempt.spec.nonce.encode()) > MARK_BYTES:
            text = f"{plan.argv[0]}: the nonce is longer than {MARK_BYTES} bytes"
            raise LaunchFailed("limits", text, command=plan.argv[0], is_permanent=True)
        pipes, ends = launching.open_pipes(has_stdin=plan.has_stdin)
        self._next_key += 1
        order = Fork(
            key=self._next_key,
            target=plan.argv[0],
            env=plan.env,
            cwd=plan.cwd,
            rlimits=tuple(limit for limit in plan.rlimits if limit[0] != resource.RLIMIT_CORE),
            nice=plan.nice,
            entrance=plan.entrance,
            nonce=attempt.spec.nonce,
        )
        self._pending[order.key] = attempt
        self._send(order, (ends.stdin, ends.stdout, ends.stderr))
        if not self._is_watched:
            self._is_watched = True
            self._silent_looks = 0
            self._reactor.later(self._config.ping_interval_s, self._look)
        return pipes

    def signal(self, pid: int, number: int) -> None:
        """Signal an agent's group; nothing happens when it is gone."""
        if pid in self._running:
            self._send(Signal(pid=pid, number=number), ())

    def close(self) -> None:
        """End the zygote, and with it whatever it still has."""
        self._abandon()

    def _send(self, order: Order, fds: tuple[int, ...]) -> None:
        if self.is_lost:
            for fd in fds:
                os.close(fd)
            return
        self._outgoing.append((memoryview(self._encoder.encode(order) + b"\n"), fds))
        if len(self._outgoing) == ORDERS_AT_ONCE:
            self._flush()
        elif not self._is_flushing:
            self._is_flushing = True
            self._reactor.later(0.0, self._flush)  # at the end of this turn: what came together goes together

    def _flush(self) -> None:
        self._is_flushing = False
        if self.is_lost:
            return
        while self._outgoing:
            orders = list(itertools.islice(self._outgoing, ORDERS_AT_ONCE))
            fds = [fd for _, theirs in orders for fd in theirs]
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                written = self._sock.sendmsg([data for data, _ in orders], ancillary)
            except BlockingIOError:
                break
            except OSError:
                break  # the end of the stream will be read
            for fd in fds:
                os.close(fd)
            # The descriptors of all went with the first byte.
            rest: list[tuple[memoryview, tuple[int, ...]]] = []
            for data, _ in orders:
                self._outgoing.popleft()
                if written < len(data):
                    rest.append((data[written:], ()))
                written = max(0, written - len(data))
            self._outgoing.extendleft(reversed(rest))
        events = READ | WRITE if self._outgoing else READ
        self._reactor.watch(self._sock.fileno(), events, self._on_ready)

    def _on_ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if not events & READ:
            return
        try:
            data = self._sock.recv(READ_BYTES)
            if data:
                self._has_answered = True
                self._silent_looks = 0
                *answers, self._rest = (self._rest + data).split(b"\n")
                for answer in answers:
                    self._take(self._decoder.decode(answer))
                return
        except BlockingIOError:
            return
        except (OSError, msgspec.MsgspecError):
            pass
        self._lose()

    def _take(self, answer: Answer) -> None:
        if isinstance(answer, Forked):
            attempt = self._pending.pop(answer.key)
            self._running[answer.pid] = attempt
            attempt.started(answer.pid)
        elif isinstance(answer, ForkFailed):
            self._pending.pop(answer.key).fail_launch(_refused(os.strerror(answer.errno)))
        elif isinstance(answer, Left):
            gone = self._running.pop(answer.pid, None)
            if gone is not None:
                self._owner.zygote_left(gone, answer)

    def _look(self) -> None:
        """Count the looks that found no answer rather than seconds: this process may have been stopped as well."""
        if self.is_lost or not (self._pending or self._running):
            self._is_watched = False
            return
        interval_s, deadline_s = self._config.ping_interval_s, self._config.ping_deadline_s
        last_look = math.ceil((deadline_s if self._has_answered else START_DEADLINE_S) / interval_s)
        if self._silent_looks == 0:
            self._send(Ping(), ())
        elif self._silent_looks <= last_look:
            signal_process(self.pid, self._start_ticks, signal.SIGCONT)
        else:
            signal_process(self.pid, self._start_ticks, signal.SIGKILL)  # the end of the stream follows
        if self._silent_looks > last_look + math.ceil(deadline_s / interval_s):
            self._lose()  # it cannot be killed (uninterruptible sleep)
            return
        self._silent_looks += 1
        self._reactor.later(interval_s, self._look)

    def _abandon(self) -> None:
        if self.is_lost:
            return
        self.is_lost = True
        self._reactor.forget(self._sock.fileno())
        self._sock.close()
        for _, fds in self._outgoing:
            for fd in fds:
                os.close(fd)
        self._outgoing.clear()
        signal_process(self.pid, self._start_ticks, signal.SIGKILL)

    def _lose(self) -> None:
        self._abandon()
        pending, self._pending = list(self._pending.values()), {}
        orphans, self._running = list(self._running.values()), {}
        for attempt in pending:
            attempt.kill_leaf()  # it may have been forked without that having been told
            attempt.fail_launch(_refused("the parent of warm Python agents died"))
        self._owner.zygote_lost(self, orphans)


def check_target(argv: tuple[str, ...], workspace: str) -> None:
    """Raise LaunchFailed unless ``argv`` is one ``module:function`` and the workspace is a directory."""
    command = argv[0] if argv else ""
    if len(argv) != 1 or not TARGET.fullmatch(command):
        text = f"{command or 'the command'}: a python agent is named as module:function, one item"
        raise LaunchFailed("not_found", text, command=command, is_permanent=True)
    if not os.path.isdir(workspace):
        text = f"{command}: the workspace {workspace} is not a directory"
        raise LaunchFailed("workspace", text, command=command, is_permanent=True)


def cold_invocation(invocation: Invocation) -> Invocation:
    """The same agent by an interpreter of its own, for where a fork will not do (a sandbox)."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    path = os.pathsep.join(part for part in (root, invocation.env.get("PYTHONPATH", "")) if part)
    argv = (sys.executable, "-m", "agentpool.python_agent", *invocation.argv)
    return Invocation(argv=argv, env={**invocation.env, "PYTHONPATH": path})


def _refused(reason: str) -> LaunchFailed:
    return LaunchFailed("resources", f"python agent: {reason}", command="python", is_permanent=False)

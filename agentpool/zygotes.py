"""A worker's end of its zygote: starts it, orders forks, and passes on what became of them."""

from __future__ import annotations

import array
import itertools
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
from agentpool.errors import LaunchFailed
from agentpool.reactor import READ, WRITE, Reactor
from agentpool.runtimes.base import Invocation
from agentpool.zygote import MARK_BYTES, MARK_NAME, READ_BYTES, SOCKET_FD

if TYPE_CHECKING:
    from agentpool.attempt import Attempt

#: Orders sent in one message, with their descriptors (the kernel takes 253): the zygote forks them in one go,
#: which copies fewer pages, and the first of them waits no longer than a few milliseconds for its answer.
ORDERS_AT_ONCE = 16

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


Order = Fork | Signal
Answer = Forked | ForkFailed | Left


class ZygoteOwner(Protocol):
    """What the link tells its worker."""

    def zygote_left(self, attempt: Attempt, left: Left) -> None:
        """An agent ended."""

    def zygote_lost(self, link: ZygoteLink, orphans: list[Attempt]) -> None:
        """The zygote is gone; these agents were its children."""


class ZygoteLink:
    """One zygote. It is started by the constructor; a lost one is not used again.

    ``has_warden``: what is in its agents' cgroups is killed should this process and the supervisor die at once.
    """

    def __init__(
        self, reactor: Reactor, owner: ZygoteOwner, preload: tuple[str, ...], *, has_warden: bool = False
    ) -> None:
        self._reactor = reactor
        self._owner = owner
        self._pending: dict[int, Attempt] = {}
        self._running: dict[int, Attempt] = {}
        self._outgoing: deque[tuple[memoryview, tuple[int, ...]]] = deque()
        self._rest = b""
        self._encoder = msgspec.json.Encoder()
        self._decoder = msgspec.json.Decoder[Any](Answer)
        self._next_key = 0
        self._is_flushing = False
        self.is_lost = False
        self._sock, theirs = socket.socketpair()
        try:
            self.pid = self._spawn(theirs.fileno(), preload, has_warden=has_warden)
        except OSError:
            self._sock.close()
            raise
        finally:
            theirs.close()
        self._sock.setblocking(False)
        reactor.watch(self._sock.fileno(), READ, self._on_ready)

    @staticmethod
    def _spawn(sock: int, preload: tuple[str, ...], *, has_warden: bool) -> int:
        path = msgspec.json.encode([entry for entry in sys.path if entry]).decode()
        argv = [sys.executable, "-c", BOOT, path, "guarded" if has_warden else "alone", *preload]
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
        else:
            gone = self._running.pop(answer.pid, None)
            if gone is not None:
                self._owner.zygote_left(gone, answer)

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
        try:
            os.kill(self.pid, signal.SIGKILL)  # our child, reaped by nobody but this worker
        except ProcessLookupError:
            pass

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

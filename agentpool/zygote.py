"""The warm parent: a lean single-threaded process that forks Python agents with their modules loaded.

It has its own address space, made by exec, so no agent finds another's token in its memory; it starts with
an environment of its own and drops it before the first fork. It is told what to fork over a socket and reports
each exit; when the socket closes, it ends, and the kernel kills its children (PDEATHSIG).
"""

from __future__ import annotations

# ``signal`` turns each answer into an enum or an exception, which costs every agent 57 copied pages.
import _signal  # type: ignore[import-not-found]
import array
import gc
import importlib
import os
import selectors
import signal
import socket
import sys
from typing import Any

import msgspec

from agentpool.agent import Agent
from agentpool.channel import FrameBuffer, encode_frame
from agentpool.errors import ProtocolViolation
from agentpool.launching import become_agent
from agentpool.platforms import IS_LINUX, ProcessFlags
from agentpool.python_agent import finish, load_target, run_target

SOCKET_FD = 3
READ_BYTES = 256 << 10
#: Descriptors that come with each Fork: stdin, stdout, stderr.
FDS_PER_FORK = 3
#: CPython specializes code that has run 8 times (PEP 659); one more lets it run specialized.
REHEARSALS = 9


class ZygoteMessage(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Base of the messages between a worker and its zygote."""


class Fork(ZygoteMessage, frozen=True, kw_only=True):
    """Fork an agent; the fields are those of LaunchPlan."""

    key: int
    target: str
    env: dict[str, str]
    cwd: str
    rlimits: tuple[tuple[int, int, int], ...]
    nice: int
    entrance: str | None


class Signal(ZygoteMessage, frozen=True, kw_only=True):
    """Signal the group of a child; ignored when it has been reaped."""

    pid: int
    number: int


class Forked(ZygoteMessage, frozen=True, kw_only=True):
    """The agent exists."""

    key: int
    pid: int


class ForkFailed(ZygoteMessage, frozen=True, kw_only=True):
    """The system refused the fork."""

    key: int
    errno: int


class Left(ZygoteMessage, frozen=True, kw_only=True):
    """A child ended; the rest of its group has been sent TERM."""

    pid: int
    exit_code: int | None
    signal: int | None
    cpu_seconds: float
    max_rss_bytes: int


Order = Fork | Signal
Answer = Forked | ForkFailed | Left


class Zygote:
    """The loop of the process."""

    def __init__(self, sock: socket.socket, flags: ProcessFlags) -> None:
        self._sock = sock
        self._flags = flags
        self._frames = FrameBuffer()
        self._decoder = msgspec.msgpack.Decoder[Any](Order)
        self._encoder = msgspec.msgpack.Encoder()
        self._fds: list[int] = []
        self._children: set[int] = set()

    def run(self) -> None:
        """Serve until the socket closes. Returns in the zygote only."""
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        with selectors.DefaultSelector() as selector:
            selector.register(self._sock, selectors.EVENT_READ)
            selector.register(wake_read, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fd == wake_read:
                        self._clear(wake_read)
                        self._reap()
                    elif not self._serve():
                        return

    def _serve(self) -> bool:
        ancillary_bytes = socket.CMSG_SPACE(253 * 4)  # SCM_MAX_FD of Linux
        data, ancillary, _flags, _address = self._sock.recvmsg(READ_BYTES, ancillary_bytes)
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
                self._fds.extend(fds)
        if not data:
            return False
        orders = [self._decoder.decode(payload) for payload in self._frames.feed(data)]
        for order in orders:
            if isinstance(order, Signal) and order.pid in self._children:
                try:
                    os.killpg(order.pid, order.number)
                except (ProcessLookupError, PermissionError):
                    pass
        self._fork_all([order for order in orders if isinstance(order, Fork)])
        return True

    def _fork_all(self, orders: list[Fork]) -> None:
        """Fork in a loop that does nothing else: after each fork, every page that is written to is copied again."""
        if not orders:
            return
        stdio = [self._take_fds() for _ in orders]
        pids = []
        parent = os.getpid()
        # The handler of an exit would run between two forks. An agent resets its mask.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD,))
        for order, fds in zip(orders, stdio, strict=True):
            try:
                pid = os.fork()
            except OSError as error:
                pids.append(-(error.errno or 1))
                continue
            if pid == 0:
                self._become(order, fds, parent)
            pids.append(pid)
        for fds in stdio:
            for fd in fds:
                os.close(fd)
        self._children.update(pid for pid in pids if pid > 0)
        self._answer(
            [
                Forked(key=order.key, pid=pid) if pid > 0 else ForkFailed(key=order.key, errno=-pid)
                for order, pid in zip(orders, pids, strict=True)
            ]
        )
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGCHLD,))

    def _take_fds(self) -> list[int]:
        if len(self._fds) < FDS_PER_FORK:
            raise ProtocolViolation("a fork was ordered without its descriptors")
        taken, self._fds = self._fds[:FDS_PER_FORK], self._fds[FDS_PER_FORK:]
        return taken

    def _become(self, order: Fork, stdio: list[int], parent: int) -> None:
        status = 1
        try:
            for number, fd in enumerate(stdio):
                os.dup2(fd, number)
            os.closerange(3, 1 << 30 if IS_LINUX else 4096)
            become_agent(order.cwd, order.rlimits, order.nice, order.entrance, self._flags, parent)
            signal.set_wakeup_fd(-1)
            _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
            _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
            for name, value in order.env.items():  # update() asks for the type of its argument: 0.2 ms of copied pages
                os.environ[name] = value
            sys.argv = [order.target]
            sys.path.insert(0, order.cwd)
            gc.enable()
            status = run_target(order.target)
        except OSError as error:
            sys.stderr.write(f"agent {order.target}: {error.filename or 'setup'}: {os.strerror(error.errno or 0)}\n")
        finally:
            finish(status)

    def _reap(self) -> None:
        answers: list[Answer] = []
        while self._children:
            pid = next_exited()
            if pid is None:
                break
            if pid:
                try:
                    os.killpg(pid, signal.SIGTERM)  # the zombie still holds the number
                except (ProcessLookupError, PermissionError):
                    pass
            pid, status, usage = os.wait4(pid or -1, 0 if pid else os.WNOHANG)
            if pid == 0:
                break
            self._children.discard(pid)
            code = os.waitstatus_to_exitcode(status)
            answers.append(
                Left(
                    pid=pid,
                    exit_code=code if code >= 0 else None,
                    signal=-code if code < 0 else None,
                    cpu_seconds=usage.ru_utime + usage.ru_stime,
                    max_rss_bytes=max_rss_bytes(usage.ru_maxrss),
                )
            )
        self._answer(answers)

    def _answer(self, answers: list[Answer]) -> None:
        if answers:
            self._sock.sendall(b"".join(encode_frame(self._encoder.encode(answer)) for answer in answers))

    @staticmethod
    def _clear(fd: int) -> None:
        try:
            while os.read(fd, 4096):
                pass
        except BlockingIOError:
            pass


def next_exited() -> int | None:
    """The pid of a child that has exited, left as a zombie; None when there is none.

    0 where the platform cannot look without reaping (macOS before Python 3.13).
    """
    if not hasattr(os, "waitid"):
        return 0
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return found.si_pid if found is not None else None


def max_rss_bytes(ru_maxrss: int) -> int:
    """``ru_maxrss`` in bytes: Linux counts kilobytes, macOS bytes (getrusage(2))."""
    return ru_maxrss * 1024 if IS_LINUX else ru_maxrss


def rehearse() -> None:
    """Do what each agent does, so that what it looks up is cached in pages that all of them share."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        for _ in range(REHEARSALS):
            load_target(f"{Agent.__module__}:{Agent.__name__}")
            Agent(out=nowhere).result({"status": "success"})


def main(preload: list[str]) -> None:
    """Become the zygote on descriptor 3."""
    os.setsid()
    flags = ProcessFlags()
    flags.die_with_parent()
    # Blocked, not ignored, and the two that Python ignores as they were: an agent has one call less for each.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    for name in preload:
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - a module may raise anything; its agents will show it again
            sys.stderr.write(f"zygote: preload of {name} failed: {error!r}\n")
    rehearse()
    os.environ.clear()  # what an agent gets is what its order says, and nothing else
    sock = socket.socket(fileno=SOCKET_FD)
    gc.collect()
    gc.disable()
    gc.freeze()
    Zygote(sock, flags).run()
    os._exit(0)

"""The warm parent: a lean single-threaded process that forks Python agents with their modules loaded.

It has its own address space, made by exec: nothing of the supervisor's or a worker's memory is in it. It starts with
an environment of its own and drops it before the first fork. What the system shows as a process's environment are the
bytes that it was executed with, though, and forks inherit those: so they hold a blank, ``MARK_NAME``, into which the
nonce of each agent is written before its fork, and all that descends from an agent is known by it.

It is told what to fork over a socket and reports each exit; when the socket closes, it ends, and its children are
killed: by the kernel (PDEATHSIG), or by whoever sees the end, in their cgroups.

Each page that it holds costs every agent: the fork copies its entry, the exit drops it, and a write in between copies
the page. So it imports what agents need and little else (no ``msgspec``, ``typing`` or ``traceback``): orders and
answers are lists in JSON, one a line, whose fields ``zygotes`` names.
"""

from __future__ import annotations

# ``signal`` turns each answer into an enum or an exception, which costs every agent 57 copied pages.
import _signal  # type: ignore[import-not-found]
import ctypes
import gc
import importlib
import json
import os
import resource
import select
import socket
import sys

from agentpool.becoming import become_agent
from agentpool.platforms import IS_LINUX, ProcessFlags
from agentpool.python_agent import finish, run_target

TYPE_CHECKING = False
if TYPE_CHECKING:  # without the cost of ``typing``
    from typing import Any

SOCKET_FD = 3
#: close_range(2) makes a high bound free on Linux; elsewhere each number costs a call.
HIGHEST_FD = 1 << 30 if IS_LINUX else 4096
READ_BYTES = 256 << 10
#: Descriptors that come with each order to fork: stdin, stdout, stderr.
FDS_PER_FORK = 3
#: Where agents' nonces are in the environment that the zygote was started with, and the room for one.
MARK_NAME = "AGENTPOOL_NONCE"
MARK_BYTES = 256
#: CPython specializes code that has run 8 times (PEP 659); one more lets it run specialized.
REHEARSALS = 9


class Zygote:
    """The loop of the process."""

    def __init__(self, sock: socket.socket, flags: ProcessFlags, mark: Any, *, is_guarded: bool) -> None:
        self._sock = sock
        self._flags = flags
        self._mark = mark
        self._is_guarded = is_guarded
        self._rest = b""
        self._fds: list[int] = []
        self._children: set[int] = set()
        self._wake = -1

    def run(self) -> None:
        """Serve until the socket closes. Returns in the zygote only."""
        wake_read, self._wake = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(self._wake, False)
        self._listen()
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        poll.register(wake_read, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == wake_read:
                    self._clear(wake_read)
                    self._reap()
                elif not self._serve():
                    return

    def _serve(self) -> bool:
        ancillary_bytes = socket.CMSG_SPACE(253 * 4)  # SCM_MAX_FD of Linux
        data, ancillary, _flags, _address = self._sock.recvmsg(READ_BYTES, ancillary_bytes)
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                self._fds.extend(memoryview(payload[: len(payload) // 4 * 4]).cast("i"))
        if not data:
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        forks = []
        for line in lines:
            kind, *fields = json.loads(line)
            if kind == "Fork":
                forks.append(fields)
            elif kind == "Ping":
                self._answer([["Pong"]])
            elif fields[0] in self._children:
                self._signal(*fields)
        self._fork_all(forks)
        return True

    @staticmethod
    def _signal(pid: int, number: int) -> None:
        """Signal the group of a child that has not been reaped, so that the number is still its own."""
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            os.kill(pid, number)  # it has been forked just now and has no session yet
        except PermissionError:
            pass

    def _fork_all(self, orders: list[list[Any]]) -> None:
        """Fork in a loop that does nothing else: after each fork, every page that is written to is copied again.

        Meanwhile exits are not listened to, for a handler would run between two forks, and the agents need not
        put that back, each for itself.
        """
        if not orders:
            return
        stdio = [self._take_fds() for _ in orders]
        nonces = [order.pop().encode().ljust(MARK_BYTES, b"\0") for order in orders]
        pids = []
        parent = os.getpid()
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        _signal.set_wakeup_fd(-1)
        for order, fds, nonce in zip(orders, stdio, nonces, strict=True):
            self._mark.raw = nonce
            try:
                pid = os.fork()
            except OSError as error:
                pids.append(-(error.errno or 1))
                continue
            if pid == 0:
                self._become(order, fds, parent)
            pids.append(pid)
        self._mark.raw = bytes(MARK_BYTES)  # it is no agent itself
        for fds in stdio:
            for fd in fds:
                os.close(fd)
        self._children.update(pid for pid in pids if pid > 0)
        self._answer(
            [
                ["Forked", order[0], pid] if pid > 0 else ["ForkFailed", order[0], -pid]
                for order, pid in zip(orders, pids, strict=True)
            ]
        )
        self._listen()
        self._reap()  # what ended meanwhile

    def _listen(self) -> None:
        _signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        _signal.signal(_signal.SIGCHLD, lambda _number, _frame: None)

    def _take_fds(self) -> list[int]:
        if len(self._fds) < FDS_PER_FORK:
            raise RuntimeError("a fork was ordered without its descriptors")
        taken, self._fds = self._fds[:FDS_PER_FORK], self._fds[FDS_PER_FORK:]
        return taken

    def _become(self, order: list[Any], stdio: list[int], parent: int) -> None:
        status = 1
        _key, target, env, cwd, rlimits, nice, entrance = order
        try:
            enter(stdio, len(stdio), env, cwd)
            # A call through ctypes copies 36 pages.
            flags = None if self._is_guarded and entrance is not None else self._flags
            become_agent(cwd, rlimits, nice, entrance, flags, parent)
            gc.enable()
            sys.argv = [target]
            status = run_target(target, env)
        except OSError as error:
            sys.stderr.write(f"agent {target}: {error.filename or 'setup'}: {os.strerror(error.errno or 0)}\n")
        finally:
            finish(status)

    def _reap(self) -> None:
        answers: list[list[Any]] = []
        while self._children:
            pid = next_exited()
            if pid is None:
                break
            if pid:
                try:
                    os.killpg(pid, _signal.SIGTERM)  # the zombie still holds the number
                except (ProcessLookupError, PermissionError):
                    pass
            pid, status, usage = os.wait4(pid or -1, 0 if pid else os.WNOHANG)
            if pid == 0:
                break
            self._children.discard(pid)
            code = os.waitstatus_to_exitcode(status)
            cpu_seconds = usage.ru_utime + usage.ru_stime
            how = (code, None) if code >= 0 else (None, -code)
            answers.append(["Left", pid, *how, cpu_seconds, max_rss_bytes(usage.ru_maxrss)])
        self._answer(answers)

    def _answer(self, answers: list[list[Any]]) -> None:
        if answers:
            self._sock.sendall("".join(json.dumps(answer) + "\n" for answer in answers).encode())

    @staticmethod
    def _clear(fd: int) -> None:
        try:
            while os.read(fd, 4096):
                pass
        except BlockingIOError:
            pass


def enter(stdio: list[int], first_closed: int, env: dict[str, str], cwd: str) -> None:
    """Take these as stdin, stdout and stderr, close what is above, and take a signal mask, environment and path."""
    for number, fd in enumerate(stdio):
        os.dup2(fd, number)
    os.closerange(first_closed, HIGHEST_FD)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    for name, value in env.items():  # update() asks for the type of its argument: 0.2 ms of copied pages
        os.environ[name] = value
    sys.path.insert(0, cwd)


def find_mark() -> Any:
    """The value of MARK_NAME in the environment that this process was started with, to be written to.

    Raises RuntimeError where there is none, or one of another length.
    """
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_void_p
    address = getenv(MARK_NAME.encode())
    if not address or len(ctypes.string_at(address)) != MARK_BYTES:
        raise RuntimeError(f"a zygote is started with {MARK_BYTES} bytes of {MARK_NAME}")
    return (ctypes.c_char * MARK_BYTES).from_address(address)


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
    for _ in range(REHEARSALS):
        env = {"AGENT_ID": "rehearsal"}
        enter([0, 1, 2], HIGHEST_FD, env, "")
        del sys.path[0]
        run_target(f"{rehearsed.__module__}:{rehearsed.__name__}", env)


def use_up_gaps() -> None:
    """Take the small free pieces of the C library's heap, for good: 100 KB.

    The texts of an agent's environment are kept there. Put into gaps all over the heap, each would copy a page of its
    own, 35 more for 13 variables; at its end they lie side by side.
    """
    names = [(f"GAP_{size}_{number}", "x" * size) for size in range(0, 120, 8) for number in range(60)]
    for name, value in names:
        os.putenv(name, value)
    for name, _ in names:
        os.unsetenv(name)  # which gives nothing back (glibc keeps each text that it ever made)


def rehearsed(_agent: object) -> dict[str, str]:
    """The agent of the rehearsal."""
    return {"status": "success"}


def main(preload: list[str], *, is_guarded: bool) -> None:
    """Become the zygote on descriptor 3, in the way in which its children become agents; stdout is the null device.

    ``is_guarded``: whoever sees this process die kills what is in its agents' cgroups, so that those which have one
    need no death signal.
    """
    flags = ProcessFlags()
    mark = find_mark()  # before the environment is changed
    become_agent("/", ((resource.RLIMIT_CORE, 0, 0),), 0, os.devnull, flags, os.getppid())
    # Here, once: those that Python handles or ignores, and those that were ignored before the sidecar (``nohup``, a
    # shell's ``&``). The two that must not end the zygote are blocked, so that an agent has one call less for each.
    for number in _signal.valid_signals():
        if _signal.getsignal(number) not in (_signal.SIG_DFL, None):
            _signal.signal(number, _signal.SIG_DFL)
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    for name in preload:
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - a module may raise anything; its agents will show it again
            sys.stderr.write(f"zygote: preload of {name} failed: {error!r}\n")
    rehearse()
    use_up_gaps()
    _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGINT, _signal.SIGTERM))
    os.environ.clear()  # what an agent gets is what its order says, and nothing else
    sock = socket.socket(fileno=SOCKET_FD)
    gc.collect()
    gc.disable()
    gc.freeze()
    Zygote(sock, flags, mark, is_guarded=is_guarded).run()
    os._exit(0)

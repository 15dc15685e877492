"""The short way to start a command: ``posix_spawn``, which copies nothing of the worker.

A fork of a Python process with ``/bin/true`` costs about 2 ms of CPU together with what parent and child copy
afterwards, a spawn 0.7 ms, and one through util-linux's ``setpriv`` 1.5 ms. A spawn can do less, so it is taken
only where nothing is lost: no limits beyond those that the worker has itself, a program that ``execve`` will
certainly take, and somebody who kills the agent should its worker and the supervisor die at once: the warden of
its cgroup, or without one the death signal, which ``setpriv`` sets. Everything else, and every other system, goes
the long way (``launching.start``).
"""

from __future__ import annotations

import os
import resource
import shutil
import signal

from agentpool import launching
from agentpool.errors import LaunchFailed
from agentpool.platforms import IS_LINUX

#: A single argument may have 128 KiB, all of them and the environment 6 MB (execve(2)); far below is certain.
LONGEST_TEXT = 100_000
LONGEST_TOTAL = 500_000
ELF = b"\x7fELF"


class Spawner:
    """Starts commands for one worker.

    Args:
        home: the worker's own cgroup leaf (its ``cgroup.procs``), None without cgroups. A child is born in
            the cgroup of its parent, so the worker steps into the agent's leaf for the moment of the start;
            that leaves no time in which a child of the agent's could be born elsewhere.
        has_warden: whether what is in a leaf is killed without us.
    """

    def __init__(self, home: str | None, *, has_warden: bool = False) -> None:
        # Kept open: coming back must not fail for want of a descriptor.
        self._home = os.open(home, os.O_WRONLY | os.O_CLOEXEC) if home is not None else None
        self._has_warden = has_warden and home is not None
        self._setpriv = find_setpriv() if IS_LINUX else None
        self._signals = [n for n in signal.valid_signals() if n not in (signal.SIGKILL, signal.SIGSTOP)]
        if self._setpriv is not None or self._has_warden:
            _, hard = resource.getrlimit(resource.RLIMIT_CORE)
            resource.setrlimit(resource.RLIMIT_CORE, (0, hard))  # agents inherit it

    def can_start(self, plan: launching.LaunchPlan) -> bool:
        """Whether the short way does exactly what the long way would."""
        if plan.nice or not plan.program.startswith("/"):
            return False
        if self._setpriv is None and not self._is_guarded(plan):
            return False
        if any(which != resource.RLIMIT_CORE for which, _, _ in plan.rlimits):
            return False
        if plan.entrance is not None and self._home is None:
            return False
        texts = [*plan.argv, *plan.env, *plan.env.values()]
        total = sum(map(len, texts))
        if total > LONGEST_TEXT and (total > LONGEST_TOTAL or max(map(len, texts)) > LONGEST_TEXT):
            return False
        return is_executable_format(plan.program)

    def start(self, plan: launching.LaunchPlan) -> tuple[int, launching.Pipes]:
        """The pid of the running program, and the worker's ends of its pipes.

        Raises LaunchFailed ``resources`` or ``workspace``; nothing is left then.
        """
        command = plan.argv[0]
        try:
            pipes, ends = launching.open_pipes(has_stdin=plan.has_stdin)
        except OSError as error:
            raise LaunchFailed(
                "resources", f"{command}: {error.strerror}", command=command, is_permanent=False
            ) from error
        try:
            return self._spawn(plan, ends), pipes
        except LaunchFailed:
            _close(pipes)
            raise
        except OSError as error:
            _close(pipes)
            is_place = isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError)
            reason = "workspace" if is_place else "resources"
            text = f"{command}: {error.strerror}: {error.filename or ''}".rstrip(": ")
            raise LaunchFailed(reason, text, command=command, is_permanent=is_place) from error
        finally:
            ends.close()

    def _spawn(self, plan: launching.LaunchPlan, ends: launching.ChildEnds) -> int:
        actions = [
            (os.POSIX_SPAWN_DUP2, ends.stdin, 0),
            (os.POSIX_SPAWN_DUP2, ends.stdout, 1),
            (os.POSIX_SPAWN_DUP2, ends.stderr, 2),
        ]
        program, argv = plan.program, plan.argv
        if not self._is_guarded(plan):
            assert self._setpriv is not None
            program = self._setpriv
            argv = (program, "--pdeathsig", "KILL", "--", plan.program, *plan.argv[1:])
        os.chdir(plan.cwd)
        try:
            if plan.entrance is not None:
                _enter(plan.entrance)
            try:
                return os.posix_spawn(
                    program,
                    argv,
                    plan.env,
                    file_actions=actions,
                    setsid=True,
                    setsigdef=self._signals,
                    setsigmask=(),
                )
            except OSError as error:
                raise launching.explain(f"exec {error.errno or 0}".encode(), plan) from error
            finally:
                if plan.entrance is not None:
                    self._come_back()
        finally:
            os.chdir("/")

    def _is_guarded(self, plan: launching.LaunchPlan) -> bool:
        return self._has_warden and plan.entrance is not None

    def _come_back(self) -> None:
        assert self._home is not None
        try:
            os.pwrite(self._home, b"0", 0)
        except OSError as error:
            # In an agent's leaf this worker would be killed with it, at any moment: better now, and replaced.
            raise RuntimeError("the worker cannot return to its cgroup") from error


def find_setpriv() -> str | None:
    """The path of a ``setpriv`` that can set the death signal here; None without one."""
    path = shutil.which("setpriv", path=launching.FALLBACK_PATH)
    if path is None:
        return None
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        silence = [(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1, 2)]
        pid = os.posix_spawn(path, [path, "--pdeathsig", "KILL", "--", "/bin/true"], {}, file_actions=silence)
        _, status = os.waitpid(pid, 0)
    except OSError:
        return None
    finally:
        os.close(null)
    return path if status == 0 else None


def is_executable_format(program: str) -> bool:
    """Whether ``execve`` knows the format: ELF, or a script whose interpreter is an executable ELF file."""
    head = _head(program)
    if head.startswith(ELF):
        return True
    if not head.startswith(b"#!") or b"\n" not in head:
        return False
    words = head[2:].split(b"\n", 1)[0].split()
    interpreter = os.fsdecode(words[0]) if words else ""
    return interpreter.startswith("/") and os.access(interpreter, os.X_OK) and _head(interpreter).startswith(ELF)


def _head(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""  # executable but not readable: the long way will tell
    try:
        return os.read(fd, 256)
    except OSError:
        return b""
    finally:
        os.close(fd)


def _close(pipes: launching.Pipes) -> None:
    for fd in (pipes.stdin, pipes.stdout, pipes.stderr):
        if fd is not None:
            os.close(fd)


def _enter(entrance: str) -> None:
    fd = os.open(entrance, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"0")
    finally:
        os.close(fd)

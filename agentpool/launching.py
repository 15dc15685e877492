"""Start one command: fork, make the child what its spec says, exec.

``os.fork`` is safe here because a worker has a single thread; ``subprocess`` would need ``preexec_fn``,
which is documented as unsafe, for limits, the death signal and the cgroup. Errors up to and including
``execve`` come back over a close-on-exec pipe: an empty one that closes means that the program runs.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
from typing import NoReturn

import msgspec

from agentpool.becoming import become_agent
from agentpool.errors import LaunchFailed
from agentpool.platforms import IS_LINUX, ProcessFlags
from agentpool.specs import Limits

#: Room for the CPU-time signal to be handled before the hard limit kills (setrlimit(2), RLIMIT_CPU).
CPU_HARD_MARGIN_S = 2
#: What is short for the moment: processes, memory, descriptors.
PASSING_ERRORS = (errno.EAGAIN, errno.ENOMEM, errno.ENFILE, errno.EMFILE)
FALLBACK_PATH = "/usr/local/bin:/usr/bin:/bin"


class LaunchPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A command made ready: ``program`` is a path, ``entrance`` a cgroup's file to write oneself into."""

    program: str
    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    rlimits: tuple[tuple[int, int, int], ...]
    nice: int
    has_stdin: bool
    entrance: str | None


class Pipes(msgspec.Struct, frozen=True, kw_only=True):
    """The worker's ends of an agent's pipes, non-blocking; ``stdin`` is None when it reads nothing."""

    stdin: int | None
    stdout: int
    stderr: int


class ChildEnds(msgspec.Struct, frozen=True, kw_only=True):
    """The agent's ends, to be closed by the worker once the agent holds them."""

    stdin: int
    stdout: int
    stderr: int

    def close(self) -> None:
        """Close all three."""
        for fd in (self.stdin, self.stdout, self.stderr):
            os.close(fd)


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """A forked child; ``status`` is the pipe that tells how ``execve`` went."""

    pid: int
    status: int
    pipes: Pipes


def find_program(argv: tuple[str, ...], env: dict[str, str], cwd: str) -> str:
    """The path of ``argv[0]``, looked up in the agent's own PATH (relative entries mean its workspace).

    Raises LaunchFailed ``workspace`` (not a directory), ``not_found`` or ``not_executable``, all permanent.
    """
    command = argv[0] if argv else ""
    if not os.path.isdir(cwd):
        raise LaunchFailed(
            "workspace", f"{command}: the workspace {cwd} is not a directory", command=command, is_permanent=True
        )
    if not command or any("\0" in part for part in argv):
        raise LaunchFailed("not_found", "the command is empty or holds a NUL byte", command=command, is_permanent=True)
    if "/" in command:
        candidates = [os.path.join(cwd, command)]
    else:
        directories = env.get("PATH", FALLBACK_PATH).split(os.pathsep)
        candidates = [os.path.join(cwd, directory, command) for directory in directories]
    found = None
    for candidate in candidates:
        if os.path.isfile(candidate):
            if os.access(candidate, os.X_OK):
                return candidate
            found = candidate
    if found is not None or any(os.path.isdir(c) for c in candidates):
        at = found or candidates[0]
        raise LaunchFailed("not_executable", f"{command}: {at} is not executable", command=command, is_permanent=True)
    raise LaunchFailed("not_found", f"{command}: no such command", command=command, is_permanent=True)


def rlimits_of(limits: Limits, processes_now: int = 0) -> tuple[tuple[int, int, int], ...]:
    """The ``setrlimit`` calls for ``limits`` as (resource, soft, hard).

    RLIMIT_NPROC counts all of the user's processes, so ``processes_now`` of them are added. Memory is
    RLIMIT_DATA on Linux, which counts private writable mappings; RLIMIT_AS would also count what
    JavaScript engines only reserve.
    """
    wanted: list[tuple[int, int, int]] = [(resource.RLIMIT_CORE, 0, 0)]
    if limits.cpu_s is not None:
        wanted.append((resource.RLIMIT_CPU, limits.cpu_s, limits.cpu_s + CPU_HARD_MARGIN_S))
    if limits.memory_bytes is not None:
        which = resource.RLIMIT_DATA if IS_LINUX else resource.RLIMIT_AS
        wanted.append((which, limits.memory_bytes, limits.memory_bytes))
    if limits.open_files is not None:
        wanted.append((resource.RLIMIT_NOFILE, limits.open_files, limits.open_files))
    if limits.processes is not None:
        bound = limits.processes + processes_now
        wanted.append((resource.RLIMIT_NPROC, bound, bound))
    if limits.file_size_bytes is not None:
        wanted.append((resource.RLIMIT_FSIZE, limits.file_size_bytes, limits.file_size_bytes))
    return tuple(wanted)


def check_limits(limits: Limits, command: str) -> None:
    """Raise LaunchFailed ``limits`` when a limit could not be set: negative, or above our own hard limit."""
    for which, soft, hard in rlimits_of(limits):
        if which in (resource.RLIMIT_CORE, resource.RLIMIT_NPROC):
            continue
        _, ceiling = resource.getrlimit(which)
        is_above = ceiling != resource.RLIM_INFINITY and hard > ceiling and os.geteuid() != 0
        if soft < 0 or is_above:
            raise LaunchFailed(
                "limits",
                f"{command}: the limit {soft} cannot be set; the system allows at most {ceiling}",
                command=command,
                is_permanent=True,
            )


def open_pipes(*, has_stdin: bool) -> tuple[Pipes, ChildEnds]:
    """The three pipes of one agent (stdin is the null device unless wanted). Raises OSError, leaving nothing open."""
    opened: list[int] = []
    try:
        if has_stdin:
            child_in, parent_in = os.pipe()
            opened += [child_in, parent_in]
        else:
            child_in, parent_in = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), -1
            opened.append(child_in)
        parent_out, child_out = os.pipe()
        opened += [parent_out, child_out]
        parent_err, child_err = os.pipe()
        opened += [parent_err, child_err]
    except OSError:
        for fd in opened:
            os.close(fd)
        raise
    for fd in (parent_in, parent_out, parent_err):
        if fd >= 0:
            os.set_blocking(fd, False)
    stdin = parent_in if has_stdin else None
    return (
        Pipes(stdin=stdin, stdout=parent_out, stderr=parent_err),
        ChildEnds(stdin=child_in, stdout=child_out, stderr=child_err),
    )


def start(plan: LaunchPlan, flags: ProcessFlags) -> Started:
    """Fork the child of a plan; returns at once, ``Started.status`` tells the rest.

    Raises LaunchFailed ``resources`` when descriptors or processes have run out; nothing is left then.
    """
    try:
        pipes, ends = open_pipes(has_stdin=plan.has_stdin)
    except OSError as error:
        raise _resources(plan, error) from error
    try:
        status_read, status_write = os.pipe()
    except OSError as error:
        _close_all(pipes, ends)
        raise _resources(plan, error) from error
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        _close_all(pipes, ends)
        os.close(status_read)
        os.close(status_write)
        raise _resources(plan, error) from error
    if pid == 0:
        _become(plan, ends, status_write, flags, parent)
    ends.close()
    os.close(status_write)
    os.set_blocking(status_read, False)
    return Started(pid=pid, status=status_read, pipes=pipes)


def explain(report: bytes, plan: LaunchPlan) -> LaunchFailed:
    """The error for what a child wrote to its status pipe: ``step errno``."""
    step, _, number = report.decode("ascii", "replace").partition(" ")
    code = int(number) if number.strip().isdigit() else 0
    text = os.strerror(code)
    command = plan.argv[0]
    if step == "chdir":
        return LaunchFailed(
            "workspace", f"{command}: the workspace {plan.cwd}: {text}", command=command, is_permanent=True
        )
    if step == "limits":
        return LaunchFailed(
            "limits", f"{command}: its limits could not be set: {text}", command=command, is_permanent=True
        )
    if step == "exec":
        reason = "not_found" if code == errno.ENOENT else "not_executable"
        if code == errno.E2BIG:
            text = f"{command}: the arguments or the environment are too long: {text}"
            return LaunchFailed("limits", text, command=command, is_permanent=True)
        if code in PASSING_ERRORS:
            return LaunchFailed("resources", f"{command}: {text}", command=command, is_permanent=False)
        hint = " (its interpreter may be missing)" if code == errno.ENOENT else ""
        return LaunchFailed(reason, f"{command}: {text}{hint}", command=command, is_permanent=True)
    return LaunchFailed("resources", f"{command}: {step} failed: {text}", command=command, is_permanent=False)


def reset_signals() -> None:
    """In a forked child: all that Python or the worker has changed is as a new program finds it."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if signal.getsignal(number) not in (signal.SIG_DFL, None):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _become(plan: LaunchPlan, ends: ChildEnds, status: int, flags: ProcessFlags, parent: int) -> NoReturn:
    step = "setup"
    try:
        become_agent(plan.cwd, plan.rlimits, plan.nice, plan.entrance, flags, parent)
        reset_signals()
        # Descriptors 0 to 2 are taken by the worker's own, so none of these can be one of its targets.
        os.dup2(ends.stdin, 0)
        os.dup2(ends.stdout, 1)
        os.dup2(ends.stderr, 2)
        if status != 3:
            os.dup2(status, 3, inheritable=False)
        status = 3
        os.closerange(4, _highest_descriptor())
        step = "exec"
        os.execve(plan.program, plan.argv, plan.env)
    except OSError as error:
        where = error.filename if error.filename in ("limits", "chdir", "cgroup") else step
        os.write(status, f"{where} {error.errno or 0}".encode())
    except BaseException:  # noqa: BLE001 - the edge of a forked child: whatever happened, it must end here
        os.write(status, b"setup 0")
    finally:
        os._exit(127)


def _highest_descriptor() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    # close_range(2) makes a high bound free on Linux; elsewhere each number costs a call.
    return 1 << 30 if IS_LINUX else min(soft if soft > 0 else 65536, 65536)


def _resources(plan: LaunchPlan, error: OSError) -> LaunchFailed:
    return LaunchFailed("resources", f"{plan.argv[0]}: {error.strerror}", command=plan.argv[0], is_permanent=False)


def _close_all(pipes: Pipes, ends: ChildEnds) -> None:
    ends.close()
    for fd in (pipes.stdin, pipes.stdout, pipes.stderr):
        if fd is not None:
            os.close(fd)

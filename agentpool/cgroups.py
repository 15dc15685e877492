"""One cgroup v2 leaf an agent, where the hierarchy can be written: ends a tree without any race with fork."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterator

from agentpool.proctable import read_entry

#: Name of the directories that pools make: ``agentpool-<pid>-<start ticks>`` of the supervisor.
PREFIX = "agentpool-"


def find_parent() -> str | None:
    """This process's own directory in the cgroup v2 hierarchy (unified or hybrid); None without one."""
    mount = None
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                fields = line.split()
                if fields[fields.index("-") + 1] == "cgroup2":
                    mount = fields[4].replace("\\040", " ")
                    break
        with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            own = next((line.rstrip("\n").split(":", 2)[2] for line in file if line.startswith("0::")), None)
    except (OSError, ValueError):
        return None
    if mount is None or own is None:
        return None
    path = os.path.normpath(mount + own)
    return path if os.path.isdir(path) else None


def make_base(parent: str | None) -> str | None:
    """Make this supervisor's directory and prove that a process can be put in and killed there, else None."""
    me = read_entry(os.getpid())
    if parent is None or me is None:
        return None
    base = os.path.join(parent, f"{PREFIX}{me.pid}-{me.start_ticks}")
    try:
        os.makedirs(base, exist_ok=True)
    except OSError:
        return None
    if _can_kill_in(base):
        return base
    remove(base)
    return None


def enable_controllers(base: str) -> tuple[str, ...]:
    """Turn on those of ``memory`` and ``pids`` that are delegated to us; the ones in force."""
    try:
        with open(os.path.join(base, "cgroup.controllers"), encoding="ascii") as file:
            available = set(file.read().split())
    except OSError:
        return ()
    enabled = []
    for name in ("memory", "pids"):
        if name in available and _write(os.path.join(base, "cgroup.subtree_control"), f"+{name}"):
            enabled.append(name)
    return tuple(enabled)


def settle_abandoned(parent: str | None) -> int:
    """Kill and remove the directories of supervisors that are gone; how many directories there were.

    Those of another user are left alone: this one may neither kill in them nor remove them.
    """
    settled = 0
    if parent is None:
        return settled
    try:
        names = [name for name in os.listdir(parent) if name.startswith(PREFIX)]
    except OSError:
        return settled
    for name in names:
        pid, _, ticks = name.removeprefix(PREFIX).partition("-")
        if not (pid.isdigit() and ticks.isdigit()):
            continue
        owner = read_entry(int(pid))
        if owner is not None and owner.start_ticks == int(ticks):
            continue
        path = os.path.join(parent, name)
        if not kill_below(path):
            continue
        settled += 1
        deadline = time.monotonic() + 3.0
        while not remove(path) and time.monotonic() < deadline:
            time.sleep(0.01)
    return settled


def kill_below(path: str) -> bool:
    """SIGKILL every process in a directory and below it; False when the directory is gone or may not be written."""
    return _write(os.path.join(path, "cgroup.kill"), "1")


def remove(path: str) -> bool:
    """Remove a directory with all below; False while a process is left in it."""
    try:
        os.rmdir(path)  # most have nothing below, and looking costs more than trying
    except FileNotFoundError:
        return True
    except OSError:
        pass
    else:
        return True
    try:
        for directory in _bottom_up(path):
            os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


class Leaf:
    """One agent's directory. All calls are harmless once it is gone."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    @classmethod
    def make(cls, base: str, name: str, limits: dict[str, int]) -> Leaf | None:
        """Make the directory with ``limits`` (``memory.max``, ``pids.max``); None when the system refuses."""
        leaf = cls(f"{base}/{name}")
        try:
            os.mkdir(leaf.path)
        except FileExistsError:
            pass
        except OSError:
            return None
        for key, value in limits.items():
            _write(os.path.join(leaf.path, key), str(value))
        return leaf

    @property
    def entrance(self) -> str:
        """The file into which a process writes ``0`` to be put here."""
        return f"{self.path}/cgroup.procs"

    def enter(self) -> bool:
        """Put this process here; False when the system refuses."""
        return _write(self.entrance, "0")

    def is_populated(self) -> bool:
        """Whether a living process is here or below; zombies do not count. Yes where that cannot be read now."""
        try:
            fd = os.open(f"{self.path}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            return error.errno != errno.ENOENT  # no descriptor is free, for instance: nothing is proven by that
        try:
            return b"populated 1" in os.read(fd, 4096)
        except OSError as error:
            return error.errno != errno.ENODEV  # removed just now
        finally:
            os.close(fd)

    def pids(self) -> list[int]:
        """The living processes here and below."""
        found: list[int] = []
        if not self.is_populated():
            return found  # one small file instead of a walk, for nearly all
        try:
            for directory in _bottom_up(self.path):
                found.extend(int(pid) for pid in _read(os.path.join(directory, "cgroup.procs")).split())
        except OSError:
            pass
        return found

    def cpu_usec(self) -> int:
        """CPU time of all that ever ran here, in microseconds; 0 when unknown."""
        for line in _read_short(f"{self.path}/cpu.stat").splitlines():
            if line.startswith(b"usage_usec "):
                return int(line.split()[1])
        return 0

    def was_out_of_memory(self) -> bool:
        """Whether the kernel killed something here for ``memory.max``."""
        lines = _read_short(f"{self.path}/memory.events").splitlines()
        return any(line.startswith(b"oom_kill ") and int(line.split()[1]) > 0 for line in lines)

    def kill(self) -> None:
        """SIGKILL all processes here and below; free of races with fork."""
        kill_below(self.path)

    def remove(self) -> bool:
        """Remove the directory; False while a process is left."""
        return remove(self.path)


def _bottom_up(path: str) -> Iterator[str]:
    for directory, _, _ in os.walk(path, topdown=False):
        yield directory


def _can_kill_in(base: str) -> bool:
    leaf = Leaf.make(base, "test", {})
    if leaf is None or not os.path.exists(os.path.join(leaf.path, "cgroup.kill")):
        return False
    sleeper = shutil.which("sleep") or "/bin/sleep"
    try:
        pid = os.posix_spawn(sleeper, ["sleep", "30"], {})
    except OSError:
        return False
    try:
        is_in = _write(leaf.entrance, str(pid)) and leaf.is_populated()
        if is_in:
            leaf.kill()
        else:
            os.kill(pid, 9)
    finally:
        os.waitpid(pid, 0)
    return is_in and leaf.remove()


def _read(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        parts = []
        while part := os.read(fd, 65536):
            parts.append(part)
        return b"".join(parts)
    except OSError:
        return b""
    finally:
        os.close(fd)


def _read_short(path: str) -> bytes:
    """A file of a few lines, which the kernel gives in one piece; empty without one."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, 4096)
    except OSError:
        return b""
    finally:
        os.close(fd)


def _write(path: str, text: str) -> bool:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(fd, text.encode())
    except OSError:
        return False
    finally:
        os.close(fd)
    return True

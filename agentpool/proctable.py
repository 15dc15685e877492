"""The table of processes: who descends from whom, and identities that survive the reuse of a pid."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import NamedTuple

from agentpool.platforms import IS_LINUX


class ProcessEntry(NamedTuple):
    """One process; ``start_ticks`` with ``pid`` is its identity.

    ``cpu_ticks`` is user and system time, its own and that of the children that it has waited for. A zombie's is in
    its own entry until it is waited for, and in its parent's from then on.
    """

    pid: int
    ppid: int
    group: int
    session: int
    state: str
    start_ticks: int
    cpu_ticks: int
    rss_pages: int


def read_entry(pid: int) -> ProcessEntry | None:
    """The entry of one process; None when there is none (any more)."""
    if not IS_LINUX:
        return _psutil_entry(pid)
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = os.read(fd, 4096)
    except OSError:
        return None
    finally:
        os.close(fd)
    # The name in parentheses may hold anything, spaces and parentheses too: fields count from the last one (proc(5)).
    fields = text[text.rfind(b")") + 2 :].split()
    if len(fields) < 22:
        return None
    return ProcessEntry(
        pid,
        int(fields[1]),
        int(fields[2]),
        int(fields[3]),
        fields[0].decode("ascii"),
        int(fields[19]),
        sum(map(int, fields[11:15])),
        int(fields[21]),
    )


def children_of(pid: int) -> list[int]:
    """The children of a process's first thread, to which orphans come; zombies too.

    Empty where the system does not tell (CONFIG_PROC_CHILDREN). One small file, where a snapshot reads them all.
    """
    try:
        with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
            return [int(child) for child in file.read().split()]
    except OSError:
        return []


def is_alive(pid: int, start_ticks: int) -> bool:
    """Whether exactly this process lives; a zombie does not."""
    entry = read_entry(pid)
    return entry is not None and entry.start_ticks == start_ticks and entry.state not in "ZX"


def carries(pid: int, nonce: str) -> bool:
    """Whether the environment that the process was started with holds ``nonce`` (never true for an empty one)."""
    return bool(nonce) and nonce.encode() in environment_of(pid)


def environment_of(pid: int) -> bytes:
    """The environment that a process was started with; empty where that cannot be read."""
    if not IS_LINUX:
        return _psutil_environment(pid)
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read()
    except OSError:
        return b""


class ProcessTable:
    """Snapshots of all processes, shared by those who ask within a moment.

    Ending a hundred agents at once must not read all of /proc a hundred times: a snapshot is used again
    for ``max_age_s`` seconds, and never one that is older than what the caller needs to have seen.
    """

    def __init__(self) -> None:
        self._entries: dict[int, ProcessEntry] = {}
        self._taken_at = -1.0

    def entries(self, *, since: float | None = None) -> dict[int, ProcessEntry]:
        """All processes as of a moment not before ``since`` (monotonic seconds; None is now)."""
        if since is None or self._taken_at < since:
            taken_at = time.monotonic()
            self._entries = snapshot()
            self._taken_at = taken_at
        return self._entries


def snapshot() -> dict[int, ProcessEntry]:
    """Every process of the machine that can be seen, by pid."""
    if not IS_LINUX:
        return _psutil_snapshot()
    entries = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            entry = read_entry(int(name))
            if entry is not None:
                entries[entry.pid] = entry
    return entries


def descendants(entries: dict[int, ProcessEntry], roots: Iterable[int]) -> set[int]:
    """All pids below ``roots`` (the roots themselves left out)."""
    children: dict[int, list[int]] = {}
    for entry in entries.values():
        children.setdefault(entry.ppid, []).append(entry.pid)
    found: set[int] = set()
    stack = list(roots)
    while stack:
        for pid in children.get(stack.pop(), ()):
            if pid not in found:
                found.add(pid)
                stack.append(pid)
    return found


def _psutil_entry(pid: int) -> ProcessEntry | None:
    import psutil

    try:
        process = psutil.Process(pid)
        with process.oneshot():
            state = "Z" if process.status() == psutil.STATUS_ZOMBIE else "S"
            ticks = int(process.create_time() * 100)
            ppid = process.ppid()
            try:
                # macOS does not tell what children used: theirs is 0 there.
                used_s, rss_bytes = sum(process.cpu_times()[:4]), process.memory_info().rss
            except (psutil.AccessDenied, psutil.ZombieProcess):
                used_s, rss_bytes = 0.0, 0  # another user's, or dead: not to be known, but there
        cpu_ticks, rss_pages = round(used_s * os.sysconf("SC_CLK_TCK")), rss_bytes // os.sysconf("SC_PAGE_SIZE")
        return ProcessEntry(pid, ppid, os.getpgid(pid), os.getsid(pid), state, ticks, cpu_ticks, rss_pages)
    except (psutil.Error, OSError):
        return None


def _psutil_snapshot() -> dict[int, ProcessEntry]:
    import psutil

    found = (_psutil_entry(pid) for pid in psutil.pids())
    return {entry.pid: entry for entry in found if entry is not None}


def _psutil_environment(pid: int) -> bytes:
    import psutil

    try:
        variables = psutil.Process(pid).environ()
    except (psutil.Error, OSError):
        return b""
    return "\0".join(f"{name}={value}" for name, value in variables.items()).encode(errors="surrogateescape")

"""What a test leaves behind in its own process: children, threads, descriptors."""

from __future__ import annotations

import gc
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

#: Descriptors that libraries open once and keep: the random source, and what the cgroup and CPU figures are read from.
KEPT_TARGETS = ("/dev/urandom", "/dev/random", "/proc/", "/sys/")


@dataclass(frozen=True)
class Snapshot:
    """Children (pid, start time), threads and descriptors (number, what it is open on) of this process."""

    children: frozenset[tuple[int, float]]
    threads: frozenset[int]
    descriptors: frozenset[tuple[int, str]]

    @classmethod
    def take(cls) -> Snapshot:
        """The state of this process now."""
        return cls(frozenset(_children()), frozenset(_threads()), frozenset(_descriptors()))

    def leaks(self, *, settle_s: float) -> list[str]:
        """One line for each thing that is here now, was not then, and stays for ``settle_s`` seconds."""
        deadline = time.monotonic() + settle_s
        pause_s = 0.005
        while found := self._differences():
            if time.monotonic() > deadline:
                break
            # Objects in reference cycles hold descriptors until they are collected.
            gc.collect()
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.1)
        return found

    def _differences(self) -> list[str]:
        found = [
            f"process {pid}: {name}" for (pid, start), name in _children().items() if (pid, start) not in self.children
        ]
        found += [f"thread {name}" for ident, name in _threads().items() if ident not in self.threads]
        found += [f"descriptor {number} -> {target}" for number, target in _descriptors() - self.descriptors]
        return found


def _children() -> dict[tuple[int, float], str]:
    # Direct children only: those of a server that a wider fixture started come and go by themselves.
    found = {}
    for child in psutil.Process().children():
        try:
            found[child.pid, child.create_time()] = f"{child.status()} {' '.join(child.cmdline()) or child.name()}"[
                :200
            ]
        except psutil.Error:
            continue
    return found


def _threads() -> dict[int, str]:
    return {thread.ident: thread.name for thread in threading.enumerate() if thread.ident and not thread.daemon}


def _descriptors() -> frozenset[tuple[int, str]]:
    directory = Path("/proc/self/fd")
    if not directory.is_dir():
        return frozenset()
    found = set()
    for name in os.listdir(directory):
        try:
            target = os.readlink(directory / name)
        except OSError:
            # The descriptor of the listing itself.
            continue
        if not target.startswith(KEPT_TARGETS):
            found.add((int(name), target))
    return frozenset(found)

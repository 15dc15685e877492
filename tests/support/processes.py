"""Which processes of a sidecar live: found by what is in their environment or arguments, whoever their parent is."""

from __future__ import annotations

import os
from collections.abc import Iterable

import psutil

from tests.support.waiting import until


def processes_with(mark: str, *, besides: Iterable[int] = ()) -> list[psutil.Process]:
    """Living processes with ``mark`` (a storage directory, a nonce) in their environment or arguments.

    This process and ``besides`` are left out, zombies too: nothing of them runs any more.
    """
    ignored = {os.getpid(), *besides}
    found = []
    for process in psutil.process_iter():
        if process.pid in ignored:
            continue
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            if any(mark in part for part in process.cmdline()) or any(
                mark in value for value in process.environ().values()
            ):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def describe(processes: Iterable[psutil.Process]) -> list[str]:
    """A line for each: pid, status, arguments."""
    lines = []
    for process in processes:
        try:
            lines.append(f"{process.pid} {process.status()} {' '.join(process.cmdline())[:200]}")
        except psutil.Error:
            lines.append(f"{process.pid} gone")
    return lines


def assert_no_survivors(mark: str, *, timeout_s: float = 10.0) -> None:
    """Wait until no process with ``mark`` lives; fail with the list of those that stay."""
    until(lambda: not processes_with(mark), timeout_s=timeout_s, what=lambda: f"gone: {describe(processes_with(mark))}")

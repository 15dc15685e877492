"""Processes with a pid of one's choice, where the kernel lets us choose."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.waiting import until

#: The next pid is looked for above this number (pid_namespaces(7)); needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN.
LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
#: Other processes start meanwhile and may take the number first.
TRIES = 100


@contextlib.contextmanager
def stranger_with(pid: int, argv: Sequence[str], *, after_ticks: int) -> Iterator[int]:
    """A process, leading a session, that got the number ``pid`` of one that is gone; ended and reaped at the end.

    ``after_ticks`` is the start time of the one before, from which that of the stranger is made to differ. Skips the
    test where the number cannot be had.
    """
    until(lambda: _ticks_now() > after_ticks, what="a later tick of the clock")
    got = next(filter(None, (_try(pid, argv) for _ in range(TRIES))), 0)
    if not got:
        pytest.skip(f"others were faster {TRIES} times: no process got the pid {pid}")
    try:
        yield got
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):  # a test that fails may have ended it
            os.kill(got, signal.SIGKILL)
            os.waitpid(got, 0)


def _try(pid: int, argv: Sequence[str]) -> int:
    last = LAST_PID.read_text(encoding="ascii")
    try:
        LAST_PID.write_text(str(pid - 1), encoding="ascii")
    except OSError as error:
        pytest.skip(f"the kernel lets nobody here choose a pid: {error}")
    got = os.posix_spawn(argv[0], list(argv), {}, setsid=True)
    # Others start processes too: they are to get new numbers, not those that tests beside this one still ask for.
    LAST_PID.write_text(last, encoding="ascii")
    if got != pid:
        os.kill(got, signal.SIGKILL)
        os.waitpid(got, 0)
        return 0
    return got


def _ticks_now() -> int:
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))

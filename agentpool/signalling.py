"""Signals to exactly one process: never to a bare pid that may have been reused."""

from __future__ import annotations

import os
import signal
import sys

from agentpool.proctable import read_entry


def signal_process(pid: int, start_ticks: int, number: int) -> bool:
    """Send a signal to the process with this identity; False when it is gone.

    A pidfd is opened first and the start time compared after: from then on the descriptor cannot mean
    another process. Where there are no pidfds the start time is compared just before the signal.
    """
    if sys.platform == "linux":
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            return False
        try:
            entry = read_entry(pid)
            if entry is None or entry.start_ticks != start_ticks:
                return False
            signal.pidfd_send_signal(fd, number)
        except OSError:
            return False
        finally:
            os.close(fd)
        return True
    entry = read_entry(pid)
    if entry is None or entry.start_ticks != start_ticks:
        return False
    try:
        os.kill(pid, number)
    except OSError:
        return False
    return True


def signal_group(leader: int, number: int) -> None:
    """Signal a process group whose leader is known to be unreaped, so that the number is still its own."""
    try:
        os.killpg(leader, number)
    except (ProcessLookupError, PermissionError):
        pass

"""What the platform gives: process flags of Linux, and their absence elsewhere."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

IS_LINUX = sys.platform.startswith("linux")

# <linux/prctl.h>
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_GET_CHILD_SUBREAPER = 37


class ProcessFlags:
    """Calls ``prctl`` through the C library, which is looked up once so that a forked child need not."""

    def __init__(self) -> None:
        self._prctl = ctypes.CDLL(None, use_errno=True).prctl if IS_LINUX else None

    def become_subreaper(self) -> bool:
        """Make this process the parent of orphaned descendants; False where the platform cannot."""
        return self._prctl is not None and self._prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0

    def resign_subreaper(self) -> None:
        """Let orphans go where they went before; does nothing where the platform knows no subreaper."""
        if self._prctl is not None:
            self._prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)

    def die_with_parent(self) -> None:
        """Be killed when the parent's thread that made this process ends; does nothing where unknown."""
        if self._prctl is not None:
            self._prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def raise_descriptor_limit(wanted: int = 65536) -> int:
    """Raise the soft limit of open files to at most ``wanted`` and the hard limit; the soft limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= target:
        return wanted if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
    except (OSError, ValueError):
        # macOS refuses more than kern.maxfilesperproc although the hard limit says infinity.
        return soft
    return target


def worker_count(configured: int) -> int:
    """One worker a core this process may use, 2 to 8, unless configured."""
    if configured > 0:
        return configured
    return max(2, min(8, processor_count()))


def processor_count() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

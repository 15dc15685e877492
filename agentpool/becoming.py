"""What a forked child does on its way to being an agent. It imports next to nothing: see ``zygote``."""

from __future__ import annotations

import os
import resource

from agentpool.platforms import ProcessFlags


def become_agent(
    cwd: str,
    rlimits: tuple[tuple[int, int, int], ...],
    nice: int,
    entrance: str | None,
    flags: ProcessFlags | None,
    parent: int,
) -> None:
    """In a forked child: a session, the cgroup, the death signal, nice, limits, the directory.

    ``flags`` set the death signal; None where whoever sees the parent die kills all that is in the cgroup instead. So
    the cgroup comes before the look at the parent: a child that still sees it alive is found there afterwards.

    Raises OSError with ``strerror`` replaced by the step's name in ``filename``.
    """
    os.setsid()
    if entrance is not None:
        _enter(entrance)
    if flags is not None:
        flags.die_with_parent()
    if os.getppid() != parent:
        os._exit(127)  # the parent died before that
    if nice:
        try:
            os.nice(nice)
        except OSError:
            pass  # a negative value needs privilege; the agent runs at the worker's
    try:
        for which, soft, hard in rlimits:
            resource.setrlimit(which, (soft, hard))
    except (OSError, ValueError) as error:
        raise OSError(getattr(error, "errno", None) or 22, "", "limits") from error
    try:
        os.chdir(cwd)
    except OSError as error:
        raise OSError(error.errno, "", "chdir") from error


def _enter(entrance: str) -> None:
    try:
        fd = os.open(entrance, os.O_WRONLY)
        try:
            os.write(fd, b"0")
        finally:
            os.close(fd)
    except OSError as error:
        raise OSError(error.errno, "", "cgroup") from error

"""Finding a running sidecar: the file that it writes into its storage while it listens."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

#: Written by the server once it listens, removed at its exit.
FILE_NAME = "sidecar.json"


class Running(NamedTuple):
    """A sidecar that says it runs: its process, its address and, with TLS, its certificate (PEM)."""

    pid: int
    url: str
    certificate: str | None = None


def find_running(storage: Path) -> Running | None:
    """The sidecar that owns ``storage``, or None when none runs (a file left by a killed one is ignored)."""
    try:
        document = json.loads((storage / FILE_NAME).read_text(encoding="utf-8"))
        running = Running(int(document["pid"]), str(document["url"]), document.get("certificate"))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return running if is_alive(running.pid) else None


def is_alive(pid: int) -> bool:
    """Whether a process with this id exists (also one of another user)."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    # An ended child that nobody has waited for still takes signals. Elsewhere than on Linux this is not told.
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[:1] == ["Z"]

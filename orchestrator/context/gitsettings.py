"""Git's settings of a repository, kept while no file that they come from has changed.

To ask for them takes a process, which is as much as it takes git to compare a thousand files.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

#: ``(scope, name, value)`` of each setting.
Settings = list[tuple[str, str, str]]
Stamps = list[tuple[int, int, int, int] | None]
#: A file that changed less than this ago may change once more within the grain of its times.
_RACY_NS = 2_000_000_000
_OWN = ("local", "worktree")


class SettingsCache:
    """The settings of one repository as they were last asked for."""

    def __init__(self) -> None:
        self._files: Sequence[str] = ()
        self._stamps: Stamps = []
        self._settings: Settings | None = None

    def get(self, files: Sequence[str], ask: Callable[[], Settings]) -> Settings:
        """The settings, which come from ``files`` of the repository; asked for when one of these came, went or
        changed. The person's and the machine's own files may be older than they are now. Raises what ``ask`` raises.
        """
        stamps = _stamps(files)
        if self._settings is None or files != self._files or stamps != self._stamps:
            self._settings = None
            found = ask()
            # a file that another one includes is not looked at, and one that has just changed may change unseen
            has_includes = any(scope in _OWN and name.lower().startswith("include") for scope, name, _ in found)
            is_young = any(stamp is not None and time.time_ns() - stamp[2] < _RACY_NS for stamp in stamps)
            if has_includes or is_young:
                return found
            self._files, self._stamps, self._settings = files, stamps, found
        return self._settings


def _stamps(files: Sequence[str]) -> Stamps:
    """By file its size, times and inode; None where there is none."""
    stamps: Stamps = []
    for file in files:
        try:
            status = os.stat(file)
        except OSError:
            stamps.append(None)
        else:
            stamps.append((status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino))
    return stamps

"""Room that is kept back so that a start on a full disk can open the database."""

from __future__ import annotations

import os
import time
from pathlib import Path

#: Enough for the index of the write-ahead log (32 KiB for each 16 MiB of log) many times over.
SIZE_BYTES = 1 << 20
#: At most this part of what is free is taken (a quarter): what is under way needs room now, a start perhaps never.
TAKEN_PART = 4
#: Seconds between two tries to fill it up.
RETRY_S = 1.0
_BLOCK = bytes(1 << 16)


class Reserve:
    """A file of zeros: filled while there is room, removed when the database cannot be opened without."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_whole = False
        self._tried_at = float("-inf")

    def top_up(self) -> None:
        """Go on filling it until it is whole; does nothing most of the time, so that every commit may call it."""
        if not self._is_whole and time.monotonic() - self._tried_at >= RETRY_S:
            self.keep()

    def keep(self) -> None:
        """Fill it up, as far as the disk allows; ``top_up`` takes what does not fit later."""
        self._tried_at = time.monotonic()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(self._path, flags, 0o600)
        except OSError:
            return
        try:
            missing = SIZE_BYTES - os.fstat(descriptor).st_size
            status = os.fstatvfs(descriptor)
            room = status.f_bavail * status.f_frsize // TAKEN_PART
            self._is_whole = missing <= room
            missing = min(missing, room)
            while missing > 0:
                missing -= os.write(descriptor, _BLOCK[:missing])
        except OSError:
            self._is_whole = False  # the disk is full; a smaller reserve is one too
        finally:
            os.close(descriptor)

    def release(self) -> bool:
        """Give its room back; False when there was none."""
        self._is_whole = False
        try:
            self._path.unlink()
        except OSError:
            return False
        return True

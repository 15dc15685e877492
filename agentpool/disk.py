"""Room on a disk: what is free beyond a reserve that agents' work may not take."""

from __future__ import annotations

import os
import time
from typing import Protocol

#: The reserve is at most this part of a file system (a tenth), or a small disk would be all reserve.
RESERVED_PART = 10
#: A stream measures again after so many bytes at the latest when room is short. All workers together can overshoot
#: by this much each, whatever the number of their streams.
RATION_BYTES = 64 << 10
#: Where there is more room a worker takes so small a part of it at once that all of them (at most 64) cannot take all.
RATION_PART = 64
#: A measurement is good for so many seconds: others write to the same disk.
RATION_S = 0.25


def reserve_of(status: os.statvfs_result, reserve_bytes: int) -> int:
    """The reserve in force: ``reserve_bytes``, but at most a tenth of the file system."""
    return min(reserve_bytes, status.f_blocks * status.f_frsize // RESERVED_PART)


def headroom_of(status: os.statvfs_result, reserve_bytes: int) -> int:
    """Bytes that are free for any user beyond the reserve; negative when it is being used up."""
    return status.f_bavail * status.f_frsize - reserve_of(status, reserve_bytes)


class Rations:
    """What the streams of one worker may still write, for each file system; 0 as reserve lets them write everything."""

    def __init__(self, reserve_bytes: int) -> None:
        self._reserve_bytes = reserve_bytes
        self._rations: dict[int, Ration] = {}

    def of(self, fd: int) -> Ration | None:
        """The ration of the file system that this file is on; None without a reserve. Raises OSError."""
        if not self._reserve_bytes:
            return None
        return self._rations.setdefault(os.fstat(fd).st_dev, Ration(self._reserve_bytes))


class Ration:
    """Hands out the room of one file system, measured once for many writes."""

    def __init__(self, reserve_bytes: int) -> None:
        self._reserve_bytes = reserve_bytes
        self._left = 0
        self._good_until = 0.0

    def take(self, fd: int, wanted: int) -> int:
        """How many of ``wanted`` bytes may be written to ``fd`` now; 0 once the reserve is reached."""
        now = time.monotonic()
        if self._left < wanted or now >= self._good_until:
            headroom = headroom_of(os.fstatvfs(fd), self._reserve_bytes)
            self._left = max(0, min(headroom, max(RATION_BYTES, headroom // RATION_PART)))
            self._good_until = now + RATION_S
        taken = min(wanted, self._left)
        self._left -= taken
        return taken


class DiskRoom(Protocol):
    """What admission knows of the disk that agents' files are on."""

    def measure(self) -> None:
        """Look at the disk; may block."""

    @property
    def headroom_bytes(self) -> int:
        """What was free beyond the reserve when last measured."""

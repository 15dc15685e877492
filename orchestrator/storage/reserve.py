"""Room that is kept back so that a start on a full disk can open the database."""

from __future__ import annotations

import os
from pathlib import Path

#: Enough for the index of the write-ahead log (32 KiB for each 16 MiB of log) many times over.
SIZE_BYTES = 1 << 20
_BLOCK = bytes(1 << 16)


class Reserve:
    """A file of zeros: filled while there is room, removed when the database cannot be opened without."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self) -> None:
        """Fill it up, as far as the disk allows; what does not fit is tried again at the next call."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(self._path, flags, 0o600)
        except OSError:
            return
        try:
            missing = SIZE_BYTES - os.fstat(descriptor).st_size
            while missing > 0:
                missing -= os.write(descriptor, _BLOCK[:missing])
        except OSError:
            pass  # the disk is full; a smaller reserve is one too
        finally:
            os.close(descriptor)

    def release(self) -> bool:
        """Give its room back; False when there was none."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True

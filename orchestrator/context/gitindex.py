"""A copy of a repository's index that git may bring up to date, so that the repository itself is only ever read.

Git cannot trust the time of a file that was written in the same moment as the index, as after a clone or a checkout:
it compares the contents at every ``git status``, until one writes the index anew (git's Documentation/technical/
racy-git.txt). We never let it write to the repository, so without a copy it would do so for ever.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from orchestrator.privacy import make_private_directory

#: Larger ones are of trees with more files than are looked at; copying them each time would cost more than it saves.
_LARGEST_BYTES = 64 << 20

Stamp = tuple[int, int, int, int]


#: O_NONBLOCK: opening a FIFO must not wait for a writer; it means nothing for regular files.
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def index_stamp(git_dir: str) -> Stamp | None:
    """The stamp of a git directory's index: git replaces the file with every change. None when there is none."""
    return stamp_of(os.path.join(git_dir, "index"))


def stamp_of(path: str) -> Stamp | None:
    """The stamp of a file; None when there is none."""
    try:
        return _stamp(os.stat(path))
    except (OSError, ValueError):
        return None


def _stamp(status: os.stat_result) -> Stamp:
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)


class IndexCopy:
    """The copy at ``path`` of the index of one git directory; the file is made anew whenever the original changes."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._stamp: Stamp | None = None

    def of(self, git_dir: str) -> str | None:
        """The path of the copy, or None where there is no index or no room for a copy."""
        try:
            original = os.open(os.path.join(git_dir, "index"), _READ)
        except OSError:
            return None
        try:
            status = os.fstat(original)
            stamp = _stamp(status)
            if stamp != self._stamp or not os.path.exists(self._path):
                self._stamp = None
                if status.st_size > _LARGEST_BYTES or not stat.S_ISREG(status.st_mode):
                    return None
                self._copy(original, status)
                self._stamp = stamp
        except OSError:
            return None
        finally:
            os.close(original)
        return self._path

    def _copy(self, original: int, status: os.stat_result) -> None:
        make_private_directory(Path(self._path).parent)
        temporary = f"{self._path}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(original, "rb", closefd=False) as source, open(os.open(temporary, flags, 0o600), "wb") as target:
            target.write(source.read(_LARGEST_BYTES))
        # By this time git tells which entries it cannot trust: a later one would hide changes.
        os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))
        _remove(f"{self._path}.lock")  # of a git that was killed
        os.replace(temporary, self._path)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass

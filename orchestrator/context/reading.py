"""Reading a project's files without leaving it: by descriptors, regular files only, each state whole."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import msgspec

from orchestrator.context.models import Stamp

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: O_NONBLOCK: opening a FIFO must not wait for a writer; it means nothing for regular files.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | getattr(os, "O_NOCTTY", 0)
_ATTEMPTS = 5


def shown(path: str) -> str:
    """``path`` as text that can be encoded: bytes that are no UTF-8 become U+FFFD."""
    return path if path.isascii() else path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


class Refused(Exception):
    """A file that is not given out; ``reason`` is a short machine word."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Reading(msgspec.Struct, frozen=True):
    """One state of a file: all its bytes, their SHA-256 and the stamp that belongs to exactly these bytes."""

    data: bytes
    checksum: str
    stamp: Stamp


def stamp_of(status: os.stat_result) -> Stamp:
    """The stamp in a stat result."""
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


class Reader:
    """Opens files below a root, one path component after the other, following no symbolic link.

    A directory that is swapped for a link while files are read can therefore not lead outside. Directories
    stay open between reads of neighbours; use ``reading`` (a context manager) so that they are closed again.
    """

    def __init__(self, root: str) -> None:
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        status = os.fstat(self._root)
        self._owner = status.st_uid
        self._stack: list[tuple[str, int]] = []

    def close(self) -> None:
        """Close every directory; idempotent."""
        self._shrink(0)
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def stamp(self, path: str) -> Stamp | None:
        """The stamp of the regular file at ``path`` (relative), or None when there is none."""
        try:
            status = os.stat(path, dir_fd=self._root, follow_symlinks=False)
        except (OSError, ValueError):
            return None
        return stamp_of(status) if stat.S_ISREG(status.st_mode) else None

    def is_directory(self, path: str) -> bool:
        """Whether ``path`` (relative) is a real directory."""
        try:
            return stat.S_ISDIR(os.stat(path, dir_fd=self._root, follow_symlinks=False).st_mode)
        except (OSError, ValueError):
            return False

    def names(self, path: str, limit: int) -> list[str]:
        """The first ``limit`` names in the directory at ``path`` (relative), sorted; none when there is no such one."""
        try:
            return sorted(islice((entry.name for entry in self._entries(path)), limit))
        except OSError:
            return []

    def _entries(self, path: str) -> Iterator[os.DirEntry[str]]:
        with os.scandir(self._directory(path.split("/"))) as entries:
            yield from entries

    def read(self, path: str, limit: int) -> Reading:
        """All bytes of one state of the file at ``path`` (relative, ``/`` between components).

        Raises Refused: ``missing``, ``not_regular``, ``outside``, ``too_large`` (more than ``limit`` bytes),
        ``unreadable``, ``foreign_link`` (a hard link to another user's file), ``changing``.
        """
        descriptor = self._open(path)
        try:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                raise Refused("not_regular")
            if before.st_nlink > 1 and before.st_uid != self._owner:
                raise Refused("foreign_link")
            stamp = stamp_of(before)
            for _ in range(_ATTEMPTS):
                if stamp.size > limit:
                    raise Refused("too_large")
                data = _read_all(descriptor, stamp.size)
                after = stamp_of(os.fstat(descriptor))
                if after == stamp and len(data) == stamp.size:
                    return Reading(data, hashlib.sha256(data).hexdigest(), stamp)
                stamp = after
        except OSError as error:
            raise Refused("unreadable") from error
        finally:
            os.close(descriptor)
        raise Refused("changing")

    def _open(self, path: str) -> int:
        parts = path.split("/")
        if not path or "\0" in path or any(part in ("", ".", "..") for part in parts):
            raise Refused("outside")
        try:
            return os.open(parts[-1], _FILE, dir_fd=self._directory(parts[:-1]))
        except FileNotFoundError as error:
            raise Refused("missing") from error
        except (OSError, ValueError) as error:
            code = getattr(error, "errno", None)
            raise Refused("not_regular" if code in _LINK_ERRORS else "unreadable") from error

    def _directory(self, parts: list[str]) -> int:
        common = 0
        while common < min(len(parts), len(self._stack)) and self._stack[common][0] == parts[common]:
            common += 1
        self._shrink(common)
        for part in parts[common:]:
            parent = self._stack[-1][1] if self._stack else self._root
            self._stack.append((part, os.open(part, _DIRECTORY, dir_fd=parent)))
        return self._stack[-1][1] if self._stack else self._root

    def _shrink(self, size: int) -> None:
        while len(self._stack) > size:
            os.close(self._stack.pop()[1])


#: ELOOP (a link with O_NOFOLLOW), ENOTDIR (a component is no directory), ENXIO (a FIFO or socket).
_LINK_ERRORS = frozenset({40, 62, 20, 6})


def _read_all(descriptor: int, size: int) -> bytes:
    data = os.pread(descriptor, size + 1, 0)
    if len(data) >= size or not data:
        return data
    chunks = [data]
    position = len(data)
    while position <= size:
        chunk = os.pread(descriptor, size + 1 - position, position)
        if not chunk:
            break
        chunks.append(chunk)
        position += len(chunk)
    return b"".join(chunks)


@contextmanager
def reading(root: str) -> Iterator[Reader]:
    """A Reader for ``root`` that closes its directories at the end. Raises OSError when root cannot be opened."""
    reader = Reader(root)
    try:
        yield reader
    finally:
        reader.close()

"""Files and directories that only their owner can read, whatever the umask."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path


def make_private_directory(path: Path) -> Path:
    """Make ``path`` and its missing parents with mode 0700. Raises OSError."""
    try:
        _make(path)
    except FileNotFoundError:
        make_private_directory(path.parent)
        _make(path)
    return path


def _make(directory: Path) -> None:
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        return
    os.chmod(directory, 0o700)  # the umask can only have taken bits away from 0700, an ACL may have added some


def write_private(path: Path, data: bytes, *, is_synced: bool = False) -> None:
    """Write a file with mode 0600 in one go, replacing an old one; ``is_synced`` waits for the disk. Raises OSError.

    Like ``open_log`` it never waits for what somebody has put there instead, and refuses a FIFO.
    """
    descriptor = _open_file(path, os.O_TRUNC)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        if is_synced:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_private(path: Path, data: bytes) -> None:
    """Replace ``path`` atomically and durably (file and directory are synced). Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write_private(temporary, data, is_synced=True)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def append_whole(descriptor: int, data: bytes) -> None:
    """Append all of ``data`` to a file that nobody else writes to, or nothing of it. Raises OSError."""
    size = os.fstat(descriptor).st_size
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError:
        with contextlib.suppress(OSError):  # a device has no size
            os.ftruncate(descriptor, size)  # half a line would spoil the next one too
        raise


def open_log(path: Path) -> int:
    """Open a file (made with mode 0600) to append lines to; never waits. Raises OSError, which says what is in the way.

    A FIFO is refused: who opens one waits for its reader, and of a line that has no room in it a part is written.
    """
    return _open_file(path, os.O_APPEND)


def _open_file(path: Path, flag: int) -> int:
    flags = flag | os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    refusal = OSError(errno.ENXIO, "it is a FIFO or socket; put a file there")
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        raise refusal if error.errno == errno.ENXIO else error from error
    if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise refusal
    return descriptor

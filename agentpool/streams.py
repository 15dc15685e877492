"""An agent's output on disk: every byte in order up to a cap, written by the worker itself, in files of bounded size.

The first file of a stream is ``stdout.log``; one that follows it is named after its first byte, as in
``stdout.log.268435456``. A file is never renamed or written to again once the next one was begun, so a reader
needs no lock to find the byte that it wants, and offsets are those of the whole stream.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from typing import NamedTuple

from agentpool.disk import Rations
from agentpool.platforms import IS_LINUX

STREAMS = ("stdout", "stderr")
READ_BYTES = 256 << 10
TAIL_BYTES = 4096
#: More than the mark of a truncation ever holds: two positions and a word.
MARK_BYTES = 64
#: A log file's size where no limit says otherwise: a quarter of the usual cap.
DEFAULT_FILE_BYTES = 256 << 20
#: No file is smaller, and no stream has more files, whatever a limit says: directories stay readable.
MIN_FILE_BYTES = 4096
MAX_FILES = 1024
#: Pipes of floods are enlarged to this. Eight of them still lie in a processor's cache: with 1 MiB each, the same bytes
#: took up to twice the time. All others keep the kernel's 64 KiB, because an unprivileged user who holds more than
#: 64 MiB of pipe memory gets tiny pipes.
BIG_PIPE_BYTES = 256 << 10
DEFAULT_PIPE_BYTES = 64 << 10
F_SETPIPE_SZ = 1031  # <linux/fcntl.h>; the fcntl module has it from Python 3.10 on Linux only


def log_path(record_dir: str, stream: str, first_byte: int = 0) -> str:
    """The log file of ``stdout`` or ``stderr`` in an agent's record directory that begins with this byte."""
    return f"{record_dir}/{stream}.log.{first_byte}" if first_byte else f"{record_dir}/{stream}.log"


def log_starts(record_dir: str, stream: str) -> list[int]:
    """The first byte of each log file of a stream, ascending; empty when there is none. Raises OSError."""
    name = f"{stream}.log"
    starts = []
    for found in os.listdir(record_dir):
        if found == name:
            starts.append(0)
        elif found.startswith(f"{name}.") and found[len(name) + 1 :].isdecimal():
            starts.append(int(found[len(name) + 1 :]))
    return sorted(starts)


def read_stream(record_dir: str, stream: str, offset: int, limit_bytes: int) -> bytes:
    """At most ``limit_bytes`` of a stream from ``offset``, across its files; empty at its end or without any file."""
    data = _read_file(record_dir, stream, 0, offset, limit_bytes)
    if len(data) == limit_bytes:
        return data  # of the first file, as nearly always
    try:
        starts = log_starts(record_dir, stream)
    except FileNotFoundError:
        return data
    ends = [*starts[1:], None]
    for start, end in zip(starts, ends, strict=True):
        position = offset + len(data)
        if start and start <= position and (end is None or position < end):
            data += _read_file(record_dir, stream, start, position, limit_bytes - len(data))
    return data


def end_of_stream(record_dir: str, stream: str) -> int:
    """How many bytes of a stream were kept; 0 without any file."""
    try:
        last = max(log_starts(record_dir, stream), default=0)
        return last + os.stat(log_path(record_dir, stream, last)).st_size
    except FileNotFoundError:
        return 0


def _read_file(record_dir: str, stream: str, start: int, offset: int, limit_bytes: int) -> bytes:
    fd = _open_to_read(log_path(record_dir, stream, start))
    if fd is None:
        return b""
    try:
        return os.pread(fd, limit_bytes, offset - start)
    finally:
        os.close(fd)


def _open_to_read(path: str) -> int | None:
    """A file's descriptor; None without one: whatever else an agent put there in its place is not its output."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return None
        raise
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return None


class Truncation(NamedTuple):
    """From which byte on a stream was not kept.

    ``by`` says why, ``cap`` or ``disk``; ``begin`` is the first byte of the attempt that was cut, None when the disk
    did not even take that.
    """

    at: int
    by: str
    begin: int | None


def find_truncation(record_dir: str, stream: str) -> Truncation | None:
    """Where a stream was cut; None when nothing is missing at its end. Raises OSError."""
    fd = _open_to_read(truncation_path(record_dir, stream))
    if fd is None:
        return None
    try:
        mark = os.read(fd, MARK_BYTES)
    finally:
        os.close(fd)
    end = end_of_stream(record_dir, stream)
    try:
        at, by, begin = mark.decode("ascii").split()
        return Truncation(end, by, int(begin)) if int(at) >= end else None  # else the next attempt has just begun
    except ValueError:
        return Truncation(end, "disk", None)  # which took the mark's name and not what it says


def truncation_path(record_dir: str, stream: str) -> str:
    """The mark of a stream that was cut: from which byte, why, and the first byte of the attempt."""
    return os.path.join(record_dir, f"{stream}.truncated")


class OutputLog:
    """Writes one stream's log: 0600, appended, bytes as they came, ``file_bytes`` a file, ``cap_bytes`` in all.

    After the cap, or when the disk takes no more or is down to its reserve, bytes are counted and dropped;
    ``truncated_at`` says from which byte and ``truncated_by`` why, ``cap`` or ``disk``. ``position`` is where the
    next byte goes in the stream.
    """

    def __init__(
        self,
        record_dir: str,
        stream: str,
        cap_bytes: int,
        file_bytes: int = DEFAULT_FILE_BYTES,
        rations: Rations | None = None,
    ) -> None:
        self._record_dir = record_dir
        self._stream = stream
        self._file_bytes = max(file_bytes, MIN_FILE_BYTES, cap_bytes // MAX_FILES)
        self._file_start = 0
        self._fd = self._open(0)
        try:
            self.start = self._find_end()
            self._ration = rations.of(self._fd) if rations is not None else None
        except OSError:
            self.close()
            raise
        self.position = self.start
        self.received_bytes = 0
        self.truncated_at: int | None = None
        self.truncated_by = ""
        self._cap = cap_bytes

    def write(self, data: bytes | memoryview) -> None:
        """Append what the cap and the disk allow."""
        self.received_bytes += len(data)
        if self.truncated_at is not None:
            return
        room = self._cap - self.position
        view = memoryview(data)[: max(0, room)]
        while view:
            try:
                size = min(len(view), self._room_in_file())  # may change the descriptor
                allowed = self._allowed(size)
                written = os.write(self._fd, view[:allowed]) if allowed else 0
            except OSError:
                written = 0
            if not written:
                self._truncate("disk")
                return
            if self.position == self.start:
                self._remove_mark()
            self.position += written
            view = view[written:]
        if len(data) > room:
            self._truncate("cap")

    def tail(self) -> bytes:
        """The last kept bytes of this attempt, at most TAIL_BYTES."""
        begin = max(self.start, self.position - TAIL_BYTES)
        if begin < self._file_start:
            return read_stream(self._record_dir, self._stream, begin, self.position - begin)
        if begin == self.position:
            return b""
        return os.pread(self._fd, self.position - begin, begin - self._file_start)

    def close(self) -> None:
        """Close the file; harmless when closed."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self, first_byte: int) -> int:
        path = log_path(self._record_dir, self._stream, first_byte)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            mode = os.fstat(fd).st_mode
            if not stat.S_ISREG(mode):
                # A planted FIFO would block us.
                raise OSError(errno.EINVAL, f"{os.path.basename(path)} is not a regular file")
            if stat.S_IMODE(mode) != 0o600:  # an earlier one's, or a mask's work
                os.fchmod(fd, 0o600)
        except OSError:
            os.close(fd)
            raise
        return fd

    def _find_end(self) -> int:
        """Where the stream ends now; what an earlier attempt wrote is gone on with in its last file. Raises OSError."""
        end = os.lseek(self._fd, 0, os.SEEK_END)
        if end:
            self._file_start = log_starts(self._record_dir, self._stream)[-1]
            if self._file_start:
                self.close()
                self._fd = self._open(self._file_start)
                end = self._file_start + os.lseek(self._fd, 0, os.SEEK_END)
        return end

    def _room_in_file(self) -> int:
        """What the present file still takes, at least 1: a full one is followed by the next. Raises OSError."""
        room = self._file_start + self._file_bytes - self.position
        if room > 0:
            return room
        try:
            following = self._open(self.position)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            return READ_BYTES  # no descriptor is free just now: rather a larger file than lost output
        os.close(self._fd)
        self._fd, self._file_start = following, self.position
        return self._file_bytes

    def _allowed(self, size: int) -> int:
        return size if self._ration is None else self._ration.take(self._fd, size)

    def _remove_mark(self) -> None:
        """There is room again: the stream does not end where an earlier attempt was cut."""
        try:
            os.unlink(truncation_path(self._record_dir, self._stream))
        except OSError:
            pass  # there is none, as nearly always

    def _truncate(self, reason: str) -> None:
        self.truncated_at, self.truncated_by = self.position, reason
        try:
            fd = os.open(
                truncation_path(self._record_dir, self._stream),
                os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK,
                0o600,
            )
        except OSError:
            return  # a full disk may refuse this too; the end of the attempt tells it as well
        try:
            os.write(fd, f"{self.position} {reason} {self.start}".encode())
        except OSError:
            pass
        finally:
            os.close(fd)


def enlarge(pipe: int) -> bool:
    """Give a flooding pipe a larger buffer; False where the system refuses."""
    if not IS_LINUX:
        return False
    import fcntl

    try:
        fcntl.fcntl(pipe, F_SETPIPE_SZ, BIG_PIPE_BYTES)
    except OSError:
        return False
    return True


def held_bytes(pipe: int) -> int:
    """What a pipe holds now. Raises OSError."""
    import fcntl
    import termios

    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)

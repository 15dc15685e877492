"""An agent's output on disk: every byte in order up to a cap, written by the worker itself."""

from __future__ import annotations

import errno
import os
import stat

from agentpool.platforms import IS_LINUX

READ_BYTES = 256 << 10
TAIL_BYTES = 4096
#: Pipes of floods are enlarged to this (the default of /proc/sys/fs/pipe-max-size); all others keep the
#: kernel's 64 KiB, because an unprivileged user who holds more than 64 MiB of pipe memory gets tiny pipes.
BIG_PIPE_BYTES = 1 << 20
DEFAULT_PIPE_BYTES = 64 << 10
F_SETPIPE_SZ = 1031  # <linux/fcntl.h>; the fcntl module has it from Python 3.10 on Linux only


def log_path(record_dir: str, stream: str) -> str:
    """The log of ``stdout`` or ``stderr`` in an agent's record directory."""
    return os.path.join(record_dir, f"{stream}.log")


def truncation_path(record_dir: str, stream: str) -> str:
    """The file that holds the byte from which a capped stream was not kept; it exists only then."""
    return os.path.join(record_dir, f"{stream}.truncated")


class OutputLog:
    """Writes one stream's log: 0600, appended, bytes as they came, at most ``cap_bytes`` of file.

    After the cap, or when the disk takes no more, bytes are counted and dropped, and ``truncated_at`` says
    from which byte. ``position`` is where the next byte goes in the file.
    """

    def __init__(self, record_dir: str, stream: str, cap_bytes: int) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._record_dir = record_dir
        self._stream = stream
        self._fd = os.open(log_path(record_dir, stream), flags, 0o600)
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            os.close(self._fd)
            raise OSError(errno.EINVAL, f"{stream}.log is not a regular file")  # a planted FIFO would block us
        os.fchmod(self._fd, 0o600)
        self.start = os.lseek(self._fd, 0, os.SEEK_END)
        self.position = self.start
        self.received_bytes = 0
        self.truncated_at: int | None = None
        self._cap = cap_bytes
        self._null = -1

    def write(self, data: bytes | memoryview) -> None:
        """Append what the cap and the disk allow."""
        self.received_bytes += len(data)
        if self.truncated_at is not None:
            return
        room = self._cap - self.position
        view = memoryview(data)[: max(0, room)]
        while view:
            try:
                written = os.write(self._fd, view)
            except OSError:
                self._truncate()
                return
            self.position += written
            view = view[written:]
        if len(data) > room:
            self._truncate()

    def splice(self, pipe: int, size: int) -> int:
        """Move up to ``size`` bytes from a pipe without copying them through this process; 0 at its end.

        Raises BlockingIOError when the pipe is empty, OSError EINVAL where the file system cannot splice.
        """
        room = self._cap - self.position
        if self.truncated_at is None and room <= 0:
            moved = self._discard(pipe, size)
            if moved:
                self._truncate()
        elif self.truncated_at is None:
            try:
                moved = os.splice(pipe, self._fd, min(size, room), flags=os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK)
            except OSError as error:
                if isinstance(error, BlockingIOError) or error.errno == 22:
                    raise
                self._truncate()  # the disk takes no more
                return self.splice(pipe, size)
            self.position += moved
        else:
            moved = self._discard(pipe, size)
        self.received_bytes += moved
        return moved

    def tail(self) -> bytes:
        """The last kept bytes of this attempt, at most TAIL_BYTES."""
        begin = max(self.start, self.position - TAIL_BYTES)
        return os.pread(self._fd, self.position - begin, begin)

    def close(self) -> None:
        """Close the file; harmless when closed."""
        for fd in (self._fd, self._null):
            if fd >= 0:
                os.close(fd)
        self._fd = self._null = -1

    def _discard(self, pipe: int, size: int) -> int:
        if self._null < 0:
            self._null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        return os.splice(pipe, self._null, size, flags=os.SPLICE_F_NONBLOCK)

    def _truncate(self) -> None:
        self.truncated_at = self.position
        try:
            fd = os.open(
                truncation_path(self._record_dir, self._stream),
                os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC,
                0o600,
            )
        except OSError:
            return  # a full disk may refuse this too; the end of the attempt tells it as well
        try:
            os.write(fd, str(self.position).encode())
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

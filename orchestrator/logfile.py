"""The log file: every line whole or not at all, and a disk that takes none disturbs nobody."""

from __future__ import annotations

import json
import logging
import os
import stat
import sys
import time
from pathlib import Path

import structlog

from orchestrator.clock import rfc3339
from orchestrator.privacy import append_whole, make_private_directory, open_log

log = structlog.get_logger(__name__)


class LogFile(logging.Handler):
    """Appends lines to ``path`` (0600); at ``max_bytes`` it becomes ``<path>.1`` and the next one begins.

    Where ``path`` is a symbolic link at the start, all that goes for the file that it leads to. A FIFO that nobody
    reads is one of the things that cannot be written: it holds up neither the start nor a line.
    What cannot be written is dropped and counted: nothing is raised, and no traceback goes anywhere. The first line
    that is written again stands behind one, ``log_lines_dropped``, that says how many are missing there. The other
    handlers are told once in the life of the process that the file lacks lines.

    Attributes:
        dropped: lines that were dropped so far.
    """

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        super().__init__()
        self.dropped = 0
        # Who made the file a link wants the log elsewhere; a new file is begun there too, and the link stays.
        self._path = Path(os.path.realpath(path))
        self._max_bytes = max_bytes
        self._descriptor = -1
        self._missing = 0
        self._reason = ""
        self._has_told = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; see the class for what becomes of it where that is not possible."""
        try:
            line = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
        except Exception:  # noqa: BLE001 - a record that cannot be formatted is a bug: logging's own way tells it
            self.handleError(record)
            return
        try:
            self._write(line)
        except OSError as error:
            self._drop(error)

    def close(self) -> None:
        """Close the file; a later record opens it again."""
        self.acquire()
        try:
            self._close()
        finally:
            self.release()
        super().close()

    def _write(self, line: bytes) -> None:
        if self._descriptor < 0:
            self._open()
        status = os.fstat(self._descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_size + len(line) > self._max_bytes:  # a link may lead to a device
            self._rotate()
        append_whole(self._descriptor, self._gap() + line)
        self._missing = 0

    def _gap(self) -> bytes:
        if not self._missing:
            return b""
        told = {
            "lines": self._missing,
            "reason": self._reason,
            "event": "log_lines_dropped",
            "level": "warning",
            "logger": __name__,
            "timestamp": rfc3339(time.time()),
        }
        return json.dumps(told).encode() + b"\n"

    def _drop(self, error: OSError) -> None:
        self.dropped += 1
        self._missing += 1
        self._reason = error.strerror or str(error)
        if not self._has_told:
            self._has_told = True  # before the call, which comes back here and drops that line too
            log.warning("log_file_takes_nothing", path=str(self._path), reason=self._reason)

    def _open(self) -> None:
        make_private_directory(self._path.parent)
        self._descriptor = open_log(self._path)

    def _rotate(self) -> None:
        self._close()
        os.replace(self._path, self._path.with_name(f"{self._path.name}.1"))
        self._open()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class Terminal(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes lines to a stream such as stderr; one that takes none (a full disk, a closed pipe) is left alone."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """Drop what the stream refused; anything else is a bug, which logging's own way tells."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

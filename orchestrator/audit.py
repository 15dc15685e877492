"""The audit log: who did what, one JSON line each, for the operator's eyes only."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import structlog

from orchestrator.clock import Clock, SystemClock, rfc3339
from orchestrator.privacy import append_whole, make_private_directory, open_log

log = structlog.get_logger(__name__)


class AuditLog:
    """Appends to ``audit.log`` (0600); one old file is kept beside it once it has grown to ``file_bytes``.

    A line that cannot be written is logged and dropped: an audit log on a full disk must not stop the work.
    """

    def __init__(self, path: Path, *, file_bytes: int = 16 << 20, clock: Clock | None = None) -> None:
        self._path = path
        self._file_bytes = file_bytes
        self._clock = clock or SystemClock()
        self._descriptor: int | None = None
        # Lines come from threads, so that a slow disk does not stop the event loop.
        self._lock = threading.Lock()

    def record(self, action: str, *, subject: str, project_id: str | None = None, **facts: str | int | bool) -> None:
        """Note one deed. ``subject`` is the token's ``sub``; ``facts`` hold ids, never contents or secrets."""
        line = {"timestamp": rfc3339(self._clock.now()), "action": action, "subject": subject}
        entry = {**line, "project_id": project_id, **facts}
        try:
            with self._lock:
                self._append(json.dumps(entry, ensure_ascii=True).encode() + b"\n")
        except OSError as error:
            log.warning("audit_line_lost", action=action, reason=error.strerror)

    def _append(self, line: bytes) -> None:
        if self._descriptor is None:
            self._open()
        assert self._descriptor is not None
        append_whole(self._descriptor, line)
        if os.fstat(self._descriptor).st_size > self._file_bytes:
            self._rotate()

    def _open(self) -> None:
        make_private_directory(self._path.parent)
        self._descriptor = open_log(self._path)

    def _rotate(self) -> None:
        self.close()
        os.replace(self._path, self._path.with_suffix(".log.1"))

    def close(self) -> None:
        """Close the file; a later record opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

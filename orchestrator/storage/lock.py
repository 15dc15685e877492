"""The lock on a storage directory: one sidecar owns it, a second one is told which."""

from __future__ import annotations

import os
from pathlib import Path

from filelock import FileLock, Timeout

from orchestrator.errors import StorageInUse, StorageWriteFailed
from orchestrator.storage.connection import make_private_directory, make_private_file


class StorageLock:
    """Holds ``<directory>/sidecar.lock``; the kernel lets go of it when the process dies, however it does.

    ``sidecar.pid`` beside it says who holds it; it is information only, the lock alone decides.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.pid_path = directory / "sidecar.pid"
        self._lock = FileLock(str(directory / "sidecar.lock"), timeout=0, mode=0o600, thread_local=False)

    def acquire(self) -> None:
        """Take the lock. Raises StorageInUse (``details["pid"]``, None when unknown), StorageWriteFailed."""
        make_private_directory(self.directory)
        make_private_file(Path(self._lock.lock_file))
        try:
            self._lock.acquire()
        except Timeout as error:
            pid = self.owner()
            raise StorageInUse(
                f"{self.directory} is used by another sidecar{f' (pid {pid})' if pid else ''}; "
                "stop that one (`orchestrator stop`) or choose another directory with --storage",
                details={"pid": pid, "path": str(self.directory)},
            ) from error
        self._tell_owner()

    def release(self) -> None:
        """Let go; idempotent."""
        if self._lock.is_locked:
            self.pid_path.unlink(missing_ok=True)
            self._lock.release()

    def _tell_owner(self) -> None:
        """Write the pid over the one before: a full disk has room for that, though not for another file."""
        try:
            make_private_file(self.pid_path)
            with self.pid_path.open("r+b", buffering=0) as file:
                file.truncate(file.write(f"{os.getpid()}\n".encode()))
        except (OSError, StorageWriteFailed):
            self.pid_path.unlink(missing_ok=True)  # better none than a wrong one

    def owner(self) -> int | None:
        """The pid that the holder wrote, or None."""
        try:
            return int(self.pid_path.read_text(encoding="ascii").strip())
        except (OSError, ValueError):
            return None

    def __enter__(self) -> StorageLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

"""Room on the disk that everything is stored on, and the refusals where it is short."""

from __future__ import annotations

import os
from pathlib import Path

from agentpool.disk import headroom_of, reserve_of
from orchestrator.errors import StorageWriteFailed

#: Seconds after which it makes sense to try again: somebody has to make room.
RETRY_S = 5.0


class Room:
    """What is free on the storage's disk beyond the reserve (``pool.disk_reserve_bytes``), as last measured.

    The reserve is for what is under way: the ends of agents, their results, the events that tell of them. New agents
    are refused when it is reached, what clients store and publish when half of it is used up. Where the disk cannot
    be measured nothing is refused.
    """

    def __init__(self, directory: Path, reserve_bytes: int) -> None:
        self._directory = directory
        self._configured = reserve_bytes
        self._reserve = 0
        self.headroom_bytes = 1 << 62

    def measure(self) -> None:
        """Look at the disk; may block."""
        try:
            status = os.statvfs(self._directory)
        except OSError:
            self._reserve, self.headroom_bytes = 0, 1 << 62
            return
        self._reserve = reserve_of(status, self._configured)
        self.headroom_bytes = headroom_of(status, self._configured) if self._configured else 1 << 62

    def check_work(self) -> None:
        """Raise StorageWriteFailed when no new agent may be started."""
        if self.headroom_bytes <= 0:
            raise self._refusal("no new agents are taken")

    def check_data(self) -> None:
        """Raise StorageWriteFailed when nothing more may be stored but what is under way."""
        if self.headroom_bytes + self._reserve // 2 < 0:
            raise self._refusal("nothing was stored")

    def _refusal(self, what: str) -> StorageWriteFailed:
        free_mb, kept_mb = (size / 2**20 for size in (self._reserve + self.headroom_bytes, self._reserve))
        return StorageWriteFailed(
            f"the disk is full: {free_mb:.1f} MiB are free, and the sidecar keeps the last {kept_mb:.1f} for what is "
            f"under way: {what}; free some space on the disk of {self._directory}, or lower pool.disk_reserve_bytes",
            slug="disk_reserve_reached",
            details={"free_bytes": self._reserve + self.headroom_bytes, "reserve_bytes": self._reserve},
            retry_after_s=RETRY_S,
        )

"""Retention: what is old is removed, a little at a time."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import structlog

from orchestrator.clock import Clock
from orchestrator.config import Settings
from orchestrator.errors import SidecarError
from orchestrator.results import ResultService
from orchestrator.storage.base import ResultStore
from orchestrator.workspaces import Workspaces

log = structlog.get_logger(__name__)


def old_agent_directories(agents_dir: Path, older_than: float) -> list[Path]:
    """Agents' directories that nothing has touched since ``older_than`` (seconds since the epoch)."""
    found = []
    try:
        entries = list(agents_dir.iterdir())
    except FileNotFoundError:
        return []
    for directory in entries:
        try:
            if directory.is_dir() and _last_change(directory) < older_than:
                found.append(directory)
        except FileNotFoundError:
            continue
    return found


def _last_change(directory: Path) -> float:
    return max(path.stat().st_mtime for path in (directory, *directory.glob("*.log*")))


class Sweeper:
    """Removes old results, agents' files and worktrees again and again, and finishes what a full disk had held up.

    Args:
        is_live: whether an agent of this id still runs (its files stay).
    """

    def __init__(
        self,
        settings: Settings,
        store: ResultStore,
        results: ResultService,
        agents_dir: Path,
        workspaces: Workspaces,
        *,
        is_live: Callable[[str], bool],
        clock: Clock,
    ) -> None:
        self._settings = settings.storage
        self._store = store
        self._results = results
        self._agents_dir = agents_dir
        self._workspaces = workspaces
        self._is_live = is_live
        self._clock = clock

    async def run(self) -> None:
        """Sweep every ``sweep_interval_s`` until cancelled."""
        while True:
            try:
                await self.sweep()
            except (SidecarError, OSError):
                log.exception("sweep_failed")
            await asyncio.sleep(self._settings.sweep_interval_s)

    async def sweep(self) -> int:
        """One sweep; how many results, directories and worktrees went."""
        if self._results.is_behind:
            await self._results.recover()
        now = self._clock.now()
        dropped = await self._store.drop_results(older_than=now - self._settings.results_retention_s)
        older_than = now - self._settings.agents_retention_s
        directories = await asyncio.to_thread(old_agent_directories, self._agents_dir, older_than)
        for directory in directories:
            if not self._is_live(directory.name):
                await asyncio.to_thread(shutil.rmtree, directory, True)
                dropped += 1
        dropped += await asyncio.to_thread(self._workspaces.sweep, self._is_kept)
        if dropped:
            log.info("swept", dropped=dropped)
        return dropped

    def _is_kept(self, agent_id: str) -> bool:
        """Whether an agent's worktree stays, for its files do or it runs."""
        return self._is_live(agent_id) or (self._agents_dir / agent_id).exists()

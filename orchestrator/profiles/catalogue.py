"""The catalogue: every role that is in force for a project, kept up to date while files change."""

from __future__ import annotations

import asyncio
import builtins
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import structlog
import watchfiles

from orchestrator.clock import Clock, SystemClock
from orchestrator.errors import UnknownAgentType
from orchestrator.profiles.effective import Effective, Source, lay_over
from orchestrator.profiles.model import Profile
from orchestrator.profiles.problems import Problem
from orchestrator.profiles.requirements import nearest
from orchestrator.profiles.sources import (
    Directory,
    DirectoryReader,
    project_directories,
    shipped_directory,
)

log = structlog.get_logger(__name__)


class _Snapshot:
    """All roles in force for one project (or for none), immutable once made; profiles are made when asked for."""

    def __init__(self, readers: Sequence[DirectoryReader]) -> None:
        self._sources: dict[str, list[Source]] = {}
        self._effective: dict[str, Effective] = {}
        problems: list[Problem] = []
        for reader in readers:
            problems.extend(reader.problems)
            for file, layer in reader.layers:
                source = Source(layer=layer, file=file, kind=reader.directory.layer)
                self._sources.setdefault(layer.name, []).append(source)
        self.names = sorted(self._sources)
        self._file_problems = problems

    def effective(self, agent_type: str) -> Effective | None:
        """The role as it is in force, laid over at its first use; None when there is none."""
        known = self._effective.get(agent_type)
        if known is None and agent_type in self._sources:
            known = self._effective[agent_type] = lay_over(self._sources[agent_type])
        return known

    def problems(self) -> list[Problem]:
        """Those of the files, then those that show only where roles meet."""
        found = list(self._file_problems)
        for name in self.names:
            effective = self.effective(name)
            assert effective is not None
            found.extend(effective.problems)
            found.extend(self._missing_successors(effective.profile, effective.origins))
        return found

    def _missing_successors(self, profile: Profile, origins: dict[str, str]) -> list[Problem]:
        return [
            Problem(
                severity="warning",
                source=origins.get("hands_over_to", profile.source),
                reason=f"hands over to {entry.agent_type!r}, which no profile defines",
                agent_type=profile.agent_type,
            )
            for entry in profile.hands_over_to
            if entry.agent_type not in self._sources
        ]


class Profiles:
    """Shipped profiles with the user's and each project's laid over them.

    Reading happens in ``refresh`` alone. ``get`` and ``list`` call it when a project is new to the catalogue,
    and otherwise at most every ``check_interval_s`` seconds, which is some 0.3 ms of ``stat``; within an event
    loop that is done behind the caller, who gets what was known. While ``watch`` runs they do not touch the
    disk at all. Only a project's first use blocks: within an event loop await ``prepare`` for it first.

    Args:
        shipped: directory of the shipped profiles; None takes those of this installation.
        user: the user's directories, lowest first (``user_directories``).
        check_interval_s: seconds between looks at the disk; 0 looks every time.
        clock: for tests.
    """

    def __init__(
        self,
        shipped: Path | None = None,
        user: Sequence[Directory] = (),
        *,
        check_interval_s: float = 1.0,
        clock: Clock | None = None,
    ) -> None:
        self._base = [DirectoryReader(Directory(path=shipped or shipped_directory(), layer="shipped"))]
        self._base += [DirectoryReader(directory) for directory in user]
        self._projects: dict[str | None, list[DirectoryReader]] = {None: []}
        self._snapshots: dict[str | None, _Snapshot] = {}
        self._checked_at: dict[str | None, float] = {}
        self._check_interval_s = check_interval_s
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._is_watched = False
        self._refreshing: set[str | None] = set()

    def get(self, agent_type: str, project_path: str | None = None) -> Profile:
        """The profile in force. Raises UnknownAgentType with the nearest names (``details["nearest"]``)."""
        return self.explain(agent_type, project_path).profile

    def explain(self, agent_type: str, project_path: str | None = None) -> Effective:
        """The profile in force with the origin of every value. Raises as ``get``."""
        snapshot = self._snapshot(project_path)
        effective = snapshot.effective(agent_type)
        if effective is None:
            close = nearest(agent_type, snapshot.names)
            hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else "; see 'orchestrator profiles list'"
            raise UnknownAgentType(
                f"no profile is named {agent_type[:128]!r}{hint}",
                details={"agent_type": agent_type[:128], "nearest": close},
            )
        return effective

    def names(self, project_path: str | None = None) -> builtins.list[str]:
        """All roles in force, sorted."""
        return [*self._snapshot(project_path).names]

    def list(self, project_path: str | None = None) -> builtins.list[Profile]:
        """All profiles in force, by name."""
        snapshot = self._snapshot(project_path)
        return [effective.profile for name in snapshot.names if (effective := snapshot.effective(name)) is not None]

    def trigger_documents(self, project_path: str | None = None) -> dict[str, dict[str, Any]]:
        """All roles' triggers by name, as ``[triggers]`` of a project's ``orchestrator.toml`` would hold them."""
        documents: dict[str, dict[str, Any]] = {}
        for profile in self.list(project_path):
            documents |= profile.trigger_documents()
        return documents

    def problems(self, project_path: str | None = None) -> builtins.list[Problem]:
        """What is wrong with files and what was ignored in them, in the order of the layers."""
        return self._snapshot(project_path).problems()

    def refresh(self, project_path: str | None = None) -> bool:
        """Look at the disk now; whether anything changed. Blocks for the time of reading."""
        with self._lock:
            return self._refresh(project_path)

    async def prepare(self, project_path: str | None = None) -> None:
        """``refresh`` without blocking the event loop."""
        await asyncio.to_thread(self.refresh, project_path)

    def forget(self, project_path: str) -> None:
        """Let go of a project that is no longer served."""
        with self._lock:
            for known in (self._projects, self._snapshots, self._checked_at):
                known.pop(project_path, None)

    async def watch(self, on_change: Callable[[], None] | None = None, *, poll_interval_s: float = 2.0) -> None:
        """Follow changes until cancelled; ``on_change`` is called after each that counted.

        Directories are watched with watchfiles, not below them; every ``poll_interval_s`` seconds a look at the
        disk finds what no watch can, such as a directory that came into being.
        """
        await asyncio.to_thread(self._refresh_all)
        self._is_watched = True
        try:
            while True:
                await self._wait_for_change(poll_interval_s)
                if await asyncio.to_thread(self._refresh_all):
                    log.info("profiles_reloaded", roles=len(self.names()))
                    if on_change is not None:
                        _tell(on_change)
        finally:
            self._is_watched = False

    async def _wait_for_change(self, timeout_s: float) -> None:
        """Return at a change below a watched directory, or after ``timeout_s``."""
        paths = await asyncio.to_thread(self._existing_directories)
        if not paths:
            await asyncio.sleep(timeout_s)
            return
        changes = watchfiles.awatch(
            *paths, recursive=False, debounce=50, step=20, rust_timeout=int(timeout_s * 1000), yield_on_timeout=True
        )
        try:
            async for _ in changes:
                return
        except FileNotFoundError:  # removed between listing and watching
            return
        finally:
            await changes.aclose()

    def _existing_directories(self) -> builtins.list[Path]:
        with self._lock:
            readers = [*self._base, *(reader for project in self._projects.values() for reader in project)]
        return [reader.directory.path for reader in readers if reader.directory.path.is_dir()]

    def _refresh_all(self) -> bool:
        with self._lock:
            changed = [self._refresh(project) for project in tuple(self._projects)]
        return any(changed)

    def _refresh(self, project_path: str | None) -> bool:
        base_changed = [reader.refresh() for reader in self._base]
        if any(base_changed):
            self._snapshots.clear()
        if project_path not in self._projects:
            directories = project_directories(Path(str(project_path)))
            self._projects[project_path] = [DirectoryReader(directory) for directory in directories]
        project_changed = [reader.refresh() for reader in self._projects[project_path]]
        changed = any(project_changed) or project_path not in self._snapshots
        if changed:
            self._snapshots[project_path] = _Snapshot([*self._base, *self._projects[project_path]])
        self._checked_at[project_path] = self._clock.monotonic()
        return changed or any(base_changed)

    def _snapshot(self, project_path: str | None) -> _Snapshot:
        snapshot = self._snapshots.get(project_path)
        if snapshot is not None:
            age_s = self._clock.monotonic() - self._checked_at.get(project_path, float("-inf"))
            if self._is_watched or age_s < self._check_interval_s:
                return snapshot
            loop = _running_loop()
            if loop is not None:
                self._refresh_behind(loop, project_path)
                return snapshot
        with self._lock:
            self._refresh(project_path)
            return self._snapshots[project_path]

    def _refresh_behind(self, loop: asyncio.AbstractEventLoop, project_path: str | None) -> None:
        """Look at the disk in a thread; what was known is served meanwhile."""
        if project_path in self._refreshing:
            return
        self._refreshing.add(project_path)

        def finish(future: asyncio.Future[bool]) -> None:
            self._refreshing.discard(project_path)
            if not future.cancelled() and (error := future.exception()) is not None:
                log.error("profiles_refresh_failed", error=repr(error))

        loop.run_in_executor(None, self.refresh, project_path).add_done_callback(finish)


def _tell(on_change: Callable[[], None]) -> None:
    try:
        on_change()
    except Exception as error:  # noqa: BLE001 - the watch outlives whoever listens to it
        log.error("profiles_listener_failed", error=repr(error))


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None

"""The context engine of the supervisor: cache, single flight, earlier results; the work is the builder's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import msgspec
import structlog

from orchestrator.clock import Clock, SystemClock
from orchestrator.config import ContextSettings
from orchestrator.context.cache import ContextCache, Entry, Key
from orchestrator.context.frames import Told
from orchestrator.context.knowledge import earlier_outputs, newest_result
from orchestrator.context.markdown import markdown
from orchestrator.context.models import (
    JSON,
    BuildOrder,
    BuiltContext,
    Cleared,
    ContextRequest,
    ContextStats,
    Role,
    SearchHit,
)
from orchestrator.context.persist import keep_only
from orchestrator.context.process import BuilderProcess
from orchestrator.context.project import Limits
from orchestrator.errors import BadRequest, ContextFailed
from orchestrator.models import Project
from orchestrator.profiles.model import Profile
from orchestrator.profiles.requirements import resolve_requirements
from orchestrator.storage.base import KnowledgeStore, ResultStore

_log = structlog.get_logger(__name__)
#: Files are compared with what is known at least this often while answers come from the cache (seconds).
_VERIFY_S = 0.8
_MISS = b'"cache_hit":false}'
_HIT = b'"cache_hit":true}'
#: Largest ``max_bytes`` (the whole answer is at most 10 MiB).
_MOST_BYTES = 10_000_000


class ProfileSource(Protocol):
    """What the engine needs of ``orchestrator.profiles.Profiles``."""

    async def prepare(self, project_path: str | None = None) -> None:
        """Read a project's profiles without blocking the loop."""

    def get(self, agent_type: str, project_path: str | None = None) -> Profile:
        """The profile. Raises UnknownAgentType."""
        ...


class Flight(msgspec.Struct):
    """What the engine knows of a project's freshness: the newest epoch it was told of, and the last comparison."""

    epoch: int = 0
    is_watched: bool = False
    verified_at: float = 0.0


class ContextEngine:
    """Gives every role what it needs of a project for a task (contract section 3.1).

    Args:
        profiles: where roles come from (``get``).
        results: earlier outcomes, for ``previous_agent_outputs``.
        knowledge: what other issues taught.
        settings: the ``[context]`` section.
        state_dir: directory for what survives a restart (0700).
        clock: wall time of answers, monotonic time of checks.
        are_results_announced: the caller promises to call ``results_changed`` after every stored result; then a
            cached answer needs no look into the store.
    """

    def __init__(
        self,
        profiles: ProfileSource,
        results: ResultStore,
        knowledge: KnowledgeStore,
        settings: ContextSettings,
        state_dir: Path,
        *,
        clock: Clock | None = None,
        are_results_announced: bool = False,
    ) -> None:
        self._profiles = profiles
        self._results = results
        self._knowledge = knowledge
        self._settings = settings
        self._clock = clock or SystemClock()
        self._are_results_announced = are_results_announced
        self._cache = ContextCache(settings.cache_bytes)
        self._flights: dict[Key, asyncio.Task[Entry]] = {}
        self._glances: dict[Key, asyncio.Task[BuiltContext | None]] = {}
        self._projects: dict[str, Flight] = {}
        self._prepared: set[str] = set()
        self._announced: dict[str, int] = {}
        self._checks: set[asyncio.Task[Told]] = set()
        self._warmups: set[asyncio.Task[None]] = set()
        self._newest: dict[tuple[str, str | None], asyncio.Task[str]] = {}
        self._hits = self._misses = self._builds = 0
        limits = Limits(
            git_timeout_s=settings.git_timeout_s, include=tuple(settings.include), exclude=tuple(settings.exclude)
        )
        self._state_dir = str(state_dir)
        self._builder = BuilderProcess(
            limits, settings.index_bytes, state_dir, on_stale=self._on_stale, on_lost=self._on_lost
        )

    async def start(self, roots: Iterable[str] | None = None) -> None:
        """Start the builder process. ``roots``: of all other projects nothing that was kept is needed any more."""
        if roots is not None:
            await asyncio.to_thread(keep_only, self._state_dir, roots)
        await self._builder.start()

    async def stop(self) -> None:
        """Cancel what is under way and end the builder; idempotent."""
        tasks: list[asyncio.Task[Any]] = [*self._flights.values(), *self._glances.values()]
        tasks += [*self._checks, *self._warmups, *self._newest.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._builder.stop()

    async def build(self, project: Project, request: ContextRequest) -> BuiltContext:
        """The context for a role. Raises UnknownAgentType, BadRequest (requirements, ``max_bytes``), ContextFailed."""
        profile = await self._profile(project, request)
        resolve_requirements(request.requirements)
        key = self._key(project, request, profile)
        entry = self._cache.get(key)
        if entry is not None and not request.refresh and await self._is_current(project, key, entry):
            self._hits += 1
            return BuiltContext(body=entry.body, etag=entry.etag, cache_hit=True)
        self._misses += 1
        if request.partial and not request.refresh and key not in self._flights:
            glimpsed = await self._glance(project, key, profile)
            if glimpsed is not None and self._cache.get(key) is entry:  # else the full one came first
                return glimpsed
        entry = await self._fly(project, key, profile, is_refresh=request.refresh)
        return BuiltContext(body=entry.body.removesuffix(_HIT) + _MISS, etag=entry.etag, cache_hit=False)

    async def _profile(self, project: Project, request: ContextRequest) -> Profile:
        if project.path not in self._prepared:
            await self._profiles.prepare(project.path)
            self._prepared.add(project.path)
        return self._profiles.get(request.agent_type, project.path)

    def _key(self, project: Project, request: ContextRequest, profile: Profile) -> Key:
        most = request.max_bytes
        if most is not None and most < 1:
            raise BadRequest("max_bytes must be at least 1", details={"field": "max_bytes"})
        if most is None:
            needs = profile.context
            limits = [self._settings.max_bytes, needs.max_bytes or _MOST_BYTES, (needs.max_tokens or _MOST_BYTES) * 4]
            most = min(limits) if needs.max_bytes is None else min(limits[1:])
        return Key(
            project_id=project.project_id,
            issue_id=request.issue_id,
            agent_type=request.agent_type,
            revision=f"{project.path}\0{profile.revision}",
            task=request.task or "",
            max_bytes=min(most, _MOST_BYTES),
            requirements=tuple(request.requirements),
        )

    async def _is_current(self, project: Project, key: Key, entry: Entry) -> bool:
        """Whether a cached answer still shows the project's files and the issue's results."""
        known = self._projects.get(project.path)
        if known is None or entry.epoch < known.epoch:
            return False
        now = self._clock.monotonic()
        if now - known.verified_at > _VERIFY_S or not known.is_watched:
            known.verified_at = now
            check = asyncio.create_task(self._builder.ask(what="verify", root=project.path))
            self._checks.add(check)
            check.add_done_callback(self._checked)
            if not known.is_watched:
                told = await asyncio.shield(check)
                known.is_watched = told.is_watched
                known.epoch = max(known.epoch, told.epoch)
                if entry.epoch < known.epoch:
                    return False
        if self._are_results_announced:
            return True
        return entry.results == await self._newest_result(key.project_id, _scope(key))

    def _checked(self, check: asyncio.Task[Told]) -> None:
        self._checks.discard(check)
        if not check.cancelled() and (error := check.exception()) is not None:
            _log.warning("context_verify_failed", error=str(error))

    async def _newest_result(self, project_id: str, issue_id: str | None) -> str:
        """One look into the store for all who ask at the same time."""
        key = (project_id, issue_id)
        task = self._newest.get(key)
        if task is None:
            task = self._newest[key] = asyncio.create_task(newest_result(self._results, project_id, issue_id))
            task.add_done_callback(lambda _: self._newest.pop(key, None))
            # whoever asks later in this turn of the loop shares the look; it has not begun yet
        return await asyncio.shield(task)

    async def _fly(self, project: Project, key: Key, profile: Profile, *, is_refresh: bool) -> Entry:
        """Build, once for all who want the same at the same time (a refresh is never shared with an older build)."""
        return await asyncio.shield(self._take_off(project, key, profile, is_refresh=is_refresh))

    def _take_off(self, project: Project, key: Key, profile: Profile, *, is_refresh: bool) -> asyncio.Task[Entry]:
        flight = self._flights.get(key)
        if flight is None or is_refresh:
            flight = asyncio.create_task(self._make(project, key, profile, is_refresh=is_refresh))
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._landed(key, done))
        return flight

    def _landed(self, key: Key, flight: asyncio.Task[Entry]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
        if not flight.cancelled():
            flight.exception()  # retrieved here too, should every waiter be gone

    async def _glance(self, project: Project, key: Key, profile: Profile) -> BuiltContext | None:
        """A provisional answer, once for all who want the same at the same time; the full one is then made behind
        it. None when the full one takes no longer. It goes into no cache: whoever asks next gets the full one."""
        glance = self._glances.get(key)
        if glance is None:
            glance = self._glances[key] = asyncio.create_task(self._glimpse(project, key, profile))
            glance.add_done_callback(lambda done: self._glimpsed(project, key, profile, done))
        return await asyncio.shield(glance)

    async def _glimpse(self, project: Project, key: Key, profile: Profile) -> BuiltContext | None:
        outputs = await earlier_outputs(self._results, self._knowledge, key.project_id, key.issue_id, key.task)
        order = self._order(project, key, profile, outputs, is_refresh=False)
        told = await self._builder.ask(what="glance", root=project.path, order=order)
        return BuiltContext(body=told.body, etag=told.etag, cache_hit=False, is_partial=True) if told.body else None

    def _glimpsed(
        self, project: Project, key: Key, profile: Profile, glance: asyncio.Task[BuiltContext | None]
    ) -> None:
        if self._glances.get(key) is glance:
            del self._glances[key]
        if not glance.cancelled() and glance.exception() is None and glance.result() is not None:
            self._take_off(project, key, profile, is_refresh=False)

    async def _make(self, project: Project, key: Key, profile: Profile, *, is_refresh: bool) -> Entry:
        announced = self._announced.get(project.project_id, 0)
        newest = await newest_result(self._results, key.project_id, _scope(key))
        outputs = await earlier_outputs(self._results, self._knowledge, key.project_id, key.issue_id, key.task)
        old = self._cache.get(key)
        told = await self._builder.ask(
            what="build",
            root=project.path,
            order=self._order(project, key, profile, outputs, is_refresh=is_refresh),
            known_generation=old.generation if old is not None and old.results == newest else 0,
        )
        self._builds += 1
        if told.problems:
            _log.warning("context_metadata_failed", project_id=project.project_id, problems=told.problems)
        known = self._projects.setdefault(project.path, Flight())
        known.is_watched = told.is_watched
        known.epoch = max(known.epoch, told.epoch)
        known.verified_at = self._clock.monotonic()
        if told.is_same and old is not None:
            old.epoch = told.epoch
            return old
        if not told.body.endswith(_MISS):
            raise ContextFailed("the context builder gave no answer")
        entry = Entry(told.body.removesuffix(_MISS) + _HIT, told.etag, told.generation, told.epoch, newest)
        # a result that came while this was built is not in it: give it to those who wait, and build anew next time
        if announced == self._announced.get(project.project_id, 0):
            self._cache.put(key, entry)
        return entry

    def _order(
        self, project: Project, key: Key, profile: Profile, outputs: list[JSON], *, is_refresh: bool
    ) -> BuildOrder:
        needs = profile.context
        return BuildOrder(
            project_id=project.project_id,
            root=project.path,
            issue_id=key.issue_id,
            role=Role(
                agent_type=profile.agent_type,
                category=profile.category,
                permission_class=profile.permission_class,
                include=needs.include,
                exclude=needs.exclude,
                requirements=tuple(dict.fromkeys((*key.requirements, *needs.requirements))),
                wished=key.requirements,
                revision=profile.revision,
            ),
            task=key.task,
            max_bytes=key.max_bytes,
            is_refresh=is_refresh,
            outputs=tuple(outputs),
            now=self._clock.now(),
        )

    def _on_stale(self, root: str, epoch: int) -> None:
        known = self._projects.setdefault(root, Flight())
        known.epoch = max(known.epoch, epoch)

    def _on_lost(self) -> None:
        """A new builder counts anew, so nothing of the old one can be compared."""
        self._projects.clear()

    def warm(self, project: Project) -> None:
        """Begin to index a project, so that its first context need not wait for that. Returns at once and never
        fails: what is wrong is told to whoever asks for a context."""
        warmup = asyncio.create_task(self._warm_up(project))
        self._warmups.add(warmup)
        warmup.add_done_callback(self._warmups.discard)

    async def _warm_up(self, project: Project) -> None:
        try:
            await self._builder.ask(what="warm", root=project.path)
        except ContextFailed as error:
            _log.info("context_warm_up_failed", project_id=project.project_id, error=str(error))

    @property
    def builder_id(self) -> int | None:
        """Process id of the builder while it runs."""
        return self._builder.process_id

    def results_changed(self, project_id: str) -> None:
        """A result or note was stored: the project's answers are built anew when next asked for."""
        self._announced[project_id] = self._announced.get(project_id, 0) + 1
        for key in [key for key in self._flights if key.project_id == project_id]:
            del self._flights[key]  # who asks from now on must not share a build that began before
        for key in [key for key in self._glances if key.project_id == project_id]:
            del self._glances[key]
        self._cache.clear(project_id)

    async def clear(self, project_id: str, issue_id: str) -> Cleared:
        """Forget the issue's cached answers."""
        return self._cache.clear(project_id, issue_id)

    async def search(self, project: Project, query: str, limit: int) -> list[SearchHit]:
        """The project's best files for ``query``, best first, with matching lines. Raises ContextFailed."""
        told = await self._builder.ask(what="search", root=project.path, query=query, limit=limit)
        return msgspec.convert(told.data["hits"], list[SearchHit])

    async def explain(self, project: Project, request: ContextRequest) -> JSON:
        """``{files: [{path, kind, score, reason, signals, bytes, size, ranges}], omitted, max_bytes, truncated}``."""
        profile = await self._profile(project, request)
        key = self._key(project, request, profile)
        outputs = await earlier_outputs(self._results, self._knowledge, key.project_id, key.issue_id, key.task)
        order = self._order(project, key, profile, outputs, is_refresh=request.refresh)
        return (await self._builder.ask(what="explain", root=project.path, order=order)).data

    def markdown(self, built: BuiltContext) -> str:
        """``CONTEXT.md``: the same for a reader."""
        return markdown(built.document)

    def stats(self) -> ContextStats:
        """Measures of the cache and the builder."""
        return ContextStats(
            entries=len(self._cache),
            bytes=self._cache.size_bytes,
            hits=self._hits,
            misses=self._misses,
            builds=self._builds,
            projects=len(self._projects),
            is_builder_alive=self._builder.is_alive,
        )


def _scope(key: Key) -> str | None:
    """The issue whose results an answer shows; None is the whole project (a task brings other issues' lessons)."""
    return None if key.task else key.issue_id

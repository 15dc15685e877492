"""The supervisor: builds all services, starts and stops them in order."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from types import TracebackType

import structlog

from agentpool.local import LocalPool
from orchestrator.agents.base import TokenMinter
from orchestrator.agents.durability import Recorder
from orchestrator.agents.feeds import EventFeeds
from orchestrator.agents.launch import Launcher
from orchestrator.agents.lives import AgentLives
from orchestrator.agents.records import RecordTaker
from orchestrator.agents.recovery import Recovery
from orchestrator.agents.registry import AgentRegistry
from orchestrator.agents.relay import Relay
from orchestrator.agents.restarts import RestartIntensity
from orchestrator.agents.service import AgentService
from orchestrator.agents.starts import Starter
from orchestrator.audit import AuditLog
from orchestrator.clock import Clock, SystemClock
from orchestrator.config import Settings, user_config_path
from orchestrator.context.engine import ContextEngine
from orchestrator.errors import UnknownAgentType
from orchestrator.events.bus import EventBus
from orchestrator.events.delivery import Courier, Handler
from orchestrator.events.mirror import LogMirror
from orchestrator.events.rules import RuleBook
from orchestrator.events.triggers import TriggerRunner
from orchestrator.events.webhooks import WebhookSender
from orchestrator.health import Reporter
from orchestrator.metrics import Metrics
from orchestrator.models import JSON, Event, EventDraft, Project
from orchestrator.pooling import pool_config
from orchestrator.privacy import make_private_directory
from orchestrator.profiles.catalogue import Profiles
from orchestrator.profiles.sources import user_directories
from orchestrator.projects import ProjectService
from orchestrator.results import ResultService
from orchestrator.retention import Sweeper
from orchestrator.room import Room
from orchestrator.storage.lock import StorageLock
from orchestrator.storage.sqlite import SqliteStorage
from orchestrator.workflows.runner import RunService
from orchestrator.workspaces import Workspaces

#: Seconds after which profiles are read again where no watch is possible.
PROFILE_CHECK_S = 60.0
#: Seconds of grace that agents have when the sidecar stops.
STOP_GRACE_S = 5.0
log = structlog.get_logger(__name__)


class Supervisor:
    """One sidecar without its HTTP side; use it as ``async with Supervisor(...)`` around serving.

    Args:
        settings: what is configured.
        directory: the storage directory; locked while this lives.
        base_url: where agents reach the API, without a trailing slash.
        certificate: the API's own TLS certificate (PEM), or None without TLS.
        minter: gives agents their tokens.
        projects: ``(id or None, path)``; the first is the default project.
        version: of the program, for ``/health``.
        environ: the environment that agents get a little of.

    Raises on entry: StorageInUse, StorageWriteFailed, StorageReadFailed, BadRequest (a project's path).
    """

    def __init__(
        self,
        settings: Settings,
        directory: Path,
        *,
        base_url: str,
        certificate: str | None = None,
        minter: TokenMinter,
        projects: list[tuple[str | None, str]],
        version: str,
        environ: Mapping[str, str] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.settings = settings
        self.directory = directory
        self.metrics = Metrics()
        self.audit = AuditLog(directory / "logs" / "audit.log", file_bytes=settings.log.file_bytes)
        self._given_projects = projects
        self._environ = os.environ if environ is None else environ
        self._clock = clock or SystemClock()
        self._stack = AsyncExitStack()
        self._are_deliveries_open = False
        self._agents_dir = directory / "agents"
        self.storage = SqliteStorage(directory)
        self.room = Room(directory, settings.pool.disk_reserve_bytes)
        self.pool = LocalPool(pool_config(settings), room=self.room)
        self.registry = AgentRegistry(self.storage, self._clock)
        self._build_knowledge()
        self._build_agents(base_url, certificate, minter)
        self._build_runs()
        self._build_deliveries()
        self._reporter = Reporter(
            settings=settings,
            directory=directory,
            version=version,
            storage=self.storage,
            bus=self.bus,
            pool=self.pool,
            registry=self.registry,
            context=self.context,
            metrics=self.metrics,
            clock=self._clock,
        )

    def _build_knowledge(self) -> None:
        """Roles, projects, events, context, results: all that is known of work."""
        # The watch begun at the start keeps them fresh; a look at the disk from the event loop is the last resort.
        self.profiles = Profiles(
            user=user_directories(Path(self._environ.get("HOME", "/")), user_config_path(self._environ).parent),
            check_interval_s=PROFILE_CHECK_S,
        )
        self.projects = ProjectService(self.storage, on_added=self._prepare_project, clock=self._clock)
        self._rules = RuleBook(self._directory_of, more_triggers=self.profiles.trigger_documents)
        self.bus = EventBus(
            self.storage,
            self.settings.events,
            clock=self._clock,
            rules=self._rules,
            mirror=LogMirror(self.directory / "events", self.settings.events),
        )
        self.context = ContextEngine(
            self.profiles,
            self.storage,
            self.storage,
            self.settings.context,
            self.directory / "context",
            clock=self._clock,
            are_results_announced=True,
        )
        self.results = ResultService(
            self.storage,
            self.directory / "results",
            publish=self._publish,
            hand_overs=self._hand_overs,
            on_stored=self.context.results_changed,
            clock=self._clock,
        )

    def _build_agents(self, base_url: str, certificate: str | None, minter: TokenMinter) -> None:
        """Agents' lives, and who begins and ends them."""
        self._workspaces = Workspaces(self._agents_dir, self.directory / "worktrees")
        launcher = Launcher(
            agents_dir=self._agents_dir,
            base_url=base_url,
            certificate=certificate,
            context=self.context,
            projects=self.projects,
            workspaces=self._workspaces,
            minter=minter,
            settings=self.settings.pool,
            environ=self._environ,
        )
        self._feeds = EventFeeds(self.bus, self.pool, self.registry)
        self._recorder = Recorder()
        self._lives = AgentLives(
            feeds=self._feeds,
            pool=self.pool,
            registry=self.registry,
            starter=self._starter(launcher),
            launcher=launcher,
            records=RecordTaker(self.results, self._publish, self._recorder, self.metrics),
            results=self.results,
            publish=self._publish,
            recorder=self._recorder,
            minter=minter,
            intensity=RestartIntensity(self.settings.pool.restart_limit, self.settings.pool.restart_window_s),
            metrics=self.metrics,
            clock=self._clock,
        )
        self.agents = AgentService(
            pool=self.pool,
            store=self.storage,
            registry=self.registry,
            lives=self._lives,
            recorder=self._recorder,
            room=self.room,
            launcher=launcher,
            results=self.results,
            profiles=self.profiles,
            projects=self.projects,
            metrics=self.metrics,
            clock=self._clock,
            agents_dir=self._agents_dir,
        )

    def _starter(self, launcher: Launcher) -> Starter:
        return Starter(
            feeds=self._feeds,
            pool=self.pool,
            registry=self.registry,
            launcher=launcher,
            publish=self._publish,
            recorder=self._recorder,
            clock=self._clock,
        )

    def _build_runs(self) -> None:
        """What is made of agents' work."""
        self.runs = RunService(
            store=self.storage,
            agents=self.agents,
            context=self.context,
            profiles=self.profiles,
            projects=self.projects,
            workspaces=self._workspaces,
            publish=self._publish,
            recorder=self._recorder,
            clock=self._clock,
        )

    def _build_deliveries(self) -> None:
        """What is pushed: triggers, webhooks, and events redriven to an agent's stdin."""
        spawn = partial(self.agents.spawn, is_start_awaited=False)
        triggers = TriggerRunner(self._rules, self.storage, self.storage, spawn, self.settings.events, self._clock)
        webhooks = WebhookSender(self.bus, self._rules, self._clock)
        handlers: dict[str, Handler] = {
            "trigger": triggers.deliver,
            "webhook": webhooks.deliver,
            "stdin": self._feeds.deliver,
        }
        self.courier = Courier(self.bus, self.storage, self._rules, handlers, clock=self._clock)

    async def health(self) -> JSON:
        """See ``Reporter.health``."""
        return await self._reporter.health()

    async def status(self) -> JSON:
        """See ``Reporter.status``."""
        return await self._reporter.status()

    async def __aenter__(self) -> Supervisor:
        """Start everything in order; what was started is stopped again when a later step fails."""
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def _start(self) -> None:
        stack = self._stack
        await asyncio.to_thread(make_private_directory, self.directory)
        lock = StorageLock(self.directory)
        await asyncio.to_thread(lock.acquire)
        stack.push_async_callback(asyncio.to_thread, lock.release)
        stack.callback(self.audit.close)
        await self.storage.open()
        stack.push_async_callback(self.storage.close)
        await self.profiles.prepare()
        await self.projects.start(self._given_projects)
        watching = asyncio.create_task(self.profiles.watch(), name="profiles")
        self._watch(watching)
        stack.push_async_callback(_cancel, watching)
        await self.bus.start()
        stack.push_async_callback(self.bus.stop)
        stack.push_async_callback(self.results.stop)
        await self.results.recover()
        await self.registry.start()
        await self.context.start([project.path for project in self.projects.list()])
        stack.push_async_callback(self.context.stop)
        for project_id in self.projects.given_ids:
            self.context.warm(self.projects.get(project_id))
        await self._start_agents()
        self._reporter.register_gauges()

    async def _start_agents(self) -> None:
        stack = self._stack
        await self.pool.start()
        relay = asyncio.create_task(Relay(self.pool, self.registry, self._feeds, self.metrics).run(), name="relay")
        self._watch(relay)
        stack.push_async_callback(self._stop_agents, relay)
        stack.push_async_callback(self._feeds.stop)
        await self._recovery().run()
        await self.runs.resume()
        stack.push_async_callback(self.runs.stop)
        await self.courier.start([project.project_id for project in self.projects.list()])
        stack.push_async_callback(self.courier.stop)
        self._are_deliveries_open = True
        sweeper = Sweeper(
            self.settings,
            self.storage,
            self.results,
            self._agents_dir,
            self._workspaces,
            is_live=self.registry.live.__contains__,
            clock=self._clock,
        )
        sweeping = asyncio.create_task(sweeper.run(), name="sweeper")
        self._watch(sweeping)
        stack.push_async_callback(_cancel, sweeping)

    def _recovery(self) -> Recovery:
        return Recovery(
            store=self.storage,
            results=self.storage,
            pool=self.pool,
            registry=self.registry,
            agents=self.agents,
            profiles=self.profiles,
            projects=self.projects,
            agents_dir=self._agents_dir,
        )

    def _watch(self, task: asyncio.Task[None]) -> None:
        """Log a service task that ends by an error: the sidecar must not limp on unnoticed."""

        def report(done: asyncio.Task[None]) -> None:
            if not done.cancelled() and done.exception() is not None:
                log.critical("service_task_failed", task=done.get_name(), exc_info=done.exception())

        task.add_done_callback(report)

    async def _stop_agents(self, relay: asyncio.Task[None]) -> None:
        self._lives.close()
        await self.pool.stop(grace_s=STOP_GRACE_S)
        # The pool has said everything; what it said is made durable before storage closes.
        await asyncio.wait({relay}, timeout=5.0)
        await self.agents.stop()
        await _cancel(relay)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop everything in the opposite order, each step bounded."""
        await self._stack.aclose()

    async def _prepare_project(self, project: Project) -> None:
        await self.profiles.prepare(project.path)
        if self._are_deliveries_open:
            await self.courier.add_project(project.project_id)
            self.context.warm(project)

    def _directory_of(self, project_id: str) -> str | None:
        return self.projects.get(project_id).path if self.projects.has(project_id) else None

    async def _publish(self, project_id: str, draft: EventDraft, *, role: str | None = None) -> Event:
        return (await self.bus.publish(project_id, draft, role=role)).event

    def _hand_overs(self, project_id: str, agent_type: str, result: JSON) -> list[JSON]:
        try:
            profile = self.profiles.get(agent_type, self.projects.get(project_id).path)
        except UnknownAgentType:
            return []
        return [
            {"agent_type": next_agent.agent_type, "priority": next_agent.priority, "reason": next_agent.reason}
            for next_agent in profile.next_agents(result)
        ]


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

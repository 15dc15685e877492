"""The supervisor's services as the API sees them, in memory, with real tokens, projects, profiles and results."""

from __future__ import annotations

import asyncio
import functools
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from quart import Quart

from agentpool.base import OutputChunk
from api.app import create_app
from api.auth.authority import Authority
from api.auth.keys import KeyRing
from api.routes.waiters import Waiters
from orchestrator.agents.base import InputReceipt, Spawned
from orchestrator.agents.view import full_view, short_view
from orchestrator.audit import AuditLog
from orchestrator.clock import Clock, SystemClock
from orchestrator.config import RateLimitSettings, Settings
from orchestrator.context.models import BuiltContext, Cleared, ContextRequest
from orchestrator.errors import AgentNotRunning, NoSuchAgent, NotFound
from orchestrator.events.query import EventPage, EventQuery, compile_query
from orchestrator.events.stream import Gap
from orchestrator.events.wire import EncodedEvents
from orchestrator.metrics import Metrics
from orchestrator.models import (
    AgentPage,
    AgentQuery,
    AgentRecord,
    DeadLetter,
    Event,
    EventDraft,
    Project,
    ResultDraft,
    Run,
    SpawnRequest,
)
from orchestrator.profiles.catalogue import Profiles
from orchestrator.projects import ProjectService
from orchestrator.results import ResultService, Stored
from orchestrator.room import Room
from orchestrator.storage.sqlite import SqliteStorage
from tests.support.asgi import AsgiClient
from tests.support.roster import permission_class


class FakeClock(SystemClock):
    """A clock that only a test moves."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.seconds = now

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds


class Published:
    """What publishing gave."""

    def __init__(self, event: Event, is_duplicate: bool) -> None:
        self.event = event
        self.is_duplicate = is_duplicate
        self.subscribers: tuple[str, ...] = ()


class FakeLetters(defaultdict[str, list[DeadLetter]]):
    """Dead letters by project."""

    def __init__(self) -> None:
        super().__init__(list)

    async def get(self, project_id: str, letter_id: str) -> DeadLetter:  # type: ignore[override]
        for letter in self[project_id]:
            if letter.id == letter_id:
                return letter
        raise NotFound(f"no dead letter {letter_id!r}")

    async def redrive_matching(
        self, project_id: str, filter_text: str | None, *, may_see: Callable[[DeadLetter], bool]
    ) -> list[DeadLetter]:
        return [letter for letter in self[project_id] if may_see(letter)]

    async def purge_matching(
        self, project_id: str, filter_text: str | None, *, may_see: Callable[[DeadLetter], bool]
    ) -> int:
        return len([letter for letter in self[project_id] if may_see(letter)])


class FakeStream:
    """Retained matches, a heartbeat, then silence; one more heartbeat each time that ``beat`` is set."""

    def __init__(self, events: list[Event], waiting: asyncio.Event) -> None:
        self._items: list[Event | Gap | None] = [*events, Gap("7"), None]
        self._waiting = waiting
        self.beat = asyncio.Event()
        self.is_closed = False

    async def ready(self) -> None:
        """Begins at once."""

    def __aiter__(self) -> FakeStream:
        return self

    async def __anext__(self) -> Event | Gap | None:
        if self._items:
            return self._items.pop(0)
        self._waiting.set()
        await self.beat.wait()
        self.beat.clear()
        return None

    def ahead(self) -> Event | None:
        item = self._items[0] if self._items else None
        if isinstance(item, Event):
            self._items.pop(0)
            return item
        return None

    async def aclose(self) -> None:
        self.is_closed = True


class FakeBus:
    """A log in memory with the real query rules."""

    def __init__(self) -> None:
        self.events: dict[str, list[Event]] = {}
        self.letters = FakeLetters()
        self.redriven: list[str] = []
        self.consumer_names: set[tuple[str, str]] = set()
        self.streams: list[FakeStream] = []
        self.changed = asyncio.Event()
        self.waiting = asyncio.Event()
        self._wire = EncodedEvents()

    def may_read(self, project_id: str, topic: str, role: str | None) -> bool:
        return True

    async def publish(self, project_id: str, draft: EventDraft, **_: Any) -> Published:
        events = self.events.setdefault(project_id, [])
        for known in events:
            if known.event_id == draft.event_id:
                return Published(known, True)
        event = Event(
            event_id=draft.event_id or f"evt_{len(events) + 1}",
            event_type=draft.event_type,
            publisher=draft.publisher,
            topic=draft.topic,
            data=draft.data,
            seq=len(events) + 1,
            published_at=1_800_000_000.0,
            ttl_seconds=draft.ttl_seconds,
            correlation_id=draft.correlation_id,
            priority=draft.priority,
            references=draft.references,
            round=draft.round,
        )
        events.append(event)
        self.changed.set()
        return Published(event, False)

    async def replay(self, project_id: str, query: EventQuery) -> EventPage:
        matches = compile_query(query)
        events = self.events.get(project_id, [])
        since = query.since or "earliest"
        after = len(events) if since == "latest" else int(since) if since.isdigit() else 0
        found = [event for event in events if event.seq > after and matches(event)]
        page = found[: query.limit]
        last = page[-1].cursor if page else str(len(events))
        return EventPage(events=page, more_available=len(found) > len(page), next_cursor=last)

    async def wait(self, project_id: str, query: EventQuery, *, subscriber: str) -> EventPage:
        page = await self.replay(project_id, query)
        if page.events:
            return page
        self.waiting.set()
        self.changed.clear()
        try:
            async with asyncio.timeout(query.timeout_s):
                await self.changed.wait()
        except TimeoutError:
            return EventPage(events=[], more_available=False, next_cursor=page.next_cursor, timeout=True)
        return await self.replay(project_id, query)

    def stream(self, project_id: str, query: EventQuery, *, subscriber: str) -> FakeStream:
        matches = compile_query(query)
        since = query.since or "earliest"
        after = int(since) if since.isdigit() else 0
        events = [event for event in self.events.get(project_id, []) if event.seq > after and matches(event)]
        self.streams.append(FakeStream(events, self.waiting))
        return self.streams[-1]

    def encoded(self, event: Event) -> bytes:
        return self._wire.get(event)

    async def dead_letters(self, project_id: str, *, after: str | None = None, limit: int = 100) -> list[DeadLetter]:
        return self.letters[project_id][:limit]

    async def redrive(self, project_id: str, letter_id: str) -> None:
        await self.letters.get(project_id, letter_id)
        self.redriven.append(letter_id)

    def on_redrive(self) -> None:
        """Nobody delivers here."""

    async def consumers(self, project_id: str) -> list[Any]:
        return []

    async def remove_consumer(self, project_id: str, name: str, event_type: str | None, agent_id: str | None) -> int:
        if (project_id, name) not in self.consumer_names:
            raise NotFound(f"no durable consumer {name!r} in this project")
        self.consumer_names.remove((project_id, name))
        return 1

    async def purge(self, project_id: str, letter_id: str) -> None:
        await self.redrive(project_id, letter_id)


class FakeContext:
    """Contexts that say who asked."""

    def __init__(self, profiles: Profiles) -> None:
        self.requests: list[tuple[Project, ContextRequest]] = []
        self.cached: set[tuple[str, str]] = set()
        self._profiles = profiles

    async def build(self, project: Project, request: ContextRequest) -> BuiltContext:
        self._profiles.get(request.agent_type)
        self.requests.append((project, request))
        self.cached.add((project.project_id, request.issue_id))
        return BuiltContext(
            body=b'{"issue_id":"i","cache_hit":true}', etag='"abc"', cache_hit=True, is_partial=request.partial
        )

    async def explain(self, project: Project, request: ContextRequest) -> dict[str, Any]:
        self._profiles.get(request.agent_type)
        self.requests.append((project, request))
        return {"files": [], "omitted": [], "max_bytes": 1, "truncated": False}

    def results_changed(self, project_id: str) -> None:
        self.cached = {entry for entry in self.cached if entry[0] != project_id}

    async def search(self, project: Project, query: str, limit: int) -> list[Any]:
        return []

    async def clear(self, project_id: str, issue_id: str) -> Cleared:
        if (project_id, issue_id) not in self.cached:
            return Cleared(entries_removed=0, bytes_freed=0)
        self.cached.discard((project_id, issue_id))
        return Cleared(entries_removed=1, bytes_freed=33)


class FakeRegistry:
    """No live agents unless a test adds one."""

    def __init__(self) -> None:
        self.live: dict[str, Any] = {}


class FakeAgents:
    """Agents as records only."""

    def __init__(self) -> None:
        self.results: ResultService | None = None
        self.records: dict[str, AgentRecord] = {}
        self.spawned: list[SpawnRequest] = []
        self.failure: Exception | None = None
        self.output_bytes = b""
        self.truncated_at: int | None = None
        self.terminated: list[tuple[str, bool, float]] = []

    async def spawn(self, request: SpawnRequest) -> Spawned:
        if self.failure is not None:
            raise self.failure
        self.spawned.append(request)
        record = agent_record(f"agt-{len(self.spawned)}", request.project_id, request=request)
        self.records[record.agent_id] = record
        return Spawned(record=record, token="a.b.c", context_injected=True, queued=False)

    async def get(self, project_id: str, agent_id: str) -> AgentRecord:
        record = await self.find(project_id, agent_id)
        if record is None:
            raise NoSuchAgent(f"no agent {agent_id!r}")
        return record

    async def find(self, project_id: str, agent_id: str) -> AgentRecord | None:
        record = self.records.get(agent_id)
        return record if record is not None and record.project_id == project_id else None

    async def store_result(self, project_id: str, draft: ResultDraft, *, result_id: str | None = None) -> Stored:
        assert self.results is not None
        return await self.results.store(project_id, draft, result_id=result_id)

    async def query(self, project_id: str, query: AgentQuery) -> AgentPage:
        found = [record for record in self.records.values() if record.project_id == project_id]
        return AgentPage(agents=found, next_cursor=None)

    def full_view(self, record: AgentRecord) -> dict[str, Any]:
        return full_view(record)

    def short_view(self, record: AgentRecord) -> dict[str, Any]:
        return short_view(record)

    async def terminate(self, record: AgentRecord, *, force: bool, timeout_s: float) -> AgentRecord:
        self.terminated.append((record.agent_id, force, timeout_s))
        return record

    def send(self, record: AgentRecord, text: str, data: dict[str, Any] | None) -> InputReceipt:
        if record.status != "running":
            raise AgentNotRunning("it has ended")
        return InputReceipt(message_id="msg_1", state="queued")

    async def output(self, record: AgentRecord, stream: str, offset: int, limit_bytes: int) -> OutputChunk:
        data = self.output_bytes[offset : offset + limit_bytes]
        return OutputChunk(data=data, offset=offset, next_offset=offset + len(data), truncated_at=self.truncated_at)

    async def follow(self, record: AgentRecord, stream: str, offset: int) -> AsyncIterator[OutputChunk]:
        while offset < len(self.output_bytes):
            chunk = await self.output(record, stream, offset, 4)
            offset = chunk.next_offset
            yield chunk


class FakeRuns:
    """Runs in memory."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}

    async def create(self, project_id: str, **fields: Any) -> Run:
        run = Run(
            run_id=f"run-{len(self.runs) + 1}",
            project_id=project_id,
            issue_id=fields["issue_id"],
            task=fields["task"],
            workflow=fields["workflow"],
            status="running",
            steps=[],
            created_at=1.0,
            updated_at=1.0,
            created_by=fields.get("created_by", ""),
        )
        self.runs[run.run_id] = run
        return run

    async def get(self, project_id: str, run_id: str) -> Run:
        run = self.runs.get(run_id)
        if run is None or run.project_id != project_id:
            raise NotFound(f"no run {run_id!r}")
        return run

    async def list(self, project_id: str, *, limit: int) -> list[Run]:
        return [run for run in self.runs.values() if run.project_id == project_id]

    async def cancel(self, project_id: str, run_id: str) -> Run:
        return await self.get(project_id, run_id)


class FakeServices:
    """All of them; ``health_answer`` is what ``GET /health`` measures."""

    def __init__(self, directory: Path, settings: Settings) -> None:
        self.settings = settings
        self.room = Room(directory, settings.pool.disk_reserve_bytes)
        self.storage = SqliteStorage(directory)
        self.metrics = Metrics()
        self.audit = AuditLog(directory / "audit.log")
        self.projects = ProjectService(self.storage)
        self.profiles = _shipped_profiles()
        self.bus = FakeBus()
        self.context = FakeContext(self.profiles)
        self.registry = FakeRegistry()
        self.agents = FakeAgents()
        self.runs = FakeRuns()
        self.results = ResultService(
            self.storage, directory / "results", publish=self._publish, hand_overs=lambda *_: []
        )
        self.agents.results = self.results
        self.health_answer: dict[str, Any] = {"status": "healthy", "service": "orchestration-sidecar", "checks": {}}

    async def _publish(self, project_id: str, draft: EventDraft) -> Event:
        return (await self.bus.publish(project_id, draft)).event

    async def health(self) -> dict[str, Any]:
        return dict(self.health_answer)

    async def status(self) -> dict[str, Any]:
        return {"agents": {}, "storage": {}, "events": {}, "performance": {}}


def agent_record(
    agent_id: str,
    project_id: str,
    *,
    status: str = "running",
    request: SpawnRequest | None = None,
    attempt: int = 1,
) -> AgentRecord:
    """A record of an agent."""
    request = request or SpawnRequest(agent_type="python-specialist", issue_id="i-1", task="t", project_id=project_id)
    return AgentRecord(
        agent_id=agent_id,
        agent_type=request.agent_type,
        issue_id=request.issue_id,
        project_id=project_id,
        status=status,
        request=request,
        created_at=1.0,
        updated_at=1.0,
        attempt=attempt,
        process_id=4242,
    )


class ApiWorld:
    """An application over fakes, with two projects ``one`` (default) and ``two``."""

    def __init__(
        self, app: Quart, services: FakeServices, authority: Authority, waiters: Waiters, keys: KeyRing
    ) -> None:
        self.app = app
        self.services = services
        self.authority = authority
        self.waiters = waiters
        self.keys = keys

    def token(
        self, agent_type: str | None = None, *, project_id: str = "one", agent_id: str = "me", ttl_s: float = 3600.0
    ) -> str:
        """A token of a role, or an operator's."""
        from orchestrator.profiles.permissions import PERMISSIONS, permissions_of

        permissions = PERMISSIONS if agent_type is None else permissions_of(permission_class(agent_type))
        return self.authority.mint(agent_id, agent_type or "operator", project_id, permissions, ttl_s)

    def client(self, agent_type: str | None = None, *, project_id: str = "one", agent_id: str = "me") -> AsgiClient:
        """Calls as a role, or as an operator."""
        return AsgiClient(self.app, self.token(agent_type, project_id=project_id, agent_id=agent_id))

    def anonymous(self) -> AsgiClient:
        """Calls without a token."""
        return AsgiClient(self.app)


@functools.cache
def _key_files() -> dict[str, bytes]:
    """One ring for all tests of a process: making an RSA key takes longer than most of them."""
    with tempfile.TemporaryDirectory() as directory:
        KeyRing.open(Path(directory) / "keys")
        return {path.name: path.read_bytes() for path in (Path(directory) / "keys").iterdir()}


def _open_keys(directory: Path, clock: Clock | None) -> KeyRing:
    directory.mkdir(mode=0o700)
    for name, content in _key_files().items():
        (directory / name).write_bytes(content)
    return KeyRing.open(directory, clock=clock)


@functools.cache
def _shipped_profiles() -> Profiles:
    """Read once a process; nothing in them belongs to a test."""
    return Profiles(check_interval_s=3600.0)


@asynccontextmanager
async def api_world(
    tmp_path: Path, *, settings: Settings | None = None, clock: Clock | None = None
) -> AsyncIterator[ApiWorld]:
    """Rate limits are off unless ``settings`` say otherwise."""
    settings = settings or Settings(rate_limits=RateLimitSettings(enabled=False))
    directory = tmp_path / "world"
    directory.mkdir()
    keys = await asyncio.to_thread(_open_keys, directory / "keys", clock)
    authority = Authority(keys, settings.auth, clock=clock)
    services = FakeServices(directory, settings)
    await services.storage.open()
    try:
        await asyncio.to_thread(services.profiles.refresh, None)
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            await services.projects.add(name, str(tmp_path / name))
            await services.profiles.prepare(str(tmp_path / name))
        await authority.start(services.storage)
        waiters = Waiters()
        # In a thread: the framework looks at the disk when it is made.
        app = await asyncio.to_thread(
            create_app,
            services,  # type: ignore[arg-type]
            authority,
            version="1.2.3",
            waiters=waiters,
            clock=clock,
        )
        yield ApiWorld(app, services, authority, waiters, keys)
    finally:
        for project in services.projects.list():
            services.profiles.forget(project.path)
        services.audit.close()
        await services.storage.close()

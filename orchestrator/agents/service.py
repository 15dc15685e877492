"""Agents: spawn, show, talk to, read, end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog

from agentpool.base import OutputChunk, Pool
from agentpool.errors import PoolClosed, PoolDraining, PoolFull, SlotLost, UnknownAgent
from agentpool.messages import AgentExited
from agentpool.states import AgentState, is_final
from orchestrator.agents.base import Admission, InputReceipt, Spawned
from orchestrator.agents.durability import Recorder
from orchestrator.agents.ends import supervisor_event
from orchestrator.agents.launch import Launcher
from orchestrator.agents.lives import AgentLives
from orchestrator.agents.registry import AgentRegistry, LiveAgent
from orchestrator.agents.requests import check_request
from orchestrator.agents.stopping import Stopper
from orchestrator.agents.view import full_view, short_view
from orchestrator.clock import Clock
from orchestrator.errors import (
    AgentNotRunning,
    InvalidToken,
    NoSuchAgent,
    PoolSaturated,
    SidecarError,
    SpawnFailed,
    StorageWriteFailed,
)
from orchestrator.identifiers import check_identifier, new_id
from orchestrator.metrics import Metrics
from orchestrator.models import JSON, AgentPage, AgentQuery, AgentRecord, ResultDraft, SpawnRequest
from orchestrator.profiles.catalogue import Profiles
from orchestrator.profiles.model import Profile
from orchestrator.projects import ProjectService
from orchestrator.results import ResultService, Stored
from orchestrator.room import Room
from orchestrator.storage.base import AgentStore

#: Largest answer of one read of output (contract section 4).
MAX_OUTPUT_READ = 1 << 20
#: Seconds after which a follower looks again though nothing woke it.
FOLLOW_POLL_S = 1.0
#: Seconds that the last facts have to become durable when the sidecar stops.
STOP_WAIT_S = 5.0
T = TypeVar("T")
log = structlog.get_logger(__name__)


class AgentService:
    """All that callers may do with agents."""

    def __init__(
        self,
        *,
        pool: Pool,
        store: AgentStore,
        registry: AgentRegistry,
        lives: AgentLives,
        recorder: Recorder,
        room: Room,
        launcher: Launcher,
        results: ResultService,
        profiles: Profiles,
        projects: ProjectService,
        metrics: Metrics,
        clock: Clock,
        agents_dir: Path,
    ) -> None:
        self._pool = pool
        self._store = store
        self._registry = registry
        self._lives = lives
        self._recorder = recorder
        self._room = room
        self._stopper = Stopper(registry, lives, recorder, clock)
        self._launcher = launcher
        self._results = results
        self._profiles = profiles
        self._projects = projects
        self._metrics = metrics
        self._clock = clock
        self._agents_dir = agents_dir
        self._tasks: set[asyncio.Task[Any]] = set()

    async def spawn(
        self, request: SpawnRequest, *, agent_id: str | None = None, is_start_awaited: bool = True
    ) -> Spawned:
        """Accept an agent; with a slot free it returns when the process runs, else when it is queued.

        A start that fails is told to the caller who waits for it, once. One that nobody waits for (the answer then is
        ``queued``) is told by the agent's end, and is tried again by its restart policy where that may help.

        Raises BadRequest, NotFound (project), UnknownAgentType, PoolSaturated, SpawnFailed (nothing is left), and
        StorageWriteFailed: nothing is left, or what had begun is ended and that is recorded when storage lets us.
        """
        self._room.check_work()
        profile = await self.check(request)
        if request.command is not None:
            request = msgspec.structs.replace(
                request, runtime=request.runtime or "jsonl", restart=request.restart or "never"
            )
        now = self._clock.now()
        record = AgentRecord(
            agent_id=agent_id or new_id("agt"),
            agent_type=request.agent_type,
            issue_id=request.issue_id,
            project_id=request.project_id,
            status=AgentState.QUEUED.value,
            request=request,
            created_at=now,
            updated_at=now,
        )
        live = LiveAgent(record, profile)
        self._enqueue(live)
        # A task: a client that goes away must leave neither a half-started agent nor one that nobody starts.
        accepting = self._keep(self._accept(live, is_start_awaited), live.record)
        try:
            return await self._recorder.patiently(accepting, live)
        except StorageWriteFailed as refused:
            if not accepting.done():
                self._abandon(live, refused)
            raise

    def _abandon(self, live: LiveAgent, refused: StorageWriteFailed) -> None:
        """End an agent whose caller is told that it was not started, so that it will try again."""
        log.warning("spawn_not_recorded", agent_id=live.record.agent_id, reason=refused.message)
        refused.details["agent_id"] = live.record.agent_id
        live.ask_to_stop("killed", 0.0)
        self._keep(self._stopper.stop(live), live.record)

    async def _accept(self, live: LiveAgent, is_start_awaited: bool) -> Spawned:
        """Make an agent durable and known, then start it; when storage refuses, nothing of it is left."""
        adding = asyncio.create_task(self._registry.add(live))
        # Both go into the log together; the event waits for storage, so it must not outlive a refusal.
        telling = asyncio.create_task(
            self._lives.announce(supervisor_event("agent_spawned", live.record, key="spawned"), live)
        )
        try:
            await adding
        except BaseException:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
            assert live.ticket is not None
            live.ticket.release()
            raise
        await telling
        self._metrics.agents_spawned.inc()
        live.token = self._launcher.mint(live)
        assert live.ticket is not None
        if not is_start_awaited or live.ticket.position > 0 or live.stopping.is_set():
            return self._leave_queued(live)
        return await self._start(live)

    async def check(self, request: SpawnRequest) -> Profile:
        """The role of a request that could be spawned now; raises what ``spawn`` would for its form."""
        project = self._projects.get(request.project_id)
        profile = self._profiles.get(request.agent_type, project.path)
        check_request(request, profile)
        await asyncio.to_thread(self._launcher.check, project, request, profile)
        return profile

    def _enqueue(self, live: LiveAgent) -> None:
        request = live.record.request
        try:
            live.ticket = self._pool.enqueue(
                live.record.agent_id, share_key=request.project_id, priority=request.priority
            )
        except PoolDraining as draining:
            raise PoolSaturated(
                str(draining),
                slug="pool_draining",
                retry_after_s=draining.retry_after_s,
                details={"queued": draining.queued},
            ) from draining
        except PoolFull as full:
            raise PoolSaturated(
                f"{full}; the request would have been number {full.position} in the queue",
                retry_after_s=full.retry_after_s,
                details={"position": full.position, "queued": full.queued},
            ) from full
        except PoolClosed as closed:
            raise SpawnFailed("the sidecar is stopping; spawn again when it is back", slug="stopping") from closed

    async def _start(self, live: LiveAgent) -> Spawned:
        try:
            await self._lives.begin(live)
        except SlotLost:
            return self._leave_queued(live)
        except PoolClosed as closed:
            stopping = SpawnFailed("the sidecar is stopping; spawn again when it is back", slug="stopping")
            await self._lives.fail_start(live, stopping)
            raise stopping from closed
        except SidecarError as failure:
            # Not tried again: the caller is told, and may do so itself.
            await self._lives.fail_start(live, failure)
            raise
        self._keep(self._lives.live_through(live), live.record)
        if is_final(AgentState(live.record.status)) and live.record.process_id is None:
            raise SpawnFailed(
                live.record.error or "it could not be started", details={"agent_id": live.record.agent_id}
            )
        return Spawned(record=live.record, token=live.token, context_injected=True, queued=False)

    def _leave_queued(self, live: LiveAgent) -> Spawned:
        self._keep(self._lives.live_from_queue(live), live.record)
        return Spawned(record=live.record, token=live.token, context_injected=False, queued=True)

    def _keep(self, work: Coroutine[Any, Any, T], record: AgentRecord) -> asyncio.Task[T]:
        task = asyncio.create_task(work, name=f"agent {record.agent_id}")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not isinstance(error, SidecarError):
            log.error("agent_task_failed", task=task.get_name(), exc_info=error)

    def resume_queued(self, live: LiveAgent) -> None:
        """Take up an agent that an earlier sidecar had accepted; it waits even where the queue has become shorter."""
        self._registry.live[live.record.agent_id] = live
        self._keep(self._lives.live_from_queue(live), live.record)

    def conclude_lost(self, live: LiveAgent, exited: AgentExited) -> None:
        """Tell the end of an agent whose sidecar died; its restart policy then decides as for any other end."""
        live.facts.put_nowait(exited)
        self._keep(self._lives.live_through(live), live.record)

    def tell_end(self, record: AgentRecord) -> None:
        """Publish the end of an agent whose sidecar died before it could; a full disk must not hold up the start."""
        self._keep(self._lives.tell_end(record), record)

    async def get(self, project_id: str, agent_id: str) -> AgentRecord:
        """The newest record. Raises NoSuchAgent."""
        record = await self._registry.find(project_id, check_identifier(agent_id, "agent_id"))
        if record is None:
            raise NoSuchAgent(f"no agent {agent_id!r} in project {project_id!r}")
        return record

    async def find(self, project_id: str, agent_id: str) -> AgentRecord | None:
        """The newest record, or None."""
        return await self._registry.find(project_id, agent_id)

    def full_view(self, record: AgentRecord) -> JSON:
        """The record as the API shows it."""
        return full_view(record, self._registry.live.get(record.agent_id))

    def short_view(self, record: AgentRecord) -> JSON:
        """The record in short."""
        return short_view(record, self._registry.live.get(record.agent_id))

    async def query(self, project_id: str, query: AgentQuery) -> AgentPage:
        """One page, newest first, with what is in memory laid over what is stored."""
        page = await self._store.query_agents(project_id, query)
        live = self._registry.live
        agents = [live[record.agent_id].record if record.agent_id in live else record for record in page.agents]
        return AgentPage(agents=agents, next_cursor=page.next_cursor)

    async def terminate(self, record: AgentRecord, *, force: bool = False, timeout_s: float = 5.0) -> AgentRecord:
        """End an agent and return when nothing of it is left; one that has ended is returned as it is.

        ``timeout_s`` is the grace between TERM and KILL; ``force`` gives none. Raises StorageWriteFailed when that
        cannot be recorded now; it will be, and until then the agent is shown as one that stops.
        """
        live = self._registry.live.get(record.agent_id)
        if live is None:
            return await self.get(record.project_id, record.agent_id)
        live.ask_to_stop("killed", 0.0 if force else timeout_s)
        # A task: the wish is noted, so it is carried out though the one who had it goes away.
        ending = self._keep(self._stopper.end(live), live.record)
        await self._stopper.wait(live, ending)
        return live.record

    async def wait_ended(self, project_id: str, agent_id: str) -> AgentRecord:
        """Wait for an agent's final status."""
        live = self._registry.live.get(agent_id)
        if live is not None:
            await live.ended.wait()
            return live.record
        return await self.get(project_id, agent_id)

    def send(self, record: AgentRecord, text: str, data: JSON | None) -> InputReceipt:
        """Queue a message for a running agent's stdin. Raises AgentNotRunning."""
        live = self._registry.live.get(record.agent_id)
        message_id = new_id("msg")
        body: JSON = {"type": "message", "message_id": message_id, "text": text}
        if data is not None:
            body["data"] = data
        try:
            if live is None:
                raise UnknownAgent(record.agent_id)
            self._pool.send(record.agent_id, message_id, msgspec.json.encode(body))
        except UnknownAgent as error:
            raise AgentNotRunning(
                f"agent {record.agent_id} is {record.status} and reads no messages; spawn a new one"
            ) from error
        receipt = InputReceipt(message_id=message_id, state="queued")
        live.remember_input(receipt)  # in the same turn of the loop, so before anything is told of it
        return receipt

    async def store_result(self, project_id: str, draft: ResultDraft, *, result_id: str | None = None) -> Stored:
        """Store a result that came by the API; a spawned agent's becomes its attempt's newest.

        ``draft.attempt`` is the attempt that the caller's token speaks for, if any. Raises as ``store``, and
        InvalidToken when that attempt has been overtaken by the next one.
        """
        live = self._registry.live.get(draft.agent_id)
        if live is None or live.record.project_id != project_id:
            record = await self._store.get_agent(project_id, draft.agent_id)
            attempt = record.attempt if record is not None else None
            return await self._results.store(
                project_id, msgspec.structs.replace(draft, attempt=attempt), result_id=result_id
            )
        attempt = live.record.attempt
        if draft.attempt not in (None, live.record.open_attempt):
            # Its token was good when the request came; the attempt has been overtaken since.
            raise InvalidToken("the token's attempt has ended; the agent was started again since")
        stored = await self._results.store(
            project_id, msgspec.structs.replace(draft, attempt=attempt), result_id=result_id
        )
        if live.record.attempt == attempt:
            live.result_id, live.result_status = stored.result.id, stored.result.status
        return stored

    async def output(self, record: AgentRecord, stream: str, offset: int, limit_bytes: int) -> OutputChunk:
        """Raw bytes of a stream from ``offset``, at most ``limit_bytes`` (and MAX_OUTPUT_READ)."""
        directory = str(self._agents_dir / record.agent_id)
        return await self._pool.read_output(directory, stream, offset, min(limit_bytes, MAX_OUTPUT_READ))

    async def follow(self, record: AgentRecord, stream: str, offset: int) -> AsyncIterator[OutputChunk]:
        """Each byte once from ``offset`` on, as it comes, until the agent has ended."""
        while True:
            live = self._registry.live.get(record.agent_id)
            grew = live.output_grew if live is not None else None
            chunk = await self.output(record, stream, offset, MAX_OUTPUT_READ)
            if chunk.data:
                offset = chunk.next_offset
                yield chunk
                continue
            if grew is None:
                return
            try:
                async with asyncio.timeout(FOLLOW_POLL_S):
                    await grew.wait()
            except TimeoutError:
                continue

    @property
    def admission(self) -> Admission:
        """The pool's door: its state, and the ways to close and open it."""
        return self._pool

    async def stop(self) -> None:
        """Wait for what the last facts set off, then end the rest (queued agents stay queued in storage)."""
        try:
            async with asyncio.timeout(STOP_WAIT_S):
                while self._tasks:  # one that ends may have begun another
                    await asyncio.wait(self._tasks)
        except TimeoutError:
            late = list(self._tasks)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

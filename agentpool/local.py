"""The pool of this machine: workers that are processes of their own (see ``worker``)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

import psutil
import structlog

from agentpool import settling
from agentpool.admission import Admission, SlotTicket
from agentpool.base import Leftover, OutputChunk, PoolStats, Settled
from agentpool.config import PoolConfig
from agentpool.crew import Crew
from agentpool.disk import DiskRoom
from agentpool.errors import LaunchFailed, PoolClosed, PoolError, SlotLost, UnknownAgent
from agentpool.feed import FactFeed
from agentpool.handle import Kept, WorkerHandle
from agentpool.messages import (
    AgentExited,
    AgentLaunchFailed,
    AgentStarted,
    CloseInput,
    Fact,
    Feed,
    FeedLine,
    Input,
    Kill,
    Spawn,
    VerifierStarted,
)
from agentpool.platforms import ProcessFlags, raise_descriptor_limit
from agentpool.scheduling import Capacity, capacity_of, limited_by_disk, pick_worker
from agentpool.specs import LaunchSpec
from agentpool.streams import STREAMS, find_truncation, read_stream

log = structlog.get_logger(__name__)

#: How long a measurement of free memory is good for.
MEASURE_INTERVAL_S = 0.5


class LocalPool:
    """See ``agentpool.base.Pool``; ``PoolConfig`` sizes it, and ``room``, which it measures twice a second."""

    def __init__(self, config: PoolConfig | None = None, *, room: DiskRoom | None = None) -> None:
        self._room = room
        self._config = config or PoolConfig()
        self._admission = Admission(self._config, self._measure, time.monotonic)
        self._crew = Crew(self._config, self._on_fact, self._on_abandoned, self._admission.grant)
        self._feed = FactFeed(self._config.fact_buffer_bytes, self._crew.hold)
        self._launches: dict[str, asyncio.Future[AgentStarted]] = {}
        self._keepers: dict[str, WorkerHandle] = {}
        self._descriptor_limit = 0
        self._capacity = Capacity(agents=1, limited_by="configuration")
        self._measured_at = float("-inf")
        self._measured_workers = 0
        self._ticker: asyncio.Task[None] | None = None
        self._is_started = False
        self._is_stopped = False

    async def start(self) -> None:
        """Start the workers. Raises PoolError when one does not come up."""
        self._descriptor_limit = raise_descriptor_limit()
        if ProcessFlags().become_subreaper():
            log.debug("pool.subreaper")
        if self._room is not None:
            await asyncio.to_thread(self._room.measure)
        await self._crew.start()
        self._is_started = True
        self._ticker = asyncio.get_running_loop().create_task(self._tick())

    async def stop(self, *, grace_s: float = 5.0) -> None:
        """End all agents and workers, then ``facts()``; harmless when done before."""
        if self._is_stopped:
            return
        self._is_stopped = True
        self._admission.close()
        self._crew.hold(False)
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)
        await self._crew.stop(grace_s)
        for agent_id in list(self._launches):
            self._fail_launch(agent_id, PoolClosed("the pool has stopped"))
        # From here on nobody buries orphans: they must not come to this process any more.
        ProcessFlags().resign_subreaper()
        self._feed.close()

    def enqueue(self, agent_id: str, *, share_key: str, priority: str = "normal") -> SlotTicket:
        """Ask for a slot. Raises PoolFull, PoolClosed."""
        return self._admission.enqueue(agent_id, share_key, priority)

    async def launch(self, spec: LaunchSpec) -> AgentStarted:
        """Start the attempt in its granted slot. Raises LaunchFailed, SlotLost, PoolClosed.

        When the caller is cancelled meanwhile, the agent is ended; its facts still come.
        """
        agent_id = spec.agent_id
        if self._is_stopped or not self._is_started:
            raise PoolClosed("the pool is not running")
        if not self._admission.has_slot(agent_id) or agent_id in self._keepers:
            raise PoolError(f"agent {agent_id} has no slot to start in")
        loads = {index: len(handle.agents) for index, handle in self._crew.handles.items() if not handle.is_stopping}
        index = pick_worker(loads)
        if index is None:
            self._admission.free(agent_id)
            raise SlotLost("no pool worker is alive at the moment")
        handle = self._crew.handles[index]
        future: asyncio.Future[AgentStarted] = asyncio.get_running_loop().create_future()
        self._launches[agent_id] = future
        self._keepers[agent_id] = handle
        handle.agents[agent_id] = Kept(spec)
        try:
            handle.send(Spawn(spec=spec))
        except PoolError as error:  # an environment larger than a frame
            self._forget(handle, agent_id)
            self._launches.pop(agent_id, None)
            raise LaunchFailed("limits", str(error), command=_command(spec), is_permanent=True) from error
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if not future.done() or future.exception() is None:
                handle.send(Kill(agent_id=agent_id, grace_s=0.0, reason="launch_cancelled"))
            raise

    async def kill(self, agent_id: str, *, grace_s: float | None = None, reason: str = "killed") -> None:
        """Begin to end an agent. Raises UnknownAgent."""
        handle = self._keeper(agent_id)
        grace = handle.agents[agent_id].spec.grace_s if grace_s is None else grace_s
        handle.send(Kill(agent_id=agent_id, grace_s=max(0.0, grace), reason=reason))

    def send(self, agent_id: str, message_id: str, line: bytes) -> None:
        """Queue one line (without newline) for an agent's stdin. Raises UnknownAgent, PoolError (a newline in it)."""
        if b"\n" in line:
            raise PoolError("an input line must not hold a newline")
        self._keeper(agent_id).send(Input(agent_id=agent_id, message_id=message_id, line=line))

    def feed(self, agent_ids: Sequence[str], lines: Sequence[FeedLine], *, is_retry: bool = False) -> None:
        """Queue lines for the stdin of several agents. Raises PoolError (a newline in one)."""
        if any(b"\n" in item.line for item in lines):
            raise PoolError("an input line must not hold a newline")
        kept: dict[WorkerHandle, list[str]] = {}
        for agent_id in agent_ids:
            handle = self._keepers.get(agent_id)
            if handle is not None and agent_id in handle.agents:
                kept.setdefault(handle, []).append(agent_id)
        for handle, mine in kept.items():
            handle.send(Feed(agent_ids=tuple(mine), lines=tuple(lines), is_retry=is_retry))

    def close_input(self, agent_id: str) -> None:
        """Close an agent's stdin after what is queued. Raises UnknownAgent."""
        self._keeper(agent_id).send(CloseInput(agent_id=agent_id))

    def facts(self) -> AsyncIterator[Fact]:
        """All facts in order; one consumer only."""
        return self._feed.facts()

    async def read_output(self, record_dir: str, stream: str, offset: int, limit_bytes: int) -> OutputChunk:
        """Raw output from ``offset``; empty at the end. Raises PoolError for another stream than the two."""
        if stream not in STREAMS or offset < 0 or limit_bytes < 1:
            raise PoolError("stream is stdout or stderr, offset is not negative, limit_bytes is positive")
        return await asyncio.to_thread(read_log, record_dir, stream, offset, limit_bytes)

    def stats(self) -> PoolStats:
        """Counts of the moment."""
        capacity = self._admission.capacity()
        return PoolStats(
            running=self._admission.running,
            queued=self._admission.queued,
            capacity=capacity.agents,
            queue_capacity=self._config.queue_size,
            limited_by=capacity.limited_by,
            workers=len(self._crew.handles),
            workers_lost=self._crew.lost,
            workers_held_back=self._crew.held_back,
            is_paused=self._admission.is_paused,
            is_draining=self._admission.is_draining,
        )

    def features(self) -> tuple[str, ...]:
        """What the system allows: ``cgroup``, ``subreaper``, ``memory``, ``pids``."""
        return self._crew.features()

    def worker_pids(self) -> tuple[int, ...]:
        """The workers' processes, by worker number."""
        return tuple(self._crew.handles[index].pid for index in sorted(self._crew.handles))

    def pause(self) -> None:
        """Grant no more slots."""
        self._admission.pause()

    def drain(self) -> None:
        """Grant no more slots and take no more tickets."""
        self._admission.drain()

    def resume(self) -> None:
        """Grant slots again."""
        self._admission.resume()

    async def settle(self, leftovers: list[Leftover]) -> list[Settled]:
        """End what an earlier supervisor left; bounded by a few seconds."""
        return await asyncio.to_thread(settling.settle, leftovers) if leftovers else []

    # -- facts ------------------------------------------------------------------------------------------

    def _on_fact(self, handle: WorkerHandle, fact: Fact) -> None:
        if isinstance(fact, AgentStarted):
            kept = handle.agents.get(fact.agent_id)
            if kept is not None:
                kept.started = fact
            future = self._launches.pop(fact.agent_id, None)
            self._feed.put(fact)
            if future is not None and not future.done():
                future.set_result(fact)
            return
        if isinstance(fact, AgentLaunchFailed):
            self._forget(handle, fact.agent_id)
            error = LaunchFailed(fact.reason, fact.message, command=fact.command, is_permanent=fact.is_permanent)
            self._fail_launch(fact.agent_id, error)
            return
        if isinstance(fact, AgentExited):
            self._forget(handle, fact.agent_id)
        elif isinstance(fact, VerifierStarted) and (kept := handle.agents.get(fact.agent_id)) is not None:
            kept.verifying = fact
        self._feed.put(fact)

    def _on_abandoned(self, agent_id: str) -> None:
        handle = self._keepers.pop(agent_id, None)
        command = ""
        if handle is not None:
            handle.agents.pop(agent_id, None)
        self._admission.free(agent_id)
        text = "the pool worker died while it started the agent; nothing of it is left"
        self._fail_launch(agent_id, LaunchFailed("worker_lost", text, command=command, is_permanent=False))

    def _forget(self, handle: WorkerHandle, agent_id: str) -> None:
        handle.agents.pop(agent_id, None)
        self._keepers.pop(agent_id, None)
        self._admission.free(agent_id)

    def _fail_launch(self, agent_id: str, error: PoolError) -> None:
        future = self._launches.pop(agent_id, None)
        if future is not None and not future.done():
            future.set_exception(error)
            future.exception()  # a cancelled caller must not cause a warning

    def _keeper(self, agent_id: str) -> WorkerHandle:
        handle = self._keepers.get(agent_id)
        if handle is None or agent_id not in handle.agents:
            raise UnknownAgent(agent_id)
        return handle

    # -- capacity ---------------------------------------------------------------------------------------

    def _measure(self, running: int) -> Capacity:
        now, workers = time.monotonic(), len(self._crew.handles)
        if now - self._measured_at > MEASURE_INTERVAL_S or workers != self._measured_workers:
            self._measured_at, self._measured_workers = now, workers
            # Agents granted after this have not taken their memory yet: until the next measurement it holds as it is.
            self._capacity = capacity_of(
                configured=self._config.max_running,
                descriptor_limit=self._descriptor_limit,
                workers=workers,
                available_bytes=psutil.virtual_memory().available,
                reserve_bytes=self._config.memory_reserve_bytes,
                agent_bytes=self._config.agent_memory_bytes,
                running=running,
            )
            self._capacity = self._with_room(running)
        # An end gives memory back, but no disk.
        return self._with_room(running)

    def _with_room(self, running: int) -> Capacity:
        return limited_by_disk(self._capacity, running, self._room.headroom_bytes) if self._room else self._capacity

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(MEASURE_INTERVAL_S)
            if self._room is not None:
                await asyncio.to_thread(self._room.measure)
            self._admission.grant()  # memory or disk may have come back without any agent ending


def read_log(record_dir: str, stream: str, offset: int, limit_bytes: int) -> OutputChunk:
    """Read a stream's logs from ``offset``; missing ones are empty."""
    data = read_stream(record_dir, stream, offset, limit_bytes)
    try:
        truncation = find_truncation(record_dir, stream)
    except OSError:
        truncation = None
    truncated_at = truncation.at if truncation is not None else None
    return OutputChunk(data=data, offset=offset, next_offset=offset + len(data), truncated_at=truncated_at)


def _command(spec: LaunchSpec) -> str:
    return spec.argv[0] if spec.argv else ""

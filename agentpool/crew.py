"""The workers of a pool: started, pinged, replaced when they die, and not replaced in a crash loop."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Coroutine

import msgspec
import structlog

from agentpool import cgroups, settling
from agentpool.attempt import leaf_name
from agentpool.config import PoolConfig, WorkerConfig
from agentpool.errors import PoolError
from agentpool.handle import Kept, WorkerHandle
from agentpool.lost import lost_exit
from agentpool.messages import AgentExited, Fact, Shutdown, WorkerLost
from agentpool.platforms import worker_count
from agentpool.verifying import both_usages
from agentpool.warden import Warden

log = structlog.get_logger(__name__)

#: What a stopping worker gets beside the agents' grace: sweep, drain, report.
STOP_MARGIN_S = 6.0


class Crew:
    """Keeps ``worker_count(config.workers)`` workers alive.

    Args:
        config: see PoolConfig.
        on_fact: called with (handle, fact) for every fact of a worker, and for what follows from its loss.
        on_abandoned: called with each agent of a lost worker whose launch was never answered.
        on_spare: called when a worker has come (back).
    """

    def __init__(
        self,
        config: PoolConfig,
        on_fact: Callable[[WorkerHandle, Fact], None],
        on_abandoned: Callable[[str], None],
        on_spare: Callable[[], None],
    ) -> None:
        self._config = config
        self._on_fact = on_fact
        self._on_abandoned = on_abandoned
        self._on_spare = on_spare
        self._losses: deque[float] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._burials: dict[WorkerHandle, asyncio.Task[None]] = {}
        self._cgroup_dir: str | None = None
        self._controllers: tuple[str, ...] = ()
        self._warden: Warden | None = None
        self._is_stopping = False
        self.handles: dict[int, WorkerHandle] = {}
        self.lost = 0
        self.held_back = 0

    @property
    def size(self) -> int:
        """How many workers there should be."""
        return worker_count(self._config.workers)

    async def start(self) -> None:
        """Settle abandoned cgroups, then start all workers. Raises PoolError when one does not come up."""
        await asyncio.to_thread(self._prepare_cgroups)
        try:
            async with asyncio.TaskGroup() as group:
                for index in range(self.size):
                    group.create_task(self._add(index))
        except* (OSError, TimeoutError, PoolError) as failures:
            await self.stop(0.0)
            raise PoolError(f"a pool worker did not start: {failures.exceptions[0]}") from failures
        self._run(self._watch())

    async def stop(self, grace_s: float) -> None:
        """End all agents and workers; bounded by ``grace_s`` and STOP_MARGIN_S, then by SIGKILL and a sweep."""
        self._is_stopping = True
        for handle in self.handles.values():
            handle.is_stopping = True
            handle.send(Shutdown(grace_s=grace_s))
        await asyncio.gather(*(self._end(handle, grace_s) for handle in list(self.handles.values())))
        tasks = [task for task in self._tasks.difference(self._burials.values()) if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        # Burials are bounded by themselves; one that is broken off would leave agents behind.
        await asyncio.gather(*tasks, *self._burials.values(), return_exceptions=True)
        self.handles.clear()
        if self._warden is not None:
            await asyncio.to_thread(self._warden.stop)
            self._warden = None
        if self._cgroup_dir is not None:
            await asyncio.to_thread(self._clear_cgroups, self._cgroup_dir)

    @staticmethod
    def _clear_cgroups(directory: str) -> None:
        cgroups.kill_below(directory)  # what a dying worker's zygote forked last
        cgroups.remove(directory)

    def features(self) -> tuple[str, ...]:
        """What the workers found that the system can do."""
        return tuple(sorted({name for handle in self.handles.values() for name in handle.features}))

    def hold(self, is_held: bool) -> None:
        """Stop or go on reading from the workers."""
        for handle in self.handles.values():
            handle.hold(is_held)

    def _prepare_cgroups(self) -> None:
        parent = cgroups.find_parent() if self._config.cgroups else None
        settled = cgroups.settle_abandoned(parent)
        if settled:
            log.warning("pool.cgroups.settled", directories=settled)
        self._cgroup_dir = cgroups.make_base(parent)
        if self._cgroup_dir is not None:
            self._controllers = cgroups.enable_controllers(self._cgroup_dir)
            try:
                self._warden = Warden(self._cgroup_dir)
            except OSError as error:
                log.warning("pool.warden.start_failed", error=str(error))

    def _ensure_warden(self) -> None:
        warden = self._warden  # a stop may take it away meanwhile: this runs in a thread
        if warden is not None:
            try:
                if not warden.ensure():
                    log.warning("pool.warden.replaced", pid=warden.pid)
            except OSError as error:
                log.error("pool.warden.start_failed", error=str(error))

    async def _add(self, index: int) -> None:
        config = WorkerConfig(
            index=index,
            cgroup_dir=self._cgroup_dir,
            has_warden=self._warden is not None,
            controllers=self._controllers,
            preload=self._config.preload,
            warm_python=self._config.warm_python,
            disk_reserve_bytes=self._config.disk_reserve_bytes,
            ping_interval_s=self._config.ping_interval_s,
            ping_deadline_s=self._config.ping_deadline_s,
            input_bytes=self._config.input_bytes,
        )
        tether = self._warden.tether if self._warden is not None else -1
        handle = WorkerHandle(config, self._on_fact, self._lose, tether)
        try:
            await handle.start()
        except BaseException:
            await handle.discard()
            raise
        self.handles[index] = handle
        log.info("pool.worker.ready", worker=index, pid=handle.pid, features=list(handle.features))
        self._on_spare()

    async def _end(self, handle: WorkerHandle, grace_s: float) -> None:
        if not await handle.wait_ended(grace_s + STOP_MARGIN_S):
            log.error("pool.worker.stop_timeout", worker=handle.index, pid=handle.pid)
        await asyncio.shield(self._begin_burial(handle))

    async def _watch(self) -> None:
        reaper = settling.OrphanReaper()
        while True:
            await asyncio.sleep(self._config.ping_interval_s)
            await asyncio.to_thread(self._ensure_warden)
            if self.lost:
                await asyncio.to_thread(reaper.look)
            for handle in list(self.handles.values()):
                if not handle.is_stopping and not handle.ping(self._config.ping_deadline_s):
                    log.error("pool.worker.hung", worker=handle.index, pid=handle.pid)
                    await handle.abort()

    def _lose(self, handle: WorkerHandle, reason: str) -> None:
        if self.handles.get(handle.index) is handle:
            del self.handles[handle.index]
            agents = tuple(handle.agents)
            # Begun here: a stop in the same turn of the loop cancels a replacement before its first step.
            self._run(self._replace(handle, reason, agents, self._begin_burial(handle)))

    async def _replace(
        self, handle: WorkerHandle, reason: str, agents: tuple[str, ...], burial: asyncio.Task[None]
    ) -> None:
        self.lost += 1
        now = time.monotonic()
        self._losses.append(now)
        while self._losses[0] < now - self._config.worker_restart_window_s:
            self._losses.popleft()
        is_looping = len(self._losses) > self._config.worker_restart_limit
        await asyncio.shield(burial)
        log.error(
            "pool.worker.lost",
            worker=handle.index,
            pid=handle.pid,
            exit_code=handle.exit_code,
            reason=reason,
            agents=len(agents),
            is_replaced=not is_looping,
        )
        self._on_fact(
            handle,
            WorkerLost(
                worker=handle.index,
                pid=handle.pid,
                exit_code=handle.exit_code,
                agents=agents,
                is_replaced=not is_looping,
            ),
        )
        if is_looping:
            self.held_back += 1
            try:
                await asyncio.sleep(self._config.worker_restart_window_s)
            finally:
                self.held_back -= 1
        if not self._is_stopping:
            try:
                await self._add(handle.index)
            except (OSError, TimeoutError, PoolError) as error:
                log.error("pool.worker.start_failed", worker=handle.index, error=str(error))
                self._run(self._replace(handle, "start_failed", (), self._begin_burial(handle)))

    def _begin_burial(self, handle: WorkerHandle) -> asyncio.Task[None]:
        """Discard the process, end what it kept, and say so for each agent; nothing breaks this off.

        One that is under way is waited for: a worker that is lost while the pool stops is missed by both.
        """
        burial = self._burials.get(handle)
        if burial is None:
            burial = self._burials[handle] = self._run(self._discard_and_sweep(handle))
            burial.add_done_callback(lambda _: self._burials.pop(handle, None))
        return burial

    async def _discard_and_sweep(self, handle: WorkerHandle) -> None:
        trace = await handle.discard()
        if trace:
            log.error("pool.worker.traceback", worker=handle.index, pid=handle.pid, traceback=trace)
        kept, handle.agents = handle.agents, {}
        keepless = [self._keepless(agent) for agent in kept.values()]
        swept = await asyncio.to_thread(settling.sweep, keepless, also_reap=tuple(handle.zygotes))
        for agent_id, agent in kept.items():
            if agent.started is None:
                self._on_abandoned(agent_id)
            else:
                self._on_fact(handle, await asyncio.to_thread(self._exit_of, agent, swept[agent_id]))

    @staticmethod
    def _exit_of(agent: Kept, swept: settling.Swept) -> AgentExited:
        exited = lost_exit(
            agent_id=agent.spec.agent_id,
            attempt=agent.spec.attempt,
            record_dir=agent.spec.record_dir,
            output_begins=agent.spec.output_begins,
            ended_by="worker_lost",
            survivors=swept.survivors,
            cpu_seconds=swept.cpu_seconds,
            max_rss_bytes=swept.max_rss_bytes,
        )
        if agent.verifying is None:
            return exited
        usage = both_usages(agent.verifying.usage, swept.cpu_seconds, swept.max_rss_bytes)
        return msgspec.structs.replace(exited, usage=usage)

    def _keepless(self, agent: Kept) -> settling.Keepless:
        started = agent.verifying or agent.started
        leaf = os.path.join(self._cgroup_dir, leaf_name(agent.spec)) if self._cgroup_dir is not None else None
        return settling.Keepless(
            agent_id=agent.spec.agent_id,
            pid=started.pid if started is not None else None,
            start_ticks=started.start_ticks if started is not None else 0,
            nonce=agent.spec.nonce,
            leaf_path=leaf,
        )

    def _run(self, coroutine: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._note_end)
        return task

    def _note_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("pool.task.failed", exc_info=task.exception())

"""The life of an agent: attempt after attempt, until its final status."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine

import msgspec
import structlog

from agentpool.base import Pool
from agentpool.errors import PoolClosed, PoolFull, SlotLost, UnknownAgent
from agentpool.messages import AgentExited
from agentpool.messages import AgentRecord as OutputRecord
from agentpool.outcomes import NO_RULES, classify
from agentpool.states import STATUS_OF_OUTCOME, AgentState, Outcome, is_final
from orchestrator.agents.base import Publish, TokenMinter
from orchestrator.agents.durability import Recorder
from orchestrator.agents.ends import (
    describe_end,
    end_event,
    exit_result,
    losses_reason,
    outcome_of_start,
    quarantine_event,
    quarantine_reason,
    supervisor_event,
    unstarted_end,
    usage_of,
)
from orchestrator.agents.feeds import EventFeeds
from orchestrator.agents.launch import Launcher
from orchestrator.agents.outputs import output_of
from orchestrator.agents.records import RecordTaker
from orchestrator.agents.registry import AgentRegistry, LiveAgent
from orchestrator.agents.restarts import RestartIntensity, backoff_s, wants_restart
from orchestrator.agents.starts import Starter
from orchestrator.clock import Clock
from orchestrator.errors import SidecarError, SpawnFailed
from orchestrator.identifiers import new_id
from orchestrator.metrics import Metrics
from orchestrator.models import JSON, AgentRecord, EventDraft
from orchestrator.results import ResultService

#: Lines taken together at most; their events share a commit.
BATCH = 200
#: Seconds between tries when the queue has no place for a restart.
REQUEUE_S = 1.0
log = structlog.get_logger(__name__)


class AgentLives:
    """Starts attempts, takes what they say, tells their ends and starts them again."""

    def __init__(
        self,
        *,
        feeds: EventFeeds,
        pool: Pool,
        registry: AgentRegistry,
        starter: Starter,
        launcher: Launcher,
        records: RecordTaker,
        results: ResultService,
        publish: Publish,
        recorder: Recorder,
        minter: TokenMinter,
        intensity: RestartIntensity,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._feeds = feeds
        self._pool = pool
        self._registry = registry
        self._starter = starter
        self._launcher = launcher
        self._records = records
        self._results = results
        self._publish = publish
        self._recorder = recorder
        self._minter = minter
        self._intensity = intensity
        self._metrics = metrics
        self._clock = clock
        self._closing = asyncio.Event()

    def close(self) -> None:
        """Start nothing again from now on; what waits for its restart stays queued in storage."""
        self._closing.set()

    async def begin(self, live: LiveAgent) -> None:
        """Start the next attempt in the granted slot. Raises as ``Starter.begin``."""
        try:
            await self._starter.begin(live)
        except (SidecarError, SlotLost, PoolClosed):
            raise
        except Exception as error:
            log.exception("agent_start_failed", agent_id=live.record.agent_id)
            raise SpawnFailed("the agent could not be started; the sidecar's log says why") from error
        if live.stop_reason is not None:
            await self.stop_process(live)

    async def stop_process(self, live: LiveAgent) -> None:
        """Begin to end the running process, if there still is one."""
        await self._kill(live, live.stop_grace_s, live.stop_reason or "killed")

    async def _kill(self, live: LiveAgent, grace_s: float | None, reason: str) -> None:
        try:
            await self._pool.kill(live.record.agent_id, grace_s=grace_s, reason=reason)
        except UnknownAgent:
            log.debug("agent_already_ended", agent_id=live.record.agent_id)

    async def announce(self, draft: EventDraft, live: LiveAgent) -> None:
        """Publish one of the supervisor's own events, however long storage refuses."""
        await self._recorder.until_stored(lambda: self._publish(live.record.project_id, draft), live)

    async def tell_end(self, record: AgentRecord) -> None:
        """Publish the end of an ended agent, once, and note that; however long storage refuses."""
        await self._recorder.until_stored(lambda: self._publish(record.project_id, end_event(record)))
        await self._recorder.until_stored(lambda: self._registry.mark_end_published(record))

    async def live_through(self, live: LiveAgent) -> None:
        """Follow a started agent to its final status, restarts included."""
        await self._settling(live, self._live_through(live))

    async def live_from_queue(self, live: LiveAgent) -> None:
        """Start an accepted agent, whose start nobody waits for, in a slot, and follow it to its final status."""
        await self._settling(live, self._live_from_queue(live))

    async def _settling(self, live: LiveAgent, life: Coroutine[None, None, None]) -> None:
        """Settle it as failed after an error that nobody foresaw, so that nobody waits for its end for ever."""
        try:
            await life
        except PoolClosed:
            # Still queued in storage.
            log.info("start_left_to_next_sidecar", agent_id=live.record.agent_id)
        except Exception:
            log.exception("agent_life_failed", agent_id=live.record.agent_id)
            await self.stop_process(live)
            await self._give_up(live)

    async def _give_up(self, live: LiveAgent) -> None:
        if live.ticket is not None:
            live.ticket.release()
        if is_final(AgentState(live.record.status)):
            self._registry.finish(live)
            return
        error = "the sidecar could not follow it to its end; the sidecar's log says why"
        await self._finish(
            live, AgentState.FAILED, outcome=Outcome.FAILED.value, error=error, ended_at=self._clock.now()
        )

    async def _live_from_queue(self, live: LiveAgent) -> None:
        is_granted = await (live.granted() if live.ticket is not None else self.requeue(live))
        if not is_granted:
            await self.end_unstarted(live, Outcome.KILLED, "it was ended while it waited in the queue")
        elif await self._start(live):
            await self._live_through(live)

    async def _live_through(self, live: LiveAgent) -> None:
        while True:
            exited = await self._follow(live)
            # Here and not where the exit is first seen: that may be before the start's own ``attach``.
            self._feeds.detach(live)
            await self._conclude(live, exited)
            if live.record.status != AgentState.QUEUED:
                return
            if not (await self._wait_for_restart(live) and await self._start(live)):
                return

    async def _start(self, live: LiveAgent) -> bool:
        """Start it in its slot, later where that may help; False when it has ended instead. Raises PoolClosed."""
        while True:
            live.token = ""  # What it has may be old by now: the process gets one of its own.
            try:
                await self.begin(live)
            except SlotLost:
                if not await self._regain_slot(live):
                    return False
            except SidecarError as failure:
                await self._conclude_start(live, failure)
                if live.record.status != AgentState.QUEUED or not await self._wait_for_restart(live):
                    return False
            else:
                return True

    async def _conclude_start(self, live: LiveAgent, failure: SidecarError) -> None:
        """Settle a start that failed, or queue the agent again: what may pass goes by its restart policy."""
        log.warning("queued_agent_failed", agent_id=live.record.agent_id, code=failure.code, slug=failure.slug)
        if not isinstance(failure, SpawnFailed) or failure.retry_after_s is None:
            await self.fail_start(live, failure)
            return
        outcome, losses = outcome_of_start(failure.slug), live.record.losses + 1
        is_restarting, why_not = self._decide(live, outcome, losses)
        error = failure.message + why_not
        if is_restarting:
            await self._queue_again(live, {**self._unstarted(live, outcome, error), "losses": losses})
        else:
            await self.fail_start(live, SpawnFailed(error, slug=failure.slug))

    async def _follow(self, live: LiveAgent) -> AgentExited:
        while True:
            fact = await live.facts.get()
            batch: list[OutputRecord] = []
            while isinstance(fact, OutputRecord):
                batch.append(fact)
                if len(batch) >= BATCH or live.facts.empty():
                    break
                fact = live.facts.get_nowait()
            if batch:
                await self._take(live, batch)
            if isinstance(fact, AgentExited):
                return fact

    async def _take(self, live: LiveAgent, batch: list[OutputRecord]) -> None:
        try:
            await self._records.take(live, batch)
        except Exception:
            # What one agent says must not stop the reading of what it says next, nor of its end.
            log.exception("agent_lines_lost", agent_id=live.record.agent_id, lines=len(batch))
            live.notes.append("some lines could not be taken; the sidecar's log says why")

    async def _conclude(self, live: LiveAgent, exited: AgentExited) -> None:
        """Make the end durable and tell it; an agent that is to be started again is queued then."""
        record = live.record
        # What a role says of its own command's ends says nothing of another one's.
        rules = live.profile.ends if record.request.command is None else NO_RULES
        outcome, evidence = classify(exited, live.result_status, rules)
        if live.notes:
            evidence["refused_lines"] = live.notes
        # Where a result was taken, that says why, and not a line that could not be read.
        notes = live.notes if live.result_id is None else ()
        error = describe_end(exited, outcome, evidence["decided_by"], notes)
        if live.result_id is None:
            output = await output_of(self._pool, self._launcher.record_dir(record), record.output_begins, exited)
            draft = exit_result(record, exited, error, output)
            # One id for all tries: the database may have taken what the disk then refused a copy of.
            result_id = new_id("res")
            stored = await self._recorder.until_stored(
                lambda: self._results.store(record.project_id, draft, result_id=result_id), live
            )
            live.result_id = stored.result.id
            self._metrics.results_stored.inc()
        self._metrics.agents_ended.labels(outcome.value).inc()
        losses = record.losses + 1 if outcome is Outcome.LOST else 0
        is_restarting, why_not = self._decide(live, outcome, losses)
        if live.quarantine is not None:
            evidence["quarantine"] = live.quarantine
        if why_not:
            error = (error or "it ended") + why_not
        facts = {
            "losses": losses,
            "exit_code": exited.exit_code,
            "signal": exited.signal,
            "result_id": live.result_id,
            "outcome": outcome.value,
            "evidence": evidence,
            "error": error,
            "usage": usage_of(exited),
            "survivors": msgspec.to_builtins(exited.survivors),
            "ended_at": self._clock.now(),
            "inputs": live.settle_inputs(),
        }
        if is_restarting:
            await self._queue_again(live, facts)
        else:
            await self._finish(live, STATUS_OF_OUTCOME[outcome], **facts)

    async def _queue_again(self, live: LiveAgent, facts: JSON) -> None:
        """Tell the end of an attempt that the next one follows."""
        record = live.record
        # What the attempt left behind, if anything, may not speak for the next one.
        self._minter.end_attempt(record.agent_id, record.attempt)
        status = STATUS_OF_OUTCOME[Outcome(facts["outcome"])]
        told = msgspec.structs.replace(record, status=status.value, **facts)
        await self.announce(end_event(told), live)
        live.ticket = None
        # Its process is gone, and another program may have its number by now.
        gone = {"process_id": None, "start_ticks": None}
        await self._recorder.until_stored(
            lambda: self._registry.update(live, status=AgentState.QUEUED.value, **facts, **gone), live
        )
        await self.announce(supervisor_event("agent_restarted", live.record, key=f"{record.attempt}.restarted"), live)

    def _decide(self, live: LiveAgent, outcome: Outcome, losses: int) -> tuple[bool, str]:
        """Whether it is started again, and the words for its error where its policy wants that and may not have it."""
        policy = live.record.request.restart or live.profile.restart
        if self._closing.is_set() or live.stop_reason is not None or not wants_restart(policy, outcome):
            return False, ""
        limit, window_s = live.profile.restart_limit, live.profile.restart_window_seconds
        if losses:
            # Says nothing of its role, so that only the agent itself can have had too much of it.
            is_allowed = losses <= self._intensity.limit(limit)
            return is_allowed, "" if is_allowed else losses_reason(losses)
        key = (live.record.project_id, live.record.agent_type)
        if self._intensity.allow(key, self._clock.monotonic(), limit=limit, window_s=window_s):
            return True, ""
        live.quarantine = self._intensity.bounds(key)
        log.error("restart_quarantined", project_id=key[0], agent_type=key[1])
        return False, quarantine_reason(live.record, live.quarantine)

    async def _finish(self, live: LiveAgent, status: AgentState, **facts: object) -> None:
        agent_id = live.record.agent_id
        self._minter.end(agent_id)
        self._feeds.detach(live)
        told = msgspec.structs.replace(live.record, status=status.value, **facts)
        # Both go into the log together; the status shows only when both are durable.
        await asyncio.gather(
            self._recorder.until_stored(lambda: self._registry.update(live, status=status.value, **facts), live),
            self.announce(end_event(told), live),
        )
        if live.quarantine is not None:
            await self.announce(quarantine_event(live.record, live.quarantine), live)
        self._registry.finish(live)
        await self._recorder.until_stored(lambda: self._registry.mark_end_published(live.record))

    async def fail_start(self, live: LiveAgent, failure: SidecarError) -> None:
        """Settle an agent whose attempt could not be started: failed, its files gone, its slot free."""
        if live.has_process:  # an error that nobody foresaw came after its launch
            await self._kill(live, 0.0, "start_failed")
        if live.ticket is not None:
            live.ticket.release()
        if live.record.attempt <= 1:
            # A later attempt's directory and workspace hold what the earlier ones said and did.
            await self._launcher.discard(live)
        outcome = Outcome.KILLED if live.stop_reason else outcome_of_start(failure.slug)
        await self.end_unstarted(live, outcome, failure.message)

    async def end_unstarted(self, live: LiveAgent, outcome: Outcome, error: str) -> None:
        """Give a final status to an agent that has no process (queued, or not startable)."""
        live.has_process = False
        if live.ticket is not None:
            live.ticket.release()
        await self._finish(live, STATUS_OF_OUTCOME[outcome], **self._unstarted(live, outcome, error))

    def _unstarted(self, live: LiveAgent, outcome: Outcome, error: str) -> JSON:
        # One may have come by the API before there was a process.
        result_id = live.result_id or live.record.result_id
        survivors, now = live.record.survivors, self._clock.now()
        return unstarted_end(outcome, error, result_id=result_id, survivors=survivors, ended_at=now)

    async def _wait_for_restart(self, live: LiveAgent) -> bool:
        """Wait out the backoff and get a slot; False when it was ended meanwhile. Raises PoolClosed."""
        delay_s = backoff_s(live.record.attempt, random.random())
        log.info("agent_restarting", agent_id=live.record.agent_id, attempt=live.record.attempt + 1, delay_s=delay_s)
        await self._pause(live, delay_s)
        return await self._regain_slot(live)

    async def _regain_slot(self, live: LiveAgent) -> bool:
        if await self.requeue(live):
            return True
        await self.end_unstarted(live, Outcome.KILLED, "it was ended while it waited to be started again")
        return False

    async def requeue(self, live: LiveAgent) -> bool:
        """Get a slot for an accepted agent, however full the queue; False when it is to stop. Raises PoolClosed."""
        while not live.stopping.is_set():
            try:
                live.ticket = self._pool.enqueue(
                    live.record.agent_id, share_key=live.record.project_id, priority=live.record.request.priority
                )
                return await live.granted()
            except PoolFull as full:
                await self._pause(live, min(REQUEUE_S, full.retry_after_s))
        return False

    async def _pause(self, live: LiveAgent, seconds: float) -> None:
        """Wait, but no longer than until the agent is to end. Raises PoolClosed when the sidecar stops."""
        wishes = {asyncio.create_task(event.wait()) for event in (live.stopping, self._closing)}
        try:
            await asyncio.wait(wishes, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in wishes:
                task.cancel()
            await asyncio.gather(*wishes, return_exceptions=True)
        if self._closing.is_set() and not live.stopping.is_set():
            raise PoolClosed

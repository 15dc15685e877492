"""The start of an attempt: counted, prepared, launched, told."""

from __future__ import annotations

import asyncio
import secrets

import msgspec
import structlog

from agentpool.base import Pool
from agentpool.errors import LaunchFailed, PoolClosed, SlotLost
from agentpool.messages import AgentStarted
from agentpool.specs import LaunchSpec
from agentpool.states import AgentState
from orchestrator.agents.base import Publish
from orchestrator.agents.durability import Recorder
from orchestrator.agents.ends import supervisor_event
from orchestrator.agents.feeds import EventFeeds
from orchestrator.agents.launch import Launcher
from orchestrator.agents.outputs import output_begins
from orchestrator.agents.registry import AgentRegistry, LiveAgent
from orchestrator.clock import Clock
from orchestrator.errors import SidecarError, SpawnFailed
from orchestrator.models import JSON

#: What a new attempt does not take over from the one before; that one's end is in the events and in its result.
NOTHING_KNOWN: JSON = {
    "started_at": None,
    "ended_at": None,
    "error": None,
    "evidence": {},
    "survivors": {},
    "usage": {},
}
#: Seconds after which whoever waited for a start that may do better next time is asked to try again.
START_RETRY_S = 2.0
log = structlog.get_logger(__name__)


class Starter:
    """Starts one attempt in a granted slot."""

    def __init__(
        self,
        *,
        feeds: EventFeeds,
        pool: Pool,
        registry: AgentRegistry,
        launcher: Launcher,
        publish: Publish,
        recorder: Recorder,
        clock: Clock,
    ) -> None:
        self._feeds = feeds
        self._pool = pool
        self._registry = registry
        self._launcher = launcher
        self._publish = publish
        self._recorder = recorder
        self._clock = clock

    async def begin(self, live: LiveAgent) -> None:
        """Start the next attempt; it is told the error of the one before, whoever saw that end.

        Raises SpawnFailed (with ``retry_after_s`` where the next try may do better) or another SidecarError; SlotLost
        or PoolClosed when nothing ran: the attempt does not count then, and the agent is queued.
        """
        before: JSON = {name: getattr(live.record, name) for name in NOTHING_KNOWN}
        live.begin_attempt()
        attempt, nonce = live.record.attempt + 1, secrets.token_hex(16)
        begins = await output_begins(self._launcher.record_dir(live.record), attempt)
        # Counted and durable before the start, so that a crash in between cannot make it run uncounted.
        await self._recorder.until_stored(
            lambda: self._registry.update(
                live,
                status=AgentState.STARTING.value,
                attempt=attempt,
                output_begins=begins,
                nonce=nonce,
                process_id=None,
                start_ticks=None,
                exit_code=None,
                signal=None,
                result_id=None,
                outcome=None,
                **NOTHING_KNOWN,
            ),
            live,
        )
        spec, started = await self._launch(live, before)
        live.started_monotonic = self._clock.monotonic()
        # Before anybody can learn that it runs: what they publish then must reach it.
        await self._attach_feed(live)
        record = msgspec.structs.replace(live.record, status=AgentState.RUNNING.value)
        told = supervisor_event("agent_started", record, key=f"{record.attempt}.started")
        await asyncio.gather(
            self._recorder.until_stored(
                lambda: self._registry.update(
                    live,
                    status=AgentState.RUNNING.value,
                    process_id=started.pid,
                    start_ticks=started.start_ticks,
                    started_at=self._clock.now(),
                    workspace_path=spec.workspace,
                ),
                live,
            ),
            self._recorder.until_stored(lambda: self._publish(record.project_id, told), live),
        )

    async def _launch(self, live: LiveAgent, before: JSON) -> tuple[LaunchSpec, AgentStarted]:
        try:
            spec = await self._launcher.prepare(live, before["error"])
            if live.stopping.is_set():
                raise SpawnFailed("it was ended before it was started", slug="ended")
            live.has_process = True
            return spec, await self._pool.launch(spec)
        except LaunchFailed as error:
            live.has_process = False
            raise SpawnFailed(
                str(error),
                slug=error.reason,
                details={"command": error.command},
                retry_after_s=None if error.is_permanent else START_RETRY_S,
            ) from error
        except (SlotLost, PoolClosed):
            live.has_process = False
            live.ticket = None
            uncounted = {"status": AgentState.QUEUED.value, "attempt": live.record.attempt - 1, **before}
            await self._recorder.until_stored(lambda: self._registry.update(live, **uncounted), live)
            raise

    async def _attach_feed(self, live: LiveAgent) -> None:
        try:
            await self._feeds.attach(live)
        except SidecarError as error:
            # The process runs: it goes on without events rather than being lost as one that never started.
            log.error("agent_gets_no_events", agent_id=live.record.agent_id, reason=error.message)

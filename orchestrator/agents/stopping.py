"""Ending an agent because somebody wants it, and what that one is told."""

from __future__ import annotations

import asyncio

import structlog

from agentpool.errors import IllegalTransition
from agentpool.states import AgentState
from orchestrator.agents.durability import Recorder
from orchestrator.agents.lives import AgentLives
from orchestrator.agents.registry import AgentRegistry, LiveAgent
from orchestrator.clock import Clock
from orchestrator.errors import StorageWriteFailed

#: Seconds after its grace in which an agent's tree is gone for sure and the supervisor has been told (the ladder of
#: ending: half a second, a sweep of at most 5 s, the drain).
LADDER_S = 8.0
log = structlog.get_logger(__name__)


class Stopper:
    """Ends attempts before their time; their lives then tell the end."""

    def __init__(self, registry: AgentRegistry, lives: AgentLives, recorder: Recorder, clock: Clock) -> None:
        self._registry = registry
        self._lives = lives
        self._recorder = recorder
        self._clock = clock

    async def stop(self, live: LiveAgent) -> None:
        """Begin to end what runs of an agent that was asked to stop."""
        if live.record.status == AgentState.RUNNING:
            try:
                await self._registry.update(live, status=AgentState.STOPPING.value)
            except IllegalTransition:
                log.debug("agent_already_ended", agent_id=live.record.agent_id)
            except StorageWriteFailed as refused:
                # A full disk must not keep anything alive; the end itself waits until it can be stored.
                log.warning("stopping_not_stored", agent_id=live.record.agent_id, reason=refused.message)
        if live.has_process:  # which the record need not say yet
            await self._lives.stop_process(live)

    async def end(self, live: LiveAgent) -> None:
        """Begin to end it, and return when its final status is durable."""
        await self.stop(live)
        await live.ended.wait()

    async def wait(self, live: LiveAgent, ending: asyncio.Future[None]) -> None:
        """Wait for ``ending``, which goes on whatever happens here.

        Raises StorageWriteFailed when all that is missing is the record of the end and storage does not take it.
        """
        latest = self._clock.monotonic() + (live.stop_grace_s or 0.0) + LADDER_S
        try:
            await self._recorder.patiently(
                ending, live, is_due=lambda: not live.has_process or self._clock.monotonic() > latest
            )
        except StorageWriteFailed as refused:
            done = "is being ended" if live.has_process else "has ended and nothing of it is left"
            raise StorageWriteFailed(
                f"agent {live.record.agent_id} {done}, but that cannot be recorded yet: {refused.message}",
                slug=refused.slug,
                details={"agent_id": live.record.agent_id, "has_process": live.has_process},
                retry_after_s=refused.retry_after_s,
            ) from refused

"""The relay: the only consumer of what the pool says."""

from __future__ import annotations

import structlog

from agentpool.base import Pool
from agentpool.messages import AgentExited, AgentOutput, FeedState, InputState, VerifierStarted, WorkerLost
from agentpool.messages import AgentRecord as OutputRecord
from orchestrator.agents.base import InputReceipt
from orchestrator.agents.feeds import EventFeeds
from orchestrator.agents.registry import AgentRegistry, LiveAgent
from orchestrator.metrics import Metrics

log = structlog.get_logger(__name__)


class Relay:
    """Hands each fact to the agent that it is about, in order; each agent's own task then acts on it."""

    def __init__(self, pool: Pool, registry: AgentRegistry, feeds: EventFeeds, metrics: Metrics) -> None:
        self._pool = pool
        self._feeds = feeds
        self._registry = registry
        self._metrics = metrics

    async def run(self) -> None:
        """Until the pool has stopped and has said everything."""
        async for fact in self._pool.facts():
            if isinstance(fact, WorkerLost):
                self._metrics.workers_lost.inc()
                log.error(
                    "pool_worker_lost",
                    worker=fact.worker,
                    pid=fact.pid,
                    exit_code=fact.exit_code,
                    agents=len(fact.agents),
                    is_replaced=fact.is_replaced,
                )
                continue
            live = self._registry.live.get(getattr(fact, "agent_id", ""))
            if live is None:
                continue
            if isinstance(fact, FeedState):
                self._feeds.note(live, fact)
            elif isinstance(fact, InputState):
                # Only of messages: a redriven event's line is written after the redrive has had its answer.
                if not self._feeds.note_input(fact) and fact.message_id in live.inputs:
                    receipt = InputReceipt(message_id=fact.message_id, state=fact.state, reason=fact.reason)
                    live.remember_input(receipt)
            elif isinstance(fact, AgentOutput):
                self._grew(live, fact)
            elif isinstance(fact, VerifierStarted):
                live.verifier_pid = fact.pid
            elif isinstance(fact, OutputRecord | AgentExited):
                if fact.attempt != live.record.attempt:
                    log.warning("stale_fact", agent_id=fact.agent_id, attempt=fact.attempt)
                    continue
                if isinstance(fact, AgentExited):
                    live.has_process, live.verifier_pid = False, None
                await live.facts.put(fact)

    def _grew(self, live: LiveAgent, fact: AgentOutput) -> None:
        live.stdout_bytes, live.stderr_bytes = fact.stdout_bytes, fact.stderr_bytes
        live.wake_followers()

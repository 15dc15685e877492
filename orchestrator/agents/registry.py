"""The agents that have not ended, in memory, over their durable records."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import msgspec

from agentpool.base import Ticket
from agentpool.messages import AgentExited
from agentpool.messages import AgentRecord as OutputRecord
from agentpool.states import AgentState, check_transition, is_final
from orchestrator.agents.base import InputReceipt
from orchestrator.agents.durability import Refusal
from orchestrator.clock import Clock
from orchestrator.models import JSON, AgentRecord
from orchestrator.profiles.model import Profile
from orchestrator.storage.base import AgentStore

#: Facts of one agent that may wait for storage; more of them slow the pool down, none is lost.
MAX_PENDING_FACTS = 2000
#: Messages to one agent whose state is remembered.
MAX_INPUTS = 200


class LiveAgent:
    """One agent from its spawn to its final status; mutable, and touched by the event loop only.

    Attributes:
        record: its durable record as last written.
        profile: the role as it was when the agent was spawned.
        token: its bearer token (kept in memory only).
        ticket: its place in the pool's queue, then its slot.
        facts: what the pool said of the running attempt, in order.
        stop_reason: why somebody wants it ended, or None.
        result_id, result_status: the newest result of the running attempt.
        notes: what could not be taken from its pipe, for the evidence (bounded).
        quarantine: the bounds of restarts that its role has gone beyond, so that it is not started again; else None.
        has_process: whether something of the running attempt may be there.
        verifier_pid: the process that checks what the attempt did, once that has ended; else None.
        refusal: why what is known of it cannot be recorded now, or None.
    """

    def __init__(self, record: AgentRecord, profile: Profile) -> None:
        self.record = record
        self.profile = profile
        self.token = ""
        self.ticket: Ticket | None = None
        self.facts: asyncio.Queue[OutputRecord | AgentExited] = asyncio.Queue(MAX_PENDING_FACTS)
        self.stop_reason: str | None = None
        self.stop_grace_s: float | None = None
        self.stopping = asyncio.Event()
        self.result_id: str | None = None
        self.result_status: str | None = None
        self.notes: list[str] = []
        self.quarantine: JSON | None = None
        self.has_process = False
        self.verifier_pid: int | None = None
        self.refusal: Refusal | None = None
        self.progress: JSON = {}
        # Of attempts under an earlier sidecar, perhaps.
        known = msgspec.convert(record.inputs, list[InputReceipt])
        self.inputs = {receipt.message_id: receipt for receipt in known}
        self.stdout_bytes = 0
        self.stderr_bytes = 0
        self.started_monotonic = 0.0
        self.ended = asyncio.Event()
        self.output_grew = asyncio.Event()
        self.lock = asyncio.Lock()

    def ask_to_stop(self, reason: str, grace_s: float | None) -> None:
        """Note that somebody wants it ended; a later wish may only shorten the grace."""
        self.stop_reason = self.stop_reason or reason
        if self.stop_grace_s is None or (grace_s is not None and grace_s < self.stop_grace_s):
            self.stop_grace_s = grace_s
        self.stopping.set()

    async def granted(self) -> bool:
        """Wait for the slot of its ticket; False when it is to stop first. Raises PoolClosed."""
        if self.ticket is None or self.stopping.is_set():
            return False
        ready = asyncio.create_task(self.ticket.ready())
        stop = asyncio.create_task(self.stopping.wait())
        try:
            await asyncio.wait({ready, stop}, return_when=asyncio.FIRST_COMPLETED)
            if stop.done():
                return False
            await ready
            return True
        finally:
            for task in (ready, stop):
                task.cancel()
            await asyncio.gather(ready, stop, return_exceptions=True)

    def remember_input(self, receipt: InputReceipt) -> None:
        """Keep the newest state of a message (the oldest messages are forgotten)."""
        self.inputs[receipt.message_id] = receipt
        while len(self.inputs) > MAX_INPUTS:
            del self.inputs[next(iter(self.inputs))]

    def settle_inputs(self) -> list[JSON]:
        """What became of its messages, now that its attempt is over: one that a lost worker still had is dead."""
        for receipt in list(self.inputs.values()):
            if receipt.state == "queued":
                self.inputs[receipt.message_id] = msgspec.structs.replace(receipt, state="dead", reason="agent_ended")
        return [msgspec.to_builtins(receipt) for receipt in self.inputs.values()]

    def begin_attempt(self) -> None:
        """Forget what belonged to the attempt before."""
        self.result_id = self.result_status = None
        self.notes = []
        self.progress = {}
        self.facts = asyncio.Queue(MAX_PENDING_FACTS)

    def wake_followers(self) -> None:
        """Let everyone who follows its output read again."""
        self.output_grew.set()
        self.output_grew = asyncio.Event()


class AgentRegistry:
    """Live agents by id; every change of a record is durable before it shows."""

    def __init__(self, store: AgentStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self.live: dict[str, LiveAgent] = {}
        self.spawned_total = 0
        self.ended: Counter[str] = Counter()

    async def start(self) -> None:
        """Take over the counts of what ended before."""
        counts = await self._store.count_agents()
        self.ended.update({status: count for status, count in counts.items() if is_final(AgentState(status))})
        self.spawned_total = sum(counts.values())

    async def add(self, live: LiveAgent) -> None:
        """Make a new agent durable and known."""
        await self._store.put_agent(live.record)
        self.live[live.record.agent_id] = live
        self.spawned_total += 1

    async def update(self, live: LiveAgent, **changes: Any) -> AgentRecord:
        """Change fields of a record, durably, then in memory. Raises IllegalTransition, StorageWriteFailed."""
        async with live.lock:
            status = changes.get("status")
            if status is not None and status != live.record.status:
                check_transition(AgentState(live.record.status), AgentState(status))
            record = msgspec.structs.replace(live.record, updated_at=self._clock.now(), **changes)
            await self._store.put_agent(record)
            live.record = record
            return record

    def finish(self, live: LiveAgent) -> None:
        """Take an ended agent out of memory and wake all who wait for its end."""
        self.ended[live.record.status] += 1
        self.live.pop(live.record.agent_id, None)
        live.ended.set()
        live.wake_followers()

    async def mark_end_published(self, record: AgentRecord) -> None:
        """Note that the end event of this record is in the log."""
        await self._store.put_agent(msgspec.structs.replace(record, is_end_published=True))

    async def find(self, project_id: str, agent_id: str) -> AgentRecord | None:
        """The newest record, from memory while it lives."""
        live = self.live.get(agent_id)
        if live is not None:
            return live.record if live.record.project_id == project_id else None
        return await self._store.get_agent(project_id, agent_id)

    def counts(self) -> Counter[str]:
        """Live agents by status."""
        return Counter(live.record.status for live in self.live.values())

    def by_type(self) -> dict[str, int]:
        """Live agents by type."""
        return dict(sorted(Counter(live.record.agent_type for live in self.live.values()).items()))

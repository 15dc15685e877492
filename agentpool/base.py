"""What a pool promises to those above it, whichever way it runs the processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import msgspec

from agentpool.messages import AgentStarted, Fact, FeedLine
from agentpool.specs import LaunchSpec


class PoolStats(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of the moment. ``capacity`` is how many may run at once; ``limited_by`` says what set it.

    That is ``configuration``, ``descriptors``, ``memory``, ``disk``, or ``workers`` while none is alive.

    ``workers_held_back`` are those that crashed again and again and are not replaced before their window is over.
    """

    running: int
    queued: int
    capacity: int
    queue_capacity: int
    limited_by: str
    workers: int
    workers_lost: int
    workers_held_back: int
    is_paused: bool
    is_draining: bool


class OutputChunk(msgspec.Struct, frozen=True, kw_only=True):
    """Raw bytes of a stream from ``offset``; ``next_offset`` is where to go on.

    ``truncated_at`` is the byte from which nothing was kept (the agent's cap), else None.
    """

    data: bytes
    offset: int
    next_offset: int
    truncated_at: int | None = None


class Ticket(Protocol):
    """A place in the queue, then a slot of the pool."""

    @property
    def position(self) -> int:
        """0 when the slot is granted, else the place in the queue (1 is next)."""

    async def ready(self) -> None:
        """Wait until the slot is granted. Raises PoolClosed when the pool stops first."""

    def release(self) -> None:
        """Give the slot or the place back; harmless when the pool has already taken it back."""


class Pool(Protocol):
    """Runs agents' processes. All calls belong to one event loop.

    Order of use for one attempt: ``enqueue`` → ``await ticket.ready()`` → prepare files → ``launch`` →
    facts, the last of which is AgentExited (it frees the slot). A launch that fails frees the slot too, and no slot
    is granted while there is nothing to start an agent in.
    """

    async def start(self) -> None:
        """Start the workers and wait until each is ready."""

    async def stop(self, *, grace_s: float = 5.0) -> None:
        """End all agents and workers, bounded by ``grace_s`` and a few seconds; then end ``facts()``."""

    def enqueue(self, agent_id: str, *, share_key: str, priority: str = "normal") -> Ticket:
        """Ask for a slot. Raises PoolFull (PoolDraining while it drains) or PoolClosed.

        ``share_key`` is opaque; keys get equal shares. ``priority`` is ``low``, ``normal`` or ``high``.
        """

    async def launch(self, spec: LaunchSpec) -> AgentStarted:
        """Start the attempt in its granted slot. Raises LaunchFailed, SlotLost (ask for another), PoolClosed."""

    async def kill(self, agent_id: str, *, grace_s: float | None = None, reason: str = "killed") -> None:
        """Begin to end an agent (AgentExited follows). ``None`` takes the spec's grace. Raises UnknownAgent.

        With grace, an agent that reads stdin gets the native protocol's ``shutdown`` there before it is signalled.
        """

    def send(self, agent_id: str, message_id: str, line: bytes) -> None:
        """Queue one line for an agent's stdin; InputState facts follow. Raises UnknownAgent."""

    def feed(self, agent_ids: Sequence[str], lines: Sequence[FeedLine], *, is_retry: bool = False) -> None:
        """Queue lines, in this order, for the stdin of several agents; those that have ended are passed over.

        FeedState facts follow for an agent whose queue has no room, and for a retry: see ``messages.Feed``.
        """

    def facts(self) -> AsyncIterator[Fact]:
        """All facts in order; one consumer only. A slow consumer slows the workers, it loses nothing."""

    async def read_output(self, record_dir: str, stream: str, offset: int, limit_bytes: int) -> OutputChunk:
        """Raw output of an agent, running or ended, named by its record directory; empty at the end.

        ``stream`` is ``stdout`` or ``stderr``.
        """

    def stats(self) -> PoolStats:
        """Counts of the moment."""

    def pause(self) -> None:
        """Grant no more slots until ``resume``; what runs goes on, the queue goes on taking tickets."""

    def drain(self) -> None:
        """Grant no more slots and take no more tickets (PoolDraining) until ``resume``; what runs goes on."""

    def resume(self) -> None:
        """Undo ``pause`` and ``drain``."""

    async def settle(self, leftovers: list[Leftover]) -> list[Settled]:
        """End what an earlier supervisor left running; only processes whose nonce and start time fit are touched."""


class Leftover(msgspec.Struct, frozen=True, kw_only=True):
    """A process that an earlier supervisor recorded as started and never as ended."""

    agent_id: str
    attempt: int
    pid: int
    start_ticks: int
    nonce: str


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """What settling found: ``was_alive``, how many processes were ended, how many are left (0 unless it failed)."""

    agent_id: str
    attempt: int
    was_alive: bool
    ended: int
    survivors: int

"""The bounded queue in front of the pool, and its slots."""

from __future__ import annotations

import asyncio
import itertools
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable

from agentpool.config import PoolConfig
from agentpool.errors import PoolClosed, PoolDraining, PoolError, PoolFull
from agentpool.scheduling import PRIORITIES, Capacity, Waiting, level_of, pick_ticket

#: What a full queue asks callers to wait when nothing has ended yet, and a draining one always, in seconds.
DEFAULT_RETRY_S = 5.0
RETRY_BOUNDS_S = (1.0, 120.0)
#: Weight of the newest interval between two ends in the running mean.
SMOOTHING = 0.2


class SlotTicket:
    """See ``agentpool.base.Ticket``."""

    def __init__(self, admission: Admission, agent_id: str, waiting: Waiting) -> None:
        self._admission = admission
        self.agent_id = agent_id
        self.waiting = waiting
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_granted = False
        self.is_released = False

    @property
    def position(self) -> int:
        """0 when granted, else the place in the queue."""
        return 0 if self.is_granted else self._admission.position_of(self)

    async def ready(self) -> None:
        """Wait for the slot. Raises PoolClosed."""
        await asyncio.shield(self.future)

    def release(self) -> None:
        """Give slot or place back; harmless when done before."""
        self._admission.release(self)


class Admission:
    """Grants slots by priority, age and fair shares (``scheduling.pick_ticket``).

    Args:
        config: see PoolConfig.
        measure: the capacity for a number of running agents; asked whenever a slot may be granted.
        clock: monotonic seconds.
    """

    def __init__(self, config: PoolConfig, measure: Callable[[int], Capacity], clock: Callable[[], float]) -> None:
        self._config = config
        self._measure = measure
        self._clock = clock
        self._sequence = itertools.count(1)
        self._queues: dict[tuple[str, int], deque[SlotTicket]] = {}
        self._granted: dict[str, SlotTicket] = {}
        self._shares: Counter[str] = Counter()
        self._mean_interval_s = 0.0
        self._last_release_at: float | None = None
        self.queued = 0
        self.is_paused = False
        self.is_draining = False
        self.is_closed = False

    def pause(self) -> None:
        """Grant nothing until ``resume``; the queue goes on taking tickets."""
        self.is_paused = True

    def drain(self) -> None:
        """Grant nothing, and take no ticket, until ``resume``."""
        self.is_paused = self.is_draining = True

    def resume(self) -> None:
        """Undo ``pause`` and ``drain``, and grant what is free."""
        self.is_paused = self.is_draining = False
        self.grant()

    @property
    def running(self) -> int:
        """Slots in use."""
        return len(self._granted)

    def capacity(self) -> Capacity:
        """The capacity of the moment."""
        return self._measure(self.running)

    def enqueue(self, agent_id: str, share_key: str, priority: str) -> SlotTicket:
        """A ticket, granted at once when a slot is free.

        Raises PoolFull (PoolDraining while it drains), PoolClosed, PoolError (bad arguments).
        """
        if self.is_closed:
            raise PoolClosed("the pool is stopping")
        if priority not in PRIORITIES:
            raise PoolError(f"priority {priority!r} is not one of {', '.join(PRIORITIES)}")
        if agent_id in self._granted:
            raise PoolError(f"agent {agent_id} has a slot already")
        if self.is_draining:
            raise PoolDraining(queued=self.queued, position=self.queued + 1, retry_after_s=DEFAULT_RETRY_S)
        waiting = Waiting(next(self._sequence), share_key, PRIORITIES[priority], self._clock())
        ticket = SlotTicket(self, agent_id, waiting)
        is_free = not self.queued and not self.is_paused and self.running < self.capacity().agents
        if not is_free and self.queued >= self._config.queue_size:
            retry_after_s = self._retry_after_s(self.queued + 1)
            raise PoolFull(queued=self.queued, position=self.position_of(ticket), retry_after_s=retry_after_s)
        self._queues.setdefault((share_key, waiting.priority), deque()).append(ticket)
        self.queued += 1
        self.grant()
        return ticket

    def grant(self) -> None:
        """Hand out what is free; call when anything may have become free."""
        if self.is_paused or self.is_closed or not self.queued:
            return
        free = self.capacity().agents - self.running
        while free > 0 and self.queued:
            heads = {queue[0].waiting: queue for queue in self._queues.values()}
            best = pick_ticket(heads, self._shares, self._clock(), self._config.aging_s)
            if best is None:
                return
            ticket = heads[best][0]
            self._take_out(ticket)
            ticket.is_granted = True
            self._granted[ticket.agent_id] = ticket
            self._shares[best.share_key] += 1
            if not ticket.future.done():
                ticket.future.set_result(None)
            free -= 1

    def has_slot(self, agent_id: str) -> bool:
        """Whether an agent's slot is granted."""
        return agent_id in self._granted

    def free(self, agent_id: str) -> None:
        """Give an agent's slot back; harmless when it has none."""
        ticket = self._granted.get(agent_id)
        if ticket is not None:
            self.release(ticket)

    def release(self, ticket: SlotTicket) -> None:
        """Give a ticket's slot or place back."""
        if ticket.is_released:
            return
        ticket.is_released = True
        if ticket.is_granted:
            del self._granted[ticket.agent_id]
            share = ticket.waiting.share_key
            self._shares[share] -= 1
            if not self._shares[share]:
                del self._shares[share]
            self._note_release()
        else:
            self._take_out(ticket)
            ticket.future.cancel()
        self.grant()

    def position_of(self, ticket: SlotTicket) -> int:
        """1 for the next by level and age; shares may let a later one go first."""
        if ticket.is_released:
            return 0
        now, aging_s = self._clock(), self._config.aging_s

        def turn(other: SlotTicket) -> tuple[int, int]:
            return -level_of(other.waiting, now, aging_s), other.waiting.sequence

        # Each queue is in this order already: who came later has aged no more.
        own = turn(ticket)
        return 1 + sum(bisect_left(queue, own, key=turn) for queue in self._queues.values())

    def close(self) -> None:
        """Grant nothing more; all who wait get PoolClosed."""
        self.is_closed = True
        for queue in list(self._queues.values()):
            for ticket in list(queue):
                ticket.is_released = True
                if not ticket.future.done():
                    ticket.future.set_exception(PoolClosed("the pool is stopping"))
                    ticket.future.exception()  # a caller that never asks must not cause a warning
        self._queues.clear()
        self.queued = 0

    def _take_out(self, ticket: SlotTicket) -> None:
        key = (ticket.waiting.share_key, ticket.waiting.priority)
        queue = self._queues[key]
        queue.remove(ticket)
        if not queue:
            del self._queues[key]
        self.queued -= 1

    def _note_release(self) -> None:
        now = self._clock()
        if self._last_release_at is not None:
            interval = now - self._last_release_at
            mean = self._mean_interval_s
            self._mean_interval_s = interval if not mean else mean + SMOOTHING * (interval - mean)
        self._last_release_at = now

    def _retry_after_s(self, position: int) -> float:
        # A place frees whenever a running agent ends, so the wait for one place is one such interval; the
        # whole queue's length is taken into account because all others who were refused come back too.
        estimate = self._mean_interval_s * max(1.0, position / 10) if self._mean_interval_s else DEFAULT_RETRY_S
        return min(max(estimate, RETRY_BOUNDS_S[0]), RETRY_BOUNDS_S[1])

"""Which ticket, which worker, how many; and the queue that asks."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentpool.admission import Admission
from agentpool.config import PoolConfig
from agentpool.errors import PoolClosed, PoolError, PoolFull
from agentpool.scheduling import (
    PRIORITIES,
    Capacity,
    Waiting,
    capacity_of,
    level_of,
    limited_by_disk,
    pick_ticket,
    pick_worker,
)


class Time:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def make(capacity: int, clock: Time | None = None, **config: object) -> Admission:
    """Admission with a fixed capacity."""
    settings = PoolConfig(**config)  # type: ignore[arg-type]
    return Admission(settings, lambda _running: Capacity(capacity, "configuration"), clock or Time())


def test_the_least_loaded_worker_is_taken() -> None:
    """Prevents one worker from keeping all agents."""
    assert pick_worker({0: 3, 1: 1, 2: 1}) == 1
    assert pick_worker({}) is None


def test_waiting_lifts_a_ticket_to_the_top_and_no_further() -> None:
    """Prevents low priority from meaning never."""
    ticket = Waiting(1, "s", 0, 0.0)
    assert [level_of(ticket, now, 30.0) for now in (0, 29, 30, 60, 900)] == [0, 0, 1, 2, 2]


def test_priority_then_share_then_age() -> None:
    """Prevents one key's many tickets from starving another's."""
    heads = [Waiting(1, "a", 1, 0.0), Waiting(2, "b", 1, 0.0), Waiting(3, "a", 2, 0.0)]
    assert pick_ticket(heads, {"a": 5}, 0.0, 30.0) == heads[2]
    assert pick_ticket(heads[:2], {"a": 5}, 0.0, 30.0) == heads[1]
    assert pick_ticket(heads[:2], {}, 0.0, 30.0) == heads[0]
    assert pick_ticket([], {}, 0.0, 30.0) is None


def test_capacity_is_the_smallest_bound_and_zero_only_without_a_worker() -> None:
    """Prevents a pool that promises what the machine has not got, or nothing at all."""
    roomy = {"configured": 100, "descriptor_limit": 10_000, "workers": 2, "running": 0, "agent_bytes": 10}
    assert capacity_of(**roomy, available_bytes=10**9, reserve_bytes=0) == (100, "configuration")
    assert capacity_of(**roomy, available_bytes=500, reserve_bytes=100) == (40, "memory")
    assert capacity_of(**roomy, available_bytes=0, reserve_bytes=100) == (1, "memory")
    few = {**roomy, "descriptor_limit": 144}
    assert capacity_of(**few, available_bytes=10**9, reserve_bytes=0) == (20, "descriptors")
    nobody = {**roomy, "workers": 0}
    assert capacity_of(**nobody, available_bytes=10**9, reserve_bytes=0) == (0, "workers")


def test_a_short_disk_takes_no_more_agents() -> None:
    """Prevents agents that take one another's place on a disk that none of them gives back."""
    capacity = Capacity(agents=100, limited_by="configuration")
    assert limited_by_disk(capacity, 7, 1 << 40) == capacity
    assert limited_by_disk(capacity, 7, 5 << 20) == (12, "disk")
    assert limited_by_disk(capacity, 7, -1) == (7, "disk")
    assert limited_by_disk(capacity, 0, 0) == (0, "disk")
    # Seven ran when it was measured; when one has ended, six may.
    assert limited_by_disk(limited_by_disk(capacity, 7, 0), 6, 0) == (6, "disk")


async def test_equal_shares_under_load() -> None:
    """Prevents a project with a thousand tickets from holding up one with two."""
    admission = make(4)
    greedy = [admission.enqueue(f"g{n}", "greedy", "normal") for n in range(20)]
    modest = [admission.enqueue(f"m{n}", "modest", "normal") for n in range(2)]
    assert [ticket.position for ticket in greedy[:4]] == [0] * 4
    greedy[0].release()
    greedy[1].release()
    assert [ticket.position for ticket in modest] == [0, 0]


@given(steps=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(sorted(PRIORITIES)), st.integers(0, 25))))
async def test_places_in_the_queue_are_those_of_a_count(steps: list[tuple[str, str, int]]) -> None:
    """A list of a thousand waiting agents took a third of a second of the sidecar: each place was counted anew."""
    clock = Time()
    admission = make(0, clock, aging_s=10.0, queue_size=1000)
    tickets = []
    for number, (share, priority, wait_s) in enumerate(steps):
        tickets.append(admission.enqueue(f"a{number}", share, priority))
        clock.now += wait_s
    for ticket in tickets[::3]:
        ticket.release()
    left = [ticket for ticket in tickets if not ticket.is_released]
    left.sort(key=lambda ticket: (-level_of(ticket.waiting, clock.now, 10.0), ticket.waiting.sequence))
    assert [ticket.position for ticket in left] == list(range(1, len(left) + 1))
    assert all(ticket.position == 0 for ticket in tickets[::3])
    admission.close()


async def test_a_low_ticket_is_served_though_high_ones_keep_coming() -> None:
    """Prevents starvation."""
    clock = Time()
    admission = make(1, clock, aging_s=10.0)
    current = admission.enqueue("first", "s", "high")
    low = admission.enqueue("low", "s", "low")
    for number in range(100):
        admission.enqueue(f"high{number}", "s", "high")
        clock.now += 1
        current.release()
        granted = list(admission._granted)
        if low.is_granted:
            break
        current = admission._granted[granted[0]]
    assert low.is_granted
    assert clock.now <= 22


async def test_a_released_place_is_taken_out_of_the_queue() -> None:
    """Prevents tickets of callers that have gone from blocking the queue."""
    admission = make(1, queue_size=1)
    running = admission.enqueue("a", "s", "normal")
    waiting = admission.enqueue("b", "s", "normal")
    waiting.release()
    waiting.release()
    with pytest.raises(asyncio.CancelledError):
        await waiting.ready()
    again = admission.enqueue("c", "s", "normal")
    running.release()
    await again.ready()
    assert (admission.running, admission.queued) == (1, 0)


async def test_retry_after_follows_the_pace_of_ends() -> None:
    """Prevents callers that are told to come back at once, or in an hour."""
    clock = Time()
    admission = make(1, clock, queue_size=1)
    for number in range(5):
        ticket = admission.enqueue(f"a{number}", "s", "normal")
        clock.now += 8.0
        ticket.release()
    admission.enqueue("x", "s", "normal")
    admission.enqueue("y", "s", "normal")
    with pytest.raises(PoolFull) as caught:
        admission.enqueue("z", "s", "normal")
    assert (caught.value.queued, caught.value.position) == (1, 2)
    assert caught.value.retry_after_s == pytest.approx(8.0)


async def test_a_refusal_tells_the_place_that_the_priority_would_have_had() -> None:
    """The refusal of an urgent request said that it would have been the last of the queue."""
    admission = make(1, queue_size=2)
    for agent_id in ("a", "b", "c"):
        admission.enqueue(agent_id, "s", "normal")
    places = {}
    for priority in ("high", "normal", "low"):
        with pytest.raises(PoolFull) as caught:
            admission.enqueue("d", "s", priority)
        places[priority] = caught.value.position
    assert places == {"high": 1, "normal": 3, "low": 3}


async def test_bad_priorities_double_slots_and_a_closed_pool_are_refused() -> None:
    """Prevents tickets that could never be served."""
    admission = make(1)
    admission.enqueue("a", "s", "normal")
    with pytest.raises(PoolError, match="urgent"):
        admission.enqueue("b", "s", "urgent")
    with pytest.raises(PoolError, match="already"):
        admission.enqueue("a", "s", "normal")
    waiting = admission.enqueue("b", "s", "normal")
    admission.close()
    with pytest.raises(PoolClosed):
        await waiting.ready()
    with pytest.raises(PoolClosed):
        admission.enqueue("c", "s", "normal")

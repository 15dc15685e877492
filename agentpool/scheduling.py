"""Decisions without state or clock of their own: which worker, which ticket next, how many at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

PRIORITIES = {"low": 0, "normal": 1, "high": 2}
TOP_LEVEL = 2
#: Descriptors of one agent in its worker: three pipes, two logs, the exec status, two for what was truncated.
DESCRIPTORS_PER_AGENT = 8
#: Descriptors that a worker needs beside its agents'.
DESCRIPTORS_RESERVED = 64
#: What one agent is reckoned to have on the disk before it says a word: its context (as JSON and Markdown), its task.
AGENT_DISK_BYTES = 1 << 20


class Waiting(NamedTuple):
    """A ticket in the queue as the decision sees it."""

    sequence: int
    share_key: str
    priority: int
    since: float


class Capacity(NamedTuple):
    """How many agents may run at once and what set that bound."""

    agents: int
    limited_by: str


def pick_worker(loads: Mapping[int, int]) -> int | None:
    """The least loaded worker, the lowest number of equals; None when there is none."""
    return min(loads, key=lambda index: (loads[index], index), default=None)


def level_of(ticket: Waiting, now: float, aging_s: float) -> int:
    """The priority after waiting: each ``aging_s`` seconds lift it by one, at most to ``high``."""
    return min(TOP_LEVEL, ticket.priority + int((now - ticket.since) / aging_s))


def pick_ticket(
    heads: Iterable[Waiting], running_by_share: Mapping[str, int], now: float, aging_s: float
) -> Waiting | None:
    """The next to get a slot: highest level, then the share with the fewest slots, then the oldest.

    Aging lets every ticket reach the top level, where equal shares and age decide, so none starves.
    ``heads`` may be only the oldest of each (share, priority): no other can win before it.
    """
    return min(
        heads,
        key=lambda t: (-level_of(t, now, aging_s), running_by_share.get(t.share_key, 0), t.sequence),
        default=None,
    )


def capacity_of(
    *,
    configured: int,
    descriptor_limit: int,
    workers: int,
    available_bytes: int,
    reserve_bytes: int,
    agent_bytes: int,
    running: int,
) -> Capacity:
    """The smallest of the configured number, what descriptors allow, and what memory allows; at least 1.

    Without a worker, of which ``workers`` are alive, nothing can be started.
    """
    if not workers:
        return Capacity(agents=0, limited_by="workers")
    by_descriptors = max(0, descriptor_limit - DESCRIPTORS_RESERVED) // DESCRIPTORS_PER_AGENT * workers
    by_memory = running + max(0, available_bytes - reserve_bytes) // max(1, agent_bytes)
    bounds = {"configuration": configured, "descriptors": by_descriptors, "memory": by_memory}
    name = min(bounds, key=lambda key: bounds[key])
    return Capacity(agents=max(1, bounds[name]), limited_by=name)


def limited_by_disk(capacity: Capacity, running: int, headroom_bytes: int) -> Capacity:
    """This capacity, or those that run and what may still be put on the disk; not one more when that is nothing."""
    by_disk = running + max(0, headroom_bytes) // AGENT_DISK_BYTES
    return Capacity(agents=by_disk, limited_by="disk") if by_disk < capacity.agents else capacity

"""Settings of the pool; every field has a default, nothing here reads the environment."""

from __future__ import annotations

import msgspec


class PoolConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How a local pool is sized, watched and ended.

    Attributes:
        workers: pool workers; 0 takes one a core, at least 2 and at most 8.
        max_running: agents at once, before descriptors and memory lower it.
        queue_size: tickets that may wait.
        memory_reserve_bytes: memory that admission leaves to everything else.
        agent_memory_bytes: what one agent is reckoned to need.
        disk_reserve_bytes: free disk that agents' output never takes, at most a tenth of its file system; 0 for none.
        grace_s: seconds between TERM and KILL where no spec says otherwise.
        cgroups: use cgroup v2 where it can be written.
        preload: modules that the parent of warm ``python`` agents imports once.
        warm_python: start that parent with the worker, not with the first ``python`` agent.
        ping_interval_s, ping_deadline_s: a worker that has not answered within the deadline is killed; so is the
            parent of its warm ``python`` agents.
        worker_restart_limit, worker_restart_window_s: more worker losses than this within the window and
            the lost worker is not replaced until the window has passed.
        aging_s: seconds of waiting that lift a ticket by one priority.
        input_bytes: bytes that may wait for one agent's stdin.
        fact_buffer_bytes: facts that may wait for their consumer before the workers are slowed.
    """

    workers: int = 0
    max_running: int = 256
    queue_size: int = 1000
    memory_reserve_bytes: int = 512 << 20
    agent_memory_bytes: int = 16 << 20
    disk_reserve_bytes: int = 256 << 20
    grace_s: float = 5.0
    cgroups: bool = True
    preload: tuple[str, ...] = ()
    warm_python: bool = False
    ping_interval_s: float = 2.0
    ping_deadline_s: float = 15.0
    worker_restart_limit: int = 5
    worker_restart_window_s: float = 30.0
    aging_s: float = 30.0
    input_bytes: int = 1 << 20
    fact_buffer_bytes: int = 16 << 20


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is told at its start.

    Attributes:
        cgroup_dir: an existing writable directory or None.
        disk_reserve_bytes, ping_interval_s, ping_deadline_s: see PoolConfig.
        has_warden: what is in there is killed should supervisor and workers die at once.
    """

    index: int
    cgroup_dir: str | None
    has_warden: bool = False
    controllers: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()
    warm_python: bool = False
    disk_reserve_bytes: int = 0
    ping_interval_s: float = 2.0
    ping_deadline_s: float = 15.0
    input_bytes: int = 1 << 20
    outgoing_bytes: int = 4 << 20

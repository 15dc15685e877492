"""Limits that no rlimit can hold: wall time, idleness, and the sums over an agent's whole tree."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from agentpool.reactor import Timer
from agentpool.specs import Limits
from agentpool.tree import SNAPSHOT_AGE_S

if TYPE_CHECKING:
    from agentpool.attempt import Attempt

#: How often sums over a tree are looked at when a limit on them is set.
SUM_INTERVAL_S = 0.25
#: CPU use below this share of one core is idling (timers that wake and find nothing).
IDLE_CPU_SHARE = 0.01


class Watchdog:
    """Ends its attempt: ``wall_limit``, ``idle_limit``, ``cpu_limit``, ``memory_limit`` or ``process_limit``."""

    def __init__(self, attempt: Attempt, limits: Limits) -> None:
        self._attempt = attempt
        self._limits = limits
        self._timers: dict[str, Timer] = {}
        self._idle_since = time.monotonic()
        self._looked_at = self._idle_since
        self._last_cpu_s = 0.0
        if limits.wall_s is not None:
            self._later("wall", limits.wall_s, lambda: self._end("wall_limit"))
        if limits.idle_s is not None:
            self._later("idle", self._idle_step(limits.idle_s), self._look_idle)
        if limits.memory_bytes is not None or limits.processes is not None or limits.cpu_s is not None:
            self._later("sums", SUM_INTERVAL_S, self._look_sums)

    def stop(self) -> None:
        """Watch no more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _later(self, name: str, delay_s: float, callback: object) -> None:
        assert callable(callback)
        self._timers[name] = self._attempt.host.reactor.later(delay_s, callback)

    def _end(self, reason: str) -> None:
        self.stop()
        self._attempt.end(self._attempt.spec.grace_s, reason)

    @staticmethod
    def _idle_step(idle_s: float) -> float:
        return min(max(idle_s / 5, 0.05), 10.0)

    def _look_idle(self) -> None:
        limit_s = self._limits.idle_s
        if limit_s is None:
            return
        now, cpu_s = time.monotonic(), self._cpu_s()
        used_s = cpu_s - self._last_cpu_s
        if used_s > IDLE_CPU_SHARE * (now - self._looked_at):
            self._idle_since = now
        pipes = self._attempt.pipes
        if pipes is not None:
            # An agent whose output is not being read for the moment may be waiting for exactly that.
            self._idle_since = now if pipes.is_throttled else max(self._idle_since, pipes.last_output_at)
        # As it is, also where it is less than before: a higher mark would hide what is used from here on.
        self._last_cpu_s, self._looked_at = cpu_s, now
        if now - self._idle_since >= limit_s:
            self._end("idle_limit")
        else:
            self._later("idle", self._idle_step(limit_s), self._look_idle)

    def _look_sums(self) -> None:
        limits, tree = self._limits, self._attempt.tree
        if tree is None:
            return
        members = tree.members()
        if limits.processes is not None and len(members) > limits.processes:
            self._end_now("process_limit")
        elif limits.memory_bytes is not None and self._rss_bytes([m.rss_pages for m in members]) > limits.memory_bytes:
            self._end_now("memory_limit")
        elif limits.cpu_s is not None and self._cpu_s() > limits.cpu_s and self._cpu_s(max_age_s=0.0) > limits.cpu_s:
            # Looked at twice: who is waited for while the table is read may be counted there and with its parent.
            self._end("cpu_limit")
        else:
            self._later("sums", SUM_INTERVAL_S, self._look_sums)

    def _end_now(self, reason: str) -> None:
        # A fork bomb or a memory hog must not be given time to grow.
        self.stop()
        self._attempt.end(0.0, reason)

    @staticmethod
    def _rss_bytes(pages: list[int]) -> int:
        return sum(pages) * os.sysconf("SC_PAGE_SIZE")

    def _cpu_s(self, *, max_age_s: float = SNAPSHOT_AGE_S) -> float:
        attempt = self._attempt
        if attempt.leaf is not None:
            return attempt.leaf.cpu_usec() / 1e6
        ticks = attempt.tree.cpu_ticks(max_age_s=max_age_s) if attempt.tree is not None else 0
        return ticks / os.sysconf("SC_CLK_TCK")

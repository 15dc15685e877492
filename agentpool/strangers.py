"""Orphans of nobody known: processes that left their session and cleared their environment.

Such a process is a child of the subreaping worker and carries no nonce; where there are cgroups it has left its own,
or will be ended there. It is some agent's, so it is ended when every agent that lived when it was found has ended.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from agentpool.proctable import ProcessEntry, ProcessTable, descendants, environment_of
from agentpool.signalling import signal_process

#: Processes between fork and exec carry no environment of their own yet.
MIN_AGE_S = 1.0


class Strangers:
    """Keeps track of them between two looks."""

    def __init__(self, is_own: Callable[[int], bool]) -> None:
        self._is_own = is_own
        self._suspects: dict[tuple[int, int], set[str]] = {}
        self._first_seen: dict[tuple[int, int], float] = {}

    def look(self, agents: dict[str, str], leaders: set[int], table: ProcessTable) -> int:
        """Find strangers, end those whose possible owners are gone; how many were ended.

        ``agents`` maps the ids of living agents to their nonces, ``leaders`` are their first pids.
        """
        entries = table.entries(since=time.monotonic() - 1.0)
        found: dict[tuple[int, int], set[str]] = {}
        ended = 0
        now = time.monotonic()
        for entry in self._orphans(entries):
            key = (entry.pid, entry.start_ticks)
            if entry.session in leaders or entry.group in leaders:
                continue
            candidates = self._candidates(key, agents)
            first_seen = self._first_seen.setdefault(key, now)
            if candidates or now - first_seen < MIN_AGE_S:
                found[key] = candidates
                continue
            ended += self._end(entry, entries)
        self._suspects = found
        self._first_seen = {key: at for key, at in self._first_seen.items() if key in found}
        return ended

    def _candidates(self, key: tuple[int, int], agents: dict[str, str]) -> set[str]:
        """Which living agents it may be of: the one that its environment names, else those that it was found beside."""
        candidates = self._suspects.get(key, set(agents)) & agents.keys()
        if key in self._suspects and len(candidates) == 1:
            return candidates  # where each agent has orphans, reading them all again would hold up the worker
        environment = environment_of(key[0])
        return {agent for agent, nonce in agents.items() if nonce and nonce.encode() in environment} or candidates

    def kill_all(self, table: ProcessTable) -> None:
        """End every orphan: the worker leaves."""
        entries = table.entries()
        for entry in self._orphans(entries):
            self._end(entry, entries)

    def _orphans(self, entries: dict[int, ProcessEntry]) -> list[ProcessEntry]:
        me = os.getpid()
        return [e for e in entries.values() if e.ppid == me and e.state not in "ZX" and not self._is_own(e.pid)]

    @staticmethod
    def _end(entry: ProcessEntry, entries: dict[int, ProcessEntry]) -> int:
        below = [entries[pid] for pid in descendants(entries, [entry.pid])]
        return sum(signal_process(e.pid, e.start_ticks, signal.SIGKILL) for e in [entry, *below])

"""All processes of one attempt, wherever they have gone: what is left, and how to end it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from agentpool.cgroups import Leaf
from agentpool.messages import Survivors
from agentpool.proctable import ProcessEntry, ProcessTable, carries, children_of, descendants, read_entry
from agentpool.signalling import signal_process

#: How old a shared snapshot of the process table may be for a decision that is repeated anyway.
SNAPSHOT_AGE_S = 0.01


class Tree:
    """The tree of a leader. With a cgroup the kernel knows its members; else it is searched for.

    Who may write to the cgroup may leave it, as an agent of the same user can. So when it is empty, orphans that
    carry the attempt's nonce are members too.

    The search takes the leader's session and group, everything below them, everything below the
    leader that was seen earlier, and orphans of ours that carry the attempt's nonce.

    Args:
        leader, start_ticks: the first process, whose pid is also its group and session.
        nonce: what the environment of all its processes holds, unless they cleared it.
        leaf: its cgroup or None.
        table: snapshots shared by all attempts of this process.
        reaper: the pid to which orphans come (the worker, or the supervisor after a worker's death).
        is_leader: whether a pid is the leader of an attempt of its own, or another process of ours.
    """

    def __init__(
        self,
        leader: int,
        start_ticks: int,
        nonce: str,
        leaf: Leaf | None,
        table: ProcessTable,
        reaper: int,
        is_leader: Callable[[int], bool],
    ) -> None:
        self._leader = leader
        self._start_ticks = start_ticks
        self._nonce = nonce
        self._leaf = leaf
        self._table = table
        self._reaper = reaper
        self._is_leader = is_leader
        self._is_number_reused = False
        self._buried_ticks = 0
        self._seen: dict[int, int] = {}
        self._swept: set[tuple[int, int]] = set()

    def remember(self) -> None:
        """Note who belongs to the tree now, so that a later orphan without a nonce is still known."""
        if self._leaf is None:
            for entry in self._search():
                self._seen[entry.pid] = entry.start_ticks

    def is_empty(self, *, ignore_leader: bool = True) -> bool:
        """Whether no living process is left (beside the leader)."""
        if self._leaf is not None:
            if not self._leaf.is_populated():
                return not self._find_escaped()
            return ignore_leader and self._leaf.pids() == [self._leader]
        return not any(entry.pid != self._leader or not ignore_leader for entry in self._search())

    def terminate(self) -> None:
        """TERM to every member but the leader (whose group the caller signals)."""
        for entry in self.members():
            if entry.pid != self._leader:
                signal_process(entry.pid, entry.start_ticks, signal.SIGTERM)

    def terminate_inside(self) -> bool:
        """TERM to what runs inside a sandbox; False when nothing does (yet).

        The leader and its child, the first process inside, are bubblewrap's own: a TERM ends the one, which ends all
        that is inside at once, and means nothing to the other.
        """
        members = self.members()
        wrappers = {self._leader, *(entry.pid for entry in members if entry.ppid == self._leader)}
        inside = [entry for entry in members if entry.pid not in wrappers]
        for entry in inside:
            signal_process(entry.pid, entry.start_ticks, signal.SIGTERM)
        return bool(inside)

    def kill(self) -> None:
        """KILL every member, those that a fork adds meanwhile included where there is a cgroup."""
        is_in_cgroup = self._leaf is not None and self._leaf.is_populated()
        for entry in self.members():
            if entry.pid != self._leader or entry.start_ticks != self._start_ticks:
                self._swept.add((entry.pid, entry.start_ticks))
            if not is_in_cgroup:
                signal_process(entry.pid, entry.start_ticks, signal.SIGKILL)
        if self._leaf is not None:
            self._leaf.kill()

    def members(self) -> list[ProcessEntry]:
        """The living members, the leader too."""
        if self._leaf is None:
            found = self._search()
        else:
            entries = {pid: self._table_entry(pid) for pid in self._leaf.pids()}
            found = [entry for entry in entries.values() if entry is not None] or self._find_escaped()
        for entry in found:
            self._seen[entry.pid] = entry.start_ticks
        return found

    def bury(self, orphan: ProcessEntry) -> bool:
        """Whether a zombie that the reaper is about to wait for was a member; its CPU time is kept then."""
        is_ours = self._is_in_session(orphan) or self._seen.get(orphan.pid) == orphan.start_ticks
        if is_ours:
            self._buried_ticks += orphan.cpu_ticks
        return is_ours

    def cpu_ticks(self, *, max_age_s: float = SNAPSHOT_AGE_S) -> int:
        """CPU time of the tree in clock ticks: of the members and all that they, or the reaper, waited for.

        Not of what ended while its parent ignored SIGCHLD, for that is nowhere. An orphan that was buried since the
        table was read, at most ``max_age_s`` ago, is counted twice.
        """
        found = self._find(max_age_s)
        for entry in found:
            self._seen[entry.pid] = entry.start_ticks
        return self._buried_ticks + sum(entry.cpu_ticks for entry in found)

    def survivors(self, *, was_empty: bool = False) -> Survivors:
        """What is left now, how that was checked, and how many were killed beside the leader.

        ``was_empty``: it was seen to be empty when its leader had been reaped. Nothing comes into a cgroup after
        that, because only a member could have forked it; so there is no second look.
        """
        if self._leaf is not None:
            count = 0 if was_empty else len(self._leaf.pids() or self._find_escaped())
            return Survivors(count=count, checked_by=("cgroup",), swept=len(self._swept))
        found = self._search()
        return Survivors(count=len(found), checked_by=("session", "descendants", "nonce"), swept=len(self._swept))

    def _find_escaped(self) -> list[ProcessEntry]:
        orphans = (pid for pid in children_of(self._reaper) if not self._is_leader(pid))
        escaped = {pid for pid in orphans if carries(pid, self._nonce)}
        if not escaped:
            return []
        entries = self._table.entries()
        escaped |= descendants(entries, escaped)
        return [entries[pid] for pid in escaped if pid in entries and entries[pid].state not in "ZX"]

    def _table_entry(self, pid: int) -> ProcessEntry | None:
        entry = read_entry(pid)
        return entry if entry is not None and entry.state not in "ZX" else None

    def _search(self) -> list[ProcessEntry]:
        return [entry for entry in self._find() if entry.state not in "ZX"]

    def _find(self, max_age_s: float = SNAPSHOT_AGE_S) -> list[ProcessEntry]:
        """The members; zombies too, where a member is their parent."""
        entries = self._table.entries(since=time.monotonic() - max_age_s)
        self._note_reuse(entries.get(self._leader))
        found = {pid for pid, entry in entries.items() if self._belongs(entry)}
        found |= descendants(entries, found)
        members = (entries[pid] for pid in found if not (pid != self._leader and self._is_leader(pid)))
        return [entry for entry in members if entry.start_ticks >= self._start_ticks]

    def _note_reuse(self, entry: ProcessEntry | None) -> None:
        # The kernel gives a number away only when no session and no group has it any more: from then on whoever
        # is in the session or group of that number is a stranger, also after the one that got it has ended.
        if entry is not None and self._start_ticks and entry.start_ticks != self._start_ticks:
            self._is_number_reused = True

    def _is_in_session(self, entry: ProcessEntry) -> bool:
        return not self._is_number_reused and self._leader in (entry.session, entry.group, entry.pid)

    def _belongs(self, entry: ProcessEntry) -> bool:
        if entry.start_ticks < self._start_ticks or entry.state in "ZX":
            return False
        if self._is_in_session(entry):
            return True
        if self._seen.get(entry.pid) == entry.start_ticks:
            return True
        is_orphan = entry.ppid in (self._reaper, 1) and not self._is_leader(entry.pid)
        return is_orphan and carries(entry.pid, self._nonce)

"""Ends processes whose keeper is gone: a worker's agents after its death, a killed supervisor's at the next start."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Iterable

import msgspec

from agentpool.base import Leftover, Settled
from agentpool.cgroups import Leaf
from agentpool.messages import Survivors
from agentpool.proctable import ProcessEntry, ProcessTable, descendants, is_alive, read_entry, snapshot
from agentpool.signalling import signal_process
from agentpool.tree import Tree
from agentpool.zygote import max_rss_bytes, next_exited

#: How long dying processes are waited for.
LIMIT_S = 5.0
LOOK_S = 0.01
#: What an earlier supervisor's agents get between TERM and KILL: their work has no reader any more.
SETTLE_GRACE_S = 0.5
#: No process has this pid or leads this session.
NOBODY = -1


class Keepless(msgspec.Struct, frozen=True, kw_only=True):
    """An agent whose worker is gone; ``pid`` is None when its start was never reported."""

    agent_id: str
    pid: int | None
    start_ticks: int
    nonce: str
    leaf_path: str | None


class Swept(msgspec.Struct, frozen=True, kw_only=True):
    """What remains of an agent's tree, and what it used; None where nobody could measure it."""

    survivors: Survivors
    cpu_seconds: float | None
    max_rss_bytes: int | None


def sweep(agents: list[Keepless], *, also_reap: Iterable[int] = ()) -> dict[str, Swept]:
    """KILL all processes of agents whose worker died, until none is left; by agent, what remains.

    Blocks for at most LIMIT_S; to be run in a thread. Their orphans come to this process when it is a
    subreaper, and are reaped here. ``also_reap`` are the worker's zygotes, which die with it: as long as one is
    dying, a child that it forked last may enter its cgroup and find that its parent lives, so nothing is over before.
    """
    table = ProcessTable()
    me = os.getpid()
    trees: dict[str, Tree] = {}
    leaves: dict[str, Leaf] = {}
    usages: dict[int, resource.struct_rusage] = {}
    for agent in agents:
        leaf = Leaf(agent.leaf_path) if agent.leaf_path is not None and os.path.isdir(agent.leaf_path) else None
        pid = NOBODY if agent.pid is None else agent.pid
        trees[agent.agent_id] = Tree(pid, agent.start_ticks, agent.nonce, leaf, table, me, _nobody)
        if leaf is not None:
            leaves[agent.agent_id] = leaf
    # Not by the number alone: a child of our own may have it by now, whose end is its owner's to see.
    reapable = {agent.pid for agent in agents if agent.pid is not None and _is_same(agent.pid, agent.start_ticks)}
    zygotes = set(also_reap)
    deadline = time.monotonic() + LIMIT_S
    pending = dict(trees)
    while (pending or zygotes) and time.monotonic() < deadline:
        are_zygotes_gone = reap(zygotes)  # before the looks, which are the last ones then
        for agent_id, tree in list(pending.items()):
            members = tree.members()
            if not members:
                if are_zygotes_gone:
                    del pending[agent_id]
                continue
            reapable.update(entry.pid for entry in members)
            tree.kill()
        reap(reapable, usages)
        if pending or zygotes:
            time.sleep(LOOK_S)
    while reapable and time.monotonic() < deadline and not reap(reapable, usages):
        time.sleep(LOOK_S)
    return {
        agent.agent_id: _swept(trees[agent.agent_id], leaves.get(agent.agent_id), usages.get(agent.pid or NOBODY))
        for agent in agents
    }


def _swept(tree: Tree, leaf: Leaf | None, leader: resource.struct_rusage | None) -> Swept:
    """What remains of one agent and what it used; its cgroup is removed.

    Of the processes it is only the leader's usage: what each of the others used is in its sum where it was waited for,
    or in the cgroup's.
    """
    cpu_seconds = [leaf.cpu_usec() / 1e6] if leaf is not None else []
    cpu_seconds += [leader.ru_utime + leader.ru_stime] if leader is not None else []
    swept = Swept(
        survivors=tree.survivors(),
        cpu_seconds=max(cpu_seconds) if any(cpu_seconds) else None,
        max_rss_bytes=max_rss_bytes(leader.ru_maxrss) if leader is not None else None,
    )
    if leaf is not None:
        leaf.remove()
    return swept


def reap(pids: set[int], usages: dict[int, resource.struct_rusage] | None = None) -> bool:
    """Collect those of ``pids`` that are dead children of ours, taking out all that need no more waiting.

    What they used, with what they had waited for, is put into ``usages``. True when none is left to wait for.
    """
    for pid in list(pids):
        try:
            done, _, usage = os.wait4(pid, os.WNOHANG)
        except ChildProcessError:
            pids.discard(pid)
        else:
            if done:
                pids.discard(pid)
                if usages is not None:
                    usages[pid] = usage
    return not pids


class OrphanReaper:
    """Buries orphans that come to the supervisor, a subreaper, after a worker's death.

    Its own children are its own business: only a zombie of another session that was there at the last look
    too, and so is waited for by nobody, is collected.
    """

    def __init__(self) -> None:
        self._seen: set[tuple[int, int]] = set()

    def look(self) -> int:
        """How many were buried. Without any zombie this is one system call."""
        if not next_exited():
            self._seen.clear()
            return 0
        me, session = os.getpid(), os.getsid(0)
        zombies = {
            (entry.pid, entry.start_ticks)
            for entry in snapshot().values()
            if entry.state == "Z" and entry.ppid == me and entry.session != session
        }
        abandoned = zombies & self._seen
        self._seen = zombies - abandoned
        reap({pid for pid, _ in abandoned})
        return len(abandoned)


def settle(leftovers: list[Leftover]) -> list[Settled]:
    """End what an earlier supervisor left running; blocks for at most a few seconds, to be run in a thread.

    A process is touched only when it carries a leftover's nonce in the environment that it was started
    with, or is in a session or below a process that was shown to be such a one's.
    """
    alive = {item.nonce: is_alive(item.pid, item.start_ticks) for item in leftovers}
    ended: dict[str, set[tuple[int, int]]] = {item.nonce: set() for item in leftovers}
    left: dict[str, list[ProcessEntry]] = {}
    started = time.monotonic()
    while time.monotonic() - started < LIMIT_S:
        left = {nonce: found for nonce, found in find_by_nonce(leftovers).items() if found}
        if not left:
            break
        is_late = time.monotonic() - started >= SETTLE_GRACE_S
        for nonce, entries in left.items():
            for entry in entries:
                key = (entry.pid, entry.start_ticks)
                if is_late or key not in ended[nonce]:
                    signal_process(*key, signal.SIGKILL if is_late else signal.SIGTERM)
                ended[nonce].add(key)
        time.sleep(LOOK_S * 5)
    return [
        Settled(
            agent_id=item.agent_id,
            attempt=item.attempt,
            was_alive=alive[item.nonce] and bool(ended[item.nonce]),
            ended=len(ended[item.nonce]),
            survivors=len(left.get(item.nonce, ())),
        )
        for item in leftovers
    ]


def find_by_nonce(leftovers: list[Leftover]) -> dict[str, list[ProcessEntry]]:
    """The living processes of each leftover, by nonce; one pass over the process table for all of them."""
    entries = snapshot()
    wanted = {item.nonce.encode(): item for item in leftovers if item.nonce}
    sessions: dict[int, str] = {}
    owner: dict[int, str] = {}
    for entry in entries.values():
        if entry.state in "ZX" or entry.pid == os.getpid():
            continue
        environment = _environment(entry.pid)
        for encoded, item in wanted.items():
            if encoded in environment:
                owner[entry.pid] = item.nonce
                if entry.session == item.pid:
                    sessions[entry.session] = item.nonce
                break
    for entry in entries.values():
        if entry.session in sessions:
            owner.setdefault(entry.pid, sessions[entry.session])
    for pid, nonce in list(owner.items()):
        for below in descendants(entries, [pid]):
            owner.setdefault(below, nonce)
    found: dict[str, list[ProcessEntry]] = {}
    for pid, nonce in owner.items():
        if entries[pid].state not in "ZX" and pid != os.getpid():
            found.setdefault(nonce, []).append(entries[pid])
    return found


def _environment(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read()
    except OSError:
        return b""


def _is_same(pid: int, start_ticks: int) -> bool:
    entry = read_entry(pid)
    return entry is not None and (entry.start_ticks == start_ticks or not start_ticks)


def _nobody(_pid: int) -> bool:
    return False

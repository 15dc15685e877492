"""The entry point of a pool worker: a process of its own that starts, reads, feeds, limits and ends agents.

It keeps to the standard library and msgspec, has one thread and never waits for anything but its loop.
When the supervisor's end of the channel closes, it ends all its agents and itself.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import socket
import sys
import traceback
from multiprocessing.connection import Connection

from agentpool.attempt import Attempt, LeaderExit
from agentpool.cgroups import Leaf
from agentpool.channel import Channel
from agentpool.config import WorkerConfig
from agentpool.disk import Rations
from agentpool.errors import ProtocolViolation
from agentpool.messages import (
    CloseInput,
    Command,
    Fact,
    Feed,
    Input,
    InputState,
    Kill,
    Ping,
    Pong,
    Shutdown,
    Spawn,
    WorkerReady,
    ZygoteStarted,
)
from agentpool.platforms import ProcessFlags
from agentpool.proctable import ProcessTable, children_of, read_entry
from agentpool.reactor import READ, WRITE, Reactor
from agentpool.sandbox import Sandbox
from agentpool.spawning import Spawner
from agentpool.strangers import Strangers
from agentpool.zygote import max_rss_bytes, next_exited
from agentpool.zygotes import Left, ZygoteLink

#: So many facts go up in one piece, and wake the supervisor once; fewer when the turn of the loop is over.
FACTS_AT_ONCE = 8
#: Output positions go up this often while they change.
POSITION_INTERVAL_S = 0.25
#: What agents get between TERM and KILL when the supervisor is gone: all must have ended within 5 s.
ORPHANED_GRACE_S = 1.0
ORPHANED_LIMIT_S = 4.0
STRANGER_INTERVAL_S = 2.0
#: After a zygote's death its children's exits come as ours; this long after, a missing one is given up.
ZYGOTE_EXIT_WAIT_S = 0.5


class Worker:
    """All state of the process."""

    def __init__(self, channel: Channel, config: WorkerConfig) -> None:
        self.config = config
        self.reactor = Reactor()
        self.rations = Rations(config.disk_reserve_bytes)
        self.table = ProcessTable()
        self.flags = ProcessFlags()
        self.sandbox = Sandbox()
        self.spawner = Spawner(self._move_home(), has_warden=config.has_warden)
        self._channel = channel
        self._attempts: dict[str, Attempt] = {}
        self._leaders: dict[int, Attempt] = {}
        self._pids: set[int] = set()
        self._moved: set[Attempt] = set()
        self._zygote: ZygoteLink | None = None
        self._strangers = Strangers(self.is_own)
        self._is_flushing = False
        self._is_stopping = False
        self._is_relieving = False
        self._is_terminated = False

    def run(self) -> None:
        """Serve until told to stop or abandoned."""
        is_subreaper = self.flags.become_subreaper()
        self.reactor.on_child(self._reap)
        signal.signal(signal.SIGTERM, self._terminate)
        self.reactor.watch(self._channel.fileno(), READ, self._on_channel)
        if self.config.warm_python:
            self.zygote()
        features = ["subreaper"] if is_subreaper else []
        if self.config.cgroup_dir is not None:
            features += ["cgroup", *self.config.controllers]
        self.reactor.later(STRANGER_INTERVAL_S, self._look_for_strangers)
        gc.collect()
        gc.freeze()
        self.emit(WorkerReady(pid=os.getpid(), features=tuple(features)))
        self.reactor.run()

    def _move_home(self) -> str | None:
        """Put this process into a cgroup leaf of its own, beside its agents'; the file to come back by."""
        if self.config.cgroup_dir is None:
            return None
        home = Leaf.make(self.config.cgroup_dir, f"worker-{self.config.index}-{os.getpid()}", {})
        return home.entrance if home is not None and home.enter() else None

    # -- what attempts use --------------------------------------------------------------------------

    def emit(self, fact: Fact) -> None:
        """Send a fact up, at the latest with the end of this turn."""
        self._channel.queue(fact)
        if self._channel.queued >= FACTS_AT_ONCE:
            self._flush()
        elif not self._is_flushing:
            self._is_flushing = True
            self.reactor.later(0.0, self._flush)

    def _flush(self) -> None:
        self._is_flushing = False
        if not self._channel.is_closed:
            self._channel.flush()
            self._watch_channel()

    def is_congested(self) -> bool:
        """Whether the supervisor is behind."""
        if self._channel.is_full:
            self._is_relieving = True
            return True
        return False

    def adopt(self, pid: int, attempt: Attempt) -> None:
        """A child of ours leads this attempt."""
        self._leaders[pid] = attempt
        self._pids.add(pid)

    def is_own(self, pid: int) -> bool:
        """Whether a pid leads an attempt, until it has been reaped, or is the zygote."""
        return pid in self._pids or (self._zygote is not None and pid == self._zygote.pid)

    def claim(self, pid: int) -> None:
        """A zygote's child leads an attempt."""
        self._pids.add(pid)

    def zygote(self) -> ZygoteLink:
        """The parent of warm agents, started when it is first needed and after it was lost."""
        if self._zygote is None or self._zygote.is_lost:
            self._zygote = ZygoteLink(self.reactor, self, self.config)
            self.emit(ZygoteStarted(pid=self._zygote.pid))
        return self._zygote

    def mark_output(self, attempt: Attempt) -> None:
        """Its positions are to go up."""
        if not self._moved:
            self.reactor.later(POSITION_INTERVAL_S, self._report_positions)
        self._moved.add(attempt)

    def finished(self, attempt: Attempt) -> None:
        """It is over."""
        self._moved.discard(attempt)
        if self._attempts.get(attempt.spec.agent_id) is attempt:
            del self._attempts[attempt.spec.agent_id]
        if self._is_stopping and not self._attempts:
            self._leave()

    # -- commands -----------------------------------------------------------------------------------

    def _on_channel(self, events: int) -> None:
        if events & WRITE:
            self._channel.flush()
            self._watch_channel()
        if not events & READ:
            return
        try:
            commands = self._channel.receive()
        except ProtocolViolation:
            commands = None
        if commands is None:
            self._abandoned()
            return
        for command in commands:
            self._obey(command)  # type: ignore[arg-type]

    def _obey(self, command: Command) -> None:
        if isinstance(command, Spawn):
            attempt = Attempt(self, command.spec)
            self._attempts[command.spec.agent_id] = attempt
            attempt.begin()
        elif isinstance(command, Ping):
            self.emit(Pong(sequence=command.sequence, agents=len(self._attempts)))
        elif isinstance(command, Shutdown):
            self._shut_down(command.grace_s, "shutdown")
        elif isinstance(command, Kill):
            target = self._attempts.get(command.agent_id)
            if target is not None:
                target.kill(command.grace_s, command.reason)
        elif isinstance(command, Input):
            target = self._attempts.get(command.agent_id)
            if target is not None and target.pipes is not None:
                target.pipes.send(command.message_id, command.line)
            else:
                ids = {"agent_id": command.agent_id, "message_id": command.message_id}
                self.emit(InputState(**ids, state="dead", reason="agent_ended"))
        elif isinstance(command, Feed):
            for agent_id in command.agent_ids:
                target = self._attempts.get(agent_id)
                if target is not None and target.pipes is not None:
                    target.pipes.feed(command)
        elif isinstance(command, CloseInput):
            target = self._attempts.get(command.agent_id)
            if target is not None and target.pipes is not None:
                target.pipes.close_input()

    def _watch_channel(self) -> None:
        if self._channel.is_closed:
            return
        events = READ | WRITE if self._channel.wants_write else READ
        self.reactor.watch(self._channel.fileno(), events, self._on_channel)
        if self._is_relieving and not self._channel.is_full:
            self._is_relieving = False
            for attempt in list(self._attempts.values()):
                if attempt.pipes is not None:
                    attempt.pipes.relieve()
            self._report_positions()

    def _report_positions(self) -> None:
        if self.is_congested():
            return  # they go up once the supervisor has caught up: of each stream the newest alone matters
        moved, self._moved = self._moved, set()
        for attempt in moved:
            if attempt.pipes is not None:
                self.emit(attempt.pipes.positions())

    # -- children -----------------------------------------------------------------------------------

    def _terminate(self, _number: int, _frame: object) -> None:
        # multiprocessing ends daemonic children so when the program exits without having stopped the pool.
        self._is_terminated = True

    def _reap(self) -> None:
        if self._is_terminated and not self._is_stopping:
            self._abandoned()
        while (pid := next_exited()) is not None:
            attempt = self._leaders.get(pid)
            if attempt is not None:
                attempt.before_reap()
            elif pid and self.config.cgroup_dir is None:
                self._note_orphan(pid)
            try:
                pid, status, usage = os.wait4(pid or -1, 0 if pid else os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._pids.discard(pid)  # now, for the number may be another's before the attempt is over
            attempt = self._leaders.pop(pid, None)
            if attempt is None:
                continue  # an orphan of some agent's; its tree is swept by that agent's end
            code = os.waitstatus_to_exitcode(status)
            attempt.leader_exited(
                LeaderExit(
                    exit_code=code if code >= 0 else None,
                    signal=-code if code < 0 else None,
                    cpu_seconds=usage.ru_utime + usage.ru_stime,
                    max_rss_bytes=max_rss_bytes(usage.ru_maxrss),
                )
            )

    def _note_orphan(self, pid: int) -> None:
        """Keep the CPU time of a zombie for its agent's limits: nobody of its tree waits for it."""
        entry = read_entry(pid)
        if entry is None:
            return
        for attempt in self._attempts.values():
            tree = attempt.current.tree
            if tree is not None and tree.bury(entry):
                return

    def zygote_left(self, attempt: Attempt, left: Left) -> None:
        """A warm agent ended."""
        self._pids.discard(attempt.pid)
        attempt.left(
            LeaderExit(
                exit_code=left.exit_code,
                signal=left.signal,
                cpu_seconds=left.cpu_seconds,
                max_rss_bytes=left.max_rss_bytes,
            )
        )

    def zygote_lost(self, link: ZygoteLink, orphans: list[Attempt]) -> None:
        """Its children die with it and come to us, the next subreaper; their exits are read here."""
        for attempt in orphans:
            attempt.lose_zygote()
            self.adopt(attempt.pid, attempt)

        def give_up() -> None:
            for attempt in orphans:
                entry = read_entry(attempt.pid)
                if attempt.exit is None and (entry is None or entry.ppid != os.getpid()):
                    self._leaders.pop(attempt.pid, None)
                    self._pids.discard(attempt.pid)
                    attempt.left(LeaderExit(exit_code=None, signal=None))

        self._reap()
        self.reactor.later(ZYGOTE_EXIT_WAIT_S, give_up)

    def _look_for_strangers(self) -> None:
        self.reactor.later(STRANGER_INTERVAL_S, self._look_for_strangers)
        # Where there are cgroups hardly any process leaves its own; the table need not be read to see that none has.
        if self.config.cgroup_dir is not None and all(map(self.is_own, children_of(os.getpid()))):
            return
        alive = {attempt.spec.agent_id: attempt.spec.nonce for attempt in self._attempts.values()}
        leaders = {attempt.current.pid for attempt in self._attempts.values()}
        self._strangers.look(alive, leaders, self.table)

    # -- end ----------------------------------------------------------------------------------------

    def _shut_down(self, grace_s: float, reason: str) -> None:
        self._is_stopping = True
        for attempt in list(self._attempts.values()):
            attempt.kill(min(grace_s, attempt.spec.grace_s), reason)
        if not self._attempts:
            self._leave()

    def _abandoned(self) -> None:
        self.reactor.forget(self._channel.fileno())
        self._channel.close()
        self.reactor.later(ORPHANED_LIMIT_S, self._leave)
        self._shut_down(ORPHANED_GRACE_S, "supervisor_lost")

    def _leave(self) -> None:
        for attempt in list(self._attempts.values()):
            attempt.kill_tree()
        self._strangers.kill_all(self.table)
        if self._zygote is not None:
            self._zygote.close()
            for attempt in list(self._attempts.values()):
                attempt.kill_leaf()  # forked, perhaps, and not yet told
        if not self._channel.is_closed:
            os.set_blocking(self._channel.fileno(), True)
            self._channel.flush()
            self._channel.close()
        self.reactor.stop()


def _keep_descriptors() -> None:
    """What multiprocessing handed to this process must not go on to agents."""
    directory = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    for name in os.listdir(directory):
        if int(name) > 2:
            try:
                os.set_inheritable(int(name), False)
            except OSError:
                pass  # the descriptor of the listing itself


def main(connection: Connection, config: WorkerConfig, trace: Connection, tether: Connection | None = None) -> None:
    """Run a worker in this process.

    Args:
        connection: this end of the private pair.
        config: see WorkerConfig.
        trace: where a traceback goes when the process crashes or is aborted for hanging (only its descriptor is used).
        tether: held open to the end of this process, for nothing but that (see ``warden``).
    """
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    trace_fd = trace.fileno()
    _keep_descriptors()
    faulthandler.enable(file=trace_fd)
    sock = socket.socket(fileno=os.dup(connection.fileno()))
    connection.close()
    try:
        Worker(Channel.for_worker(sock, bound=config.outgoing_bytes), config).run()
    except BaseException:  # noqa: BLE001 - the edge of the process
        # The supervisor sees the end of the channel and replaces this worker.
        os.write(trace_fd, traceback.format_exc().encode("utf-8", "backslashreplace"))
        sys.stderr.flush()
        os._exit(70)  # EX_SOFTWARE of sysexits(3)
    os._exit(0)

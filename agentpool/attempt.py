"""One attempt of one agent inside a worker: its start, its pipes, its input, its limits, its end."""

from __future__ import annotations

import os
import signal
import time
from typing import Protocol

import msgspec

from agentpool import launching, zygotes
from agentpool.cgroups import Leaf
from agentpool.config import WorkerConfig
from agentpool.ending import Ending
from agentpool.errors import LaunchFailed, UnknownRuntime
from agentpool.lines import LineSplitter
from agentpool.messages import (
    AgentExited,
    AgentLaunchFailed,
    AgentOutput,
    AgentRecord,
    AgentStarted,
    Fact,
    InputState,
    Usage,
)
from agentpool.platforms import ProcessFlags
from agentpool.proctable import ProcessTable, read_entry
from agentpool.pump import Pump
from agentpool.reactor import READ, WRITE, Reactor
from agentpool.runtimes import LineParser, get_runtime
from agentpool.sandbox import Sandbox
from agentpool.specs import LaunchSpec
from agentpool.stdin import StdinQueue
from agentpool.streams import OutputLog, log_path
from agentpool.tree import Tree
from agentpool.watchdog import Watchdog


class Host(Protocol):
    """What an attempt needs of its worker."""

    config: WorkerConfig
    reactor: Reactor
    table: ProcessTable
    flags: ProcessFlags
    sandbox: Sandbox

    def emit(self, fact: Fact) -> None:
        """Send a fact up."""

    def is_congested(self) -> bool:
        """Whether what can wait should not be sent now."""

    def adopt(self, pid: int, attempt: Attempt) -> None:
        """The attempt's leader is this child of the worker."""

    def claim(self, pid: int) -> None:
        """A pid leads an attempt, whoever its parent is."""

    def is_own(self, pid: int) -> bool:
        """Whether a pid leads an attempt, or is another process of the worker's."""

    def zygote(self) -> zygotes.ZygoteLink:
        """The parent of warm Python agents."""

    def mark_output(self, attempt: Attempt) -> None:
        """Its streams moved; positions go up a few times a second."""

    def finished(self, attempt: Attempt) -> None:
        """It is over and may be forgotten."""


class LeaderExit(msgspec.Struct, frozen=True, kw_only=True):
    """How the first process of an attempt ended."""

    exit_code: int | None
    signal: int | None
    cpu_seconds: float = 0.0
    max_rss_bytes: int = 0


class Attempt:
    """From ``begin`` to the fact AgentExited (or AgentLaunchFailed, when nothing ever ran)."""

    def __init__(self, host: Host, spec: LaunchSpec) -> None:
        self.host = host
        self.spec = spec
        self.pid = 0
        self.leaf: Leaf | None = None
        self.tree: Tree | None = None
        self.exit: LeaderExit | None = None
        self.last_output_at = time.monotonic()
        self.is_over = False
        self._logs: dict[str, OutputLog] = {}
        self._pumps: list[Pump] = []
        self._stdin: StdinQueue | None = None
        self._plan: launching.LaunchPlan | None = None
        self._status = -1
        self._ending = Ending(self)
        self._watchdog: Watchdog | None = None
        self._is_warm = False
        self._parser: LineParser | None = None

    # -- start ------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start it; AgentStarted or AgentLaunchFailed follows."""
        try:
            self._begin()
        except LaunchFailed as error:
            self._fail(error)
        except UnknownRuntime as error:
            self._fail(LaunchFailed("not_found", str(error), command=self.spec.runtime, is_permanent=True))
        except OSError as error:
            text = f"{self._command}: {error.strerror or error}"
            self._fail(LaunchFailed("resources", text, command=self._command, is_permanent=False))

    @property
    def _command(self) -> str:
        return self.spec.argv[0] if self.spec.argv else ""

    def _begin(self) -> None:
        spec = self.spec
        self._runtime = get_runtime(spec.runtime)
        self._is_warm = self._runtime.is_warm and spec.sandbox == "none"
        invocation = self._runtime.invocation(spec)
        if self._is_warm:
            program, argv = "", invocation.argv
            zygotes.check_target(argv, spec.workspace)
        else:
            if self._runtime.is_warm:
                invocation = zygotes.cold_invocation(invocation)
            argv = self.host.sandbox.wrap(spec, invocation)
            program = launching.find_program(argv, invocation.env, spec.workspace)
            if argv is not invocation.argv:
                launching.find_program(invocation.argv, invocation.env, spec.workspace)
        launching.check_limits(spec.limits, self._command)
        for stream in ("stdout", "stderr"):
            self._logs[stream] = OutputLog(spec.record_dir, stream, spec.limits.output_bytes)
        self._make_leaf()
        rlimits = launching.rlimits_of(spec.limits, self._processes_now())
        self._plan = launching.LaunchPlan(
            program=program,
            argv=argv,
            env=invocation.env,
            cwd=spec.workspace,
            rlimits=rlimits,
            nice=spec.limits.nice,
            has_stdin=self._runtime.has_stdin,
            entrance=self.leaf.entrance if self.leaf else None,
        )
        if self._is_warm:
            self._open(self.host.zygote().fork(self._plan, self))
            return
        started = launching.start(self._plan, self.host.flags)
        self._open(started.pipes)
        self._status = started.status
        self.pid = started.pid
        self.host.adopt(started.pid, self)
        self.host.reactor.watch(started.status, READ, self._on_status)

    def _make_leaf(self) -> None:
        config = self.host.config
        if config.cgroup_dir is None:
            return
        limits: dict[str, int] = {}
        if self.spec.limits.memory_bytes is not None and "memory" in config.controllers:
            limits["memory.max"] = self.spec.limits.memory_bytes
        if self.spec.limits.processes is not None and "pids" in config.controllers:
            limits["pids.max"] = self.spec.limits.processes
        self.leaf = Leaf.make(config.cgroup_dir, leaf_name(self.spec), limits)

    def _processes_now(self) -> int:
        if self.spec.limits.processes is None:
            return 0
        return len(self.host.table.entries(since=time.monotonic() - 1.0))

    def _open(self, pipes: launching.Pipes) -> None:
        self._parser = parser = self._runtime.parser()
        self._splitter = LineSplitter(self._logs["stdout"].position)
        consume = self._consume if parser is not None else None
        reactor = self.host.reactor
        self._stdout = Pump(reactor, pipes.stdout, self._logs["stdout"], consume, self._on_moved)
        stderr = Pump(reactor, pipes.stderr, self._logs["stderr"], None, self._on_moved)
        self._pumps = [self._stdout, stderr]
        if pipes.stdin is not None:
            self._stdin = StdinQueue(pipes.stdin, self.host.config.input_bytes, self._report_input, reactor.forget)

    def _on_status(self, _events: int) -> None:
        if self._status < 0:
            return
        try:
            report = os.read(self._status, 256)
        except BlockingIOError:
            return
        self.host.reactor.forget(self._status)
        os.close(self._status)
        self._status = -1
        if report and self._plan is not None:
            self._fail(launching.explain(report, self._plan))
        else:
            self.started(self.pid)

    def started(self, pid: int) -> None:
        """The leader runs its program."""
        self.pid = pid
        self.host.claim(pid)
        entry = read_entry(pid)
        ticks = entry.start_ticks if entry is not None else 0
        host, spec = self.host, self.spec
        self.tree = Tree(pid, ticks, spec.nonce, self.leaf, host.table, os.getpid(), host.is_own)
        host.emit(AgentStarted(agent_id=spec.agent_id, attempt=spec.attempt, pid=pid, start_ticks=ticks))
        for pump in self._pumps:
            pump.begin()
        self._watchdog = Watchdog(self, spec.limits)
        self._ending.started()

    def fail_launch(self, error: LaunchFailed) -> None:
        """Nothing runs; give everything back and say why."""
        self._fail(error)

    def _fail(self, error: LaunchFailed) -> None:
        spec = self.spec
        self._release()
        for stream, log in self._logs.items():
            if log.position == 0:
                try:
                    os.unlink(log_path(spec.record_dir, stream))
                except OSError:
                    pass
        self.is_over = True
        self.host.emit(
            AgentLaunchFailed(
                agent_id=spec.agent_id,
                attempt=spec.attempt,
                reason=error.reason,
                message=str(error),
                command=error.command,
                is_permanent=error.is_permanent,
            )
        )
        self.host.finished(self)

    # -- while it runs ------------------------------------------------------------------------------

    def send(self, message_id: str, line: bytes) -> None:
        """Queue a line of the native protocol for its stdin."""
        if self._stdin is None:
            self._report_input(message_id, "dead", "no_stdin")
            return
        self._stdin.put(message_id, self._runtime.encode_input(line))
        self._watch_stdin()

    def close_input(self) -> None:
        """Close its stdin once what waits is written."""
        if self._stdin is not None:
            self._stdin.finish()
            self._watch_stdin()

    def relieve(self) -> None:
        """The channel has room again: read on."""
        for pump in self._pumps:
            pump.resume()

    def positions(self) -> AgentOutput:
        """How far the logs are."""
        return AgentOutput(
            agent_id=self.spec.agent_id,
            attempt=self.spec.attempt,
            stdout_bytes=self._logs["stdout"].position,
            stderr_bytes=self._logs["stderr"].position,
        )

    def signal_leader(self, number: int) -> None:
        """Signal the leader's group; only while the leader is unreaped."""
        if self.exit is not None or not self.pid:
            return
        if self._is_warm:
            self.host.zygote().signal(self.pid, number)
            return
        if self._status >= 0:
            os.kill(self.pid, number)  # its session may not exist yet
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            pass

    def _watch_stdin(self) -> None:
        queue = self._stdin
        if queue is None or queue.fd is None:
            return
        if queue.wants_write:
            self.host.reactor.watch(queue.fd, WRITE, self._on_stdin_ready)
        else:
            self.host.reactor.forget(queue.fd)

    def _on_stdin_ready(self, _events: int) -> None:
        if self._stdin is not None:
            self._stdin.flush()
            self._watch_stdin()

    def _report_input(self, message_id: str, state: str, reason: str) -> None:
        agent_id = self.spec.agent_id
        self.host.emit(InputState(agent_id=agent_id, message_id=message_id, state=state, reason=reason))

    def _on_moved(self) -> None:
        self.last_output_at = time.monotonic()
        self.host.mark_output(self)

    def _consume(self, data: bytes) -> None:
        spec = self.spec
        parser = self._parser
        for line in self._splitter.feed(data):
            for record in parser.feed(line) if parser is not None else ():
                if record.kind == "ack" and self._take_ack(record.payload):
                    continue
                self.host.emit(
                    AgentRecord(
                        agent_id=spec.agent_id,
                        attempt=spec.attempt,
                        kind=record.kind,
                        offset=line.offset,
                        payload=record.payload,
                    )
                )
        if self.host.is_congested():
            self._stdout.pause()

    def _take_ack(self, payload: bytes) -> bool:
        message_id = msgspec.json.decode(payload).get("message_id")
        return self._stdin is not None and self._stdin.acknowledge(message_id)

    # -- end ----------------------------------------------------------------------------------------

    def kill(self, grace_s: float, reason: str) -> None:
        """Begin to end it."""
        self._ending.begin(grace_s, reason)

    def before_reap(self) -> None:
        """The leader is dead and not yet reaped: its group's number is still its own."""
        if self._status >= 0:
            self._on_status(0)
        if self.tree is not None and not self.is_over:
            self._ending.leader_died()

    def leader_exited(self, leader_exit: LeaderExit) -> None:
        """The leader has been reaped."""
        self.exit = leader_exit
        if not self.is_over:
            self._ending.leader_reaped()

    def left(self, leader_exit: LeaderExit) -> None:
        """The leader was another process's child, which has reaped it and sent TERM to its group."""
        self.exit = leader_exit
        if not self.is_over:
            self._ending.leader_died()
            self._ending.leader_reaped()

    def lose_zygote(self) -> None:
        """Its parent died; it is the worker's child now."""
        self._is_warm = False

    def over(self, ended_by: str) -> None:
        """The tree is gone: drain, give everything back, and report the end."""
        assert self.tree is not None
        assert self.exit is not None
        for pump in self._pumps:
            pump.drain()
        survivors = self.tree.survivors()
        usage = self._usage(self.exit)
        tails = {stream: log.tail() for stream, log in self._logs.items()}
        truncated = {s: log.truncated_at for s, log in self._logs.items() if log.truncated_at is not None}
        verdict = self._parser.verdict() if self._parser is not None else None
        ended_by = ended_by or self._limit_hit(self.exit)
        self.host.emit(self.positions())
        self._release()
        self.is_over = True
        self.host.emit(
            AgentExited(
                agent_id=self.spec.agent_id,
                attempt=self.spec.attempt,
                exit_code=self.exit.exit_code,
                signal=self.exit.signal,
                ended_by=ended_by,
                terminal=msgspec.json.encode(verdict) if verdict is not None else b"",
                usage=usage,
                survivors=survivors,
                stdout_tail=tails["stdout"],
                stderr_tail=tails["stderr"],
                truncated_at=truncated,
            )
        )
        self.host.finished(self)

    def _usage(self, leader_exit: LeaderExit) -> Usage:
        cpu_usec = self.leaf.cpu_usec() if self.leaf is not None else 0
        return Usage(
            cpu_seconds=max(leader_exit.cpu_seconds, cpu_usec / 1e6),
            max_rss_bytes=leader_exit.max_rss_bytes,
            stdin_bytes=self._stdin.written_bytes if self._stdin is not None else 0,
            stdout_bytes=self._logs["stdout"].received_bytes,
            stderr_bytes=self._logs["stderr"].received_bytes,
        )

    def _limit_hit(self, leader_exit: LeaderExit) -> str:
        if leader_exit.signal == signal.SIGXCPU and self.spec.limits.cpu_s is not None:
            return "cpu_limit"
        if self.spec.limits.memory_bytes is not None and self.leaf is not None and self.leaf.was_out_of_memory():
            return "memory_limit"
        return ""

    def _release(self) -> None:
        if self._watchdog is not None:
            self._watchdog.stop()
        if self._status >= 0:
            self.host.reactor.forget(self._status)
            os.close(self._status)
            self._status = -1
        if self._stdin is not None:
            self._stdin.close("agent_ended")
        for pump in self._pumps:
            pump.close()
        for log in self._logs.values():
            log.close()
        if self.leaf is not None:
            self.leaf.remove()


def leaf_name(spec: LaunchSpec) -> str:
    """The directory name of an attempt's cgroup; the supervisor derives the same after a worker's death."""
    return f"{spec.agent_id}.{spec.attempt}"

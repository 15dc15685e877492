"""One attempt of one agent inside a worker: its start, its limits, its end."""

from __future__ import annotations

import os
import signal
import time
from typing import Protocol

import msgspec

from agentpool import launching, verifying, zygotes
from agentpool.agentpipes import AgentPipes, PipesHost
from agentpool.cgroups import Leaf
from agentpool.ending import Ending
from agentpool.errors import LaunchFailed, UnknownRuntime
from agentpool.messages import AgentExited, AgentLaunchFailed, AgentStarted, Usage
from agentpool.platforms import ProcessFlags
from agentpool.proctable import ProcessTable, read_entry
from agentpool.reactor import READ
from agentpool.runtimes import Invocation, Runtime, get_runtime
from agentpool.sandbox import Sandbox
from agentpool.signalling import signal_group, signal_process
from agentpool.spawning import Spawner
from agentpool.specs import LaunchSpec
from agentpool.tree import Tree
from agentpool.watchdog import Watchdog


class Host(PipesHost, Protocol):
    """What an attempt needs of its worker."""

    table: ProcessTable
    flags: ProcessFlags
    sandbox: Sandbox
    spawner: Spawner

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
    """How the first process of an attempt ended; both None when nobody saw it."""

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
        self.start_ticks = 0
        self.leaf: Leaf | None = None
        self.tree: Tree | None = None
        self.exit: LeaderExit | None = None
        self.pipes: AgentPipes | None = None
        self.is_over = False
        self._plan: launching.LaunchPlan | None = None
        self._status = -1
        self._failure: LaunchFailed | None = None
        self._ending = Ending(self)
        self._watchdog: Watchdog | None = None
        self._zygote: zygotes.ZygoteLink | None = None
        self._is_orphaned = False
        self._verifier: Attempt | None = None
        self._wish = ""

    @property
    def current(self) -> Attempt:
        """Whose processes these are now: its own, or its verifier's."""
        return self._verifier or self

    # -- start ------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start it; AgentStarted or AgentLaunchFailed follows."""
        command = self.spec.argv[0] if self.spec.argv else ""
        try:
            self._begin(get_runtime(self.spec.runtime), command)
        except LaunchFailed as error:
            self.fail_launch(error)
        except UnknownRuntime as error:
            self.fail_launch(LaunchFailed("not_found", str(error), command=self.spec.runtime, is_permanent=True))
        except OSError as error:
            text = f"{command}: {error.strerror or error}"
            self.fail_launch(LaunchFailed("resources", text, command=command, is_permanent=False))

    def _begin(self, runtime: Runtime, command: str) -> None:
        spec = self.spec
        is_warm = runtime.is_warm and spec.sandbox == "none"
        program, argv, env = self._resolve(runtime, runtime.invocation(spec), is_warm=is_warm)
        launching.check_limits(spec.limits, command)
        pipes = self.pipes = AgentPipes(self.host, spec, runtime, lambda: self.host.mark_output(self))
        self._make_leaf()
        self._plan = launching.LaunchPlan(
            program=program,
            argv=argv,
            env=env,
            cwd=spec.workspace,
            rlimits=launching.rlimits_of(spec.limits, self._processes_now()),
            nice=spec.limits.nice,
            has_stdin=runtime.has_stdin,
            entrance=self.leaf.entrance if self.leaf else None,
        )
        if is_warm:
            self._zygote = self.host.zygote()
            pipes.open(self._zygote.fork(self._plan, self))
            return
        if self.host.spawner.can_start(self._plan):
            self.pid, ends = self.host.spawner.start(self._plan)
            pipes.open(ends)
            self.host.adopt(self.pid, self)
            self.started(self.pid)
            return
        started = launching.start(self._plan, self.host.flags)
        pipes.open(started.pipes)
        self._status = started.status
        self.pid = started.pid
        self.host.adopt(started.pid, self)
        self.host.reactor.watch(started.status, READ, self._on_status)

    def _resolve(
        self, runtime: Runtime, invocation: Invocation, *, is_warm: bool
    ) -> tuple[str, tuple[str, ...], dict[str, str]]:
        """Program, arguments and environment. Raises LaunchFailed when the command cannot start."""
        spec = self.spec
        if is_warm:
            zygotes.check_target(invocation.argv, spec.workspace)
            return "", invocation.argv, invocation.env
        if runtime.is_warm:
            zygotes.check_target(invocation.argv, spec.workspace)
            invocation = zygotes.cold_invocation(invocation)
        program = launching.find_program(invocation.argv, invocation.env, spec.workspace)
        argv = self.host.sandbox.wrap(spec, invocation)
        if argv is not invocation.argv:
            program = argv[0]
        return program, argv, invocation.env

    def _make_leaf(self) -> None:
        config, limits = self.host.config, self.spec.limits
        if config.cgroup_dir is None:
            return
        settings: dict[str, int] = {}
        if limits.memory_bytes is not None and "memory" in config.controllers:
            settings["memory.max"] = limits.memory_bytes
        if limits.processes is not None and "pids" in config.controllers:
            settings["pids.max"] = limits.processes
        self.leaf = Leaf.make(config.cgroup_dir, leaf_name(self.spec), settings)

    def _processes_now(self) -> int:
        if self.spec.limits.processes is None:
            return 0
        return len(self.host.table.entries(since=time.monotonic() - 1.0))

    def _on_status(self, _events: int) -> None:
        if self._status < 0:
            return
        try:
            report = os.read(self._status, 256)
        except BlockingIOError:
            return
        self._close_status()
        if report and self._plan is not None:
            # The child ends by itself now; told when it has, so that truly nothing is left.
            self._failure = launching.explain(report, self._plan)
        else:
            self.started(self.pid)

    def started(self, pid: int) -> None:
        """The leader runs its program."""
        host, spec = self.host, self.spec
        self.pid = pid
        host.claim(pid)
        entry = read_entry(pid)
        self.start_ticks = entry.start_ticks if entry is not None else 0
        self.tree = Tree(pid, self.start_ticks, spec.nonce, self.leaf, host.table, os.getpid(), host.is_own)
        host.emit(AgentStarted(agent_id=spec.agent_id, attempt=spec.attempt, pid=pid, start_ticks=self.start_ticks))
        if self.pipes is not None:
            self.pipes.begin()
        self._watchdog = Watchdog(self, spec.limits)
        self._ending.started()

    def fail_launch(self, error: LaunchFailed) -> None:
        """Nothing runs: give everything back and say why."""
        spec = self.spec
        self._release(unlink_empty=True)
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

    # -- end ----------------------------------------------------------------------------------------

    def kill(self, grace_s: float, reason: str) -> None:
        """Begin to end it, or its verifier, because somebody wants that."""
        self._wish = self._wish or reason
        self.current.end(grace_s, reason)

    def end(self, grace_s: float, reason: str) -> None:
        """Begin to end its own processes: they have reached a limit, which is nobody's wish to leave it unverified."""
        self._ending.begin(grace_s, reason)

    def signal_leader(self, number: int) -> None:
        """Signal the leader's group, by a number that is certainly still its own."""
        if self.exit is not None or not self.pid:
            return
        if self._is_orphaned:
            signal_process(self.pid, self.start_ticks, number)
        elif self._zygote is not None:
            self._zygote.signal(self.pid, number)
        else:
            if self._status >= 0:
                os.kill(self.pid, number)  # its session may not exist yet
            signal_group(self.pid, number)

    def before_reap(self) -> None:
        """The leader is dead and not yet reaped: its group's number is still its own."""
        if self._status >= 0:
            self._on_status(0)
        if self.tree is not None and not self.is_over:
            self._ending.leader_died()

    def leader_exited(self, leader_exit: LeaderExit) -> None:
        """The leader has been reaped."""
        self.exit = leader_exit
        if self._failure is not None:
            self.fail_launch(self._failure)
        elif not self.is_over:
            self._ending.leader_reaped()

    def left(self, leader_exit: LeaderExit) -> None:
        """The leader was another process's child, which has reaped it and sent TERM to its group."""
        self.exit = leader_exit
        if not self.is_over:
            self._ending.leader_died()
            self._ending.leader_reaped()

    def lose_zygote(self) -> None:
        """Its parent died; if it was not reaped before, it is the worker's child now, and is killed."""
        self._is_orphaned = True
        self.kill_leaf()

    def kill_leaf(self) -> None:
        """SIGKILL all that is in its cgroup; without one the death signal does it."""
        if self.leaf is not None:
            self.leaf.kill()

    def kill_tree(self) -> None:
        """SIGKILL all that runs of it now."""
        tree = self.current.tree
        if tree is not None:
            tree.kill()

    def over(self, ended_by: str, *, was_empty: bool = False) -> None:
        """The tree is gone: drain, give everything back, and report the end."""
        pipes, tree, leader_exit = self.pipes, self.tree, self.exit or LeaderExit(exit_code=None, signal=None)
        if pipes is None or tree is None:
            return
        pipes.drain()
        self.host.emit(pipes.positions())
        tails = pipes.tails()
        fact = AgentExited(
            agent_id=self.spec.agent_id,
            attempt=self.spec.attempt,
            exit_code=leader_exit.exit_code,
            signal=leader_exit.signal,
            ended_by=ended_by or self._limit_hit(leader_exit),
            terminal=pipes.verdict(),
            usage=self._usage(pipes, leader_exit),
            survivors=tree.survivors(was_empty=was_empty),
            stdout_tail=tails["stdout"],
            stderr_tail=tails["stderr"],
            truncated_at=pipes.truncations(),
            truncated_by=pipes.truncation_reasons(),
        )
        self._release()
        if verifying.is_to_be_verified(self.spec, fact):
            self._verify(fact)
        else:
            self._conclude(fact)

    def _verify(self, fact: AgentExited) -> None:
        """Have the work checked in this attempt's slot; its end is reported after that."""
        if self._wish:
            # It came when the leader had ended: no check may outlive it, and without one the work is not good.
            self._conclude(msgspec.structs.replace(fact, ended_by=self._wish))
            return
        if fact.survivors.count:
            # They may still write, and the verifier's tree would be searched for where they are.
            text = f"{fact.survivors.count} of its processes cannot be ended"
            self._conclude(verifying.without_word(fact, self.spec, text))
            return
        try:
            spec = verifying.verifier_spec(self.spec)
        except OSError as error:
            text = f"its output has no place: {error.strerror or error}"
            self._conclude(verifying.without_word(fact, self.spec, text))
            return

        def ended(checked: AgentExited | AgentLaunchFailed) -> None:
            self._verifier = None
            self._conclude(verifying.join(fact, checked, self.spec, self._wish))

        self._verifier = Attempt(verifying.VerifierHost(self.host, fact.usage, ended), spec)
        self._verifier.begin()

    def _conclude(self, fact: AgentExited) -> None:
        self.is_over = True
        self.host.emit(fact)
        self.host.finished(self)

    def _usage(self, pipes: AgentPipes, leader_exit: LeaderExit) -> Usage:
        cpu_usec = self.leaf.cpu_usec() if self.leaf is not None else 0
        return Usage(
            cpu_seconds=max(leader_exit.cpu_seconds, cpu_usec / 1e6),
            max_rss_bytes=leader_exit.max_rss_bytes,
            stdin_bytes=pipes.written_bytes,
            stdout_bytes=pipes.logs["stdout"].received_bytes,
            stderr_bytes=pipes.logs["stderr"].received_bytes,
        )

    def _limit_hit(self, leader_exit: LeaderExit) -> str:
        if leader_exit.signal == signal.SIGXCPU and self.spec.limits.cpu_s is not None:
            return "cpu_limit"
        if self.spec.limits.memory_bytes is not None and self.leaf is not None and self.leaf.was_out_of_memory():
            return "memory_limit"
        return ""

    def _close_status(self) -> None:
        if self._status >= 0:
            self.host.reactor.forget(self._status)
            os.close(self._status)
            self._status = -1

    def _release(self, *, unlink_empty: bool = False) -> None:
        if self._watchdog is not None:
            self._watchdog.stop()
        self._close_status()
        if self.pipes is not None:
            self.pipes.close(unlink_empty=unlink_empty)
        if self.leaf is not None:
            self.leaf.remove()


def leaf_name(spec: LaunchSpec) -> str:
    """The directory name of an attempt's cgroup; the supervisor derives the same after a worker's death."""
    return f"{spec.agent_id}.{spec.attempt}"

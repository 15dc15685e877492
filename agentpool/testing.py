"""For tests of this package and of those above it: scripts for agents, and a pool without processes."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from agentpool import scripted
from agentpool.admission import Admission, SlotTicket
from agentpool.agentpipes import SHUTDOWN
from agentpool.base import Leftover, OutputChunk, PoolStats, Settled
from agentpool.config import PoolConfig
from agentpool.errors import LaunchFailed, PoolClosed, PoolError, UnknownAgent
from agentpool.feed import FactFeed
from agentpool.launching import find_program
from agentpool.lines import LineSplitter
from agentpool.local import read_log
from agentpool.messages import (
    AgentExited,
    AgentRecord,
    AgentStarted,
    Fact,
    FeedLine,
    FeedState,
    InputState,
    Survivors,
    Usage,
    VerifierStarted,
)
from agentpool.runtimes import get_runtime
from agentpool.scheduling import Capacity
from agentpool.specs import LaunchSpec
from agentpool.streams import STREAMS, OutputLog
from agentpool.verifying import is_to_be_verified, join, verifier_spec, without_word

Step = dict[str, Any]


def script(python: str, *steps: Step) -> tuple[str, ...]:
    """The command of an agent that does these steps (each is one of ``agentpool.scripted.STEPS``, or ``exit``)."""
    return (python, "-I", "-S", scripted.__file__, json.dumps(list(steps)))


def say(record: dict[str, Any]) -> Step:
    """Write one JSON line to stdout."""
    return {"do": "write", "text": json.dumps(record) + "\n"}


def write(text: str = "", *, stream: str = "stdout", times: int = 1, data: bytes | None = None) -> Step:
    """Write text or bytes, repeated."""
    step: Step = {"do": "write", "stream": stream, "times": times}
    step.update({"hex": data.hex()} if data is not None else {"text": text})
    return step


def result(status: str = "success", **fields: Any) -> Step:
    """Give a result."""
    return say({"type": "result", "result": {"status": status, **fields}})


def leave(code: int = 0) -> Step:
    """Exit with this status."""
    return {"do": "exit", "code": code}


def wait() -> Step:
    """Wait for a signal, for ever."""
    return {"do": "wait"}


def ignore(name: str = "SIGTERM") -> Step:
    """Ignore a signal from here on."""
    return {"do": "ignore", "signal": name}


def child(how: str, *steps: Step, clear_env: bool = False) -> Step:
    """Start a child: ``fork``, ``setsid`` (a session of its own) or ``daemon`` (orphaned as well)."""
    return {"do": "child", "how": how, "steps": list(steps), "clear_env": clear_env}


class _Run:
    """One scripted attempt of a MemoryPool."""

    def __init__(self, spec: LaunchSpec, pid: int) -> None:
        self.spec = spec
        self.pid = pid
        self.killed = asyncio.Event()  # binds to the loop when it is first waited for
        self.reason = ""
        self.force = False
        self.ignored: set[str] = set()
        self.inputs: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        limits = spec.limits
        self.logs = {
            name: OutputLog(spec.record_dir, name, limits.output_bytes, limits.output_file_bytes) for name in STREAMS
        }
        self.runtime = get_runtime(spec.runtime)
        self.parser = self.runtime.parser()
        self.splitter = LineSplitter(self.logs["stdout"].position)


class MemoryPool:
    """Keeps the promises of ``Pool`` for scripts, inside this process; admission and parsing are the real ones.

    Understands the steps ``write``, ``sleep``, ``wait``, ``ignore``, ``echo`` and ``exit``.
    """

    def __init__(self, config: PoolConfig | None = None) -> None:
        self._config = config or PoolConfig()
        self._admission = Admission(self._config, self._measure, time.monotonic)
        self._feed = FactFeed(self._config.fact_buffer_bytes, lambda _held: None)
        self._runs: dict[str, _Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._pids = itertools.count(1_000_000)
        self._is_stopped = False

    async def start(self) -> None:
        """Nothing needs to be started."""

    async def stop(self, *, grace_s: float = 5.0) -> None:
        """End all scripts, then ``facts()``."""
        self._is_stopped = True
        self._admission.close()
        for run in list(self._runs.values()):
            self._end(run, 0.0, "shutdown")
        await asyncio.gather(*self._tasks)
        self._feed.close()

    def enqueue(self, agent_id: str, *, share_key: str, priority: str = "normal") -> SlotTicket:
        """See Pool."""
        return self._admission.enqueue(agent_id, share_key, priority)

    async def launch(self, spec: LaunchSpec) -> AgentStarted:
        """See Pool; a command that is not a script is looked up and then refused."""
        if self._is_stopped:
            raise PoolClosed("the pool is not running")
        if not self._admission.has_slot(spec.agent_id) or spec.agent_id in self._runs:
            raise PoolError(f"agent {spec.agent_id} has no slot to start in")
        try:
            run = await asyncio.to_thread(self._prepare, spec)
        except LaunchFailed:
            self._admission.free(spec.agent_id)
            raise
        self._runs[spec.agent_id] = run
        started = AgentStarted(agent_id=spec.agent_id, attempt=spec.attempt, pid=run.pid, start_ticks=1)
        self._feed.put(started)
        task = asyncio.get_running_loop().create_task(self._play(run))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return started

    def _prepare(self, spec: LaunchSpec) -> _Run:
        find_program(spec.argv, spec.env, spec.workspace)
        if len(spec.argv) != 5 or spec.argv[3] != scripted.__file__:
            text = "a memory pool runs scripts only"
            raise LaunchFailed("not_executable", text, command=spec.argv[0], is_permanent=True)
        return _Run(spec, next(self._pids))

    async def kill(self, agent_id: str, *, grace_s: float | None = None, reason: str = "killed") -> None:
        """See Pool."""
        run = self._run(agent_id)
        self._end(run, run.spec.grace_s if grace_s is None else grace_s, reason)

    def send(self, agent_id: str, message_id: str, line: bytes) -> None:
        """See Pool."""
        run = self._run(agent_id)
        has_stdin = run.runtime.has_stdin
        self._input_state(run, message_id, "queued" if has_stdin else "dead", "" if has_stdin else "no_stdin")
        if has_stdin:
            run.inputs.put_nowait((message_id, line))
            self._input_state(run, message_id, "written")

    def feed(self, agent_ids: Sequence[str], lines: Sequence[FeedLine], *, is_retry: bool = False) -> None:
        """See Pool; there is always room."""
        for agent_id in agent_ids:
            run = self._runs.get(agent_id)
            if run is None:
                continue
            state = "taken" if run.runtime.has_stdin else "closed"
            for item in lines if run.runtime.has_stdin else ():
                run.inputs.put_nowait(("", item.line))
            if is_retry or state == "closed":
                last = lines[-1].sequence if lines else 0
                self._feed.put(FeedState(agent_id=agent_id, attempt=run.spec.attempt, state=state, sequence=last))

    def facts(self) -> AsyncIterator[Fact]:
        """See Pool."""
        return self._feed.facts()

    async def read_output(self, record_dir: str, stream: str, offset: int, limit_bytes: int) -> OutputChunk:
        """See Pool."""
        if stream not in STREAMS or offset < 0 or limit_bytes < 1:
            raise PoolError("stream is stdout or stderr, offset is not negative, limit_bytes is positive")
        return await asyncio.to_thread(read_log, record_dir, stream, offset, limit_bytes)

    def stats(self) -> PoolStats:
        """See Pool."""
        return PoolStats(
            running=self._admission.running,
            queued=self._admission.queued,
            capacity=self._config.max_running,
            queue_capacity=self._config.queue_size,
            limited_by="configuration",
            workers=0,
            workers_lost=0,
            workers_held_back=0,
            is_paused=self._admission.is_paused,
            is_draining=self._admission.is_draining,
        )

    def pause(self) -> None:
        """See Pool."""
        self._admission.pause()

    def drain(self) -> None:
        """See Pool."""
        self._admission.drain()

    def resume(self) -> None:
        """See Pool."""
        self._admission.resume()

    async def settle(self, leftovers: list[Leftover]) -> list[Settled]:
        """No process of this pool outlives it."""
        return [
            Settled(agent_id=item.agent_id, attempt=item.attempt, was_alive=False, ended=0, survivors=0)
            for item in leftovers
        ]

    def _measure(self, _running: int) -> Capacity:
        return Capacity(agents=self._config.max_running, limited_by="configuration")

    def _run(self, agent_id: str) -> _Run:
        try:
            return self._runs[agent_id]
        except KeyError:
            raise UnknownAgent(agent_id) from None

    def _end(self, run: _Run, grace_s: float, reason: str) -> None:
        if not run.reason and run.runtime.has_stdin and grace_s > 0:
            run.inputs.put_nowait(("", SHUTDOWN))
        run.reason = run.reason or reason
        if "SIGTERM" in run.ignored and grace_s > 0:
            asyncio.get_running_loop().call_later(grace_s, self._force, run)
        else:
            run.force = "SIGTERM" in run.ignored or grace_s <= 0
            run.killed.set()

    @staticmethod
    def _force(run: _Run) -> None:
        run.force = True
        run.killed.set()

    async def _play(self, run: _Run) -> None:
        code = await self._until_over(run)
        verdict = run.parser.verdict() if run.parser is not None else None
        exited = await self._end_of(run, code, msgspec.json.encode(verdict) if verdict is not None else b"")
        if is_to_be_verified(run.spec, exited):
            exited = await self._verified(run, exited)
        del self._runs[run.spec.agent_id]
        self._admission.free(run.spec.agent_id)
        self._feed.put(exited)

    async def _until_over(self, run: _Run) -> int | None:
        """Play a script to its end; its exit code, None when it was killed before."""
        steps = asyncio.get_running_loop().create_task(self._steps(run, json.loads(run.spec.argv[4])))
        killed = asyncio.get_running_loop().create_task(run.killed.wait())
        await asyncio.wait({steps, killed}, return_when=asyncio.FIRST_COMPLETED)
        code = steps.result() if steps.done() else None
        for task in (steps, killed):
            task.cancel()
        await asyncio.gather(steps, killed, return_exceptions=True)
        return code

    @staticmethod
    async def _end_of(run: _Run, code: int | None, terminal: bytes) -> AgentExited:
        tails = {name: await asyncio.to_thread(log.tail) for name, log in run.logs.items()}
        truncated = {name: log.truncated_at for name, log in run.logs.items() if log.truncated_at is not None}
        for log in run.logs.values():
            log.close()
        return AgentExited(
            agent_id=run.spec.agent_id,
            attempt=run.spec.attempt,
            exit_code=code,
            signal=None if code is not None else 9 if run.force else 15,
            ended_by=run.reason,
            terminal=terminal,
            usage=Usage(stdout_bytes=run.logs["stdout"].received_bytes),
            survivors=Survivors(count=0, checked_by=("memory",)),
            stdout_tail=tails["stdout"],
            stderr_tail=tails["stderr"],
            truncated_at=truncated,
        )

    async def _verified(self, run: _Run, exited: AgentExited) -> AgentExited:
        """Play the verifier's script too."""
        spec = await asyncio.to_thread(verifier_spec, run.spec)
        try:
            checking = await asyncio.to_thread(self._prepare, spec)
        except LaunchFailed as error:
            return without_word(exited, run.spec, str(error))
        self._runs[spec.agent_id] = checking
        self._feed.put(
            VerifierStarted(
                agent_id=spec.agent_id, attempt=spec.attempt, pid=checking.pid, start_ticks=1, usage=exited.usage
            )
        )
        code = await self._until_over(checking)
        return join(exited, await self._end_of(checking, code, b""), run.spec, checking.reason)

    async def _steps(self, run: _Run, steps: list[Step]) -> int:
        for step in steps:
            kind = step["do"]
            if kind == "exit":
                return int(step["code"])
            if kind == "wait":
                await asyncio.Event().wait()
            elif kind == "sleep":
                await asyncio.sleep(step["seconds"])
            elif kind == "ignore":
                run.ignored.add(step["signal"])
            elif kind == "echo":
                for _ in range(step["lines"]):
                    await self._echo(run)
            elif kind == "write":
                data = bytes.fromhex(step["hex"]) if "hex" in step else step["text"].encode("utf-8", "surrogatepass")
                await self._output(run, step.get("stream", "stdout"), data * step.get("times", 1))
            else:
                raise PoolError(f"a memory pool does not know the step {kind!r}")
        return 0

    async def _echo(self, run: _Run) -> None:
        message_id, line = await run.inputs.get()
        message = json.loads(line)
        if "message_id" in message:
            self._input_state(run, message_id, "acknowledged")
        text = json.dumps({"type": "progress", "message": message.get("text", message["type"])})
        await self._output(run, "stdout", text.encode() + b"\n")

    async def _output(self, run: _Run, stream: str, data: bytes) -> None:
        await asyncio.to_thread(run.logs[stream].write, data)
        if stream != "stdout" or run.parser is None:
            return
        ids = {"agent_id": run.spec.agent_id}
        for line in run.splitter.feed(data):
            for record in run.parser.feed(line):
                fact = AgentRecord(
                    **ids, attempt=run.spec.attempt, kind=record.kind, offset=line.offset, payload=record.payload
                )
                self._feed.put(fact)

    def _input_state(self, run: _Run, message_id: str, state: str, reason: str = "") -> None:
        self._feed.put(InputState(agent_id=run.spec.agent_id, message_id=message_id, state=state, reason=reason))


def make_spec(agent_id: str, directory: Path, argv: tuple[str, ...], **fields: Any) -> LaunchSpec:
    """A spec that runs ``argv`` in ``directory/agent_id`` (made here), which is its record directory too.

    ``fields`` replace those of LaunchSpec; the environment has PATH and the nonce.
    """
    place = directory / agent_id
    place.mkdir(parents=True, exist_ok=True)
    nonce = fields.pop("nonce", f"nonce-{agent_id}-{os.getpid()}-{time.monotonic_ns()}")
    env = {"PATH": os.environ.get("PATH", os.defpath), "ORCHESTRATOR_AGENT_NONCE": nonce, **fields.pop("env", {})}
    values: dict[str, Any] = {
        "attempt": 1,
        "runtime": "jsonl",
        "workspace": str(place),
        "record_dir": str(place),
        "grace_s": 2.0,
        **fields,
    }
    return LaunchSpec(agent_id=agent_id, nonce=nonce, argv=argv, env=env, **values)

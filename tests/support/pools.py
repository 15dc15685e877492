"""A pool under test with a consumer of its facts, and ways to wait for them."""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, TypeVar

from agentpool.base import Pool
from agentpool.config import PoolConfig
from agentpool.local import LocalPool
from agentpool.messages import AgentExited, AgentRecord, AgentStarted, Fact, InputState, WorkerLost
from agentpool.specs import LaunchSpec
from agentpool.testing import MemoryPool, Step, make_spec, script

F = TypeVar("F", bound=Fact)

# multiprocessing starts one such process for the life of the program with the first spawned worker; started
# here, it is no test's leak.
resource_tracker.ensure_running()

#: Longest wait for anything a pool promises; generous, since all tests share a busy machine.
TIMEOUT_S = 15.0
#: Below the kernel's limit for one argument (MAX_ARG_STRLEN, 128 KiB).
LONGEST_ARGUMENT = 100_000


def _local(**config: object) -> Pool:
    return LocalPool(PoolConfig(workers=1, **config))  # type: ignore[arg-type]


def _local_without_cgroups(**config: object) -> Pool:
    return LocalPool(PoolConfig(workers=1, cgroups=False, **config))  # type: ignore[arg-type]


def _memory(**config: object) -> Pool:
    return MemoryPool(PoolConfig(**config))  # type: ignore[arg-type]


PoolFactory = Callable[..., Pool]
#: Each implementation, by a name for test ids.
POOLS: dict[str, PoolFactory] = {"local": _local, "local-no-cgroups": _local_without_cgroups, "memory": _memory}


class Bench:
    """Starts agents in a pool and keeps every fact."""

    def __init__(self, pool: Pool, directory: Path) -> None:
        self.pool = pool
        self.directory = directory
        self.mark = uuid.uuid4().hex
        self.facts: list[Fact] = []
        self.is_consuming = asyncio.Event()
        self.is_consuming.set()
        self._news = asyncio.Condition()

    async def consume(self) -> None:
        """Keep all facts until the pool has stopped; ``is_consuming`` cleared stops the reading."""
        async for fact in self.pool.facts():
            await self.is_consuming.wait()
            self.facts.append(fact)
            async with self._news:
                self._news.notify_all()

    async def spec(self, agent_id: str, *steps: Step, argv: tuple[str, ...] | None = None, **fields: Any) -> LaunchSpec:
        """A spec of a scripted agent, or of ``argv``; its nonce holds ``mark``."""
        fields.setdefault("nonce", f"{self.mark}-{agent_id}")
        command = argv or script(sys.executable, *steps)
        if argv is None and len(command[-1]) > LONGEST_ARGUMENT:
            file = self.directory / f"{agent_id}.script"
            file.write_text(command[-1], encoding="utf-8")
            command = (*command[:-1], f"@{file}")
        return await asyncio.to_thread(make_spec, agent_id, self.directory, command, **fields)

    async def launch(
        self, agent_id: str, *steps: Step, argv: tuple[str, ...] | None = None, **fields: Any
    ) -> AgentStarted:
        """Take a slot and start a scripted agent, or ``argv``."""
        spec = await self.spec(agent_id, *steps, argv=argv, **fields)
        ticket = self.pool.enqueue(agent_id, share_key="tests")
        async with asyncio.timeout(TIMEOUT_S):
            await ticket.ready()
            return await self.pool.launch(spec)

    async def run(
        self,
        agent_id: str,
        *steps: Step,
        argv: tuple[str, ...] | None = None,
        timeout_s: float = TIMEOUT_S,
        **fields: Any,
    ) -> AgentExited:
        """Start an agent and wait for its end."""
        await self.launch(agent_id, *steps, argv=argv, **fields)
        return await self.exited(agent_id, timeout_s=timeout_s)

    async def exited(self, agent_id: str, *, timeout_s: float = TIMEOUT_S) -> AgentExited:
        """Wait for an agent's end."""
        return await self.fact(AgentExited, lambda fact: fact.agent_id == agent_id, timeout_s=timeout_s)

    async def said(self, agent_id: str, kind: str = "progress") -> AgentRecord:
        """Wait for a record of an agent's."""
        return await self.fact(AgentRecord, lambda fact: fact.agent_id == agent_id and fact.kind == kind)

    async def fact(
        self, kind: type[F], test: Callable[[F], bool] = lambda _: True, *, timeout_s: float = TIMEOUT_S
    ) -> F:
        """The first fact of a kind that passes a test, waited for."""

        def find() -> F | None:
            return next((fact for fact in self.facts if isinstance(fact, kind) and test(fact)), None)

        try:
            async with asyncio.timeout(timeout_s), self._news:
                while (found := find()) is None:
                    await self._news.wait()
                return found
        except TimeoutError:
            raise AssertionError(
                f"no such {kind.__name__} within {timeout_s:g} s; last facts: {self.facts[-5:]}"
            ) from None

    def records(self, agent_id: str, kind: str | None = None) -> list[AgentRecord]:
        """An agent's records so far."""
        mine = [fact for fact in self.facts if isinstance(fact, AgentRecord) and fact.agent_id == agent_id]
        return [fact for fact in mine if kind is None or fact.kind == kind]

    def inputs(self, agent_id: str) -> list[tuple[str, str]]:
        """An agent's (message id, state) so far."""
        mine = [fact for fact in self.facts if isinstance(fact, InputState) and fact.agent_id == agent_id]
        return [(fact.message_id, fact.state) for fact in mine]

    def exits(self, agent_id: str) -> list[AgentExited]:
        """All ends of an agent so far: one for each attempt."""
        return [fact for fact in self.facts if isinstance(fact, AgentExited) and fact.agent_id == agent_id]

    def losses(self) -> list[WorkerLost]:
        """Lost workers so far."""
        return [fact for fact in self.facts if isinstance(fact, WorkerLost)]

    def log(self, agent_id: str, stream: str = "stdout") -> bytes:
        """An agent's log."""
        return (self.directory / agent_id / f"{stream}.log").read_bytes()


@asynccontextmanager
async def bench_of(pool: Pool, directory: Path) -> AsyncIterator[Bench]:
    """Start a pool, consume its facts, stop it at the end."""
    await pool.start()
    bench = Bench(pool, directory)
    consumer = asyncio.get_running_loop().create_task(bench.consume())
    try:
        yield bench
    finally:
        bench.is_consuming.set()
        await pool.stop(grace_s=0.5)
        async with asyncio.timeout(TIMEOUT_S):
            await consumer


@asynccontextmanager
async def local_bench(directory: Path, **config: Any) -> AsyncIterator[tuple[Bench, LocalPool]]:
    """A started local pool with a bench around it."""
    pool = LocalPool(PoolConfig(**config))
    async with bench_of(pool, directory) as bench:
        yield bench, pool


def descriptors_of(pid: int) -> int:
    """How many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def worker_keeping(pid: int) -> int:
    """The worker that is the parent of an agent's process."""
    stat = stat_of(pid)
    assert stat is not None, f"no process {pid}"
    return stat[1]


def stat_of(pid: int) -> tuple[str, int] | None:
    """State letter and parent of a process; None when there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[1])


def is_living(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    stat = stat_of(pid)
    return stat is not None and stat[0] not in "ZX"

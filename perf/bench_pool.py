"""Speed and size of the agent pool against what the system alone can do, in the same run, interleaved, medians.

    python perf/bench_pool.py [--rounds 7] [--agents 119] [--megabytes 1024] [--only ROW]... [--save]

Rows: ``start``, ``python``, ``flood``, ``memory``, ``many``. Prints one JSON object; ``--save`` writes it to
``perf/results/pool.json``. Both cores are kept busy by nobody but the run itself: on a machine that does
other work only the ratios mean something.
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import json
import logging
import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog

from agentpool import cgroups
from agentpool.config import PoolConfig
from agentpool.local import LocalPool
from agentpool.messages import AgentExited
from agentpool.proctable import snapshot
from agentpool.specs import LaunchSpec, Limits

ROOT = Path(__file__).resolve().parent.parent
WARM_AGENT = "def main(agent):\n    return {'status': 'success'}\n"
PRELOADED = "import json, pathlib, msgspec, agentpool.python_agent"


class Driver:
    """A started pool and the ends that have been seen."""

    def __init__(self, pool: LocalPool, place: Path) -> None:
        self.pool = pool
        self.place = place
        self.exits: dict[str, AgentExited] = {}
        self._wake = asyncio.Event()
        self._number = 0

    async def consume(self) -> None:
        """Keep all ends."""
        async for fact in self.pool.facts():
            if isinstance(fact, AgentExited):
                self.exits[fact.agent_id] = fact
                self._wake.set()

    def specs(self, count: int, argv: tuple[str, ...], runtime: str, **fields: Any) -> list[LaunchSpec]:
        """Specs with directories of their own, made outside of what is timed."""
        made = []
        for _ in range(count):
            self._number += 1
            name = f"a{self._number}"
            record = self.place / name
            record.mkdir()
            env = {"PATH": os.environ["PATH"], "ORCHESTRATOR_AGENT_NONCE": f"bench-{name}"}
            values: dict[str, Any] = {"workspace": str(self.place), "record_dir": str(record), **fields}
            made.append(
                LaunchSpec(
                    agent_id=name, attempt=1, nonce=f"bench-{name}", runtime=runtime, argv=argv, env=env, **values
                )
            )
        return made

    async def start(self, spec: LaunchSpec) -> None:
        """Take a slot and start."""
        await self.pool.enqueue(spec.agent_id, share_key="bench").ready()
        await self.pool.launch(spec)

    async def ended(self, specs: list[LaunchSpec]) -> None:
        """Wait until the ends of all have been seen."""
        while not all(spec.agent_id in self.exits for spec in specs):
            self._wake.clear()
            await self._wake.wait()

    async def run(self, specs: list[LaunchSpec]) -> float:
        """Seconds from the first submission to the last end seen. Raises RuntimeError when one failed."""
        begun = time.perf_counter()
        await asyncio.gather(*(self.start(spec) for spec in specs))
        await self.ended(specs)
        elapsed = time.perf_counter() - begun
        failed = [spec.agent_id for spec in specs if self.exits[spec.agent_id].exit_code != 0]
        if failed:
            raise RuntimeError(f"agents failed: {failed[:3]}: {self.exits[failed[0]]}")
        return elapsed


@contextmanager
def own_temp(place: Path) -> Iterator[None]:
    """A directory for the temporary files of this process and its workers, and of nobody else."""
    place.mkdir()
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = tempfile.tempdir = str(place)
    try:
        yield
    finally:
        tempfile.tempdir = None
        os.environ.pop("TMPDIR")
        if before is not None:
            os.environ["TMPDIR"] = before


async def with_pool(row: Callable[[Driver], Awaitable[dict[str, Any]]], **config: Any) -> dict[str, Any]:
    """Run a row with a fresh pool and a directory of its own."""
    with tempfile.TemporaryDirectory(prefix="bench-pool-") as directory, own_temp(Path(directory, "temp")):
        pool = LocalPool(PoolConfig(max_running=2000, queue_size=20_000, **config))
        await pool.start()
        driver = Driver(pool, Path(directory))
        consumer = asyncio.create_task(driver.consume())
        try:
            return await row(driver)
        finally:
            await pool.stop(grace_s=0.0)
            await consumer


def popen_and_wait(count: int, place: Path) -> float:
    """The baseline of ``start``: new session, three pipes, two log files, all started, then all waited for."""
    place.mkdir()
    begun = time.perf_counter()
    running = []
    for number in range(count):
        logs = [open(place / f"{number}.{name}", "wb") for name in ("stdout", "stderr")]  # noqa: SIM115
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        running.append((subprocess.Popen(["/bin/true"], start_new_session=True, **pipes), logs))
    for process, logs in running:
        for log, data in zip(logs, process.communicate(), strict=True):
            log.write(data)
            log.close()
    return time.perf_counter() - begun


def call_echo(_number: int) -> bytes:
    """What a worker of the rival does."""
    return subprocess.run(["/bin/echo", "hello"], check=True, capture_output=True, start_new_session=True).stdout


def executor(count: int) -> float:
    """The rival of ``start``: a process pool that calls subprocess, two workers, already started."""
    with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(call_echo, range(4)))
        begun = time.perf_counter()
        list(pool.map(call_echo, range(count)))
        return time.perf_counter() - begun


def measure_child(code: str) -> float:
    """Seconds that a program prints, run by this interpreter."""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    return float(done.stdout)


def bare_forks(count: int) -> float:
    """The baseline of ``python``: ``os.fork`` and wait from a parent with the same modules loaded."""
    return measure_child(
        f"{PRELOADED}\nimport gc, os, time\ngc.freeze()\nt = time.perf_counter()\npids = []\n"
        f"for _ in range({count}):\n    pid = os.fork()\n    if not pid: os._exit(0)\n    pids.append(pid)\n"
        "for pid in pids: os.waitpid(pid, 0)\nprint(time.perf_counter() - t)\n"
    )


def interpreter_starts(count: int) -> float:
    """Shown beside ``python``: as many interpreters that import the same."""
    begun = time.perf_counter()
    running = [subprocess.Popen([sys.executable, "-c", PRELOADED]) for _ in range(count)]
    for process in running:
        process.wait()
    return time.perf_counter() - begun


def cat_to_files(count: int, size_bytes: int, place: Path) -> float:
    """The baseline of ``flood``: the same producers through ``cat`` to files."""
    place.mkdir()
    begun = time.perf_counter()
    commands = [f"head -c {size_bytes} /dev/zero | cat > {place}/{number}" for number in range(count)]
    running = [subprocess.Popen(["sh", "-c", command]) for command in commands]
    for process in running:
        process.wait()
    elapsed = time.perf_counter() - begun
    shutil.rmtree(place)
    return elapsed


def compare(pairs: dict[str, list[float]], pool: str, baseline: str, bar: float) -> dict[str, Any]:
    """Medians, the ratio of the first two, and the bar that it should keep."""
    medians = {name: round(statistics.median(values), 4) for name, values in pairs.items()}
    ratio = round(statistics.median(a / b for a, b in zip(pairs[pool], pairs[baseline], strict=True)), 2)
    return {"seconds": medians, "ratio": ratio, "bar": bar, "ok": ratio <= bar}


async def row_start(driver: Driver, agents: int, rounds: int) -> dict[str, Any]:
    """Submit to exit seen, all at once."""
    pairs: dict[str, list[float]] = {"pool": [], "popen": [], "process_pool_executor": []}
    for number in range(rounds):
        pairs["pool"].append(await driver.run(driver.specs(agents, ("/bin/true",), "jsonl")))
        pairs["popen"].append(await asyncio.to_thread(popen_and_wait, agents, driver.place / f"base{number}"))
        pairs["process_pool_executor"].append(await asyncio.to_thread(executor, agents))
    return compare(pairs, "pool", "popen", 2.0)


async def row_python(driver: Driver, agents: int, rounds: int) -> dict[str, Any]:
    """Warm Python agents: fork, run, result seen; with a module that is preloaded, and with one that each imports."""
    work = driver.place / "work"
    work.mkdir()
    (work / "imported_agent.py").write_text(WARM_AGENT, encoding="utf-8")
    pairs: dict[str, list[float]] = {"pool": [], "fork": [], "importing": [], "interpreters": []}
    targets = {"pool": "warm_agent:main", "importing": "imported_agent:main"}
    for target in targets.values():
        await driver.run(driver.specs(4, (target,), "python", workspace=str(work)))
    for _ in range(rounds):
        for name, target in targets.items():
            pairs[name].append(await driver.run(driver.specs(agents, (target,), "python", workspace=str(work))))
        pairs["fork"].append(await asyncio.to_thread(bare_forks, agents))
        pairs["interpreters"].append(await asyncio.to_thread(interpreter_starts, agents))
    return compare(pairs, "pool", "fork", 2.0)


async def row_flood(driver: Driver, megabytes: int, rounds: int) -> dict[str, Any]:
    """Much output from 8 agents; ``jsonl`` reads every byte, ``text`` moves it in the kernel."""
    size = megabytes * (1 << 20) // 8
    limits = Limits(output_bytes=1 << 40)
    pairs: dict[str, list[float]] = {"text": [], "cat": [], "jsonl": []}
    for number in range(rounds):
        for runtime in ("text", "jsonl"):
            specs = driver.specs(8, ("head", "-c", str(size), "/dev/zero"), runtime, limits=limits)
            pairs[runtime].append(await driver.run(specs))
            for spec in specs:
                shutil.rmtree(spec.record_dir)
        base = driver.place / f"base{number}"
        pairs["cat"].append(await asyncio.to_thread(cat_to_files, 8, size, base))
    result = compare(pairs, "text", "cat", 1.5)
    result["ratio_jsonl"] = round(
        statistics.median(a / b for a, b in zip(pairs["jsonl"], pairs["cat"], strict=True)), 2
    )
    return result


def pss_bytes(pids: list[int]) -> int:
    """Proportional set size of processes."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


async def row_memory(driver: Driver, agents: int) -> dict[str, Any]:
    """PSS of this process and the workers with idle agents, and of each one more."""
    pids = [os.getpid(), *driver.pool.worker_pids()]
    sizes = {}
    for count in (agents, agents + 400):
        more = count - driver.pool.stats().running
        await asyncio.gather(*(driver.start(s) for s in driver.specs(more, ("sleep", "600"), "jsonl")))
        sizes[count] = pss_bytes(pids)
    each = (sizes[agents + 400] - sizes[agents]) / 400
    return {
        "pss_mb": round(sizes[agents] / 1e6, 1),
        "kb_for_each_more": round(each / 1e3, 1),
        "bar": "150 MB, 100 KB",
        "ok": sizes[agents] <= 150e6 and each <= 100e3,
    }


def held(pids: list[int], place: Path) -> dict[str, int]:
    """What supervisor and workers hold together."""
    family = set(pids)
    cgroup = cgroups.find_parent()
    leaves = Path(cgroup).glob(f"{cgroups.PREFIX}{os.getpid()}-*/*.1") if cgroup is not None else ()
    return {
        "descriptors": sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids),
        "threads": sum(len(os.listdir(f"/proc/{pid}/task")) for pid in pids),
        "zombies": sum(entry.state == "Z" and entry.ppid in family for entry in snapshot().values()),
        "temporary_files": len(os.listdir(place / "temp")),
        "cgroups": len(list(leaves)),
    }


async def row_many(driver: Driver, agents: int, sequence: int) -> dict[str, Any]:
    """1,000 alive at once, then many in sequence; the cost of one against the smaller number, and leaks."""
    small = await driver.run(driver.specs(agents, ("/bin/true",), "jsonl"))
    pids = [os.getpid(), *driver.pool.worker_pids()]
    before = held(pids, driver.place)
    alive = driver.specs(1000, ("sh", "-c", "read line"), "jsonl")
    begun = time.perf_counter()
    await asyncio.gather(*(driver.start(spec) for spec in alive))
    started = time.perf_counter() - begun
    all_alive = driver.pool.stats().running
    for spec in alive:
        driver.pool.send(spec.agent_id, "go", b"go")
    await driver.ended(alive)
    chunk = 500
    each = [
        await driver.run(driver.specs(chunk, ("/bin/true",), "jsonl")) / chunk for _ in range(max(1, sequence // chunk))
    ]
    after = held(pids, driver.place)
    ratio = round(statistics.median(each) / (small / agents), 2)
    return {
        "alive_at_once": all_alive,
        "start_1000_s": round(started, 3),
        "in_sequence": len(each) * chunk,
        "ms_each": round(statistics.median(each) * 1e3, 2),
        "ms_each_of_the_small_number": round(small / agents * 1e3, 2),
        "ratio": ratio,
        "bar": 1.3,
        "more_than_before": {name: after[name] - before[name] for name in after},
        "ok": ratio <= 1.3 and all(after[name] <= before[name] for name in after) and all_alive == 1000,
    }


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All rows asked for."""
    rows: dict[str, Callable[[Driver], Awaitable[dict[str, Any]]]] = {
        "start": lambda driver: row_start(driver, options.agents, options.rounds),
        "python": lambda driver: row_python(driver, options.agents, options.rounds),
        "flood": lambda driver: row_flood(driver, options.megabytes, max(1, options.rounds // 2)),
        "memory": lambda driver: row_memory(driver, options.agents),
        "many": lambda driver: row_many(driver, options.agents, options.sequence),
    }
    wanted = options.only or list(rows)
    warm = {"python": {"warm_python": True, "preload": ("warm_agent",)}}
    return {name: await with_pool(rows[name], **warm.get(name, {})) for name in wanted}


def machine() -> dict[str, Any]:
    """Where this was measured."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "commit": commit.stdout.strip(),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--agents", type=int, default=119)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--sequence", type=int, default=10_000)
    parser.add_argument("--only", action="append")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    result = {"machine": machine(), "rows": asyncio.run(measure(options))}
    print(json.dumps(result, indent=2))
    if options.save:
        path = Path(__file__).parent / "results" / "pool.json"
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""The event log below HTTP: durable appends, delivery to waiting readers, filters over a full log.

Both sides of a comparison run interleaved in one process on one disk, both with synchronous=FULL; medians of
the rounds count. Run: ``python -m perf.bench_events [--rounds N] [--json FILE]``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import apsw
import msgspec

from orchestrator.config import EventSettings
from orchestrator.events import EventBus, EventQuery
from orchestrator.models import EventDraft
from orchestrator.storage import SqliteStorage

DATA = {"agent_id": "ag_0123456789", "status": "success", "message": "tests pass", "files": ["a.py", "b.py"], "n": 7}
DRAFT = EventDraft(event_type="progress", publisher="ag_0123456789", topic="testing", data=DATA)
PUBLISHERS = 100
WAITERS = 119


async def closed_loop(publish: Callable[[], Awaitable[Any]], publishers: int, total: int) -> float:
    """Operations a second of ``publishers`` that each wait for an answer before the next."""

    async def worker() -> None:
        for _ in range(total // publishers):
            await publish()

    started = time.perf_counter()
    await asyncio.gather(*[worker() for _ in range(publishers)])
    return total / (time.perf_counter() - started)


class OneByOne:
    """The baseline: the same row, one insert and one commit (FULL) each, in one writer thread."""

    def __init__(self, path: Path) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._connection = apsw.Connection(str(path))
        self._connection.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")
        self._connection.execute("CREATE TABLE events (seq INTEGER PRIMARY KEY, at REAL, body BLOB)")

    async def publish(self) -> None:
        """Store one event durably."""
        body = msgspec.json.encode(DRAFT)
        await asyncio.get_running_loop().run_in_executor(self._thread, self._insert, body)

    def _insert(self, body: bytes) -> None:
        self._connection.execute("INSERT INTO events (at, body) VALUES (?, ?)", (time.time(), body))

    def close(self) -> None:
        """End the thread and close the file."""
        self._thread.shutdown()
        self._connection.close()


async def bench_appends(directory: Path, rounds: int) -> dict[str, Any]:
    """Durable appends a second with 100 publishers: the log, the bus, and the baseline."""
    storage = SqliteStorage(directory / "storage")
    await storage.open()
    bus = EventBus(storage, EventSettings(keep=1_000_000))
    await bus.start()
    baseline = OneByOne(directory / "baseline.db")
    rates: dict[str, list[float]] = {"log": [], "bus": [], "baseline": []}
    for _ in range(rounds):
        rates["baseline"].append(await closed_loop(baseline.publish, PUBLISHERS, 2000))
        rates["log"].append(await closed_loop(lambda: storage.append("bench", DRAFT), PUBLISHERS, 10_000))
        rates["bus"].append(await closed_loop(lambda: bus.publish("project", DRAFT), PUBLISHERS, 10_000))
    baseline.close()
    await bus.stop()
    await storage.close()
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "appends_per_s": round(medians["log"]),
        "bus_publishes_per_s": round(medians["bus"]),
        "baseline_per_s": round(medians["baseline"]),
        "log_ratio": round(medians["log"] / medians["baseline"], 2),
        "bus_ratio": round(medians["bus"] / medians["baseline"], 2),
        "durability": "both synchronous=FULL, WAL",
    }


async def bench_delivery(directory: Path, waiters: int, repeats: int) -> dict[str, float]:
    """Milliseconds from the call of publish until the last of ``waiters`` long polls has its answer's bytes."""
    storage = SqliteStorage(directory)
    await storage.open()
    bus = EventBus(storage, EventSettings())
    await bus.start()
    times = []

    async def wait(n: int) -> int:
        page = await bus.wait("p", EventQuery(since="latest", timeout_s=30.0), subscriber=f"w{n}")
        return len(b",".join([bus.encoded(event) for event in page.events]))

    await bus.publish("p", DRAFT)  # the project's events are loaded now, not in the first round
    for _ in range(repeats):
        polls = [asyncio.create_task(wait(n)) for n in range(waiters)]
        async with asyncio.timeout(30):
            # Two turns register every poll and let it come to its wait.
            for _ in range(waiters + 2):
                await asyncio.sleep(0)
        assert bus.stats().active_subscriptions == waiters
        started = time.perf_counter()
        await asyncio.gather(bus.publish("p", DRAFT), *polls)
        times.append((time.perf_counter() - started) * 1000)
    await bus.stop()
    await storage.close()
    times.sort()
    return {
        "p50_ms": round(statistics.median(times), 3),
        "p99_ms": round(times[min(len(times) - 1, int(len(times) * 0.99))], 3),
    }


async def bench_filter(directory: Path, repeats: int) -> dict[str, float]:
    """Milliseconds of a wait whose filter matches one of 10,000 retained events of one type."""
    storage = SqliteStorage(directory)
    await storage.open()
    bus = EventBus(storage, EventSettings())
    await bus.start()
    await closed_loop(lambda: bus.publish("p", DRAFT), PUBLISHERS, 9_900)
    await bus.publish("p", msgspec.structs.replace(DRAFT, data={**DATA, "n": 77}))
    times = []
    for text in ("n:77", "message:*pass,n:>76") * repeats:
        started = time.perf_counter()
        page = await bus.wait("p", EventQuery(types=("progress",), filter=text, timeout_s=1.0), subscriber="w")
        times.append((time.perf_counter() - started) * 1000)
        assert len(page.events) == 1
    await bus.stop()
    await storage.close()
    return {"p50_ms": round(statistics.median(times), 3), "max_ms": round(max(times), 3)}


async def bench_slow_stream(directory: Path, rounds: int) -> dict[str, float]:
    """Publish rate with a stream that is never read, against without one (interleaved)."""
    storage = SqliteStorage(directory)
    await storage.open()
    bus = EventBus(storage, EventSettings())
    await bus.start()
    rates: dict[str, list[float]] = {"with": [], "without": []}
    for _ in range(rounds):
        rates["without"].append(await closed_loop(lambda: bus.publish("p", DRAFT), 16, 4800))
        stream = bus.stream("p", EventQuery(since="latest"), subscriber="slow")
        await stream.ready()
        rates["with"].append(await closed_loop(lambda: bus.publish("p", DRAFT), 16, 4800))
        await stream.aclose()
    await bus.stop()
    await storage.close()
    return {"ratio": round(statistics.median(rates["with"]) / statistics.median(rates["without"]), 3)}


async def run(rounds: int) -> dict[str, Any]:
    """All rows, each in a directory of its own."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        return {
            "appends": await bench_appends(directory, rounds),
            "deliver_to_1_waiter": await bench_delivery(directory / "one", 1, 100 * rounds),
            "deliver_to_119_waiters": await bench_delivery(directory / "many", WAITERS, 20 * rounds),
            "filter_1_of_10000": await bench_filter(directory / "filter", 10 * rounds),
            "stream_never_read": await bench_slow_stream(directory / "slow", rounds),
        }


def machine() -> dict[str, Any]:
    """Where the figures come from."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "sqlite": apsw.sqlite_lib_version(),
        "commit": commit.stdout.strip(),
    }


def main() -> None:
    """Print the figures as JSON; keep them in a file when asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    report = {"machine": machine(), "figures": asyncio.run(run(options.rounds))}
    text = json.dumps(report, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

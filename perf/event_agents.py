"""One agent's stdout to another agent's stdin, against two brokers with their Python clients."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from perf.bench_http import ROOT, Sides
from perf.event_waiters import spread

BROKERS = ("nats", "redis")
#: Seconds between two messages of one sender, on all sides.
PAUSE_S = 0.005
ROLE, TOPIC = "python-specialist", "testing"

TALKER = """
import json, sys, time
for n in range({count}):
    data = {{"status": "success", "message": "tests pass", "files": ["a.py", "b.py"], "at": time.monotonic_ns()}}
    event = {{"type": "event", "event_type": "said", "topic": "{topic}", "data": data}}
    sys.stdout.write(json.dumps(event) + "\\n")
    sys.stdout.flush()
    time.sleep({pause})
"""

LISTENER = """
import json, sys, time
times = []
for line in sys.stdin.buffer:
    now = time.monotonic_ns()
    event = json.loads(line)
    if event.get("event_type") == "said":
        times.append((now - event["data"]["at"]) / 1e6)
    if len(times) == {count}:
        break
open({file!r} + ".part", "w").write(json.dumps(times))
import os
os.rename({file!r} + ".part", {file!r})
"""


def through_pipes(sides: Sides, count: int, number: int) -> list[float]:
    """Milliseconds from an agent's write to another's read, through relay, log and feed."""
    file = sides.directory / f"heard-{number}"
    _spawn(sides, LISTENER.format(count=count, file=str(file)))
    _spawn(sides, TALKER.format(count=count, topic=TOPIC, pause=PAUSE_S))
    deadline = time.monotonic() + 60
    while not file.exists():
        if time.monotonic() > deadline:
            raise SystemExit("the listening agent did not get all events")
        time.sleep(0.05)
    times: list[float] = json.loads(file.read_text(encoding="utf-8"))
    return times


def _spawn(sides: Sides, script: str) -> None:
    command = [sys.executable, "-c", script]
    sides.ask(
        "POST",
        "/api/agents/spawn",
        {"agent_type": ROLE, "issue_id": "bench", "task": "measure", "command": command, "runtime": "jsonl"},
    )


def through_broker(python: Path, name: str, count: int) -> list[float] | str:
    """The same through a broker; why not, when it is not installed."""
    done = subprocess.run(
        [python, ROOT / "perf/baselines/brokers.py", name, str(count), str(PAUSE_S)],
        capture_output=True,
        text=True,
        check=True,
    )
    said = json.loads(done.stdout)
    return str(said["missing"]) if isinstance(said, dict) else [float(value) for value in said]


def bench_agents(sides: Sides, rounds: int, count: int, python: Path) -> dict[str, Any]:
    """All sides, interleaved; ``python`` has the brokers' clients."""
    times: dict[str, list[float]] = {"sidecar": []}
    row: dict[str, Any] = {}
    warm = count // 10
    for number in range(rounds):
        times["sidecar"] += through_pipes(sides, count, number)[warm:]
        for name in BROKERS:
            measured = through_broker(python, name, count)
            if isinstance(measured, str):
                row[name] = measured
            else:
                times.setdefault(name, []).extend(measured[warm:])
    for name, values in times.items():
        row[name] = spread(values)
        if name != "sidecar":
            row[f"ratio_to_{name}"] = round(statistics.median(times["sidecar"]) / statistics.median(values), 2)
    row["durability"] = "sidecar: synchronous=FULL; NATS JetStream: sync_interval always; Redis: appendfsync always"
    return row

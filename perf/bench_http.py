"""The HTTP side against a bare Quart-on-Hypercorn handler that returns the same bytes.

    python perf/bench_http.py [--rounds 5] [--seconds 1.5] [--connections 16] [--only NAME]

Each side runs in a process of its own, the client in a third; rounds are interleaved and medians compared, so that
whatever else the machine does hits both. Writes ``perf/results/http.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from api.auth.offline import mint_offline  # noqa: E402

ISSUE, ROLE = "bench", "python-specialist"
RESULT = {"status": "success", "files_modified": ["a.py"], "decisions": ["keep it small"], "metrics": {"tests": 12}}
#: Long polls that wait for an event that never comes: one for each role.
WAITS = 119
#: Agents that write as fast as they can, and what starting them may take of their time.
FLOODING = 8
FLOOD_START_S = 2.0
EVENT = {"topic": "testing", "data": {"n": "{n}", "text": "x" * 200}}


class Sides:
    """Both servers, and one way to load either."""

    def __init__(self, directory: Path, project: Path) -> None:
        self.directory = directory
        self.files = directory / "bare"
        self.files.mkdir()
        storage = directory / "storage"
        environment = {**os.environ, "ORCHESTRATOR_RATE_LIMITS": "off", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "api.cli", "serve", "--port", "0", "--storage", str(storage)]
        self._errors = (directory / "stderr").open("wb")
        self.sidecar = subprocess.Popen(
            [*command, "--project", f"bench={project}"],
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            text=True,
        )
        self.bare = subprocess.Popen(
            [sys.executable, str(ROOT / "perf/baselines/bare_http.py"), str(self.files)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.sidecar.stdout is not None
        assert self.bare.stdout is not None
        line = self.sidecar.stdout.readline()
        if not line.startswith("listening on"):
            raise SystemExit((directory / "stderr").read_text())
        self.sidecar_port = int(line.rpartition(":")[2])
        self.bare_port = int(self.bare.stdout.readline())
        self.token = mint_offline(storage, "bench", None, True, 86400)

    def close(self) -> None:
        """End both."""
        self.bare.kill()
        self.sidecar.send_signal(signal.SIGTERM)
        self.sidecar.wait(30)
        self.bare.wait()
        self._errors.close()

    def ask(self, method: str, path: str, body: Any = None) -> bytes:
        """One request to the sidecar."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.sidecar_port}{path}",
            data=data,
            method=method,
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            content: bytes = answer.read()
        return content

    def request(self, port: int, method: str, path: str, body: bytes | None) -> bytes:
        """The raw request; both sides get the same headers."""
        head = [
            f"{method} {path} HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            f"Authorization: Bearer {self.token}",
        ]
        if body is not None:
            length = len(body.replace(b"{n}", b"0" * 12))
            head += ["Content-Type: application/json", f"Content-Length: {length}"]
        return "\r\n".join([*head, "", ""]).encode() + (body or b"")

    def load(self, port: int, raw: bytes, connections: int, seconds: float) -> dict[str, float]:
        """Figures of one round."""
        file = self.directory / "request"
        file.write_bytes(raw)
        done = subprocess.run(
            [sys.executable, str(ROOT / "perf/http_load.py"), str(port), str(file), str(connections), str(seconds)],
            capture_output=True,
            text=True,
            check=True,
        )
        figures: dict[str, float] = json.loads(done.stdout)
        return figures


def compare(sides: Sides, name: str, method: str, path: str, body: Any, options: argparse.Namespace) -> dict[str, Any]:
    """One endpoint against the bare handler that returns the same bytes."""
    data = None if body is None else json.dumps(body).encode()
    answer = sides.ask(method, path, json.loads(data.replace(b"{n}", b"000000000000")) if data else None)
    (sides.files / name).write_bytes(answer)
    ours = sides.request(sides.sidecar_port, method, path, data)
    theirs = sides.request(sides.bare_port, method, f"/{name}", data)
    sides.load(sides.sidecar_port, ours, options.connections, 0.5)
    sides.load(sides.bare_port, theirs, options.connections, 0.5)
    rounds = [
        (
            sides.load(sides.bare_port, theirs, options.connections, options.seconds),
            sides.load(sides.sidecar_port, ours, options.connections, options.seconds),
        )
        for _ in range(options.rounds)
    ]
    row: dict[str, Any] = {
        "row": name,
        "answer_bytes": len(answer),
        "bare": median([bare for bare, _ in rounds]),
        "sidecar": median([sidecar for _, sidecar in rounds]),
        "ratio": statistics.median(sidecar["rate"] / bare["rate"] for bare, sidecar in rounds),
    }
    print(
        f"{name:18} ratio {row['ratio']:.2f}  bare {row['bare']['rate']:.0f}/s  sidecar {row['sidecar']['rate']:.0f}/s"
        f"  p50 {row['sidecar']['p50_ms']:.1f} ms  p99 {row['sidecar']['p99_ms']:.1f} ms"
        f"  errors {row['sidecar']['errors']:.0f}"
    )
    return row


def compare_with_waits(sides: Sides, path: str, options: argparse.Namespace) -> dict[str, Any]:
    """The sidecar's rate while WAITS long polls wait, against its own rate without them, in turns."""
    raw = sides.request(sides.sidecar_port, "GET", path, None)
    waiting = sides.request(sides.sidecar_port, "GET", "/api/events/wait/never?timeout=300000&since=latest", None)
    free, held = [], []
    for _ in range(options.rounds):
        free.append(sides.load(sides.sidecar_port, raw, options.connections, options.seconds))
        sockets = [socket.create_connection(("127.0.0.1", sides.sidecar_port)) for _ in range(WAITS)]
        for one in sockets:
            one.sendall(waiting)
        while json.loads(sides.ask("GET", "/status"))["events"]["active_subscriptions"] < WAITS:
            time.sleep(0.05)
        held.append(sides.load(sides.sidecar_port, raw, options.connections, options.seconds))
        for one in sockets:
            one.close()
    row: dict[str, Any] = {
        "row": f"context while {WAITS} polls wait",
        "without": median(free),
        "waiting": median(held),
        "ratio": statistics.median(b["rate"] / a["rate"] for a, b in zip(free, held, strict=True)),
    }
    rates = f"{row['without']['rate']:.0f}/s -> {row['waiting']['rate']:.0f}/s"
    print(f"{WAITS} polls waiting   ratio {row['ratio']:.3f}  {rates}")
    return row


def flood(sides: Sides, seconds: float) -> list[str]:
    """Start FLOODING agents that write as fast as they can for so long; their ids, once each has written."""
    command = ["timeout", str(seconds), "cat", "/dev/zero"]
    body = {"agent_type": ROLE, "issue_id": ISSUE, "task": "flood", "command": command, "runtime": "text"}
    ids = [json.loads(sides.ask("POST", "/api/agents/spawn", body))["agent_id"] for _ in range(FLOODING)]
    for agent_id in ids:
        while not sides.ask("GET", f"/api/agents/{agent_id}/output?limit=1"):
            time.sleep(0.01)
    return ids


def compare_under_flood(sides: Sides, path: str, options: argparse.Namespace) -> dict[str, Any]:
    """The p99 of an endpoint and of the bare handler with the same answer, in turns, each while agents flood."""
    (sides.files / "flood").write_bytes(sides.ask("GET", path))
    requests = {
        "bare": (sides.bare_port, sides.request(sides.bare_port, "GET", "/flood", None)),
        "sidecar": (sides.sidecar_port, sides.request(sides.sidecar_port, "GET", path, None)),
    }
    rounds: dict[str, list[dict[str, float]]] = {"bare": [], "sidecar": []}
    for _ in range(options.rounds):
        for name, (port, raw) in requests.items():
            ids = flood(sides, options.seconds + FLOOD_START_S)
            rounds[name].append(sides.load(port, raw, options.connections, options.seconds))
            for agent_id in ids:
                while json.loads(sides.ask("GET", f"/api/agents/{agent_id}"))["status"] in ("starting", "running"):
                    time.sleep(0.05)
    pairs = zip(rounds["sidecar"], rounds["bare"], strict=True)
    row: dict[str, Any] = {
        "row": f"p99 while {FLOODING} agents flood",
        "bare": median(rounds["bare"]),
        "sidecar": median(rounds["sidecar"]),
        "ratio": statistics.median(sidecar["p99_ms"] / bare["p99_ms"] for sidecar, bare in pairs),
        "bar": 1.3,
    }
    p99 = f"bare {row['bare']['p99_ms']:.1f} ms  sidecar {row['sidecar']['p99_ms']:.1f} ms"
    print(f"{FLOODING} agents flooding  p99 ratio {row['ratio']:.2f}  {p99}")
    return row


def median(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Each figure's median."""
    return {name: statistics.median(figures[name] for figures in rounds) for name in rounds[0]}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "commit": commit.stdout.strip(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--only", default="")
    parser.add_argument("--project", type=Path, default=ROOT)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-http-") as directory:
        sides = Sides(Path(directory), options.project)
        try:
            stored = json.loads(sides.ask("POST", "/api/results", {"issue_id": ISSUE, "result": RESULT}))
            sides.ask("GET", f"/api/context/{ISSUE}/{ROLE}")
            targets = [
                ("context", "GET", f"/api/context/{ISSUE}/{ROLE}", None),
                ("context-small", "GET", f"/api/context/{ISSUE}/{ROLE}?max_bytes=20000", None),
                ("publish", "POST", "/api/events/measured", EVENT),
                ("wait", "GET", "/api/events/wait/agent_completed?timeout=0&limit=1", None),
                ("results-store", "POST", "/api/results", {"issue_id": ISSUE, "result": RESULT}),
                ("results-get", "GET", f"/api/results/{stored['id']}", None),
                ("agents", "GET", "/api/agents", None),
                ("profile", "GET", f"/api/profiles/{ROLE}", None),
                ("health", "GET", "/health", None),
                ("status", "GET", "/status", None),
            ]
            rows = [
                compare(sides, name, method, path, body, options)
                for name, method, path, body in targets
                if options.only in ("", name)
            ]
            if options.only in ("", "waits"):
                rows.append(compare_with_waits(sides, f"/api/context/{ISSUE}/{ROLE}?max_bytes=20000", options))
            if options.only in ("", "flood"):
                rows.append(compare_under_flood(sides, f"/api/context/{ISSUE}/{ROLE}?max_bytes=20000", options))
        finally:
            sides.close()
    target = ROOT / "perf/results/http.json"
    if not options.only:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(
            json.dumps(
                {"machine": machine(), "options": vars(options) | {"project": str(options.project.name)}, "rows": rows},
                indent=2,
            )
            + "\n"
        )


if __name__ == "__main__":
    main()

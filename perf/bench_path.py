"""The whole path by the API for 119 agents at once: context, workspace, token, start, durable result, end.

    python perf/bench_path.py [--rounds 5] [--agents 119] [--project DIR …]

Each agent has a role of its own and a task that nobody had before, so that no context is a cached one. The clock runs
from the first request to the last ``agent_completed``, which is published when the result is durable; every record is
checked. ``subprocess.Popen`` of as many ``/bin/true`` is shown beside it (the baseline of ``bench_pool.py``). The
projects are this one and a directory of a few files unless others are named; what is written goes to the disk and, in
rows of its own, into memory. Writes ``perf/results/path.json``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from perf.bench_pool import popen_and_wait  # noqa: E402
from perf.keepalive import Line, request  # noqa: E402
from tests.support.agents import ECHO_SCRIPT, shell  # noqa: E402
from tests.support.roster import roster  # noqa: E402
from tests.support.server import Server  # noqa: E402

#: What is aimed at, in agents a second.
BAR = 60
#: Seconds after which a round that has not ended is given up.
LIMIT_S = 120.0
#: A directory that is kept in memory.
MEMORY = "/dev/shm"
WORDS = ("retry", "token", "queue", "stream", "cursor", "budget", "parser", "worker", "signal", "schema", "render")


def body(issue: str, number: int, agent_type: str, workspace: str) -> dict[str, Any]:
    """A request to spawn agent ``number`` of a round."""
    words = f"{WORDS[number % len(WORDS)]} {WORDS[number // len(WORDS) % len(WORDS)]}"
    return {
        "agent_type": agent_type,
        "issue_id": issue,
        "task": f"Look at the {words} of {issue}, case {number}",
        "command": shell(ECHO_SCRIPT),
        "environment": {"NUMBER": str(number)},
        "workspace": workspace,
    }


class Client:
    """A connection for each agent and one for what is waited for, all open before the clock starts."""

    def __init__(self, lines: list[Line], token: str) -> None:
        self._lines = lines
        self._token = token

    @classmethod
    async def open(cls, url: str, token: str, agents: int) -> Client:
        """Connect."""
        port = urlsplit(url).port
        assert port is not None
        return cls([await Line.open(port) for _ in range(agents + 1)], token)

    async def spawn(self, number: int, body: dict[str, Any]) -> str:
        """The identifier of the agent that was spawned."""
        answer = await self._lines[number].ask(request("POST", "/api/agents/spawn", self._token, body))
        return str(json.loads(answer)["agent_id"])

    async def get(self, path: str, query: dict[str, str]) -> Any:
        """The answer to a query."""
        return json.loads(await self._lines[-1].ask(request("GET", f"{path}?{urlencode(query)}", self._token)))


async def run(client: Client, issue: str, roles: list[str], workspace: str) -> float:
    """Seconds from the first request to the last end. Raises SystemExit when an agent went wrong."""
    begun = time.perf_counter()
    spawned = [client.spawn(number, body(issue, number, role, workspace)) for number, role in enumerate(roles)]
    waiting = set(await asyncio.gather(*spawned))
    since = "earliest"
    while waiting:
        if time.perf_counter() - begun > LIMIT_S:
            raise SystemExit(f"{len(waiting)} agents did not end within {LIMIT_S:g} s")
        query = {"filter": f"issue_id:{issue}", "since": since, "limit": "1000", "timeout": "10000"}
        page = await client.get("/api/events/wait/agent_completed,agent_failed,agent_killed", query)
        waiting -= {event["data"]["agent_id"] for event in page["events"]}
        since = page["next_cursor"]
    elapsed = time.perf_counter() - begun
    found = (await client.get("/api/results", {"issue_id": issue, "limit": "1000"}))["results"]
    own = {(row["agent_type"], row["result"]["artifacts"]["number"]) for row in found}
    if own != {(role, str(number)) for number, role in enumerate(roles)}:
        raise SystemExit(f"{len(roles) - len(own)} of {len(roles)} results are missing or not the agent's own")
    return elapsed


async def measure(project: Path, medium: str | None, agents: int, rounds: int) -> dict[str, Any]:
    """All rounds for a project with its storage in ``medium``; each has both kinds of workspace and the baseline."""
    all_roles = [role.agent_type for role in roster()]
    roles = [all_roles[number % len(all_roles)] for number in range(agents)]
    seconds: dict[str, list[float]] = {"shared": [], "scratch": [], "popen": []}
    with tempfile.TemporaryDirectory(prefix="bench-path-", dir=medium) as name:
        place = Path(name)
        with Server(place / "storage", {"bench": project}) as server:
            client = await Client.open(server.url, server.token(), agents)
            await run(client, "warm-up", roles, "shared")
            for number in range(rounds):
                for workspace in ("shared", "scratch"):
                    seconds[workspace].append(await run(client, f"{workspace}-{number}", roles, workspace))
                seconds["popen"].append(await asyncio.to_thread(popen_and_wait, agents, place / f"base{number}"))
    rates = {name: [round(agents / each, 1) for each in values] for name, values in seconds.items()}
    return {name: round(statistics.median(values), 1) for name, values in rates.items()} | {"rounds": rates}


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--agents", type=int, default=119)
    parser.add_argument("--project", type=Path, action="append")
    options = parser.parse_args()
    media = {"disk": None, **({"memory": MEMORY} if Path(MEMORY).is_dir() else {})}
    rows = {}
    for project in options.project or (ROOT, ROOT / "perf" / "baselines"):
        for name, medium in media.items():
            figures = asyncio.run(measure(project, medium, options.agents, options.rounds))
            row = f"{'this project' if project == ROOT else project.resolve().name}, {name}"
            rows[row] = figures
            print(f"{row:24} " + "  ".join(f"{key} {figures[key]}/s" for key in ("shared", "scratch", "popen")))
    found = {"agents": options.agents, "agents_per_s": rows, "bar": BAR}
    (ROOT / "perf" / "results" / "path.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

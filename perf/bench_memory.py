"""Memory of supervisor and workers with 119 idle agents, as proportional set size (PSS).

    python perf/bench_memory.py [--agents 119]

PSS counts a page that n processes share as 1/n each (proc(5), smaps_rollup), so forked children are not counted twice.
Writes ``perf/results/memory.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.support.agents import spawn  # noqa: E402
from tests.support.repo import sample_repository  # noqa: E402
from tests.support.roster import roster  # noqa: E402
from tests.support.server import Server  # noqa: E402


def own_processes(server: Server) -> list[psutil.Process]:
    """The supervisor and what it started, the agents left out."""
    supervisor = psutil.Process(server.pid)
    return [
        process for process in [supervisor, *supervisor.children(recursive=True)] if "AGENT_ID" not in process.environ()
    ]


def pss_mb(processes: list[psutil.Process]) -> float:
    """Summed PSS."""
    return sum(process.memory_full_info().pss for process in processes) / 2**20


def main() -> None:
    """Measure before, with, and after the agents."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=119)
    count = parser.parse_args().agents
    roles = [role.agent_type for role in roster()]
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        project = sample_repository(directory / "project")
        with Server(directory / "storage", {"bench": project}) as server:
            api = server.api()
            idle = pss_mb(own_processes(server))
            began = time.monotonic()
            ids = [
                spawn(api, "bench", "sleep 600", agent_type=roles[number % len(roles)])["agent_id"]
                for number in range(count)
            ]
            took = time.monotonic() - began
            processes = own_processes(server)
            figures = {
                "agents": len(ids),
                "processes": len(processes),
                "without_agents_mb": round(idle, 1),
                "with_agents_mb": round(pss_mb(processes), 1),
                "spawns_per_second": round(count / took, 1),
            }
    target = Path(__file__).resolve().parent / "results" / "memory.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()

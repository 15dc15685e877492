"""Repeats the chaos tests in random order and keeps the outcome: what ``tox -e chaos`` runs.

python -m tests.chaos.repeat                     20 rounds of all faults, large numbers, the storm
python -m tests.chaos.repeat --long              the same, then the long pass (another hour)
python -m tests.chaos.repeat --rounds 3 --seed 7 --output /tmp/chaos.json

Each round runs every test of a fault with a seed of its own, in an order of its own. Faults that are about numbers
(10,000 starts, 30 kills) come once in full size, and the storm rages for two minutes. The long pass causes each fault
ten times as often, and those of the event log under load. The outcome is written after every step, with the seed that
repeats it and the commit that it ran on; the exit code is 1 when anything failed.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from perf import machine

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "perf" / "results" / "chaos.json"
STORM = "tests/chaos/test_storm.py"
#: Not faults of one thing: the storm has a step of its own, these two measure conservation under load.
LONG_ONLY = ("tests/chaos/test_events_conservation.py", "tests/chaos/test_events_conservation_http.py")
#: Faults whose numbers are too large for each round: 10,000 starts, 119 agents, 30 kills, a gibibyte.
NUMBERS = (
    "tests/chaos/test_pool_process_faults.py::test_fault_8_commands_that_cannot_start_leak_nothing",
    "tests/chaos/test_pool_supervisor_faults.py::test_fault_21_agents_are_gone_within_5_s_of_their_supervisor",
    "tests/chaos/test_server_faults.py::test_fault_22_kills_at_random_moments_lose_no_acknowledged_event",
    "tests/chaos/test_pool_pipe_faults.py::test_fault_28_a_huge_stream_without_a_newline",
)
#: More rounds of a fault take longer than the limit of a single one.
LONG_TIMEOUT_S = 1800


def run_tests(seed: int, *arguments: str, workers: str = "0") -> dict[str, Any]:
    """One run of pytest; its counts, seconds, seed and the names of what failed."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "chaos", "-n", workers, "--dist", "worksteal"]
        command += ["-o", "junit_logging=system-out", f"--junitxml={report}"]
        command += [f"--chaos-seed={seed}", f"--randomly-seed={seed}", *arguments]
        begun = time.monotonic()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        seconds = round(time.monotonic() - begun, 1)
        if not report.exists():
            return {"seed": seed, "seconds": seconds, "passed": 0, "failed": 1, "failures": [done.stdout[-2000:]]}
        return {"seed": seed, "seconds": seconds, **read_report(report)}


def read_report(report: Path) -> dict[str, Any]:
    """Counts of a JUnit report, the names of failed and skipped tests, and the storm's own words."""
    passed = 0
    failures: list[str] = []
    skipped: list[str] = []
    said: list[str] = []
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        problems = [*case.findall("failure"), *case.findall("error")]
        if problems:
            failures.append(f"{name}: {(problems[0].get('message') or '')[:300]}")
        elif (reason := case.find("skipped")) is not None:
            skipped.append(f"{name}: {reason.get('message')}")
        else:
            passed += 1
        said += re.findall(r"^storm: (.*)$", case.findtext("system-out") or "", re.MULTILINE)
    found: dict[str, Any] = {"passed": passed, "failed": len(failures)}
    for key, names in (("failures", failures), ("skipped", skipped), ("said", said)):
        if names:
            found[key] = names
    return found


def main() -> int:
    """Run all steps; the exit code."""
    parser = argparse.ArgumentParser(description="Repeat the chaos tests and keep the outcome.")
    parser.add_argument("--rounds", type=int, default=20, help="how often, in random order (default: 20)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1, 1_000_000))
    parser.add_argument("--workers", default="2", help="tests at once in a round (default: 2)")
    parser.add_argument("--long", action="store_true", help="then cause each fault ten times as often (about an hour)")
    parser.add_argument("--output", type=Path, default=RESULT)
    given = parser.parse_args()
    outcome: dict[str, Any] = {"machine": machine.facts(), "seed": given.seed, "rounds": []}
    begun = time.monotonic()

    def keep(step: dict[str, Any], what: str) -> None:
        steps = [*outcome["rounds"], *(outcome.get(name) for name in ("numbers", "storm", "long"))]
        outcome["passed"] = sum(one["passed"] for one in steps if one)
        outcome["failed"] = sum(one["failed"] for one in steps if one)
        outcome["seconds"] = round(time.monotonic() - begun, 1)
        given.output.write_text(json.dumps(outcome, indent=1) + "\n", encoding="utf-8")
        print(what, json.dumps(step), flush=True)

    faults = [f"--ignore={path}" for path in (STORM, *LONG_ONLY)]
    for number in range(given.rounds):
        step = run_tests(given.seed + number, "tests/chaos", *faults, workers=given.workers)
        outcome["rounds"].append(step)
        keep(step, f"round {number + 1} of {given.rounds}:")
    many = ("--chaos-rounds=10", f"--timeout={LONG_TIMEOUT_S}")
    outcome["numbers"] = run_tests(given.seed, *NUMBERS, *many, workers=given.workers)
    keep(outcome["numbers"], "in full numbers:")
    outcome["storm"] = run_tests(given.seed, STORM, "--chaos-rounds=10")
    keep(outcome["storm"], "storm:")
    if given.long:
        outcome["long"] = run_tests(given.seed, "tests/chaos", f"--ignore={STORM}", *many, workers=given.workers)
        keep(outcome["long"], "long pass:")
    return 1 if outcome["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())

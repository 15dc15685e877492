"""The context engine's selection against the benchmark's best simple method: a paired bootstrap over its tasks.

The benchmark is not part of this project; the environment says where it is: ``CONTEXT_BENCHMARK`` is the folder with
``ctxbench.py`` and ``tasks.jsonl``, ``CTXBENCH_REPOS`` that of the repositories' git data.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from perf.machine import facts

HERE = Path(__file__).resolve().parent
FIGURES = (
    "rr",
    "r@10",
    *(f"{what}@{size}KB" for what in ("recall", "hunk") for size in (25, 50, 100, 200, 400)),
    "auc",
)
_RESAMPLES = 10_000

Rows = dict[str, dict[str, Any]]


def main() -> int:
    """Run both selectors (or read ``--rows``, the folder of an earlier run) and write the comparison as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, help="folder with engine.jsonl and baseline.jsonl of an earlier run")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "context-quality.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows = options.rows or _evaluate(Path(os.environ["CONTEXT_BENCHMARK"]), Path(scratch))
        engine, baseline = (_load(rows / f"{name}.jsonl") for name in ("engine", "baseline"))
    figures = compare(engine, baseline)
    found = {"machine": facts(), "tasks": len(engine), "figures": figures}
    options.out.write_text(json.dumps(found, indent=2) + "\n")
    for name, figure in figures.items():
        print(f"{name:14} {figure['baseline']:.3f} -> {figure['engine']:.3f}  {figure['difference_95_percent']}")
    return 0


def _evaluate(benchmark: Path, scratch: Path) -> Path:
    command = [sys.executable, str(benchmark / "ctxbench.py"), "eval", "--tasks", str(benchmark / "tasks.jsonl")]
    command += ["--selector", f"engine=py:{HERE / 'context_selector.py'}"]
    command += ["--selector", "baseline=builtin:fused-excerpt", "--per-budget"]
    command += ["--out", str(scratch / "rows"), "--work", str(scratch / "trees")]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(HERE.parent)})
    return scratch / "rows"


def _load(path: Path) -> Rows:
    rows = map(json.loads, path.read_text().splitlines())
    return {row["id"]: row for row in rows}


def compare(engine: Rows, baseline: Rows) -> dict[str, dict[str, Any]]:
    """By figure both means, their difference and its 95 % interval, tasks resampled within each repository."""
    if engine.keys() != baseline.keys():
        raise ValueError("the two runs are not of the same tasks")
    found = {}
    for name in FIGURES:
        by_repository: defaultdict[str, list[float]] = defaultdict(list)
        for task, row in engine.items():
            by_repository[row["repo"]].append(row[name] - baseline[task][name])
        low, high = _interval(list(by_repository.values()))
        found[name] = {
            "engine": round(_mean(row[name] for row in engine.values()), 4),
            "baseline": round(_mean(row[name] for row in baseline.values()), 4),
            "difference_95_percent": [round(low, 4), round(high, 4)],
        }
    return found


def _interval(groups: list[list[float]]) -> tuple[float, float]:
    draw = random.Random(1)
    means = []
    for _ in range(_RESAMPLES):
        means.append(_mean(value for group in groups for value in draw.choices(group, k=len(group))))
    means.sort()
    return means[_RESAMPLES * 25 // 1000], means[_RESAMPLES * 975 // 1000]


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return sum(known) / len(known)


if __name__ == "__main__":
    sys.exit(main())

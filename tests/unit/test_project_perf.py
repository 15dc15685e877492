"""The comparison of figures: it decides whether a change made something slower."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from perf.compare import compare, direction
from perf.machine import facts

ROOT = Path(__file__).parents[2]


def test_worse_is_told_by_the_direction_of_the_figure() -> None:
    """A rate that falls and a time that grows are both worse; a count is neither."""
    old = {"requests_per_second": 100.0, "p99_ms": 10.0, "rounds": 5, "cases": [{"name": "a", "ratio": 1.0}]}
    new = {"requests_per_second": 80.0, "p99_ms": 12.0, "rounds": 9, "cases": [{"name": "a", "ratio": 0.95}]}
    lines, worse = compare(old, new, 0.1)
    assert worse == ["requests_per_second", "p99_ms"]
    assert len(lines) == 4
    assert compare(new, old, 0.1)[1] == []
    assert [direction(name) for name in ("a.ratio", "a.took_s", "a.count")] == [1, -1, 0]


def test_figures_of_the_machine_are_not_compared(tmp_path: Path) -> None:
    """Two runs on one machine differ in load and time of day; that is no regression."""
    for name in ("old", "new"):
        document = {"machine": facts() | {"load_before": 1.0 if name == "old" else 9.0}, "p50": 1.0}
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    command = [sys.executable, "-m", "perf.compare", str(tmp_path / "old.json"), str(tmp_path / "new.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "load_before" not in done.stdout
    assert "p50" in done.stdout


def test_every_benchmark_is_known_and_explained() -> None:
    """A benchmark that nobody runs rots."""
    shown = subprocess.run(
        [sys.executable, "-m", "perf.measure", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    readme = (ROOT / "perf" / "README.md").read_text(encoding="utf-8")
    for path in (ROOT / "perf").glob("bench_*.py"):
        assert path.stem.removeprefix("bench_") in shown
        assert f"`{path.name}`" in readme

"""Compare two result files: every number that is in both, with its ratio.

    python -m perf.compare OLD.json NEW.json [--threshold 0.1]

Exits with 1 when a figure got worse by more than the threshold. Whether more is better is told by the name: rates,
ratios and shares are better when higher; times, sizes and counts of bytes when lower; other numbers are only shown.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HIGHER_IS_BETTER = ("per_second", "rps", "ratio", "recall", "hit_rate", "throughput")
LOWER_IS_BETTER = ("_ms", "_s", "_mb", "_bytes", "p50", "p99")


def numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a document with the path to it; facts about the machine are left out."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key != "machine":
                yield from numbers(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            name = item.get("name", index) if isinstance(item, dict) else index
            yield from numbers(item, f"{path}[{name}]")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, float(value)


def direction(path: str) -> int:
    """1 when more is better, -1 when less is, 0 when neither is known."""
    name = path.rpartition(".")[2]
    if any(mark in name for mark in HIGHER_IS_BETTER):
        return 1
    return -1 if name.endswith(LOWER_IS_BETTER) or name in LOWER_IS_BETTER else 0


def compare(old: Any, new: Any, threshold: float) -> tuple[list[str], list[str]]:
    """A line for each number in both, and the paths of those that got worse by more than ``threshold`` (a share)."""
    before = dict(numbers(old))
    lines, worse = [], []
    for path, after in numbers(new):
        if path not in before:
            continue
        ratio = after / before[path] if before[path] else float("inf" if after else 1)
        change = ratio - 1
        is_worse = direction(path) * change < -threshold
        lines.append(f"{'worse ' if is_worse else '      '}{path:60} {before[path]:14.3f} {after:14.3f}  x{ratio:.3f}")
        if is_worse:
            worse.append(path)
    return lines, worse


def main() -> int:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description="Compare two result files.")
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--threshold", type=float, default=0.1, help="share by which a figure may be worse")
    options = parser.parse_args()
    old, new = (json.loads(path.read_text(encoding="utf-8")) for path in (options.old, options.new))
    lines, worse = compare(old, new, options.threshold)
    print("\n".join(lines))
    return 1 if worse else 0


if __name__ == "__main__":
    raise SystemExit(main())

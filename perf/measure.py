"""Run every benchmark, one after the other, and say what each found.

    python -m perf.measure [NAME …]

Each ``bench_<name>.py`` writes ``perf/results/<name>.json`` itself; this adds machine and commit to it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from perf.machine import facts

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"


def benches() -> dict[str, Path]:
    """Name -> script of every benchmark."""
    return {path.stem.removeprefix("bench_"): path for path in sorted(HERE.glob("bench_*.py"))}


def main() -> int:
    """Run those named (all by default); 1 when one of them failed."""
    parser = argparse.ArgumentParser(description="Run the benchmarks of this directory.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which of: {', '.join(benches())} (default: all)")
    names = parser.parse_args().names or list(benches())
    if unknown := sorted(set(names) - set(benches())):
        parser.error(f"no such benchmark: {', '.join(unknown)}")
    failed = []
    for name in names:
        print(f"== {name}", flush=True)
        done = subprocess.run([sys.executable, str(benches()[name])], cwd=HERE.parent)
        if done.returncode:
            failed.append(name)
        elif (path := RESULTS / f"{name}.json").exists():
            document = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(document, dict):
                document["machine"] = facts()
                path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())

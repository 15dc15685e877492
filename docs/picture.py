"""Draw ``docs/images/run.svg`` from a real run: a small project, the command, what it prints.

python docs/picture.py
"""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sysconfig
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

TARGET = Path(__file__).resolve().parent / "images" / "run.svg"
COLUMNS = 104
#: Lines of progress and of the report that are shown; the rest is told by a line of dots.
PROGRESS_LINES, REPORT_LINES = 11, 21
FILES = {
    "shop/__init__.py": '"""A shop."""\n',
    "shop/cart.py": '"""The cart."""\n\n\ndef total(prices: list[int]) -> int:\n    """The sum."""\n'
    '    return eval("+".join(map(str, prices)))\n',
    "tests/test_cart.py": "import unittest\n\nfrom shop.cart import total\n\n\nclass CartTest(unittest.TestCase):\n"
    "    def test_total(self):\n        self.assertEqual(total([1, 2]), 3)\n\n"
    "    def test_empty(self):\n        self.assertEqual(total([]), 0)\n",
    "tests/__init__.py": "",
    "README.md": "# Shop\n\nSells things. See [the guide](docs/guide.md).\n\n    pip install shop\n",
    "LICENSE": "MIT License\n",
}


def make_project(directory: Path) -> None:
    """A git repository with something to find."""
    for name, text in FILES.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.invalid"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "Begin the shop"]):
        subprocess.run(["git", *command], cwd=directory, check=True)


def run(project: Path, storage: Path) -> tuple[str, str]:
    """Progress, and the report as a terminal shows it."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": str(COLUMNS), "TERM": "xterm-256color", "FORCE_COLOR": "1"}
    environment.pop("NO_COLOR", None)
    command = [f"{sysconfig.get_path('scripts')}/orchestrator", "run", "Review this project", "--storage", str(storage)]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, cwd=project, stdout=theirs, stderr=errors, env=environment)
        os.close(theirs)
        report = bytearray()
        while True:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # a pty answers EIO at its end
                break
            if not chunk:
                break
            report += chunk
        process.wait()
        os.close(ours)
        errors.seek(0)
        return errors.read().decode(), report.decode().replace("\r\n", "\n")


def draw(progress: str, report: str) -> str:
    """The picture; without the fonts that would be loaded from elsewhere."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_markup('[bold green]$[/] orchestrator run "Review this project"'))
    steps = [line for line in progress.splitlines() if re.search(r"(completed in|looking for|running unittest)", line)]
    for line in steps[:PROGRESS_LINES]:
        console.print(Text.from_ansi(f"\x1b[2m{line}\x1b[0m"), no_wrap=True, overflow="ellipsis")
    shown = report.strip().splitlines()[:REPORT_LINES]
    for line in ["", *shown, "…"]:
        console.print(Text.from_ansi(line), no_wrap=True, overflow="ellipsis")
    picture = console.export_svg(title="orchestrator run", unique_id="run")
    return re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)


def main() -> None:
    """Run and draw."""
    with tempfile.TemporaryDirectory() as directory:
        project = Path(directory) / "shop"
        make_project(project)
        progress, report = run(project, Path(directory) / "storage")
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(draw(progress, report) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

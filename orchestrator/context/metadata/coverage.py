"""Test coverage from the reports that a project keeps: Cobertura XML, LCOV, Go's profile, coverage.py's files."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import msgspec

from orchestrator.context.metadata.xml import parse_xml

#: Reports by name, the most telling first. They are mostly ignored by git, so they are looked for by name.
REPORTS = (
    "coverage.xml", "cobertura.xml", "coverage/cobertura-coverage.xml", "coverage/lcov.info", "lcov.info",
    "coverage.info", "coverage.json", "coverage/coverage-summary.json", "coverage.out", "cover.out", ".coverage",
)  # fmt: skip
_LARGEST = 32 << 20
#: A database may hold anything, so it is asked for no longer (seconds), looked at after so many steps of its machine,
#: and for so many rows.
_ASKED_S = 2.0
_STEPS = 10_000
_MOST_FILES = 1_000_000


def percent_of(name: str, data: bytes) -> float | None:
    """Covered lines (statements) in percent as the report tells, or None when it does not."""
    try:
        if name.endswith(".xml"):
            return _cobertura(data)
        if name.endswith(".info"):
            return _lcov(data)
        if name.endswith(".json"):
            return _json(data)
        if name.endswith(".out"):
            return _go(data)
    except (ValueError, ArithmeticError, msgspec.DecodeError):
        return None
    return None


def _rounded(percent: float) -> float | None:
    return round(percent, 2) if 0 <= percent <= 100 else None


def _cobertura(data: bytes) -> float | None:
    # Cobertura files name a document type by design; it is cut off, so that nothing of it is read
    text = data.decode("utf-8", "replace")
    start = text.find("<!DOCTYPE")
    if start >= 0:
        end = text.find(">", start)
        if "[" in text[start:end]:
            return None
        text = text[:start] + text[end + 1 :]
    rate = parse_xml(text, levels=1).attributes.get("line-rate")
    return _rounded(float(rate) * 100) if rate is not None else None


def _lcov(data: bytes) -> float | None:
    found = hit = 0
    for line in data.decode("utf-8", "replace").split("\n"):
        if line.startswith("LF:"):
            found += int(line[3:])
        elif line.startswith("LH:"):
            hit += int(line[3:])
    return _rounded(100 * hit / found) if found else None


class _Totals(msgspec.Struct):
    percent_covered: float


class _Lines(msgspec.Struct):
    pct: float


class _Total(msgspec.Struct):
    lines: _Lines


class _Report(msgspec.Struct):
    """coverage.py's JSON has ``totals``, Istanbul's summary ``total``; what else is in them is skipped."""

    totals: _Totals | None = None
    total: _Total | None = None


def _json(data: bytes) -> float | None:
    report = msgspec.json.decode(data, type=_Report)
    if report.totals is not None:
        return _rounded(report.totals.percent_covered)
    return _rounded(report.total.lines.pct) if report.total is not None else None


def _go(data: bytes) -> float | None:
    total = covered = 0
    for line in data.decode("utf-8", "replace").split("\n")[1:]:
        fields = line.rsplit(" ", 2)
        if len(fields) == 3:
            total += int(fields[1])
            covered += int(fields[1]) if int(fields[2]) else 0
    return _rounded(100 * covered / total) if total else None


def measured_files(path: Path) -> int | None:
    """How many files coverage.py's database at ``path`` measured; None when it is none, or does not tell in time."""
    deadline = time.monotonic() + _ASKED_S
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
            connection.set_progress_handler(lambda: int(time.monotonic() > deadline), _STEPS)
            # a view would compute whatever its author likes; row by row, since a mere count is no step
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'file'").fetchone():
                return None
            (count,) = connection.execute(f"SELECT count(*) FROM (SELECT 1 FROM file LIMIT {_MOST_FILES})").fetchone()
    except sqlite3.Error:
        return None
    return int(count) if count < _MOST_FILES else None


def is_acceptable(size: int) -> bool:
    """Whether a report of ``size`` bytes is read."""
    return 0 < size <= _LARGEST

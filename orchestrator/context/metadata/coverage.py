"""Test coverage from the reports that a project keeps: Cobertura XML, LCOV, Go's profile, coverage.py's files."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import msgspec

from orchestrator.context.metadata.xml import parse_xml

#: Reports by name, the most telling first. They are mostly ignored by git, so they are looked for by name.
REPORTS = (
    "coverage.xml", "cobertura.xml", "coverage/cobertura-coverage.xml", "coverage/lcov.info", "lcov.info",
    "coverage.info", "coverage.json", "coverage/coverage-summary.json", "coverage.out", "cover.out", ".coverage",
)  # fmt: skip
_LARGEST = 32 << 20


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
    except (ValueError, KeyError, TypeError, AttributeError, msgspec.DecodeError):
        return None
    return None


def _cobertura(data: bytes) -> float | None:
    # Cobertura files name a document type by design; it is cut off, so that nothing of it is read
    text = data.decode("utf-8", "replace")
    start = text.find("<!DOCTYPE")
    if start >= 0:
        end = text.find(">", start)
        if "[" in text[start:end]:
            return None
        text = text[:start] + text[end + 1 :]
    rate = parse_xml(text).attributes.get("line-rate")
    return round(float(rate) * 100, 2) if rate is not None else None


def _lcov(data: bytes) -> float | None:
    found = hit = 0
    for line in data.decode("utf-8", "replace").split("\n"):
        if line.startswith("LF:"):
            found += int(line[3:])
        elif line.startswith("LH:"):
            hit += int(line[3:])
    return round(100 * hit / found, 2) if found else None


def _json(data: bytes) -> float | None:
    decoded: Any = msgspec.json.decode(data)
    if "totals" in decoded:
        return round(float(decoded["totals"]["percent_covered"]), 2)
    return round(float(decoded["total"]["lines"]["pct"]), 2)


def _go(data: bytes) -> float | None:
    total = covered = 0
    for line in data.decode("utf-8", "replace").split("\n")[1:]:
        fields = line.rsplit(" ", 2)
        if len(fields) == 3:
            total += int(fields[1])
            covered += int(fields[1]) if int(fields[2]) else 0
    return round(100 * covered / total, 2) if total else None


def measured_files(path: Path) -> int | None:
    """How many files coverage.py's database at ``path`` measured; None when it is none."""
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
    except sqlite3.Error:
        return None
    try:
        row = connection.execute("SELECT count(*) FROM file").fetchone()
        return int(row[0])
    except (sqlite3.Error, TypeError):
        return None
    finally:
        connection.close()


def is_acceptable(size: int) -> bool:
    """Whether a report of ``size`` bytes is read."""
    return 0 < size <= _LARGEST

"""Coverage reports that a project already has, in the formats that tools of several languages write."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

import msgspec

_MAX_BYTES = 30_000_000


class Coverage(msgspec.Struct, frozen=True):
    """A report: ``rate`` 0–1 of lines, ``files`` path to rate, ``age_s`` seconds between it and ``now``."""

    path: str
    rate: float
    files: dict[str, float]
    written_at: float


def find_coverage(root: Path) -> Coverage | None:
    """The newest readable coverage report at the usual places, or None."""
    found: list[Coverage] = []
    for name, read in _READERS:
        path = root / name
        try:
            about = os.lstat(path)
            if not path.is_file() or path.is_symlink() or about.st_size > _MAX_BYTES:
                continue
            files, rate = read(path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ElementTree.ParseError):
            continue
        found.append(Coverage(name, rate, files, about.st_mtime))
    return max(found, key=lambda one: one.written_at, default=None)


def _cobertura(path: Path) -> tuple[dict[str, float], float]:
    document = ElementTree.parse(path).getroot()
    files = {entry.get("filename", ""): float(entry.get("line-rate", "0")) for entry in document.iter("class")}
    return files, float(document.attrib["line-rate"])


def _lcov(path: Path) -> tuple[dict[str, float], float]:
    files: dict[str, float] = {}
    name, found, hit, all_found, all_hit = "", 0, 0, 0, 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key == "SF":
            name = value
        elif key == "LF":
            found = int(value)
        elif key == "LH":
            hit = int(value)
        elif line == "end_of_record":
            files[name] = hit / found if found else 1.0
            all_found, all_hit = all_found + found, all_hit + hit
            found = hit = 0
    if not files:
        raise ValueError("no records")
    return files, all_hit / all_found if all_found else 1.0


def _json_summary(path: Path) -> tuple[dict[str, float], float]:
    document = json.loads(path.read_text(encoding="utf-8"))
    files = {name: entry["lines"]["pct"] / 100 for name, entry in document.items() if name != "total"}
    return files, document["total"]["lines"]["pct"] / 100


def _coverage_py(path: Path) -> tuple[dict[str, float], float]:
    document = json.loads(path.read_text(encoding="utf-8"))
    files = {name: entry["summary"]["percent_covered"] / 100 for name, entry in document["files"].items()}
    return files, document["totals"]["percent_covered"] / 100


def _go_profile(path: Path) -> tuple[dict[str, float], float]:
    """``go test -coverprofile``: ``file:from,to statements count`` per line after ``mode:``."""
    total: dict[str, list[int]] = {}
    for match in re.finditer(r"^(\S+):[\d.]+,[\d.]+ (\d+) (\d+)$", path.read_text(encoding="utf-8"), re.MULTILINE):
        entry = total.setdefault(match[1], [0, 0])
        entry[0] += int(match[2])
        entry[1] += int(match[2]) if int(match[3]) else 0
    if not total:
        raise ValueError("no records")
    statements, covered = (sum(entry[index] for entry in total.values()) for index in range(2))
    return {name: entry[1] / entry[0] if entry[0] else 1.0 for name, entry in total.items()}, covered / max(
        1, statements
    )


def _jacoco(path: Path) -> tuple[dict[str, float], float]:
    for counter in ElementTree.parse(path).getroot().findall("counter"):
        if counter.get("type") == "LINE":
            missed, covered = int(counter.attrib["missed"]), int(counter.attrib["covered"])
            return {}, covered / max(1, missed + covered)
    raise ValueError("no line counter")


_READERS: Final[tuple[tuple[str, Callable[[Path], tuple[dict[str, float], float]]], ...]] = (
    ("coverage.xml", _cobertura),
    ("cobertura.xml", _cobertura),
    ("coverage/cobertura-coverage.xml", _cobertura),
    ("coverage.json", _coverage_py),
    ("coverage/lcov.info", _lcov),
    ("lcov.info", _lcov),
    ("coverage/coverage-summary.json", _json_summary),
    ("coverage.out", _go_profile),
    ("cover.out", _go_profile),
    ("target/site/jacoco/jacoco.xml", _jacoco),
    ("build/reports/jacoco/test/jacocoTestReport.xml", _jacoco),
)

"""The outcome of the last build or test run, as its own report in the project tells. No report, no outcome."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from orchestrator.clock import rfc3339
from orchestrator.context.metadata.xml import Element, parse_xml
from orchestrator.context.models import JSON, Stamp
from orchestrator.context.reading import Reader, Refused

_LARGEST = 8 << 20
#: So many reports of one run are read (test runners of the JVM write one for each class), of so many names.
_MOST_REPORTS = 500
_MOST_NAMES = 5000


class Counts(msgspec.Struct, frozen=True):
    """Tests that ran (None: the report does not say) and tests that failed."""

    failed: int
    tests: int | None = None


def last_build(reader: Reader) -> JSON | None:
    """``{status: passed|failed, source, finished_at, age_days, failed, tests?}`` of the newest report that can be
    read; None when there is none. A run's reports count together, with the newest one's time."""
    newest: tuple[int, str, Counts] | None = None
    for source, stamps, parse in _found(reader):
        finished = max(stamp.mtime_ns for stamp in stamps.values())
        if newest is not None and finished <= newest[0]:
            continue
        counts = [_counts(reader, path, stamp, parse) for path, stamp in stamps.items()]
        known = [each for each in counts if each is not None]
        if len(known) < len(counts):  # one that cannot be read may tell of the failure
            continue
        tests = [each.tests for each in known if each.tests is not None]
        newest = (finished, source, Counts(sum(each.failed for each in known), sum(tests) if tests else None))
    if newest is None:
        return None
    finished, source, total = newest
    described: JSON = {
        "status": "failed" if total.failed else "passed",
        "source": source,
        "finished_at": rfc3339(finished / 1e9),
        "age_days": max(0, int((time.time() - finished / 1e9) // 86400)),
        "failed": total.failed,
    }
    return described if total.tests is None else {**described, "tests": total.tests}


Parse = Callable[[bytes], Counts]


def _found(reader: Reader) -> Iterator[tuple[str, dict[str, Stamp], Parse]]:
    """The reports that there are: where, the files with their stamps, and how they are read."""
    for path, parse in _FILES:
        stamp = reader.stamp(path)
        if stamp is not None:
            yield path, {path: stamp}, parse
    for directory, pattern, parse in _DIRECTORIES:
        names = [name for name in reader.names(directory, _MOST_NAMES) if re.fullmatch(pattern, name)]
        stamps = {f"{directory}/{name}": reader.stamp(f"{directory}/{name}") for name in names[:_MOST_REPORTS]}
        known = {path: stamp for path, stamp in stamps.items() if stamp is not None}
        if known:
            yield directory, known, parse


def _counts(reader: Reader, path: str, stamp: Stamp, parse: Parse) -> Counts | None:
    if not 0 < stamp.size <= _LARGEST:
        return None
    try:
        return parse(reader.read(path, _LARGEST).data)
    except (Refused, ValueError, KeyError, TypeError, AttributeError, StopIteration, RecursionError):
        return None


def _junit(data: bytes) -> Counts:
    """JUnit's XML, which most test runners write: a suite or suites, nested or not."""
    root = parse_xml(data.decode("utf-8-sig", "replace"))
    if root.name not in ("testsuites", "testsuite"):
        raise ValueError("no test suite")
    suites = [root] if root.name == "testsuite" else list(root.children("testsuite"))
    if not suites and "tests" in root.attributes:
        suites = [root]
    return Counts(
        failed=sum(_number(suite, "failures") + _number(suite, "errors") for suite in suites),
        tests=sum(_number(suite, "tests") for suite in suites),
    )


def _number(element: Element, name: str) -> int:
    return int(element.attributes.get(name, "0"))


def _trx(data: bytes) -> Counts:
    """The test results file of .NET."""
    summary = next(parse_xml(data.decode("utf-8-sig", "replace")).children("ResultSummary"))
    counters = next(summary.children("Counters"))
    failed = _number(counters, "failed") + _number(counters, "error") + _number(counters, "timeout")
    return Counts(max(failed, int(summary.attributes.get("outcome") == "Failed")), _number(counters, "total"))


def _pytest(data: bytes) -> Counts:
    """pytest's cache of failed tests: the ones that failed when they last ran."""
    failed: dict[str, bool] = msgspec.json.decode(data, type=dict[str, bool])
    return Counts(sum(failed.values()))


def _vitest(data: bytes) -> Counts:
    """Vitest's cache: ``{"results": [[file, {"failed": bool, …}], …]}``, by file."""
    results: Any = msgspec.json.decode(data)["results"]
    return Counts(sum(bool(entry["failed"]) for _, entry in results))


def _ctest(data: bytes) -> Counts:
    """CTest's list of failed tests, one a line."""
    return Counts(len(data.split(b"\n")) - data.endswith(b"\n"))


_FILES: tuple[tuple[str, Parse], ...] = (
    *((f"{directory}{name}", _junit) for directory in ("", "reports/", "test-results/", "build/", "target/")
      for name in ("junit.xml", "test-results.xml", "test-report.xml", "report.xml")),
    ("target/nextest/default/junit.xml", _junit),
    ("target/nextest/ci/junit.xml", _junit),
    (".pytest_cache/v/cache/lastfailed", _pytest),
    ("node_modules/.vite/vitest/results.json", _vitest),
    ("Testing/Temporary/LastTestsFailed.log", _ctest),
    ("build/Testing/Temporary/LastTestsFailed.log", _ctest),
)  # fmt: skip
_DIRECTORIES: tuple[tuple[str, str, Parse], ...] = (
    ("target/surefire-reports", r"TEST-.*\.xml", _junit),
    ("target/failsafe-reports", r"TEST-.*\.xml", _junit),
    ("build/test-results/test", r"TEST-.*\.xml", _junit),
    ("TestResults", r".*\.trx", _trx),
)

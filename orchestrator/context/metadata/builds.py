"""The outcome of the last build or test run, as its own report in the project tells. No report, no outcome."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from orchestrator.clock import rfc3339
from orchestrator.context.metadata.xml import Element, parse_xml
from orchestrator.context.models import JSON, Stamp
from orchestrator.context.reading import Reader, Refused

_LARGEST = 8 << 20
_LARGEST_RUN = 64 << 20
#: So many reports of one run are read (test runners of the JVM write one for each class), of so many names.
_MOST_REPORTS = 500
_MOST_NAMES = 5000
#: No run has more tests.
_MOST_TESTS = 10**9


class Counts(msgspec.Struct, frozen=True):
    """Tests that ran (None: the report does not say) and tests that failed."""

    failed: int
    tests: int | None = None


Parse = Callable[[bytes], Counts]


class Run(msgspec.Struct, frozen=True):
    """The reports of one run: where they are, the files with their stamps, and how they are read."""

    source: str
    stamps: dict[str, Stamp]
    parse: Parse

    @property
    def finished_ns(self) -> int:
        """When the newest of them was written, in nanoseconds since the epoch."""
        return max(stamp.mtime_ns for stamp in self.stamps.values())


def runs(reader: Reader) -> list[Run]:
    """The runs that left reports in the project."""
    found = []
    for path, parse in _FILES:
        stamp = reader.stamp(path)
        if stamp is not None:
            found.append(Run(path, {path: stamp}, parse))
    for directory, pattern, parse in _DIRECTORIES:
        names = [name for name in reader.names(directory, _MOST_NAMES) if re.fullmatch(pattern, name)]
        stamps = {f"{directory}/{name}": reader.stamp(f"{directory}/{name}") for name in names[:_MOST_REPORTS]}
        known = {path: stamp for path, stamp in stamps.items() if stamp is not None}
        if known:
            found.append(Run(directory, known, parse))
    return found


def last_build(found: Iterable[Run], counts_of: Callable[[str, Stamp, Parse], Counts | None]) -> JSON | None:
    """``{status: passed|failed, source, finished_at, age_days, failed, tests?}`` of the newest report that can be
    read; None when there is none. A run's reports count together, with the newest one's time.

    ``counts_of`` gives what is in a report, as ``read_counts``.
    """
    newest: tuple[Run, Counts] | None = None
    for run in found:
        if newest is not None and run.finished_ns <= newest[0].finished_ns:
            continue
        if sum(stamp.size for stamp in run.stamps.values()) > _LARGEST_RUN:
            continue
        counts = [counts_of(path, stamp, run.parse) for path, stamp in run.stamps.items()]
        known = [each for each in counts if each is not None]
        if len(known) < len(counts):  # one that cannot be read may tell of the failure
            continue
        tests = [each.tests for each in known if each.tests is not None]
        newest = (run, Counts(sum(each.failed for each in known), sum(tests) if tests else None))
    if newest is None:
        return None
    run, total = newest
    described: JSON = {
        "status": "failed" if total.failed else "passed",
        "source": run.source,
        "finished_at": rfc3339(run.finished_ns / 1e9),
        "age_days": max(0, int((time.time() - run.finished_ns / 1e9) // 86400)),
        "failed": total.failed,
    }
    return described if total.tests is None else {**described, "tests": total.tests}


def read_counts(reader: Reader, path: str, stamp: Stamp, parse: Parse) -> Counts | None:
    """What the report at ``path`` says; None when it cannot be read or makes no sense."""
    if not 0 < stamp.size <= _LARGEST:
        return None
    try:
        counts = parse(reader.read(path, _LARGEST).data)
    except (Refused, ValueError, KeyError, TypeError, AttributeError, StopIteration, RecursionError):
        return None
    return counts if 0 <= counts.failed <= _MOST_TESTS and 0 <= (counts.tests or 0) <= _MOST_TESTS else None


def _junit(data: bytes) -> Counts:
    """JUnit's XML, which most test runners write: a suite or suites, nested or not."""
    root = parse_xml(data.decode("utf-8-sig", "replace"), levels=2)
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
    summary = next(parse_xml(data.decode("utf-8-sig", "replace"), levels=3).children("ResultSummary"))
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

"""The last build's outcome comes from its own report, or is absent."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.context.metadata import builds, describe
from tests.support.context import document, new_library
from tests.support.repo import write_files

_JUNIT = '<testsuites><testsuite tests="7" failures="{0}" errors="0"/><testsuite tests="2" errors="1"/></testsuites>'
_TRX = (
    '<TestRun xmlns="http://x"><ResultSummary outcome="{}"><Counters total="4" failed="{}"/></ResultSummary></TestRun>'
)
_COVERAGE = '<coverage line-rate="0.5"/>'
CASES = [
    ("reports/junit.xml", _JUNIT.format(2), "failed", 3, 9),
    ("junit.xml", '<testsuite tests="3" failures="0" errors="0" name="x"/>', "passed", 0, 3),
    ("target/surefire-reports/TEST-a.B.xml", '<testsuite tests="3" failures="1"/>', "failed", 1, 3),
    ("target/nextest/default/junit.xml", '<testsuites tests="5" failures="0"/>', "passed", 0, 5),
    ("TestResults/run.trx", _TRX.format("Completed", 0), "passed", 0, 4),
    ("TestResults/run.trx", _TRX.format("Failed", 0), "failed", 1, 4),
    (".pytest_cache/v/cache/lastfailed", '{"tests/test_a.py::test_b": true}', "failed", 1, None),
    (".pytest_cache/v/cache/lastfailed", "{}", "passed", 0, None),
    ("node_modules/.vite/vitest/results.json", '{"results":[[":a.ts",{"failed":true}],[":b.ts",{"failed":false}]]}', "failed", 1, None),  # noqa: E501
    ("build/Testing/Temporary/LastTestsFailed.log", "3:one\n7:two\n", "failed", 2, None),
]  # fmt: skip


def _metadata(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = document(root)["context"]["metadata"]
    return found


@pytest.mark.parametrize(("path", "text", "status", "failed", "tests"), CASES)
def test_each_report_is_read(tmp_path: Path, path: str, text: str, status: str, failed: int, tests: int | None) -> None:
    """A report's outcome was missing, or a failure was told as a success."""
    write_files(tmp_path, {"a.py": "x = 1\n", path: text})
    os.utime(tmp_path / path, (1_700_000_000, 1_700_000_000))
    described = _metadata(tmp_path)
    assert described["last_build_status"] == status
    assert described["last_build"]["failed"] == failed
    assert described["last_build"].get("tests") == tests
    assert described["last_build"]["finished_at"].startswith("2023-11-14T22:13:20")
    assert described["last_build"]["source"] in (path, path.rpartition("/")[0])


def test_the_newest_report_counts_and_all_of_its_run(tmp_path: Path) -> None:
    """An old failure hid today's success; or one class's success its neighbours' failures."""
    write_files(
        tmp_path,
        {
            "junit.xml": '<testsuite tests="1" failures="1"/>',
            "target/surefire-reports/TEST-a.xml": '<testsuite tests="1" failures="0"/>',
            "target/surefire-reports/TEST-b.xml": '<testsuite tests="4" failures="0"/>',
        },
    )
    os.utime(tmp_path / "junit.xml", (1_700_000_000, 1_700_000_000))
    assert _metadata(tmp_path)["last_build"]["tests"] == 5
    write_files(tmp_path, {"target/surefire-reports/TEST-a.xml": '<testsuite tests="1" failures="1"/>'})
    assert _metadata(tmp_path)["last_build_status"] == "failed"


@pytest.mark.parametrize("text", ["", "{", "<testsuites", "<html/>", '<testsuite tests="x"/>', "[]", '{"a": 3}', "\0"])
@pytest.mark.parametrize("path", sorted({case[0] for case in CASES if not case[0].endswith(".log")}))
def test_a_broken_report_says_nothing(tmp_path: Path, path: str, text: str) -> None:
    """A torn report was taken for a success, or failed the context."""
    write_files(tmp_path, {"a.py": "x = 1\n", path: text})
    assert "last_build_status" not in _metadata(tmp_path)


@pytest.mark.parametrize("number", ["-1", "9" * 400])
def test_a_number_that_counts_no_tests_says_nothing(tmp_path: Path, number: str) -> None:
    """Less than no failures were a failure, and a number of 400 digits was told."""
    write_files(tmp_path, {"a.py": "x = 1\n", "junit.xml": f'<testsuite tests="1" failures="{number}"/>'})
    assert "last_build_status" not in _metadata(tmp_path)


def test_a_report_is_read_once_for_each_of_its_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight megabytes of test output were parsed again for each answer."""
    write_files(tmp_path, {"a.py": "x = 1\n", "junit.xml": '<testsuite tests="1"/>', "coverage.xml": _COVERAGE})
    for name in ("junit.xml", "coverage.xml"):
        os.utime(tmp_path / name, (1_700_000_000, 1_700_000_000))
    read: list[str] = []

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            read.append(function.__name__)
            return function(*arguments)

        return call

    monkeypatch.setattr(describe, "read_counts", counted(builds.read_counts))
    monkeypatch.setattr(describe, "_outcome", counted(describe._outcome))
    library = new_library()
    for _ in range(3):
        metadata = document(tmp_path, library=library)["context"]["metadata"]
    assert len(read) == 2
    assert (metadata["last_build"]["tests"], metadata["test_coverage"]["line_percent"]) == (1, 50.0)
    write_files(tmp_path, {"junit.xml": '<testsuite tests="2"/>'})
    assert document(tmp_path, library=library)["context"]["metadata"]["last_build"]["tests"] == 2
    assert len(read) == 3


def test_one_broken_report_of_a_run_leaves_its_outcome_open(tmp_path: Path) -> None:
    """The report that could not be read may have told of the failure, and the run was called a success."""
    write_files(
        tmp_path,
        {"target/surefire-reports/TEST-a.xml": '<testsuite tests="1"/>', "target/surefire-reports/TEST-b.xml": "<"},
    )
    assert "last_build_status" not in _metadata(tmp_path)


def test_a_report_outside_the_project_is_not_read(tmp_path: Path) -> None:
    """A link from the report's directory led outside (fault 69)."""
    write_files(tmp_path / "outside", {"TEST-a.xml": '<testsuite tests="1"/>', "junit.xml": '<testsuite tests="1"/>'})
    root = tmp_path / "r"
    write_files(root, {"target/keep": "", "a.py": "x = 1\n"})
    (root / "target/surefire-reports").symlink_to(tmp_path / "outside")
    (root / "junit.xml").symlink_to(tmp_path / "outside/junit.xml")
    (root / "reports").symlink_to(tmp_path / "outside")
    assert "last_build_status" not in _metadata(root)

"""The outcome of repeated chaos tests is what their reports say."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.repeat import read_report

REPORT = """<?xml version="1.0"?><testsuites><testsuite>
<testcase classname="tests.chaos.test_a" name="test_good"><system-out>noise
storm: seed 5, 12 s
</system-out></testcase>
<testcase classname="tests.chaos.test_a" name="test_bad"><failure message="assert 1 == 2">trace</failure></testcase>
<testcase classname="tests.chaos.test_b" name="test_leaks"><error message="left behind">trace</error></testcase>
<testcase classname="tests.chaos.test_b" name="test_absent"><skipped message="no strace"/></testcase>
</testsuite></testsuites>"""


def test_a_report_is_read_with_its_failures_and_skips(tmp_path: Path) -> None:
    """A round that failed in its clean-up, or was skipped, counted as passed."""
    report = tmp_path / "report.xml"
    report.write_text(REPORT, encoding="utf-8")
    assert read_report(report) == {
        "passed": 1,
        "failed": 2,
        "failures": ["test_a::test_bad: assert 1 == 2", "test_b::test_leaks: left behind"],
        "skipped": ["test_b::test_absent: no strace"],
        "said": ["seed 5, 12 s"],
    }

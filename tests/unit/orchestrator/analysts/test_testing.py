"""The test engineer: tests are found, run, read, bounded; nothing is left running or written."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import psutil
import pytest

from orchestrator.analysts.coverage import find_coverage
from orchestrator.analysts.processes import ToolRun, run_tool
from orchestrator.analysts.testoutput import read_output
from orchestrator.analysts.testrunners import python_candidates
from orchestrator.analysts.workbench import Workbench
from tests.support.repositories import analyse, commit, finding, kinds, listing, write

UNITTEST = (
    "import unittest\n\nclass T(unittest.TestCase):\n    def test_a(self):\n        self.assertEqual(1, {value})\n"
)


def test_failing_pytest_is_located_and_leaves_nothing(tmp_path: Path) -> None:
    """Failures without a place, or caches written into the project."""
    root = tmp_path / "p"
    body = "import pytest\nfrom lib import f\n\ndef test_good():\n    assert f() == 1\n\n"
    body += "def test_bad():\n    assert f() == 2\n"
    commit(root, {"src/lib.py": "def f():\n    return 1\n", "tests/test_lib.py": body})
    before = listing(root)
    result = analyse("testing", root)
    failure = finding(result, "test-failure")
    assert (failure["path"], failure["line"]) == ("tests/test_lib.py", 8)
    assert "-k test_bad" in failure["suggestion"]
    assert result["metrics"]["tests"]["passed"] == 1
    assert result["status"] == "partial"
    assert "1 of 2 tests failed" in result["errors"][0]
    assert listing(root) == before


def test_missing_import_is_told_as_environment(tmp_path: Path) -> None:
    """A dependency that is not installed is blamed on the code as a failed test."""
    files = {"tests/test_x.py": "import pytest\nimport nosuchpackage\n\ndef test_a():\n    pass\n"}
    result = analyse("testing", write(tmp_path / "p", files))
    assert "nosuchpackage" in finding(result, "missing-dependency")["message"]
    assert "test-failure" not in kinds(result)
    assert result["status"] == "partial"


@pytest.mark.parametrize(("value", "status"), [("1", "success"), ("2", "partial")])
def test_unittest_is_used_without_pytest(tmp_path: Path, value: str, status: str) -> None:
    """A project with the standard library's tests only is called untested."""
    result = analyse("testing", write(tmp_path / "p", {"tests/test_a.py": UNITTEST.format(value=value)}))
    assert result["metrics"]["tests"]["runners"] == ["unittest"]
    assert result["status"] == status
    if status == "partial":
        assert (finding(result, "test-failure")["path"], finding(result, "test-failure")["line"]) == (
            "tests/test_a.py",
            5,
        )


def test_time_limit_ends_tests_and_their_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hanging test holds the agent, or its child processes stay behind."""
    monkeypatch.setenv("ANALYST_TEST_TIME_S", "1")
    monkeypatch.setenv("ANALYST_TEST_COMMAND", "sh -c 'sleep 4711 & sleep 4711'")
    began = time.monotonic()
    result = analyse("testing", write(tmp_path / "p", {"tests/test_a.py": "x = 1\n"}))
    assert time.monotonic() - began < 60
    assert result["metrics"]["tests"]["timed_out"]
    assert result["status"] == "partial"
    assert not [one for one in psutil.process_iter(["cmdline"]) if one.info["cmdline"] == ["sleep", "4711"]]


def test_no_tests_is_a_finding(tmp_path: Path) -> None:
    """A project without tests passes as tested."""
    assert "no-tests" in kinds(analyse("testing", write(tmp_path / "p", {"a.py": "x = 1\n"})))


def test_untested_file_is_ranked_by_hotspot(tmp_path: Path) -> None:
    """The architect's hotspots are not looked at first."""
    body = "def f():\n    return 1\n" * 100
    files = {
        "quiet.py": body * 2,
        "busy.py": body,
        "known.py": body,
        "test_known.py": "import unittest\nimport known\n",
    }
    previous = [
        {"agent_type": "chief-architect", "agent": "x", "artifacts": {"hotspots": [{"path": "busy.py", "score": 90}]}}
    ]
    result = analyse("testing", write(tmp_path / "p", files), previous=previous)
    assert [one["path"] for one in result["artifacts"]["untested"]] == ["busy.py", "quiet.py"]
    assert result["artifacts"]["built_on"] == ["chief-architect"]
    assert "chief-architect" in result["decisions"][0]


def test_output_of_other_runners_is_read(tmp_path: Path) -> None:
    """Counts or places are lost for Go, Rust or JavaScript."""
    write(tmp_path, {"go.mod": "module example.org/m\n"})
    go = (
        '{"Action":"output","Package":"example.org/m/p","Test":"TestA","Output":"    a_test.go:7: want 1\\n"}\n'
        '{"Action":"fail","Package":"example.org/m/p","Test":"TestA"}\n{"Action":"pass","Package":"example.org/m/p","Test":"TestB"}\n'
    )
    rust = "thread 'tests::a' panicked at src/lib.rs:9:5:\nassertion failed\n"
    rust += "test result: FAILED. 3 passed; 1 failed; 0 ignored\n"
    mocha = "  12 passing (3s)\n  1 failing\n\n  1) adds numbers\n     at Context.<anonymous> (test/a.js:4:9)\n"
    found = {
        name: read_output(name, ToolRun(1, text, "", False, 1.0), tmp_path, tmp_path / "none")
        for name, text in (("go", go), ("cargo", rust), ("script", mocha))
    }
    assert (found["go"].passed, found["go"].failures[0].path, found["go"].failures[0].line) == (1, "p/a_test.go", 7)
    assert (found["cargo"].passed, found["cargo"].failures[0].path, found["cargo"].failures[0].line) == (
        3,
        "src/lib.rs",
        9,
    )
    assert (found["script"].passed, found["script"].failed, found["script"].failures[0].line) == (12, 1, 4)


def test_flood_of_output_is_bounded(tmp_path: Path) -> None:
    """A program that prints without end fills the memory, or loses its last words."""
    run = run_tool(
        ("sh", "-c", "yes | head -c 3000000; echo END"),
        cwd=tmp_path,
        timeout_s=60,
        environ={"PATH": "/usr/bin:/bin"},
        limit_bytes=10_000,
    )
    assert run.ok
    assert len(run.stdout) < 25_000
    assert run.stdout.endswith("END\n")


def test_program_that_cannot_start_is_told(tmp_path: Path) -> None:
    """A missing program raises instead of giving a reason."""
    assert "nosuchprogram" in run_tool(("nosuchprogram",), cwd=tmp_path, timeout_s=5, environ={}).error


def test_coverage_report_is_read(tmp_path: Path) -> None:
    """A damaged report hides a good one."""
    write(tmp_path, {"coverage.xml": "<broken", "lcov.info": "SF:a.js\nLF:10\nLH:4\nend_of_record\n"})
    found = find_coverage(tmp_path)
    assert found is not None
    assert (found.path, found.rate) == ("lcov.info", 0.4)


def test_one_interpreter_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """python and python3 of one environment are tried and named twice; or two environments count as one."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        for program in ("python", "python3"):
            (tmp_path / name / program).symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "second" / "python3"))
    bench = SimpleNamespace(root=tmp_path, tool_environ={"PATH": str(tmp_path / "first")})
    assert python_candidates(cast(Workbench, bench)) == [
        str(tmp_path / "first" / "python3"),
        str(tmp_path / "second" / "python3"),
    ]

"""What holds for every analyst: odd projects, no writing, results within bounds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.repositories import analyse, commit, listing, write

ANALYSTS = (
    "architecture", "language", "testing", "security", "documentation", "review", "dependencies", "infrastructure",
    "data", "api_surface", "research", "performance", "frontend",
)  # fmt: skip


@pytest.mark.parametrize("name", ANALYSTS)
def test_empty_directory_gives_a_result(name: str, tmp_path: Path) -> None:
    """Division by zero, or max() of nothing, on a project without files."""
    root = tmp_path / "empty"
    root.mkdir()
    result = analyse(name, root, task="find the parser")
    assert result["status"] != "failed"
    assert not result["errors"]


@pytest.mark.parametrize("name", ANALYSTS)
def test_missing_workspace_fails_with_reason(name: str, tmp_path: Path) -> None:
    """A traceback instead of a failed result when the workspace is gone."""
    result = analyse(name, tmp_path / "nowhere")
    assert result["status"] == "failed"
    assert "not a directory" in result["errors"][0]


@pytest.mark.parametrize("name", ANALYSTS)
def test_odd_files_cost_nothing_but_themselves(name: str, tmp_path: Path) -> None:
    """Binary data, bad UTF-8, null bytes, FIFOs, link loops or an unborn HEAD bring an analyst down."""
    root = write(
        tmp_path / "odd", {"good.py": "def f() -> int:\n    return 1\n", "README.md": "# Odd\n\nInstall, usage.\n"}
    )
    (root / "latin.py").write_bytes(b"# -*- coding: latin-1 -*-\nname = '\xe9'\n")
    (root / "null.py").write_bytes(b"a = 1\0\n")
    (root / "bad.py").write_bytes(b"\xff\xfe\xfa\x00")
    (root / "broken.json").write_text("{", encoding="utf-8")
    (root / "pyproject.toml").write_text("[project\n", encoding="utf-8")
    (root / "deep.py").write_text("x = " + "(" * 500 + ")" * 500, encoding="utf-8")
    os.mkfifo(root / "pipe.py")
    (root / "loop").symlink_to(root)
    (root / "outside.py").symlink_to("/etc/hostname")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    result = analyse(name, root, task="where is f", agent_type="python-specialist")
    assert result["status"] in {"success", "partial"}
    assert not [error for error in result["errors"] if "Error at" in error]
    assert not any("outside.py" in str(one["path"]) for one in result["findings"])


@pytest.mark.parametrize("name", [name for name in ANALYSTS if name != "testing"])
def test_nothing_is_written_into_the_project(name: str, tmp_path: Path) -> None:
    """Byte code, caches or lock files of tools appear in the user's project."""
    root = tmp_path / "clean"
    commit(
        root, {"pkg/__init__.py": "", "pkg/a.py": "import os\n", "pyproject.toml": "[tool.ruff]\nline-length = 100\n"}
    )
    before = listing(root)
    analyse(name, root, task="a")
    assert listing(root) == before


def test_planted_git_configuration_runs_nothing(tmp_path: Path) -> None:
    """A repository's own fsmonitor, filter or external diff runs a program of its author."""
    root, mark = tmp_path / "planted", tmp_path / "ran"
    commit(root, {"a.py": "x = 1\n", ".gitattributes": "*.py filter=evil diff=evil\n"})
    for key in ("core.fsmonitor", "filter.evil.clean", "diff.external", "diff.evil.command", "diff.evil.textconv"):
        subprocess.run(["git", "config", key, f"touch {mark}; cat"], cwd=root, check=True)
    (root / "a.py").write_text("x = 2\n", encoding="utf-8")
    result = analyse("review", root)
    assert result["metrics"]["files_changed"] == 1
    assert not mark.exists()


def test_package_imports_without_loading_analysts() -> None:
    """Importing the package pulls every analyst into the server."""
    code = (
        "import sys, orchestrator.analysts; print([m for m in sys.modules if m.startswith('orchestrator.analysts.')])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_conclusions_are_drawn_when_time_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the result has figures but no summary."""
    monkeypatch.setattr("orchestrator.analysts.deadlines.Deadline.is_over", property(lambda _: True))
    result = analyse("architecture", write(tmp_path / "p", {"a.py": "x = 1\n"}))
    assert result["status"] == "partial"
    assert result["summary"] != "Done."
    assert any("counting files" in warning for warning in result["warnings"])

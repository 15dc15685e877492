"""What is delivered: the wheel, the changelog, the license, the commands that are installed."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from tests.support.roster import roster

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_119_profiles_are_where_the_wheel_takes_them_from() -> None:
    """A profile that is missing in ``profiles/`` is missing for every user."""
    shipped = {path.stem for path in (ROOT / "profiles").glob("*.md")} - {"README"}
    assert {role.agent_type for role in roster()} <= shipped


@pytest.mark.timeout(300)
def test_the_wheel_holds_what_a_run_needs(tmp_path: Path) -> None:
    """A data file that the build leaves out works in the checkout and fails at the user."""
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    needed = {
        name
        for name in tracked
        if name.startswith(("agentpool/", "orchestrator/", "api/", "profiles/")) and (ROOT / name).exists()
    }
    assert needed - names == set()
    assert not [name for name in names if name.startswith(("tests/", "perf/", "docs/"))]


def test_the_installed_version_is_the_projects() -> None:
    """A stale installation would make these tests test something else."""
    assert metadata.version("orchestration-sidecar") == PROJECT["version"]


def test_every_dependency_has_its_reason() -> None:
    """A dependency is a promise to follow it; the reason is written down or it goes."""
    reasons = (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8")
    named = {re.split(r"[\[><=~!; ]", item)[0].lower() for item in PROJECT["dependencies"]}
    development = {re.split(r"[\[><=~!; ]", item)[0] for item in PROJECT["optional-dependencies"]["dev"]}
    kept = {name for name in named | development if not name.startswith("types-")}
    # The tools that design asks for by name need no reason.
    assert sorted(kept - {"ruff", "mypy", "pytest"} - {name for name in kept if name in reasons}) == []


def test_the_changelog_has_its_form() -> None:
    """Keep a Changelog: what is unreleased first, releases with a date."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    for heading in headings[1:]:
        assert re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}", heading), heading
    kinds = set(re.findall(r"^### (.+)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_nothing_names_the_machine_it_was_written_on() -> None:
    """A path or host of one workplace in a committed file is of no use to anyone else."""
    # Put together here, so that this file does not name what it looks for.
    marks = ["/" + "work/", "/.libr" + "ary", "/" + "tmp/issue", "/" + "tmp/brief", "/opt/" + "wheels"]
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    found = []
    for name in names:
        path = ROOT / name
        if not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [f"{name}: {mark}" for mark in marks if mark in text]
    assert found == []

"""``orchestrator run``: a whole team on a small project, with and without a running sidecar."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.support.processes import assert_no_survivors
from tests.support.repo import PYTHON_FILES, repository, sample_repository
from tests.support.server import Server, command_line, orchestrator
from tests.support.waiting import until

#: A project whose own tests take longer than any test here waits.
SLOW_FILES = {**PYTHON_FILES, "tests/test_slow.py": "import time\n\n\ndef test_slow():\n    time.sleep(300)\n"}


@contextmanager
def running(storage: Path, project: Path, errors: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run on ``project`` in the background; what it says on stderr goes to ``errors``."""
    command = [*command_line(), "run", "Look", "--project", str(project), "--storage", str(storage)]
    with errors.open("wb") as file:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file)
    try:
        until(
            lambda: b"running" in errors.read_bytes(), timeout_s=60, what=lambda: f"it works: {errors.read_bytes()!r}"
        )
        yield process
    finally:
        process.kill()
        process.communicate()


def test_run_without_a_sidecar(storage: Path, tmp_path: Path) -> None:
    """Prevents the main job from failing on a small project, and from leaving processes or open files behind."""
    project = sample_repository(tmp_path / "ledger")
    done = orchestrator("run", "Look at the balances", "--storage", storage, cwd=project, timeout_s=180)
    assert done.returncode == 0, done.stderr
    for role in ("chief-architect", "python-specialist", "test-engineer", "security-auditor", "code-reviewer"):
        assert role in done.stdout
    assert "starting one for this run" in done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 120
    assert_no_survivors(str(storage))
    report = next(storage.glob("runs/*/report.json"))
    assert str(report.with_suffix(".md")) in done.stderr
    assert stat.S_IMODE(report.stat().st_mode) == 0o600
    assert stat.S_IMODE(report.parent.stat().st_mode) == 0o700
    kept = json.loads(report.read_text(encoding="utf-8"))
    assert kept["run"]["status"] == "completed"
    assert all(agent["result_id"] for agent in kept["agents"])
    # The results stay: a sidecar on the same storage serves them.
    with Server(storage, {"ledger": project}) as server:
        stored = server.api().get("/api/results", issue_id=kept["run"]["issue_id"]).json["results"]
        assert {result["id"] for result in stored} >= {agent["result_id"] for agent in kept["agents"]}


def test_run_with_a_sidecar_prints_clean_json(sidecar: Server) -> None:
    """Prevents a second sidecar beside a running one, and words between the JSON in a pipe."""
    environment = {"ORCHESTRATOR_STORAGE": str(sidecar.storage)}
    arguments = ("run", "Look", "--issue", "cli-run", "--format", "json")
    done = orchestrator(*arguments, cwd=sidecar.projects["other"], environment=environment, timeout_s=180)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["run"]["project_id"] == "other"
    assert report["run"]["issue_id"] == "cli-run"
    assert "starting one" not in done.stderr
    assert not (sidecar.storage / "logs" / "embedded.log").exists()
    assert sidecar.anonymous().get("/health").status == 200


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_is_cancelled(storage: Path, tmp_path: Path, number: signal.Signals) -> None:
    """Prevents Ctrl-C from leaving agents at work, or a run that the next sidecar takes up again."""
    project = repository(tmp_path / "slow", SLOW_FILES)
    errors = tmp_path / "errors"
    with running(storage, project, errors) as process:
        process.send_signal(number)
        out, _ = process.communicate(timeout=60)
    said = errors.read_text(encoding="utf-8")
    assert process.returncode == 1, said
    assert "cancelling the run" in said
    assert b"cancelled" in out
    assert_no_survivors(str(storage))
    with Server(storage, {"slow": project}) as server:
        assert [run["status"] for run in server.api().get("/api/runs").json["runs"]] == ["cancelled"]


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or only waits to be buried by whoever inherited it."""
    try:
        status: str = psutil.Process(pid).status()
    except psutil.NoSuchProcess:
        return True
    return status == psutil.STATUS_ZOMBIE


def test_killed_run_takes_its_sidecar_along(storage: Path, tmp_path: Path) -> None:
    """Prevents an embedded sidecar that goes on for ever because its command was killed (SIGKILL)."""
    project = repository(tmp_path / "slow", SLOW_FILES)
    with running(storage, project, tmp_path / "errors") as process:
        pid = json.loads((storage / "sidecar.json").read_text(encoding="utf-8"))["pid"]
        process.kill()
    until(lambda: has_ended(pid), timeout_s=30, what="the sidecar has ended")
    assert_no_survivors(str(storage))


@pytest.mark.parametrize("kind", ["empty", "not a repository"])
def test_odd_projects_work(storage: Path, tmp_path: Path, kind: str) -> None:
    """Prevents a run from needing git or files."""
    project = tmp_path / "odd"
    project.mkdir()
    if kind != "empty":
        (project / "app.py").write_text("x = 1\n", encoding="utf-8")
    done = orchestrator("run", "Look", "--storage", storage, "--project", project, timeout_s=180)
    assert done.returncode == 0, done.stderr
    assert "chief-architect" in done.stdout


def test_a_fifo_in_place_of_the_log_is_refused(storage: Path, tmp_path: Path) -> None:
    """A FIFO where the embedded sidecar's log goes made `run` wait for ever for somebody who reads it."""
    (storage / "logs").mkdir(parents=True)
    os.mkfifo(storage / "logs" / "embedded.log")
    project = repository(tmp_path / "project", PYTHON_FILES)
    done = orchestrator("run", "Look", "--storage", storage, cwd=project, timeout_s=60)
    assert done.returncode == 1
    assert "embedded.log cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--project", "nowhere"], 2, "not a directory"),
        (["--workflow", "nothing-like-it"], 2, "nothing-like-it"),
        (["--url", "http://127.0.0.1:1"], 3, "127.0.0.1:1"),
        (["--issue", "../x"], 2, "issue_id"),
    ],
    ids=["no directory", "no workflow", "named sidecar away", "bad issue"],
)
def test_bad_runs_say_what_is_wrong(storage: Path, tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    """Prevents a traceback, and a sidecar that is left behind after a refusal."""
    project = repository(tmp_path / "project", PYTHON_FILES)
    done = orchestrator("run", "Look", "--storage", storage, *arguments, cwd=project, timeout_s=120)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert_no_survivors(str(storage))

"""Starting, refusing to start, and stopping: what a user sees when something is in the way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.agents import spawn
from tests.support.processes import assert_no_survivors, processes_with
from tests.support.repo import sample_repository
from tests.support.server import STOP_S, Server, orchestrator
from tests.support.waiting import until


def refused(done: subprocess.CompletedProcess[str], *words: str, code: int | None = None) -> None:
    """The command failed with a sentence that names these things, and no traceback."""
    text = done.stdout + done.stderr
    assert done.returncode != 0, text
    if code is not None:
        assert done.returncode == code, text
    assert "Traceback" not in text
    assert "internal error" not in text
    for word in words:
        assert word in text, text


def serve(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """``orchestrator serve`` that is expected to refuse."""
    return orchestrator("serve", *arguments, timeout_s=30)


# -- what is in the way -----------------------------------------------------------------------


@pytest.mark.critical
def test_a_port_in_use_is_told_with_its_owner(tmp_path: Path) -> None:
    """``Address already in use`` alone sends the user searching for the process."""
    storage = tmp_path / "storage"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = serve("--port", port, "--storage", storage, "--project", sample_repository(tmp_path / "p"))
        words = [port, str(os.getpid())] if Path("/proc/net/tcp").exists() else [port]
        refused(done, *words)
    assert_no_survivors(str(storage), timeout_s=5)


@pytest.mark.critical
def test_a_second_sidecar_on_the_same_storage_refuses(server: Server) -> None:
    """Two writers on one log would each acknowledge what the other overwrites."""
    done = serve("--port", "0", "--storage", server.storage, "--project", server.projects["sample"])
    refused(done, str(server.pid))
    server.anonymous().get("/health").expect(200)


@pytest.mark.parametrize("kind", ["file", "below a file"])
def test_a_storage_that_cannot_be_used_is_named(tmp_path: Path, kind: str) -> None:
    """Root may write everywhere, but nobody can make a directory where a file is."""
    taken = tmp_path / "taken"
    taken.write_text("mine")
    storage = taken if kind == "file" else taken / "storage"
    refused(serve("--port", "0", "--storage", storage, "--project", tmp_path), str(storage), "--storage")
    assert taken.read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to a read-only directory")
def test_a_storage_that_is_not_writable_is_named(tmp_path: Path) -> None:
    """The usual mistake: a directory of another user."""
    parent = tmp_path / "parent"
    parent.mkdir(mode=0o500)
    refused(serve("--port", "0", "--storage", parent / "storage", "--project", tmp_path), str(parent))


@pytest.mark.parametrize("kind", ["absent", "file"])
def test_a_project_that_is_no_directory_is_named(tmp_path: Path, kind: str) -> None:
    """And nothing is left half made."""
    project = tmp_path / "project"
    if kind == "file":
        project.write_text("")
    storage = tmp_path / "storage"
    refused(serve("--port", "0", "--storage", storage, "--project", project), str(project))
    assert_no_survivors(str(storage), timeout_s=5)


def test_more_than_one_worker_is_refused(tmp_path: Path) -> None:
    """Two HTTP processes would each have half of the waiters."""
    (tmp_path / "orchestrator.toml").write_text("[server]\nworkers = 2\n")
    refused(serve("--port", "0", "--storage", tmp_path / "s", "--project", tmp_path), "workers")


# -- stopping ---------------------------------------------------------------------------------


@pytest.mark.critical
def test_sigterm_ends_everything_within_its_time(server: Server, issue: str) -> None:
    """Open long polls and streams hold Hypercorn's own shutdown; agents outlive a careless one."""
    api = server.api()
    for script in ("sleep 300", "trap '' TERM; while :; do sleep 1; done", "setsid sleep 300 & wait"):
        spawn(api, issue, script)
    answers: list[Any] = []

    def poll() -> None:
        try:
            answers.append(api_of_thread.get("/api/events/wait/never", timeout=300_000).status)
        except httpx.HTTPError as error:
            answers.append(error)

    def stream() -> None:
        headers = {"Authorization": f"Bearer {api.token}"}
        try:
            with httpx.stream("GET", f"{server.url}/api/events/stream", headers=headers, timeout=60) as response:
                answers.append(sum(len(chunk) for chunk in response.iter_raw()))
        except httpx.HTTPError as error:
            answers.append(error)

    api_of_thread = server.api()
    threads = [threading.Thread(target=poll), threading.Thread(target=stream)]
    for thread in threads:
        thread.start()
    until(lambda: api.get("/status").json["events"]["active_subscriptions"] >= 2, what="poll and stream wait")
    os.kill(server.pid, signal.SIGTERM)
    os.kill(server.pid, signal.SIGTERM)
    process = server.process
    assert process is not None
    assert process.wait(STOP_S) == 0, server.diagnosis()
    for thread in threads:
        thread.join(10)
    server.exited(0)
    assert len(answers) == 2
    assert_no_survivors(str(server.storage), timeout_s=0)


def test_sigint_is_as_good(server: Server) -> None:
    """Ctrl-C in a terminal."""
    os.kill(server.pid, signal.SIGINT)
    assert server.exited() == 0, server.diagnosis()


def test_the_stop_command_stops_it(server: Server) -> None:
    """And answers when it has ended."""
    pid = server.pid
    done = server.cli("stop")
    assert done.returncode == 0, done.stdout + done.stderr
    assert server.exited(5) == 0
    assert not processes_with(str(server.storage)), pid
    again = server.cli("stop")
    assert again.returncode in (0, 3)
    assert "Traceback" not in again.stderr


def test_a_sidecar_that_is_away_is_told_with_code_3(tmp_path: Path) -> None:
    """Scripts tell ``not running`` from ``failed`` by the exit code."""
    environment = {"ORCHESTRATOR_STORAGE": str(tmp_path / "s"), "ORCHESTRATOR_URL": "http://127.0.0.1:9"}
    for command in (("status",), ("agent", "list"), ("results", "list"), ("events", "list")):
        refused(orchestrator(*command, environment=environment), code=3)

"""Contract section 6: what lies in the storage directory, and who may read it."""

from __future__ import annotations

import json
import os
import stat
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.agents import ended, say_result, spawn
from tests.support.repo import sample_repository
from tests.support.server import Server
from tests.support.waiting import until


@pytest.mark.critical
def test_everything_in_the_storage_is_private_whatever_the_umask(tmp_path: Path, issue: str) -> None:
    """Tokens, prompts and results lie there; a umask of 000 must not open them to other users."""
    project = sample_repository(tmp_path / "sample")
    before = os.umask(0)
    try:
        server = Server(tmp_path / "storage", {"sample": project}).start()
    finally:
        os.umask(before)
    with closing(server):
        api = server.api()
        ended(api, spawn(api, issue, say_result())["agent_id"])
        api.get(f"/api/context/{issue}/python-specialist").expect(200)
        check_private(server.storage)


def check_private(storage: Path) -> None:
    """Directories 0700, files 0600, sockets too."""
    open_ones = []
    for path in [storage, *storage.rglob("*")]:
        mode = stat.S_IMODE(path.lstat().st_mode)
        if path.is_symlink():
            continue
        if mode & 0o077 or (path.is_dir() and mode != 0o700) or (path.is_file() and mode & ~0o600):
            open_ones.append(f"{mode:o} {path.relative_to(storage)}")
    assert open_ones == []


def test_the_layout_is_the_contracts(sidecar: Server, issue: str) -> None:
    """Backup scripts and people look for these names."""
    api = sidecar.api()
    agent_id = ended(api, spawn(api, issue, say_result())["agent_id"])["agent_id"]
    storage = sidecar.storage
    assert (storage / "orchestrator.db").read_bytes().startswith(b"SQLite format 3")
    assert (storage / "results" / "sample" / issue / "python-specialist.json").is_file()
    assert (storage / "agents" / agent_id / "stdout.log").is_file()
    assert (storage / "agents" / agent_id / "stderr.log").is_file()
    assert (storage / "keys").is_dir()
    for name in ("logs/sidecar.log", "logs/audit.log"):
        lines = (storage / name).read_text().splitlines()
        assert lines, name
        assert all(isinstance(json.loads(line), dict) for line in lines)


def test_the_event_log_can_be_followed_as_a_file(sidecar: Server, issue: str) -> None:
    """``tail -f events/event-log.jsonl`` shows each event as one JSON line."""
    api = sidecar.api()
    event = api.post(f"/api/events/kind-{issue}", {"topic": "testing", "data": {"n": 1, "x": "\u2028\n"}}).expect(202)

    # The copy is written after the answer; the database is the truth.
    def own() -> list[dict[str, object]]:
        path = sidecar.storage / "events" / "event-log.jsonl"
        lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
        # The last one may be half written.
        records = [json.loads(line) for line in lines[:-1]]
        return [record for record in records if record.get("event_id") == event.json["event_id"]]

    (record,) = until(own, what="the event is in the file")
    assert record["event_type"] == f"kind-{issue}"


@pytest.mark.critical
def test_no_token_is_in_any_log(sidecar: Server, issue: str) -> None:
    """Logs are shared in bug reports."""
    api = sidecar.api()
    answer = spawn(api, issue, "sleep 60", environment={"MY_SECRET": "environment-secret"}, task="task-secret-text")
    sidecar.api(token=answer["jwt_token"]).get("/api/results").expect(200)
    sidecar.anonymous().get("/api/results", headers={"Authorization": "Bearer abc.wrong-token-secret.x"}).refused(401)
    api.delete(f"/api/agents/{answer['agent_id']}", force="true").expect(200)
    text = "".join(path.read_text() for path in (sidecar.storage / "logs").iterdir()) + sidecar.diagnosis()
    for secret in (answer["jwt_token"], "environment-secret", "task-secret-text", "wrong-token-secret", str(api.token)):
        assert secret not in text

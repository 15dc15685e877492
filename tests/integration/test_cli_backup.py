"""Backup, restore and repair against real sidecars."""

from __future__ import annotations

import io
import json
import stat
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import Server, orchestrator


def store(server: Server, issue: str, number: int) -> str:
    """Store a result; its id."""
    body = {
        "agent_id": "writer",
        "agent_type": "code-reviewer",
        "issue_id": issue,
        "result": {"status": "success", "decisions": [f"decision {number}"], "metrics": {"n": number}},
    }
    return str(server.api().post("/api/results", body).expect(201).json["id"])


def backup(server: Server, target: Path, *options: str) -> dict[str, Any]:
    """Back up while the sidecar runs; what the command says."""
    done = server.cli("backup", target, "--format", "json", *options)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def test_backup_under_load_holds_all_that_was_acknowledged(server: Server, tmp_path: Path) -> None:
    """Prevents a backup that is torn, or lacks results that were acknowledged before it began."""
    before = {store(server, "load", number) for number in range(20)}
    stopping = threading.Event()

    def write() -> None:
        number = 100
        while not stopping.is_set():
            store(server, "load", number)
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        said = backup(server, tmp_path / "backup.tar.gz")
    finally:
        stopping.set()
        writer.join()
    assert stat.S_IMODE((tmp_path / "backup.tar.gz").stat().st_mode) == 0o600
    assert said["files"] >= 1
    target = tmp_path / "restored"
    done = orchestrator("restore", tmp_path / "backup.tar.gz", "--storage", target, "--format", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["is_sound"]
    with Server(target, server.projects) as restored:
        page = restored.api().get("/api/results", issue_id="load", limit=1000).json["results"]
        assert before <= {result["id"] for result in page}
        newest = max(page, key=lambda result: result["round"])
    copy = json.loads((target / "results" / "sample" / "load" / "code-reviewer.json").read_text(encoding="utf-8"))
    assert copy["result"] == newest["result"]


def test_keys_go_along_only_when_asked_for(server: Server, tmp_path: Path) -> None:
    """Prevents whoever finds a backup from becoming the operator."""
    backup(server, tmp_path / "plain.tar.gz")
    backup(server, tmp_path / "keys.tar.gz", "--with-keys")
    with tarfile.open(tmp_path / "plain.tar.gz") as archive:
        assert not [name for name in archive.getnames() if name.startswith("keys")]
    with tarfile.open(tmp_path / "keys.tar.gz") as archive:
        assert [name for name in archive.getnames() if name.startswith("keys/")]


def test_restore_refuses_a_storage_in_use(server: Server, tmp_path: Path) -> None:
    """Prevents a database from being swapped under a running sidecar."""
    backup(server, tmp_path / "backup.tar.gz")
    done = server.cli("restore", tmp_path / "backup.tar.gz", "--force")
    assert done.returncode == 1
    assert str(server.pid) in done.stderr
    done = server.cli("repair")
    assert done.returncode == 1
    assert str(server.pid) in done.stderr


def test_restore_keeps_what_it_replaces(server: Server, tmp_path: Path) -> None:
    """Prevents a restore of the wrong backup from being the end of the newer data."""
    store(server, "old", 1)
    backup(server, tmp_path / "backup.tar.gz")
    newer = store(server, "new", 2)
    server.stop()
    refused = orchestrator("restore", tmp_path / "backup.tar.gz", "--storage", server.storage)
    assert refused.returncode == 1
    assert "--force" in refused.stderr
    done = orchestrator(
        "restore", tmp_path / "backup.tar.gz", "--storage", server.storage, "--force", "--format", "json"
    )
    assert done.returncode == 0, done.stderr
    aside = Path(json.loads(done.stdout)["replaced"])
    server.restart()
    assert server.api().get(f"/api/results/{newer}").status == 404
    assert len(server.api().get("/api/results", issue_id="old").json["results"]) == 1
    with Server(aside, server.projects) as replaced:
        assert replaced.api().get(f"/api/results/{newer}").status == 200


def test_cursors_of_before_a_restore_are_told_of_the_gap(server: Server, tmp_path: Path) -> None:
    """Once the log had grown past an old cursor, its reader went on from there and never saw what came before it.

    A durable reader's old acknowledgement was refused until then.
    """
    archive, path = tmp_path / "backup.tar.gz", "/api/events/wait/counted"

    def publish(*numbers: int) -> None:
        for number in numbers:
            server.api().post("/api/events/counted", {"topic": "testing", "data": {"n": number}}).expect(202)

    def read(**parameters: Any) -> Any:
        page = server.api().get(path, timeout=0, **parameters).expect(200).json
        return page, [event["data"]["n"] for event in page["events"]]

    def restore() -> None:
        server.stop()
        done = orchestrator("restore", archive, "--storage", server.storage, "--force")
        assert done.returncode == 0, done.stderr
        server.restart()

    publish(1, 2, 3)
    assert read(consumer="reader", limit=2, ack="none")[1] == [1, 2]
    backup(server, archive)
    publish(4, 5)
    page, numbers = read(consumer="reader", ack="none")
    page, numbers = read(consumer="reader", ack=page["next_cursor"])
    assert numbers == [3, 4, 5]
    cursors = [page["next_cursor"]]
    for fresh in ((6, 7, 8, 9), (10, 11, 12, 13)):
        restore()
        publish(*fresh)
        for cursor in cursors:
            page, numbers = read(since=cursor)
            assert (page["gap"], numbers) == (True, [1, 2, 3, *fresh])
            assert read(since=page["oldest_cursor"])[0]["gap"] is False
            page, numbers = read(consumer="reader", ack=cursor, limit=9)
            assert numbers == [1, 2, 3, *fresh]
        cursors.append(page["next_cursor"])


def damaged(archive: Path, target: Path, change: str) -> Path:
    """A copy of a backup with one thing wrong."""
    with tarfile.open(archive) as source, tarfile.open(target, "w:gz") as out:
        for member in source:
            content = source.extractfile(member)
            assert content is not None
            data = content.read()
            if member.name == "orchestrator.db" and change == "flipped byte":
                data = data[:5000] + bytes([data[5000] ^ 1]) + data[5001:]
            if member.name == "manifest.json" and change == "newer schema":
                data = json.dumps({**json.loads(data), "schema_version": 999}).encode()
            if member.name == "manifest.json" and change == "no manifest":
                continue
            member.size = len(data)
            out.addfile(member, io.BytesIO(data))
        if change == "path outside":
            entry = tarfile.TarInfo("../outside")
            entry.size = 1
            out.addfile(entry, io.BytesIO(b"x"))
        if change == "link":
            entry = tarfile.TarInfo("runs/link")
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
            out.addfile(entry)
    if change == "cut off":
        target.write_bytes(target.read_bytes()[:-2000])
    return target


@pytest.mark.parametrize(
    "change", ["flipped byte", "newer schema", "no manifest", "path outside", "link", "cut off", "not an archive"]
)
def test_bad_backups_touch_nothing(sidecar: Server, tmp_path: Path, change: str) -> None:
    """Prevents a damaged or hostile archive from replacing good data or writing elsewhere."""
    backup(sidecar, tmp_path / "good.tar.gz")
    bad = tmp_path / "bad.tar.gz"
    if change == "not an archive":
        bad.write_text("hello\n", encoding="utf-8")
    else:
        damaged(tmp_path / "good.tar.gz", bad, change)
    target = tmp_path / "target"
    done = orchestrator("restore", bad, "--storage", target)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    left = {path.name for path in target.iterdir()}
    assert left <= {"sidecar.lock"}
    assert not (tmp_path / "outside").exists()


def test_repair_rebuilds_every_copy(server: Server, tmp_path: Path) -> None:
    """Prevents a lost or edited copy from being the truth from then on."""
    store(server, "copies", 1)
    store(server, "copies", 2)
    server.api().post("/api/events/deployed", {"topic": "deployment", "data": {"n": 7}}).expect(202)
    server.stop()
    copy = server.storage / "results" / "sample" / "copies" / "code-reviewer.json"
    copy.write_text("{}", encoding="utf-8")
    stray = server.storage / "results" / "sample" / "copies" / "stray.json"
    stray.write_text("{}", encoding="utf-8")
    (server.storage / "events" / "event-log.jsonl").unlink()
    done = orchestrator("repair", "--storage", server.storage, "--format", "json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["is_sound"]
    assert said["results"] == 1
    assert said["removed"] == 1
    assert json.loads(copy.read_text(encoding="utf-8"))["result"]["metrics"] == {"n": 2}
    assert not stray.exists()
    lines = (server.storage / "events" / "event-log.jsonl").read_text(encoding="utf-8").splitlines()
    assert any(json.loads(line)["data"] == {"n": 7} for line in lines)
    server.restart()
    found = server.api().get("/api/knowledge/search", q="decision").json["results"]
    assert {item["text"] for item in found} == {"decision 1", "decision 2"}

"""Faults of disk, file and neighbours under the storage, caused for real."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from orchestrator.errors import SidecarError, StorageInUse, StorageReadFailed, StorageWriteFailed
from orchestrator.storage import SqliteStorage, StorageLock
from orchestrator.storage.migrations import MIGRATIONS, migrate
from tests.support.storages import ManualClock, event_draft, opened, result_draft

pytestmark = pytest.mark.chaos

#: Appends events one after the other, printing the number of each once it is acknowledged.
PUBLISHER = """
import asyncio, sys
from pathlib import Path
from orchestrator.errors import SidecarError
from orchestrator.models import EventDraft
from orchestrator.storage import SqliteStorage

async def publish(storage, worker):
    n = 0
    while True:
        draft = EventDraft(event_type="t", publisher="p", topic="t", data={"n": n}, event_id=f"e-{worker}-{n}")
        try:
            event = (await storage.append("p1", draft)).event
        except SidecarError as error:
            print("refused", error.slug, flush=True)
            return
        print("stored", event.seq, event.event_id, flush=True)
        n += 1

async def main():
    storage = SqliteStorage(Path(sys.argv[1]))
    await storage.open()
    await asyncio.gather(*[publish(storage, worker) for worker in range(int(sys.argv[2]))])
    try:
        await storage.append("p1", EventDraft(event_type="t", publisher="p", topic="t", data={}))
        print("went on", flush=True)
    except SidecarError as error:
        print("again", error.slug, flush=True)
    print("check", (await storage.check())["status"], flush=True)
    await storage.close()

asyncio.run(main())
"""


def start_publisher(directory: Path, workers: int, *prefix: str) -> subprocess.Popen[str]:
    """A process of its own that publishes until it dies or is refused."""
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", PUBLISHER, str(directory), str(workers)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


async def fill(storage: SqliteStorage) -> StorageWriteFailed:
    """Append until the storage refuses; its refusal."""
    for _ in range(10_000):
        try:
            await storage.append("p1", event_draft(data={"text": "x" * 4000}))
        except StorageWriteFailed as error:
            return error
    raise AssertionError("the storage never refused")


async def test_34_a_full_disk_refuses_writes_serves_reads_and_recovers(tmp_path: Path) -> None:
    """After the disk was full once, every later write failed until a restart, or reads failed too."""
    async with opened("sqlite", tmp_path) as storage:
        assert isinstance(storage, SqliteStorage)
        await storage.append("p1", event_draft())
        pages = await storage.engine.write(lambda c: int(str(c.execute("PRAGMA page_count").fetchall()[0][0])))
        await storage.engine.write(lambda c: c.execute(f"PRAGMA max_page_count = {pages + 50}").fetchall())
        error = await fill(storage)
        assert (error.code, error.slug) == ("STR_001", "storage_full")
        stored = (await storage.bounds("p1")).newest
        assert len(await storage.read("p1", 0, 5)) == min(5, stored)
        await storage.engine.write(lambda c: c.execute("PRAGMA max_page_count = 100000").fetchall())
        assert (await storage.append("p1", event_draft())).event.seq == stored + 1
        assert (await storage.check())["status"] == "ok"


def test_35_a_file_size_limit_is_a_full_disk(tmp_path: Path) -> None:
    """A write past RLIMIT_FSIZE killed the process, or left the storage unusable."""
    script = """
import asyncio, resource, sys
from pathlib import Path
import structlog
from orchestrator.errors import StorageWriteFailed
from orchestrator.models import EventDraft
from orchestrator.storage import SqliteStorage

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

async def main():
    storage = SqliteStorage(Path(sys.argv[1]))
    await storage.open()
    draft = EventDraft(event_type="t", publisher="p", topic="t", data={"x": "y" * 4000})
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    count = 0
    try:
        while count < 5000:
            await storage.append("p1", draft)
            count += 1
    except StorageWriteFailed as error:
        print(error.slug, len(await storage.read("p1", 0, 5)) == 5)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    event = (await storage.append("p1", draft)).event
    print(event.seq == count + 1, (await storage.check())["status"])
    await storage.close()

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.stdout.splitlines() == ["storage_full True", "True ok"], done.stderr[-2000:]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed: cannot make fdatasync fail")
def test_36_a_failed_sync_stops_the_storage_for_good(tmp_path: Path) -> None:
    """After a failed fdatasync a later one succeeded and what the kernel had dropped was acknowledged."""
    prefix = (
        "strace",
        "-f",
        "-qq",
        "-o",
        os.devnull,
        "-e",
        "trace=fdatasync",
        "-e",
        "inject=fdatasync:error=EIO:when=25",
    )
    with start_publisher(tmp_path, 1, *prefix) as process:
        output, _ = process.communicate(timeout=100)
    lines = output.splitlines()
    if not lines:
        pytest.skip("strace may not trace here")
    stored = [line.split()[2] for line in lines if line.startswith("stored")]
    assert stored
    assert lines[-3:] == ["refused storage_failed", "again storage_failed", "check failed"]
    assert set(stored) <= set(asyncio.run(read_ids(tmp_path)))


async def read_ids(directory: Path) -> list[str]:
    """Ids of all stored events of ``p1``, in order, checked to have no holes."""
    async with opened("sqlite", directory, ManualClock(1_000_000.0)) as storage:
        events = await storage.read("p1", 0, 1_000_000)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    return [event.event_id for event in events]


def test_37_what_was_acknowledged_survives_kill(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """An event was acknowledged before its group was on the disk."""
    acknowledged: set[str] = set()
    for _ in range(max(3, request.config.option.chaos_rounds)):
        with start_publisher(tmp_path, 20) as process:
            assert process.stdout is not None
            for _ in range(300):
                line = process.stdout.readline()
                if line.startswith("stored"):
                    acknowledged.add(line.split()[2])
            process.send_signal(signal.SIGKILL)
            rest, _ = process.communicate(timeout=30)
        acknowledged |= {
            line.split()[2] for line in rest.splitlines() if line.startswith("stored") and len(line.split()) == 3
        }
        # The last line may be torn by the kill: its id is then a prefix of a real one and proves nothing.
        if rest and not rest.endswith("\n"):
            acknowledged.discard(rest.splitlines()[-1].split()[-1])
        assert acknowledged <= set(asyncio.run(read_ids(tmp_path)))


async def test_39_a_deleted_log_is_noticed_and_rescued(tmp_path: Path) -> None:
    """Writes went on into a file without a name and were gone after the restart."""
    async with opened("sqlite", tmp_path) as storage:
        for _ in range(5):
            await storage.append("p1", event_draft())
        await asyncio.to_thread((tmp_path / "orchestrator.db-wal").unlink)
        with pytest.raises(StorageWriteFailed) as caught:
            await storage.append("p1", event_draft())
        assert caught.value.slug == "storage_failed"
        assert (await storage.check())["status"] == "failed"
    assert len(await read_ids(tmp_path)) == 5


async def test_39_a_forked_child_cannot_write(tmp_path: Path) -> None:
    """A forked child wrote through its parent's connection and corrupted the file."""
    async with opened("sqlite", tmp_path) as storage:
        await storage.append("p1", event_draft())
        child = os.fork()
        if child == 0:
            code = 1
            try:
                storage.append("p1", event_draft()).send(None)
            except StorageWriteFailed:
                code = 0
            finally:
                os._exit(code)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert (await storage.append("p1", event_draft())).event.seq == 2


async def test_40_a_foreign_reader_cannot_make_the_log_grow_for_ever(tmp_path: Path) -> None:
    """A forgotten sqlite3 shell filled the disk through the write-ahead log."""
    storage = SqliteStorage(tmp_path, wal_limit_bytes=2_000_000, busy_timeout_s=0.05)
    await storage.open()
    try:
        await storage.append("p1", event_draft())
        reader = apsw.Connection(str(tmp_path / "orchestrator.db"))
        reader.execute("BEGIN; SELECT count(*) FROM events").fetchall()
        error = await fill(storage)
        assert error.slug == "wal_pinned"
        assert (await storage.check())["wal_bytes"] < 4_000_000
        reader.execute("COMMIT")
        reader.close()
        await storage.append("p1", event_draft())
        assert (await storage.check())["wal_bytes"] < 2_000_000
    finally:
        await storage.close()


async def test_41_a_held_write_lock_is_waited_for_within_bounds(tmp_path: Path) -> None:
    """A lock of another program blocked every write for ever, or failed them at once."""
    storage = SqliteStorage(tmp_path, busy_timeout_s=0.2)
    await storage.open()
    try:
        holder = apsw.Connection(str(tmp_path / "orchestrator.db"))
        holder.execute("BEGIN IMMEDIATE")
        outcomes = await asyncio.gather(
            *[storage.append("p1", event_draft()) for _ in range(5)], return_exceptions=True
        )
        assert all(isinstance(error, StorageWriteFailed) and error.slug == "storage_busy" for error in outcomes)
        waiting = asyncio.create_task(storage.append("p1", event_draft()))
        await asyncio.sleep(0)
        holder.execute("ROLLBACK")
        holder.close()
        assert (await waiting).event.seq == 1
    finally:
        await storage.close()


async def test_42_a_flipped_byte_costs_one_record(tmp_path: Path) -> None:
    """A damaged record was given as if it were sound, or made all others unreadable."""
    async with opened("sqlite", tmp_path) as storage:
        for n in range(5):
            await storage.append("p1", event_draft(data={"n": n}))
            await storage.insert_result("p1", f"r{n}", result_draft(note="sound"), stored_at=1.0)
    database = apsw.Connection(str(tmp_path / "orchestrator.db"))
    for table, key in (("events", "seq = 3"), ("results", "id = 'r2'")):
        (body,) = database.execute(f"SELECT body FROM {table} WHERE {key}").fetchall()[0]
        assert isinstance(body, bytes)
        flipped = body.replace(b'"n":2', b'"n":7') if table == "events" else body.replace(b"sound", b"sOund")
        assert flipped != body
        database.execute(f"UPDATE {table} SET body = ? WHERE {key}", (flipped,))
    database.close()
    async with opened("sqlite", tmp_path) as storage:
        assert [event.seq for event in await storage.read("p1", 0, 10)] == [1, 2, 4, 5]
        with pytest.raises(StorageReadFailed):
            await storage.get_result("p1", "r2")
        report = await storage.check()
        assert (report["status"], report["damaged_records"]) == ("degraded", 2)
        assert (await storage.append("p1", event_draft())).event.seq == 6


async def test_42_a_truncated_file_is_said_not_served_as_empty(tmp_path: Path) -> None:
    """A truncated database looked like a fresh one."""
    async with opened("sqlite", tmp_path) as storage:
        for _ in range(200):
            await storage.append("p1", event_draft(data={"text": "x" * 1000}))
    path = tmp_path / "orchestrator.db"
    await asyncio.to_thread(os.truncate, path, 40_000)
    storage = SqliteStorage(tmp_path)

    async def use() -> None:
        await storage.open()
        await storage.read("p1", 0, 1000)

    with pytest.raises(SidecarError):
        await use()
    await storage.close()


async def test_80_a_failed_migration_leaves_the_version_before(tmp_path: Path) -> None:
    """A kill in the middle of a migration left half a schema."""
    connection = apsw.Connection(str(tmp_path / "orchestrator.db"))
    migrate(connection)
    broken = (*MIGRATIONS, "CREATE TABLE half (x); INSERT INTO nothing VALUES (1)")
    with pytest.raises(apsw.Error):
        migrate(connection, broken)
    assert connection.execute("PRAGMA user_version").fetchall() == [(len(MIGRATIONS),)]
    assert connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'half'").fetchall() == [(0,)]
    assert migrate(connection, (*MIGRATIONS, "CREATE TABLE whole (x)")) == len(MIGRATIONS) + 1
    connection.close()
    storage = SqliteStorage(tmp_path)
    with pytest.raises(StorageReadFailed) as caught:
        await storage.open()
    await storage.close()
    assert caught.value.slug == "newer_schema"


async def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    """A file of another program was migrated over."""
    foreign = sqlite3.connect(tmp_path / "orchestrator.db")
    foreign.execute("CREATE TABLE precious (x)")
    foreign.commit()
    foreign.close()
    storage = SqliteStorage(tmp_path)
    with pytest.raises(StorageReadFailed) as caught:
        await storage.open()
    await storage.close()
    assert caught.value.slug == "foreign_database"


def test_23_a_second_opener_is_refused_with_the_first_ones_pid(tmp_path: Path) -> None:
    """Two sidecars shared a storage; or the lock outlived its killed holder."""
    script = (
        "import sys, time; from pathlib import Path; from orchestrator.storage import StorageLock\n"
        "lock = StorageLock(Path(sys.argv[1])); lock.acquire(); print('held', flush=True); time.sleep(100)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StorageInUse) as caught:
            StorageLock(tmp_path).acquire()
        assert caught.value.details["pid"] == holder.pid
        holder.kill()
    with StorageLock(tmp_path) as lock:
        assert lock.owner() == os.getpid()
    assert lock.owner() is None


async def test_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    """Other users could read the database's write-ahead log."""
    before = os.umask(0)
    try:
        async with opened("sqlite", tmp_path / "new") as storage:
            await storage.append("p1", event_draft())
            modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()}
            directory = (tmp_path / "new").stat().st_mode & 0o777
    finally:
        os.umask(before)
    assert directory == 0o700
    assert set(modes.values()) == {0o600}
    assert {"orchestrator.db", "orchestrator.db-wal"} <= set(modes)

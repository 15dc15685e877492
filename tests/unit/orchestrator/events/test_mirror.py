"""The copy of the event log for ``tail -f``."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from orchestrator.config import EventSettings
from orchestrator.events import LogMirror, rebuild_mirror
from tests.support.disks import NoSmallDisk, fill, small_disk
from tests.support.events import running


def lines(path: Path) -> list[dict[str, object]]:
    """The decoded lines of a file; none when it is missing."""
    return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()] if path.exists() else []


async def test_every_event_is_copied_and_files_rotate(tmp_path: Path) -> None:
    """The copy missed events, grew without bound, or could be read by other users."""
    settings = EventSettings(log_file_bytes=2000)
    directory = tmp_path / "events"
    mirror = LogMirror(directory, settings, files=2)
    async with running(tmp_path / "s", settings=settings, mirror=mirror) as sidecar:
        for n in range(40):
            await sidecar.publish(data={"n": n})
            if n % 5 == 4:
                await mirror.flush()
    names = await asyncio.to_thread(lambda: sorted(path.name for path in directory.iterdir()))
    assert names[-2:] == ["event-log.jsonl.1", "event-log.jsonl.2"]
    assert "event-log.jsonl.3" not in names
    newest = await asyncio.to_thread(lines, directory / "event-log.jsonl.1")
    assert {line["project_id"] for line in newest} == {"p1"}
    modes = await asyncio.to_thread(lambda: {path.stat().st_mode & 0o777 for path in directory.iterdir()})
    assert modes == {0o600}
    assert mirror.dropped == 0


async def test_the_copy_is_rebuilt_from_the_log(tmp_path: Path) -> None:
    """A lost or torn copy could not be made again."""
    directory = tmp_path / "events"
    async with running(tmp_path / "s") as sidecar:
        events = [await sidecar.publish(data={"n": n}) for n in range(5)]
        await asyncio.to_thread(directory.mkdir)
        await asyncio.to_thread((directory / "event-log.jsonl").write_bytes, b'{"torn')
        assert await rebuild_mirror(sidecar.storage, directory) == 5
    copied = await asyncio.to_thread(lines, directory / "event-log.jsonl")
    assert [line["event_id"] for line in copied] == [event.event_id for event in events]


async def test_a_copy_that_cannot_be_written_disturbs_nobody(tmp_path: Path) -> None:
    """A mirror on a broken path made publishing fail."""
    await asyncio.to_thread((tmp_path / "events").write_bytes, b"a file where the directory should be")
    mirror = LogMirror(tmp_path / "events", EventSettings())
    async with running(tmp_path / "s", mirror=mirror) as sidecar:
        await sidecar.publish()
        await mirror.flush()
        assert mirror.dropped == 1
        assert (await sidecar.publish()).seq == 2


async def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    """Half a line was left where the disk became full, and the next one was glued to it."""
    await asyncio.to_thread(copy_over_a_full_disk, tmp_path)


def copy_over_a_full_disk(tmp_path: Path) -> None:
    """Events before, on and after a full disk; the copy has the first and the last."""
    try:
        with small_disk(tmp_path / "disk", 1 << 20) as disk:
            mirror = LogMirror(disk / "events", EventSettings())

            def copy(text: str) -> None:
                mirror.append("p1", msgspec.json.encode({"data": text}))
                asyncio.run(mirror.flush())

            copy("before")
            filler = fill(disk)
            copy("x" * 100_000)
            filler.unlink()
            copy("after")
            assert [line["data"] for line in lines(mirror.path)] == ["before", "after"]
            assert mirror.dropped == 1
    except NoSmallDisk as reason:
        pytest.skip(str(reason))

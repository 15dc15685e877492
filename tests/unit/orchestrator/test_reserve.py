"""The room for the next start: whole when there is room, and never the last room of what is under way."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.storage import reserve
from orchestrator.storage.reserve import SIZE_BYTES, TAKEN_PART, Reserve
from tests.support.disks import NoSmallDisk, free_bytes, leave, small_disk


def test_it_grows_with_the_room_and_leaves_most_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a full disk the reserve took what was free first, or stayed small when the rest came later."""
    monkeypatch.setattr(reserve, "RETRY_S", 0.0)
    try:
        with small_disk(tmp_path / "disk", 16 << 20) as disk:
            filler = leave(disk, 1 << 20)
            kept = Reserve(disk / "reserve")
            kept.keep()
            assert 0 < (disk / "reserve").stat().st_size <= (1 << 20) // TAKEN_PART
            assert free_bytes(disk) >= (1 << 20) * (TAKEN_PART - 1) // TAKEN_PART
            filler.unlink()
            kept.top_up()
            assert (disk / "reserve").stat().st_size == SIZE_BYTES
            assert kept.release()
            assert not kept.release()
            kept.top_up()
            assert (disk / "reserve").stat().st_size == SIZE_BYTES
    except NoSmallDisk as reason:
        pytest.skip(str(reason))


def test_a_whole_one_is_not_looked_at_again(tmp_path: Path) -> None:
    """Each commit asked the disk about a file that has not changed."""
    kept = Reserve(tmp_path / "reserve")
    kept.keep()
    (tmp_path / "reserve").unlink()
    kept.top_up()
    assert not (tmp_path / "reserve").exists()


def test_it_is_not_tried_at_each_commit(tmp_path: Path) -> None:
    """On a full disk each commit tried to fill it."""
    kept = Reserve(tmp_path / "missing" / "reserve")
    kept.keep()
    (tmp_path / "missing").mkdir()
    kept.top_up()
    assert not (tmp_path / "missing" / "reserve").exists()

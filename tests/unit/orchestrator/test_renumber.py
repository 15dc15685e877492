"""Numbering events anew after a restore."""

from __future__ import annotations

from pathlib import Path

import apsw

from orchestrator.models import Project
from orchestrator.storage import SqliteStorage
from orchestrator.storage.renumber import newest_events, renumber_events
from tests.support.storages import ManualClock, consumer, event_draft


async def fill(path: Path, clock: ManualClock, count: int) -> None:
    """A storage with ``count`` events, a reader and a project without events."""
    storage = SqliteStorage(path, clock=clock)
    await storage.open()
    await storage.put_project(Project(project_id="silent", path="/", created_at=1.0))
    for number in range(count):
        await storage.append("p1", event_draft(data={"n": number}, event_id=f"e{number}"))
    await storage.put_consumer("p1", consumer(acked=count - 2, delivered=count - 1))
    await storage.close()


async def test_events_move_as_they_are_with_their_readers(tmp_path: Path) -> None:
    """Numbers with holes would count as removed events, and be removed by the next sweep.

    More events than are moved at once, by less than there are: their numbers overlap.
    """
    clock = ManualClock()
    await fill(tmp_path, clock, 450)
    database = tmp_path / "orchestrator.db"
    renumber_events(database, {"gone": 7}, 0.000_5)
    assert newest_events(database) == {"p1": 500, "silent": 500, "gone": 500}
    storage = SqliteStorage(tmp_path, clock=clock)
    await storage.open()
    try:
        events = await storage.read("p1", 0, 1000)
        assert [(event.seq, event.data["n"]) for event in events] == [(number + 51, number) for number in range(450)]
        bounds = await storage.bounds("p1")
        assert (bounds.oldest, bounds.newest) == (51, 500)
        (reader,) = await storage.list_consumers("p1")
        assert (reader.acked, reader.delivered) == (498, 499)
        known = await storage.append("p1", event_draft(event_id="e3"))
        assert (known.is_duplicate, known.event.seq, known.event.data) == (True, 54, {"n": 3})
        assert (await storage.append("p1", event_draft())).event.seq == 501
    finally:
        await storage.close()


async def test_numbers_are_above_all_of_before_though_the_clock_was_set_back(tmp_path: Path) -> None:
    """A clock that was set back gave numbers out twice."""
    await fill(tmp_path, ManualClock(), 3)
    renumber_events(tmp_path / "orchestrator.db", {"p1": 9000, "silent": 0}, 0.0)
    assert newest_events(tmp_path / "orchestrator.db") == {"p1": 9001, "silent": 1}


async def test_a_damaged_event_costs_no_other(tmp_path: Path) -> None:
    """One damaged record made the whole restore impossible."""
    clock = ManualClock()
    await fill(tmp_path, clock, 3)
    database = apsw.Connection(str(tmp_path / "orchestrator.db"))
    database.execute("UPDATE events SET body = x'00' WHERE seq = 2")
    database.close()
    renumber_events(tmp_path / "orchestrator.db", {}, 1.0)
    storage = SqliteStorage(tmp_path, clock=clock)
    await storage.open()
    assert [event.seq for event in await storage.read("p1", 0, 10)] == [999_998, 1_000_000]
    await storage.close()

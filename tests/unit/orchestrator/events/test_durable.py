"""Durable consumers: acknowledgement, redelivery, restarts, lag."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress
from pathlib import Path

import pytest

from orchestrator.config import EventSettings
from orchestrator.errors import BadRequest, Conflict, NotFound, NotPermitted
from orchestrator.events import EventPage, EventQuery
from tests.support.events import PROJECT, Sidecar, draft, running
from tests.support.storages import ManualClock


async def take(
    sidecar: Sidecar,
    *,
    ack: str | None = None,
    limit: int = 2,
    name: str = "c1",
    types: tuple[str, ...] | None = ("note",),
    since: str | None = None,
    timeout_s: float = 0.0,
    role: str | None = None,
    agent: str = "r1",
) -> EventPage:
    """One poll of a durable reader."""
    query = EventQuery(types=types, consumer=name, ack=ack, limit=limit, since=since, timeout_s=timeout_s, role=role)
    return await sidecar.bus.wait(PROJECT, query, subscriber=agent)


def seqs(page: EventPage) -> list[int]:
    """Sequence numbers of an answer."""
    return [event.seq for event in page.events]


async def test_without_ack_the_last_answer_counts_as_received(tmp_path: Path) -> None:
    """An implicit reader got an event twice, or lost one over a restart."""
    async with running(tmp_path) as sidecar:
        for _ in range(5):
            await sidecar.publish()
        assert seqs(await take(sidecar)) == [1, 2]
        await sidecar.restart()
        assert seqs(await take(sidecar)) == [3, 4]
        assert seqs(await take(sidecar)) == [5]
        assert (await take(sidecar)).timeout


async def test_with_ack_nothing_is_skipped(tmp_path: Path) -> None:
    """Events that were given but not acknowledged never came again."""
    async with running(tmp_path) as sidecar:
        for _ in range(5):
            await sidecar.publish()
        assert seqs(await take(sidecar, ack="none")) == [1, 2]
        assert seqs(await take(sidecar, ack="none")) == [1, 2]
        await sidecar.publish()
        assert seqs(await take(sidecar, ack="none")) == [1, 2]
        await sidecar.restart()
        assert seqs(await take(sidecar, ack="none")) == [1, 2]
        assert seqs(await take(sidecar, ack="1")) == [2, 3]
        await sidecar.restart()
        assert seqs(await take(sidecar, ack="3", limit=9)) == [4, 5, 6]
        assert (await take(sidecar, ack="6")).timeout
        (lag,) = await sidecar.bus.consumers(PROJECT)
        assert (lag.consumer.redeliveries, lag.lag, lag.outstanding) == (4, 0, False)


async def test_a_repeated_answer_tells_what_comes_after_it(tmp_path: Path) -> None:
    """A repeated answer said that nothing more was there, although the first one had said that there was."""
    async with running(tmp_path) as sidecar:
        for _ in range(3):
            await sidecar.publish()
        assert (await take(sidecar, ack="none")).more_available
        again = await take(sidecar, ack="none", limit=9)
        assert (seqs(again), again.more_available) == ([1, 2], True)
        assert not (await take(sidecar, ack="2", limit=9)).more_available
        assert not (await take(sidecar, ack="none", limit=9)).more_available


async def test_ack_none_goes_on_once_nothing_is_outstanding(tmp_path: Path) -> None:
    """A reader that only ever says none was stuck behind an empty answer."""
    async with running(tmp_path) as sidecar:
        assert (await take(sidecar, ack="none")).timeout
        await sidecar.publish("other")
        assert (await take(sidecar, ack="none")).timeout
        await sidecar.publish()
        assert seqs(await take(sidecar, ack="none")) == [2]


async def test_acks_of_what_was_never_given_are_refused(tmp_path: Path) -> None:
    """An acknowledgement beyond the last answer skipped events."""
    async with running(tmp_path) as sidecar:
        for _ in range(5):
            await sidecar.publish()
        assert seqs(await take(sidecar, ack="none")) == [1, 2]
        with pytest.raises(BadRequest):
            await take(sidecar, ack="4")
        assert seqs(await take(sidecar, ack="0")) == [1, 2]
        assert seqs(await take(sidecar, ack="2")) == [3, 4]


async def test_next_cursor_and_last_cursor_can_both_be_acknowledged(tmp_path: Path) -> None:
    """``ack=<next_cursor>`` was refused when a filter had left out the newest events."""
    async with running(tmp_path) as sidecar:
        await sidecar.publish()
        await sidecar.publish("other")
        page = await take(sidecar, ack="none")
        assert (seqs(page), page.next_cursor) == ([1], "2")
        assert (await take(sidecar, ack="1")).timeout
        await sidecar.publish()
        page = await take(sidecar, ack="none")
        assert seqs(page) == [3]
        assert (await take(sidecar, ack=page.next_cursor)).timeout


async def test_positions_are_kept_per_name_and_type(tmp_path: Path) -> None:
    """Two readers, or two lists of types of one reader, moved each other's position."""
    async with running(tmp_path) as sidecar:
        await sidecar.publish()
        await sidecar.publish("other")
        assert seqs(await take(sidecar)) == [1]
        assert seqs(await take(sidecar, name="c2")) == [1]
        assert seqs(await take(sidecar, types=None)) == [1, 2]
        assert seqs(await take(sidecar, types=("other", "note"))) == [1, 2]
        assert (await take(sidecar, types=("note", "other"))).timeout


async def test_since_is_only_where_a_new_reader_starts(tmp_path: Path) -> None:
    """``since`` moved an existing reader."""
    async with running(tmp_path) as sidecar:
        for _ in range(4):
            await sidecar.publish()
        assert seqs(await take(sidecar, since="2", limit=1)) == [3]
        assert seqs(await take(sidecar, since="earliest")) == [4]
        assert (await take(sidecar, name="new", since="latest")).timeout


async def test_a_reader_that_fell_off_is_told(tmp_path: Path) -> None:
    """A durable reader whose events were trimmed went on silently."""
    async with running(tmp_path, settings=EventSettings(keep=3)) as sidecar:
        await sidecar.publish()
        assert seqs(await take(sidecar, ack="none")) == [1]
        for _ in range(9):
            await sidecar.publish()
        page = await take(sidecar, ack="1", limit=10)
        assert (page.gap, page.oldest_cursor, seqs(page)) == (True, "7", [8, 9, 10])


async def test_polls_of_one_reader_take_turns(tmp_path: Path) -> None:
    """Two polls of one reader at the same time both got the same event."""
    async with running(tmp_path) as sidecar:
        polls = [asyncio.create_task(take(sidecar, timeout_s=60.0)) for _ in range(2)]
        async with asyncio.timeout(10):
            while sidecar.bus.stats().active_subscriptions < 2:
                await asyncio.sleep(0)
        await sidecar.publish()
        await asyncio.wait(polls, return_when=asyncio.FIRST_COMPLETED)
        await sidecar.publish()
        assert sorted(seq for page in await asyncio.gather(*polls) for seq in seqs(page)) == [1, 2]
        holding = asyncio.create_task(take(sidecar, timeout_s=60.0))
        await asyncio.sleep(0)
        assert (await take(sidecar, timeout_s=0.01)).timeout
        holding.cancel()


async def test_absent_readers_count_as_subscribers_of_what_they_asked_for(tmp_path: Path) -> None:
    """A publisher was told that nobody gets an event that a durable reader will get."""
    clock = ManualClock()
    async with running(tmp_path, clock=clock) as sidecar:
        await take(sidecar)
        await sidecar.restart()
        assert (await sidecar.bus.publish(PROJECT, draft())).subscribers == ("c1",)
        assert (await sidecar.bus.publish(PROJECT, draft("other"))).subscribers == ()
        (lag,) = await sidecar.bus.consumers(PROJECT)
        assert (lag.lag, lag.is_overdue) == (1, False)
        assert seqs(await take(sidecar)) == [1]
        clock.seconds += 31
        (lag,) = await sidecar.bus.consumers(PROJECT)
        assert (lag.outstanding, lag.is_overdue) == (True, True)
        clock.seconds += 86400
        await sidecar.publish("other")
        await sidecar.bus.sweep()
        assert (await sidecar.bus.publish(PROJECT, draft())).subscribers == ()


async def test_readers_idle_for_longer_than_events_are_kept_make_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A project had 1,000 names for life: then every new reader was refused, over restarts too."""
    monkeypatch.setattr("orchestrator.events.durable.MAX_CONSUMERS", 5)
    clock = ManualClock()
    async with running(tmp_path, clock=clock) as sidecar:
        for number in range(5):
            await take(sidecar, name=f"c{number}")
        clock.seconds += 1
        with pytest.raises(Conflict):
            await take(sidecar, name="new")
        await take(sidecar, name="c0")
        clock.seconds += sidecar.settings.retention_s
        assert (await take(sidecar, name="new")).timeout
        names = {lag.consumer.name for lag in await sidecar.bus.consumers(PROJECT)}
        assert len(names) == 5
        assert {"new", "c0"} <= names
        await sidecar.publish()
        await take(sidecar, name="c0")
        clock.seconds += sidecar.settings.retention_s - 1
        # With room nothing is forgotten: an idle reader is told what it missed.
        await sidecar.bus.remove_consumer(PROJECT, "new", None, None)
        await take(sidecar, name="another")
        clock.seconds += sidecar.settings.retention_s
        await sidecar.bus.sweep()
        assert len(await sidecar.bus.consumers(PROJECT)) == 5


async def test_an_agent_cannot_use_up_its_projects_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One agent made all names that a project may have, and nobody else got one, operators included."""
    monkeypatch.setattr("orchestrator.events.durable.MAX_CONSUMERS_OF_AN_AGENT", 3)
    async with running(tmp_path) as sidecar:
        for number in range(3):
            await take(sidecar, name=f"c{number}", role="test-engineer")
        with pytest.raises(Conflict):
            await take(sidecar, name="new", role="test-engineer")
        assert (await take(sidecar, name="c0", role="test-engineer")).timeout
        assert (await take(sidecar, name="new", role="test-engineer", agent="r2")).timeout
        assert (await take(sidecar, name="newer")).timeout


async def test_a_reader_is_forgotten_by_its_maker_or_an_operator(tmp_path: Path) -> None:
    """A durable reader's name, once used, could not be given up again."""
    async with running(tmp_path) as sidecar:
        await sidecar.publish()
        for types in (("note",), None):
            assert seqs(await take(sidecar, types=types)) == [1]
        with pytest.raises(NotPermitted):
            await sidecar.bus.remove_consumer(PROJECT, "c1", None, "r2")
        with pytest.raises(NotFound):
            await sidecar.bus.remove_consumer(PROJECT, "c1", "other", "r1")
        assert await sidecar.bus.remove_consumer(PROJECT, "c1", "*", "r1") == 1
        assert seqs(await take(sidecar, types=None)) == [1]
        assert (await take(sidecar)).timeout
        assert await sidecar.bus.remove_consumer(PROJECT, "c1", None, None) == 2
        assert (await sidecar.bus.publish(PROJECT, draft())).subscribers == ()
        await sidecar.restart()
        assert seqs(await take(sidecar)) == [1, 2]


async def test_a_forgotten_reader_that_acknowledges_is_told(tmp_path: Path) -> None:
    """A reader that was not known any more began anew without a word, although it had a cursor to go on from."""
    async with running(tmp_path) as sidecar:
        await sidecar.publish()
        page = await take(sidecar, ack="1")
        assert (page.gap, page.oldest_cursor, seqs(page)) == (True, "0", [1])
        assert not (await take(sidecar, ack="1")).gap
        assert not (await take(sidecar, name="new", ack="none")).gap


async def test_a_refused_name_leaves_nothing_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each name that was refused left a lock for as long as the sidecar ran."""
    monkeypatch.setattr("orchestrator.events.durable.MAX_CONSUMERS", 1)
    async with running(tmp_path) as sidecar:
        for name in ("c1", "c2", "c3"):
            with suppress(Conflict):
                await take(sidecar, name=name)
        gc.collect()
        assert len(sidecar.bus._durable._turns) == 0

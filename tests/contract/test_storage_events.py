"""What every storage's event log promises."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from orchestrator.errors import SidecarError
from orchestrator.models import DeadLetter, Delivery, Event
from tests.support.storages import BACKENDS, ManualClock, consumer, event_draft, opened

pytestmark = pytest.mark.parametrize("backend", sorted(BACKENDS))


async def test_concurrent_appends_number_events_without_holes(backend: str, tmp_path: Path) -> None:
    """A group commit that numbers two events alike, or leaves a number out, breaks every cursor."""
    async with opened(backend, tmp_path) as storage:
        appended = await asyncio.gather(*[storage.append("p1", event_draft(data={"n": n})) for n in range(300)])
        assert sorted(item.event.seq for item in appended) == list(range(1, 301))
        stored = await storage.read("p1", 0, 1000)
        assert [event.seq for event in stored] == list(range(1, 301))
        by_seq = {item.event.seq: item.event for item in appended}
        assert all(by_seq[event.seq] == event for event in stored)


async def test_a_known_event_id_is_answered_with_the_first_event(backend: str, tmp_path: Path) -> None:
    """A retried publish must not be published twice, also when both arrive in one group."""
    async with opened(backend, tmp_path) as storage:
        draft = event_draft(data={"n": 1}, event_id="evt-1")
        other = msgspec.structs.replace(draft, data={"n": 2})
        first, second = await asyncio.gather(storage.append("p1", draft), storage.append("p1", other))
        third = await storage.append("p1", other)
        assert [item.is_duplicate for item in (first, second, third)] == [False, True, True]
        assert first.event == second.event == third.event
        assert (await storage.append("p2", draft)).is_duplicate is False


async def test_a_trimmed_event_is_still_not_published_twice(backend: str, tmp_path: Path) -> None:
    """A late retry of an event that retention dropped came back as a new event."""
    async with opened(backend, tmp_path) as storage:
        first = await storage.append("p1", event_draft(event_id="evt-1"))
        await storage.append("p1", event_draft())
        assert await storage.trim("p1", keep=1, older_than=0.0, now=0.0) == 1
        again = await storage.append("p1", event_draft(event_id="evt-1"))
        assert again.is_duplicate
        assert again.event.seq == first.event.seq


async def test_sequence_numbers_are_never_used_again(backend: str, tmp_path: Path) -> None:
    """After trimming everything and a restart, a reader's old cursor pointed into new events."""
    async with opened(backend, tmp_path) as storage:
        for _ in range(3):
            await storage.append("p1", event_draft())
        await storage.trim("p1", keep=1, older_than=float("inf"), now=0.0)
        bounds = await storage.bounds("p1")
        assert (bounds.oldest, bounds.newest) == (4, 3)
    async with opened(backend, tmp_path) as storage:
        assert (await storage.append("p1", event_draft())).event.seq == 4


async def test_reads_stay_inside_the_project(backend: str, tmp_path: Path) -> None:
    """One project's events appeared in another's log."""
    async with opened(backend, tmp_path) as storage:
        await storage.append("p1", event_draft(data={"secret": 1}))
        assert await storage.read("p2", 0, 10) == []
        bounds = await storage.bounds("p2")
        assert (bounds.oldest, bounds.newest) == (1, 0)
        assert await storage.event_projects() == ["p1"]


async def test_expired_events_are_not_read_and_are_trimmed(backend: str, tmp_path: Path) -> None:
    """An event past its time to live was still given to readers until the next sweep."""
    clock = ManualClock()
    async with opened(backend, tmp_path, clock) as storage:
        await storage.append("p1", event_draft(ttl_seconds=5))
        await storage.append("p1", event_draft(ttl_seconds=500))
        clock.seconds += 10
        assert [event.seq for event in await storage.read("p1", 0, 10)] == [2]
        assert await storage.trim("p1", keep=100, older_than=0.0, now=clock.now()) == 1


async def test_everything_survives_closing_and_opening(backend: str, tmp_path: Path) -> None:
    """Fields were lost between writing and reading."""
    draft = event_draft(
        data={"text": "ä\u0000\U0001f600", "big": 2**80, "list": [None, 1.5, {"a": []}]},
        correlation_id="c-1",
        priority="high",
        references=("evt-0",),
        round=3,
        ttl_seconds=77,
    )
    async with opened(backend, tmp_path) as storage:
        appended = await storage.append("p1", draft)
    async with opened(backend, tmp_path) as storage:
        assert await storage.read("p1", 0, 10) == [appended.event]


async def test_one_bad_draft_does_not_fail_the_others_of_its_group(backend: str, tmp_path: Path) -> None:
    """A draft that cannot be stored took the whole group commit with it."""
    deep: dict[str, object] = {}
    for _ in range(500):
        deep = {"a": deep}
    async with opened(backend, tmp_path) as storage:
        drafts = [event_draft(data={"n": n}) for n in range(20)]
        drafts.insert(10, event_draft(data=deep))
        outcomes = await asyncio.gather(*[storage.append("p1", draft) for draft in drafts], return_exceptions=True)
        assert isinstance(outcomes[10], SidecarError)
        assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 20
        assert [event.seq for event in await storage.read("p1", 0, 100)] == list(range(1, 21))


async def test_flush_waits_for_appends_whose_callers_went_away(backend: str, tmp_path: Path) -> None:
    """An append whose caller was cancelled became visible only after some later append."""
    async with opened(backend, tmp_path) as storage:
        task = asyncio.ensure_future(storage.append("p1", event_draft()))
        await asyncio.sleep(0)
        task.cancel()
        await storage.flush()
        assert (await storage.bounds("p1")).newest == 1


async def test_a_claim_is_given_once(backend: str, tmp_path: Path) -> None:
    """Two callers both got the right to act."""
    async with opened(backend, tmp_path) as storage:
        claims = await asyncio.gather(*[storage.claim_once("p1", "k") for _ in range(20)])
        assert sorted(claims) == [False] * 19 + [True]
        assert await storage.claim_once("p2", "k")


async def test_consumers_are_kept_per_project_name_and_type(backend: str, tmp_path: Path) -> None:
    """Two readers of one name shared a position."""
    async with opened(backend, tmp_path) as storage:
        await storage.put_consumer("p1", consumer(acked=3))
        await storage.put_consumer("p1", msgspec.structs.replace(consumer(acked=9), event_type="a"))
        await storage.put_consumer("p1", consumer(acked=4))
        found = await storage.get_consumer("p1", "c1", "*")
        assert found is not None
        assert found.acked == 4
        assert await storage.get_consumer("p2", "c1", "*") is None
        assert [item.event_type for item in await storage.list_consumers("p1")] == ["*", "a"]


def _delivery(event: Event, target: str, *, next_at: float = 0.0) -> Delivery:
    return Delivery(
        id=f"{target}:{event.event_id}",
        project_id="p1",
        event=event,
        target=target,
        created_at=0.0,
        next_at=next_at,
    )


def _letter(event: Event, letter_id: str) -> DeadLetter:
    return DeadLetter(
        id=letter_id, event=event, target="webhook:x", reason="status", attempts=5, last_error="500", created_at=1.0
    )


async def test_deliveries_and_their_position_move_together(backend: str, tmp_path: Path) -> None:
    """After a crash a trigger fired twice because its position was older than its deliveries."""
    async with opened(backend, tmp_path) as storage:
        event = (await storage.append("p1", event_draft())).event
        early, late = _delivery(event, "webhook:a", next_at=5.0), _delivery(event, "webhook:b", next_at=50.0)
        await storage.enqueue_deliveries("p1", consumer("~router", acked=1), [early, late])
        await storage.enqueue_deliveries(
            "p1", consumer("~router", acked=2), [msgspec.structs.replace(early, attempts=9)]
        )
        position = await storage.get_consumer("p1", "~router", "*")
        assert position is not None
        assert position.acked == 2
        assert await storage.due_deliveries(10.0, 10) == [early]
        assert await storage.next_delivery_at() == 5.0
        assert await storage.count_deliveries("p1") == 2
        assert await storage.count_deliveries("p2") == 0
        assert await storage.drop_delivery("p1", early.id)
        assert not await storage.drop_delivery("p1", early.id)


async def test_dead_letters_are_bounded_and_can_be_redriven_once(backend: str, tmp_path: Path) -> None:
    """Dead letters grew without bound, or a redriven one stayed and was redriven twice."""
    async with opened(backend, tmp_path) as storage:
        event = (await storage.append("p1", event_draft())).event
        delivery = _delivery(event, "webhook:x")
        dropped = [await storage.give_up_delivery(delivery, _letter(event, f"dlq_{n}"), keep=3) for n in range(5)]
        assert dropped == [0, 0, 0, 1, 1]
        assert [letter.id for letter in await storage.list_dead_letters("p1", after=None, limit=10)] == [
            "dlq_2",
            "dlq_3",
            "dlq_4",
        ]
        assert [letter.id for letter in await storage.list_dead_letters("p1", after="dlq_3", limit=10)] == ["dlq_4"]
        assert await storage.count_dead_letters() == 3
        assert await storage.redrive_dead_letter("p1", "dlq_2", delivery)
        assert not await storage.redrive_dead_letter("p1", "dlq_2", delivery)
        assert await storage.count_deliveries() == 1
        assert await storage.get_dead_letter("p2", "dlq_3") is None
        assert not await storage.drop_dead_letter("p2", "dlq_3")
        assert await storage.drop_dead_letter("p1", "dlq_3")

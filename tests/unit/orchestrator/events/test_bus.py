"""Waiting, replaying and streaming, as the contract has it."""

from __future__ import annotations

import asyncio
import weakref
from pathlib import Path

import msgspec
import pytest

from orchestrator.config import EventSettings
from orchestrator.errors import BadEvent, BadFilter, BadRequest, BusUnavailable, NotPermitted
from orchestrator.events import EventPage, EventQuery, Gap
from orchestrator.events.topics import TopicRules, parse_topic_rules
from orchestrator.events.wire import ENTRY_BYTES, EncodedEvents
from orchestrator.models import Event
from tests.support.events import PROJECT, Sidecar, draft, make_event, running
from tests.support.storages import ManualClock


async def wait(sidecar: Sidecar, *types: str, project: str = PROJECT, **fields: object) -> EventPage:
    """A long poll as reader ``r1``; without ``timeout_s`` it does not wait."""
    query = msgspec.convert({"timeout_s": 0.0, **fields, "types": types or None}, EventQuery)
    return await sidecar.bus.wait(project, query, subscriber="r1")


async def waiting(sidecar: Sidecar, count: int = 1) -> None:
    """Return when ``count`` readers are registered."""
    async with asyncio.timeout(10):
        while sidecar.bus.stats().active_subscriptions < count:
            await asyncio.sleep(0)


async def test_without_since_retained_events_are_answered_at_once(tmp_path: Path) -> None:
    """A reader that came late waited for a new event although old ones matched."""
    async with running(tmp_path) as sidecar:
        for n in range(3):
            await sidecar.publish(data={"n": n})
        page = await wait(sidecar, "note", limit=2, timeout_s=300.0)
        assert [event.data["n"] for event in page.events] == [0, 1]
        assert (page.more_available, page.next_cursor, page.timeout, page.gap) == (True, "2", False, False)
        rest = await wait(sidecar, "note", since=page.next_cursor)
        assert [event.seq for event in rest.events] == [3]
        assert not rest.more_available


async def test_a_waiter_gets_the_event_published_later(tmp_path: Path) -> None:
    """A waiter slept through its event, or the publisher was not told whom it reached."""
    async with running(tmp_path) as sidecar:
        poll = asyncio.create_task(wait(sidecar, "a", since="latest", timeout_s=60.0))
        other = asyncio.create_task(wait(sidecar, "b", since="latest", timeout_s=60.0))
        await waiting(sidecar, 2)
        published = await sidecar.bus.publish(PROJECT, draft("a"))
        assert published.subscribers == ("r1",)
        page = await poll
        assert page.events == [published.event]
        assert not other.done()
        other.cancel()


async def test_nothing_within_the_time_says_so_and_keeps_the_place(tmp_path: Path) -> None:
    """After a timeout the reader started again from the beginning, or skipped what came meanwhile."""
    async with running(tmp_path) as sidecar:
        await sidecar.publish("other")
        page = await wait(sidecar, "note", timeout_s=0.01)
        assert (page.events, page.timeout, page.next_cursor) == ([], True, "1")
        await sidecar.publish("note")
        assert [event.seq for event in (await wait(sidecar, "note", since=page.next_cursor)).events] == [2]


async def test_119_waiters_share_one_encoding(tmp_path: Path) -> None:
    """Each waiter's answer encoded the same event again."""
    async with running(tmp_path) as sidecar:
        polls = [asyncio.create_task(wait(sidecar, "note", since="latest", timeout_s=60.0)) for _ in range(119)]
        await waiting(sidecar, 119)
        await sidecar.publish()
        pages = await asyncio.gather(*polls)
        bodies = {id(sidecar.bus.encoded(page.events[0])) for page in pages}
        assert len(bodies) == 1


async def test_a_cursor_that_fell_off_is_told(tmp_path: Path) -> None:
    """A reader whose events were trimmed went on as if nothing had happened."""
    async with running(tmp_path, settings=EventSettings(keep=5)) as sidecar:
        for _ in range(10):
            await sidecar.publish()
        page = await wait(sidecar, since="2", timeout_s=300.0)
        assert page.gap
        assert page.oldest_cursor == "5"
        assert [event.seq for event in page.events] == [6, 7, 8, 9, 10]
        assert not (await wait(sidecar, since="5")).gap
        assert not (await wait(sidecar)).gap
        empty = await wait(sidecar, "absent", since="0", timeout_s=300.0)
        assert (empty.gap, empty.events, empty.timeout) == (True, [], False)


async def test_a_cursor_of_another_log_is_told(tmp_path: Path) -> None:
    """After restoring a backup, readers waited for sequence numbers that had been given before."""
    async with running(tmp_path) as sidecar:
        await sidecar.publish()
        page = await wait(sidecar, since="999", timeout_s=300.0)
        assert (page.gap, page.next_cursor, page.oldest_cursor) == (True, "1", "0")


async def test_filtered_out_events_are_not_examined_again(tmp_path: Path) -> None:
    """``next_cursor`` stayed at the last match, so each poll filtered the same events anew."""
    async with running(tmp_path) as sidecar:
        await sidecar.publish(data={"k": 1})
        for _ in range(4):
            await sidecar.publish(data={"k": 2})
        page = await wait(sidecar, filter="k:1")
        assert ([event.seq for event in page.events], page.next_cursor) == ([1], "5")


async def test_expired_events_are_never_given(tmp_path: Path) -> None:
    """An event past its time to live was delivered because the sweep had not come yet."""
    clock = ManualClock()
    async with running(tmp_path, clock=clock) as sidecar:
        await sidecar.publish(ttl_seconds=10)
        await sidecar.publish(ttl_seconds=1000)
        clock.seconds += 11
        assert [event.seq for event in (await wait(sidecar)).events] == [2]
        assert await sidecar.bus.sweep() == 1
        assert [event.seq for event in (await wait(sidecar)).events] == [2]


async def test_several_types_and_topics(tmp_path: Path) -> None:
    """A list of types missed one, or came out of order."""
    async with running(tmp_path) as sidecar:
        for event_type in ("a", "b", "c", "a"):
            await sidecar.publish(event_type)
        await sidecar.publish("a", topic="security")
        assert [event.seq for event in (await wait(sidecar, "a", "b")).events] == [1, 2, 4, 5]
        assert [event.seq for event in (await wait(sidecar)).events] == [1, 2, 3, 4, 5]
        assert [event.seq for event in (await wait(sidecar, topic="security")).events] == [5]


async def test_other_projects_are_invisible(tmp_path: Path) -> None:
    """A reader of one project got, or was woken by, another project's event."""
    async with running(tmp_path) as sidecar:
        await sidecar.publish()
        assert (await wait(sidecar, project="p2")).events == []
        poll = asyncio.create_task(wait(sidecar, project="p2", timeout_s=60.0))
        await waiting(sidecar)
        assert (await sidecar.bus.publish(PROJECT, draft())).subscribers == ()
        assert not poll.done()
        poll.cancel()


async def test_a_client_that_goes_away_frees_its_place(tmp_path: Path) -> None:
    """Waiters of closed connections stayed for ever and were counted as reached."""
    async with running(tmp_path) as sidecar:
        poll = asyncio.create_task(wait(sidecar, timeout_s=300.0))
        await waiting(sidecar)
        poll.cancel()
        await asyncio.gather(poll, return_exceptions=True)
        assert sidecar.bus.stats().active_subscriptions == 0
        assert (await sidecar.bus.publish(PROJECT, draft())).subscribers == ()


async def test_a_publisher_that_goes_away_still_wakes_readers(tmp_path: Path) -> None:
    """An event whose publisher was cancelled was durable but reached its waiter only with the next one."""
    async with running(tmp_path) as sidecar:
        await sidecar.publish()
        poll = asyncio.create_task(wait(sidecar, since="latest", timeout_s=60.0))
        await waiting(sidecar)
        publishing = asyncio.create_task(sidecar.bus.publish(PROJECT, draft(data={"n": 2})))
        while sidecar.bus.stats().queue_depth == 0:
            await asyncio.sleep(0)
        publishing.cancel()
        assert [event.data for event in (await poll).events] == [{"n": 2}]


async def test_stop_wakes_every_waiter(tmp_path: Path) -> None:
    """Open long polls held the shutdown for minutes."""
    async with running(tmp_path) as sidecar:
        polls = [asyncio.create_task(wait(sidecar, timeout_s=300.0)) for _ in range(5)]
        await waiting(sidecar, 5)
        await sidecar.bus.stop()
        assert all(page.timeout for page in await asyncio.gather(*polls))
        with pytest.raises(BusUnavailable):
            await wait(sidecar)
        with pytest.raises(BusUnavailable):
            await sidecar.publish()


@pytest.mark.parametrize(
    "fields",
    [
        {"limit": 0},
        {"limit": 1001},
        {"timeout_s": -1.0},
        {"timeout_s": 300.5},
        {"since": "abc"},
        {"since": "-1"},
        {"since": "٣"},
        {"since": ""},
        {"consumer": "../x"},
        {"ack": "1"},
        {"consumer": "c", "ack": "x"},
        {"topic": "a b"},
        {"types": ("a/b",)},
    ],
)
async def test_parameters_out_of_range_are_refused(tmp_path: Path, fields: dict[str, object]) -> None:
    """A parameter out of range was clamped silently."""
    async with running(tmp_path) as sidecar:
        with pytest.raises(BadRequest) as caught:
            await sidecar.bus.wait(PROJECT, msgspec.convert(fields, EventQuery), subscriber="r1")
        assert caught.value.details["field"]
        with pytest.raises(BadFilter):
            await wait(sidecar, filter="nonsense")


@pytest.mark.parametrize(
    "fields",
    [
        {"ttl_seconds": 0},
        {"ttl_seconds": 86401},
        {"priority": "urgent"},
        {"round": -1},
        {"event_id": ""},
        {"event_id": "a\nb"},
        {"correlation_id": "\ud800"},
        {"references": ("x" * 300,)},
        {"data": {"x": "y" * 2000}},
        {"data": {"n": 10**5000}},
        {"publisher": ""},
    ],
)
async def test_bad_events_are_refused(tmp_path: Path, fields: dict[str, object]) -> None:
    """A field that cannot be kept was accepted and lost."""
    async with running(tmp_path, settings=EventSettings(max_data_bytes=1000)) as sidecar:
        with pytest.raises(BadEvent):
            await sidecar.publish(**fields)
        assert (await wait(sidecar)).events == []


async def test_lone_surrogates_and_deep_data(tmp_path: Path) -> None:
    """A lone surrogate broke the database; deep nesting broke every later read."""
    async with running(tmp_path) as sidecar:
        event = await sidecar.publish(data={"text\udc00": "a\ud800b", "nan": float("nan")})
        assert event.data["text\ufffd"] == "a\ufffdb"
        assert b"null" in sidecar.bus.encoded(event)
        deep: dict[str, object] = {}
        for _ in range(5000):
            deep = {"a": deep}
        with pytest.raises(BadEvent):
            await sidecar.publish(data=deep)
        await sidecar.restart()
        assert [item.seq for item in (await wait(sidecar)).events] == [1]


async def test_a_restart_changes_nothing_for_readers(tmp_path: Path) -> None:
    """The tail was rebuilt with other events than it had before."""
    async with running(tmp_path, settings=EventSettings(keep=20)) as sidecar:
        for n in range(50):
            await sidecar.publish("a" if n % 2 else "b", data={"n": n})
        before = await wait(sidecar, "a", limit=1000)
        await sidecar.restart()
        after = await wait(sidecar, "a", limit=1000)
        assert after == before
        assert (await sidecar.publish()).seq == 51


async def test_replay_and_encoding(tmp_path: Path) -> None:
    """The JSON of an event lacked a field of the contract."""
    async with running(tmp_path) as sidecar:
        event = await sidecar.publish(data={"k": 1}, correlation_id="c", references=("r",), round=2, priority="low")
        page = await sidecar.bus.replay(PROJECT, EventQuery())
        assert page.events == [event]
        assert not page.timeout
        decoded = msgspec.json.decode(sidecar.bus.encoded(event))
        assert decoded == {
            "event_id": event.event_id,
            "event_type": "note",
            "publisher": "ag_1",
            "topic": "testing",
            "data": {"k": 1},
            "timestamp": "1970-01-12T13:46:40.000Z",
            "correlation_id": "c",
            "cursor": "1",
            "ttl_seconds": 86400,
            "priority": "low",
            "references": ["r"],
            "round": 2,
        }


async def test_a_stream_gives_each_event_once_and_heartbeats(tmp_path: Path) -> None:
    """A stream skipped what was published between opening it and reading it, or repeated events."""
    async with running(tmp_path, settings=EventSettings(heartbeat_s=0.01)) as sidecar:
        await sidecar.publish()
        stream = sidecar.bus.stream(PROJECT, EventQuery(), subscriber="s1")
        await stream.ready()
        published = await sidecar.bus.publish(PROJECT, draft())
        assert published.subscribers == ("s1",)
        first = await anext(stream)
        assert isinstance(first, Event)
        assert first.seq == 2
        assert await anext(stream) is None
        await stream.aclose()
        assert sidecar.bus.stats().active_subscriptions == 0
        resumed = sidecar.bus.stream(PROJECT, EventQuery(since="1"), subscriber="s1")
        assert await anext(resumed) == first
        await sidecar.bus.stop()
        assert [item async for item in resumed] == []


async def test_a_slow_stream_is_told_of_its_gap(tmp_path: Path) -> None:
    """A reader that stopped reading made memory grow, or lost events unseen."""
    async with running(tmp_path, settings=EventSettings(keep=100)) as sidecar:
        stream = sidecar.bus.stream(PROJECT, EventQuery(since="earliest"), subscriber="slow")
        await stream.ready()
        await asyncio.gather(*[sidecar.bus.publish(PROJECT, draft()) for _ in range(400)])
        items = [await anext(stream) for _ in range(101)]
        assert items[0] == Gap("300")
        assert [item.seq for item in items[1:] if isinstance(item, Event)] == list(range(301, 401))
        await stream.aclose()


async def test_a_stream_from_a_foreign_cursor_is_told(tmp_path: Path) -> None:
    """A stream resumed after a backup was restored began at the newest event, as if nothing were missing."""
    async with running(tmp_path) as sidecar:
        for _ in range(3):
            await sidecar.publish()
        stream = sidecar.bus.stream(PROJECT, EventQuery(since="99"), subscriber="s")
        items = [await anext(stream) for _ in range(4)]
        assert items[0] == Gap("0")
        assert [item.seq for item in items[1:] if isinstance(item, Event)] == [1, 2, 3]
        await stream.aclose()


async def test_a_stream_takes_a_burst_together_and_tells_a_gap_after_its_pause(tmp_path: Path) -> None:
    """A stream took a turn of the loop for each of thousands of events, or skipped what went meanwhile."""
    async with running(tmp_path, settings=EventSettings(keep=100)) as sidecar:
        stream = sidecar.bus.stream(PROJECT, EventQuery(since="latest"), subscriber="s")
        await stream.ready()
        await sidecar.publish()
        first = await anext(stream)
        assert isinstance(first, Event)
        assert (first.seq, stream.ahead()) == (1, None)
        await asyncio.gather(*[sidecar.bus.publish(PROJECT, draft()) for _ in range(10)])
        burst = await anext(stream)
        assert isinstance(burst, Event)
        ahead = list(iter(stream.ahead, None))
        assert [burst.seq, *[event.seq for event in ahead]] == list(range(2, 12))
        await asyncio.gather(*[sidecar.bus.publish(PROJECT, draft()) for _ in range(400)])
        assert await anext(stream) == Gap("311")
        await stream.aclose()


class Data(dict[str, int]):
    """Data whose life can be watched."""


def test_the_json_of_events_is_bounded_with_what_it_holds() -> None:
    """A hundred thousand small events stayed in memory for their few bytes of JSON."""
    encoded = EncodedEvents(max_bytes=100 * ENTRY_BYTES)
    watched = []
    for n in range(300):
        data = Data(n=n)
        watched.append(weakref.ref(data))
        encoded.get(make_event(data, seq=n + 1))
    del data
    assert 50 < sum(reference() is not None for reference in watched) <= 100


async def test_feeds_name_their_readers(tmp_path: Path) -> None:
    """Agents that are told of events on stdin were not counted among the subscribers."""
    async with running(tmp_path) as sidecar:
        feed = sidecar.bus.subscribe(PROJECT, names=lambda event: ["ag_7", "ag_8"])
        quiet = sidecar.bus.subscribe(PROJECT)
        assert (await sidecar.bus.publish(PROJECT, draft())).subscribers == ("ag_7", "ag_8")
        async with asyncio.timeout(10):
            assert await feed.changed()
            changing = asyncio.create_task(feed.changed())
            await asyncio.sleep(0)
            feed.close()
            assert not await changing
        quiet.close()
        assert sidecar.bus.stats().active_subscriptions == 0


class _Rules:
    """One set of topic rules for every project."""

    def __init__(self, rules: TopicRules) -> None:
        self._rules = rules

    async def prepare(self, project_id: str) -> None:
        return None

    def topics(self, project_id: str) -> TopicRules:
        return self._rules


async def test_topic_rules_close_topics(tmp_path: Path) -> None:
    """An agent read or wrote a topic that its project keeps for others."""
    document = {"strict": True, "security": {"publish": ["security-*"], "read": ["chief-architect"]}}
    rules = _Rules(parse_topic_rules(document, "test"))
    async with running(tmp_path, rules=rules) as sidecar:
        secret = draft(topic="security")
        await sidecar.bus.publish(PROJECT, secret, role="security-auditor")
        for topic, role in (("security", "go-specialist"), ("unheard-of", "chief-architect")):
            with pytest.raises(NotPermitted):
                await sidecar.bus.publish(PROJECT, draft(topic=topic), role=role)
        await sidecar.bus.publish(PROJECT, draft(topic="testing"), role="go-specialist")
        assert len((await wait(sidecar)).events) == 2
        assert len((await wait(sidecar, role="chief-architect")).events) == 2
        assert len((await wait(sidecar, role="go-specialist")).events) == 1


def test_an_envelope_field_of_an_event_that_was_never_published() -> None:
    """The helper made events that the model refuses."""
    assert make_event().cursor == "1"


async def test_a_repeated_id_tells_nothing_of_a_closed_topic(tmp_path: Path) -> None:
    """Who repeated the ``event_id`` of an event that it may not read was told that event's topic and cursor."""
    rules = _Rules(parse_topic_rules({"security": {"read": ["chief-architect"]}}, "test"))
    async with running(tmp_path, rules=rules) as sidecar:
        secret = draft("leak-found", topic="security", event_id="one")
        first = await sidecar.bus.publish(PROJECT, secret, role="security-auditor")
        guess = draft(topic="testing", event_id="one", publisher="ag_2")
        with pytest.raises(BadEvent) as refused:
            await sidecar.bus.publish(PROJECT, guess, role="go-specialist")
        assert "security" not in refused.value.message
        assert "leak-found" not in refused.value.message
        assert refused.value.details == {"field": "event_id"}
        # The publisher's own retry, and those who may read the topic, get the first answer.
        for again, role in ((secret, "security-auditor"), (guess, "chief-architect"), (guess, None)):
            known = await sidecar.bus.publish(PROJECT, again, role=role)
            assert (known.event.cursor, known.is_duplicate) == (first.event.cursor, True)

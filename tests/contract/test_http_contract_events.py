"""Contract section 3, endpoints 3 and 4, and the events of section 4."""

from __future__ import annotations

import threading
import time
import uuid
from typing import Any

import httpx
import jwt
import pytest

from tests.support.http import Api
from tests.support.server import Server


def publish(api: Api, event_type: str, data: Any = None, **fields: Any) -> Any:
    """Publish; the body of the 202."""
    body = {"topic": "testing", "data": {} if data is None else data, **fields}
    return api.post(f"/api/events/{event_type}", body).expect(202).json


def wait(api: Api, event_type: str, **parameters: Any) -> Any:
    """A long poll that does not wait unless told."""
    return api.get(f"/api/events/wait/{event_type}", **{"timeout": 0, **parameters}).expect(200).json


def numbers(page: Any) -> list[int]:
    """The ``n`` of the data of a page's events."""
    return [event["data"]["n"] for event in page["events"]]


@pytest.fixture
def kind() -> str:
    """An event type that no other test uses."""
    return f"kind-{uuid.uuid4().hex[:12]}"


# -- publishing -------------------------------------------------------------------------------


@pytest.mark.smoke
def test_an_event_is_published_and_read_back(sidecar: Server, kind: str) -> None:
    """All that was given comes back, and the envelope is the sidecar's."""
    api = sidecar.api("python-specialist")
    data = {"deep": {"list": [1, None, "ä\u2028"]}, "unknown": True}
    answer = publish(api, kind, data, correlation_id="c-1", ttl_seconds=600, priority="high", references=["r"], round=2)
    assert {"event_id", "published", "subscribers_notified", "subscriber_count", "cursor", "timestamp"} <= set(answer)
    assert answer["published"] is True
    assert answer["topic"] == "testing"
    assert answer["ttl_seconds"] == 600
    assert answer["subscriber_count"] == len(answer["subscribers_notified"])
    (event,) = wait(api, kind)["events"]
    assert event["event_id"] == answer["event_id"]
    assert event["cursor"] == answer["cursor"]
    assert event["data"] == data
    assert event["correlation_id"] == "c-1"
    assert event["publisher"] == jwt.decode(str(api.token), options={"verify_signature": False})["sub"]
    assert (event["event_type"], event["topic"]) == (kind, "testing")


def test_the_type_in_the_body_must_be_the_paths(sidecar: Server, kind: str) -> None:
    """Two types for one event would make filters lie."""
    api = sidecar.api("python-specialist")
    api.post(f"/api/events/{kind}", {"topic": "testing", "data": {}, "event_type": kind}).expect(202)
    api.post(f"/api/events/{kind}", {"topic": "testing", "data": {}, "event_type": "another"}).refused(400, "EVT_002")


@pytest.mark.parametrize("wrong", [{"ttl_seconds": 86401}, {"ttl_seconds": 0}, {"priority": "soon"}, {"topic": ""}])
def test_a_bad_event_is_refused(sidecar: Server, kind: str, wrong: dict[str, Any]) -> None:
    """Each of them would be stored for ever and break readers later."""
    error = sidecar.api().post(f"/api/events/{kind}", {"topic": "testing", "data": {}, **wrong}).refused(400)
    assert error["code"] in ("EVT_002", "REQ_001")


@pytest.mark.critical
def test_a_repeated_event_id_is_published_once(sidecar: Server, kind: str) -> None:
    """A publisher that retries must not make two events; another project's ids are its own."""
    api = sidecar.api("python-specialist")
    event_id = uuid.uuid4().hex
    first = publish(api, kind, {"n": 1}, event_id=event_id)
    again = publish(api, kind, {"n": 2}, event_id=event_id)
    assert again["event_id"] == first["event_id"] == event_id
    assert again["cursor"] == first["cursor"]
    assert numbers(wait(api, kind)) == [1]
    other = sidecar.api("python-specialist", project_id="other")
    publish(other, kind, {"n": 3}, event_id=event_id)
    assert numbers(wait(other, kind)) == [3]


def test_an_event_expires(sidecar: Server, kind: str) -> None:
    """A ttl that nothing looks at keeps stale orders alive."""
    api = sidecar.api("python-specialist")
    publish(api, kind, {"n": 1}, ttl_seconds=1)
    deadline = time.monotonic() + 10
    while wait(api, kind)["events"]:
        assert time.monotonic() < deadline, "still there 10 s later"
    publish(api, kind, {"n": 2})
    assert numbers(wait(api, kind)) == [2]


# -- waiting ----------------------------------------------------------------------------------


def test_without_since_the_retained_are_answered_at_once_in_order(sidecar: Server, kind: str) -> None:
    """A subscriber that comes late must not wait for what already happened."""
    api = sidecar.api("python-specialist")
    for number in range(5):
        publish(api, kind, {"n": number})
    began = time.monotonic()
    page = wait(api, kind, timeout=20_000, limit=3)
    assert time.monotonic() - began < 10
    assert numbers(page) == [0, 1, 2]
    assert page["more_available"] is True
    rest = wait(api, kind, since=page["next_cursor"])
    assert numbers(rest) == [3, 4]
    assert rest["more_available"] is False


@pytest.mark.critical
def test_a_waiter_is_woken_by_the_event(sidecar: Server, kind: str) -> None:
    """A wait that only polls at its end would make every hand-over take 30 s."""
    api, answers = sidecar.api("go-specialist"), []

    def listen() -> None:
        began = time.monotonic()
        answers.append((wait(api, kind, timeout=30_000), time.monotonic() - began))

    thread = threading.Thread(target=listen)
    thread.start()
    # The long poll is known to be waiting when the sidecar counts it.
    status = sidecar.anonymous()
    deadline = time.monotonic() + 10
    while status.get("/status").json["events"]["active_subscriptions"] < 1:
        assert time.monotonic() < deadline, "the waiter is not counted"
    publisher = sidecar.api("python-specialist")
    answer = publish(publisher, kind, {"n": 1})
    thread.join(30)
    (page, took_s) = answers[0]
    assert numbers(page) == [1]
    assert took_s < 15
    assert "timeout" not in page or page["timeout"] is False
    assert answer["subscriber_count"] >= 1


def test_a_wait_in_vain_says_so(sidecar: Server, kind: str) -> None:
    """``timeout: true`` with a cursor to go on from, after the time and not before."""
    began = time.monotonic()
    page = wait(sidecar.api("python-specialist"), kind, timeout=300)
    assert 0.25 <= time.monotonic() - began < 10
    assert page["events"] == []
    assert page["timeout"] is True
    assert page["next_cursor"]
    assert page["timestamp"]


def test_nothing_is_missed_between_two_polls(sidecar: Server, kind: str) -> None:
    """What is published while nobody waits must be in the next answer."""
    api = sidecar.api("python-specialist")
    cursor = wait(api, kind)["next_cursor"]
    publish(api, kind, {"n": 1})
    page = wait(api, kind, since=cursor)
    assert numbers(page) == [1]
    assert wait(api, kind, since=page["next_cursor"])["events"] == []


def test_since_takes_words(sidecar: Server, kind: str) -> None:
    """``earliest`` and ``latest`` spare the first poll of a new reader."""
    api = sidecar.api("python-specialist")
    publish(api, kind, {"n": 1})
    assert numbers(wait(api, kind, since="earliest")) == [1]
    assert wait(api, kind, since="latest")["events"] == []


def test_several_types_and_all(sidecar: Server, kind: str) -> None:
    """One poll for all that an agent cares about, in the order of publishing."""
    api = sidecar.api("python-specialist")
    start = wait(api, kind)["next_cursor"]
    for number, suffix in enumerate(("a", "b", "c")):
        publish(api, f"{kind}-{suffix}", {"n": number})
    assert numbers(wait(api, f"{kind}-c,{kind}-a")) == [0, 2]
    assert numbers(wait(api, "*", since=start, filter=f"event_type:{kind}*")) == [0, 1, 2]


# -- durable consumers ------------------------------------------------------------------------


@pytest.mark.critical
def test_a_consumer_goes_on_where_it_was(sidecar: Server, kind: str) -> None:
    """Without ``ack`` the last answer counts as received; nothing twice, nothing skipped."""
    api = sidecar.api("python-specialist")
    for number in range(4):
        publish(api, kind, {"n": number})
    assert numbers(wait(api, kind, consumer="me", limit=3)) == [0, 1, 2]
    assert numbers(wait(api, kind, consumer="me")) == [3]
    assert wait(api, kind, consumer="me")["events"] == []
    assert numbers(wait(api, kind, consumer="another")) == [0, 1, 2, 3]
    # ``since`` is only where a new consumer starts.
    assert wait(api, kind, consumer="me", since="earliest")["events"] == []
    publish(api, kind, {"n": 4})
    assert numbers(wait(sidecar.api("go-specialist"), kind, consumer="me")) == [4]


def test_a_consumer_is_forgotten_by_its_maker_or_an_operator(sidecar: Server, kind: str) -> None:
    """A durable name could not be given up again, so that a project's 1,000 were used up for life."""
    api, name = sidecar.api("python-specialist"), f"mine-{kind}"
    publish(api, kind, {"n": 0})
    assert numbers(wait(api, kind, consumer=name)) == [0]
    path = f"/api/events/consumers/{name}"
    sidecar.api("go-specialist").delete(path).refused(403, "AUTH_003")
    sidecar.api().delete(path, event_type="other").refused(404, "REQ_003")
    sidecar.api().delete("/api/events/consumers/~router").refused(400, "REQ_001")
    assert api.delete(path).expect(200).json["count"] == 1
    api.delete(path).refused(404, "REQ_003")
    assert numbers(wait(api, kind, consumer=name)) == [0]
    assert sidecar.api().delete(path, event_type=kind).expect(200).json["consumer"] == name


@pytest.mark.critical
def test_with_ack_nothing_is_skipped(sidecar: Server, kind: str) -> None:
    """A consumer that dies between the answer and its work gets the answer again."""
    api = sidecar.api("python-specialist")
    for number in range(4):
        publish(api, kind, {"n": number})
    first = wait(api, kind, consumer="me", limit=2, ack="none")
    assert numbers(first) == [0, 1]
    assert numbers(wait(api, kind, consumer="me", limit=2, ack="none")) == [0, 1]
    middle = first["events"][0]["cursor"]
    assert numbers(wait(api, kind, consumer="me", limit=2, ack=middle)) == [1, 2]
    assert numbers(wait(api, kind, consumer="me", limit=5, ack="none")) == [1, 2, 3] or numbers(
        wait(api, kind, consumer="me", limit=2, ack="none")
    ) == [1, 2]


# -- filters ----------------------------------------------------------------------------------

#: Filter -> which of the events 0 to 3 it lets through.
FILTERS = {
    "n:1": [1],
    "n:1|3": [1, 3],
    "!n:1": [0, 2, 3],
    "n:>1": [2, 3],
    "n:>=1,n:<3": [1, 2],
    "n:<=0": [0],
    "name:al*": [0, 2],
    "!name:al*": [1, 3],
    "deep.level:high": [3],
    "topic:testing": [0, 1, 2, 3],
    "topic:security": [],
    "priority:high": [2],
    "absent:x": [],
    "name:alpha,n:0": [0],
    "correlation_id:c3": [3],
    "flag:true": [1],
}


@pytest.mark.parametrize(("text", "expected"), FILTERS.items(), ids=FILTERS.keys())
def test_filters_let_through_what_they_say(sidecar: Server, kind: str, text: str, expected: list[int]) -> None:
    """Every operator of the language, on envelope and data, against the same four events."""
    api = sidecar.api("python-specialist")
    publish(api, kind, {"n": 0, "name": "alpha"})
    publish(api, kind, {"n": 1, "name": "beta", "flag": True})
    publish(api, kind, {"n": 2, "name": "alto"}, priority="high")
    publish(api, kind, {"n": 3, "name": "gamma", "deep": {"level": "high"}}, correlation_id="c3")
    assert numbers(wait(api, kind, filter=text)) == expected
    assert numbers(api.get("/api/events", type=kind, filter=text).expect(200).json) == expected


@pytest.mark.parametrize("text", ["n", ":x", "n:", "n:>abc", ",", "n:1,,n:2", "!", "n:1|"])
def test_a_bad_filter_is_told_where(sidecar: Server, kind: str, text: str) -> None:
    """A filter that is misread silently delivers the wrong events."""
    sidecar.api().get(f"/api/events/wait/{kind}", timeout=0, filter=text).refused(400, "EVT_003")


# -- replay, stream, projects -----------------------------------------------------------------


def test_replay_has_the_shape_of_a_wait(sidecar: Server, kind: str) -> None:
    """One parser reads both."""
    api = sidecar.api("python-specialist")
    for number, topic in enumerate(("testing", "security", "testing")):
        publish(api, kind, {"n": number}, topic=topic)
    page = api.get("/api/events", type=kind, topic="testing", limit=1).expect(200).json
    assert {"events", "more_available", "next_cursor", "timestamp"} <= set(page)
    assert numbers(page) == [0]
    assert page["more_available"] is True
    assert numbers(api.get("/api/events", type=kind, topic="testing", since=page["next_cursor"]).json) == [2]


@pytest.mark.critical
def test_a_stream_delivers_and_resumes(sidecar: Server, kind: str) -> None:
    """``Last-Event-ID`` is what a browser sends after a broken connection: nothing may be missed."""
    api = sidecar.api("python-specialist")
    publish(api, kind, {"n": 0})
    publish(api, kind, {"n": 1})
    headers = {"Authorization": f"Bearer {api.token}"}
    address = f"{sidecar.url}/api/events/stream?type={kind}&since=earliest"

    def first(count: int, **extra: str) -> list[dict[str, str]]:
        found: list[dict[str, str]] = []
        record: dict[str, str] = {}
        with httpx.stream("GET", address, headers=headers | extra, timeout=20, trust_env=False) as response:
            assert response.status_code == 200
            assert response.headers["Content-Type"].startswith("text/event-stream")
            for line in response.iter_lines():
                name, _, value = line.partition(":")
                if line and name:
                    record[name] = value.strip()
                elif not line:
                    if "data" in record:
                        found.append(record)
                    record = {}
                if len(found) == count:
                    return found
        raise AssertionError(f"the stream ended after {found}")

    both = first(2)
    assert ['"n":0' in "".join(item["data"].split()) for item in both] == [True, False]
    (resumed,) = first(1, **{"Last-Event-ID": both[0]["id"]})
    assert resumed["id"] == both[1]["id"]


def test_a_gap_is_told_in_every_format(sidecar: Server, kind: str) -> None:
    """Who reads CloudEvents, or a stream, went on behind a hole without knowing of it."""
    api = sidecar.api("python-specialist")
    publish(api, kind, {"n": 0})
    # A cursor that this log never gave, as after a backup was restored.
    beyond = str(10**15)
    page = api.get("/api/events", type=kind, since=beyond).json
    assert page["gap"] is True
    batch = api.get("/api/events", type=kind, since=beyond, headers={"Accept": "application/cloudevents-batch+json"})
    assert batch.json == []
    assert batch.headers["X-Gap"] == "true"
    assert batch.headers["X-Oldest-Cursor"] == page["oldest_cursor"]
    assert "X-Gap" not in api.get("/api/events", headers={"Accept": "application/cloudevents-batch+json"}).headers
    headers = {"Authorization": f"Bearer {api.token}", "Last-Event-ID": beyond}
    address = f"{sidecar.url}/api/events/stream?type={kind}"
    with httpx.stream("GET", address, headers=headers, timeout=20, trust_env=False) as response:
        told = [line for line, _ in zip(filter(None, response.iter_lines()), range(7), strict=False)]
    assert told[1:3] == [f"id: {page['oldest_cursor']}", "event: gap"]
    assert told[5] == f"event: {kind}"


def test_dead_letters_are_listed(sidecar: Server) -> None:
    """An operator must see what was given up."""
    letters = sidecar.api().get("/api/events/dead-letters").expect(200).json
    assert isinstance(next(value for value in letters.values() if isinstance(value, list)), list)
    sidecar.api().post("/api/events/dead-letters/no-such-letter/redrive").refused(404)


@pytest.mark.critical
def test_events_stay_in_their_project(sidecar: Server, kind: str) -> None:
    """Two projects on one sidecar may use the same names."""
    own, other = sidecar.api("python-specialist"), sidecar.api("python-specialist", project_id="other")
    publish(own, kind, {"n": 1})
    assert wait(other, kind)["events"] == []
    assert wait(other, "*", filter=f"event_type:{kind}")["events"] == []
    publish(other, kind, {"n": 2})
    assert numbers(wait(own, kind)) == [1]

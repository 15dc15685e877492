"""``kill -9`` of the sidecar under load: what was acknowledged is there, and no agent process is left."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.support.agents import ended, output, say_result, spawn
from tests.support.http import Api
from tests.support.processes import assert_no_survivors
from tests.support.server import Server
from tests.support.waiting import until


@dataclass
class Load:
    """Writers that count only what was acknowledged, until the sidecar is gone."""

    url: str
    token: str
    issue: str
    results: dict[str, int] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)

    def start(self, count: int) -> list[threading.Thread]:
        """``count`` threads of each kind."""
        targets = [self._store, self._publish] * count
        threads = [threading.Thread(target=target, args=(number,)) for number, target in enumerate(targets)]
        for thread in threads:
            thread.start()
        return threads

    def _store(self, writer: int) -> None:
        def once(api: Api, number: int) -> None:
            result = {"status": "success", "metrics": {"n": number}}
            body = {"agent_type": "python-specialist", "issue_id": self.issue, "result": result}
            self.results[api.post("/api/results", body).expect(201).json["id"]] = number

        self._repeat(writer, once)

    def _publish(self, writer: int) -> None:
        def once(api: Api, number: int) -> None:
            body = {"topic": "testing", "data": {"n": number}}
            self.events[api.post("/api/events/loaded", body).expect(202).json["event_id"]] = number

        self._repeat(writer, once)

    def _repeat(self, writer: int, once: Any) -> None:
        number = writer * 1_000_000
        with Api(self.url, self.token, timeout_s=20) as api:
            while True:
                number += 1
                try:
                    once(api, number)
                except httpx.HTTPError:
                    return


def all_pages(api: Api, path: str, key: str, cursor_name: str, **parameters: Any) -> list[Any]:
    """All rows of a paged list."""
    rows: list[Any] = []
    cursor: str | None = None
    while True:
        asked: dict[str, Any] = parameters | ({cursor_name: cursor} if cursor else {})
        page = api.get(path, **asked).expect(200).json
        rows += page[key]
        if not page[key] or page["next_cursor"] in (None, cursor):
            return rows
        cursor = page["next_cursor"]


@pytest.mark.critical
@pytest.mark.chaos
def test_kill_9_under_load_loses_nothing_acknowledged(
    server: Server, issue: str, chaos_seed: int, chaos_rounds: int
) -> None:
    """An answer that was given before the data was durable is a lie that a crash uncovers."""
    moments = random.Random(chaos_seed)
    results: dict[str, int] = {}
    events: dict[str, int] = {}
    agents: list[str] = []
    for _ in range(chaos_rounds):
        api = server.api()
        agents += [spawn(api, issue, "sleep 300 & sleep 300")["agent_id"] for _ in range(5)]
        load = Load(server.url, str(api.token), issue)
        threads = load.start(2)
        until(lambda load=load: len(load.results) > 20 and len(load.events) > 20, what="the load runs")  # type: ignore[misc]
        time.sleep(moments.uniform(0, 0.3))
        server.kill9()
        for thread in threads:
            thread.join(30)
        results |= load.results
        events |= load.events
        # The contract gives agents five seconds to go when their sidecar dies.
        assert_no_survivors(str(server.storage), timeout_s=5)
        server.restart()
        check_everything(server.api(), issue, results, events)
    for agent_id in agents:
        assert ended(server.api(), agent_id)["status"] in ("failed", "killed")


def check_everything(api: Api, issue: str, results: dict[str, int], events: dict[str, int]) -> None:
    """Each acknowledged result and event is there, once, as it was sent."""
    rows = all_pages(api, "/api/results", "results", "cursor", issue_id=issue, limit=1000)
    found = {row["id"]: row["result"].get("metrics", {}).get("n") for row in rows}
    assert len(found) == len(rows)
    assert {key: found.get(key) for key in results} == results
    log = all_pages(api, "/api/events", "events", "since", type="loaded", limit=1000)
    published = {event["event_id"]: event["data"]["n"] for event in log}
    assert len(published) == len(log)
    assert {key: published.get(key) for key in events} == events
    completed = all_pages(api, "/api/events", "events", "since", type="agent_completed,agent_failed", limit=1000)
    announced = {event["data"].get("result_id") for event in completed}
    assert set(results) <= announced


def test_what_was_running_at_the_crash_is_accounted_for(server: Server, issue: str) -> None:
    """After a restart every agent has an end, one end event, and a token that is dead."""
    api = server.api()
    running = [spawn(api, issue, "sleep 300") for _ in range(3)]
    done = ended(api, spawn(api, issue, say_result())["agent_id"])
    server.kill9()
    assert_no_survivors(str(server.storage), timeout_s=5)
    server.restart()
    api = server.api()
    for answer in running:
        record = ended(api, answer["agent_id"])
        assert record["status"] in ("failed", "killed")
        ends = api.get(
            "/api/events", type="agent_completed,agent_failed,agent_killed", filter=f"agent_id:{answer['agent_id']}"
        ).json["events"]
        assert len(ends) == 1
        server.api(token=answer["jwt_token"]).get("/api/results").refused(401, "AUTH_001")
    assert ended(api, done["agent_id"]) == done
    assert ended(api, spawn(api, issue, say_result())["agent_id"])["status"] == "completed"


def test_an_end_that_no_sidecar_saw_tells_what_was_said(server: Server, issue: str) -> None:
    """The result of an agent whose sidecar was killed was empty and its error silent, though its logs held it all."""
    api = server.api()
    lives = (
        'cd "$(dirname "$AGENT_CONTEXT_FILE")"; '
        "if ! test -e first; then touch first; echo said-1; echo meant-1 >&2; exit 4; fi; "
        "if ! test -e second; then touch second; echo meant-2 >&2; echo said-2; sleep 300; fi; "
        "cat task.md"
    )
    flood = "echo reason >&2; head -c 50000 /dev/zero | tr '\\0' x; echo flooded >&2; sleep 300"
    cut = spawn(api, issue, flood, runtime="text", limits={"output_bytes": 20_000})["agent_id"]
    thrice = spawn(api, issue, lives, runtime="text", restart="on-failure")["agent_id"]
    until(lambda: b"flooded" in output(api, cut, "stderr") and len(output(api, cut)) == 20_000, what="it is cut")
    until(lambda: b"said-2" in output(api, thrice), what="the second attempt has said it")
    until(lambda: b"meant-2" in output(api, thrice, "stderr"), what="and has said why")
    server.kill9()
    assert_no_survivors(str(server.storage), timeout_s=5)
    server.restart()
    api = server.api()
    record = ended(api, cut)
    result = api.get(f"/api/results/{record['result_id']}").expect(200).json["result"]
    assert result["output"] == "x" * 4096
    assert "reason" in result["errors"][0]
    assert record["error"] == result["errors"][0]
    assert record["evidence"]["truncated_at"] == {"stdout": 20_000}
    assert record["evidence"]["truncated_by"] == {"stdout": "cap"}
    (told_end,) = api.get("/api/events", type="agent_failed", filter=f"agent_id:{cut}").expect(200).json["events"]
    assert told_end["data"]["truncated_at"] == {"stdout": 20_000}, "the next attempt's record would not hold it"
    assert (record["usage"]["stdout_bytes"], record["usage"]["stderr_bytes"]) == (20_000, len("reason\nflooded\n"))
    assert ended(api, thrice)["status"] == "completed"
    rows = api.get("/api/results", issue_id=issue, limit=100).expect(200).json["results"]
    told = [str(row["result"]) for row in sorted(rows, key=lambda row: row["round"]) if row["agent_id"] == thrice]
    marks = ("said-1", "meant-1", "said-2", "meant-2")
    assert [[mark for mark in marks if mark in text] for text in told] == [
        ["said-1", "meant-1"],
        ["said-2", "meant-2"],
        ["meant-2"],
    ]


def test_tokens_and_revocations_outlive_a_crash(server: Server) -> None:
    """Keys are kept, and a token refreshed away stays dead."""
    kept = server.token("python-specialist")
    old = server.token("python-specialist", ttl_s=200)
    server.api(token=old).post("/api/tokens/refresh").expect(200, 201)
    server.kill9()
    server.restart()
    server.api(token=kept).get("/api/results").expect(200)
    server.api(token=old).get("/api/results").refused(401, "AUTH_001")


def test_consumers_and_idempotency_outlive_a_crash(server: Server, issue: str) -> None:
    """A consumer that starts over, or a retry that stores twice, after a restart only."""
    api = server.api("python-specialist")
    key = {"Idempotency-Key": "the-key"}
    body = {"issue_id": issue, "result": {"status": "success"}}
    first = api.post("/api/results", body, headers=key).expect(201).json
    for number in range(3):
        api.post("/api/events/counted", {"topic": "testing", "data": {"n": number}}).expect(202)
    page = api.get("/api/events/wait/counted", timeout=0, consumer="me", limit=2).expect(200).json
    api.get("/api/events/wait/counted", timeout=0, consumer="me", limit=2, ack=page["next_cursor"]).expect(200)
    server.kill9()
    server.restart()
    api = server.api("python-specialist")
    again = api.post("/api/results", body, headers=key).expect(200, 201).json
    assert again["id"] == first["id"]
    rest = api.get("/api/events/wait/counted", timeout=0, consumer="me", ack=page["next_cursor"]).expect(200).json
    assert [event["data"]["n"] for event in rest["events"]] == [2]

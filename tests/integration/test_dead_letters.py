"""Dead letters of a real sidecar, as those see them whom a project's topic rules keep from their topics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.http import Api
from tests.support.repo import sample_repository
from tests.support.server import Server
from tests.support.waiting import until

#: A webhook to this machine is denied at once, so its events become dead letters without any retry.
RULES = """
[topics.security]
read = ["security-auditor"]

[webhooks.nobody]
on = ["*"]
url = "http://127.0.0.1:9/hook"
secret = "a secret of sixteen"
"""
LETTERS = "/api/events/dead-letters"


@pytest.fixture
def ruled(tmp_path: Path) -> Iterator[Server]:
    """A sidecar whose project closes the topic ``security`` and whose webhook always fails."""
    project = sample_repository(tmp_path / "sample")
    (project / "orchestrator.toml").write_text(RULES, encoding="utf-8")
    environment = {"ORCHESTRATOR_EVENTS_DEAD_LETTERS": "3"}
    with Server(tmp_path / "storage", {"sample": project}, environment=environment) as own:
        yield own


def two_letters(api: Api) -> tuple[str, str]:
    """Ids of a dead letter of the closed topic and of one of an open topic."""
    for topic in ("security", "testing"):
        api.post(f"/api/events/found-{topic}", {"topic": topic, "data": {}}).expect(202)

    def found() -> dict[str, str] | None:
        letters = {letter["event"]["topic"]: letter["id"] for letter in api.get(LETTERS).json["dead_letters"]}
        return letters if {"security", "testing"} <= letters.keys() else None

    letters = until(found, timeout_s=30.0, what="both events became dead letters")
    return letters["security"], letters["testing"]


def topics(api: Api) -> list[str]:
    """Topics of the dead letters that there are."""
    return sorted(letter["event"]["topic"] for letter in api.get(LETTERS).json["dead_letters"])


def test_a_letter_of_a_closed_topic_is_neither_shown_nor_touched(ruled: Server) -> None:
    """A role that may not read a topic could redrive or purge its dead letters one by one, knowing their ids."""
    operator, architect = ruled.api(), ruled.api("chief-architect")
    closed, open_ = two_letters(operator)
    assert [letter["id"] for letter in architect.get(LETTERS).json["dead_letters"]] == [open_]
    for refused in (
        architect.get(f"{LETTERS}/{closed}"),
        architect.post(f"{LETTERS}/{closed}/redrive", {}),
        architect.delete(f"{LETTERS}/{closed}"),
    ):
        unknown = architect.get(f"{LETTERS}/dlq_unknown").refused(404, "REQ_003")
        assert refused.refused(404, "REQ_003")["message"] == unknown["message"].replace("dlq_unknown", closed)
    assert topics(operator) == ["security", "testing"]
    architect.delete(f"{LETTERS}/{open_}").expect(200)
    operator.delete(f"{LETTERS}/{closed}").expect(200)
    assert topics(operator) == []


def test_all_letters_are_those_that_the_caller_may_see(ruled: Server) -> None:
    """Redriving or purging all of them, or by a filter, took those of closed topics along and counted them."""
    operator, architect = ruled.api(), ruled.api("chief-architect")
    closed, open_ = two_letters(operator)
    assert architect.delete(LETTERS, filter="topic:security").json["count"] == 0
    assert architect.post(f"{LETTERS}/redrive", {}, filter="topic:security").json["count"] == 0
    assert architect.post(f"{LETTERS}/redrive", {}).json["count"] == 1

    def again() -> str | None:
        letters = operator.get(LETTERS).json["dead_letters"]
        return next((letter["id"] for letter in letters if letter["id"] not in (closed, open_)), None)

    # The redriven one fails again and so is a new letter; the other was never touched.
    assert until(again, timeout_s=30.0, what="the redriven letter failed again")
    assert operator.get(f"{LETTERS}/{closed}").status == 200
    assert architect.delete(LETTERS).json["count"] == 1
    assert topics(operator) == ["security"]


def test_more_letters_than_are_kept_raise_an_alarm(ruled: Server) -> None:
    """Dead letters that pushed out older ones were told in the log only, which nobody watches."""
    operator, anyone = ruled.api(), ruled.anonymous()

    def metric(name: str) -> int:
        lines = anyone.get("/metrics").body.decode().splitlines()
        return next(int(float(line.split()[1])) for line in lines if line.startswith(f"{name} "))

    for _ in range(5):
        operator.post("/api/events/found", {"topic": "testing", "data": {}}).expect(202)
    until(lambda: metric("sidecar_dead_letters_dropped_total") == 2, timeout_s=30.0, what="two letters are dropped")
    assert metric("sidecar_dead_letters") == 3
    health = anyone.get("/health").expect(200).json
    assert (health["status"], health["checks"]["event_bus"]) == ("degraded", "degraded")
    operator.delete(LETTERS).expect(200)
    assert anyone.get("/health").json["checks"]["event_bus"] == "ok"
    assert metric("sidecar_dead_letters") == 0

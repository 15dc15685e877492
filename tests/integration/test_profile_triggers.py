"""Triggers of a project's profiles in a real sidecar: an event spawns an agent, once, within the budgets."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.agents import FINAL
from tests.support.http import Api
from tests.support.repo import sample_repository
from tests.support.server import Server
from tests.support.waiting import until

PATIENCE_S = 90.0
PROFILE = """---
name: {name}
description: Started by events.
runtime: text
command: ["/bin/sh", "-c", "{script}"]
triggers:
  - on: [{on}]
    filter: "{filter}"
    task: "Look at {{data.what}}"
---
Look at it.
"""


@contextmanager
def sidecar_with(
    tmp_path: Path, *, name: str, on: str, filter: str, script: str = "exit 0", **events: int
) -> Iterator[Server]:
    """A sidecar whose project has a role of its own with one trigger; keywords are settings of ``[events]``."""
    project = sample_repository(tmp_path / "sample")
    profiles = project / ".orchestrator" / "profiles"
    profiles.mkdir(parents=True)
    text = PROFILE.format(name=name, on=on, filter=filter, script=script)
    (profiles / f"{name}.md").write_text(text, encoding="utf-8")
    environment = {f"ORCHESTRATOR_EVENTS_{key.upper()}": str(value) for key, value in events.items()}
    with Server(tmp_path / "storage", {"sample": project}, environment=environment) as server:
        yield server


def spawned(api: Api, role: str) -> list[Any]:
    """All agents of a role that there are."""
    agents: list[Any] = []
    cursor: str | None = None
    while True:
        page = api.get("/api/agents", agent_type=role, cursor=cursor, limit=100).expect(200).json
        agents += page["agents"]
        cursor = page["next_cursor"]
        if cursor is None:
            return agents


def letters(api: Api) -> list[Any]:
    """All dead letters."""
    found: list[Any] = api.get("/api/events/dead-letters", limit=1000).expect(200).json["dead_letters"]
    return found


@pytest.mark.chaos
def test_an_event_spawns_one_agent_through_kills(tmp_path: Path, chaos_seed: int) -> None:
    """After a crash a trigger fired again for an event that it had spawned an agent for, or never."""
    moments = random.Random(chaos_seed)
    wanted: dict[str, str] = {}
    with sidecar_with(tmp_path, name="watcher", on="built", filter="data.ok:true", triggers_per_minute=1000) as server:
        for number in range(3):
            api = server.api()
            before = len(spawned(api, "watcher"))
            for what in range(12):
                data = {"ok": what % 3 != 0, "what": f"{number}.{what}", "issue_id": "issue-7"}
                answer = api.post("/api/events/built", {"topic": "testing", "data": data}).expect(202).json
                if data["ok"]:
                    wanted[answer["event_id"]] = f"Look at {number}.{what}"
            # In the middle of it: some have their agent, some are being spawned, some are not routed yet.
            some = before + moments.randrange(6)
            until(lambda api=api, some=some: len(spawned(api, "watcher")) >= some, what="it fires")  # type: ignore[misc]
            server.kill9()
            server.restart()
        api = server.api()

        def all_ended() -> list[Any] | None:
            agents = spawned(api, "watcher")
            known = {agent["correlation_id"] for agent in agents}
            return agents if known >= wanted.keys() and {agent["status"] for agent in agents} <= FINAL else None

        agents = until(all_ended, timeout_s=PATIENCE_S, what="each event has its agent")
        assert Counter(agent["correlation_id"] for agent in agents) == Counter(wanted.keys())
        assert {agent["issue_id"] for agent in agents} == {"issue-7"}
        tasks = {agent["correlation_id"]: api.get(f"/api/agents/{agent['agent_id']}").json["task"] for agent in agents}
        assert tasks == wanted
        # What was routed before a kill is not routed again when everything is done: the outbox is empty.
        server.kill9()
        server.restart()
        api = server.api()
        marker = {"topic": "testing", "data": {"ok": True, "what": "last", "issue_id": "issue-7"}}
        last = api.post("/api/events/built", marker).expect(202).json["event_id"]

        def has_last() -> bool:
            return any(agent["correlation_id"] == last for agent in spawned(api, "watcher"))

        until(has_last, timeout_s=PATIENCE_S, what="the trigger fires again")
        assert len(spawned(api, "watcher")) == len(wanted) + 1
        assert letters(api) == []


def test_a_role_that_starts_itself_is_cut_off(tmp_path: Path) -> None:
    """A role whose end sets off its own trigger ran for ever."""
    with sidecar_with(tmp_path, name="echo", on="agent_completed", filter="agent_type:echo", trigger_depth=3) as server:
        api = server.api()
        body = {"agent_type": "echo", "issue_id": "issue-8", "task": "begin"}
        api.post("/api/agents/spawn", body).expect(201)
        letter = until(lambda: letters(api), timeout_s=PATIENCE_S, what="the cycle is cut off")[0]
        assert (letter["target"], letter["reason"]) == ("trigger:profile.echo.1", "depth")
        assert letter["event"]["event_type"] == "agent_completed"
        agents = spawned(api, "echo")
        # The first one, and three that triggers started.
        assert len(agents) == 4
        assert {agent["status"] for agent in agents} == {"completed"}


def test_a_storm_of_events_spawns_no_more_than_the_budget(tmp_path: Path) -> None:
    """Events that came by the hundred started agents by the hundred."""
    with sidecar_with(
        tmp_path, name="watcher", on="alarm", filter="what:*", triggers_per_minute=2, max_deliveries=1
    ) as server:
        api = server.api()
        for what in range(5):
            api.post("/api/events/alarm", {"topic": "testing", "data": {"what": what}}).expect(202)
        found = until(
            lambda: letters(api) if len(letters(api)) >= 3 else None, timeout_s=PATIENCE_S, what="the rest is put aside"
        )
        assert [letter["reason"] for letter in found] == ["rate"] * 3
        assert len(spawned(api, "watcher")) == 2

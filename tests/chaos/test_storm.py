"""All faults at once against a real sidecar: what was acknowledged is there, what was started has ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.disks import NoSmallDisk, small_disk
from tests.support.processes import assert_no_survivors
from tests.support.repo import sample_repository
from tests.support.server import Server
from tests.support.storm import Clients, Faults, all_pages, end_all

#: A storm of one round is for CI; ten rounds (``tox -e chaos``) make two minutes.
FIRST_ROUND_S = 12.0
FURTHER_ROUND_S = 12.0
LONGEST_S = 120.0
DISK_BYTES = 96 << 20

END_TYPES = "agent_completed,agent_failed,agent_killed"


@pytest.fixture
def own_disk(tmp_path: Path) -> Iterator[Path | None]:
    """The storage directory as a small file system of its own; None, with the reason, where that cannot be had."""
    with ExitStack() as stack:
        try:
            disk = stack.enter_context(small_disk(tmp_path / "storage", DISK_BYTES))
        except NoSmallDisk as reason:
            print(f"the disk stays large: {reason}")
            yield None
        else:
            yield disk


@pytest.mark.chaos
@pytest.mark.timeout(420)
def test_a_storm_loses_nothing_and_leaves_nothing(
    tmp_path: Path, own_disk: Path | None, issue: str, chaos_seed: int, chaos_rounds: int
) -> None:
    """Faults that are survived one by one may still be deadly together."""
    storage, starts = tmp_path / "storage", tmp_path / "starts"
    starts.touch()
    seconds = min(LONGEST_S, FIRST_ROUND_S + FURTHER_ROUND_S * (chaos_rounds - 1))
    environment = {"ORCHESTRATOR_RATE_LIMITS": "off"}
    with Server(storage, {"sample": sample_repository(tmp_path / "sample")}, environment=environment) as server:
        clients = Clients(lambda: server.url, server.token(), issue, starts, chaos_seed)
        faults = Faults(server, chaos_seed, own_disk)
        clients.start()
        try:
            faults.rage(seconds)
        finally:
            clients.stop()
        records = end_all(server, issue)
        said = clients.acknowledged
        print(
            f"storm: seed {chaos_seed}, {seconds:g} s, faults {dict(faults.done)}; acknowledged {len(said.results)} "
            f"results, {len(said.events)} events, {len(said.agents)} agents; refused {dict(+clients.refused)}"
        )
        check_stored(server, issue, said.results, said.events)
        check_ended(server, records, said.agents, Counter(starts.read_text(encoding="utf-8").split()))
        assert_no_survivors(str(storage / "agents"), timeout_s=5)


def check_stored(server: Server, issue: str, results: dict[str, int], events: dict[str, int]) -> None:
    """Acknowledged = stored: each result and event once, as it was sent."""
    assert results
    assert events
    rows = all_pages(server.api(), "/api/results", "results", "cursor", issue_id=issue)
    found = {row["id"]: row["result"].get("metrics", {}).get("n") for row in rows}
    assert len(found) == len(rows)
    assert {key: found.get(key) for key in results} == results
    log = all_pages(server.api(), "/api/events", "events", "since", type="storm")
    published = {event["event_id"]: event["data"]["n"] for event in log}
    assert len(published) == len(log)
    assert {key: published.get(key) for key in events} == events


def check_ended(server: Server, records: list[Any], acknowledged: set[str], starts: Counter[str]) -> None:
    """Started = ended: one end for each attempt, no process without an attempt, none left of any."""
    by_id = {record["agent_id"]: record for record in records}
    assert acknowledged <= by_id.keys()
    assert starts.keys() <= by_id.keys()
    begun = Counter(
        event["data"]["agent_id"]
        for event in all_pages(server.api(), "/api/events", "events", "since", type="agent_started")
    )
    ends = all_pages(server.api(), "/api/events", "events", "since", type=END_TYPES)
    # A result that was stored by the API without any agent publishes such an event too; it names no attempt.
    attempts = [event["data"] for event in ends if event["data"]["agent_id"] in by_id]
    ended = Counter((data["agent_id"], data["attempt"]) for data in attempts)
    assert [end for end, count in ended.items() if count != 1] == []
    ended_attempts = Counter(agent_id for agent_id, _ in ended)
    wrong = {
        agent_id: (record["status"], record["attempt"], starts[agent_id], begun[agent_id], ended_attempts[agent_id])
        for agent_id, record in by_id.items()
        if not (starts[agent_id] <= max(1, record["attempt"]) == ended_attempts[agent_id] >= begun[agent_id])
    }
    assert wrong == {}, "status, attempt, starts, started events, end events"
    left = {
        agent_id: record["survivors"] for agent_id, record in by_id.items() if record["survivors"].get("count") != 0
    }
    assert left == {}

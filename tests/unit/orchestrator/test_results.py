"""Results: what is accepted, the copies, the announcements."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.copies import ResultCopies, write_copy
from orchestrator.errors import BadRequest, StorageWriteFailed
from orchestrator.models import JSON, Event, EventDraft, Result, ResultDraft, ResultPage, ResultQuery
from orchestrator.results import ResultService, check_result


class MemoryResults:
    """A result store in memory."""

    def __init__(self) -> None:
        self.rows: dict[str, Result] = {}
        self.announced: set[str] = set()

    async def insert_result(self, project_id: str, result_id: str, draft: ResultDraft, *, stored_at: float) -> Result:
        row = Result(
            id=result_id,
            project_id=project_id,
            agent_id=draft.agent_id,
            agent_type=draft.agent_type,
            issue_id=draft.issue_id,
            round=1 + sum(1 for old in self.rows.values() if old.agent_type == draft.agent_type),
            status=draft.result["status"],
            result=draft.result,
            timestamp="2026-01-01T00:00:00Z",
            stored_at=stored_at,
            source=draft.source,
            attempt=draft.attempt,
        )
        self.rows[result_id] = row
        return row

    async def get_result(self, project_id: str, result_id: str) -> Result | None:
        row = self.rows.get(result_id)
        return row if row is not None and row.project_id == project_id else None

    async def query_results(self, project_id: str, query: ResultQuery) -> ResultPage:
        return ResultPage(results=list(self.rows.values()), next_cursor=None)

    async def unannounced_results(self) -> list[Result]:
        return [row for row in self.rows.values() if row.id not in self.announced]

    async def mark_announced(self, project_id: str, result_id: str) -> None:
        self.announced.add(result_id)

    async def count_results(self) -> int:
        return len(self.rows)

    async def drop_results(self, *, older_than: float) -> int:
        return 0


class Bus:
    """Collects what is published; can be told to fail."""

    def __init__(self) -> None:
        self.drafts: list[EventDraft] = []
        self.is_down = False

    async def publish(self, project_id: str, draft: EventDraft) -> Event:
        if self.is_down:
            raise StorageWriteFailed("disk full")
        self.drafts.append(draft)
        return Event(
            event_id=draft.event_id or "e",
            event_type=draft.event_type,
            publisher=draft.publisher,
            topic=draft.topic,
            data=draft.data,
            seq=len(self.drafts),
            published_at=0.0,
        )


def hand_over(project_id: str, agent_type: str, result: JSON) -> list[JSON]:
    """The next agents of these tests."""
    return [{"agent_type": "test-engineer", "priority": "high", "reason": result["status"]}]


def draft(status: str = "success", **fields: Any) -> ResultDraft:
    """A result of one agent."""
    return ResultDraft(
        agent_id="agt_1",
        agent_type="python-specialist",
        issue_id="issue-1",
        result={"status": status, "own": 1},
        **fields,
    )


@pytest.mark.parametrize(
    ("result", "field"),
    [
        ([], "result"),
        ({}, "result.status"),
        ({"status": "done"}, "result.status"),
        ({"status": ["success"]}, "result.status"),
        ({"status": "success", "files_created": "a"}, "result.files_created"),
        ({"status": "success", "files_created": [1]}, "result.files_created[0]"),
        ({"status": "success", "files_created": [{"p": 1}]}, "result.files_created[0]"),
        ({"status": "success", "decisions": {}}, "result.decisions"),
        ({"status": "success", "metrics": []}, "result.metrics"),
    ],
)
def test_bad_results_name_the_field(result: object, field: str) -> None:
    """A malformed result was stored, and every later reader stumbled over it."""
    with pytest.raises(BadRequest) as caught:
        check_result(result)
    assert caught.value.details["field"] == field


async def test_stored_copied_announced(tmp_path: Path) -> None:
    """The copy at storage_path was missing, torn or an older round's."""
    store, bus = MemoryResults(), Bus()
    service = ResultService(store, tmp_path, publish=bus.publish, hand_overs=hand_over)
    await service.store("p", draft())
    stored = await service.store("p", draft("failed"))
    copy = json.loads(Path(stored.storage_path).read_text())
    assert copy["round"] == 2
    assert copy["result"] == {"status": "failed", "own": 1}
    assert Path(stored.storage_path) == tmp_path / "p" / "issue-1" / "python-specialist.json"
    assert Path(stored.storage_path).stat().st_mode & 0o777 == 0o600
    assert [(event.event_type, event.data["result_id"]) for event in bus.drafts] == [
        ("agent_completed", next(iter(store.rows))),
        ("agent_failed", stored.result.id),
    ]
    assert stored.next_agents[0]["agent_type"] == "test-engineer"


async def test_event_type_follows_the_source(tmp_path: Path) -> None:
    """A spawned agent's end was told twice: by its result and by its exit."""
    bus = Bus()
    service = ResultService(MemoryResults(), tmp_path, publish=bus.publish, hand_overs=hand_over)
    await service.store("p", draft(attempt=1, source="pipe"))
    assert (await service.store("p", draft(attempt=1, source="exit"))).event is None
    assert [event.event_type for event in bus.drafts] == ["result_stored"]


async def test_a_crash_before_the_announcement_is_healed(tmp_path: Path) -> None:
    """A result stored just before kill -9 was never announced, so nobody was woken."""
    store, bus = MemoryResults(), Bus()
    bus.is_down = True
    service = ResultService(store, tmp_path, publish=bus.publish, hand_overs=hand_over)
    with pytest.raises(StorageWriteFailed):
        await service.store("p", draft())
    bus.is_down = False
    assert await service.recover() == 1
    assert [event.event_type for event in bus.drafts] == ["agent_completed"]
    assert await service.recover() == 0


async def test_a_start_on_a_full_disk_leaves_the_rest_for_later(tmp_path: Path) -> None:
    """A sidecar killed while the disk was full could not be started again until somebody made room."""
    store, bus = MemoryResults(), Bus()
    bus.is_down = True
    service = ResultService(store, tmp_path, publish=bus.publish, hand_overs=hand_over)
    await store.insert_result("p", "res_1", draft(), stored_at=0.0)
    assert (await service.recover(), service.is_behind) == (0, True)
    bus.is_down = False
    assert (await service.recover(), service.is_behind) == (1, False)


async def test_odd_identifiers_never_become_paths(tmp_path: Path) -> None:
    """An issue_id of ../../x wrote outside the storage directory."""
    service = ResultService(MemoryResults(), tmp_path / "results", publish=Bus().publish, hand_overs=hand_over)
    with pytest.raises(BadRequest):
        await service.store(
            "p", ResultDraft(agent_id="a", agent_type="t", issue_id="../x", result={"status": "success"})
        )
    assert list(tmp_path.iterdir()) == []


async def test_full_disk_says_so(tmp_path: Path) -> None:
    """A copy that could not be written was reported as an unexpected error."""
    row = await MemoryResults().insert_result("p", "r", draft(), stored_at=0.0)
    (tmp_path / "p").write_text("in the way")
    with pytest.raises(StorageWriteFailed):
        await asyncio.to_thread(write_copy, tmp_path, row)


async def test_rounds_that_come_together_share_a_write_and_the_newest_wins(tmp_path: Path) -> None:
    """A hundred rounds at once wrote the file a hundred times, one after the other, or left an older one in it."""
    store = MemoryResults()
    rows = [await store.insert_result("p", f"r{number}", draft(), stored_at=0.0) for number in range(100)]
    copies = ResultCopies(tmp_path)
    paths = await asyncio.gather(*(copies.keep(row) for row in reversed(rows)))
    assert len(set(paths)) == 1
    text = await asyncio.to_thread(paths[0].read_text)
    assert json.loads(text)["round"] == 100
    await copies.keep(rows[3])
    assert await asyncio.to_thread(paths[0].read_text) == text

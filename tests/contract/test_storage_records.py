"""What every storage promises of results, agents, tokens, answers, runs, projects and knowledge."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from orchestrator.errors import BadRequest, StorageReadFailed
from orchestrator.models import AgentQuery, Project, ResultQuery, Run
from tests.support.storages import BACKENDS, agent_record, event_draft, opened, result_draft

pytestmark = pytest.mark.parametrize("backend", sorted(BACKENDS))


async def test_every_round_is_kept_and_numbered(backend: str, tmp_path: Path) -> None:
    """A later round overwrote an earlier one, or two concurrent rounds got one number."""
    async with opened(backend, tmp_path) as storage:
        stored = await asyncio.gather(
            *[storage.insert_result("p1", f"r{n}", result_draft(), stored_at=float(n)) for n in range(10)]
        )
        assert sorted(result.round for result in stored) == list(range(1, 11))
        assert (await storage.insert_result("p2", "r0", result_draft(), stored_at=1.0)).round == 1
        assert await storage.count_results() == 11


async def test_a_known_result_id_returns_the_stored_one(backend: str, tmp_path: Path) -> None:
    """A retried result became a second round."""
    async with opened(backend, tmp_path) as storage:
        first = await storage.insert_result("p1", "r1", result_draft(note="a"), stored_at=1.0)
        again = await storage.insert_result("p1", "r1", result_draft(note="b"), stored_at=2.0)
        assert again == first
        assert await storage.get_result("p1", "r1") == first
        assert await storage.get_result("p2", "r1") is None


async def test_rounds_go_on_after_retention(backend: str, tmp_path: Path) -> None:
    """After old results were dropped, a new one took an old round's number."""
    async with opened(backend, tmp_path) as storage:
        await storage.insert_result("p1", "r1", result_draft(decisions=["use sqlite"]), stored_at=1.0)
        assert await storage.drop_results(older_than=2.0) == 1
        assert await storage.search_knowledge("p1", "sqlite", limit=5) == []
        assert (await storage.insert_result("p1", "r2", result_draft(), stored_at=3.0)).round == 2


async def test_results_are_queried_newest_first_in_pages(backend: str, tmp_path: Path) -> None:
    """A page repeated or skipped results."""
    async with opened(backend, tmp_path) as storage:
        for n in range(7):
            status = "failed" if n % 2 else "success"
            await storage.insert_result("p1", f"r{n}", result_draft(f"i{n % 3}", status=status), stored_at=float(n))
        seen: list[str] = []
        cursor: str | None = None
        while True:
            page = await storage.query_results("p1", ResultQuery(limit=3, cursor=cursor))
            seen += [result.id for result in page.results]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert seen == [f"r{n}" for n in range(6, -1, -1)]
        for query, expected in (
            (ResultQuery(issue_id="i1"), ["r4", "r1"]),
            (ResultQuery(status="failed"), ["r5", "r3", "r1"]),
            (ResultQuery(since=2.0, until=4.0), ["r4", "r3", "r2"]),
            (ResultQuery(agent_type="nobody"), []),
            (ResultQuery(agent_id="ag_1", limit=1), ["r6"]),
        ):
            assert [result.id for result in (await storage.query_results("p1", query)).results] == expected
        with pytest.raises(BadRequest):
            await storage.query_results("p1", ResultQuery(cursor="1 OR 1"))


async def test_results_stay_unannounced_until_marked(backend: str, tmp_path: Path) -> None:
    """A crash between a result and its event lost the event."""
    async with opened(backend, tmp_path) as storage:
        result = await storage.insert_result("p1", "r1", result_draft(), stored_at=1.0)
        assert await storage.unannounced_results() == [result]
        await storage.mark_announced("p1", "r1")
        assert await storage.unannounced_results() == []


async def test_a_result_without_a_status_is_refused(backend: str, tmp_path: Path) -> None:
    """A body without a valid status was stored and failed at every read."""
    async with opened(backend, tmp_path) as storage:
        with pytest.raises(BadRequest):
            await storage.insert_result("p1", "r1", result_draft(status="splendid"), stored_at=1.0)
        assert await storage.count_results() == 0


async def test_agents_are_replaced_found_and_counted(backend: str, tmp_path: Path) -> None:
    """An update made a second record, or another project's agent was found."""
    async with opened(backend, tmp_path) as storage:
        for n in range(4):
            await storage.put_agent(agent_record(f"ag_{n}", spawned_by=f"trigger:{n}"))
        await storage.put_agent(agent_record("ag_x", project="p2"))
        ended = agent_record("ag_0", status="completed", started_at=1.0, ended_at=4.0, is_end_published=True)
        await storage.put_agent(ended)
        await storage.put_agent(agent_record("ag_1", status="failed", started_at=1.0, ended_at=2.0))
        assert await storage.get_agent("p1", "ag_0") == ended
        assert await storage.get_agent("p2", "ag_0") is None
        assert await storage.find_agent("ag_x") is not None
        assert {record.agent_id for record in await storage.unfinished_agents()} == {"ag_1", "ag_2", "ag_3", "ag_x"}
        assert await storage.count_agents() == {"completed": 1, "failed": 1, "running": 3}
        assert await storage.average_duration_s() == 2.0
        found = await storage.find_spawned_by("p1", "trigger:2")
        assert found is not None
        assert found.agent_id == "ag_2"
        assert await storage.find_spawned_by("p2", "trigger:2") is None


async def test_agents_are_listed_newest_first_in_pages(backend: str, tmp_path: Path) -> None:
    """A page of agents skipped one that was updated meanwhile."""
    async with opened(backend, tmp_path) as storage:
        for n in range(5):
            await storage.put_agent(agent_record(f"ag_{n}", issue_id=f"i{n % 2}"))
        first = await storage.query_agents("p1", AgentQuery(limit=2))
        await storage.put_agent(agent_record("ag_0", status="stopping"))
        second = await storage.query_agents("p1", AgentQuery(limit=9, cursor=first.next_cursor))
        assert [record.agent_id for record in first.agents + second.agents] == [f"ag_{n}" for n in range(4, -1, -1)]
        assert second.next_cursor is None
        odd = await storage.query_agents("p1", AgentQuery(issue_id="i1", status="running"))
        assert [record.agent_id for record in odd.agents] == ["ag_3", "ag_1"]
        with pytest.raises(BadRequest):
            await storage.query_agents("p1", AgentQuery(cursor="٣"))


async def test_a_token_is_revoked_once(backend: str, tmp_path: Path) -> None:
    """Two refreshes of one token both succeeded."""
    async with opened(backend, tmp_path) as storage:
        outcomes = await asyncio.gather(*[storage.revoke_token("jti", 2_000_000.0) for _ in range(10)])
        assert sum(outcomes) == 1
        await storage.revoke_token("old", 500.0)
        assert await storage.revoked_tokens(1000.0) == ["jti"]


async def test_the_first_answer_stays(backend: str, tmp_path: Path) -> None:
    """A retry's answer replaced the first one's."""
    async with opened(backend, tmp_path) as storage:
        await storage.put_answer("p1", "k\ud800", "f1", b"one", 1.0)
        await storage.put_answer("p1", "k\ud800", "f2", b"two", 2.0)
        assert await storage.get_answer("p1", "k\ud800") == ("f1", b"one")
        assert await storage.get_answer("p2", "k\ud800") is None


async def test_projects_and_runs_are_kept(backend: str, tmp_path: Path) -> None:
    """A project or a run was lost at a restart."""
    run = Run(
        run_id="run_1",
        project_id="p1",
        issue_id="i1",
        task="t",
        workflow="default",
        status="running",
        steps=[],
        created_at=1.0,
        updated_at=1.0,
    )
    project = Project(project_id="p1", path="/srv/p1", created_at=1.0)
    async with opened(backend, tmp_path) as storage:
        await storage.put_project(project)
        await storage.put_run(run)
        await storage.put_run(msgspec.structs.replace(run, run_id="run_2", status="completed"))
    async with opened(backend, tmp_path) as storage:
        assert await storage.list_projects() == [project]
        assert await storage.get_project("p2") is None
        assert [item.run_id for item in await storage.list_runs("p1", limit=5)] == ["run_2", "run_1"]
        assert await storage.unfinished_runs() == [run]
        assert await storage.get_run("p2", "run_1") is None


async def test_knowledge_is_searched_by_words_inside_the_project(backend: str, tmp_path: Path) -> None:
    """A search leaked another project's findings, or identifiers were found only whole."""
    async with opened(backend, tmp_path) as storage:
        draft = result_draft(
            decisions=["Rename getUserName everywhere", {"decision": "Store tokens hashed", "reason": "leaks"}],
            findings=[{"path": "app/login.py", "message": "timing attack"}],
            warnings=["nothing about it"],
            next_steps=[7, None],
        )
        await storage.insert_result("p1", "r1", draft, stored_at=1.0)
        await storage.add_note("p1", "The login page needs a captcha", issue_id="i2", author="me", now=2.0)
        hits = await storage.search_knowledge("p1", "user_name", limit=5)
        assert [(hit.kind, hit.result_id) for hit in hits] == [("decision", "r1")]
        best = await storage.search_knowledge("p1", "login timing attack", limit=5)
        assert [hit.kind for hit in best] == ["finding", "note"]
        assert best[0].score >= best[1].score
        only = await storage.search_knowledge("p1", "login", limit=5, issue_id="i2")
        assert [hit.kind for hit in only] == ["note"]
        assert await storage.search_knowledge("p2", "login", limit=5) == []


@pytest.mark.parametrize("query", ["", '"', "a OR (", "NEAR(x)", "words:x", "\ud800", "*", "p7031", "x" * 5000])
async def test_odd_queries_are_only_words(backend: str, tmp_path: Path, query: str) -> None:
    """A quote in a search raised, or reached the engine's query language."""
    async with opened(backend, tmp_path) as storage:
        await storage.add_note("p1", "plain text", issue_id=None, author="me", now=1.0)
        assert await storage.search_knowledge("p1", query, limit=5) == []


async def test_health_is_measured_and_a_closed_storage_says_so(backend: str, tmp_path: Path) -> None:
    """A check that cannot fail told nothing."""
    async with opened(backend, tmp_path) as storage:
        report = await storage.check()
        assert report["status"] == "ok"
        assert report["write_ms"] > 0
        assert await storage.size_bytes() > 0
        assert storage.features()
    assert (await storage.check())["status"] == "failed"
    with pytest.raises(StorageReadFailed):
        await storage.get_agent("p1", "x")


async def test_a_backup_while_writing_is_consistent(backend: str, tmp_path: Path) -> None:
    """A live copy without the log's content lost what was acknowledged."""
    async with opened(backend, tmp_path / "live") as storage:
        for n in range(50):
            await storage.append("p1", event_draft(data={"n": n}))
        writing = asyncio.gather(*[storage.append("p1", event_draft()) for _ in range(50)])
        (tmp_path / "copy").mkdir()
        await storage.backup(str(tmp_path / "copy" / "orchestrator.db"))
        await writing
    async with opened(backend, tmp_path / "copy") as copy:
        events = await copy.read("p1", 0, 1000)
        assert len(events) >= 50
        assert [event.seq for event in events] == list(range(1, len(events) + 1))

"""The engine with its builder process: caching, freshness, single flight, life and death."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from orchestrator.config import ContextSettings
from orchestrator.context import BuiltContext, ContextEngine, ContextRequest
from orchestrator.context.frames import Told
from orchestrator.errors import BadRequest, ContextFailed
from orchestrator.models import KnowledgeItem, Project, Result, ResultPage, ResultQuery
from orchestrator.profiles.model import Profile
from tests.support.repo import sample_repository, write_files
from tests.support.waiting import until_async


class FixedProfiles:
    """Every role exists."""

    async def prepare(self, project_path: str | None = None) -> None:
        """Nothing to read."""

    def get(self, agent_type: str, project_path: str | None = None) -> Profile:
        return Profile(agent_type=agent_type, description="", category="development", permission_class="coding")


class ListedResults:
    """Results in a list, newest last, and how often they were asked for."""

    def __init__(self) -> None:
        self.results: list[Result] = []

    async def query_results(self, project_id: str, query: ResultQuery) -> ResultPage:
        found = [r for r in reversed(self.results) if query.issue_id in (None, r.issue_id)]
        return ResultPage(results=found[: query.limit], next_cursor=None)


class ListedKnowledge:
    """One lesson of another issue."""

    async def search_knowledge(
        self, project_id: str, query: str, *, limit: int, issue_id: str | None = None
    ) -> list[KnowledgeItem]:
        return [
            KnowledgeItem(
                kind="decision", text="Cents only", score=1.0, result_id="res_9", agent_type="chief-architect",
                issue_id="other", timestamp="2026-01-01T00:00:00Z",
            )
        ]  # fmt: skip


class Bench:
    """An engine over a sample project."""

    def __init__(self, tmp_path: Path, **settings: Any) -> None:
        self.root = sample_repository(tmp_path / "project")
        self.project = Project(project_id="p", path=str(self.root), created_at=0.0)
        self.results = ListedResults()
        self.engine = ContextEngine(
            FixedProfiles(),
            self.results,  # type: ignore[arg-type]
            ListedKnowledge(),  # type: ignore[arg-type]
            ContextSettings(**settings),
            tmp_path / "state",
        )

    async def __aenter__(self) -> Bench:
        await self.engine.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.engine.stop()

    async def ask(self, task: str = "account", **fields: Any) -> BuiltContext:
        request = ContextRequest(
            issue_id=fields.pop("issue_id", "i"), agent_type="python-specialist", task=task, **fields
        )
        return await self.engine.build(self.project, request)

    async def settled(self) -> BuiltContext:
        """Ask until the answer comes from the cache: the watch has begun."""
        deadline = time.monotonic() + 20
        while not (built := await self.ask()).cache_hit:
            assert time.monotonic() < deadline, "never a cache hit"
            await asyncio.sleep(0.05)
        return built


def result(number: int, issue_id: str = "i") -> Result:
    """An outcome with a decision."""
    return Result(
        id=f"res_{number}",
        project_id="p",
        agent_id=f"agent_{number}",
        agent_type="test-engineer",
        issue_id=issue_id,
        round=1,
        status="success",
        result={"status": "success", "decisions": [f"Decision {number}"], "files_modified": ["ledger/money.py"]},
        timestamp="2026-01-01T00:00:00Z",
        stored_at=float(number),
    )


async def test_an_equal_request_is_answered_from_the_cache(tmp_path: Path) -> None:
    """Every request was built anew, or the tag changed without a change."""
    async with Bench(tmp_path) as bench:
        first = await bench.ask()
        again = await bench.settled()
        assert not first.cache_hit
        assert again.etag == first.etag
        assert again.document["cache_hit"] is True
        assert first.document["cache_hit"] is False
        fixed = {"timestamp": "", "cache_hit": None}
        assert {**first.document, **fixed} == {**again.document, **fixed}
        assert (await bench.ask("money")).etag != first.etag
        stats = bench.engine.stats()
        assert stats.hits >= 1
        assert stats.is_builder_alive


async def test_a_changed_byte_shows_within_a_second_and_at_once_on_refresh(tmp_path: Path) -> None:
    """A cached answer outlived the file that it shows."""
    async with Bench(tmp_path) as bench:
        await bench.settled()
        write_files(bench.root, {"ledger/accounts.py": "account_marker_one = 1\n"})
        assert b"account_marker_one" in (await bench.ask(refresh=True)).body
        await bench.settled()
        write_files(bench.root, {"ledger/accounts.py": "account_marker_two = 1\n"})
        start = time.monotonic()
        while b"account_marker_two" not in (await bench.ask()).body:
            assert time.monotonic() - start < 5, "the change never showed"
            await asyncio.sleep(0.01)


_REPORT = '<testsuite tests="3" failures="{}"/>'


@pytest.mark.parametrize("seen_by", ["refresh", "watch", "comparison"])
async def test_a_changed_report_shows_though_git_ignores_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen_by: str
) -> None:
    """A failed run was called passed, also on refresh, until some file of the project changed."""
    if seen_by == "comparison":
        monkeypatch.setenv("WATCHFILES_FORCE_POLLING", "true")
        monkeypatch.setenv("WATCHFILES_POLL_DELAY_MS", "600000")
    async with Bench(tmp_path) as bench:
        write_files(bench.root, {".gitignore": "junit.xml\n", "junit.xml": _REPORT.format(0)})
        other = await bench.ask("money")
        built = await bench.settled()
        assert [each.document["context"]["metadata"]["last_build_status"] for each in (other, built)] == ["passed"] * 2
        write_files(bench.root, {"junit.xml": _REPORT.format(3)})
        if seen_by == "refresh":
            built = await bench.ask(refresh=True)
            assert built.document["context"]["metadata"]["last_build"]["failed"] == 3
        for task in ("account", "money"):
            deadline = time.monotonic() + 20
            while (await bench.ask(task)).document["context"]["metadata"]["last_build_status"] != "failed":
                assert time.monotonic() < deadline, "the new report never showed"
                await asyncio.sleep(0.05)


async def test_a_change_that_no_watch_reports_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where watching is impossible the cache was never invalidated."""
    monkeypatch.setenv("WATCHFILES_FORCE_POLLING", "true")
    monkeypatch.setenv("WATCHFILES_POLL_DELAY_MS", "600000")
    async with Bench(tmp_path) as bench:
        await bench.ask()
        write_files(bench.root, {"ledger/accounts.py": "account_marker = 1\n"})
        start = time.monotonic()
        while b"account_marker" not in (await bench.ask()).body:
            assert time.monotonic() - start < 10, "the change never showed"
            await asyncio.sleep(0.05)


async def test_what_cannot_be_described_is_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The builder has no log of its own: that a project's metadata was missing was told nowhere."""
    async with Bench(tmp_path) as bench:
        ask = bench.engine._builder.ask

        async def with_problem(**fields: object) -> Told:
            return msgspec.structs.replace(await ask(**fields), problems=("versions: KeyError",))

        monkeypatch.setattr(bench.engine._builder, "ask", with_problem)
        with capture_logs() as logs:
            await bench.ask()
    told = [line for line in logs if line["event"] == "context_metadata_failed"]
    assert [(line["project_id"], line["problems"]) for line in told] == [("p", ("versions: KeyError",))]


async def test_a_new_result_is_in_the_next_answer(tmp_path: Path) -> None:
    """The agent that was started right after a result did not see it."""
    async with Bench(tmp_path) as bench:
        await bench.settled()
        bench.results.results.append(result(1))
        document = (await bench.ask()).document
        outputs = document["context"]["previous_agent_outputs"]
        assert outputs[0]["decisions"] == ["Decision 1"]
        assert outputs[0]["files_affected"] == ["ledger/money.py"]
        assert outputs[-1]["decision"] == "Cents only"
        bench.results.results.append(result(2))
        outputs = (await bench.ask()).document["context"]["previous_agent_outputs"]
        assert [o["agent"] for o in outputs[:2]] == ["agent_2", "agent_1"]


async def test_equal_requests_at_once_are_built_once(tmp_path: Path) -> None:
    """A hundred agents that start together made a hundred builds."""
    async with Bench(tmp_path) as bench:
        answers = await asyncio.gather(*(bench.ask() for _ in range(100)))
        assert len({answer.etag for answer in answers}) == 1
        assert bench.engine.stats().builds == 1


async def test_clearing_removes_an_issues_answers_only(tmp_path: Path) -> None:
    """Clearing one issue emptied the cache of all, or told wrong figures."""
    async with Bench(tmp_path) as bench:
        await bench.ask(issue_id="a")
        await bench.ask(issue_id="b")
        before = bench.engine.stats()
        cleared = await bench.engine.clear("p", "a")
        assert cleared.entries_removed == 1
        assert before.bytes - bench.engine.stats().bytes == cleared.bytes_freed > 0
        assert (await bench.engine.clear("p", "a")).entries_removed == 0


async def test_the_builder_is_started_again_after_it_was_killed(tmp_path: Path) -> None:
    """A killed builder left every later request without an answer, or let old answers be taken for new ones."""
    async with Bench(tmp_path) as bench:
        first = await bench.ask()
        killed = bench.engine.builder_id
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        again = await bench.ask("money", refresh=True)
        assert again.body
        assert bench.engine.builder_id not in (None, killed)
        assert (await bench.ask()).etag == first.etag


@pytest.mark.parametrize("first_task", ["account", "money"])
async def test_a_change_while_no_builder_lives_is_shown(tmp_path: Path, first_task: str) -> None:
    """The new builder counted like the killed one, so that an answer of before the change was taken for current."""
    async with Bench(tmp_path) as bench:
        await bench.settled()
        killed = bench.engine.builder_id
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        await until_async(lambda: not bench.engine.stats().is_builder_alive, what="the builder's end was noticed")
        write_files(bench.root, {"ledger/money.py": "# a changed word: quokka\n"})
        for task in (first_task, "account"):
            assert b"quokka" in (await bench.ask(task)).body


async def test_the_builder_ends_with_the_engine(tmp_path: Path) -> None:
    """A stopped sidecar left its builder behind."""
    bench = Bench(tmp_path)
    async with bench:
        await bench.ask()
        pid = bench.engine.builder_id
        assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(ContextFailed):
        await bench.ask()
    await bench.engine.stop()


async def test_bad_requests_and_missing_directories_are_told(tmp_path: Path) -> None:
    """An unknown requirement or a directory that is gone ended in an unexpected error."""
    async with Bench(tmp_path) as bench:
        with pytest.raises(BadRequest, match="ci_configs"):
            await bench.ask(requirements=("ci_config",))
        with pytest.raises(BadRequest, match="max_bytes"):
            await bench.ask(max_bytes=0)
        gone = msgspec.structs.replace(bench.project, path=str(tmp_path / "gone"))
        with pytest.raises(ContextFailed, match="gone"):
            await bench.engine.build(gone, ContextRequest(issue_id="i", agent_type="python-specialist"))
        assert (await bench.ask()).body


async def test_projects_are_apart(tmp_path: Path) -> None:
    """One project's file came up in another's context."""
    async with Bench(tmp_path) as bench:
        other = tmp_path / "other"
        write_files(other, {"x.py": "other_project_word = 1\n"})
        project = Project(project_id="q", path=str(other), created_at=0.0)
        request = ContextRequest(issue_id="i", agent_type="python-specialist", task="other_project_word account")
        theirs = await bench.engine.build(project, request)
        ours = await bench.engine.build(bench.project, request)
        assert b"other_project_word = 1" in theirs.body
        assert b"other_project_word = 1" not in ours.body


async def test_search_explain_and_markdown(tmp_path: Path) -> None:
    """What the command line shows did not come through the process boundary."""
    async with Bench(tmp_path) as bench:
        hits = await bench.engine.search(bench.project, "balance", 2)
        assert hits[0].path == "ledger/accounts.py"
        told = await bench.engine.explain(
            bench.project, ContextRequest(issue_id="i", agent_type="python-specialist", task="balance", max_bytes=300)
        )
        assert told["files"][0]["signals"]
        text = bench.engine.markdown(await bench.ask())
        assert "### `ledger/accounts.py`" in text
        assert "## Recent commits" in text
        assert "Cents only" in text


async def test_the_loop_never_stands_still_while_a_large_project_is_indexed(tmp_path: Path) -> None:
    """Indexing held up every other request of the sidecar."""
    async with Bench(tmp_path) as bench:
        write_files(bench.root, {f"gen/m{n}.py": f"def name{n}(value):\n    return value\n" * 20 for n in range(1500)})
        build = asyncio.create_task(bench.ask())
        turns = 0
        while not build.done():
            turns += 1
            await asyncio.sleep(0.001)
        assert (await build).document["context"]["project_structure"]["total_files"] > 1500
        assert turns > 20


async def test_a_result_during_a_build_is_in_the_next_answer(tmp_path: Path) -> None:
    """A build that had read the results before a new one came put its old answer into the cache."""
    async with Bench(tmp_path) as bench:
        await bench.settled()
        building = asyncio.create_task(bench.ask("money", refresh=True))
        await asyncio.sleep(0)
        bench.results.results.append(result(1))
        bench.engine.results_changed("p")
        outputs = (await bench.ask("money")).document["context"]["previous_agent_outputs"]
        assert outputs[0]["agent"] == "agent_1"
        await building
        outputs = (await bench.ask("money")).document["context"]["previous_agent_outputs"]
        assert outputs[0]["agent"] == "agent_1"


def large(root: Path) -> None:
    """More than a megabyte beside what is there, so that a glance pays."""
    text = "def parse_header(line):\n    return line\n\n" * 90
    write_files(root, {f"gen/m{n}.py": f"def account_{n}(): ...\n{text}" for n in range(400)})


async def test_a_provisional_answer_comes_first_and_the_full_one_next(tmp_path: Path) -> None:
    """The provisional answer was given again from the cache, or after the full one was there."""
    async with Bench(tmp_path) as bench:
        large(bench.root)
        first = await bench.ask(partial=True)
        assert first.is_partial
        assert first.document["partial"] is True
        assert bench.engine.stats().entries == 0
        full = await bench.ask(partial=True)
        assert not full.is_partial
        assert "partial" not in full.document
        assert full.etag != first.etag
        assert bench.engine.stats().builds == 1, "the answer made behind the first one was not the next one"
        assert not (await bench.ask("balance", partial=True)).is_partial, "the project is known now"


async def test_the_full_answer_is_made_behind_the_provisional_one(tmp_path: Path) -> None:
    """Nobody indexed the project until somebody asked again."""
    async with Bench(tmp_path) as bench:
        large(bench.root)
        assert (await bench.ask(partial=True)).is_partial
        await until_async(lambda: bench.engine.stats().entries == 1, what="the full answer is there")


async def test_who_does_not_ask_for_it_gets_no_provisional_answer(tmp_path: Path) -> None:
    """An agent that reads its context once worked with a provisional one; ``refresh`` was given what may be old."""
    async with Bench(tmp_path) as bench:
        large(bench.root)
        built = await asyncio.gather(bench.ask(), bench.ask("money", partial=True, refresh=True), bench.ask("balance"))
        assert not any(one.is_partial or "partial" in one.document for one in built)


async def test_equal_provisional_requests_are_glanced_at_once(tmp_path: Path) -> None:
    """A hundred impatient clients read the whole project a hundred times."""
    async with Bench(tmp_path) as bench:
        large(bench.root)
        answers = await asyncio.gather(*(bench.ask(partial=True) for _ in range(50)))
        assert len({answer.body for answer in answers}) == 1
        assert answers[0].is_partial
        assert not (await bench.ask()).is_partial
        assert bench.engine.stats().builds == 1


async def test_a_result_during_a_glance_is_in_the_next_answer(tmp_path: Path) -> None:
    """Who asked after a result was stored shared a provisional answer that had been begun before it."""
    async with Bench(tmp_path) as bench:
        large(bench.root)
        first = asyncio.create_task(bench.ask(partial=True))
        await until_async(lambda: bool(bench.engine._builder._pending), what="the builder was asked")
        bench.results.results.append(result(1))
        bench.engine.results_changed("p")
        outputs = (await bench.ask(partial=True)).document["context"]["previous_agent_outputs"]
        assert outputs[0]["agent"] == "agent_1"
        assert (await first).is_partial


async def test_a_small_project_gets_the_full_answer_at_once(tmp_path: Path) -> None:
    """A project that is indexed in milliseconds was answered provisionally."""
    async with Bench(tmp_path) as bench:
        assert not (await bench.ask(partial=True)).is_partial


async def test_a_provisional_answer_survives_its_builder(tmp_path: Path) -> None:
    """A builder that was killed while it glanced left the request without an answer."""
    async with Bench(tmp_path) as bench:
        large(bench.root)
        killed = bench.engine.builder_id
        assert killed is not None
        os.kill(killed, signal.SIGSTOP)
        asked = asyncio.create_task(bench.ask(partial=True))
        await until_async(lambda: bool(bench.engine._builder._pending), what="the builder was asked")
        os.kill(killed, signal.SIGKILL)
        assert (await asked).is_partial
        assert bench.engine.builder_id not in (None, killed)
        assert not (await bench.ask()).is_partial


async def test_a_glance_fails_like_any_other_request(tmp_path: Path) -> None:
    """A directory that is gone ended in an unexpected error, or left the next request waiting for the failed one."""
    async with Bench(tmp_path) as bench:
        gone = msgspec.structs.replace(bench.project, path=str(tmp_path / "gone"))
        request = ContextRequest(issue_id="i", agent_type="python-specialist", partial=True)
        for _ in range(2):
            with pytest.raises(ContextFailed, match="gone"):
                await bench.engine.build(gone, request)


async def test_stopping_ends_what_is_glanced_at(tmp_path: Path) -> None:
    """A stop during a provisional answer or a warm-up left tasks behind that nobody waited for."""
    bench = Bench(tmp_path)
    async with bench:
        large(bench.root)
        bench.engine.warm(bench.project)
        asked = asyncio.create_task(bench.ask(partial=True))
        await until_async(lambda: bool(bench.engine._builder._pending), what="the builder was asked")
    with pytest.raises((asyncio.CancelledError, ContextFailed)):
        await asked
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def test_a_warm_project_is_known(tmp_path: Path) -> None:
    """A project was indexed only when the first agent waited for it, or a failed warm-up was heard of."""
    async with Bench(tmp_path) as bench:
        large(bench.root)
        bench.engine.warm(msgspec.structs.replace(bench.project, path=str(tmp_path / "gone")))
        bench.engine.warm(bench.project)
        await until_async(lambda: not bench.engine._warmups, what="the warm-ups have ended")
        assert not (await bench.ask(partial=True)).is_partial
        stats = (await bench.engine._builder.ask(what="stats")).data
        assert stats["files"] > 400

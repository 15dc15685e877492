"""Events on the stdin of real agents that do not read for a while, or never."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestrator.config import EventSettings, Settings
from orchestrator.events.query import EventQuery
from orchestrator.models import DeadLetter, EventDraft
from orchestrator.supervisor import Supervisor
from tests.support.supervisors import PATIENCE_S, PROJECT, ended, python_agent, running_supervisor, settings
from tests.support.waiting import PAUSE_S

#: A topic that the role of ``python_agent`` subscribes to.
TOPIC = "testing"
#: Far more than a worker keeps for one agent (1 MiB) and a pipe holds.
MANY, BLOB = 30, "x" * 100_000
#: Reads once the file ``go`` is there; keeps what it read, without blobs, until an event of the type ``last``.
LISTENER = """
import json, os, time
go = {go!r}
while go and not os.path.exists(go):
    time.sleep(0.01)
heard = []
for line in open(0):
    event = json.loads(line)
    event.get("data", {{}}).pop("blob", None)
    heard.append(event)
    if event.get("event_type") == "last":
        break
print(json.dumps({{"type": "result", "result": {{"status": "success", "heard": heard}}}}))
"""
DEAF = "import signal; signal.pause()"


def with_events(**events: Any) -> Settings:
    """Settings of a small pool with these of ``[events]``."""
    return msgspec.structs.replace(settings(), events=EventSettings(**events))


async def publish(supervisor: Supervisor, event_type: str = "e", **data: Any) -> int:
    """Publish to the agents' topic; the event's sequence number."""
    draft = EventDraft(event_type=event_type, publisher="x", topic=TOPIC, data=data)
    return (await supervisor.bus.publish(PROJECT, draft)).event.seq


async def spawn(supervisor: Supervisor, code: str) -> str:
    """Start an agent; its id, once it is fed."""
    return (await supervisor.agents.spawn(python_agent(code))).record.agent_id


async def heard(supervisor: Supervisor, agent_id: str) -> list[dict[str, Any]]:
    """What an ended listener heard."""
    record = await ended(supervisor, agent_id)
    assert record.result_id is not None
    lines: list[dict[str, Any]] = (await supervisor.results.get(PROJECT, record.result_id)).result["heard"]
    return lines


async def letters_of(
    supervisor: Supervisor, count: int, test: Callable[[DeadLetter], bool] = lambda letter: True
) -> list[DeadLetter]:
    """The dead letters that pass a test, once there are ``count`` of them."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = [letter for letter in await supervisor.bus.dead_letters(PROJECT, limit=1000) if test(letter)]
            if len(found) >= count:
                return found
            await asyncio.sleep(PAUSE_S)


async def flood(supervisor: Supervisor) -> list[int]:
    """Publish more than an agent takes that does not read; the events' sequence numbers."""
    return [await publish(supervisor, n=n, blob=BLOB) for n in range(MANY)]


async def stall(supervisor: Supervisor, deaf: str) -> list[int]:
    """``flood``, and return once another agent has read it all.

    Both are fed by the same worker, line by line: what was refused for the first was refused by then.
    """
    other = await spawn(supervisor, LISTENER.format(go=""))
    seqs = await flood(supervisor)
    await publish(supervisor, "last")
    assert [int(line["cursor"]) for line in await heard(supervisor, other)][:MANY] == seqs
    assert deaf in supervisor.registry.live
    return seqs


async def test_an_agent_that_reads_late_gets_everything_in_order(tmp_path: Path) -> None:
    """What did not fit into the pipe of an agent that was busy for a moment became a dead letter at once."""
    go = tmp_path / "go"
    async with running_supervisor(tmp_path, with_events(max_deliveries=100)) as supervisor:
        agent_id = await spawn(supervisor, LISTENER.format(go=str(go)).replace('"last"', '"very-last"'))
        seqs = await stall(supervisor, agent_id)
        go.touch()
        later = [await publish(supervisor, n=n) for n in range(MANY, MANY + 5)]
        await publish(supervisor, "very-last")
        lines = [line for line in await heard(supervisor, agent_id) if line["event_type"] == "e"]
        assert [int(line["cursor"]) for line in lines] == [*seqs, *later]
        assert await supervisor.bus.dead_letters(PROJECT) == []


async def test_what_an_agent_never_reads_is_tried_again_then_a_dead_letter(tmp_path: Path) -> None:
    """Events to an agent that never reads were kept in memory without end, given up at once, or lost."""
    async with running_supervisor(tmp_path, with_events(max_deliveries=2)) as supervisor:
        agent_id = await spawn(supervisor, DEAF)
        seqs = await flood(supervisor)
        newest = int(await supervisor.bus.position(PROJECT))
        letters = await letters_of(supervisor, 1)
        first = letters[0].event.seq
        assert seqs[5] < first < seqs[-1]
        # All that came after the first that did not fit, each once and in order; what is about itself is not for it.
        page = await supervisor.bus.replay(PROJECT, EventQuery(topic=TOPIC, since=str(first - 1), limit=1000))
        expected = [event.seq for event in page.events if event.seq <= newest]
        letters = await letters_of(supervisor, len(expected))
        assert [letter.event.seq for letter in letters[: len(expected)]] == expected
        for letter in letters:
            assert (letter.target, letter.reason, letter.attempts) == (f"stdin:{agent_id}", "stdin_full", 2)
            assert letter.last_error == "the agent does not read its stdin"


async def test_a_redriven_letter_is_tried_again_and_fails_as_it_did(tmp_path: Path) -> None:
    """A redriven event counted as delivered although the agent still did not read, or after its end."""
    async with running_supervisor(tmp_path, with_events(max_deliveries=2)) as supervisor:
        agent_id = await spawn(supervisor, DEAF)
        await flood(supervisor)
        letter = (await letters_of(supervisor, 1))[0]
        await supervisor.bus.redrive(PROJECT, letter.id)

        def is_back(found: DeadLetter) -> bool:
            return found.event.seq == letter.event.seq and found.id > letter.id

        again = (await letters_of(supervisor, 1, is_back))[0]
        assert (again.reason, again.attempts) == ("stdin_full", 2)
        await supervisor.agents.terminate(supervisor.registry.live[agent_id].record, force=True)
        await supervisor.bus.redrive(PROJECT, again.id)
        last = (await letters_of(supervisor, 1, lambda found: is_back(found) and found.id > again.id))[0]
        assert (last.reason, last.attempts) == ("agent_ended", 1)


async def test_a_redriven_letter_reaches_an_agent_that_reads_again(tmp_path: Path) -> None:
    """What was given up could not be had any more by the agent that it was for, or showed among its messages."""
    go = tmp_path / "go"
    async with running_supervisor(tmp_path, with_events(max_deliveries=2)) as supervisor:
        agent_id = await spawn(supervisor, LISTENER.format(go=str(go)).replace('"last"', '"very-last"'))
        live = supervisor.registry.live[agent_id]
        await flood(supervisor)
        letters = await letters_of(supervisor, 1)
        go.touch()
        await supervisor.bus.redrive(PROJECT, letters[0].id)
        async with asyncio.timeout(PATIENCE_S):
            while await supervisor.storage.count_deliveries(PROJECT):
                await asyncio.sleep(PAUSE_S)
        await publish(supervisor, "very-last")
        cursors = [int(line.get("cursor", 0)) for line in await heard(supervisor, agent_id)]
        assert cursors.count(letters[0].event.seq) == 1
        assert live.inputs == {}


async def test_an_agent_is_told_where_events_were_given_up(tmp_path: Path) -> None:
    """An agent that read on after its events had become dead letters did not know that any were missing."""
    go = tmp_path / "go"
    async with running_supervisor(tmp_path, with_events(max_deliveries=2)) as supervisor:
        agent_id = await spawn(supervisor, LISTENER.format(go=str(go)).replace('"last"', '"very-last"'))
        seqs = await flood(supervisor)
        await letters_of(supervisor, 1, lambda letter: letter.event.seq == seqs[-1])
        go.touch()
        newest = await publish(supervisor, "very-last")
        lines = await heard(supervisor, agent_id)
        reached, holes = 0, set()
        for line in lines:
            if line["type"] == "gap":
                holes |= set(range(reached + 1, int(line["oldest_cursor"]) + 1))
            reached = int(line["oldest_cursor" if line["type"] == "gap" else "cursor"])
        letters = [letter.event.seq for letter in await supervisor.bus.dead_letters(PROJECT, limit=1000)]
        # What it did not get is told in its place, whether or not one telling was enough.
        assert letters
        assert set(letters) <= holes
        assert set(seqs) - set(letters) <= {int(line["cursor"]) for line in lines if line["type"] == "event"}
        assert int(lines[-1]["cursor"]) == newest


async def test_a_late_reader_is_told_what_it_missed(tmp_path: Path) -> None:
    """An agent that read so late that events were gone went on behind the hole without knowing of it."""
    go = tmp_path / "go"
    async with running_supervisor(tmp_path, with_events(max_deliveries=100, keep=MANY + 20)) as supervisor:
        agent_id = await spawn(supervisor, LISTENER.format(go=str(go)).replace('"last"', '"very-last"'))
        await stall(supervisor, agent_id)
        for n in range(100):
            await publish(supervisor, n=n)
        go.touch()
        newest = await publish(supervisor, "very-last")
        lines = await heard(supervisor, agent_id)
        at = next(n for n, line in enumerate(lines) if line["type"] == "gap")
        oldest = int(lines[at]["oldest_cursor"])
        assert lines[at]["gap"] is True
        before = [int(line["cursor"]) for line in lines[:at]]
        after = [int(line["cursor"]) for line in lines[at + 1 :]]
        assert before == sorted(set(before))
        assert before[-1] < oldest
        assert after == list(range(oldest + 1, newest + 1))


async def test_a_burst_beyond_what_is_kept_is_told(tmp_path: Path) -> None:
    """Events that were gone before they could be written to an agent were left out without a word."""
    async with running_supervisor(tmp_path, with_events(keep=5)) as supervisor:
        agent_id = await spawn(supervisor, LISTENER.format(go=""))
        await asyncio.gather(*(publish(supervisor, n=n) for n in range(500)))
        newest = await publish(supervisor, "last")
        lines = [line for line in await heard(supervisor, agent_id) if line.get("topic") in (TOPIC, None)]
        assert any(line["type"] == "gap" for line in lines), json.dumps(lines)[:500]
        seen = 0
        for line in lines:
            if line["type"] == "gap":
                seen = max(seen, int(line["oldest_cursor"]))
            else:
                # Nothing is missing between two lines but what a gap between them tells of.
                assert seen in (0, int(line["cursor"]) - 1)
                seen = int(line["cursor"])
        assert seen == newest


async def test_an_agent_that_ended_at_once_is_fed_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent whose end was seen before it was attached to the events counted as their subscriber for ever."""
    async with running_supervisor(tmp_path) as supervisor:
        position = supervisor.bus.position

        async def late_position(project_id: str) -> str:
            async with asyncio.timeout(PATIENCE_S):
                while any(live.facts.empty() for live in supervisor.registry.live.values()):
                    await asyncio.sleep(PAUSE_S)
            return await position(project_id)

        monkeypatch.setattr(supervisor.bus, "position", late_position)
        agent_id = await spawn(supervisor, "")
        await ended(supervisor, agent_id)
        draft = EventDraft(event_type="e", publisher="x", topic=TOPIC, data={})
        assert agent_id not in (await supervisor.bus.publish(PROJECT, draft)).subscribers


@pytest.mark.parametrize("size", [(1 << 20) - 100])
async def test_the_largest_event_reaches_an_agent(tmp_path: Path, size: int) -> None:
    """An event as large as events may be was larger than what may wait for a stdin, and so never delivered."""
    async with running_supervisor(tmp_path) as supervisor:
        agent_id = await spawn(supervisor, LISTENER.format(go=""))
        largest = await publish(supervisor, blob="x" * size)
        await publish(supervisor, "last")
        assert largest in [int(line["cursor"]) for line in await heard(supervisor, agent_id)]

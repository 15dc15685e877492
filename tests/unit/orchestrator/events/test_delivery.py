"""The courier, dead letters, triggers and webhooks, over a real storage and real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import apsw
import msgspec
import pytest

from orchestrator.clock import SystemClock
from orchestrator.config import EventSettings
from orchestrator.errors import ConfigInvalid, NotFound, PoolSaturated, SidecarError, UnknownAgentType
from orchestrator.events.delivery import LONGEST_BACKOFF_S, Courier, DeliveryFailed, Handler, backoff_s
from orchestrator.events.rules import RuleBook, parse_event_rules
from orchestrator.events.triggers import TriggerRunner, render
from orchestrator.events.webhooks import WebhookSender, is_allowed, parse_target, sign
from orchestrator.models import AgentRecord, Delivery, Run, SpawnRequest
from tests.support.certificates import write_pair
from tests.support.events import PROJECT, Sidecar, make_event, running
from tests.support.storages import ManualClock, agent_record

HOOK = """
[webhooks.ci]
url = "http://127.0.0.1:{port}/hook?x=1"
secret = "s3cret"
on = "note"
filter = "k:1"
allow = ["127.0.0.0/8"]
"""
TRIGGER = """
[triggers.review]
on = ["agent_completed"]
filter = "agent_type:go-*"
spawn = "code-reviewer"
task = "Review {data.agent_type} of {data.issue_id} {absent}{event_type}"
"""


class Desk:
    """A courier with its rules in a project directory; handlers are given by the test."""

    def __init__(self, sidecar: Sidecar, project: Path, handlers: dict[str, Handler]) -> None:
        self.sidecar = sidecar
        self.rules = RuleBook(lambda project_id: str(project) if project_id == PROJECT else None)
        self.courier = Courier(
            sidecar.bus, sidecar.storage, self.rules, handlers, clock=sidecar.clock, chance=lambda: 1.0
        )

    async def settled(self, *, letters: int = 0) -> None:
        """Return when the outbox is empty, letting time pass for what is put off."""
        async with asyncio.timeout(20):
            while await self.sidecar.storage.count_deliveries() or self.sidecar.bus.letters.count < letters:
                self.sidecar.clock.seconds += 30
                await asyncio.sleep(0.01)

    async def enqueued(self, count: int) -> None:
        """Return when ``count`` deliveries were written."""
        async with asyncio.timeout(20):
            while await self.sidecar.storage.count_deliveries() < count:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def desk(
    sidecar: Sidecar, directory: Path, text: str, make: Callable[[Desk], dict[str, Handler]]
) -> AsyncIterator[Desk]:
    """A started courier."""
    project = directory / "project"
    await asyncio.to_thread(project.mkdir, exist_ok=True)
    await asyncio.to_thread((project / "orchestrator.toml").write_text, text)
    handlers: dict[str, Handler] = {}
    made = Desk(sidecar, project, handlers)
    made.courier._handlers.update(make(made))
    await made.courier.start([PROJECT])
    await asyncio.sleep(0)
    try:
        yield made
    finally:
        await made.courier.stop()


def recorder(seen: list[Delivery], fail: Callable[[Delivery], Exception | None] = lambda delivery: None) -> Handler:
    """A handler that keeps what it is given, and fails where ``fail`` says so."""

    async def handle(delivery: Delivery) -> None:
        seen.append(delivery)
        error = fail(delivery)
        if error is not None:
            raise error

    return handle


async def test_matching_events_are_pushed_once_over_a_restart(tmp_path: Path) -> None:
    """A restart pushed the same events again, or forgot those published while nothing was routed."""
    seen: list[Delivery] = []
    async with running(tmp_path / "s") as sidecar:
        await sidecar.publish(data={"k": 1})
        async with desk(sidecar, tmp_path, HOOK.format(port=1), lambda _: {"webhook": recorder(seen)}) as made:
            await sidecar.publish(data={"k": 1})
            await sidecar.publish(data={"k": 2})
            async with asyncio.timeout(10):
                while not seen:
                    await asyncio.sleep(0.01)
            await made.settled()
        await sidecar.publish(data={"k": 1})
        await sidecar.restart()
        async with desk(sidecar, tmp_path, HOOK.format(port=1), lambda _: {"webhook": recorder(seen)}) as made:
            async with asyncio.timeout(10):
                while len(seen) < 2:
                    await asyncio.sleep(0.01)
            await made.settled()
        assert [delivery.event.seq for delivery in seen] == [2, 4]


async def test_the_first_event_survives_an_outbox_that_refuses_it(tmp_path: Path) -> None:
    """Where routing began was written with the first page only: an event that was refused then was never pushed."""
    seen: list[Delivery] = []
    no_room = "CREATE TRIGGER no_room BEFORE INSERT ON deliveries BEGIN SELECT RAISE(ABORT, 'no room'); END"
    async with running(tmp_path / "s") as sidecar:
        await sidecar.publish(data={"k": 1})
        await change_schema(sidecar, no_room)
        refused = False
        async with desk(sidecar, tmp_path, HOOK.format(port=1), lambda _: {"webhook": recorder(seen)}) as made:
            await sidecar.publish(data={"k": 1})
            page = made.courier._route_page

            async def watched(project_id: str, position: str) -> tuple[str, bool]:
                nonlocal refused
                try:
                    return await page(project_id, position)
                except SidecarError:
                    refused = True
                    raise

            made.courier._route_page = watched  # type: ignore[method-assign]
            async with asyncio.timeout(20):
                while not refused:
                    await asyncio.sleep(0.01)
        await change_schema(sidecar, "DROP TRIGGER no_room")
        await sidecar.restart()
        async with desk(sidecar, tmp_path, HOOK.format(port=1), lambda _: {"webhook": recorder(seen)}) as made:
            await sidecar.publish(data={"k": 1})
            async with asyncio.timeout(20):
                while len(seen) < 2:
                    await asyncio.sleep(0.01)
            await made.settled()
        assert sorted(delivery.event.seq for delivery in seen) == [2, 3]


async def change_schema(sidecar: Sidecar, statement: str) -> None:
    """Run a statement from beside the storage."""

    def change() -> None:
        connection = apsw.Connection(str(sidecar.directory / "orchestrator.db"))
        connection.set_busy_timeout(10_000)
        connection.execute(statement)
        connection.close()

    await asyncio.to_thread(change)


async def test_the_outbox_waits_until_the_rules_are_read(tmp_path: Path) -> None:
    """What a killed sidecar had left to do became a dead letter, since its rule was not known yet at the next start."""
    known: list[bool] = []
    async with running(tmp_path / "s") as sidecar:

        def forever(_: Desk) -> dict[str, Handler]:
            async def handle(_delivery: Delivery) -> None:
                await asyncio.Event().wait()

            return {"webhook": handle}

        async with desk(sidecar, tmp_path, HOOK.format(port=1), forever) as made:
            await sidecar.publish(data={"k": 1})
            await made.enqueued(1)

        def look(made: Desk) -> dict[str, Handler]:
            async def handle(_delivery: Delivery) -> None:
                known.append(bool(made.rules.rules(PROJECT).webhooks))

            return {"webhook": handle}

        async with desk(sidecar, tmp_path, HOOK.format(port=1), look) as made:
            await made.settled()
    assert known == [True]


async def test_what_ends_while_the_outbox_is_read_is_not_pushed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A push that ended between the look into the outbox and its answer was done, or became a dead letter, twice."""
    seen: list[int] = []
    let_go = asyncio.Event()

    async def hold(delivery: Delivery) -> None:
        seen.append(delivery.event.seq)
        if delivery.event.seq == 1:
            await let_go.wait()

    async with (
        running(tmp_path / "s") as sidecar,
        desk(sidecar, tmp_path, HOOK.format(port=1), lambda _: {"webhook": hold}) as made,
    ):
        await sidecar.publish(data={"k": 1})
        async with asyncio.timeout(20):
            while not seen:
                await asyncio.sleep(0.01)
        look = sidecar.storage.due_deliveries

        async def look_for_long(now: float, limit: int) -> list[Delivery]:
            found = await look(now, limit)
            if any(delivery.event.seq == 1 for delivery in found):
                let_go.set()
                while made.courier._carried:
                    await asyncio.sleep(0.01)
            return found

        monkeypatch.setattr(sidecar.storage, "due_deliveries", look_for_long)
        await sidecar.publish(data={"k": 1})
        await made.settled()
        assert seen == [1, 2]


async def test_failures_are_retried_then_kept_then_redriven(tmp_path: Path) -> None:
    """A failing target was tried for ever, or its event was lost."""
    seen: list[Delivery] = []
    is_broken = True

    def fail(delivery: Delivery) -> Exception | None:
        return DeliveryFailed("status", "the target answered 500") if is_broken else None

    async with (
        running(tmp_path / "s", settings=EventSettings(max_deliveries=3)) as sidecar,
        desk(sidecar, tmp_path, HOOK.format(port=1), lambda _: {"webhook": recorder(seen, fail)}) as made,
    ):
        await sidecar.publish(data={"k": 1})
        await made.settled(letters=1)
        assert [delivery.attempts for delivery in seen] == [0, 1, 2]
        (letter,) = await sidecar.bus.dead_letters(PROJECT)
        assert (letter.target, letter.reason, letter.attempts) == ("webhook:ci", "status", 3)
        assert "500" in letter.last_error
        assert sidecar.bus.stats().dead_letter_queue_size == 1
        with pytest.raises(NotFound):
            await sidecar.bus.redrive("p2", letter.id)
        is_broken = False
        await sidecar.bus.redrive(PROJECT, letter.id)
        await made.settled()
        assert len(seen) == 4
        assert await sidecar.bus.dead_letters(PROJECT) == []
        with pytest.raises(NotFound):
            await sidecar.bus.redrive(PROJECT, letter.id)


async def test_a_handler_that_raises_anything_becomes_a_dead_letter(tmp_path: Path) -> None:
    """An unexpected exception killed the courier and with it every later delivery."""
    seen: list[Delivery] = []

    def fail(delivery: Delivery) -> Exception | None:
        return ZeroDivisionError("boom") if delivery.event.seq == 1 else None

    async with (
        running(tmp_path / "s", settings=EventSettings(max_deliveries=2)) as sidecar,
        desk(sidecar, tmp_path, HOOK.format(port=1), lambda _: {"webhook": recorder(seen, fail)}) as made,
    ):
        await sidecar.publish(data={"k": 1})
        await sidecar.publish(data={"k": 1})
        await made.settled(letters=1)
        (letter,) = await sidecar.bus.dead_letters(PROJECT)
        assert letter.reason == "error"
        assert "boom" in letter.last_error
        assert 2 in [delivery.event.seq for delivery in seen]


async def test_dead_letters_are_bounded_and_purged_by_filter(tmp_path: Path) -> None:
    """A broken target filled the disk with dead letters."""
    async with running(tmp_path / "s", settings=EventSettings(dead_letters=3)) as sidecar:
        letters = sidecar.bus.letters
        for n in range(5):
            event = await sidecar.publish(data={"n": n})
            await letters.add(PROJECT, event, target="agent:ag_1", reason="dead", attempts=1, last_error="gone")
        assert (letters.count, letters.dropped) == (3, 2)
        assert [letter.event.data["n"] for letter in await letters.page(PROJECT)] == [2, 3, 4]
        assert await letters.purge_matching(PROJECT, "n:>3") == 1
        assert len(await letters.redrive_matching(PROJECT, None)) == 2
        assert (letters.count, await sidecar.storage.count_deliveries()) == (0, 2)


@pytest.mark.parametrize("is_redrive", [True, False])
async def test_two_who_redrive_or_purge_all_at_once_share_them(tmp_path: Path, is_redrive: bool) -> None:
    """One letter that the other had taken ended the whole request with "not found", half done."""
    async with running(tmp_path / "s") as sidecar:
        letters = sidecar.bus.letters

        async def work() -> int:
            if is_redrive:
                return len(await letters.redrive_matching(PROJECT, None))
            return await letters.purge_matching(PROJECT, None)

        for n in range(5):
            event = await sidecar.publish(data={"n": n})
            await letters.add(PROJECT, event, target="agent:ag_1", reason="dead", attempts=1, last_error="gone")
        assert sum(await asyncio.gather(work(), work())) == 5
        assert letters.count == await sidecar.storage.count_dead_letters() == 0


def test_backoff_doubles_with_jitter_and_is_bounded() -> None:
    """Retries of many deliveries came all at once, or hours apart."""
    assert [backoff_s(n, 1.0) for n in (1, 2, 3, 4)] == [1.0, 2.0, 4.0, 8.0]
    assert backoff_s(3, 0.0) == 2.0
    assert backoff_s(10_000, 1.0) == LONGEST_BACKOFF_S


# -- triggers ---------------------------------------------------------------------------------


class Spawner:
    """Keeps an agent's record for each spawn, as the agents' service does."""

    def __init__(self, sidecar: Sidecar, fail: Exception | None = None) -> None:
        self.sidecar = sidecar
        self.requests: list[SpawnRequest] = []
        self.fail = fail
        self.hangs_before = self.hangs_after = False
        self.is_reached = asyncio.Event()

    async def spawn(self, request: SpawnRequest) -> AgentRecord:
        if self.fail is not None:
            raise self.fail
        if self.hangs_before:
            self.is_reached.set()
            await asyncio.Event().wait()
        self.requests.append(request)
        record = agent_record(f"ag_t{len(self.requests)}", project=PROJECT, spawned_by=request.spawned_by)
        await self.sidecar.storage.put_agent(record)
        if self.hangs_after:
            await asyncio.Event().wait()
        return record


def runner(spawner: Spawner) -> Callable[[Desk], dict[str, Handler]]:
    """The trigger handler of a desk."""

    def make(made: Desk) -> dict[str, Handler]:
        sidecar = made.sidecar
        return {
            "trigger": TriggerRunner(
                made.rules, sidecar.storage, sidecar.storage, spawner.spawn, sidecar.settings, sidecar.clock
            ).deliver
        }

    return make


DONE = {"agent_type": "go-specialist", "issue_id": "i7", "agent_id": "ag_1"}


async def test_a_trigger_spawns_from_its_template(tmp_path: Path) -> None:
    """The spawned agent did not know what it was started for."""
    async with running(tmp_path / "s") as sidecar:
        spawner = Spawner(sidecar)
        async with desk(sidecar, tmp_path, TRIGGER, runner(spawner)) as made:
            event = await sidecar.publish("agent_completed", data=DONE)
            await sidecar.publish("agent_completed", data={**DONE, "agent_type": "rust-specialist"})
            await made.enqueued(0)
            async with asyncio.timeout(10):
                while not spawner.requests:
                    await asyncio.sleep(0.01)
            await made.settled()
        (request,) = spawner.requests
        assert (request.agent_type, request.issue_id) == ("code-reviewer", "i7")
        assert request.task == "Review go-specialist of i7 agent_completed"
        assert request.correlation_id == event.event_id
        assert request.spawned_by == f"trigger:review:1:{event.event_id}"


async def test_a_trigger_fires_once_although_the_sidecar_dies_after_the_spawn(tmp_path: Path) -> None:
    """After a crash between spawn and bookkeeping the agent was spawned a second time."""
    async with running(tmp_path / "s") as sidecar:
        spawner = Spawner(sidecar)
        spawner.hangs_after = True
        async with desk(sidecar, tmp_path, TRIGGER, runner(spawner)):
            await sidecar.publish("agent_completed", data=DONE)
            async with asyncio.timeout(10):
                while not spawner.requests:
                    await asyncio.sleep(0.01)
        assert await sidecar.storage.count_deliveries() == 1
        await sidecar.restart()
        spawner.sidecar, spawner.hangs_after = sidecar, False
        async with desk(sidecar, tmp_path, TRIGGER, runner(spawner)) as made:
            await made.settled()
        assert len(spawner.requests) == 1


async def test_a_trigger_fires_although_the_sidecar_dies_before_the_spawn(tmp_path: Path) -> None:
    """A claim that was taken before the crash kept the trigger from ever firing."""
    async with running(tmp_path / "s") as sidecar:
        spawner = Spawner(sidecar)
        spawner.hangs_before = True
        async with desk(sidecar, tmp_path, TRIGGER, runner(spawner)):
            await sidecar.publish("agent_completed", data=DONE)
            async with asyncio.timeout(10):
                await spawner.is_reached.wait()
        await sidecar.restart()
        spawner.sidecar, spawner.hangs_before = sidecar, False
        async with desk(sidecar, tmp_path, TRIGGER, runner(spawner)) as made:
            await made.settled()
        assert len(spawner.requests) == 1


async def test_a_cycle_of_triggers_ends(tmp_path: Path) -> None:
    """Two agents whose ends start one another ran for ever."""
    text = TRIGGER.replace("go-*", "*")
    async with running(tmp_path / "s", settings=EventSettings(trigger_depth=3)) as sidecar:
        spawner = Spawner(sidecar)
        async with desk(sidecar, tmp_path, text, runner(spawner)) as made:
            await sidecar.publish("agent_completed", data=DONE)
            for n in range(1, 5):
                async with asyncio.timeout(10):
                    while len(spawner.requests) < min(n, 3) or await sidecar.storage.count_deliveries():
                        await asyncio.sleep(0.01)
                if n <= 3:
                    await sidecar.publish("agent_completed", data={**DONE, "agent_id": f"ag_t{n}"})
            await made.settled(letters=1)
        assert [request.spawned_by.split(":")[2] for request in spawner.requests] == ["1", "2", "3"]
        (letter,) = await sidecar.bus.dead_letters(PROJECT)
        assert letter.reason == "depth"


@pytest.mark.parametrize("event_type", ["run_completed", "agent_completed", "reviewed"])
async def test_a_cycle_of_triggers_through_runs_ends(tmp_path: Path, event_type: str) -> None:
    """An agent that begins a run whose end, or whose agents, start it again ran for ever, a whole team each time."""
    text = TRIGGER.replace('"agent_completed"', f'"{event_type}"').replace('filter = "agent_type:go-*"', "")
    async with running(tmp_path / "s", settings=EventSettings(trigger_depth=3)) as sidecar:
        spawner = Spawner(sidecar)

        async def run_of(creator: str, number: int) -> None:
            """The run that ``creator`` began, with an agent of it and what is published of it."""
            run_id, agent_id = f"run-{number}", f"ag_r{number}"
            await sidecar.storage.put_run(stored_run(run_id, creator))
            member = agent_record(agent_id, project=PROJECT, run_id=run_id, spawned_by=run_id)
            await sidecar.storage.put_agent(member)
            data = {"run_completed": {"run_id": run_id}, "agent_completed": {"agent_id": agent_id}}.get(event_type, {})
            await sidecar.publish(event_type, data=data, publisher="supervisor" if data else agent_id)

        async with desk(sidecar, tmp_path, text, runner(spawner)) as made:
            await run_of("operator-1", 0)
            for number in range(1, 4):
                async with asyncio.timeout(10):
                    while len(spawner.requests) < number or await sidecar.storage.count_deliveries():
                        await asyncio.sleep(0.01)
                await run_of(f"ag_t{number}", number)
            await made.settled(letters=1)
        assert [request.spawned_by.split(":")[2] for request in spawner.requests] == ["1", "2", "3"]
        (letter,) = await sidecar.bus.dead_letters(PROJECT)
        assert letter.reason == "depth"


def stored_run(run_id: str, created_by: str) -> Run:
    """A run of ``PROJECT`` without steps."""
    return Run(
        run_id=run_id,
        project_id=PROJECT,
        issue_id="i7",
        task="t",
        workflow="team",
        status="completed",
        steps=[],
        created_at=1.0,
        updated_at=1.0,
        created_by=created_by,
    )


async def test_triggers_have_a_rate(tmp_path: Path) -> None:
    """A flood of events spawned a flood of agents."""
    async with running(tmp_path / "s", settings=EventSettings(triggers_per_minute=2, max_deliveries=1)) as sidecar:
        spawner = Spawner(sidecar)
        async with desk(sidecar, tmp_path, TRIGGER, runner(spawner)) as made:
            for _ in range(5):
                await sidecar.publish("agent_completed", data=DONE)
            async with asyncio.timeout(10):
                while sidecar.bus.letters.count < 3:
                    await asyncio.sleep(0.01)
            await made.settled(letters=3)
        assert len(spawner.requests) == 2
        assert {letter.reason for letter in await sidecar.bus.dead_letters(PROJECT)} == {"rate"}


@pytest.mark.parametrize(("error", "attempts"), [(UnknownAgentType("no such type"), 1), (PoolSaturated("full"), 3)])
async def test_spawns_that_cannot_succeed_are_not_repeated(tmp_path: Path, error: Exception, attempts: int) -> None:
    """An unknown agent type was tried again; a full pool was not."""
    async with running(tmp_path / "s", settings=EventSettings(max_deliveries=3)) as sidecar:
        spawner = Spawner(sidecar, fail=error)
        async with desk(sidecar, tmp_path, TRIGGER, runner(spawner)) as made:
            await sidecar.publish("agent_completed", data=DONE)
            await made.settled(letters=1)
        (letter,) = await sidecar.bus.dead_letters(PROJECT)
        assert letter.attempts == attempts


def test_templates_are_rendered_in_one_pass() -> None:
    """A field of an event that looks like a template was rendered too."""
    event = make_event({"a": "{data.b}", "b": "secret", "n": {"m": 1}})
    assert render("{data.a} {n.m} {b} {} {{b}} {missing}", event) == "{data.b} 1 secret {} {secret} "


# -- webhooks ---------------------------------------------------------------------------------


@asynccontextmanager
async def http_server(answer: bytes) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server on a free port of 127.0.0.1 that keeps each request and gives one answer."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(
            next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")).split()[1]
        )
        requests.append(head + await reader.readexactly(length))
        writer.write(answer)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], requests
    finally:
        server.close()
        await server.wait_closed()


async def post(sidecar: Sidecar, directory: Path, text: str, *, tls: ssl.SSLContext | None = None) -> None:
    """Deliver one event to the webhook ``ci`` of these rules."""
    await asyncio.to_thread((directory / "orchestrator.toml").write_text, text)
    rules = RuleBook(lambda project_id: str(directory))
    await rules.prepare(PROJECT)
    event = await sidecar.publish(data={"k": 1})
    delivery = Delivery(id="d", project_id=PROJECT, event=event, target="webhook:ci", created_at=0.0, next_at=0.0)
    await WebhookSender(sidecar.bus, rules, SystemClock(), tls=tls).deliver(delivery)


async def test_a_post_is_signed_and_complete(tmp_path: Path) -> None:
    """A receiver could not check who sent a post and when."""
    async with running(tmp_path / "s") as sidecar, http_server(b"HTTP/1.1 204 No Content\r\n\r\n") as (port, requests):
        await post(sidecar, tmp_path, HOOK.format(port=port))
        head, _, body = requests[0].partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
        assert head.startswith(b"POST /hook?x=1 HTTP/1.1\r\n")
        assert headers["Host"] == f"127.0.0.1:{port}"
        timestamp, digest = (part.split("=", 1)[1] for part in headers["X-Sidecar-Signature"].split(","))
        expected = hmac.new(b"s3cret", f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
        assert digest == expected
        assert sign("s3cret", int(timestamp), body) == headers["X-Sidecar-Signature"]
        decoded = msgspec.json.decode(body)
        assert (decoded["project_id"], decoded["event_type"], decoded["data"]) == (PROJECT, "note", {"k": 1})


@pytest.mark.parametrize(
    ("answer", "reason", "is_permanent"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", "status", True),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "status", True),
        (b"HTTP/1.1 429 Slow\r\n\r\n", "status", False),
        (b"HTTP/1.1 500 Oops\r\n\r\n", "status", False),
        (b"SSH-2.0-OpenSSH\r\n", "protocol", False),
        (b"x" * 100_000, "protocol", False),
        (b"", "protocol", False),
    ],
)
async def test_answers_that_are_no_success(tmp_path: Path, answer: bytes, reason: str, is_permanent: bool) -> None:
    """A redirect was followed, or a refusal was tried again."""
    async with running(tmp_path / "s") as sidecar, http_server(answer) as (port, _):
        with pytest.raises(DeliveryFailed) as caught:
            await post(sidecar, tmp_path, HOOK.format(port=port))
        assert (caught.value.reason, caught.value.is_permanent) == (reason, is_permanent)


async def test_an_answer_counts_although_the_connection_stays_open(tmp_path: Path) -> None:
    """A target that answered 200 and kept its TLS connection was given the same event again, as if it had not."""
    certificate, key = write_pair(tmp_path / "tls", "127.0.0.1")
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(certificate, key)
    is_delivered = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        plain, _ = listener.accept()
        with served.wrap_socket(plain, server_side=True) as connection:
            received = b""
            while b"\r\n\r\n{" not in received or not received.endswith(b"}"):
                received += connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            is_delivered.wait(30)

    serving = asyncio.create_task(asyncio.to_thread(answer))
    trust = ssl.create_default_context(cafile=str(certificate))
    async with running(tmp_path / "s") as sidecar:
        try:
            text = HOOK.format(port=listener.getsockname()[1]).replace("http://", "https://")
            await post(sidecar, tmp_path, text + "timeout_s = 5\n", tls=trust)
        finally:
            is_delivered.set()
            await serving
            listener.close()


async def test_private_targets_are_denied_unless_listed(tmp_path: Path) -> None:
    """A webhook reached a service on the machine itself."""
    async with running(tmp_path / "s") as sidecar, http_server(b"HTTP/1.1 200 OK\r\n\r\n") as (port, requests):
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]"):
            text = HOOK.format(port=port).replace('allow = ["127.0.0.0/8"]', "").replace("127.0.0.1", host)
            with pytest.raises(DeliveryFailed) as caught:
                await post(sidecar, tmp_path, text)
            assert caught.value.reason == "denied"
        assert requests == []


async def test_a_target_that_is_away_or_slow_can_be_tried_again(tmp_path: Path) -> None:
    """A refused connection became a dead letter at once; a silent server held the courier."""
    held: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda reader, writer: held.append(writer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with running(tmp_path / "s") as sidecar:
        with pytest.raises(DeliveryFailed) as caught:
            await post(sidecar, tmp_path, HOOK.format(port=port) + "timeout_s = 0.05\n")
        assert (caught.value.reason, caught.value.is_permanent) == ("timeout", False)
        for writer in held:
            writer.close()
        server.close()
        await server.wait_closed()
        with pytest.raises(DeliveryFailed) as caught:
            await post(sidecar, tmp_path, HOOK.format(port=port))
        assert (caught.value.reason, caught.value.is_permanent) == ("connection", False)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("fc00::1", False),
        ("ff02::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::a00:1", False),
        ("2002:7f00:1::", False),
    ],
)
def test_only_public_addresses(address: str, expected: bool) -> None:
    """An address of the machine's own network passed as public, in one of its disguises."""
    assert is_allowed(ipaddress.ip_address(address), ()) is expected


@pytest.mark.parametrize(
    "url", ["ftp://x/", "http://", "http://u:p@x/", "http://x/\r\nHost: y", "http://x:99999/", "x"]
)
def test_odd_urls_are_refused(url: str) -> None:
    """A URL smuggled a header or credentials into the request."""
    with pytest.raises(DeliveryFailed):
        parse_target(url)


# -- rules ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "document",
    [
        {"topics": 1},
        {"topics": {"strict": "yes"}},
        {"topics": {"security": {"publish": "x", "odd": 1}}},
        {"triggers": {"t": {"on": ["a"], "spawn": "x"}}},
        {"triggers": {"t": {"on": ["a"], "spawn": "x", "task": "y", "filter": "("}}},
        {"triggers": {"../t": {"on": ["a"], "spawn": "x", "task": "y"}}},
        {"webhooks": {"w": {"on": ["a b"], "url": "http://x", "secret": "s"}}},
    ],
)
def test_bad_rules_name_their_setting(document: dict[str, object]) -> None:
    """A typo in a project's file was ignored."""
    with pytest.raises(ConfigInvalid) as caught:
        parse_event_rules(document, "here.toml")
    assert caught.value.details["origin"] == "here.toml"
    assert caught.value.details["setting"]


@pytest.mark.parametrize("is_strict", [False, True])
def test_a_topic_counts_as_open_only_when_every_role_may_read_it(is_strict: bool) -> None:
    """Agents were fed a topic that their role may not read, because the topic was asked about and not the role."""
    named = {"secret": {"read": ["security-*"]}, "inbox": {"publish": ["security-*"]}}
    rules = parse_event_rules({"topics": {"strict": is_strict, **named}}, "here.toml").topics
    found = {topic: rules.is_open(topic) for topic in ("secret", "inbox", "coordination", "unknown")}
    assert found == {"secret": False, "inbox": True, "coordination": True, "unknown": not is_strict}
    assert found == {topic: rules.may_read(topic, "go-specialist") for topic in found}


async def test_a_bad_reload_keeps_the_rules_before_it(tmp_path: Path) -> None:
    """A half-written file took a project's topic rules away."""
    path = tmp_path / "orchestrator.toml"
    rules = RuleBook(lambda project_id: str(tmp_path))

    async def write(text: str) -> None:
        await asyncio.to_thread(path.write_text, text)
        await rules.prepare(PROJECT)

    await write("[topics]\nstrict = true\n")
    assert rules.topics(PROJECT).strict
    await write("[topics]\nstrict = tr")
    assert rules.topics(PROJECT).strict
    assert PROJECT in rules.errors
    await write("[topics]\nstrict = false # again\n")
    assert not rules.topics(PROJECT).strict
    assert rules.errors == {}
    await asyncio.to_thread(path.unlink)
    await rules.refresh()
    assert rules.rules(PROJECT).selections() == []


def test_a_clock_for_tests_moves_only_when_told() -> None:
    """The tests' clock ran by itself."""
    assert ManualClock(5.0).now() == 5.0

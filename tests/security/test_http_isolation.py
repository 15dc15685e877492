"""Every route with foreign ids, without a token and with a wrong one, from the table of routes: fault 66."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from api.routes.base import OPEN, Route
from api.routes.table import ALL_ROUTES
from orchestrator.models import DeadLetter, ResultDraft
from orchestrator.profiles.permissions import ADMIN, PERMISSIONS
from tests.support.api_fakes import ApiWorld, agent_record, api_world
from tests.support.asgi import AsgiClient

PROTECTED = [route for route in ALL_ROUTES if route.permission != OPEN]
BOUND = [route for route in PROTECTED if route.is_project_bound]
#: A body that each route with one takes.
BODIES: dict[str, Any] = {
    "post_context": {"task": "t"},
    "post_explain": {"task": "t"},
    "store_result": {"issue_id": "theirs", "result": {"status": "success"}},
    "publish": {"topic": "testing", "data": {"n": 1}},
    "spawn": {"agent_type": "go-specialist", "issue_id": "theirs", "task": "t"},
    "send_input": {"text": "hello"},
    "create_run": {"issue_id": "theirs", "task": "t"},
    "add_note": {"text": "remember"},
    "add_project": {"project_id": "three", "path": "/"},
}


def name_of(route: Route) -> str:
    """For the test's id."""
    return f"{route.method} {route.path}"


class Foreign:
    """Project ``two`` holds one of everything; callers of ``one`` try to get at it."""

    def __init__(self, world: ApiWorld) -> None:
        self.world = world
        self.names: dict[str, str] = {}

    async def prepare(self) -> None:
        """Make what belongs to project two."""
        services = self.world.services
        draft = ResultDraft(
            agent_id="their-agent", agent_type="go-specialist", issue_id="theirs", result={"status": "success"}
        )
        stored = await services.results.store("two", draft)
        services.agents.records["their-agent"] = agent_record("their-agent", "two")
        run = await services.runs.create("two", issue_id="theirs", task="t", workflow="team")
        (event,) = services.bus.events["two"]
        services.bus.letters["two"] = [
            DeadLetter(id="their-letter", event=event, target="t", reason="r", attempts=1, last_error="e", created_at=1)
        ]
        services.bus.consumer_names.add(("two", "their-reader"))
        self.world.services.context.cached.add(("two", "theirs"))
        self.names = {
            "issue_id": "theirs",
            "agent_type": "go-specialist",
            "result_id": stored.result.id,
            "event_type": "*",
            "agent_id": "their-agent",
            "run_id": run.run_id,
            "letter_id": "their-letter",
            "consumer": "their-reader",
        }

    def path(self, route: Route) -> str:
        """The route's path with the foreign names."""
        names = self.names | ({"event_type": "noted"} if "event_type" not in route.free_names else {})
        path = re.sub(r"<([^>]+)>", lambda match: names[match[1]], route.path)
        if route.path.endswith("/search"):
            return f"{path}?q=theirs"
        return f"{path}?timeout=0" if "/wait/" in path else path

    async def call(self, client: AsgiClient, route: Route, extra: str = "") -> Any:
        """One request of the route; streams are not entered."""
        path = self.path(route)
        if extra:
            path += ("&" if "?" in path else "?") + extra
        return await client.request(route.method, path, json_body=BODIES.get(route.handler.__name__))


@pytest.mark.parametrize("route", PROTECTED, ids=name_of)
async def test_every_protected_route_refuses_callers_without_a_good_token(tmp_path: Path, route: Route) -> None:
    """Forgotten authentication on one route gives away a project."""
    async with api_world(tmp_path) as world:
        foreign = Foreign(world)
        await foreign.prepare()
        for client in (world.anonymous(), AsgiClient(world.app, "a.b.c")):
            answer = await foreign.call(client, route)
            assert (answer.status, answer.code) == (401, "AUTH_001")
        ended = world.client(agent_id="gone")
        world.authority.end("gone")
        assert (await foreign.call(ended, route)).status == 401


@pytest.mark.parametrize("route", [route for route in PROTECTED if route.permission in PERMISSIONS], ids=name_of)
async def test_every_route_asks_for_its_permission(tmp_path: Path, route: Route) -> None:
    """A token that has every permission but the one must not pass."""
    async with api_world(tmp_path) as world:
        foreign = Foreign(world)
        await foreign.prepare()
        others = tuple(name for name in PERMISSIONS if name not in (route.permission, ADMIN))
        token = world.authority.mint("me", "chief-architect", "two", others, 60)
        answer = await foreign.call(AsgiClient(world.app, token), route)
        assert (answer.status, answer.code) == (403, "AUTH_003")


@pytest.mark.parametrize("route", BOUND, ids=name_of)
async def test_naming_a_foreign_project_is_forbidden(tmp_path: Path, route: Route) -> None:
    """The most powerful role of one project has no say in another; whether that exists is not told either."""
    async with api_world(tmp_path) as world:
        foreign = Foreign(world)
        await foreign.prepare()
        client = world.client("chief-architect")
        if route.handler.__name__ == "list_projects":
            (shown,) = (await foreign.call(client, route)).json()["projects"]
            assert shown["project_id"] == "one"
            return
        for project_id in ("two", "no-such-project"):
            answer = await foreign.call(client, route, f"project_id={project_id}")
            assert (answer.status, answer.code) == (403, "AUTH_003"), answer.body


@pytest.mark.parametrize("route", BOUND, ids=name_of)
async def test_foreign_ids_do_not_exist(tmp_path: Path, route: Route) -> None:
    """Whatever is asked by id in one's own project, nothing of the other one shows or changes."""
    if route.path == "/api/events/stream":
        pytest.skip("an endless answer; the test of streams looks at its project")
    async with api_world(tmp_path) as world:
        foreign = Foreign(world)
        await foreign.prepare()
        before = list(world.services.bus.events["two"])
        answer = await foreign.call(world.client("chief-architect"), route)
        if any(f"<{name}>" in route.path for name in ("result_id", "agent_id", "run_id", "letter_id", "consumer")):
            assert answer.status == 404, answer.body
        assert b"their-agent" not in answer.body.replace(b"no agent 'their-agent'", b"")
        assert b'"project_id":"two"' not in answer.body
        assert world.services.bus.events["two"] == before
        assert world.services.agents.terminated == []
        assert world.services.bus.redriven == []
        assert ("two", "their-reader") in world.services.bus.consumer_names
        assert ("two", "theirs") in world.services.context.cached
        assert all(project.project_id == "one" for project, _ in world.services.context.requests)
        assert all(request.project_id == "one" for request in world.services.agents.spawned)


@pytest.mark.parametrize("route", BOUND, ids=name_of)
async def test_an_operator_reaches_what_it_names(tmp_path: Path, route: Route) -> None:
    """Otherwise the refusals above would prove nothing: the same requests succeed for who may."""
    if route.path == "/api/events/stream":
        pytest.skip("an endless answer")
    async with api_world(tmp_path) as world:
        foreign = Foreign(world)
        await foreign.prepare()
        answer = await foreign.call(world.client(), route, "project_id=two")
        waits_for_approval = route.handler.__name__ == "approve_run"
        assert answer.status == (409 if waits_for_approval else route.status), answer.body
        missing = await foreign.call(world.client(), route, "project_id=none")
        assert missing.status in ((200,) if route.handler.__name__ == "list_projects" else (404,))

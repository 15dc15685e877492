"""Runs: issues worked on by teams."""

from __future__ import annotations

from typing import Any

import msgspec

from api.routes.base import Call, Reply, Route, json_reply
from api.schemas.base import Query
from api.schemas.operation import RunAnswer, RunBody, RunsAnswer, RunsQuery
from orchestrator.clock import rfc3339
from orchestrator.errors import Conflict
from orchestrator.models import Run
from orchestrator.profiles.permissions import MANAGE_AGENTS, READ_RESULTS, SPAWN_AGENTS


async def create_run(call: Call) -> Reply:
    """``POST /api/runs``."""
    body = call.body(RunBody)
    project = call.project(body.project_id or call.query(Query).project_id)
    run = await call.services.runs.create(
        project.project_id,
        issue_id=body.issue_id,
        task=body.task,
        workflow=body.workflow,
        runtime=body.runtime,
        created_by=call.principal.agent_id,
    )
    call.facts["run_id"] = run.run_id
    return json_reply(view_of(run), status=201, headers=(("Location", f"/api/runs/{run.run_id}"),))


async def list_runs(call: Call) -> Reply:
    """``GET /api/runs``."""
    query = call.query(RunsQuery)
    project = call.project(query.project_id)
    runs = await call.services.runs.list(project.project_id, limit=query.limit)
    return json_reply({"runs": [view_of(run) for run in runs], "next_cursor": None})


async def show_run(call: Call) -> Reply:
    """``GET /api/runs/{id}``."""
    project = call.project(call.query(Query).project_id)
    return json_reply(view_of(await call.services.runs.get(project.project_id, call.names["run_id"])))


async def approve_run(call: Call) -> Reply:
    """``POST /api/runs/{id}/approve``: no workflow of this version asks for an approval, so none can wait for one."""
    project = call.project(call.query(Query).project_id)
    run = await call.services.runs.get(project.project_id, call.names["run_id"])
    raise Conflict(f"run {run.run_id} is {run.status} and does not wait for an approval", slug="not_waiting")


async def cancel_run(call: Call) -> Reply:
    """``POST /api/runs/{id}/cancel``."""
    project = call.project(call.query(Query).project_id)
    return json_reply(view_of(await call.services.runs.cancel(project.project_id, call.names["run_id"])))


def view_of(run: Run) -> dict[str, Any]:
    """A run as the API shows it; times as text."""
    view: dict[str, Any] = msgspec.to_builtins(run)
    for field in ("created_at", "updated_at", "ended_at"):
        if view[field] is not None:
            view[field] = rfc3339(view[field])
    return view


_ONE = "/api/runs/<run_id>"
ROUTES = (
    Route(
        method="POST",
        path="/api/runs",
        permission=SPAWN_AGENTS,
        handler=create_run,
        is_audited=True,
        summary="Have an issue worked on by a team",
        tag="runs",
        body=RunBody,
        answer=RunAnswer,
        status=201,
        codes=("STR_001",),
    ),
    Route(
        method="GET",
        path="/api/runs",
        permission=READ_RESULTS,
        handler=list_runs,
        summary="Runs, newest first",
        tag="runs",
        query=RunsQuery,
        answer=RunsAnswer,
    ),
    Route(
        method="GET",
        path=_ONE,
        permission=READ_RESULTS,
        handler=show_run,
        summary="One run with its steps",
        tag="runs",
        answer=RunAnswer,
        codes=("REQ_003",),
    ),
    Route(
        method="POST",
        path=f"{_ONE}/approve",
        permission=MANAGE_AGENTS,
        handler=approve_run,
        summary="Let a run that waits for approval go on",
        tag="runs",
        answer=RunAnswer,
        codes=("REQ_003", "REQ_004"),
    ),
    Route(
        method="POST",
        path=f"{_ONE}/cancel",
        permission=MANAGE_AGENTS,
        handler=cancel_run,
        is_audited=True,
        summary="End a run and its agents",
        tag="runs",
        answer=RunAnswer,
        codes=("REQ_003", "STR_001"),
        is_waiting=True,
    ),
)

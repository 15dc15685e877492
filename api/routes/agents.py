"""Agents: spawn, show, talk to, end."""

from __future__ import annotations

from api.routes.base import Call, Reply, Route, json_reply
from api.schemas.agents import (
    AgentAnswer,
    AgentPageAnswer,
    AgentsQuery,
    InputAnswer,
    InputBody,
    SpawnBody,
    SpawnedAnswer,
    TerminateQuery,
)
from api.schemas.base import Query
from orchestrator.agents.environment import check_delegated_environment
from orchestrator.errors import NotPermitted
from orchestrator.models import AgentQuery, AgentRecord, Project, SpawnRequest
from orchestrator.profiles.permissions import MANAGE_AGENTS, READ_RESULTS, SPAWN_AGENTS


async def spawn(call: Call) -> Reply:
    """``POST /api/agents/spawn``."""
    body = call.body(SpawnBody)
    project = call.project(body.project_id or call.query(Query).project_id)
    principal = call.principal
    if not principal.is_admin:
        _check_delegated(call, body, project)
    spawned = await call.services.agents.spawn(
        SpawnRequest(
            agent_type=body.agent_type,
            issue_id=body.issue_id,
            task=body.task,
            project_id=project.project_id,
            context_requirements=tuple(body.context_requirements),
            environment=body.environment,
            priority=body.priority,
            runtime=body.runtime,
            command=tuple(body.command) if body.command is not None else None,
            restart=body.restart,
            timeout_seconds=body.timeout_seconds,
            workspace=body.workspace,
            limits=body.limits,
            sandbox=body.sandbox,
            correlation_id=body.correlation_id,
            spawned_by=principal.agent_id,
        )
    )
    record = spawned.record
    call.facts["agent_id"] = record.agent_id
    call.facts["agent_type"] = record.agent_type
    return json_reply(
        SpawnedAnswer(
            agent_id=record.agent_id,
            spawned=True,
            process_id=None if spawned.queued else record.process_id,
            context_injected=spawned.context_injected,
            jwt_token=spawned.token,
            webhook_url=f"/api/agents/{record.agent_id}/status",
            queued=spawned.queued,
            timestamp=call.now(),
        ),
        status=201,
        headers=(("Location", f"/api/agents/{record.agent_id}"), ("Cache-Control", "no-store")),
    )


def _check_delegated(call: Call, body: SpawnBody, project: Project) -> None:
    """Raise what refuses a spawn whose role would not run as its profile says, since no operator asks for it."""
    if body.command is not None:
        raise NotPermitted(
            "only an operator's token may name a command; leave it out to run the role's own",
            details={"field": "command"},
        )
    check_delegated_environment(body.environment)
    sandbox = call.services.profiles.get(body.agent_type, project.path).sandbox
    if body.sandbox == "none" != sandbox:
        raise NotPermitted(
            f"only an operator's token may take the sandbox from a role; leave it out to run it with its {sandbox!r}",
            details={"field": "sandbox"},
        )


async def list_agents(call: Call) -> Reply:
    """``GET /api/agents``."""
    query = call.query(AgentsQuery)
    project = call.project(query.project_id)
    agents = call.services.agents
    page = await agents.query(
        project.project_id,
        AgentQuery(
            status=query.status,
            agent_type=query.agent_type,
            issue_id=query.issue_id,
            run_id=query.run_id,
            limit=query.limit,
            cursor=query.cursor,
        ),
    )
    return json_reply({"agents": [agents.full_view(record) for record in page.agents], "next_cursor": page.next_cursor})


async def find_agent(call: Call, named_project: str | None) -> AgentRecord:
    """The record of the path's agent in the caller's project. Raises NoSuchAgent."""
    project = call.project(named_project)
    record: AgentRecord = await call.services.agents.get(project.project_id, call.names["agent_id"])
    return record


async def show_agent(call: Call) -> Reply:
    """``GET /api/agents/{id}``."""
    record = await find_agent(call, call.query(Query).project_id)
    return json_reply(call.services.agents.full_view(record))


async def show_status(call: Call) -> Reply:
    """``GET /api/agents/{id}/status``."""
    record = await find_agent(call, call.query(Query).project_id)
    return json_reply(call.services.agents.short_view(record))


async def terminate(call: Call) -> Reply:
    """``DELETE /api/agents/{id}``."""
    query = call.query(TerminateQuery)
    record = await find_agent(call, query.project_id)
    ended = await call.services.agents.terminate(record, force=query.force, timeout_s=query.timeout)
    return json_reply({**call.services.agents.full_view(ended), "terminated": True, "timestamp": call.now()})


async def send_input(call: Call) -> Reply:
    """``POST /api/agents/{id}/input``."""
    body = call.body(InputBody)
    record = await find_agent(call, call.query(Query).project_id)
    receipt = call.services.agents.send(record, body.text, body.data)
    return json_reply(
        InputAnswer(message_id=receipt.message_id, state=receipt.state, reason=receipt.reason), status=202
    )


_ONE = "/api/agents/<agent_id>"
ROUTES = (
    Route(
        method="POST",
        path="/api/agents/spawn",
        permission=SPAWN_AGENTS,
        handler=spawn,
        is_audited=True,
        summary="Spawn an agent, or queue it",
        tag="agents",
        body=SpawnBody,
        answer=SpawnedAnswer,
        status=201,
        codes=("AGT_001", "AGT_002", "AGT_005", "STR_001"),
        is_waiting=True,
        is_hot=True,
    ),
    Route(
        method="GET",
        path="/api/agents",
        permission=READ_RESULTS,
        handler=list_agents,
        summary="Agents, newest first",
        tag="agents",
        query=AgentsQuery,
        answer=AgentPageAnswer,
    ),
    Route(
        method="GET",
        path=_ONE,
        permission=READ_RESULTS,
        handler=show_agent,
        summary="All that is known of one agent",
        tag="agents",
        answer=AgentAnswer,
        codes=("AGT_003",),
    ),
    Route(
        method="GET",
        path=f"{_ONE}/status",
        permission=READ_RESULTS,
        handler=show_status,
        summary="One agent in short",
        tag="agents",
        answer=AgentAnswer,
        codes=("AGT_003",),
    ),
    Route(
        method="DELETE",
        path=_ONE,
        permission=MANAGE_AGENTS,
        handler=terminate,
        is_audited=True,
        summary="End an agent; answered when nothing of it is left",
        tag="agents",
        query=TerminateQuery,
        answer=AgentAnswer,
        codes=("AGT_003", "STR_001"),
        is_waiting=True,
    ),
    Route(
        method="POST",
        path=f"{_ONE}/input",
        permission=MANAGE_AGENTS,
        handler=send_input,
        is_audited=True,
        summary="Hand a message to a running agent",
        tag="agents",
        body=InputBody,
        answer=InputAnswer,
        status=202,
        codes=("AGT_003", "AGT_004"),
    ),
)

"""Context: what a role needs of the project, and dropping what is cached of it."""

from __future__ import annotations

import msgspec

from api.routes.base import Call, Reply, Route, json_reply
from api.schemas.base import Query
from api.schemas.context import (
    ClearedAnswer,
    ContextAnswer,
    ContextBody,
    ContextQuery,
    ExplainAnswer,
    ExplainBody,
    ExplainQuery,
)
from orchestrator.context.models import ContextRequest
from orchestrator.errors import NotFound, NotPermitted
from orchestrator.models import Project
from orchestrator.profiles.permissions import CLEAR_CACHE, READ_CONTEXT


async def get_context(call: Call) -> Reply:
    """``GET /api/context/{issue_id}/{agent_type}``."""
    query = call.query(ContextQuery)
    return await _context(call, query.project_id, query)


async def post_context(call: Call) -> Reply:
    """``POST`` on the same path: for tasks that are too long for a URL."""
    body = call.body(ContextBody)
    named = body.project_id or call.query(Query).project_id
    return await _context(call, named, body)


async def explain_context(call: Call) -> Reply:
    """``GET /api/context/{issue_id}/{agent_type}/explain``."""
    query = call.query(ExplainQuery)
    return await _explained(call, query.project_id, query)


async def post_explain(call: Call) -> Reply:
    """``POST`` on the same path: for tasks that are too long for a URL."""
    body = call.body(ExplainBody)
    named = body.project_id or call.query(Query).project_id
    return await _explained(call, named, body)


async def _explained(call: Call, named: str | None, wish: ExplainQuery | ExplainBody) -> Reply:
    project, request = _request(call, named, wish)
    if not call.principal.is_architect:  # it names every file, also those that the role is not given
        raise NotPermitted("an architect or operator may ask why a context is as it is")
    explained = await call.services.context.explain(project, request)
    return json_reply(msgspec.convert(explained, ExplainAnswer))


def _request(call: Call, named: str | None, wish: ExplainQuery | ExplainBody) -> tuple[Project, ContextRequest]:
    """The project and what is asked of it. Raises NotPermitted for another role's context, UnknownAgentType."""
    project = call.project(named)
    agent_type = call.names["agent_type"]
    principal = call.principal
    if agent_type != principal.agent_type and not principal.is_architect:
        call.services.profiles.get(agent_type, project.path)  # an unknown role is 404, whoever asks
        raise NotPermitted(
            f"a {principal.agent_type} reads the context of its own role only",
            details={"field": "agent_type", "agent_type": principal.agent_type},
        )
    return project, ContextRequest(
        issue_id=call.names["issue_id"],
        agent_type=agent_type,
        task=wish.task,
        max_bytes=wish.max_bytes,
        refresh=wish.refresh,
        partial=isinstance(wish, ContextQuery | ContextBody) and wish.partial,
    )


async def _context(call: Call, named: str | None, wish: ContextQuery | ContextBody) -> Reply:
    built = await call.services.context.build(*_request(call, named, wish))
    if built.is_partial:
        return Reply(built.body, headers=(("ETag", built.etag), ("Cache-Control", "no-store")))
    headers = (("ETag", built.etag), ("Cache-Control", "private, no-cache"))
    if _matches(call.header(b"if-none-match"), built.etag):
        return Reply(b"", 304, "", headers)
    return Reply(built.body, headers=headers)


def _matches(header: str | None, etag: str) -> bool:
    """Whether an ``If-None-Match`` names this tag (weak comparison, RFC 9110 section 13.1.2)."""
    if header is None:
        return False
    tags = (tag.strip().removeprefix("W/") for tag in header.split(","))
    return any(tag in ("*", etag.removeprefix("W/")) for tag in tags)


async def clear_context(call: Call) -> Reply:
    """``DELETE /api/cache/context/{issue_id}``."""
    project = call.project(call.query(Query).project_id)
    issue_id = call.names["issue_id"]
    cleared = await call.services.context.clear(project.project_id, issue_id)
    if not cleared.entries_removed:
        raise NotFound(f"nothing is cached for issue {issue_id!r}", slug="nothing_cached")
    return json_reply(
        ClearedAnswer(
            cleared=True,
            entries_removed=cleared.entries_removed,
            bytes_freed=cleared.bytes_freed,
            timestamp=call.now(),
        )
    )


_PATH = "/api/context/<issue_id>/<agent_type>"
ROUTES = (
    Route(
        method="GET",
        path=_PATH,
        permission=READ_CONTEXT,
        handler=get_context,
        is_hot=True,
        summary="What a role needs of the project, within a budget",
        tag="context",
        query=ContextQuery,
        answer=ContextAnswer,
        codes=("AGT_002", "CTX_001"),
    ),
    Route(
        method="POST",
        path=_PATH,
        permission=READ_CONTEXT,
        handler=post_context,
        summary="The same for a task that is too long for a URL",
        tag="context",
        body=ContextBody,
        answer=ContextAnswer,
        codes=("AGT_002", "CTX_001"),
    ),
    Route(
        method="GET",
        path=_PATH + "/explain",
        permission=READ_CONTEXT,
        handler=explain_context,
        summary="Why the role would be given these files: every signal's share, and what was left out",
        tag="context",
        query=ExplainQuery,
        answer=ExplainAnswer,
        codes=("AGT_002", "CTX_001"),
    ),
    Route(
        method="POST",
        path=_PATH + "/explain",
        permission=READ_CONTEXT,
        handler=post_explain,
        summary="The same for a task that is too long for a URL",
        tag="context",
        body=ExplainBody,
        answer=ExplainAnswer,
        codes=("AGT_002", "CTX_001"),
    ),
    Route(
        method="DELETE",
        path="/api/cache/context/<issue_id>",
        permission=CLEAR_CACHE,
        handler=clear_context,
        is_audited=True,
        summary="Drop an issue's cached contexts",
        tag="context",
        answer=ClearedAnswer,
        codes=("REQ_003",),
    ),
)

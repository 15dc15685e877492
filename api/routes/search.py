"""Searching the project's files as the context engine ranks them, and adding notes to its knowledge."""

from __future__ import annotations

from api.routes.base import Call, Reply, Route, json_reply
from api.schemas.base import Query
from api.schemas.search import FoundFile, FoundLine, NoteAnswer, NoteBody, SearchAnswer, SearchQuery
from orchestrator.errors import NotPermitted
from orchestrator.profiles.permissions import READ_CONTEXT, WRITE_RESULTS


async def search_context(call: Call) -> Reply:
    """``GET /api/context/search``: over all files, so for those who may read every role's context."""
    query = call.query(SearchQuery)
    project = call.project(query.project_id)
    if not call.principal.is_architect:
        raise NotPermitted(
            f"a {call.principal.agent_type} reads the context of its own role only; an architect may search all files"
        )
    hits = await call.services.context.search(project, query.q, query.limit)
    found = [
        FoundFile(
            path=hit.path,
            score=hit.score,
            reason=hit.reason,
            lines=[FoundLine(line=number, text=text) for number, text in hit.lines],
        )
        for hit in hits
    ]
    return json_reply(SearchAnswer(results=found, query=query.q, timestamp=call.now()))


async def add_note(call: Call) -> Reply:
    """``POST /api/knowledge``."""
    body = call.body(NoteBody)
    project = call.project(body.project_id or call.query(Query).project_id)
    note_id = await call.services.storage.add_note(
        project.project_id,
        body.text,
        issue_id=body.issue_id,
        author=call.principal.agent_id,
        now=call.clock.now(),
    )
    call.services.context.results_changed(project.project_id)  # else cached answers would go on without the note
    return json_reply(NoteAnswer(id=note_id, stored=True, timestamp=call.now()), status=201)


ROUTES = (
    Route(
        method="GET",
        path="/api/context/search",
        permission=READ_CONTEXT,
        handler=search_context,
        summary="The project's files that fit a query, best first",
        tag="context",
        query=SearchQuery,
        answer=SearchAnswer,
        codes=("CTX_001",),
    ),
    Route(
        method="POST",
        path="/api/knowledge",
        permission=WRITE_RESULTS,
        handler=add_note,
        summary="Add a note that later searches find",
        tag="knowledge",
        body=NoteBody,
        answer=NoteAnswer,
        status=201,
        codes=("STR_001",),
    ),
)

"""Results: outcomes of agents, stored for good."""

from __future__ import annotations

import hashlib

import msgspec

from api.routes.base import Call, Reply, Route, json_reply
from api.schemas.base import Query
from api.schemas.results import ResultAnswer, ResultBody, ResultPageAnswer, ResultsQuery, StoredAnswer
from orchestrator.clock import parse_rfc3339
from orchestrator.copies import body_of
from orchestrator.errors import BadRequest, Conflict, NotPermitted
from orchestrator.models import ResultDraft, ResultQuery
from orchestrator.profiles.permissions import READ_RESULTS, WRITE_RESULTS

#: Longest ``Idempotency-Key``.
MAX_KEY_CHARS = 255


async def store_result(call: Call) -> Reply:
    """``POST /api/results``."""
    body = call.body(ResultBody)
    project = call.project(body.project_id or call.query(Query).project_id)
    principal = call.principal
    agent_id, agent_type = body.agent_id or principal.agent_id, body.agent_type or principal.agent_type
    if not principal.is_admin:
        _own("agent_id", agent_id, principal.agent_id)
        _own("agent_type", agent_type, principal.agent_type)
    key = _idempotency_key(call)
    fingerprint = hashlib.sha256(call.info.body).hexdigest()
    # A key is the caller's own: another agent that happens to choose the same one is another request.
    scoped = f"{principal.agent_id}:{key}" if key is not None else None
    if scoped is not None:
        known = await call.services.storage.get_answer(project.project_id, scoped)
        if known is not None:
            return _repeated(known, fingerprint)
    draft = ResultDraft(
        agent_id=agent_id,
        agent_type=agent_type,
        issue_id=body.issue_id,
        result=body.result,
        timestamp=body.timestamp,
        attempt=principal.attempt,
    )
    # The id comes from the key, so that two copies of a request that run at once, or a retry after a crash between
    # the result and its remembered answer, still store one round.
    result_id = _result_id(project.project_id, scoped, fingerprint) if scoped is not None else None
    call.services.room.check_data()
    stored = await call.services.agents.store_result(project.project_id, draft, result_id=result_id)
    result = stored.result
    answer = msgspec.json.encode(
        StoredAnswer(
            id=result.id,
            stored=True,
            storage_path=stored.storage_path,
            next_agents=stored.next_agents,
            event_published=stored.event is not None,
            event_id=stored.event.event_id if stored.event is not None else None,
            timestamp=call.now(),
            round=result.round,
        )
    )
    if scoped is not None:
        await call.services.storage.put_answer(project.project_id, scoped, fingerprint, answer, call.clock.now())
    return Reply(answer, 201)


def _own(field: str, given: str, own: str) -> None:
    if given != own:
        raise NotPermitted(f"{field} must be the token's; leave it out", details={"field": field})


def _idempotency_key(call: Call) -> str | None:
    key = call.header(b"idempotency-key")
    if key is None:
        return None
    if not 1 <= len(key) <= MAX_KEY_CHARS or not key.isascii() or not key.isprintable():
        raise BadRequest(
            f"Idempotency-Key must be 1 to {MAX_KEY_CHARS} printable ASCII characters",
            details={"header": "Idempotency-Key"},
        )
    return key


def _repeated(known: tuple[str, bytes], fingerprint: str) -> Reply:
    if known[0] != fingerprint:
        raise Conflict(
            "this Idempotency-Key was used with another body; use a new key for a new result",
            slug="idempotency_key_reused",
            details={"header": "Idempotency-Key"},
        )
    return Reply(known[1], 201, headers=(("Idempotency-Replayed", "true"),))


def _result_id(project_id: str, scoped_key: str, fingerprint: str) -> str:
    digest = hashlib.sha256("\0".join((project_id, scoped_key, fingerprint)).encode()).hexdigest()
    return f"res_{digest[:32]}"


async def list_results(call: Call) -> Reply:
    """``GET /api/results``."""
    query = call.query(ResultsQuery)
    project = call.project(query.project_id)
    page = await call.services.results.query(
        project.project_id,
        ResultQuery(
            issue_id=query.issue_id,
            agent_type=query.agent_type,
            agent_id=query.agent_id,
            status=query.status,
            since=_moment("from", query.from_),
            until=_moment("to", query.to),
            limit=query.limit,
            cursor=query.cursor,
        ),
    )
    return json_reply({"results": [body_of(result) for result in page.results], "next_cursor": page.next_cursor})


def _moment(field: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        # A '+' that was not escaped arrives as a space.
        return parse_rfc3339(text.replace(" ", "+"))
    except (ValueError, OverflowError) as error:
        raise BadRequest(
            f"{field} must be an RFC 3339 time such as 2026-01-31T12:00:00Z", details={"field": field}
        ) from error


async def get_result(call: Call) -> Reply:
    """``GET /api/results/{id}``."""
    project = call.project(call.query(Query).project_id)
    return json_reply(body_of(await call.services.results.get(project.project_id, call.names["result_id"])))


ROUTES = (
    Route(
        method="POST",
        path="/api/results",
        permission=WRITE_RESULTS,
        handler=store_result,
        summary="Store an agent's outcome durably (Idempotency-Key makes a retry safe)",
        tag="results",
        body=ResultBody,
        answer=StoredAnswer,
        status=201,
        codes=("STR_001", "REQ_004"),
    ),
    Route(
        method="GET",
        path="/api/results",
        permission=READ_RESULTS,
        handler=list_results,
        summary="Stored results, newest first",
        tag="results",
        query=ResultsQuery,
        answer=ResultPageAnswer,
        codes=("STR_002",),
    ),
    Route(
        method="GET",
        path="/api/results/<result_id>",
        permission=READ_RESULTS,
        handler=get_result,
        summary="One stored result",
        tag="results",
        answer=ResultAnswer,
        codes=("REQ_003", "STR_002"),
    ),
)

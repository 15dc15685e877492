"""An agent's output: raw bytes from an offset, or followed as it comes."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import msgspec

from agentpool.base import OutputChunk
from api.routes.agents import find_agent
from api.routes.base import Call, Reply, Route
from api.routes.sse import HEARTBEAT, message, stream_reply
from api.schemas.agents import OutputQuery
from orchestrator.errors import BadRequest
from orchestrator.profiles.permissions import READ_RESULTS

if TYPE_CHECKING:
    from orchestrator.agents.service import AgentService
    from orchestrator.models import AgentRecord

OCTETS = "application/octet-stream"


async def read_output(call: Call) -> Reply:
    """``GET /api/agents/{id}/output``."""
    query = call.query(OutputQuery)
    record = await find_agent(call, query.project_id)
    if query.follow:
        offset = _resume_at(call, query.since)
        return stream_reply(call, _messages(call.services.agents, record, query.stream, offset))
    chunk: OutputChunk = await call.services.agents.output(record, query.stream, query.since, query.limit)
    headers = [("X-Next-Offset", str(chunk.next_offset)), ("Cache-Control", "no-store")]
    if chunk.truncated_at is not None:
        headers.append(("X-Truncated-At", str(chunk.truncated_at)))
    return Reply(chunk.data, content_type=OCTETS, headers=tuple(headers))


def _resume_at(call: Call, since: int) -> int:
    last_id = call.header(b"last-event-id")
    if last_id is None:
        return since
    if not (last_id.isascii() and last_id.isdigit() and len(last_id) <= 18):
        raise BadRequest("Last-Event-ID must be a byte offset", details={"header": "Last-Event-ID"})
    return int(last_id)


async def _messages(agents: AgentService, record: AgentRecord, stream: str, offset: int) -> AsyncIterator[bytes]:
    """Each chunk as one message whose id is the offset after it; then one ``end``, which says what was not kept."""
    chunks: AsyncIterator[OutputChunk | None] = agents.follow(record, stream, offset)
    async with aclosing(chunks):  # type: ignore[type-var]
        async for chunk in chunks:
            if chunk is None:
                yield HEARTBEAT
                continue
            offset = chunk.next_offset
            yield message(_encode(chunk, stream), event="output", id=str(offset))
    last = await agents.output(record, stream, offset, 1)
    end: dict[str, Any] = {"stream": stream, "next_offset": offset}
    if last.truncated_at is not None:
        end["truncated_at"] = last.truncated_at
    yield message(msgspec.json.encode(end), event="end", id=str(offset))


def _encode(chunk: OutputChunk, stream: str) -> bytes:
    """``text`` when the bytes are UTF-8, else ``base64``, so that every byte arrives as it was."""
    body: dict[str, Any] = {"stream": stream, "offset": chunk.offset, "next_offset": chunk.next_offset}
    try:
        body["text"] = chunk.data.decode("utf-8")
    except UnicodeDecodeError:
        body["base64"] = base64.b64encode(chunk.data).decode("ascii")
    return msgspec.json.encode(body)


ROUTES = (
    Route(
        method="GET",
        path="/api/agents/<agent_id>/output",
        permission=READ_RESULTS,
        handler=read_output,
        summary="Raw output from an offset; follow=true streams it (server-sent events)",
        tag="agents",
        query=OutputQuery,
        media=OCTETS,
        codes=("AGT_003",),
        is_waiting=True,
    ),
)

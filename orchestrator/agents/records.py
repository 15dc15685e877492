"""What an agent says on its pipe, turned into results, events and progress."""

from __future__ import annotations

import asyncio

import msgspec
import structlog

from agentpool.messages import AgentRecord as OutputRecord
from orchestrator.agents.base import Publish
from orchestrator.agents.durability import Recorder
from orchestrator.agents.registry import LiveAgent
from orchestrator.errors import SidecarError
from orchestrator.identifiers import check_identifier, new_id
from orchestrator.metrics import Metrics
from orchestrator.models import JSON, EventDraft, Priority, ResultDraft
from orchestrator.results import ResultService

#: Notes on unreadable lines kept for an attempt's evidence.
MAX_NOTES = 20
log = structlog.get_logger(__name__)


class PipeEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An ``event`` line: the body of the events endpoint, whoever it says it is from."""

    event_type: str
    topic: str
    data: JSON = {}
    event_id: str | None = None
    correlation_id: str | None = None
    ttl_seconds: int = 86400
    priority: Priority = "normal"
    references: tuple[str, ...] = ()
    round: int | None = None


class PipeResult(msgspec.Struct, frozen=True, kw_only=True):
    """A ``result`` line."""

    result: JSON
    timestamp: str | None = None


class RecordTaker:
    """Takes parsed lines in order; identity always comes from the pipe, never from the line."""

    def __init__(self, results: ResultService, publish: Publish, recorder: Recorder, metrics: Metrics) -> None:
        self._results = results
        self._recorder = recorder
        self._publish = publish
        self._metrics = metrics

    async def take(self, live: LiveAgent, records: list[OutputRecord]) -> None:
        """Take several lines; events that follow one another share a commit and keep their order."""
        if len(records) == 1 and records[0].kind == "event":
            # The commonest batch, and somebody waits for it: a task of its own would cost a turn of the loop.
            await self._event(live, records[0])
            return
        pending: list[asyncio.Task[None]] = []
        for record in records:
            if record.kind == "event":
                pending.append(asyncio.create_task(self._event(live, record)))
                continue
            if record.kind == "result":
                await _finish(pending)
                await self._result(live, record)
            else:
                self._remark(live, record)
        await _finish(pending)

    async def _event(self, live: LiveAgent, record: OutputRecord) -> None:
        try:
            line = msgspec.json.decode(record.payload, type=PipeEvent)
            for field in ("event_type", "topic"):
                check_identifier(getattr(line, field), field)
            draft = EventDraft(
                publisher=live.record.agent_id,
                **{name: getattr(line, name) for name in PipeEvent.__struct_fields__},
            )
            await self._recorder.until_stored(
                lambda: self._publish(live.record.project_id, draft, role=live.record.agent_type), live
            )
        except (msgspec.DecodeError, SidecarError) as error:
            self._refuse(live, record, str(error))

    async def _result(self, live: LiveAgent, record: OutputRecord) -> None:
        agent = live.record
        try:
            line = msgspec.json.decode(record.payload, type=PipeResult)
            draft = ResultDraft(
                agent_id=agent.agent_id,
                agent_type=agent.agent_type,
                issue_id=agent.issue_id,
                result=line.result,
                timestamp=line.timestamp,
                attempt=agent.attempt,
                source="pipe",
            )
            # One id for all tries: the database may have taken what the disk then refused a copy of.
            result_id = new_id("res")
            stored = await self._recorder.until_stored(
                lambda: self._results.store(agent.project_id, draft, result_id=result_id), live
            )
        except (msgspec.DecodeError, SidecarError) as error:
            self._refuse(live, record, str(error))
            return
        live.result_id, live.result_status = stored.result.id, stored.result.status
        self._metrics.results_stored.inc()

    def _remark(self, live: LiveAgent, record: OutputRecord) -> None:
        if record.kind == "bad_line":
            self._refuse(live, record, "not a readable line")
            return
        try:
            line = msgspec.json.decode(record.payload, type=dict)
        except msgspec.DecodeError:
            return
        if record.kind == "progress":
            live.progress = {key: line[key] for key in ("message", "percent") if key in line}

    def _refuse(self, live: LiveAgent, record: OutputRecord, reason: str) -> None:
        self._metrics.bad_lines.inc()
        if len(live.notes) < MAX_NOTES:
            live.notes.append(f"{record.kind} at byte {record.offset} of stdout: {reason}"[:300])
        log.warning("agent_line_refused", agent_id=live.record.agent_id, kind=record.kind, offset=record.offset)


async def _finish(pending: list[asyncio.Task[None]]) -> None:
    if pending:
        await asyncio.gather(*pending)
        pending.clear()

"""Results: outcomes stored for good, their JSON copies and the events that announce them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, get_args

import structlog

from orchestrator.clock import Clock, SystemClock, parse_rfc3339
from orchestrator.copies import ResultCopies
from orchestrator.errors import BadRequest, NotFound, StorageWriteFailed
from orchestrator.identifiers import check_identifier, new_id
from orchestrator.models import (
    JSON,
    Event,
    EventDraft,
    Model,
    Result,
    ResultDraft,
    ResultPage,
    ResultQuery,
    ResultStatus,
)
from orchestrator.storage.base import ResultStore

STATUSES: tuple[str, ...] = get_args(ResultStatus)
FILE_LISTS = ("files_created", "files_modified", "files_deleted")
LISTS = ("decisions", "errors", "warnings", "next_steps")
OBJECTS = ("metrics", "artifacts")

Publish = Callable[[str, EventDraft], Awaitable[Event]]
HandOvers = Callable[[str, str, JSON], list[JSON]]
log = structlog.get_logger(__name__)


class Stored(Model, frozen=True, kw_only=True):
    """What storing gave. ``event`` is None when nothing was announced."""

    result: Result
    storage_path: str
    next_agents: list[JSON]
    event: Event | None


def check_result(result: object) -> None:
    """Raise BadRequest unless ``result`` has the contract's form; keys that it does not know are left alone."""
    if not isinstance(result, dict):
        raise _bad("result", "must be an object")
    if result.get("status") not in STATUSES:
        raise _bad("result.status", f"must be one of {', '.join(STATUSES)}")
    for name in FILE_LISTS:
        entries = _list(result, name)
        for index, entry in enumerate(entries):
            path = entry.get("path") if isinstance(entry, dict) else entry
            if not isinstance(path, str) or not path or "\x00" in path:
                raise _bad(f"result.{name}[{index}]", "must be a path or an object with a path")
    for name in LISTS:
        _list(result, name)
    for name in OBJECTS:
        if name in result and not isinstance(result[name], dict):
            raise _bad(f"result.{name}", "must be an object")


def _list(result: dict[str, Any], name: str) -> list[Any]:
    value = result.get(name, [])
    if not isinstance(value, list):
        raise _bad(f"result.{name}", "must be a list")
    return value


def _bad(field: str, problem: str) -> BadRequest:
    return BadRequest(f"{field} {problem}", details={"field": field})


class ResultService:
    """Stores results durably, keeps the newest round's JSON file, announces each.

    Args:
        store: the truth.
        directory: where ``<project>/<issue>/<agent type>.json`` are written.
        publish: appends an event durably and returns it.
        hand_overs: ``(project_id, agent_type, result)`` -> the next agents' objects of the contract.
        on_stored: told of each project that has a new result, once it is durable.

    Attributes:
        is_behind: results of an earlier sidecar still wait for ``recover``.
    """

    def __init__(
        self,
        store: ResultStore,
        directory: Path,
        *,
        publish: Publish,
        hand_overs: HandOvers,
        on_stored: Callable[[str], None] = lambda project_id: None,
        clock: Clock | None = None,
    ) -> None:
        self._store = store
        self._copies = ResultCopies(directory)
        self._marking: set[asyncio.Task[None]] = set()
        self.is_behind = False
        self._publish = publish
        self._hand_overs = hand_overs
        self._on_stored = on_stored
        self._clock = clock or SystemClock()

    async def store(self, project_id: str, draft: ResultDraft, *, result_id: str | None = None) -> Stored:
        """Store a round; returns when it is durable and announced.

        A draft of a spawned agent (``attempt`` set) is announced as ``result_stored``, one that its exit made not at
        all (the agent's end tells), any other as ``agent_completed`` or ``agent_failed``. Raises BadRequest,
        StorageWriteFailed.
        """
        for field in ("agent_id", "agent_type", "issue_id"):
            check_identifier(getattr(draft, field), field)
        check_result(draft.result)
        if draft.timestamp is not None:
            try:
                parse_rfc3339(draft.timestamp)
            except ValueError as error:
                raise _bad("timestamp", "must be an RFC 3339 time such as 2026-01-31T12:00:00Z") from error
        result = await self._store.insert_result(
            project_id, result_id or new_id("res"), draft, stored_at=self._clock.now()
        )
        self._on_stored(project_id)
        path, event = await asyncio.gather(self._copies.keep(result), self._announce(result))
        self._mark_later(result)
        return Stored(
            result=result,
            storage_path=str(path),
            next_agents=self._hand_overs(project_id, draft.agent_type, result.result),
            event=event,
        )

    async def _announce(self, result: Result) -> Event | None:
        draft = announcement(result)
        return await self._publish(result.project_id, draft) if draft is not None else None

    def _mark_later(self, result: Result) -> None:
        """Note that file and event are there; nobody waits for it, since doing both again is harmless."""
        task = asyncio.create_task(self._mark(result), name=f"mark {result.id}")
        self._marking.add(task)
        task.add_done_callback(self._marking.discard)

    async def _mark(self, result: Result) -> None:
        try:
            await self._store.mark_announced(result.project_id, result.id)
        except StorageWriteFailed as error:
            log.warning("result_not_marked", result_id=result.id, reason=error.message)

    async def stop(self) -> None:
        """Wait for the marks that are under way; call it before storage closes."""
        await asyncio.gather(*self._marking)

    async def recover(self) -> int:
        """Finish what a killed sidecar began: write the copies and announce; how many results it was.

        What storage refuses now (a full disk) stays unfinished for the next call.
        """
        pending = await self._store.unannounced_results()
        finished = 0
        for result in pending:
            try:
                await asyncio.gather(self._copies.keep(result), self._announce(result))
            except StorageWriteFailed as error:
                log.warning("result_not_recovered", result_id=result.id, reason=error.message)
                continue
            await self._mark(result)
            finished += 1
        self.is_behind = finished < len(pending)
        return finished

    async def get(self, project_id: str, result_id: str) -> Result:
        """The result. Raises NotFound."""
        result = await self._store.get_result(project_id, result_id)
        if result is None:
            raise NotFound(f"no result {result_id!r} in this project", slug="no_such_result")
        return result

    async def query(self, project_id: str, query: ResultQuery) -> ResultPage:
        """One page, newest first."""
        return await self._store.query_results(project_id, query)


def announcement(result: Result) -> EventDraft | None:
    """The event that tells of a stored result, with an id of its own so that it is published once."""
    if result.source == "exit":
        return None
    if result.attempt is not None:
        event_type = "result_stored"
    else:
        event_type = "agent_failed" if result.status == "failed" else "agent_completed"
    return EventDraft(
        event_type=event_type,
        publisher=result.agent_id,
        topic="coordination",
        event_id=f"{result.id}.stored",
        round=result.round,
        data={
            "agent_id": result.agent_id,
            "agent_type": result.agent_type,
            "issue_id": result.issue_id,
            "status": result.status,
            "result_id": result.id,
            "round": result.round,
        },
    )

"""What earlier agents left: this issue's results, all of them, and the best of what other issues taught."""

from __future__ import annotations

from typing import Any

from orchestrator.context.models import JSON
from orchestrator.models import KnowledgeItem, Result, ResultQuery
from orchestrator.storage.base import KnowledgeStore, ResultStore

_MOST_RESULTS = 200
_MOST_HITS = 10
_LISTS = ("decisions", "findings", "warnings", "errors", "next_steps")
_FILE_LISTS = ("files_created", "files_modified", "files_deleted", "files_affected")
_TEXT = 4000


async def earlier_outputs(
    results: ResultStore, knowledge: KnowledgeStore, project_id: str, issue_id: str, task: str | None
) -> list[JSON]:
    """The contract's ``previous_agent_outputs``: all results of the issue, newest first, then what a search of
    the project's knowledge finds for ``task`` in other issues."""
    page = await results.query_results(project_id, ResultQuery(issue_id=issue_id, limit=_MOST_RESULTS))
    outputs = [output_of(result) for result in page.results]
    if task and task.strip():
        hits = await knowledge.search_knowledge(project_id, task[:2000], limit=_MOST_HITS * 3)
        # the issue's own results are above already; its notes are not
        others = [hit for hit in hits if hit.issue_id != issue_id or hit.issue_id is None or hit.kind == "note"]
        outputs += [_lesson(hit) for hit in others[:_MOST_HITS]]
    return outputs


async def newest_result(results: ResultStore, project_id: str, issue_id: str | None) -> str:
    """A word that changes whenever a result is added to the issue (None: to the project)."""
    page = await results.query_results(project_id, ResultQuery(issue_id=issue_id, limit=1))
    return f"{page.results[0].id}:{page.results[0].round}" if page.results else ""


def output_of(result: Result) -> JSON:
    """One result as a later agent sees it."""
    body = result.result
    output: JSON = {
        "agent": result.agent_id,
        "agent_type": result.agent_type,
        "issue_id": result.issue_id,
        "result_id": result.id,
        "round": result.round,
        "timestamp": result.timestamp,
        "status": result.status,
        "decisions": _texts(body.get("decisions")),
        "files_affected": files_of(body),
    }
    for name in _LISTS[1:]:
        texts = _texts(body.get(name))
        if texts:
            output[name] = texts
    if isinstance(body.get("summary"), str):
        output["summary"] = body["summary"][:_TEXT]
    if output["decisions"]:
        output["decision"] = output["decisions"][0]
    return output


def files_of(body: JSON) -> list[str]:
    """Paths that a result names as created, modified or deleted, each once."""
    found: dict[str, None] = {}
    for name in _FILE_LISTS:
        entries = body.get(name)
        for entry in entries if isinstance(entries, list) else ():
            path = entry.get("path") if isinstance(entry, dict) else entry
            if isinstance(path, str):
                found[path] = None
    return list(found)[:500]


def _texts(value: Any) -> list[str]:
    """The entries of a list as texts; objects give their most telling field, or JSON-like text."""
    texts = []
    for entry in value if isinstance(value, list) else ():
        if isinstance(entry, dict):
            told = next(
                (
                    entry[k]
                    for k in ("decision", "message", "text", "title", "description")
                    if isinstance(entry.get(k), str)
                ),
                None,
            )
            place = entry.get("path") or entry.get("file")
            told = told if told is not None else str(entry)
            texts.append(f"{place}: {told}"[:_TEXT] if isinstance(place, str) and place not in told else told[:_TEXT])
        elif entry is not None:
            texts.append(str(entry)[:_TEXT])
    return texts[:100]


def _lesson(hit: KnowledgeItem) -> JSON:
    return {
        "agent": hit.agent_type or "person",
        "agent_type": hit.agent_type,
        "issue_id": hit.issue_id,
        "result_id": hit.result_id,
        "timestamp": hit.timestamp,
        "status": hit.kind,
        "decisions": [hit.text[:_TEXT]] if hit.kind == "decision" else [],
        "decision": hit.text[:_TEXT],
        "files_affected": [],
    }

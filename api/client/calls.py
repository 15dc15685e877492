"""Every call of the API as a function that describes the request; no connection is involved.

``project_id`` may be given by operators only; agents are bound to their token's project.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from api.client import types
from api.client.forms import body_of, get, path_of, query_of
from api.client.request import Answer, Request

#: A task longer than this goes into a body rather than into the URL.
MAX_TASK_IN_URL = 1000
#: Seconds that a long poll's answer may come late before it counts as lost.
POLL_SLACK_S = 15.0


def health() -> Request[types.Health]:
    """Measured health of the sidecar; an unhealthy one (503) answers too."""
    return Request("GET", "/health", Answer.json, accept=frozenset({503}), is_repeatable=True)


def status() -> Request[types.Status]:
    """Counts of the sidecar."""
    return get("/status")


def metrics() -> Request[str]:
    """Prometheus text."""
    return Request("GET", "/metrics", lambda answer: answer.body.decode(), is_repeatable=True)


def openapi() -> Request[types.JSON]:
    """The OpenAPI document."""
    return get("/openapi.json")


def refresh_token() -> Request[str]:
    """A new token for the one in use, which is revoked (only in the last minutes of its life)."""
    return Request("POST", "/api/tokens/refresh", _read_token, body=b"{}")


def _read_token(answer: Answer) -> str:
    document = answer.json()
    return str(document.get("jwt_token") or document["token"])


# -- context ----------------------------------------------------------------------------------


def context(
    issue_id: str,
    agent_type: str,
    *,
    task: str | None = None,
    max_bytes: int | None = None,
    refresh: bool | None = None,
    partial: bool | None = None,
    project_id: str | None = None,
) -> Request[types.Context]:
    """What a role needs of the project for a task. ``partial``: while nothing is known of the project, a provisional
    answer will do; it has ``partial`` set, and the next call gives the full one."""
    path = path_of("api", "context", issue_id, agent_type)
    return _of_task(path, task, max_bytes=max_bytes, refresh=refresh, partial=partial, project_id=project_id)


def explain_context(
    issue_id: str,
    agent_type: str,
    *,
    task: str | None = None,
    max_bytes: int | None = None,
    refresh: bool | None = None,
    project_id: str | None = None,
) -> Request[types.JSON]:
    """Why a context is as it is: files with every signal's share, and what was left out. For architects."""
    path = path_of("api", "context", issue_id, agent_type, "explain")
    return _of_task(path, task, max_bytes=max_bytes, refresh=refresh, project_id=project_id)


def _of_task(path: str, task: str | None, **wishes: int | str | None) -> Request[Any]:
    if task is not None and len(task) > MAX_TASK_IN_URL:
        return Request("POST", path, Answer.json, body=body_of(task=task, **wishes), is_repeatable=True)
    return get(path, task=task, **wishes)


def clear_context(issue_id: str, *, project_id: str | None = None) -> Request[types.Cleared]:
    """Drop an issue's cached contexts. APIError 404 when nothing was cached."""
    return Request("DELETE", path_of("api", "cache", "context", issue_id), Answer.json, query_of(project_id=project_id))


def search_context(q: str, *, limit: int | None = None, project_id: str | None = None) -> Request[types.JSON]:
    """The project's files that fit a query, best first."""
    return get("/api/context/search", q=q, limit=limit, project_id=project_id)


# -- results ----------------------------------------------------------------------------------


def store_result(
    issue_id: str,
    result: Mapping[str, Any],
    *,
    agent_id: str | None = None,
    agent_type: str | None = None,
    project_id: str | None = None,
    timestamp: str | None = None,
    idempotency_key: str | None = None,
) -> Request[types.StoredResult]:
    """Store an outcome durably; a key is made when none is given, so a retry cannot store it twice."""
    body = body_of(
        agent_id=agent_id,
        agent_type=agent_type,
        issue_id=issue_id,
        project_id=project_id,
        result=dict(result),
        timestamp=timestamp,
    )
    headers = {"Idempotency-Key": idempotency_key or os.urandom(16).hex()}
    return Request("POST", "/api/results", Answer.json, body=body, headers=headers, is_repeatable=True)


def results(
    *,
    issue_id: str | None = None,
    agent_type: str | None = None,
    status: str | None = None,
    from_: str | None = None,
    to: str | None = None,
    limit: int | None = None,
    cursor: str | None = None,
    project_id: str | None = None,
) -> Request[types.ResultPage]:
    """One page of results; times are RFC 3339."""
    return get(
        "/api/results",
        issue_id=issue_id,
        agent_type=agent_type,
        status=status,
        from_=from_,
        to=to,
        limit=limit,
        cursor=cursor,
        project_id=project_id,
    )


def result(result_id: str, *, project_id: str | None = None) -> Request[types.Result]:
    """One result."""
    return get(path_of("api", "results", result_id), project_id=project_id)


# -- events -----------------------------------------------------------------------------------


def publish(
    event_type: str,
    topic: str,
    data: Mapping[str, Any] | None = None,
    *,
    event_id: str | None = None,
    publisher: str | None = None,
    correlation_id: str | None = None,
    ttl_seconds: int | None = None,
    priority: str | None = None,
    references: Sequence[str] | None = None,
    round: int | None = None,
    project_id: str | None = None,
) -> Request[types.Published]:
    """Publish an event; an ``event_id`` is made when none is given, so a retry cannot publish it twice."""
    body = body_of(
        event_id=event_id or f"evt-{os.urandom(16).hex()}",
        publisher=publisher,
        topic=topic,
        data=dict(data or {}),
        correlation_id=correlation_id,
        ttl_seconds=ttl_seconds,
        priority=priority,
        references=list(references) if references else None,
        round=round,
    )
    query = query_of(project_id=project_id)
    return Request("POST", path_of("api", "events", event_type), Answer.json, query, body, is_repeatable=True)


def wait_events(
    event_type: str = "*",
    *,
    timeout_ms: int = 30_000,
    filter: str | None = None,
    since: str | None = None,
    limit: int | None = None,
    consumer: str | None = None,
    ack: str | None = None,
    project_id: str | None = None,
) -> Request[types.EventPage]:
    """Retained matches at once, else wait up to ``timeout_ms`` for new ones (a long poll)."""
    query = query_of(
        timeout=timeout_ms,
        filter=filter,
        since=since,
        limit=limit,
        consumer=consumer,
        ack=ack,
        project_id=project_id,
    )
    # A list of types keeps its commas and the star its form: both are part of the path's meaning.
    path = "/api/events/wait/" + quote(event_type, safe=",*")
    # A durable consumer without `ack` takes the last answer as received, so a lost answer must not be repeated.
    is_repeatable = consumer is None or ack is not None
    timeout_s = timeout_ms / 1000 + POLL_SLACK_S
    return Request("GET", path, Answer.json, query, timeout_s=timeout_s, is_repeatable=is_repeatable)


def events(
    *,
    event_type: str | None = None,
    topic: str | None = None,
    filter: str | None = None,
    since: str | None = None,
    limit: int | None = None,
    project_id: str | None = None,
) -> Request[types.EventPage]:
    """Replay retained events, without waiting."""
    return get(
        "/api/events",
        type=event_type,
        topic=topic,
        filter=filter,
        since=since,
        limit=limit,
        project_id=project_id,
    )


# -- agents -----------------------------------------------------------------------------------


def spawn(
    agent_type: str,
    issue_id: str,
    task: str,
    *,
    context_requirements: Iterable[str] | None = None,
    environment: Mapping[str, str] | None = None,
    priority: str | None = None,
    project_id: str | None = None,
    runtime: str | None = None,
    command: Sequence[str] | None = None,
    restart: str | None = None,
    timeout_seconds: float | None = None,
    workspace: str | None = None,
    limits: Mapping[str, Any] | None = None,
    correlation_id: str | None = None,
) -> Request[types.Spawned]:
    """Start an agent, or queue it. It is not sent again when its answer is lost: that could start two."""
    body = body_of(
        agent_type=agent_type,
        issue_id=issue_id,
        task=task,
        context_requirements=list(context_requirements) if context_requirements is not None else None,
        environment=dict(environment) if environment is not None else None,
        priority=priority,
        project_id=project_id,
        runtime=runtime,
        command=list(command) if command is not None else None,
        restart=restart,
        timeout_seconds=timeout_seconds,
        workspace=workspace,
        limits=dict(limits) if limits is not None else None,
        correlation_id=correlation_id,
    )
    return Request("POST", "/api/agents/spawn", Answer.json, body=body, timeout_s=60.0)


def agents(
    *,
    status: str | None = None,
    agent_type: str | None = None,
    issue_id: str | None = None,
    limit: int | None = None,
    cursor: str | None = None,
    project_id: str | None = None,
) -> Request[types.AgentPage]:
    """One page of agents."""
    return get(
        "/api/agents",
        status=status,
        agent_type=agent_type,
        issue_id=issue_id,
        limit=limit,
        cursor=cursor,
        project_id=project_id,
    )


def agent(agent_id: str, *, project_id: str | None = None) -> Request[types.AgentInfo]:
    """All that is known of one agent."""
    return get(path_of("api", "agents", agent_id), project_id=project_id)


def output(
    agent_id: str, stream: str = "stdout", *, since: int = 0, project_id: str | None = None
) -> Request[types.Output]:
    """At most 1 MiB of raw output from byte ``since``."""
    query = query_of(stream=stream, since=since, project_id=project_id)

    def read(answer: Answer) -> types.Output:
        following = answer.headers.get("x-next-offset")
        cut = answer.headers.get("x-truncated-at")
        return {
            "data": answer.body,
            "next_offset": int(following) if following else since + len(answer.body),
            "truncated_at": int(cut) if cut else None,
        }

    return Request("GET", path_of("api", "agents", agent_id, "output"), read, query, is_repeatable=True)


def send_input(
    agent_id: str, text: str, data: Mapping[str, Any] | None = None, *, project_id: str | None = None
) -> Request[types.InputReceipt]:
    """Hand a message to a running agent."""
    body = body_of(text=text, data=dict(data) if data is not None else None)
    path = path_of("api", "agents", agent_id, "input")
    return Request("POST", path, Answer.json, query_of(project_id=project_id), body)


def terminate(
    agent_id: str, *, force: bool | None = None, grace_s: float | None = None, project_id: str | None = None
) -> Request[types.AgentInfo]:
    """End an agent; answered when nothing of it is left. ``grace_s`` lies between TERM and KILL."""
    query = query_of(force=force, timeout=grace_s, project_id=project_id)
    timeout_s = 30.0 + (grace_s or 0)
    return Request("DELETE", path_of("api", "agents", agent_id), Answer.json, query, timeout_s=timeout_s)


# -- runs, profiles, projects, knowledge --------------------------------------------------------


def create_run(
    issue_id: str,
    task: str,
    *,
    workflow: str | None = None,
    runtime: str | None = None,
    project_id: str | None = None,
) -> Request[types.Run]:
    """Have an issue worked on by a team."""
    body = body_of(issue_id=issue_id, task=task, workflow=workflow, runtime=runtime, project_id=project_id)
    return Request("POST", "/api/runs", Answer.json, body=body)


def runs(*, limit: int | None = None, project_id: str | None = None) -> Request[types.RunPage]:
    """Runs, newest first."""
    return get("/api/runs", limit=limit, project_id=project_id)


def run(run_id: str, *, project_id: str | None = None) -> Request[types.Run]:
    """One run with its steps."""
    return get(path_of("api", "runs", run_id), project_id=project_id)


def approve_run(run_id: str, *, project_id: str | None = None) -> Request[types.Run]:
    """Let a run that waits for approval go on."""
    path = path_of("api", "runs", run_id, "approve")
    return Request("POST", path, Answer.json, query_of(project_id=project_id), b"{}")


def cancel_run(run_id: str, *, project_id: str | None = None) -> Request[types.Run]:
    """End a run and its agents."""
    path = path_of("api", "runs", run_id, "cancel")
    return Request("POST", path, Answer.json, query_of(project_id=project_id), b"{}", timeout_s=60.0)


def profiles(*, project_id: str | None = None) -> Request[types.JSON]:
    """Every profile in force."""
    return get("/api/profiles", project_id=project_id)


def profile(agent_type: str, *, project_id: str | None = None) -> Request[types.JSON]:
    """One profile."""
    return get(path_of("api", "profiles", agent_type), project_id=project_id)


def projects() -> Request[types.JSON]:
    """Registered projects."""
    return get("/api/projects")


def add_project(project_id: str, path: str) -> Request[types.Project]:
    """Register a directory; the same pair again changes nothing."""
    body = body_of(project_id=project_id, path=path)
    return Request("POST", "/api/projects", Answer.json, body=body, is_repeatable=True)

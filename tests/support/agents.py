"""Agents for tests: small real commands, spawned through the API and waited for."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from tests.support.http import Api
from tests.support.waiting import until

FINAL = frozenset({"completed", "failed", "killed", "timed_out"})

#: Tells its result with its own id, type and issue, as a program in any language could.
ECHO_SCRIPT = (
    'printf \'{"type":"result","result":{"status":"success","artifacts":{"id":"%s","type":"%s","issue":"%s",'
    '"number":"%s"}}}\\n\' "$AGENT_ID" "$AGENT_TYPE" "$ISSUE_ID" "$NUMBER"'
)


def shell(script: str) -> list[str]:
    """A command that runs a shell script."""
    return ["/bin/sh", "-c", script]


def say(record: Mapping[str, Any]) -> str:
    """A shell command that writes ``record`` as one JSON line."""
    return f"printf '%s\\n' {shlex.quote(json.dumps(record))}"


def say_result(**result: Any) -> str:
    """A shell command that gives a result by pipe; its status is ``success`` unless told."""
    return say({"type": "result", "result": {"status": "success", **result}})


def spawn(api: Api, issue_id: str, script: str, *, agent_type: str = "python-specialist", **fields: Any) -> Any:
    """Spawn a shell script as an agent (the token must be an operator's); the body of the 201."""
    body = {"agent_type": agent_type, "issue_id": issue_id, "task": "a test", "command": shell(script), **fields}
    return api.post("/api/agents/spawn", body).expect(201).json


def agent(api: Api, agent_id: str) -> Any:
    """An agent's record now."""
    return api.get(f"/api/agents/{agent_id}").expect(200).json


def ended(api: Api, agent_id: str, *, timeout_s: float = 30.0) -> Any:
    """An agent's record once its status is final."""

    def final() -> Any:
        record = agent(api, agent_id)
        return record if record["status"] in FINAL else None

    return until(final, timeout_s=timeout_s, what=lambda: f"the agent ends: {agent(api, agent_id)}")


def output(api: Api, agent_id: str, stream: str = "stdout") -> bytes:
    """All that an agent has written so far."""
    parts: list[bytes] = []
    offset = 0
    while True:
        answer = api.get(f"/api/agents/{agent_id}/output", stream=stream, since=offset).expect(200)
        if not answer.body:
            return b"".join(parts)
        parts.append(answer.body)
        offset = int(answer.headers["X-Next-Offset"])


def await_room(api: Api) -> None:
    """Wait until the sidecar has seen that there is room for a new agent; it measures its disk twice a second."""

    def has_room() -> bool:
        pool = api.get("/api/pool").expect(200).json
        return bool(pool["capacity"] > pool["running"])

    until(has_room, what="there is room for a new agent")

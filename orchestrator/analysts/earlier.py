"""What agents before this one found on the same issue: from the sidecar when it answers, else from the context."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from agentpool.agent import Agent
from orchestrator.trust import pinned_context

if TYPE_CHECKING:
    import urllib.request

_TIMEOUT_S = 3.0
_MAX_BYTES = 8_000_000
_LIMIT = 100


class Output(msgspec.Struct, frozen=True):
    """One earlier agent's newest outcome; ``result`` is whatever it handed over."""

    agent_type: str
    agent_id: str
    status: str
    result: Mapping[str, Any]

    def items(self, name: str) -> list[dict[str, Any]]:
        """The objects of a list in the result (``findings``) or among its artifacts; empty when there is none."""
        artifacts = self.result.get("artifacts")
        for holder in (self.result, artifacts if isinstance(artifacts, Mapping) else {}):
            value = holder.get(name)
            if isinstance(value, list):
                return [item for item in value if isinstance(item, dict)]
        return []


class Earlier:
    """The newest outcome of each other agent, oldest first."""

    def __init__(self, outputs: Iterable[Output]) -> None:
        self.outputs = tuple(outputs)

    def __bool__(self) -> bool:
        return bool(self.outputs)

    @property
    def agent_types(self) -> list[str]:
        """Whose outcomes there are."""
        return [output.agent_type for output in self.outputs]

    def hotspots(self) -> dict[str, float]:
        """Path to score (0–100) of the hotspots that an architect named."""
        scores: dict[str, float] = {}
        for output in self.outputs:
            for item in output.items("hotspots"):
                path, score = item.get("path"), item.get("score", 1)
                if isinstance(path, str) and isinstance(score, int | float):
                    scores[path] = max(float(score), scores.get(path, 0.0))
        return scores

    def givers(self, name: str) -> list[str]:
        """Agent types that handed over a list ``name``."""
        return [output.agent_type for output in self.outputs if output.items(name)]

    def paths(self, name: str) -> list[str]:
        """The ``path`` of each item of the lists called ``name``, in order, once each."""
        found = (item.get("path") for output in self.outputs for item in output.items(name))
        return list(dict.fromkeys(path for path in found if isinstance(path, str)))


def read_earlier(agent: Agent) -> Earlier:
    """The outcomes of other agents on this agent's issue.

    Asks the sidecar (``GET /results``) when the agent has its address and a token, since the context document may hold
    them shortened; on any failure there the context document's ``previous_agent_outputs`` serve.
    """
    documents = _ask(agent)
    if documents is None:
        previous = agent.context().get("previous_agent_outputs")
        documents = previous if isinstance(previous, list) else []
    newest: dict[str, Output] = {}
    for document in documents:
        output = _output(document)
        if output is not None and output.agent_id != agent.id:
            newest.setdefault(output.agent_type, output)
    newest.pop(agent.type, None)
    return Earlier(reversed(newest.values()))


def _output(document: Any) -> Output | None:
    if not isinstance(document, dict):
        return None
    inner = document.get("result")
    result = inner if isinstance(inner, dict) else document
    agent_type = document.get("agent_type") or document.get("agent")
    if not isinstance(agent_type, str):
        return None
    agent_id = document.get("agent_id") or document.get("agent") or ""
    return Output(agent_type, str(agent_id), str(result.get("status", document.get("status", ""))), result)


def _ask(agent: Agent) -> list[Any] | None:
    """The stored results of the issue, newest first, or None when the sidecar cannot be asked."""
    if not (agent.url.startswith(("http://", "https://")) and agent.token and agent.issue_id):
        return None
    import urllib.request  # deferred: an agent without a sidecar never needs it, and it is slow to import

    url = f"{agent.url}/results?issue_id={quote(agent.issue_id, safe='')}&limit={_LIMIT}"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {agent.token}"})
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), *_tls_handlers(agent))
        with opener.open(request, timeout=_TIMEOUT_S) as answer:
            document = json.loads(answer.read(_MAX_BYTES))
    except (OSError, ValueError):
        return None
    results = document.get("results") if isinstance(document, dict) else None
    if not isinstance(results, list):
        return None
    return sorted(results, key=_stored_at, reverse=True)


def _tls_handlers(agent: Agent) -> list[urllib.request.BaseHandler]:
    """What makes urllib accept the sidecar's own certificate; nothing where there is none."""
    if not agent.certificate_file:
        return []
    import urllib.request

    return [urllib.request.HTTPSHandler(context=pinned_context(Path(agent.certificate_file).read_text("ascii")))]


def _stored_at(document: Any) -> str:
    return str(document.get("timestamp", "")) if isinstance(document, dict) else ""

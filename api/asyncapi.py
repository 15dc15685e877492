"""The AsyncAPI 3.0 document of the topics (asyncapi.com/docs/reference/specification/v3.0.0)."""

from __future__ import annotations

from typing import Any

import msgspec

from api.schemas.events import EventAnswer, EventBody
from orchestrator.profiles.model import TOPICS

#: Events that the supervisor itself publishes on the topic ``coordination`` (contract section 5).
SUPERVISOR_EVENTS = (
    "agent_spawned",
    "agent_started",
    "agent_completed",
    "agent_failed",
    "agent_killed",
    "agent_restarted",
    "result_stored",
    "phase_complete",
    "run_started",
    "run_completed",
    "approval_requested",
)


def build_asyncapi(version: str) -> dict[str, Any]:
    """The document, as plain values."""
    (sent, received), components = msgspec.json.schema_components(
        [EventBody, EventAnswer], ref_template="#/components/schemas/{name}"
    )
    channels, operations = {}, {}
    for topic in TOPICS:
        messages: dict[str, Any] = {"event": {"$ref": "#/components/messages/event"}}
        if topic == "coordination":
            for name in SUPERVISOR_EVENTS:
                messages[name] = {"name": name, "payload": received, "contentType": "application/json"}
        channels[topic] = {"address": topic, "messages": messages}
        channel = {"$ref": f"#/channels/{topic}"}
        operations[f"receive_{topic}"] = {
            "action": "receive",
            "channel": channel,
            "summary": f"GET /api/events/wait/{{event_type}}?topic={topic}, /api/events/stream, or an agent's stdin",
        }
        operations[f"send_{topic}"] = {
            "action": "send",
            "channel": channel,
            "summary": f"POST /api/events/{{event_type}} with topic {topic}, or a line of an agent's stdout",
        }
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Events of the orchestration sidecar", "version": version},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": {"event": {"name": "event", "payload": received}, "draft": {"name": "draft", "payload": sent}},
            "schemas": components,
        },
    }

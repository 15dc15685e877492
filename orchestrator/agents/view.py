"""How an agent is shown (contract section 4)."""

from __future__ import annotations

import msgspec

from orchestrator.agents.registry import LiveAgent
from orchestrator.clock import rfc3339
from orchestrator.models import JSON, AgentRecord


def short_view(record: AgentRecord, live: LiveAgent | None = None) -> JSON:
    """The few facts that ``/status`` of an agent and lists show."""
    view: JSON = {
        "agent_id": record.agent_id,
        "agent_type": record.agent_type,
        "issue_id": record.issue_id,
        "project_id": record.project_id,
        "status": record.status,
        "outcome": record.outcome,
        "process_id": record.process_id,
        "exit_code": record.exit_code,
        "signal": record.signal,
        "attempt": record.attempt,
        "created_at": rfc3339(record.created_at),
        "started_at": _time(record.started_at),
        "ended_at": _time(record.ended_at),
        "result_id": record.result_id,
        "error": record.error,
    }
    if live is not None:
        view["progress"] = live.progress or None
        view["output"] = {"stdout_bytes": live.stdout_bytes, "stderr_bytes": live.stderr_bytes}
        if live.ticket is not None and live.record.status == "queued":
            view["queue_position"] = live.ticket.position
        if live.refusal is not None:
            view["unrecorded"] = live.refusal.error.message
        view["is_verifying"] = live.verifier_pid is not None
        if live.verifier_pid is not None:
            view["process_id"] = live.verifier_pid
        if record.status in ("running", "stopping") and not live.has_process:
            # It has ended; which way is shown when it is durable. Another program may have its number by now.
            view |= {"status": "stopping", "process_id": None}
    return view


def full_view(record: AgentRecord, live: LiveAgent | None = None) -> JSON:
    """Everything but what only the owner of the process may know (environment, nonce, token)."""
    request = record.request
    view = short_view(record, live)
    view |= {
        # Null is what nobody measured, as when the sidecar died over it; until the end nothing is counted.
        "usage": {"cpu_seconds": None, "max_rss_bytes": None, **record.usage}
        if record.usage
        else {"cpu_seconds": 0.0, "max_rss_bytes": 0},
        "survivors": record.survivors,
        "evidence": record.evidence,
        "task": request.task,
        "command": list(request.command) if request.command is not None else None,
        "runtime": request.runtime,
        "workspace": request.workspace or "shared",
        "workspace_path": record.workspace_path,
        "restart": request.restart,
        "priority": request.priority,
        "timeout_seconds": request.timeout_seconds,
        "context_requirements": list(request.context_requirements),
        "correlation_id": request.correlation_id,
        "spawned_by": request.spawned_by,
        "run_id": request.run_id,
    }
    receipts = live.inputs.values() if live is not None else record.inputs
    view["inputs"] = [msgspec.to_builtins(receipt) for receipt in receipts]
    return view


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else rfc3339(seconds)

"""What a spawn request may say."""

from __future__ import annotations

from agentpool.runtimes import runtime_names
from orchestrator.agents.environment import check_environment
from orchestrator.agents.launch import command_of, merged_limits
from orchestrator.agents.restarts import POLICIES
from orchestrator.errors import BadRequest
from orchestrator.identifiers import check_identifier
from orchestrator.models import SpawnRequest
from orchestrator.profiles.model import Profile
from orchestrator.profiles.requirements import resolve_requirements
from orchestrator.workspaces import KINDS


def check_request(request: SpawnRequest, profile: Profile) -> None:
    """Raise BadRequest for what a spawn request may not say."""
    check_identifier(request.issue_id, "issue_id")
    if not request.task.strip():
        raise _bad("task", "must not be empty")
    if "\x00" in request.task:
        raise _bad("task", "must not hold a NUL character")
    check_environment(request.environment)
    resolve_requirements(request.context_requirements)
    if request.workspace is not None and request.workspace not in KINDS:
        raise _bad("workspace", f"must be one of {', '.join(KINDS)}")
    if request.restart is not None and request.restart not in POLICIES:
        raise _bad("restart", f"must be one of {', '.join(POLICIES)}")
    if request.timeout_seconds is not None and not 0 < request.timeout_seconds <= 7 * 86400:
        raise _bad("timeout_seconds", "must be more than 0 and at most 604800")
    if request.command is not None and not (request.command and request.command[0]):
        raise _bad("command", "must name a program")
    if any("\x00" in part for part in request.command or ()):
        raise _bad("command", "must not hold a NUL character")
    if request.runtime is not None and request.runtime not in runtime_names():
        raise _bad("runtime", f"must be one of {', '.join(runtime_names())}")
    if request.command is None and request.runtime not in (None, profile.runtime):
        raise _bad("runtime", f"is {profile.runtime!r} for {profile.agent_type}; another one needs a command")
    runtime, command = command_of(request, profile)
    if runtime == "python" and (len(command) != 1 or command[0].count(":") != 1):
        raise _bad("command", "must be one 'module:function' for runtime python")
    merged_limits(profile, request)


def _bad(field: str, problem: str) -> BadRequest:
    return BadRequest(f"{field} {problem}", details={"field": field})

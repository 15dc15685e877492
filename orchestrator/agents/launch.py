"""Launching: from an agent's record to a specification that the pool can start."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec

from agentpool.specs import LaunchSpec, Limits, Verifier, range_of
from orchestrator.agents.base import TokenMinter
from orchestrator.agents.environment import inherited_environment, new_traceparent, task_for_environment
from orchestrator.agents.files import (
    CERTIFICATE_FILE,
    CONTEXT_FILE,
    mcp_configuration,
    profile_document,
    task_text,
    write_agent_files,
)
from orchestrator.agents.registry import LiveAgent
from orchestrator.config import PoolSettings
from orchestrator.context.engine import ContextEngine
from orchestrator.context.models import ContextRequest
from orchestrator.errors import BadRequest, ContextFailed, SpawnFailed
from orchestrator.models import AgentRecord, Project, SpawnRequest
from orchestrator.profiles.model import Profile
from orchestrator.profiles.permissions import permissions_of
from orchestrator.projects import ProjectService
from orchestrator.workspaces import Workspaces

#: A token outlives its agent's time by this much, so that a last call at the deadline still passes (contract 2).
TOKEN_MARGIN_S = 300.0
TOKEN_MINIMUM_S = 3600.0


def token_ttl_s(request: SpawnRequest, profile: Profile) -> float:
    """Seconds that a spawned agent's token lasts: max(1 h, the longest run + 5 min)."""
    longest_s = merged_limits(profile, request).wall_s or profile.timeout_seconds
    return max(TOKEN_MINIMUM_S, longest_s + TOKEN_MARGIN_S)


def merged_limits(profile: Profile, request: SpawnRequest) -> Limits:
    """The profile's limits with the request's laid over them. Raises BadRequest, naming the field."""
    merged = {**msgspec.to_builtins(profile.limits), **request.limits}
    if request.timeout_seconds is not None or merged.get("wall_s") is None:
        merged["wall_s"] = request.timeout_seconds or profile.timeout_seconds
    if merged.get("idle_s") is None:
        merged["idle_s"] = profile.idle_seconds
    try:
        limits = msgspec.convert(merged, Limits)
    except msgspec.ValidationError as error:
        raise BadRequest(f"limits: {error}", details={"field": "limits"}) from error
    for name, value in merged.items():
        least, most = range_of(name)
        if value is not None and not least <= value <= most:
            field = f"limits.{name}"
            raise BadRequest(f"{field} must be {least} to {most}, and is {value}", details={"field": field})
    return limits


class Launcher:
    """Prepares workspace, token, context and environment of one attempt.

    Args:
        agents_dir: parent of every agent's own directory.
        base_url: where the sidecar is reached, without a trailing slash.
        certificate: the sidecar's own certificate (PEM), or None without TLS.
        environ: the supervisor's environment, of which agents get a little.
    """

    def __init__(
        self,
        *,
        agents_dir: Path,
        base_url: str,
        certificate: str | None = None,
        context: ContextEngine,
        projects: ProjectService,
        workspaces: Workspaces,
        minter: TokenMinter,
        settings: PoolSettings,
        environ: Mapping[str, str],
    ) -> None:
        self._agents_dir = agents_dir
        self._base_url = base_url
        self._certificate = certificate
        self._context = context
        self._projects = projects
        self._workspaces = workspaces
        self._minter = minter
        self._settings = settings
        self._environ = dict(environ)  # os.environ decodes each of its variables each time

    def mint(self, live: LiveAgent) -> str:
        """A new token for this agent's attempt, or for the next one while it is queued."""
        record, profile = live.record, live.profile
        return self._minter.mint(
            record.agent_id,
            record.agent_type,
            record.project_id,
            permissions_of(profile.permission_class),
            token_ttl_s(record.request, profile),
            attempt=record.open_attempt,
        )

    def record_dir(self, record: AgentRecord) -> str:
        """Where an agent's own files are, its output among them."""
        return str(self._agents_dir / record.agent_id)

    def check(self, project: Project, request: SpawnRequest, profile: Profile) -> None:
        """Raise SpawnFailed when the request cannot be carried out at all, before anything is made. Blocks."""
        _check_directory(project)
        runtime, command = command_of(request, profile)
        if runtime != "python":
            self._check_command(command[0], request)
        if profile.verify is not None:
            # Better told now than after the work that could not be verified.
            self._check_command(profile.verify.command[0], request)

    def _check_command(self, program: str, request: SpawnRequest) -> None:
        if "/" in program:
            # A relative program is looked for in the workspace, which a later step makes.
            if not os.path.isabs(program):
                return
            _check_executable(Path(program))
            return
        path = {**self._environ, **request.environment}.get("PATH", os.defpath)
        if shutil.which(program, path=path) is None:
            raise SpawnFailed(
                f"command {program!r} was not found on PATH; install it or name its absolute path",
                slug="command_not_found",
                details={"command": program},
            )

    async def prepare(self, live: LiveAgent, previous_error: str | None = None) -> LaunchSpec:
        """Make the workspace and the files, all complete when this returns. Raises SidecarError."""
        record, profile, request = live.record, live.profile, live.record.request
        project = self._projects.get(record.project_id)
        if not live.token or record.attempt > 1:
            # The attempt before may have refreshed its token, which revoked it, or used up most of its life.
            live.token = self.mint(live)
        directory = self._agents_dir / record.agent_id
        wanted = ContextRequest(
            issue_id=record.issue_id,
            agent_type=record.agent_type,
            task=request.task,
            requirements=request.context_requirements,
        )
        try:
            built = await self._context.build(project, wanted)
        except ContextFailed:
            await asyncio.to_thread(_check_directory, project)  # it waited, and the project went meanwhile
            raise
        files = {
            CONTEXT_FILE: built.body,
            "CONTEXT.md": self._context.markdown(built).encode(),
            "task.md": task_text(record, profile, previous_error).encode(),
            "profile.json": profile_document(profile),
            "mcp.json": msgspec.json.encode(mcp_configuration(self._base_url, live.token)),
        }
        if self._certificate is not None:
            files[CERTIFICATE_FILE] = self._certificate.encode()
        workspace = await asyncio.to_thread(self._lay_out, project, record, directory, files)
        runtime, command = command_of(request, profile)
        environment = self._environment(live, directory, workspace)
        return LaunchSpec(
            agent_id=record.agent_id,
            attempt=record.attempt,
            nonce=record.nonce,
            runtime=runtime,
            argv=command,
            env=environment,
            workspace=workspace,
            record_dir=str(directory),
            output_begins=record.output_begins,
            grace_s=self._settings.grace_s,
            limits=merged_limits(profile, request),
            sandbox=request.sandbox or profile.sandbox,
            sandbox_network=profile.sandbox_network,
            readonly_paths=(project.path, str(directory)),
            verifier=_verifier(profile, environment),
        )

    def _lay_out(self, project: Project, record: AgentRecord, directory: Path, files: Mapping[str, bytes]) -> str:
        """Make the workspace, return it, and write the files: all that needs a thread, in one go."""
        _check_directory(project)  # the context may be one of before it went
        kind = record.request.workspace or "shared"
        workspace = record.workspace_path or self._workspaces.prepare(kind, project, record)
        write_agent_files(directory, files)
        return workspace

    def _environment(self, live: LiveAgent, directory: Path, workspace: str) -> dict[str, str]:
        record, request = live.record, live.record.request
        tls = {"SIDECAR_CERTIFICATE": str(directory / CERTIFICATE_FILE)} if self._certificate is not None else {}
        return {
            **inherited_environment(self._environ, live.profile.environment),
            **request.environment,
            "AGENT_ID": record.agent_id,
            "AGENT_TYPE": record.agent_type,
            "ISSUE_ID": record.issue_id,
            "PROJECT_ID": record.project_id,
            "SIDECAR_URL": f"{self._base_url}/api",
            **tls,
            "JWT_TOKEN": live.token,
            "AGENT_TASK": task_for_environment(request.task),
            "AGENT_WORKSPACE": workspace,
            "AGENT_CONTEXT_FILE": str(directory / CONTEXT_FILE),
            "TRACEPARENT": new_traceparent(),
            "ORCHESTRATOR_AGENT_NONCE": record.nonce,
        }

    async def discard(self, live: LiveAgent) -> None:
        """Remove what a failed start left: the agent's directory and a workspace that it never used."""
        if self._projects.has(live.record.project_id):
            project = self._projects.get(live.record.project_id)
            await self._workspaces.discard(live.record.request.workspace or "shared", project, live.record)
        await asyncio.to_thread(shutil.rmtree, self._agents_dir / live.record.agent_id, True)


def _verifier(profile: Profile, environment: Mapping[str, str]) -> Verifier | None:
    """Who checks the work: told what the agent was told, but for the token, for it has nothing to ask of the API."""
    if profile.verify is None:
        return None
    known = {name: value for name, value in environment.items() if name != "JWT_TOKEN"}
    return Verifier(argv=profile.verify.command, env=known, timeout_s=profile.verify.timeout_seconds)


def command_of(request: SpawnRequest, profile: Profile) -> tuple[str, tuple[str, ...]]:
    """Runtime and command in force: the request's, else the profile's."""
    if request.command is not None:
        return request.runtime or "jsonl", request.command
    return profile.runtime, profile.command


def _check_directory(project: Project) -> None:
    if not os.path.isdir(project.path):
        raise SpawnFailed(
            f"workspace: the project's directory {project.path} is gone; restore it or register the project anew",
            slug="workspace_failed",
        )


def _check_executable(path: Path) -> None:
    if not path.is_file():
        raise SpawnFailed(
            f"command {str(path)!r} was not found; name an existing program",
            slug="command_not_found",
            details={"command": str(path)},
        )
    if not os.access(path, os.X_OK):
        raise SpawnFailed(
            f"command {str(path)!r} is not executable; chmod +x it or name its interpreter first",
            slug="command_not_executable",
            details={"command": str(path)},
        )

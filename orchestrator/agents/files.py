"""The files that an agent finds when it starts (contract section 5)."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

import msgspec

from orchestrator.errors import StorageWriteFailed
from orchestrator.models import JSON, AgentRecord
from orchestrator.privacy import make_private_directory, write_private
from orchestrator.profiles.model import Profile

CONTEXT_FILE = "context.json"
#: The sidecar's own certificate (PEM), where it serves TLS.
CERTIFICATE_FILE = "sidecar.pem"


def mcp_configuration(base_url: str, token: str) -> JSON:
    """The configuration by which coding CLIs find this sidecar's MCP server (``mcpServers``, streamable HTTP)."""
    server = {"type": "http", "url": f"{base_url}/mcp", "headers": {"Authorization": f"Bearer {token}"}}
    return {"mcpServers": {"sidecar": server}}


def task_text(record: AgentRecord, profile: Profile, previous_error: str | None) -> str:
    """``task.md``: what is to be done, by whom, and what went wrong the time before."""
    parts = [
        f"# Task for {record.agent_type}",
        "",
        f"Issue: {record.issue_id}  ",
        f"Project: {record.project_id}  ",
        f"Agent: {record.agent_id} (attempt {record.attempt})",
        "",
        record.request.task.strip(),
    ]
    if profile.verify is not None:
        check = shlex.join(profile.verify.command)
        parts += ["", "## How the work is checked", "", f"Afterwards `{check}` is run here; exit code 0 means done."]
    if previous_error:
        parts += ["", "## The attempt before this one failed", "", previous_error.strip()]
    if profile.instructions:
        parts += ["", "## Your role", "", profile.instructions.strip()]
    return "\n".join(parts) + "\n"


def write_agent_files(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write all files (0600) into the agent's directory (0700). Raises StorageWriteFailed."""
    try:
        make_private_directory(directory)
        for name, data in files.items():
            write_private(directory / name, data)
    except OSError as error:
        raise StorageWriteFailed(f"the agent's files could not be written: {error.strerror}") from error


def profile_document(profile: Profile) -> bytes:
    """``profile.json``: the role as it is in force."""
    return msgspec.json.format(msgspec.json.encode(profile), indent=2)

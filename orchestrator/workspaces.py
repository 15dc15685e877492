"""Workspaces: the directory that an agent works in."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from pathlib import Path

import structlog

from orchestrator.context.git import GitFailed, Repository
from orchestrator.errors import SpawnFailed
from orchestrator.models import AgentRecord, Project
from orchestrator.privacy import make_private_directory

KINDS = ("shared", "scratch", "worktree")
#: Seconds that one git command may take; a checkout of a large repository needs some.
GIT_TIMEOUT_S = 60.0
log = structlog.get_logger(__name__)


class Workspaces:
    """Makes and removes workspaces under the storage directory."""

    def __init__(self, agents_dir: Path, worktrees_dir: Path) -> None:
        self._agents_dir = agents_dir
        self._worktrees_dir = worktrees_dir

    def prepare(self, kind: str, project: Project, record: AgentRecord) -> str:
        """The absolute directory for this agent; made when it is not there. Blocks; raises SpawnFailed, OSError."""
        if kind == "scratch":
            path = self._agents_dir / record.agent_id / "workspace"
            make_private_directory(path)
            return str(path)
        if kind == "shared":
            return project.path
        return self._add_worktree(project, record)

    def _add_worktree(self, project: Project, record: AgentRecord) -> str:
        path = self._worktrees_dir / record.agent_id
        if path.is_dir():
            return str(path)
        make_private_directory(self._worktrees_dir)
        done = _git(project.path, "worktree", "add", "--quiet", "-b", branch_of(record), str(path), "HEAD")
        if done.returncode:
            shutil.rmtree(path, ignore_errors=True)
            _git(project.path, "worktree", "prune")
            reason = done.stderr.strip().splitlines()[-1:] or ["git failed"]
            raise SpawnFailed(
                f"workspace: no git worktree could be made of {project.path}: {reason[0]}; "
                "ask for workspace 'shared' or 'scratch', or commit once",
                slug="workspace_failed",
            )
        return str(path)

    async def discard(self, kind: str, project: Project, record: AgentRecord) -> None:
        """Remove what a first start that failed made; git refuses where a worktree or its branch holds work."""
        path = self._worktrees_dir / record.agent_id
        if kind == "worktree" and await asyncio.to_thread(path.is_dir):
            await asyncio.to_thread(_git, project.path, "worktree", "remove", str(path))
            await asyncio.to_thread(_git, project.path, "branch", "--quiet", "-d", branch_of(record))


def branch_of(record: AgentRecord) -> str:
    """The branch of an agent's worktree."""
    issue = re.sub(r"[^A-Za-z0-9-]+", "-", record.issue_id)
    return f"sidecar/{issue}/{record.agent_id}"


def _git(directory: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git there so that nothing that the repository carries is executed: no hook, filter, monitor or transport."""
    try:
        repository = Repository(os.path.realpath(directory), GIT_TIMEOUT_S)
        command, environment = repository.command(arguments), repository.environment(uses_filters=True)
        return subprocess.run(
            command,
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=GIT_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )
    except GitFailed as error:
        return subprocess.CompletedProcess(arguments, 128, "", str(error))
    except OSError as error:
        return subprocess.CompletedProcess(arguments, 127, "", f"git cannot be started: {error}")
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(arguments, 124, "", f"git took longer than {GIT_TIMEOUT_S:.0f} s")

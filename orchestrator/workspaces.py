"""Workspaces: the directory that an agent works in."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog

from orchestrator.context.git import GitFailed, Repository
from orchestrator.context.gitplace import Elsewhere, NoPlace, beginning, find_common_dir, find_git_dir
from orchestrator.errors import SpawnFailed
from orchestrator.models import AgentRecord, Project
from orchestrator.privacy import make_private_directory

KINDS = ("shared", "scratch", "worktree")
#: Seconds that one git command may take; a checkout of a large repository needs some.
GIT_TIMEOUT_S = 60.0
#: Seconds between looks whether an earlier sidecar's git has ended.
_POLL_S = 0.05
#: What git locks a worktree with until its files are there (LC_ALL=C).
_UNFINISHED = "initializing"
log = structlog.get_logger(__name__)


class Workspaces:
    """Makes and removes workspaces under the storage directory."""

    def __init__(self, agents_dir: Path, worktrees_dir: Path) -> None:
        self._agents_dir = agents_dir
        self._worktrees_dir = worktrees_dir

    def possible(self, kind: str, project: Project) -> str:
        """``kind``, or ``shared`` for a worktree where there can be none: no git, no repository, nothing committed, or
        a repository that cannot be written. Blocks.
        """
        if kind != "worktree" or _what_prevents_worktrees(project) is None:
            return kind
        return "shared"

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
        """The project's directory inside the agent's worktree."""
        if (reason := _what_prevents_worktrees(project)) is not None:
            raise _no_worktree(project, reason)
        path = self._worktrees_dir / record.agent_id
        make_private_directory(self._worktrees_dir)
        # Git holds the lock too, and goes on when the sidecar is killed: the next one waits for it.
        with _locked(make_private_directory(self._agents_dir / record.agent_id)) as handle:
            if not _is_whole(path):
                if path.exists():
                    _remove_by_force(project.path, path)
                branch = branch_of(record)
                # Of an attempt before: what it committed is the agent's own.
                is_there = _git(project.path, "show-ref", "--verify", "--quiet", f"refs/heads/{branch}").returncode == 0
                where = (str(path), branch) if is_there else ("-b", branch, str(path), "HEAD")
                done = _git(project.path, "worktree", "add", "--quiet", *where, handle=handle)
                if done.returncode:
                    _remove_by_force(project.path, path)
                    _git(project.path, "branch", "--quiet", "-d", branch)
                    raise _no_worktree(project, (done.stderr.strip().splitlines() or ["git failed"])[-1])
        return str(path / Repository(project.path, GIT_TIMEOUT_S).prefix)

    async def discard(self, kind: str, project: Project, record: AgentRecord) -> None:
        """Remove what a first start that failed made; git refuses where a worktree or its branch holds work."""
        path = self._worktrees_dir / record.agent_id
        if kind == "worktree" and await asyncio.to_thread(path.is_dir):
            await asyncio.to_thread(_remove_unchanged, project.path, path)

    def sweep(self, is_kept: Callable[[str], bool]) -> int:
        """Remove the worktrees, and their branches, of agents (ids) that are not kept; how many worktrees went. Blocks.

        What nobody else has stays: a worktree with changes or a commit of no branch, a branch that is not merged.
        """
        try:
            found = [path for path in self._worktrees_dir.iterdir() if not is_kept(path.name)]
        except FileNotFoundError:
            return 0
        return sum(_sweep(path) for path in found)


def branch_of(record: AgentRecord) -> str:
    """The branch of an agent's worktree."""
    issue = re.sub(r"[^A-Za-z0-9-]+", "-", record.issue_id)
    return f"sidecar/{issue}/{record.agent_id}"


def _no_worktree(project: Project, reason: str) -> SpawnFailed:
    return SpawnFailed(
        f"workspace: no git worktree could be made of {project.path}: {reason}; "
        "ask for workspace 'shared' or 'scratch', or commit once",
        slug="workspace_failed",
    )


def _what_prevents_worktrees(project: Project) -> str | None:
    try:
        repository = Repository(project.path, GIT_TIMEOUT_S)
        repository.environment(uses_filters=True)  # refused where the repository's own could not be switched off
    except GitFailed as error:
        return str(error)
    if not os.access(repository.git_dir, os.W_OK):
        return f"{repository.git_dir} cannot be written"
    try:
        repository.call(["rev-parse", "--quiet", "--verify", f"HEAD:{repository.prefix.rstrip('/')}"])
    except GitFailed as error:
        return "nothing of it is committed" if error.reason == "git_failed" else str(error)
    return None


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[int]:
    """Hold a directory's lock; its descriptor holds it for whoever inherits that. Raises SpawnFailed, OSError."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + GIT_TIMEOUT_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise SpawnFailed(
                        "workspace: a git of an earlier sidecar still makes its worktree; end it, or spawn again later",
                        slug="workspace_failed",
                    ) from None
                time.sleep(_POLL_S)
        yield handle
    finally:
        os.close(handle)


def _git_dir(path: Path) -> str | None:
    """A worktree's own git directory; None where it has none that names it in turn."""
    try:
        return find_git_dir(str(path))
    except (NoPlace, Elsewhere):
        return None


def _is_whole(path: Path) -> bool:
    """Whether a worktree was made to its end. One whose repository is gone was."""
    marker = path / ".git"
    if not marker.is_file() or marker.stat().st_size == 0:
        return False
    directory = _git_dir(path)
    try:
        return directory is None or beginning(os.path.join(directory, "locked")).strip() != _UNFINISHED
    except OSError:
        return True


def _remove_by_force(repository: str, path: Path) -> None:
    """Remove what there is of a worktree in which nobody has worked."""
    shutil.rmtree(path, ignore_errors=True)
    _git(repository, "worktree", "remove", "--force", "--force", str(path))


def _remove_unchanged(repository: str, path: Path) -> bool:
    """Remove a worktree without changes, and its branch when that is merged; whether the worktree went."""
    # Settings of the repository could hide new files from git, which would remove them then.
    done = _git(repository, "-c", "status.showUntrackedFiles=all", "worktree", "remove", str(path))
    if done.returncode:
        log.debug("worktree_kept", path=str(path), reason=done.stderr.strip())
        return False
    pattern = f"refs/heads/sidecar/*/{path.name}"
    for branch in _git(repository, "for-each-ref", "--format=%(refname:short)", pattern).stdout.split():
        _git(repository, "branch", "--quiet", "-d", branch)
    return True


def _sweep(path: Path) -> bool:
    directory = _git_dir(path)
    if directory is None:
        return False  # nobody can tell what of it is elsewhere
    try:
        common = find_common_dir(directory, str(path))
    except Elsewhere:
        return False
    if not _is_whole(path):
        _remove_by_force(common, path)
        return True
    places = ("refs/heads", "refs/tags", "refs/remotes")
    if not _git(str(path), "for-each-ref", "--count=1", "--contains", "HEAD", *places).stdout.strip():
        return False
    return _remove_unchanged(common, path)


def _git(directory: str, *arguments: str, handle: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run git there so that nothing that the repository carries is executed: no hook, filter, monitor or transport.

    ``handle``: a descriptor that it and its children inherit.
    """
    try:
        repository = Repository(os.path.realpath(directory), GIT_TIMEOUT_S)
        process = subprocess.Popen(
            repository.command(arguments),
            cwd=directory,
            env=repository.environment(uses_filters=True),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            pass_fds=() if handle is None else (handle,),
        )
    except GitFailed as error:
        return subprocess.CompletedProcess(arguments, 128, "", str(error))
    except OSError as error:
        return subprocess.CompletedProcess(arguments, 127, "", f"git cannot be started: {error}")
    with process:
        try:
            output, told = process.communicate(timeout=GIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its children hold the pipes, and would write on
            return subprocess.CompletedProcess(arguments, 124, "", f"git took longer than {GIT_TIMEOUT_S:.0f} s")
    return subprocess.CompletedProcess(arguments, process.returncode, output, told)

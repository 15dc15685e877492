"""Read-only questions to git, safe on a repository that nobody has vouched for."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec

from orchestrator.analysts.processes import ToolRun, run_tool
from orchestrator.context.git import GitFailed, Repository


class Commit(msgspec.Struct, frozen=True):
    """One commit of the log: ``time`` in epoch seconds, ``files`` as (path, lines added, lines removed)."""

    hash: str
    author: str
    time: int
    subject: str
    files: tuple[tuple[str, int, int], ...]


class Git:
    """Questions to the repository around ``root``; with none there (or no git), every answer is empty."""

    def __init__(self, root: Path, environ: Mapping[str, str], *, timeout_s: float = 10.0) -> None:
        self.root = root
        self._timeout_s = timeout_s
        self._environ = {key: environ[key] for key in ("PATH", "HOME", "LANG", "TMPDIR") if key in environ}

    def run(self, *arguments: str, timeout_s: float | None = None, limit_bytes: int = 32_000_000) -> ToolRun:
        """Run ``git <arguments>`` in the project without its hooks, filters, pagers and network."""
        if self._safely is None:
            return ToolRun(None, "", "", False, 0.0, "no git repository that can be asked safely")
        command, environ = self._safely
        return run_tool(
            [*command, *arguments],
            cwd=self.root,
            timeout_s=timeout_s or self._timeout_s,
            environ=environ,
            limit_bytes=limit_bytes,
        )

    @functools.cached_property
    def _safely(self) -> tuple[list[str], dict[str, str]] | None:
        """The beginning of each command line and its environment; None where there is nobody to ask."""
        try:
            repository = Repository(
                str(self.root), self._timeout_s, program=shutil.which("git", path=self._environ.get("PATH"))
            )
            if repository.is_bare:
                return None
            return repository.command(()), {**repository.environment(uses_filters=True), **self._environ, "LC_ALL": "C"}
        except GitFailed:
            return None

    @functools.cached_property
    def is_repository(self) -> bool:
        """Whether the project lies in a git work tree."""
        return self.run("rev-parse", "--is-inside-work-tree").stdout.strip() == "true"

    @functools.cached_property
    def head(self) -> str:
        """The commit that is checked out; empty without a repository or before the first commit."""
        if not self.is_repository:
            return ""
        found = self.run("rev-parse", "--verify", "--quiet", "HEAD")
        return found.stdout.strip() if found.ok else ""

    @functools.cached_property
    def branch(self) -> str:
        """The branch's short name; empty when detached."""
        return self.run("symbolic-ref", "--short", "--quiet", "HEAD").stdout.strip() if self.is_repository else ""

    @functools.cached_property
    def is_shallow(self) -> bool:
        """Whether the history is cut, so that figures from it are too low."""
        return self.run("rev-parse", "--is-shallow-repository").stdout.strip() == "true"

    def files(self) -> list[str] | None:
        """Tracked and untracked but not ignored paths below the project, or None without a repository."""
        if not self.is_repository:
            return None
        listing = self.run("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate", ".")
        if not listing.ok:
            return None
        return [path for path in listing.stdout.split("\0") if path]

    def status(self) -> list[tuple[str, str]]:
        """Uncommitted changes as (two-letter status, path); a rename gives the new path."""
        if not self.is_repository:
            return []
        # inside a submodule git would run the filters of the submodule's own configuration
        options = ("--porcelain=v1", "-z", "--untracked-files=all", "--ignore-submodules=dirty")
        fields = self.run("status", *options, ".").stdout.split("\0")
        changes: list[tuple[str, str]] = []
        skip = False
        for field in fields:
            if skip or len(field) < 4:
                skip = False
                continue
            changes.append((field[:2], field[3:]))
            skip = field[0] in "RC"
        prefix = self.prefix
        return [(code, path.removeprefix(prefix)) for code, path in changes]

    @functools.cached_property
    def prefix(self) -> str:
        """The project's place inside the repository: empty at its top, else ``dir/``."""
        return self.run("rev-parse", "--show-prefix").stdout.strip("\n") if self.is_repository else ""

    def log(self, *, max_commits: int, timeout_s: float) -> list[Commit]:
        """The newest commits without merges, newest first, with the files that each changed (renames followed)."""
        if not self.head:
            return []
        answer = self.run(
            "log", f"-{max_commits}", "--no-merges", "--numstat", "-z", "--relative", "--no-ext-diff",
            "--no-textconv", "--submodule=short",
            "--format=%x01%H%x02%an%x02%ct%x02%s%x02", timeout_s=timeout_s,
        )  # fmt: skip
        return [commit for part in answer.stdout.split("\x01") if (commit := _commit(part)) is not None]


def _commit(part: str) -> Commit | None:
    head = part.split("\x02")
    if len(head) < 5 or not head[2].isdigit():
        return None
    return Commit(head[0], head[1], int(head[2]), head[3], tuple(_numstat("\x02".join(head[4:]).lstrip("\0\n"))))


def _numstat(text: str) -> list[tuple[str, int, int]]:
    """Parse ``--numstat -z``: ``added TAB removed TAB path NUL``, for renames ``… TAB NUL old NUL new NUL``."""
    fields = text.split("\0")
    files: list[tuple[str, int, int]] = []
    index = 0
    while index < len(fields):
        columns = fields[index].lstrip("\n").split("\t", 2)
        if len(columns) == 3:
            added, removed = (int(value) if value.isdigit() else 0 for value in columns[:2])
            if columns[2]:
                files.append((columns[2], added, removed))
            elif index + 2 < len(fields):
                files.append((fields[index + 2], added, removed))
                index += 2
        index += 1
    return files


def tool_environ(environ: Mapping[str, str], scratch: Path) -> dict[str, str]:
    """An environment for the project's own tools that keeps their caches out of the project, in ``scratch``.

    Takes what a login has (``PATH HOME USER SHELL LANG TZ``) and nothing of the agent's own (no token, no task).
    """
    kept = {
        key: value
        for key, value in environ.items()
        if key in {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR"} or key.startswith("LC_")
    }
    return {
        "PATH": os.defpath,
        **kept,
        "CI": "1",
        "NO_COLOR": "1",
        "TERM": "dumb",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPYCACHEPREFIX": str(scratch / "pycache"),
        "COVERAGE_FILE": str(scratch / "coverage"),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(scratch / "hypothesis"),
        "RUFF_NO_CACHE": "true",
        "MYPY_CACHE_DIR": str(scratch / "mypy"),
        "CARGO_TARGET_DIR": str(scratch / "target"),
        "CARGO_NET_OFFLINE": "true",
        "GOPROXY": "off",
        "GOFLAGS": "-mod=readonly",
        "GOTOOLCHAIN": "local",
        "PIP_NO_INDEX": "1",
        "npm_config_offline": "true",
        "npm_config_update_notifier": "false",
    }

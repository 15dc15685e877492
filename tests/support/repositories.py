"""Small projects on disk, with or without history, and analysts run on them."""

from __future__ import annotations

import importlib
import io
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentpool.agent import Agent

_GIT = ("git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false")


def write(root: Path, files: Mapping[str, str]) -> Path:
    """Write ``files`` (path to text) below ``root``."""
    for path, text in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return root


def commit(root: Path, files: Mapping[str, str], message: str = "Change") -> None:
    """Write ``files`` and commit everything; the repository is made on first use."""
    if not (root / ".git").exists():
        root.mkdir(parents=True, exist_ok=True)
        subprocess.run([*_GIT, "init", "-q", "-b", "main"], cwd=root, check=True)
    write(root, files)
    subprocess.run([*_GIT, "add", "-A"], cwd=root, check=True)
    subprocess.run([*_GIT, "commit", "-q", "--no-verify", "-m", message], cwd=root, check=True)


def analyse(
    name: str, root: Path, *, agent_type: str = "", task: str = "", previous: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """Run the analyst ``name`` on ``root`` and check what holds for every result."""
    environ = {"AGENT_WORKSPACE": str(root), "AGENT_TYPE": agent_type or name, "AGENT_TASK": task, "AGENT_ID": "a1"}
    context = root.parent / f"{root.name}-context.json"
    if previous is not None:
        context.write_text(json.dumps({"previous_agent_outputs": previous}), encoding="utf-8")
        environ["AGENT_CONTEXT_FILE"] = str(context)
    out = io.StringIO()
    module = importlib.import_module(f"orchestrator.analysts.{name}")
    result: dict[str, Any] = module.run(Agent(environ=environ, out=out))
    for line in out.getvalue().splitlines():
        assert json.loads(line)["type"] in {"progress", "log", "heartbeat"}
    assert result["status"] in {"success", "partial", "failed"}
    assert result["summary"]
    assert len(json.dumps(result)) < 500_000
    return result


def kinds(result: Mapping[str, Any]) -> set[str]:
    """The kinds of a result's findings."""
    return {str(finding["kind"]) for finding in result["findings"]}


def finding(result: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The first finding of ``kind``."""
    return next(dict(one) for one in result["findings"] if one["kind"] == kind)


def listing(root: Path) -> set[str]:
    """All paths below ``root``, ``.git`` aside."""
    return {
        os.path.relpath(os.path.join(directory, name), root)
        for directory, names, files in os.walk(root)
        for name in [*names, *files]
        if ".git" not in directory.split(os.sep) and name != ".git"
    }

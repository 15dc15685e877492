"""Contexts built in this process, without a sidecar."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from orchestrator.context.library import Library
from orchestrator.context.models import BuildOrder, Role
from orchestrator.context.project import Limits

DEVELOPER = Role(agent_type="fullstack-developer", category="development")


def order(
    root: Path,
    task: str = "",
    *,
    max_bytes: int = 100_000,
    role: Role = DEVELOPER,
    outputs: tuple[dict[str, Any], ...] = (),
) -> BuildOrder:
    """A build for ``role``."""
    return BuildOrder(
        project_id="p",
        root=str(root.resolve()),
        issue_id="i",
        role=role,
        task=task,
        max_bytes=max_bytes,
        outputs=outputs,
        now=1_700_000_000.0,
    )


def new_library(state_dir: Path | None = None, **limits: Any) -> Library:
    """A library with 256 MiB."""
    return Library(Limits(**limits), 256 << 20, str(state_dir) if state_dir else "")


def document(
    root: Path,
    task: str = "",
    *,
    max_bytes: int = 100_000,
    role: Role = DEVELOPER,
    outputs: tuple[dict[str, Any], ...] = (),
    library: Library | None = None,
) -> dict[str, Any]:
    """The contract's document for a project, decoded."""
    asked = order(root, task, max_bytes=max_bytes, role=role, outputs=outputs)
    answer = (library or new_library()).build(asked)
    decoded: dict[str, Any] = json.loads(answer.body)
    return decoded


def paths(answer: dict[str, Any]) -> list[str]:
    """The relevant files' paths, best first."""
    return [entry["path"] for entry in answer["context"]["relevant_files"]]

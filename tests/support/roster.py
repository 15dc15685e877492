"""The 119 roles as the contract lists them: the tests' own copy, so that a lost or changed role is noticed."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple, cast

PermissionClass = Literal["architect", "coding", "qa-security", "documentation", "support"]


class Role(NamedTuple):
    """One line of the roster."""

    agent_type: str
    category: str
    tier: str
    permission_class: PermissionClass


@cache
def roster() -> tuple[Role, ...]:
    """All roles, in the roster's order."""
    rows = json.loads(Path(__file__).with_name("roster.json").read_text(encoding="utf-8"))
    return tuple(Role(**cast(dict[str, str], row)) for row in rows)  # type: ignore[arg-type]


@cache
def permission_class(agent_type: str) -> PermissionClass:
    """The permission class of a role. Raises KeyError for one that is not in the roster."""
    return {role.agent_type: role.permission_class for role in roster()}[agent_type]


#: One role of each class, for tests of what a class may do.
EXAMPLES: dict[PermissionClass, str] = {
    "architect": "chief-architect",
    "coding": "python-specialist",
    "qa-security": "security-auditor",
    "documentation": "documentation-expert",
    "support": "context-manager",
}

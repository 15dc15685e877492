"""The 119 roles that ship, with the facts about them that may not change."""

from __future__ import annotations

from importlib import resources

import msgspec

from orchestrator.profiles.model import PermissionClass

#: Where every piece of work begins; each role can be reached from it by hand-overs.
ROOT = "chief-architect"


class Role(msgspec.Struct, frozen=True, array_like=True):
    """One row: name, category, tier (``opus``, ``sonnet``, ``haiku``) and permission class."""

    agent_type: str
    category: str
    tier: str
    permission_class: PermissionClass


def load_roster() -> dict[str, Role]:
    """All rows by name, in the roster's order."""
    data = resources.files("orchestrator.profiles").joinpath("roster.json").read_bytes()
    return {role.agent_type: role for role in msgspec.json.decode(data, type=list[Role])}

"""The caller of a request, as its token says."""

from __future__ import annotations

from typing import Literal

import msgspec

from orchestrator.errors import NotPermitted
from orchestrator.profiles.permissions import ADMIN, PUBLISH_EVENTS, SPAWN_AGENTS

Tier = Literal["operator", "architect", "coding", "documentation"]


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """A verified caller.

    Attributes:
        agent_id: the token's ``sub``.
        agent_type: the token's role.
        project_id: the one project that it acts in (an operator may name others).
        permissions: what it may do.
        jti: the token's own id.
        issued_at: seconds since the epoch.
        expires_at: seconds since the epoch; from then on the token is refused.
        generation: 1 for a first token, one more with each refresh.
        attempt: the attempt of a spawned agent that it was made for; None where there is no such attempt.
    """

    agent_id: str
    agent_type: str
    project_id: str
    permissions: frozenset[str]
    jti: str
    issued_at: int
    expires_at: int
    generation: int = 1
    attempt: int | None = None

    @property
    def is_admin(self) -> bool:
        """Whether this is an operator."""
        return ADMIN in self.permissions

    @property
    def is_architect(self) -> bool:
        """Whether it may read other roles' context: the architect class, and operators."""
        return SPAWN_AGENTS in self.permissions or self.is_admin

    @property
    def tier(self) -> Tier:
        """Which rate limit applies. The classes differ in permissions, so those tell it."""
        if self.is_admin:
            return "operator"
        if SPAWN_AGENTS in self.permissions:
            return "architect"
        return "coding" if PUBLISH_EVENTS in self.permissions else "documentation"

    def has(self, permission: str) -> bool:
        """Whether it may do this; an operator may do everything."""
        return permission in self.permissions or ADMIN in self.permissions

    def require(self, permission: str) -> None:
        """Raise NotPermitted unless it has ``permission``."""
        if not self.has(permission):
            raise NotPermitted(
                f"this needs the permission {permission}, which the token of a {self.agent_type} does not carry",
                details={"permission": permission, "agent_type": self.agent_type},
            )

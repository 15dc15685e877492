"""Permissions, and which of them each permission class has (contract section 2)."""

from __future__ import annotations

from orchestrator.profiles.model import PermissionClass

READ_CONTEXT = "read_context"
WRITE_RESULTS = "write_results"
READ_RESULTS = "read_results"
PUBLISH_EVENTS = "publish_events"
SUBSCRIBE_EVENTS = "subscribe_events"
SPAWN_AGENTS = "spawn_agents"
MANAGE_AGENTS = "manage_agents"
CLEAR_CACHE = "clear_cache"
ADMIN = "admin"

#: Every permission there is, in the contract's order.
PERMISSIONS = (
    READ_CONTEXT,
    WRITE_RESULTS,
    READ_RESULTS,
    PUBLISH_EVENTS,
    SUBSCRIBE_EVENTS,
    SPAWN_AGENTS,
    MANAGE_AGENTS,
    CLEAR_CACHE,
    ADMIN,
)

_READING = frozenset({READ_CONTEXT, READ_RESULTS, SUBSCRIBE_EVENTS})
_WRITING = _READING | {WRITE_RESULTS, PUBLISH_EVENTS}

#: What each class may do.
CLASS_PERMISSIONS: dict[PermissionClass, frozenset[str]] = {
    "architect": _WRITING | {SPAWN_AGENTS, MANAGE_AGENTS, CLEAR_CACHE},
    "coding": _WRITING,
    "qa-security": _WRITING,
    "documentation": _READING | {WRITE_RESULTS},
    "support": _READING,
}

#: An operator's permissions: everything.
OPERATOR_PERMISSIONS = frozenset(PERMISSIONS)


def permissions_of(permission_class: PermissionClass) -> tuple[str, ...]:
    """The permissions of a class, in the contract's order (fit for a token's claim)."""
    granted = CLASS_PERMISSIONS[permission_class]
    return tuple(name for name in PERMISSIONS if name in granted)

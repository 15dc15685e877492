"""Errors that reach a caller: each has a stable ``code`` of the contract and names the way out."""

from __future__ import annotations

from typing import Any


class SidecarError(Exception):
    """Base of every error of this package.

    Attributes:
        code: the contract's stable code (``AGT_002``, ...).
        slug: a short machine word (``unknown_agent_type``).
        message: one sentence for a person: the field, what is wrong with its value, the way out.
        details: further typed facts for a program; never a secret.
        retry_after_s: seconds after which trying again makes sense, or None.
    """

    code = "SYS_001"
    slug = "unexpected"

    def __init__(
        self,
        message: str,
        *,
        slug: str | None = None,
        details: dict[str, Any] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = details or {}
        self.retry_after_s = retry_after_s
        if slug is not None:
            self.slug = slug


class BadRequest(SidecarError):
    """A value that cannot be accepted; ``details["field"]`` names it."""

    code = "REQ_001"
    slug = "bad_request"


class BodyTooLarge(SidecarError):
    """A body over the limit."""

    code = "REQ_002"
    slug = "body_too_large"


class InvalidToken(SidecarError):
    """No token, or one that is refused."""

    code = "AUTH_001"
    slug = "invalid_token"


class ExpiredToken(SidecarError):
    """A token past its ``exp``."""

    code = "AUTH_002"
    slug = "expired_token"


class NotPermitted(SidecarError):
    """A valid token that may not do this."""

    code = "AUTH_003"
    slug = "not_permitted"


class RefreshRefused(SidecarError):
    """A token that cannot be refreshed now."""

    code = "AUTH_004"
    slug = "refresh_refused"


class RateLimited(SidecarError):
    """Too many requests; ``retry_after_s`` is set, ``details["limit"]`` holds requests per minute."""

    code = "RATE_001"
    slug = "rate_limited"


class NotFound(SidecarError):
    """Something named does not exist (or is another project's)."""

    code = "REQ_003"
    slug = "not_found"


class Conflict(SidecarError):
    """The state of a thing does not allow this now."""

    code = "REQ_004"
    slug = "conflict"


class ContextFailed(SidecarError):
    """Context could not be gathered."""

    code = "CTX_001"
    slug = "context_failed"


class BusUnavailable(SidecarError):
    """Events cannot be published or read now."""

    code = "EVT_001"
    slug = "event_bus_unavailable"


class BadEvent(SidecarError):
    """An event that cannot be accepted."""

    code = "EVT_002"
    slug = "bad_event"


class BadFilter(SidecarError):
    """A filter that does not parse; ``details`` holds ``position`` and ``expected``."""

    code = "EVT_003"
    slug = "bad_filter"


class StorageWriteFailed(SidecarError):
    """Nothing was stored (disk full, for instance); safe to try again."""

    code = "STR_001"
    slug = "storage_write_failed"


class StorageReadFailed(SidecarError):
    """Stored data could not be read."""

    code = "STR_002"
    slug = "storage_read_failed"


class SpawnFailed(SidecarError):
    """An agent could not be started; nothing of it is left behind. ``retry_after_s`` is set where that may pass."""

    code = "AGT_001"
    slug = "spawn_failed"


class UnknownAgentType(SidecarError):
    """No profile has this name; ``details["nearest"]`` lists similar ones."""

    code = "AGT_002"
    slug = "unknown_agent_type"


class NoSuchAgent(SidecarError):
    """No agent has this id (in this project)."""

    code = "AGT_003"
    slug = "no_such_agent"


class AgentNotRunning(SidecarError):
    """The agent exists but has no running process."""

    code = "AGT_004"
    slug = "agent_not_running"


class PoolSaturated(SidecarError):
    """Pool and queue are full; ``retry_after_s`` and ``details["position"]`` are set."""

    code = "AGT_005"
    slug = "pool_full"


class ConfigInvalid(SidecarError):
    """A setting that cannot be used; ``details`` holds ``setting`` and ``origin``."""

    code = "CFG_001"
    slug = "bad_configuration"


class StorageInUse(SidecarError):
    """Another sidecar owns this storage directory; ``details["pid"]`` names it."""

    code = "STR_003"
    slug = "storage_in_use"

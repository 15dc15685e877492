"""From error codes to HTTP: status, body and headers of every answer that is not a success."""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec
from werkzeug.exceptions import HTTPException

from agentpool.errors import LaunchFailed, PoolClosed, PoolError, PoolFull, UnknownAgent
from orchestrator.clock import rfc3339
from orchestrator.errors import (
    AgentNotRunning,
    BadRequest,
    NotFound,
    PoolSaturated,
    SidecarError,
    SpawnFailed,
)


class MethodNotAllowed(SidecarError):
    """The path exists, but not with this method."""

    code = "REQ_005"
    slug = "method_not_allowed"


class UnsupportedMediaType(SidecarError):
    """A body of a type (or with an encoding) that is not read."""

    code = "REQ_006"
    slug = "unsupported_media_type"


class RequestTimedOut(SidecarError):
    """The body did not arrive in time."""

    code = "REQ_007"
    slug = "request_timeout"


class Misdirected(SidecarError):
    """The ``Host`` header does not name this server."""

    code = "REQ_008"
    slug = "misdirected_request"


class ForeignOrigin(SidecarError):
    """A web page of another origin asks."""

    code = "AUTH_005"
    slug = "foreign_origin"


class Stopping(SidecarError):
    """The sidecar is stopping and takes nothing more."""

    code = "SYS_002"
    slug = "stopping"


class AddressUnavailable(SidecarError):
    """The configured address cannot be listened on; ``details["pid"]`` names who has it, where that is known."""

    code = "SYS_003"
    slug = "address_unavailable"


#: The one table of codes and their HTTP status (contract section 4; the later ones extend it).
STATUS: dict[str, int] = {
    "AUTH_001": 401,
    "AUTH_002": 401,
    "AUTH_003": 403,
    "AUTH_004": 409,
    "AUTH_005": 403,
    "AGT_001": 500,
    "AGT_002": 404,
    "AGT_003": 404,
    "AGT_004": 409,
    "AGT_005": 429,
    "REQ_001": 400,
    "REQ_002": 413,
    "REQ_003": 404,
    "REQ_004": 409,
    "REQ_005": 405,
    "REQ_006": 415,
    "REQ_007": 408,
    "REQ_008": 421,
    "EVT_001": 503,
    "EVT_002": 400,
    "EVT_003": 400,
    "RATE_001": 429,
    "STR_001": 503,
    "STR_002": 500,
    "STR_003": 503,
    "CTX_001": 500,
    "CFG_001": 500,
    "SYS_001": 500,
    "SYS_002": 503,
    "SYS_003": 500,
}


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """An error as it is sent."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


def status_of(code: str) -> int:
    """The HTTP status of an error code; 500 for one that is not in the table."""
    return STATUS.get(code, 500)


def translate(error: Exception) -> SidecarError:
    """The contract's error for anything that was raised; what is not foreseen becomes SYS_001 without internals."""
    if isinstance(error, SidecarError):
        return error
    if isinstance(error, PoolError):
        return _from_pool(error)
    if isinstance(error, HTTPException):
        return _from_framework(error)
    return SidecarError("an unexpected error; the sidecar's log has it under this request_id")


def _from_pool(error: PoolError) -> SidecarError:
    if isinstance(error, PoolFull):
        return PoolSaturated(
            str(error),
            details={"position": error.position, "queued": error.queued},
            retry_after_s=error.retry_after_s,
        )
    if isinstance(error, LaunchFailed):
        return SpawnFailed(str(error), details={"reason": error.reason, "command": error.command})
    if isinstance(error, UnknownAgent):
        return AgentNotRunning(str(error))
    if isinstance(error, PoolClosed):
        return Stopping("the sidecar is stopping; try again when it is back", retry_after_s=5)
    return SidecarError("an unexpected error of the pool; the sidecar's log has it under this request_id")


def _from_framework(error: HTTPException) -> SidecarError:
    if error.code == 404:
        return NotFound("there is nothing at this path; GET / lists what there is")
    if error.code == 405:
        allowed = sorted(getattr(error, "valid_methods", None) or ())
        return MethodNotAllowed(f"this path takes {', '.join(allowed)} only", details={"allowed": allowed})
    if error.code is not None and 400 <= error.code < 500:
        return BadRequest(error.description or "the request is malformed")
    return SidecarError("an unexpected error; the sidecar's log has it under this request_id")


def problem(error: SidecarError, request_id: str, now: float) -> Problem:
    """The contract's error body, with the headers that belong to it."""
    body: dict[str, Any] = {
        "error": error.slug,
        "message": error.message,
        "code": error.code,
        "timestamp": rfc3339(now),
        "request_id": request_id,
    }
    if error.details:
        body["details"] = error.details
    headers = []
    if error.retry_after_s is not None:
        wait_s = max(1, math.ceil(error.retry_after_s))
        headers.append(("Retry-After", str(wait_s)))
        body["retry_after_seconds"] = wait_s
    if "limit" in error.details:
        body["limit"] = error.details["limit"]
    if error.code in ("AUTH_001", "AUTH_002"):
        headers.append(("WWW-Authenticate", 'Bearer realm="orchestration-sidecar"'))
    if isinstance(error, MethodNotAllowed):
        headers.append(("Allow", ", ".join(error.details.get("allowed", ()))))
    return Problem(status=status_of(error.code), body=msgspec.json.encode(body), headers=tuple(headers))


_AT = re.compile(r" - at (?:key in )?`\$\.?(?P<field>[^`]*)`$")


def from_validation(error: Exception, *, where: str = "body") -> BadRequest:
    """The answer to a body or parameter that does not parse or validate; it names the field."""
    if isinstance(error, RecursionError):
        return BadRequest(f"the {where} is nested too deeply", details={"field": where})
    text = str(error)
    match = _AT.search(text)
    if match is not None:
        field = match["field"] or where
        reason = text[: match.start()]
        return BadRequest(f"{field}: {_plain(reason)}", details={"field": field})
    missing = re.search(r"missing required field `([^`]+)`", text)
    if missing is not None:
        return BadRequest(f"{missing[1]} is required", details={"field": missing[1]})
    return BadRequest(f"the {where} cannot be read: {_plain(text)}", details={"field": where})


def _plain(reason: str) -> str:
    reason = reason.replace("`", "'")
    return reason[:1].lower() + reason[1:]

"""What can go wrong for a caller of the sidecar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ClientError(Exception):
    """Base of every error of the client."""


class SidecarUnavailable(ClientError):
    """The sidecar does not answer: nothing listens there, or it went away before it answered.

    Attributes:
        url: where it was looked for.
        cause: what the system said.
        is_timeout: True when it accepted the request and then stayed silent.
    """

    def __init__(self, url: str, cause: str, *, is_timeout: bool = False) -> None:
        what = "did not answer in time" if is_timeout else "is not reachable"
        way_out = "start it with `orchestrator serve`, or name another one with --url or ORCHESTRATOR_URL"
        if "CERTIFICATE_VERIFY_FAILED" in cause:
            what = "shows a certificate that is not trusted here"
            way_out = "name a file with its authority, or with the certificate itself, in SSL_CERT_FILE"
        super().__init__(f"the sidecar at {url} {what} ({cause}); {way_out}")
        self.url = url
        self.cause = cause
        self.is_timeout = is_timeout


class APIError(ClientError):
    """The sidecar refused or failed.

    Attributes:
        code: the contract's code (``AGT_002``, ...); ``HTTP_<status>`` when the body was not the sidecar's.
        message: one sentence for a person.
        status: the HTTP status.
        details: further facts; empty when there are none.
        request_id: names the request in the sidecar's log, or None.
        retry_after_s: seconds after which trying again makes sense, or None.
    """

    def __init__(
        self,
        code: str,
        message: str,
        status: int,
        details: Mapping[str, Any] | None = None,
        *,
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
        self.details = dict(details or {})
        self.request_id = request_id
        self.retry_after_s = retry_after_s


class BadAnswer(ClientError):
    """Something answered that is not the sidecar, or an answer was torn or not what the contract says."""


class EventGap(ClientError):
    """Events between the cursor asked for and the oldest retained one are gone.

    Attributes:
        since: the cursor that was asked for.
        oldest_cursor: the oldest retained one, or None when the sidecar did not say.
        resume: the cursor to go on from (what is lost stays lost).
    """

    def __init__(self, since: str | None, oldest_cursor: str | None, resume: str | None) -> None:
        super().__init__(f"events after cursor {since} are no longer retained (the oldest is {oldest_cursor})")
        self.since = since
        self.oldest_cursor = oldest_cursor
        self.resume = resume

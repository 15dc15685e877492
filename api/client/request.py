"""Requests and answers as plain values: what to send, how to read what comes back, when to try again.

Nothing here does input or output; the two clients (`sync`, `aio`) move these values over a connection.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from api.client.errors import APIError, BadAnswer, ClientError, SidecarUnavailable

if TYPE_CHECKING:
    from typing import Self

T = TypeVar("T")

#: Largest body that a client reads; answers are at most 10 MiB, output and OpenAPI less.
MAX_ANSWER_BYTES = 64 << 20
#: Statuses after which the same request may succeed.
RETRY_STATUSES = frozenset({429, 502, 503, 504})


class Answer(NamedTuple):
    """One HTTP answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The decoded body. Raises BadAnswer when it is not JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise BadAnswer(f"the answer (HTTP {self.status}) is not JSON: {error}") from error


class Request(NamedTuple, Generic[T]):
    """One call of the API.

    Attributes:
        method: HTTP method.
        path: absolute, already quoted.
        read: makes the value from the answer (only asked for statuses below 400).
        query: parameters.
        body: encoded JSON, or None.
        headers: beside the ones that the client adds itself.
        timeout_s: seconds to wait for the answer; None takes the client's.
        is_repeatable: sending it twice does no harm, so it is sent again when the answer got lost.
        accept: error statuses whose body is an answer all the same.
    """

    method: str
    path: str
    read: Callable[[Answer], T]
    query: Mapping[str, str] = {}
    body: bytes | None = None
    headers: Mapping[str, str] = {}
    timeout_s: float | None = None
    is_repeatable: bool = False
    accept: frozenset[int] = frozenset()


class Retry(NamedTuple):
    """How often and how long a client tries again.

    Waits grow exponentially with full jitter (M. Brooker, "Exponential Backoff And Jitter", AWS 2015), except
    where the sidecar says ``Retry-After``, which is obeyed when it is at most ``patience_s``.

    Attributes:
        attempts: how often a request is sent at most (>= 1).
        connect_attempts: how often a connection is tried at most when nothing listens.
        base_s, cap_s: first and longest wait.
        patience_s: the longest Retry-After that is waited for; a longer one fails at once.
    """

    attempts: int = 4
    connect_attempts: int = 2
    base_s: float = 0.2
    cap_s: float = 8.0
    patience_s: float = 60.0

    @classmethod
    def never(cls) -> Self:
        """Send once."""
        return cls(attempts=1, connect_attempts=1)

    def delay_s(self, attempt: int, request: Request[Any], failure: ClientError) -> float | None:
        """Seconds to wait before trying again after ``attempt`` (1 is the first), or None to give up."""
        if isinstance(failure, SidecarUnavailable):
            limit = self.connect_attempts if isinstance(failure, NotSent) else self.attempts
            if attempt >= limit or not (request.is_repeatable or isinstance(failure, NotSent)):
                return None
            return self._backoff_s(attempt)
        if not isinstance(failure, APIError) or failure.status not in RETRY_STATUSES or attempt >= self.attempts:
            return None
        # 429 and 503 of the sidecar mean that nothing was done; a proxy's 502 and 504 leave that open.
        if failure.status in (502, 504) and not request.is_repeatable:
            return None
        if failure.retry_after_s is not None:
            return failure.retry_after_s if failure.retry_after_s <= self.patience_s else None
        return self._backoff_s(attempt)

    def _backoff_s(self, attempt: int) -> float:
        # Imported late (3 ms): most agents never wait. No secret depends on it.
        import random

        return random.uniform(0, min(self.cap_s, self.base_s * 2 ** (attempt - 1)))


class NotSent(SidecarUnavailable):
    """No connection could be made, so the request certainly had no effect."""


def normal_url(url: str) -> str:
    """The sidecar's origin from what people and environments give: ``…/api`` and a last slash are cut.

    Raises ValueError when it is no http(s) URL.
    """
    scheme, separator, rest = url.strip().partition("://")
    if not separator:
        scheme, rest = "http", scheme
    rest = rest.rstrip("/").removesuffix("/api").rstrip("/")
    if scheme not in ("http", "https") or not rest or any(c.isspace() or ord(c) < 32 for c in rest):
        raise ValueError(f"not a URL of a sidecar: {url!r}; use http://HOST:PORT")
    return f"{scheme}://{rest}"


def check(answer: Answer, accept: frozenset[int] = frozenset()) -> Answer:
    """Return the answer. Raises APIError for a status of 400 and above that is not in ``accept``."""
    if answer.status < 400 or answer.status in accept:
        return answer
    document: Any = None
    if answer.headers.get("content-type", "").startswith("application/json"):
        try:
            document = json.loads(answer.body)
        except (ValueError, RecursionError):
            document = None
    if not isinstance(document, dict):
        document = {}
    details = document.get("details")
    raise APIError(
        str(document.get("code") or f"HTTP_{answer.status}"),
        str(document.get("message") or f"HTTP status {answer.status}"),
        answer.status,
        details if isinstance(details, dict) else None,
        request_id=document.get("request_id") or answer.headers.get("x-request-id"),
        retry_after_s=_retry_after_s(answer.headers.get("retry-after"), document.get("retry_after_seconds")),
    )


def _retry_after_s(header: str | None, field: Any) -> float | None:
    """Seconds from the header (RFC 9110, 10.2.3: seconds or a date), else from the body's field."""
    for value in (header, field):
        if value is None:
            continue
        try:
            seconds = float(value)
        except (TypeError, ValueError):
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    if header:
        from email.utils import parsedate_to_datetime
        from time import time

        try:
            return max(0.0, parsedate_to_datetime(header).timestamp() - time())
        except ValueError:
            return None
    return None

"""The layer in front of the framework: what every request meets, whatever it asks for.

Plain ASGI, because it is on the path of each request: request id, ``Host`` and ``Origin``, the body's type, size and
pace, security headers, figures.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import structlog

from api.asgi_body import read_body
from api.auth.hosts import HostCheck
from api.errors import ForeignOrigin, Misdirected, problem, translate
from api.lane import HotLane
from orchestrator.clock import Clock, SystemClock
from orchestrator.errors import BadRequest
from orchestrator.metrics import Metrics

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]

#: Key in the ASGI scope under which the routes find the RequestInfo.
SCOPE_KEY = "sidecar"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
#: Encoded slashes, dots and control characters in a path: no name of the contract has them.
_ODD_PATH = re.compile(rb"%2f|%5c|%0|%1|%7f|/\.{1,2}(?:/|$)|/(?:%2e|\.){1,2}(?:/|$)", re.IGNORECASE)
#: Counted as the status of a request whose client went away before its answer (as nginx does).
CLIENT_GONE = 499
_METHODS = b"GET, POST, DELETE, OPTIONS"
_EXPOSED = (
    b"X-Request-ID, X-Next-Offset, X-Next-Cursor, X-More-Available, X-Gap, X-Oldest-Cursor, "
    b"X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, Retry-After, ETag"
)
log = structlog.get_logger(__name__)


class RequestInfo:
    """One request, as the layer and the routes share it.

    Attributes:
        id: the request id.
        headers: names in lower case; a repeated header has its last value.
        body: the whole body.
        route: the route's pattern, set when one was found.
        is_waiting: the answer's time says nothing of speed (long poll, stream).
        extra: headers that the routes add to whatever is answered.
    """

    __slots__ = ("body", "extra", "headers", "id", "is_waiting", "route", "status")

    def __init__(self, request_id: str, headers: dict[bytes, bytes]) -> None:
        self.id = request_id
        self.headers = headers
        self.body = b""
        self.route = "unknown"
        self.is_waiting = False
        self.extra: list[tuple[bytes, bytes]] = []
        self.status = 0


class Boundary:
    """Wraps an ASGI application.

    Args:
        app: the application.
        lane: answers the busiest routes without the application.
        hosts: which ``Host`` and ``Origin`` are ours.
        metrics: where answers are counted.
        body_limit_bytes: larger bodies are refused.
        body_timeout_s: a body must have arrived by then.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        lane: HotLane,
        hosts: HostCheck,
        metrics: Metrics,
        body_limit_bytes: int,
        body_timeout_s: float,
        clock: Clock | None = None,
    ) -> None:
        self._app = app
        self._lane = lane
        self._hosts = hosts
        self._metrics = metrics
        self._body_limit = body_limit_bytes
        self._body_timeout_s = body_timeout_s
        self._clock = clock or SystemClock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})
        else:
            await self._app(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id")
        is_valid = given is not None and _REQUEST_ID.fullmatch(given) is not None
        request_id = given.decode("ascii") if is_valid and given is not None else f"req_{secrets.token_hex(12)}"
        info = scope[SCOPE_KEY] = RequestInfo(request_id, headers)
        origin = headers.get(b"origin")
        common = [(b"x-request-id", request_id.encode("ascii"))]

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                info.status = message["status"]
                message["headers"] = [*message["headers"], *common, *info.extra]
            await send(message)

        try:
            if origin is not None and self._hosts.is_origin_allowed(origin):
                common += _cors(origin)
            self._check(scope, headers, origin)
            if scope["method"] == "OPTIONS":
                await self._answer_options(send_with_headers, headers)
            else:
                if scope["method"] != "GET" or b"content-length" in headers or b"transfer-encoding" in headers:
                    info.body = await read_body(receive, headers, self._body_limit, self._body_timeout_s)
                    receive = _after_body(receive)
                hot = self._lane.match(scope["method"], scope["path"])
                if hot is not None:
                    await self._lane.answer(*hot, scope["query_string"], info, send_with_headers)
                else:
                    await self._app(scope, receive, send_with_headers)
        except Exception as error:  # noqa: BLE001 - the edge of a request
            await self._refuse(error, info, send_with_headers)
        finally:
            self._metrics.observe_request(
                scope["method"],
                info.route,
                info.status or CLIENT_GONE,
                time.perf_counter() - started,
                is_waiting=info.is_waiting,
            )

    def _check(self, scope: Scope, headers: dict[bytes, bytes], origin: bytes | None) -> None:
        if not self._hosts.is_host_allowed(headers.get(b"host")):
            raise Misdirected(
                "the Host header must name a loopback address or a host of [server] allowed_hosts",
                details={"header": "Host"},
            )
        if origin is not None and not self._hosts.is_origin_allowed(origin):
            raise ForeignOrigin("pages of this origin may not use the sidecar", details={"header": "Origin"})
        if _ODD_PATH.search(scope.get("raw_path") or b""):
            raise BadRequest(
                "the path holds characters that no name may have; names are letters, digits, '.', '_' and '-'",
                details={"field": "path"},
            )

    async def _answer_options(self, send: Send, headers: dict[bytes, bytes]) -> None:
        extra = [(b"allow", _METHODS)]
        if b"origin" in headers and b"access-control-request-method" in headers:
            extra = [
                (b"access-control-allow-methods", _METHODS),
                (
                    b"access-control-allow-headers",
                    b"Authorization, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID, X-Request-ID",
                ),
                (b"access-control-max-age", b"600"),
            ]
        await send({"type": "http.response.start", "status": 204, "headers": extra})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _refuse(self, error: Exception, info: RequestInfo, send: Send) -> None:
        known = translate(error)
        if known.code == "SYS_001":
            log.error("request_failed", request_id=info.id, route=info.route, exc_info=error)
        if info.status:
            return  # the answer has begun; all that is left is to end it, which the server does
        answer = problem(known, info.id, self._clock.now())
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer.body))]
        headers += [(name.lower().encode(), value.encode()) for name, value in answer.headers]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body, "more_body": False})


def _cors(origin: bytes) -> list[tuple[bytes, bytes]]:
    return [
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", _EXPOSED),
        (b"vary", b"Origin"),
    ]


def _after_body(receive: Receive) -> Receive:
    """What the framework receives when the body was read already: an empty one, then what the server says."""
    is_told = False

    async def receive_rest() -> Message:
        nonlocal is_told
        if is_told:
            return await receive()
        is_told = True
        return {"type": "http.request", "body": b"", "more_body": False}

    return receive_rest

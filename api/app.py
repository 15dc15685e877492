"""The application: the framework with all routes, behind the boundary."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from quart import Quart, Response, request

from api.asgi import SCOPE_KEY, Boundary, RequestInfo
from api.auth.authority import Authority
from api.auth.hosts import HostCheck
from api.auth.limits import RateLimiter
from api.documents import Documents
from api.lane import HotLane
from api.routes.base import Reply, Route
from api.routes.gate import Gate
from api.routes.services import Services
from api.routes.table import ALL_ROUTES
from api.routes.waiters import Waiters
from orchestrator.clock import Clock

#: Bind addresses that name no host.
_WILDCARDS = frozenset({"", "0.0.0.0", "::"})


def create_app(
    services: Services,
    authority: Authority,
    *,
    version: str,
    waiters: Waiters | None = None,
    clock: Clock | None = None,
) -> Quart:
    """The application over the supervisor's services.

    Args:
        services: the supervisor.
        authority: over tokens; must be started.
        version: of this program, for the documents.
        waiters: released by whoever stops the server.
    """
    app = Quart("api", static_folder=None, template_folder=None)
    app.url_map.merge_slashes = False
    # The boundary has read the body, bounded, before the framework sees the request.
    app.config.update(MAX_CONTENT_LENGTH=None, BODY_TIMEOUT=None, RESPONSE_TIMEOUT=None)
    limiter = RateLimiter(services.settings.rate_limits, clock=clock)
    documents = Documents(ALL_ROUTES, version)
    gate = Gate(services, authority, limiter, Waiters() if waiters is None else waiters, documents, clock=clock)
    for route in ALL_ROUTES:
        app.add_url_rule(
            route.path,
            endpoint=f"{route.method} {route.path}",
            view_func=_view(gate, route),
            methods=[route.method],
            provide_automatic_options=False,
        )

    async def refuse(error: Exception) -> Response:
        return _response(gate.refusal(error, _info(request.scope)))

    app.register_error_handler(Exception, refuse)
    server = services.settings.server
    app.asgi_app = Boundary(  # type: ignore[assignment, method-assign]
        app.asgi_app,
        lane=HotLane(ALL_ROUTES, gate),
        hosts=HostCheck([*server.allowed_hosts, *({server.host} - _WILDCARDS)]),
        metrics=services.metrics,
        body_limit_bytes=server.body_limit_bytes,
        body_timeout_s=server.body_timeout_s,
        clock=clock,
    )
    return app


def _info(scope: Mapping[str, Any]) -> RequestInfo:
    info: RequestInfo = scope[SCOPE_KEY]
    return info


def _view(gate: Gate, route: Route) -> Callable[..., Awaitable[Response]]:
    async def view(**names: Any) -> Response:
        scope = request.scope
        return _response(await gate.answer(route, names, scope["query_string"], _info(scope)))

    return view


def _response(reply: Reply) -> Response:
    if reply.stream is not None:
        response = Response(reply.stream, reply.status, content_type=reply.content_type)
        response.timeout = None
    else:
        response = Response(reply.body, reply.status, content_type=reply.content_type)
    for name, value in reply.headers:
        response.headers[name] = value
    return response

"""The short way for the busiest routes: answered before the framework makes its request, contexts and tasks.

What Quart does around a view costs more than publishing an event or giving a cached context does (measured by
``perf/bench_http.py``), so routes marked ``is_hot`` are matched and answered here; their paths are in the framework's
map too, for methods that are not hot. Only routes belong here that answer at once, or that go on with their work when
the client goes away: nothing watches for that.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from api.routes.base import Reply, Route

if TYPE_CHECKING:
    from api.asgi import RequestInfo
    from api.routes.gate import Gate

_NAME = re.compile(r"<([^>]+)>")


class HotLane:
    """Matches and answers the routes of ``routes`` that are hot."""

    def __init__(self, routes: Sequence[Route], gate: Gate) -> None:
        self._gate = gate
        self._routes: dict[str, list[tuple[re.Pattern[str], Route]]] = {}
        for route in routes:
            if route.is_hot:
                pattern = re.compile(_NAME.sub(r"(?P<\1>[^/]+)", route.path))
                self._routes.setdefault(route.method, []).append((pattern, route))

    def match(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """The hot route of a request with the path's names, or None."""
        for pattern, route in self._routes.get(method, ()):
            match = pattern.fullmatch(path)
            if match is not None:
                return route, match.groupdict()
        return None

    async def answer(
        self,
        route: Route,
        names: dict[str, str],
        query_string: bytes,
        info: RequestInfo,
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        """Answer a matched request."""
        reply = await self._gate.answer(route, names, query_string, info)
        await send_reply(reply, send)


async def send_reply(reply: Reply, send: Callable[[MutableMapping[str, Any]], Awaitable[None]]) -> None:
    """Send a reply that is not a stream."""
    headers = [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in reply.headers]
    if reply.content_type:
        headers.append((b"content-type", reply.content_type.encode("ascii")))
    if reply.status != 304:
        headers.append((b"content-length", b"%d" % len(reply.body)))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body, "more_body": False})

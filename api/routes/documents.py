"""Documents about the API itself."""

from __future__ import annotations

from api.routes.base import OPEN, Call, Reply, Route

HTML = "text/html; charset=utf-8"
_CACHED = (("Cache-Control", "no-cache"),)
_PAGE_POLICY = (
    *_CACHED,
    ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
)


async def openapi(call: Call) -> Reply:
    """``GET /openapi.json``."""
    return Reply(call.documents.openapi(), headers=_CACHED)


async def asyncapi(call: Call) -> Reply:
    """``GET /asyncapi.json``."""
    return Reply(call.documents.asyncapi(), headers=_CACHED)


async def docs(call: Call) -> Reply:
    """``GET /docs``: one page without outside assets."""
    return Reply(call.documents.page(), content_type=HTML, headers=_PAGE_POLICY)


ROUTES = (
    Route(
        method="GET",
        path="/openapi.json",
        permission=OPEN,
        handler=openapi,
        summary="This API as an OpenAPI 3.1 document",
        tag="documents",
        is_project_bound=False,
    ),
    Route(
        method="GET",
        path="/asyncapi.json",
        permission=OPEN,
        handler=asyncapi,
        summary="The events as an AsyncAPI 3.0 document",
        tag="documents",
        is_project_bound=False,
    ),
    Route(
        method="GET",
        path="/docs",
        permission=OPEN,
        handler=docs,
        summary="This API as a page",
        tag="documents",
        media="text/html",
        is_project_bound=False,
    ),
)

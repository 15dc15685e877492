"""The OpenAPI 3.1 document, made from the route table and the forms."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from api.asgi_body import CLOUDEVENT_TYPE, JSON_TYPE
from api.errors import status_of
from api.routes.base import ANY_TOKEN, OPEN, Route
from api.routes.event_pages import CLOUDEVENTS_BATCH
from api.schemas.base import ErrorAnswer
from api.schemas.events import CloudEvent, EventPageAnswer
from orchestrator.identifiers import IDENTIFIER_PATTERN

_REF = "#/components/schemas/{name}"
_NAME = re.compile(r"<([^>]+)>")
_PROTECTED = ("AUTH_001", "AUTH_002", "AUTH_003", "RATE_001")


def build_openapi(routes: Sequence[Route], version: str) -> dict[str, Any]:
    """The document for ``routes``, as plain values."""
    types = _types(routes)
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    shown = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = _NAME.sub(r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, shown, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Orchestration sidecar",
            "version": version,
            "description": "Context, results, events and agents for coding agents on one machine.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for route in routes)],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


def _types(routes: Sequence[Route]) -> list[Any]:
    types: dict[Any, None] = {ErrorAnswer: None, CloudEvent: None}
    for route in routes:
        types[route.query] = None
        for form in (route.body, route.answer):
            if form is not None:
                types[form] = None
    return list(types)


def _operation(route: Route, shown: dict[Any, Any], components: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.handler.__name__,
        "summary": route.summary,
        "tags": [route.tag],
        "parameters": [*_path_parameters(route), *_query_parameters(route, shown, components)],
        "responses": _responses(route, shown),
    }
    if route.permission == OPEN:
        operation["security"] = []
    else:
        operation["security"] = [{"token": []}]
        needs = "any valid token" if route.permission == ANY_TOKEN else f"the permission `{route.permission}`"
        operation["description"] = f"Needs {needs}."
    if route.body is not None:
        content = {JSON_TYPE: {"schema": shown[route.body]}}
        if route.takes_cloudevents:
            content[CLOUDEVENT_TYPE] = {"schema": shown[CloudEvent]}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    parameters = []
    for name in _NAME.findall(route.path):
        schema: dict[str, Any] = {"type": "string"}
        if name not in route.free_names:
            schema["pattern"] = f"^{IDENTIFIER_PATTERN}$"
        parameters.append({"name": name, "in": "path", "required": True, "schema": schema})
    return parameters


def _query_parameters(route: Route, shown: dict[Any, Any], components: dict[str, Any]) -> list[dict[str, Any]]:
    schema = components[shown[route.query]["$ref"].rpartition("/")[2]]
    required = schema.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": part}
        for name, part in schema["properties"].items()
        if name != "project_id" or route.is_project_bound
    ]


def _responses(route: Route, shown: dict[Any, Any]) -> dict[str, Any]:
    success: dict[str, Any] = {"description": "Success"}
    if route.answer is not None:
        success["content"] = {route.media: {"schema": shown[route.answer]}}
        if route.answer is EventPageAnswer:
            batch = {"type": "array", "items": shown[CloudEvent]}
            success["content"][CLOUDEVENTS_BATCH] = {"schema": batch}
    elif route.media != JSON_TYPE:
        success["content"] = {route.media: {"schema": {"type": "string"}}}
    else:
        success["content"] = {JSON_TYPE: {"schema": {"type": "object"}}}
    responses = {str(route.status): success}
    codes = ["REQ_001", *route.codes, "SYS_001"]
    if route.permission != OPEN:
        codes[1:1] = _PROTECTED
    if route.is_project_bound:
        codes.append("REQ_003")
    if route.body is not None:
        codes += ["REQ_002", "REQ_006", "REQ_007"]
    by_status: dict[int, list[str]] = {}
    for code in dict.fromkeys(codes):
        by_status.setdefault(status_of(code), []).append(code)
    for status in sorted(by_status):
        responses[str(status)] = {
            "description": ", ".join(sorted(by_status[status])),
            "content": {JSON_TYPE: {"schema": shown[ErrorAnswer]}},
        }
    if route.path == "/health":
        responses["503"] = {**success, "description": "Unhealthy"}
    if any(code for code in route.codes if code == "CTX_001"):
        responses["304"] = {"description": "Not modified (If-None-Match)"}
    return responses

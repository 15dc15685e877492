"""The documents about the API, each made once when it is first asked for."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import msgspec

from api.asyncapi import build_asyncapi
from api.openapi import build_openapi
from api.routes.base import Route

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c1f23;background:#fff}
h2{margin-top:2.5rem;border-bottom:1px solid #d5d9df;text-transform:capitalize}
details{border:1px solid #d5d9df;border-radius:6px;margin:.5rem 0;padding:.5rem .8rem}
summary{cursor:pointer}code,pre{font:13px ui-monospace,monospace}pre{background:#f4f5f7;padding:.8rem;overflow:auto}
b.method{display:inline-block;min-width:4.2rem}table{border-collapse:collapse}
td,th{text-align:left;padding:.15rem .8rem .15rem 0;vertical-align:top}
@media (prefers-color-scheme:dark){body{background:#15171a;color:#dfe3e8}pre{background:#202328}}
"""


class Documents:
    """``/openapi.json``, ``/asyncapi.json`` and ``/docs``."""

    def __init__(self, routes: Sequence[Route], version: str) -> None:
        self._routes = routes
        self._version = version
        self._made: dict[str, bytes] = {}

    def openapi(self) -> bytes:
        """OpenAPI 3.1, as JSON."""
        if "openapi" not in self._made:
            self._made["openapi"] = msgspec.json.encode(build_openapi(self._routes, self._version))
        return self._made["openapi"]

    def asyncapi(self) -> bytes:
        """AsyncAPI 3.0, as JSON."""
        if "asyncapi" not in self._made:
            self._made["asyncapi"] = msgspec.json.encode(build_asyncapi(self._version))
        return self._made["asyncapi"]

    def page(self) -> bytes:
        """The OpenAPI document as a page for people, without scripts or outside assets."""
        if "page" not in self._made:
            self._made["page"] = _page(msgspec.json.decode(self.openapi())).encode()
        return self._made["page"]


def _page(document: dict[str, Any]) -> str:
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>{_text(document['info']['title'])}</title><style>{_STYLE}</style>",
        f"<h1>{_text(document['info']['title'])} {_text(document['info']['version'])}</h1>",
        f"<p>{_text(document['info']['description'])} The same for programs: <a href=/openapi.json>openapi.json</a>, "
        "<a href=/asyncapi.json>asyncapi.json</a>. A token comes from <code>orchestrator token --admin</code>.</p>",
    ]
    for tag in document["tags"]:
        parts.append(f"<h2>{_text(tag['name'])}</h2>")
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                if tag["name"] in operation["tags"]:
                    parts.append(_operation(path, method, operation))
    parts.append("<h2>Forms</h2>")
    for name, schema in document["components"]["schemas"].items():
        parts.append(
            f"<details id='{_text(name)}'><summary><code>{_text(name)}</code> "
            f"{_text(schema.get('description', ''))}</summary><pre>{_json(schema)}</pre></details>"
        )
    return "\n".join(parts) + "</html>\n"


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    rows = [
        f"<tr><td><code>{_text(parameter['name'])}</code><td>{_text(parameter['in'])}"
        f"<td><code>{_json(parameter['schema'], indent=0)}</code>"
        for parameter in operation["parameters"]
    ]
    table = f"<table><tr><th>parameter<th>in<th>form{''.join(rows)}</table>" if rows else ""
    body = operation.get("requestBody")
    sends = f"<p>Body</p><pre>{_json(body['content'])}</pre>" if body else ""
    answers = "".join(
        f"<tr><td>{_text(status)}<td>{_text(answer['description'])}"
        for status, answer in operation["responses"].items()
    )
    return (
        f"<details><summary><b class=method>{_text(method.upper())}</b> <code>{_text(path)}</code> "
        f"{_text(operation['summary'])}</summary><p>{_text(operation.get('description', 'Open: no token needed.'))}</p>"
        f"{table}{sends}<table><tr><th>status<th>meaning{answers}</table></details>"
    )


def _text(value: str) -> str:
    return html.escape(value, quote=True)


def _json(value: Any, indent: int = 2) -> str:
    data = msgspec.json.encode(value)
    return html.escape((msgspec.json.format(data, indent=indent) if indent else data).decode())

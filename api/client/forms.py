"""The parts that calls are made of: quoted paths, query parameters, bodies."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from api.client.request import Answer, Request


def path_of(*parts: str) -> str:
    """An absolute path of ``parts``, each quoted whole: a name cannot leave its place."""
    return "/" + "/".join(quote(part, safe="") for part in parts)


def query_of(**values: Any) -> dict[str, str]:
    """Query parameters; None is left out, a trailing ``_`` of a name is cut."""
    query: dict[str, str] = {}
    for name, value in values.items():
        if value is None:
            continue
        query[name.rstrip("_")] = ("true" if value else "false") if isinstance(value, bool) else str(value)
    return query


def body_of(**values: Any) -> bytes:
    """A JSON body; None is left out. Raises ValueError for NaN and infinities, which JSON does not have."""
    return json.dumps({name: value for name, value in values.items() if value is not None}, allow_nan=False).encode()


def get(path: str, **query: Any) -> Request[Any]:
    """A GET whose answer is JSON."""
    return Request("GET", path, Answer.json, query_of(**query), is_repeatable=True)

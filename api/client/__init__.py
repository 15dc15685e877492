"""The client: ``Client`` (blocking), ``AsyncClient`` (asyncio), ``AgentClient`` (inside an agent).

Names are imported when they are first used, so that an agent pays only for what it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from api.client.agent import AgentClient
    from api.client.aio import AsyncClient
    from api.client.buffer import Flushed, ResultBuffer
    from api.client.errors import APIError, BadAnswer, ClientError, EventGap, SidecarUnavailable
    from api.client.request import Retry
    from api.client.sync import Client

_HOMES = {
    "APIError": "errors",
    "AgentClient": "agent",
    "AsyncClient": "aio",
    "BadAnswer": "errors",
    "Client": "sync",
    "ClientError": "errors",
    "EventGap": "errors",
    "Flushed": "buffer",
    "ResultBuffer": "buffer",
    "Retry": "request",
    "SidecarUnavailable": "errors",
}

__all__ = [
    "APIError",
    "AgentClient",
    "AsyncClient",
    "BadAnswer",
    "Client",
    "ClientError",
    "EventGap",
    "Flushed",
    "ResultBuffer",
    "Retry",
    "SidecarUnavailable",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

"""Requests about pushes that were given up, and about durable readers; as pure as ``calls``."""

from __future__ import annotations

from api.client import types
from api.client.forms import get, path_of, query_of
from api.client.request import Answer, Request

_LETTERS = ("api", "events", "dead-letters")


def dead_letters(
    *, limit: int | None = None, cursor: str | None = None, project_id: str | None = None
) -> Request[types.JSON]:
    """Deliveries that were given up, oldest first."""
    return get(path_of(*_LETTERS), limit=limit, cursor=cursor, project_id=project_id)


def dead_letter(letter_id: str, *, project_id: str | None = None) -> Request[types.JSON]:
    """One of them with its event."""
    return get(path_of(*_LETTERS, letter_id), project_id=project_id)


def redrive(letter_id: str, *, project_id: str | None = None) -> Request[types.JSON]:
    """Deliver a dead letter again."""
    path = path_of(*_LETTERS, letter_id, "redrive")
    return Request("POST", path, Answer.json, query_of(project_id=project_id), body=b"{}")


def redrive_all(*, filter: str | None = None, project_id: str | None = None) -> Request[types.JSON]:
    """Deliver all dead letters again, or those whose event matches ``filter``."""
    query = query_of(filter=filter, project_id=project_id)
    return Request("POST", path_of(*_LETTERS, "redrive"), Answer.json, query, body=b"{}")


def purge(letter_id: str, *, project_id: str | None = None) -> Request[types.JSON]:
    """Throw a dead letter away."""
    return Request("DELETE", path_of(*_LETTERS, letter_id), Answer.json, query_of(project_id=project_id))


def purge_all(*, filter: str | None = None, project_id: str | None = None) -> Request[types.JSON]:
    """Throw all dead letters away, or those whose event matches ``filter``."""
    query = query_of(filter=filter, project_id=project_id)
    return Request("DELETE", path_of(*_LETTERS), Answer.json, query)


def consumers(*, project_id: str | None = None) -> Request[types.JSON]:
    """Durable readers of the log with their lag."""
    return get(path_of("api", "events", "consumers"), project_id=project_id)


def remove_consumer(
    consumer: str, *, event_type: str | None = None, project_id: str | None = None
) -> Request[types.JSON]:
    """Forget a durable reader: of all its lists of types, or of one (``a,b`` or ``*``)."""
    query = query_of(event_type=event_type, project_id=project_id)
    return Request("DELETE", path_of("api", "events", "consumers", consumer), Answer.json, query)

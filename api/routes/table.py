"""All routes."""

from __future__ import annotations

from api.routes import (
    agent_output,
    agents,
    context,
    dead_letters,
    documents,
    event_stream,
    events,
    operation,
    pool,
    projects,
    results,
    runs,
    search,
)
from api.routes.base import Route

#: Fixed paths stand before those with names at the same place; the framework sorts by weight anyway.
ALL_ROUTES: tuple[Route, ...] = (
    *operation.ROUTES,
    *documents.ROUTES,
    *context.ROUTES,
    *results.ROUTES,
    *event_stream.ROUTES,
    *dead_letters.ROUTES,
    *events.ROUTES,
    *agents.ROUTES,
    *agent_output.ROUTES,
    *pool.ROUTES,
    *runs.ROUTES,
    *projects.ROUTES,
    *search.ROUTES,
)

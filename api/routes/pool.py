"""The pool's door: its state, and closing and opening it for maintenance."""

from __future__ import annotations

from api.routes.base import Call, Reply, Route, json_reply
from api.schemas.operation import PoolAnswer
from orchestrator.profiles.permissions import ADMIN


async def show_pool(call: Call) -> Reply:
    """``GET /api/pool``."""
    return _state(call)


async def pause_pool(call: Call) -> Reply:
    """``POST /api/pool/pause``."""
    call.services.agents.admission.pause()
    return _state(call)


async def drain_pool(call: Call) -> Reply:
    """``POST /api/pool/drain``."""
    call.services.agents.admission.drain()
    return _state(call)


async def resume_pool(call: Call) -> Reply:
    """``POST /api/pool/resume``."""
    call.services.agents.admission.resume()
    return _state(call)


def _state(call: Call) -> Reply:
    stats = call.services.agents.admission.stats()
    return json_reply(
        PoolAnswer(
            state="draining" if stats.is_draining else "paused" if stats.is_paused else "open",
            is_drained=stats.is_draining and stats.running == 0,
            running=stats.running,
            queued=stats.queued,
            capacity=stats.capacity,
            queue_capacity=stats.queue_capacity,
            limited_by=stats.limited_by,
            workers=stats.workers,
            workers_lost=stats.workers_lost,
            timestamp=call.now(),
        ),
        headers=(("Cache-Control", "no-store"),),
    )


ROUTES = (
    Route(
        method="GET",
        path="/api/pool",
        permission=ADMIN,
        handler=show_pool,
        summary="The pool's state, slots and queue",
        tag="operation",
        answer=PoolAnswer,
        is_project_bound=False,
    ),
    Route(
        method="POST",
        path="/api/pool/pause",
        permission=ADMIN,
        handler=pause_pool,
        is_audited=True,
        summary="Start no more agents; what is spawned waits in the queue",
        tag="operation",
        answer=PoolAnswer,
        is_project_bound=False,
    ),
    Route(
        method="POST",
        path="/api/pool/drain",
        permission=ADMIN,
        handler=drain_pool,
        is_audited=True,
        summary="Start no more agents and refuse spawns (429), until what runs has ended",
        tag="operation",
        answer=PoolAnswer,
        is_project_bound=False,
    ),
    Route(
        method="POST",
        path="/api/pool/resume",
        permission=ADMIN,
        handler=resume_pool,
        is_audited=True,
        summary="Start agents again",
        tag="operation",
        answer=PoolAnswer,
        is_project_bound=False,
    ),
)

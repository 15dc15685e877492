"""The sidecar itself: health, status, metrics, keys, tokens, and a first page."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST

from api.routes.base import ANY_TOKEN, OPEN, Call, Reply, Route, json_reply
from api.schemas.operation import HealthAnswer, StatusAnswer, TokenAnswer
from orchestrator.clock import rfc3339


async def health(call: Call) -> Reply:
    """``GET /health``: 503 when unhealthy."""
    answer = await call.services.health()
    answer.setdefault("timestamp", call.now())
    return json_reply(answer, status=503 if answer["status"] == "unhealthy" else 200, headers=_FRESH)


async def status(call: Call) -> Reply:
    """``GET /status``."""
    answer = await call.services.status()
    answer.setdefault("timestamp", call.now())
    return json_reply(answer, headers=_FRESH)


async def metrics(call: Call) -> Reply:
    """``GET /metrics``: Prometheus text."""
    return Reply(call.services.metrics.exposition(), content_type=CONTENT_TYPE_LATEST, headers=_FRESH)


async def jwks(call: Call) -> Reply:
    """``GET /.well-known/jwks.json``: the public keys (RFC 7517)."""
    return json_reply(call.authority.jwks(), headers=(("Cache-Control", "public, max-age=300"),))


async def refresh(call: Call) -> Reply:
    """``POST /api/tokens/refresh``."""
    token, fresh = await call.authority.refresh(call.principal)
    return json_reply(
        TokenAnswer(
            token=token,
            jwt_token=token,
            token_type="Bearer",
            expires_at=rfc3339(fresh.expires_at),
            expires_in_seconds=fresh.expires_at - fresh.issued_at,
            generation=fresh.generation,
            timestamp=call.now(),
        ),
        headers=_FRESH,
    )


async def index(call: Call) -> Reply:
    """``GET /``: where things are."""
    return json_reply(
        {
            "service": "orchestration-sidecar",
            "links": {
                "health": "/health",
                "status": "/status",
                "metrics": "/metrics",
                "documentation": "/docs",
                "openapi": "/openapi.json",
                "asyncapi": "/asyncapi.json",
                "keys": "/.well-known/jwks.json",
            },
            "token": "orchestrator token --admin",
            "timestamp": call.now(),
        }
    )


_FRESH = (("Cache-Control", "no-store"),)
ROUTES = (
    Route(
        method="GET",
        path="/health",
        permission=OPEN,
        handler=health,
        summary="Measured health (503 when unhealthy)",
        tag="operation",
        answer=HealthAnswer,
        is_project_bound=False,
    ),
    Route(
        method="GET",
        path="/status",
        permission=OPEN,
        handler=status,
        summary="Counts and performance",
        tag="operation",
        answer=StatusAnswer,
        is_project_bound=False,
    ),
    Route(
        method="GET",
        path="/metrics",
        permission=OPEN,
        handler=metrics,
        summary="Prometheus metrics",
        tag="operation",
        media="text/plain",
        is_project_bound=False,
    ),
    Route(
        method="GET",
        path="/.well-known/jwks.json",
        permission=OPEN,
        handler=jwks,
        summary="The public keys that verify tokens",
        tag="tokens",
        is_project_bound=False,
    ),
    Route(
        method="POST",
        path="/api/tokens/refresh",
        permission=ANY_TOKEN,
        handler=refresh,
        is_audited=True,
        summary="A new token for one in the last minutes of its life",
        tag="tokens",
        answer=TokenAnswer,
        codes=("AUTH_004",),
        is_project_bound=False,
    ),
    Route(
        method="GET",
        path="/",
        permission=OPEN,
        handler=index,
        summary="Where things are",
        tag="operation",
        is_project_bound=False,
    ),
)

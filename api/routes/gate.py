"""What stands between the framework and a handler: who asks, how often, may it, and what an error looks like."""

from __future__ import annotations

import asyncio
from functools import partial

import structlog

from api.asgi import RequestInfo
from api.asgi_body import CLOUDEVENT_TYPE, JSON_TYPE, media_type
from api.auth.authority import Authority
from api.auth.limits import RateLimiter
from api.auth.principal import Principal
from api.documents import Documents
from api.errors import UnsupportedMediaType, problem, translate
from api.routes.base import ANY_TOKEN, OPEN, Call, Reply, Route
from api.routes.services import Services
from api.routes.waiters import Waiters
from orchestrator.clock import Clock, SystemClock
from orchestrator.identifiers import check_identifier

log = structlog.get_logger(__name__)


class Gate:
    """Answers requests by their route; never raises anything but cancellation."""

    def __init__(
        self,
        services: Services,
        authority: Authority,
        limiter: RateLimiter,
        waiters: Waiters,
        documents: Documents,
        *,
        clock: Clock | None = None,
    ) -> None:
        self._services = services
        self._authority = authority
        self._limiter = limiter
        self._waiters = waiters
        self._documents = documents
        self._clock = clock or SystemClock()

    async def answer(self, route: Route, names: dict[str, str], query_string: bytes, info: RequestInfo) -> Reply:
        """The answer to one request of ``route``."""
        info.route = route.path
        info.is_waiting = route.is_waiting
        try:
            principal = None if route.permission == OPEN else await self._admit(route, info)
            for name, value in names.items():
                if name not in route.free_names:
                    check_identifier(value, name)
            if info.body and not route.takes_cloudevents:
                _refuse_cloudevents(info)
            call = Call(
                route=route,
                services=self._services,
                principal=principal,
                names=names,
                info=info,
                query_string=query_string,
                authority=self._authority,
                waiters=self._waiters,
                documents=self._documents,
                clock=self._clock,
            )
            reply = await route.handler(call)
            if route.is_audited:
                await self._audit(call)
            return reply
        except Exception as error:  # noqa: BLE001 - the edge of a request
            return self.refusal(error, info)

    async def _audit(self, call: Call) -> None:
        facts = {**call.names, **call.facts, "request_id": call.info.id}
        record = partial(
            self._services.audit.record, call.route.handler.__name__, subject=call.principal.agent_id, **facts
        )
        await asyncio.to_thread(record)

    async def _admit(self, route: Route, info: RequestInfo) -> Principal:
        authorization = info.headers.get(b"authorization")
        principal = self._authority.recall(authorization) or await self._authority.verify(authorization)
        allowance, refusal = self._limiter.admit(principal)
        if allowance is not None:
            info.extra += allowance.headers()
        if refusal is not None:
            raise refusal
        if route.permission != ANY_TOKEN:
            principal.require(route.permission)
        return principal

    def refusal(self, error: Exception, info: RequestInfo) -> Reply:
        """The contract's answer to an error; what was not foreseen is logged with the request's id."""
        known = translate(error)
        if known is not error and known.code.startswith("SYS_001"):
            log.error("request_failed", request_id=info.id, route=info.route, exc_info=error)
        elif known.code in ("STR_001", "STR_002", "EVT_001", "CTX_001"):
            log.warning("request_refused", request_id=info.id, route=info.route, code=known.code, reason=known.message)
        answer = problem(known, info.id, self._clock.now())
        return Reply(answer.body, answer.status, headers=answer.headers)


def _refuse_cloudevents(info: RequestInfo) -> None:
    if media_type(info.headers.get(b"content-type")) == CLOUDEVENT_TYPE:
        raise UnsupportedMediaType(
            "this path takes application/json only",
            details={"header": "Content-Type", "supported": [JSON_TYPE]},
        )

"""Rate limits: token buckets per agent, per project and for the whole sidecar."""

from __future__ import annotations

import math
from collections import OrderedDict

import msgspec

from api.auth.principal import Principal
from orchestrator.clock import Clock, SystemClock
from orchestrator.config import RateLimitSettings
from orchestrator.errors import RateLimited

#: Callers and projects with a bucket; the one unused for longest is dropped (it would be full again by then).
MAX_BUCKETS = 16384


class TokenBucket:
    """A bucket of ``burst`` tokens that is filled at ``rate`` tokens a second; a request takes one."""

    __slots__ = ("burst", "rate", "tokens", "updated_at")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self.tokens = burst
        self.updated_at = now

    def fill(self, now: float) -> None:
        """Add what has flowed in since the last look."""
        self.tokens = min(self.burst, self.tokens + (now - self.updated_at) * self.rate)
        self.updated_at = now

    def seconds_until(self, tokens: float) -> float:
        """Seconds from the last look until it holds ``tokens``."""
        return max(0.0, (tokens - self.tokens) / self.rate)


class Allowance(msgspec.Struct, frozen=True):
    """What a limited caller has left: ``limit`` requests a minute, ``remaining`` now, full again at ``reset``."""

    limit: int
    remaining: int
    reset: int

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The three headers of the contract."""
        return [
            (b"x-ratelimit-limit", b"%d" % self.limit),
            (b"x-ratelimit-remaining", b"%d" % self.remaining),
            (b"x-ratelimit-reset", b"%d" % self.reset),
        ]


class RateLimiter:
    """Admits requests by caller, then by project, then by the sidecar's ceiling.

    Operators are never limited; architects only by the ceilings. A refused request takes nothing from any bucket.
    """

    def __init__(self, settings: RateLimitSettings, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self.is_enabled = settings.enabled
        self._tiers = {
            "coding": (settings.coding_per_minute, settings.coding_burst),
            "documentation": (settings.documentation_per_minute, settings.documentation_burst),
        }
        self._project_rate = settings.project_per_second
        now = self._clock.monotonic()
        self._agents: OrderedDict[str, TokenBucket] = OrderedDict()
        self._projects: OrderedDict[str, TokenBucket] = OrderedDict()
        rate = settings.sidecar_per_second
        self._whole = TokenBucket(rate, rate, now) if rate > 0 else None

    def admit(self, principal: Principal) -> tuple[Allowance | None, RateLimited | None]:
        """What the caller has left (None: it is not limited), and the error when this request is refused."""
        tier = principal.tier
        if not self.is_enabled or tier == "operator":
            return None, None
        now = self._clock.monotonic()
        own = self._bucket(self._agents, principal.agent_id, *self._agent_rate(tier), now)
        shared = self._bucket(self._projects, principal.project_id, self._project_rate, self._project_rate, now)
        buckets = [bucket for bucket in (own, shared, self._whole) if bucket is not None]
        refused = None
        for bucket in buckets:
            bucket.fill(now)
        for bucket in buckets:
            if bucket.tokens < 1:
                refused = bucket
                break
        if refused is None:
            for bucket in buckets:
                bucket.tokens -= 1
        shown = own or refused
        allowance = self._allowance(shown) if shown is not None else None
        if refused is None:
            return allowance, None
        wait_s = max(1, math.ceil(refused.seconds_until(1)))
        limit = round(refused.rate * 60)
        return allowance, RateLimited(
            f"more than {limit} requests a minute; try again in {wait_s} s",
            details={"limit": limit, "retry_after_seconds": wait_s},
            retry_after_s=wait_s,
        )

    def _agent_rate(self, tier: str) -> tuple[float, float]:
        per_minute, burst = self._tiers.get(tier, (0, 0))
        return per_minute / 60, max(1, burst)

    def _allowance(self, bucket: TokenBucket) -> Allowance:
        reset = self._clock.now() + bucket.seconds_until(bucket.burst)
        return Allowance(round(bucket.rate * 60), max(0, int(bucket.tokens)), math.ceil(reset))

    @staticmethod
    def _bucket(
        table: OrderedDict[str, TokenBucket], key: str, rate: float, burst: float, now: float
    ) -> TokenBucket | None:
        if rate <= 0:
            return None
        bucket = table.get(key)
        if bucket is None:
            bucket = table[key] = TokenBucket(rate, burst, now)
            if len(table) > MAX_BUCKETS:
                table.popitem(last=False)
        else:
            table.move_to_end(key)
        return bucket

"""Token buckets."""

from __future__ import annotations

import pytest

from api.auth import limits
from api.auth.limits import RateLimiter
from api.auth.principal import Principal
from orchestrator.config import RateLimitSettings
from orchestrator.profiles.model import PermissionClass
from orchestrator.profiles.permissions import PERMISSIONS, permissions_of
from tests.support.api_fakes import FakeClock


def principal(kind: PermissionClass | None, agent_id: str = "a", project_id: str = "p") -> Principal:
    """A caller of a class; an operator without one."""
    permissions = PERMISSIONS if kind is None else permissions_of(kind)
    return Principal(
        agent_id=agent_id,
        agent_type="t",
        project_id=project_id,
        permissions=frozenset(permissions),
        jti="j",
        issued_at=0,
        expires_at=1,
    )


def admitted(limiter: RateLimiter, caller: Principal, tries: int) -> int:
    """How many of ``tries`` requests at once pass."""
    return sum(limiter.admit(caller)[1] is None for _ in range(tries))


@pytest.mark.parametrize(
    ("kind", "burst"),
    [("coding", 10), ("qa-security", 10), ("documentation", 5), ("support", 5), ("architect", 50), (None, 50)],
)
def test_each_class_has_its_burst(kind: PermissionClass | None, burst: int) -> None:
    """The table of the contract."""
    limiter = RateLimiter(RateLimitSettings(), clock=FakeClock())
    assert admitted(limiter, principal(kind), 50) == burst


def test_the_bucket_fills_with_time_and_not_beyond_its_burst() -> None:
    """60 a minute is one a second; an hour's silence must not buy 3,600 at once."""
    clock = FakeClock()
    limiter = RateLimiter(RateLimitSettings(), clock=clock)
    caller = principal("coding")
    assert admitted(limiter, caller, 20) == 10
    clock.seconds += 3
    assert admitted(limiter, caller, 20) == 3
    clock.seconds += 3600
    assert admitted(limiter, caller, 20) == 10


def test_a_refusal_says_when_and_takes_nothing() -> None:
    """A client that hammers while it waits must still be served in time."""
    clock = FakeClock()
    limiter = RateLimiter(RateLimitSettings(), clock=clock)
    caller = principal("documentation")
    admitted(limiter, caller, 5)
    for _ in range(100):
        allowance, refusal = limiter.admit(caller)
        assert refusal is not None
        assert refusal.retry_after_s == 2
        assert refusal.details["limit"] == 30
    assert allowance is not None
    assert (allowance.limit, allowance.remaining, allowance.reset) == (30, 0, int(clock.now()) + 10)
    clock.seconds += 2
    assert limiter.admit(caller)[1] is None


def test_callers_have_buckets_of_their_own() -> None:
    """One eager agent must not starve another of the same class."""
    limiter = RateLimiter(RateLimitSettings(), clock=FakeClock())
    admitted(limiter, principal("coding", "greedy"), 50)
    assert admitted(limiter, principal("coding", "modest"), 10) == 10


def test_a_project_has_a_ceiling() -> None:
    """119 agents of one project must leave room for another project; architects count, operators do not."""
    limiter = RateLimiter(RateLimitSettings(project_per_second=7), clock=FakeClock())
    assert admitted(limiter, principal("architect", "a"), 5) == 5
    assert admitted(limiter, principal("coding", "b"), 5) == 2
    assert admitted(limiter, principal("coding", "c", "other"), 5) == 5
    assert admitted(limiter, principal(None), 50) == 50


def test_the_sidecar_has_a_ceiling() -> None:
    """Many projects together must not exceed what one process serves."""
    clock = FakeClock()
    limiter = RateLimiter(RateLimitSettings(sidecar_per_second=6), clock=clock)
    passed = [admitted(limiter, principal("coding", f"a{number}", f"p{number}"), 4) for number in range(3)]
    assert sum(passed) == 6
    _, refusal = limiter.admit(principal("coding", "new", "newer"))
    assert refusal is not None
    clock.seconds += 0.5
    assert admitted(limiter, principal("coding", "new", "newer"), 5) == 3


def test_a_request_that_a_ceiling_refuses_costs_the_caller_nothing() -> None:
    """Otherwise a busy neighbour would empty one's own bucket."""
    clock = FakeClock()
    limiter = RateLimiter(RateLimitSettings(project_per_second=1), clock=clock)
    admitted(limiter, principal("architect", "busy"), 1)
    caller = principal("coding", "quiet")
    assert admitted(limiter, caller, 20) == 0
    allowance, _ = limiter.admit(caller)
    assert allowance is not None
    assert allowance.remaining == 10


def test_off_is_off() -> None:
    """Benchmarks must not measure the limiter."""
    limiter = RateLimiter(RateLimitSettings(enabled=False), clock=FakeClock())
    assert admitted(limiter, principal("support"), 500) == 500
    assert limiter.admit(principal("support"))[0] is None


def test_buckets_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each agent has an id of its own: a table without bound is a leak."""
    monkeypatch.setattr(limits, "MAX_BUCKETS", 4)
    limiter = RateLimiter(RateLimitSettings(), clock=FakeClock())
    for number in range(20):
        limiter.admit(principal("coding", f"a{number}", f"p{number}"))
    assert len(limiter._agents) == 4
    assert len(limiter._projects) == 4

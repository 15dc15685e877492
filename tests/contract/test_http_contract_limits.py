"""Contract section 2: rate limits by class, seen from outside."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.support.http import Answer, Api
from tests.support.repo import sample_repository
from tests.support.server import Server
from tests.support.waiting import until

HEADERS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")


@pytest.fixture(scope="module")
def _limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("limited")
    with Server(directory / "storage", {"sample": sample_repository(directory / "sample")}) as running:
        yield running


@pytest.fixture
def limited(_limited: Server) -> Iterator[Server]:
    """A sidecar with the default limits; each test takes tokens of its own."""
    yield _limited
    _limited.close_clients()


def spend(api: Api, at_most: int) -> tuple[list[Answer], Answer]:
    """The answers until the first refusal, and that refusal."""
    taken: list[Answer] = []
    for _ in range(at_most):
        answer = api.get("/api/profiles/chief-architect")
        if answer.status == 429:
            return taken, answer
        taken.append(answer.expect(200))
    raise AssertionError(f"{at_most} requests in a row and no refusal")


@pytest.mark.critical
@pytest.mark.parametrize(
    ("role", "per_minute", "burst"),
    [
        ("python-specialist", 60, 10),
        ("security-auditor", 60, 10),
        ("documentation-expert", 30, 5),
        ("context-manager", 30, 5),
    ],
)
def test_a_burst_is_taken_and_then_refused(limited: Server, role: str, per_minute: int, burst: int) -> None:
    """A limit that is too tight starves agents, one that is too loose lets one agent take the sidecar."""
    began = time.monotonic()
    api = limited.api(token=limited.token(role))
    taken, refusal = spend(api, burst + 30)
    refilled = (time.monotonic() - began) * per_minute / 60
    assert burst <= len(taken) <= burst + refilled + 1
    for answer in [*taken, refusal]:
        assert all(name in answer.headers for name in HEADERS), answer.headers
        assert int(answer.headers["X-RateLimit-Limit"]) == per_minute
        assert int(answer.headers["X-RateLimit-Reset"]) >= time.time() - 60
    remaining = [int(answer.headers["X-RateLimit-Remaining"]) for answer in taken[:burst]]
    assert remaining[0] in (burst - 1, burst)
    assert remaining[-1] in (0, 1)
    error = refusal.refused(429, "RATE_001")
    assert error["limit"] == per_minute
    assert error["retry_after_seconds"] > 0
    assert 1 <= int(refusal.headers["Retry-After"]) <= 60


def test_after_the_wait_the_caller_is_served_again(limited: Server) -> None:
    """A bucket that refusals drain as well never lets an eager client in again."""
    api = limited.api(token=limited.token("python-specialist"))
    _, refusal = spend(api, 40)
    wait_s = int(refusal.headers["Retry-After"])
    until(lambda: api.get("/api/profiles/chief-architect").status == 200, timeout_s=wait_s + 2, what="served again")


def test_one_agents_bucket_is_its_own(limited: Server) -> None:
    """Limits by class or by address would let one agent starve its colleagues."""
    greedy = limited.api(token=limited.token("python-specialist"))
    spend(greedy, 40)
    modest = limited.api(token=limited.token("python-specialist"))
    modest.get("/api/profiles/chief-architect").expect(200)


def test_architect_and_operator_are_not_limited(limited: Server) -> None:
    """The one who coordinates 119 agents must not be told to wait a minute."""
    for token in (limited.token("chief-architect"), limited.token()):
        api = limited.api(token=token)
        assert {api.get("/api/profiles/chief-architect").status for _ in range(60)} == {200}


def test_limits_can_be_switched_off_and_health_says_so(limited: Server, sidecar: Server) -> None:
    """A benchmark must be able to tell whether it measures the limiter."""
    api = sidecar.api(token=sidecar.token("context-manager"))
    assert {api.get("/api/profiles/chief-architect").status for _ in range(40)} == {200}
    on, off = (server.anonymous().get("/health").json for server in (limited, sidecar))
    said = [str(health.get("rate_limits", health["checks"].get("rate_limits"))).lower() for health in (on, off)]
    assert "none" not in said
    assert said[0] != said[1]

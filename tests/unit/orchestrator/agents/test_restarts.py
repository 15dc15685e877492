"""Restart policy, backoff and intensity."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentpool.states import Outcome
from orchestrator.agents.restarts import BACKOFF_LIMIT_S, RestartIntensity, backoff_s, wants_restart

KEY = ("project", "role")


@pytest.mark.parametrize(
    ("policy", "outcome", "wanted"),
    [
        ("never", Outcome.FAILED, False),
        ("on-failure", Outcome.FAILED, True),
        ("on-failure", Outcome.LOST, True),
        ("on-failure", Outcome.TIMED_OUT, True),
        ("on-failure", Outcome.SUCCEEDED, False),
        ("on-failure", Outcome.KILLED, False),
        ("on-failure", Outcome.QUOTA, False),
        ("always", Outcome.SUCCEEDED, True),
        ("always", Outcome.KILLED, False),
        ("always", Outcome.QUOTA, False),
    ],
)
def test_policy_decides(policy: str, outcome: Outcome, wanted: bool) -> None:
    """An agent that somebody killed came back by itself."""
    assert wants_restart(policy, outcome) is wanted


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_backoff_is_bounded_and_never_immediate(restarts: int, jitter: float) -> None:
    """A crash loop span without a pause, or a pause overflowed to hours."""
    assert 0.25 <= backoff_s(restarts, jitter) <= BACKOFF_LIMIT_S


def test_intensity_quarantines_and_lets_go() -> None:
    """A role that crashes again and again restarted for ever, or never again."""
    intensity = RestartIntensity(limit=3, window_s=60)
    assert [intensity.allow(KEY, now) for now in (0.0, 1.0, 2.0, 3.0)] == [True, True, True, False]
    assert intensity.quarantined(3.0) == [KEY]
    assert intensity.allow(("project", "other"), 3.0)
    assert intensity.allow(KEY, 61.5)
    assert intensity.quarantined(200.0) == []

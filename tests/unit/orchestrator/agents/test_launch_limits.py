"""What of a spawn's limits is taken, and what follows from it."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.agents.launch import merged_limits, token_ttl_s
from orchestrator.errors import BadRequest
from orchestrator.models import SpawnRequest
from orchestrator.profiles.model import Profile

ROLE = Profile(agent_type="role", description="", category="custom", permission_class="coding", timeout_seconds=900)


def wish(**fields: Any) -> SpawnRequest:
    """A spawn request for ``ROLE``."""
    return SpawnRequest(agent_type="role", issue_id="i", task="t", project_id="p", **fields)


@pytest.mark.parametrize(
    ("fields", "wall_s"),
    [
        ({}, 900),
        ({"timeout_seconds": 5}, 5),
        ({"limits": {"wall_s": 7}}, 7),
        ({"limits": {"wall_s": None}}, 900),
        ({"limits": {"wall_s": 7}, "timeout_seconds": 5}, 5),
    ],
)
def test_the_time_of_an_attempt_is_the_nearest_that_is_given(fields: dict[str, Any], wall_s: float) -> None:
    """A role's own time limit came before that of the request."""
    assert merged_limits(ROLE, wish(**fields)).wall_s == wall_s


def test_a_token_outlasts_its_agent_whichever_way_its_time_was_given() -> None:
    """An agent that ran for hours by ``limits.wall_s`` had a token for one, and could store no result."""
    assert token_ttl_s(wish(limits={"wall_s": 7200.0}), ROLE) == 7500
    assert token_ttl_s(wish(timeout_seconds=7200.0), ROLE) == 7500
    assert token_ttl_s(wish(), ROLE) == 3600


@pytest.mark.parametrize(
    "limits",
    [{"wall_s": 0}, {"cpu_s": -1}, {"memory_bytes": 2**63}, {"open_files": 3}, {"output_file_bytes": 0}, {"nice": 20}],
)
def test_a_limit_that_means_nothing_is_refused_by_name(limits: dict[str, Any]) -> None:
    """Such limits were passed over, killed everything at once, or failed later as an error of the sidecar's own."""
    with pytest.raises(BadRequest, match=f"limits.{next(iter(limits))} must be"):
        merged_limits(ROLE, wish(limits=limits))

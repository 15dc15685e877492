"""A profile's own restart bounds."""

from __future__ import annotations

from orchestrator.agents.restarts import RestartIntensity

KEY = ("project", "role")
OTHER = ("project", "other")


def test_a_profiles_own_bounds_go_before_the_common_ones() -> None:
    """A role that may restart once an hour must not get the three a minute of the settings."""
    intensity = RestartIntensity(limit=3, window_s=60)
    assert intensity.allow(KEY, 0, limit=1, window_s=3600)
    assert not intensity.allow(KEY, 100, limit=1, window_s=3600)
    assert intensity.quarantined(100) == [KEY]
    assert intensity.allow(KEY, 3700, limit=1, window_s=3600)


def test_bounds_of_one_role_do_not_change_anothers() -> None:
    """The bounds given for one key were kept for all."""
    intensity = RestartIntensity(limit=2, window_s=60)
    assert not intensity.allow(KEY, 0, limit=0)
    assert intensity.allow(OTHER, 0)
    assert intensity.allow(OTHER, 1)
    assert not intensity.allow(OTHER, 2)
    assert intensity.quarantined(2) == [OTHER]
    assert intensity.quarantined(100) == []

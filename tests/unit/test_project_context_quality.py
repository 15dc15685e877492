"""The comparison of the context engine's selection with a baseline."""

from __future__ import annotations

from typing import Any

import pytest

from perf.context_quality import FIGURES, compare


def _rows(values: list[float]) -> dict[str, dict[str, Any]]:
    return {
        f"task{number}": {"repo": f"owner/{number % 3}", **dict.fromkeys(FIGURES, value)}
        for number, value in enumerate(values)
    }


def test_an_interval_tells_a_gain_from_noise() -> None:
    """A mean that is higher by chance was told as a gain."""
    baseline = _rows([0.5] * 30)
    gained = compare(_rows([0.6, 0.7] * 15), baseline)["auc"]
    assert 0.1 < gained["difference_95_percent"][0] <= gained["difference_95_percent"][1] < 0.2
    chance = compare(_rows([0.0, 1.0] * 14 + [0.6, 0.6]), baseline)["auc"]
    assert chance["engine"] > chance["baseline"]
    assert chance["difference_95_percent"][0] < 0 < chance["difference_95_percent"][1]


def test_runs_of_different_tasks_are_not_compared() -> None:
    """A run that broke off looked better for want of its hard tasks."""
    with pytest.raises(ValueError, match="same tasks"):
        compare(_rows([0.5] * 5), _rows([0.5] * 6))

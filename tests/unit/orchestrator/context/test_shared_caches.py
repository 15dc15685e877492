"""What threads that work on several projects at once share: opened files and grounds of rankings."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.context.excerpts import ViewCache, open_view
from orchestrator.context.ground import GroundCache
from orchestrator.context.project import Limits, ProjectState
from orchestrator.context.roles import focus_for
from tests.support.context import DEVELOPER


@pytest.fixture(autouse=True)
def _fast_switches() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def _in_threads(work: Callable[[int], object]) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


def test_a_copy_of_a_file_counts_once() -> None:
    """Copies of a file, opened together, were counted each: little by little the cache seemed full for ever."""
    view = open_view(b"def fold():\n    return 1\n", "python")
    cache = ViewCache(1 << 20)
    for _ in range(3):
        cache.put("sum", "python", view)
    assert cache.size_bytes == view.cost


def test_views_of_several_threads() -> None:
    """A view that another thread had just dropped ended the request with a KeyError."""
    view = open_view(b"x = 1\n", "python")
    cache = ViewCache(2 * view.cost)
    _in_threads(lambda thread: [cache.get(str((thread + n) % 5), "python", lambda: view) for n in range(5000)])
    assert cache.size_bytes <= 2 * view.cost


def test_grounds_of_several_threads(tmp_path: Path) -> None:
    """While one thread counted what the grounds take, another added one: the request ended with a RuntimeError."""
    focus = focus_for(DEVELOPER)
    states = [ProjectState(str(tmp_path / str(n)), Limits()) for n in range(4)]
    cache = GroundCache(capacity=-1)
    _in_threads(lambda thread: [cache.get(states[thread], str(n % 7).encode(), focus) for n in range(2000)])
    assert len(cache.get(states[0], b"0", focus)) == 0

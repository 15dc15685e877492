"""What threads that work on several projects at once share: opened files and grounds of rankings."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from orchestrator.context.excerpts import ViewCache, open_view
from orchestrator.context.ground import GroundCache
from orchestrator.context.project import Limits, ProjectState
from orchestrator.context.roles import focus_for
from tests.support.context import DEVELOPER
from tests.support.repo import write_files


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


def test_documents_that_change_their_numbers_among_themselves(tmp_path: Path) -> None:
    """A project that was forgotten and read again, by several processes and so in another order, was ranked by other
    files' weights: each number was overwritten before it was read."""
    write_files(tmp_path, {"a.py": "x = 1\n", "tests/test_a.py": "x = 1\n", "docs/a.md": "x\n", "b.toml": "x = 1\n"})
    focus, cache = focus_for(DEVELOPER), GroundCache()
    state = ProjectState(str(tmp_path), Limits())
    state.refresh()
    cache.get(state, b"", focus)
    for facts in list(state.files.values()):
        state.files[facts.path] = msgspec.structs.replace(facts, document=(facts.document + 1) % len(state.files))
    state.generation += 1
    found, expected = cache.get(state, b"", focus), GroundCache().get(state, b"", focus)
    assert (found.factors, found.shares) == (expected.factors, expected.shares)
    assert len(set(expected.factors)) > 1

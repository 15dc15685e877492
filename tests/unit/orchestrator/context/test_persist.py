"""What is kept of projects between runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.config import ContextSettings
from orchestrator.context.engine import ContextEngine
from orchestrator.context.persist import keep_only, path_of
from tests.support.context import new_library, order
from tests.support.repo import sample_repository


def test_nothing_is_kept_of_a_project_that_is_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The words of a project whose id was given to another directory stayed in the storage for ever."""
    monkeypatch.setattr("orchestrator.context.project._SAVED_FILES", 1)
    kept = tmp_path / "kept"
    roots = [str(sample_repository(tmp_path / name).resolve()) for name in ("here", "gone")]
    library = new_library(kept)
    for root in roots:
        library.build(order(Path(root), "account"))
        library.save(root)
    own = path_of(str(kept), roots[0])
    cut_off = [own.with_suffix(".77.tmp"), own.with_suffix(".gitindex.new"), own.with_suffix(".gitindex.lock")]
    foreign = kept / "README.md"
    for path in (*cut_off, foreign):
        path.touch()
    assert len(list(kept.iterdir())) == 8
    keep_only(str(kept), roots[:1])
    assert sorted(kept.iterdir()) == sorted([own, own.with_suffix(".gitindex"), foreign])
    keep_only(str(tmp_path / "nowhere"), roots)


async def test_the_engine_begins_with_what_it_needs(tmp_path: Path) -> None:
    """The rule was there, and nobody applied it."""
    state = tmp_path / "state"
    state.mkdir()
    here, gone = (path_of(str(state), root) for root in ("/here", "/gone"))
    for path in (here, gone):
        path.touch()
    nothing = object()
    engine = ContextEngine(nothing, nothing, nothing, ContextSettings(), state)  # type: ignore[arg-type]
    await engine.start(["/here"])
    await engine.stop()
    assert here.exists()
    assert not gone.exists()

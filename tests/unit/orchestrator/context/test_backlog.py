"""Documents whose identifiers are not taken apart yet are found like all others."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.context.counts import count
from orchestrator.context.index import FIELDS, Index
from orchestrator.context.outline import defined_names
from orchestrator.context.query import parse
from orchestrator.context.rank import bm25
from tests.support.context import document, new_library, paths
from tests.support.repo import git, sample_repository

_TEXT = st.lists(
    st.sampled_from(
        [
            "def getUserName(query):",
            "class SecurityPolicy:",
            "    securities = try_again(HTTPServer2, query_string)",
            "ÉTAT = 'naïve façade'",
            "    validates = validating or VALIDATION",
            "def _private__name(): pass",
            "    id = ids[ID]",
            "x" * 70,
            "retry " * 300,
        ]
    ),
    max_size=12,
)
_TASK = "validate the user name of security queries, retry by id; try état and façade in getUserName of HTTPServer2"


def _scores(index: Index) -> dict[str, dict[int, float]]:
    query = parse(_TASK, index.splitter)
    index.prepare(query.terms)
    return {field: bm25(index, field, query.terms) for field in FIELDS} | {
        "names": {document: 1.0 for name in query.names for document in index.defining(name)}
    }


@settings(max_examples=40)
@given(st.lists(_TEXT, max_size=8), st.integers(0, 8), st.sets(st.integers(0, 7)))
def test_waiting_documents_score_as_absorbed_ones(texts: list[list[str]], absorbed: int, removed: set[int]) -> None:
    """The first answer of a project ranked otherwise than the next one."""
    index = Index()
    for number, lines in enumerate(texts):
        data = "\n".join(lines).encode()
        index.add(f"src/module_{number}.py", count(data, defined_names(data, "python")))
    for number in removed:
        index.remove(number)
    index.absorb(absorbed)
    before = _scores(index)
    assert index.absorb(100) == 0
    after = _scores(index)
    assert {field: before[field].keys() for field in before} == {field: after[field].keys() for field in after}
    for field, scores in after.items():
        assert before[field] == pytest.approx(scores)


def test_the_index_is_completed_behind_the_first_answer(tmp_path: Path) -> None:
    """The backlog was kept for good, so that every new task searched it again; or its files were lost."""
    root = sample_repository(tmp_path / "r")
    for number in range(120):
        (root / f"extra_{number}.py").write_text(f"def extra_{number}():\n    return {number}\n")
    git(root, "add", "-A")
    library = new_library()
    first = paths(document(root, "return of extra_77", library=library))
    state = library.state(str(root))
    assert state.index.waiting > 100
    library.finish(str(root))
    assert state.index.waiting == 0
    assert paths(document(root, "return of extra_77", library=library)) == first
    assert first[0] == "extra_77.py"

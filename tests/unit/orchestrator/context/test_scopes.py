"""Scopes around a part of a text, and what an answer shows and says of what an excerpt leaves out."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.context.budget import Selection
from orchestrator.context.excerpts import open_view
from orchestrator.context.names import name_map
from orchestrator.context.outline import Lines
from orchestrator.context.scopes import scopes
from tests.support.context import document, new_library
from tests.support.repo import repository

PYTHON = b"""import os

class Earlier:
    def alike(self):
        pass

class Pool(
    Base,
):
    # a comment to the left of nothing

    @cached
    def submit(
        self,
        task,
    ):
        if task:
            return (
        1,
            )
        for each in task:
            run(each)
"""
GO = b"package x\n\nfunc Run(\n\tx int,\n) {\n\tfor {\n\t\tgo()\n\t}\n}\n"
JAVA = b"public class A {\n  static class B {\n    private int add(int a) {\n      return a;\n    }\n  }\n}\n"


@pytest.mark.parametrize(
    ("language", "text", "line", "openings"),
    [
        ("python", PYTHON, 12, (7,)),
        ("python", PYTHON, 17, (7, 13)),
        ("python", PYTHON, 22, (7, 13)),
        ("python", PYTHON, 3, ()),
        ("python", PYTHON, 4, (3,)),
        ("go", GO, 7, (3,)),
        ("java", JAVA, 4, (1, 2, 3)),
        ("python", b"class A:\n\n    x = 1\n", 2, (1,)),
        ("python", b"\n\n\n", 2, ()),
    ],
)
def test_the_definitions_around_a_line(language: str, text: bytes, line: int, openings: tuple[int, ...]) -> None:
    """A method was shown without its class's line, or with that of another class above it."""
    assert scopes(Lines(text), line, language) == openings


@given(st.lists(st.sampled_from(["class A:", "  def f(", "    x", "", "\t\ty", ") {", "# z"]), min_size=1, max_size=60))
def test_scopes_lie_above_and_further_left(rows: list[str]) -> None:
    """Lines that are no scope, or none of this one's, would be shown as if they were."""
    lines = Lines("\n".join(rows).encode())
    for first in range(1, lines.count + 1):
        found = scopes(lines, first, "python")
        assert list(found) == sorted(set(found))
        indents = [len(rows[line - 1]) - len(rows[line - 1].lstrip()) for line in found]
        assert indents == sorted(set(indents))
        assert all(line < first for line in found)


@pytest.mark.parametrize(
    "text",
    [
        b"".join(b" " * depth + b"def f():\n" for depth in range(1400)),
        b"def f():\n" + b"\n" * 1_000_000 + b"    pass\n",
        b"def f():\n" + b" " * 1_000_000 + b"pass\n",
        b"class A {\n" + (b" " * 30 + b"}\n") * 30_000,
    ],
    ids=["a staircase", "blank lines", "one line", "what closes"],
)
def test_no_text_takes_long_to_find_scopes_in(text: bytes) -> None:
    """One file of a thousand levels, or of blank lines, kept its project busy for minutes, at every answer."""
    lines = Lines(text)
    began = time.thread_time()
    for first in range(1, lines.count + 1, 1 + lines.count // 30):
        scopes(lines, first, "python")
    assert time.thread_time() - began < 2.0


def _class(name: str, methods: int) -> str:
    body = "".join(
        f"\n    def step_{number}(self):\n" + "".join(f"        line_{number}_{row} = {row}\n" for row in range(12))
        for number in range(methods)
    )
    return f"class {name}:\n{body}\n"


def test_an_excerpt_shows_its_class_and_names_the_rest(tmp_path: Path) -> None:
    """A method alone did not tell whose it is, and nothing told what else the file and the other files define."""
    files = {
        "engine.py": _class("Engine", 40).replace("line_20_3 = 3", "torque_limit = compute_torque()"),
        "wheel.py": _class("Wheel", 40).replace("line_7_3 = 3", "torque = 1"),
    }
    root, task = repository(tmp_path / "project", files), "the torque limit is computed wrong"
    answer = document(root, task, max_bytes=500)
    (engine,) = [entry for entry in answer["context"]["relevant_files"] if entry["path"] == "engine.py"]
    assert engine["ranges"][0] == [1, 1]
    assert engine["content"].startswith("class Engine:\n")
    assert "torque_limit" in engine["content"]
    total = sum(len(entry["content"].encode()) for entry in answer["context"]["relevant_files"])
    assert total == answer["total_size_bytes"] <= 500
    wider = document(root, task, max_bytes=12_000)
    named = [entry for entry in (*wider["context"]["relevant_files"], *wider["omitted"]) if entry.get("names")]
    assert named
    for entry in named:
        lines = files[entry["path"]].split("\n")
        for line, name in entry["names"]:
            assert name in lines[line - 1]
            assert not any(first <= line <= last for first, last in entry.get("ranges") or ())


def test_names_take_a_twentieth_of_the_budget(tmp_path: Path) -> None:
    """A map of all names of a large project would outgrow what it is a map to."""
    files = {f"part_{number}.py": _class(f"Part{number}", 30) for number in range(20)}
    root, library = repository(tmp_path / "project", files), new_library()
    for budget in (0, 1000, 4000, 40_000):
        answer = document(root, "step_3 of Part7", max_bytes=budget, library=library)
        entries = [*answer["context"]["relevant_files"], *answer["omitted"]]
        names = [name for entry in entries for _, name in entry.get("names", ())]
        assert sum(map(len, names)) <= budget / 20
        assert budget < 4000 or names


def test_names_are_counted_in_bytes() -> None:
    """Names in Chinese took three times what they were allowed."""
    text = "".join(f"# {chr(0x540D) * 20} {number}\n" + "x = 1\n" * 40 for number in range(30))
    named = name_map(Selection([], [], True, {"a.md": open_view(text.encode(), "markdown")}), 6000)
    # a third of a twentieth: names of 62 bytes and what stands around them
    assert len(named["a.md"]) == 1

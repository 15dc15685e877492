"""Definitions and blocks of source text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.context.outline import Lines, blocks, defined_names, definitions


@pytest.mark.parametrize(
    ("language", "source", "names"),
    [
        (
            "python",
            b"LIMIT = 3\n\nasync def run(x):\n    pass\n\nclass Pool:\n    def submit(self):\n        pass\n",
            ["LIMIT", "run", "Pool", "submit"],
        ),
        ("go", b"package x\n\nfunc (p *Pool) Submit(t Task) error {\n}\n\ntype Task struct {\n}\n", ["Submit", "Task"]),
        ("rust", b"pub(crate) fn run() {}\nimpl Display for Pool {\n}\npub struct Pool;\n", ["run", "Pool", "Pool"]),
        (
            "javascript",
            b"export class A {\n  async run(x) {\n  }\n}\nexports.go = function () {};\nconst f = 1;\n",
            ["A", "run", "go", "f"],
        ),
        ("java", b"public class A {\n  private static int add(int a) {\n  }\n}\n", ["A", "add"]),
        ("c", b"#define N 3\nstatic int add(int a, int b)\n{\n}\nstruct node {\n};\n", ["N", "add", "node"]),
        ("ruby", b"module M\n  def self.run?\n  end\nend\n", ["M", "run?"]),
        ("markdown", b"# Title\n\ntext\n\n## Part two\n", ["Title", "Part two"]),
    ],
)
def test_definitions_are_found(language: str, source: bytes, names: list[str]) -> None:
    """A language's definitions were not seen, so its files had no blocks of their own."""
    assert [definition.name for definition in definitions(source, language)] == names


@given(
    st.lists(
        st.sampled_from([b"def f():", b"    x = 1", b"", b"class A:", b"# note", b"\xff\xfe", b"  return"]),
        max_size=300,
    ),
    st.booleans(),
)
def test_blocks_cover_every_line_once(rows: list[bytes], ends: bool) -> None:
    """A gap between blocks hid lines, an overlap showed them twice."""
    data = b"\n".join(rows) + (b"\n" if ends else b"")
    lines = Lines(data)
    found = blocks(lines, definitions(data, "python"))
    covered = [number for block in found for number in range(block.first, block.last + 1)]
    assert covered == list(range(1, lines.count + 1))
    assert b"".join(lines.text(block.first, block.last) for block in found) == data
    assert all(block.size >= len(lines.text(block.first, block.last)) for block in found)


def test_a_block_keeps_its_decorators_and_comments() -> None:
    """An excerpt began below the decorator that makes a function a route."""
    body = b"".join(b"    x = %d\n" % n for n in range(20))
    data = b"def first():\n" + body + b"\n# says why\n@route\ndef second():\n" + body
    found = blocks(Lines(data), definitions(data, "python"))
    second = next(block for block in found if block.name == "second")
    assert Lines(data).text(second.first, second.first) == b"# says why\n"


@pytest.mark.parametrize("length", [998, 999, 1000, 1001, 5000])
@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
def test_overlong_lines_move_nothing(length: int, end: str) -> None:
    """A line of minified text took hours, or what stands below it was found lines too high."""
    text = f"def first():\n    pass\n{'x' * length}\ndef second():\n    pass{end}".encode()
    found = definitions(text, "python")
    assert [definition.name for definition in found] == ["first", "second"]
    assert text[found[1].offset :].startswith(b"def second")
    assert defined_names(text, "python") == [b"first", b"second"]

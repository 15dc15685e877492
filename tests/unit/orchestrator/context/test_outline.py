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


class CountedLines(Lines):
    """Lines that count how often one of them is looked at."""

    looked = 0

    def text(self, first: int, last: int) -> bytes:
        self.looked += last - first + 1
        return super().text(first, last)


@pytest.mark.parametrize(
    ("language", "line", "names"),
    [
        ("c", "#define REGISTER_{} 0x{}\n", [f"REGISTER_{n}" for n in range(0, 1200, 30)]),
        ("markdown", "## Part {} {}\n", [f"Part {n} {n}" for n in range(0, 1200, 30)]),
    ],
)
def test_definitions_that_look_like_comments_have_blocks_of_their_own(
    language: str, line: str, names: list[str]
) -> None:
    """Each macro of a header led up to the first one: its only block had the last one's name, and 20,000 macros took a
    minute."""
    data = "".join(line.format(n, n) for n in range(1200)).encode()
    lines = CountedLines(data)
    assert [block.name for block in blocks(lines, definitions(data, language))] == names
    assert lines.looked < 2 * lines.count


def test_what_leads_a_definition_is_in_its_block() -> None:
    """A decorator, or a comment between two macros, went to the block before."""
    body = b"    pass\n" * 40
    data = b"def a():\n" + body + b"# why\n@cached\n@typed\ndef b():\n" + body
    assert [(block.first, block.name) for block in blocks(Lines(data), definitions(data, "python"))] == [
        (1, "a"),
        (42, "b"),
    ]
    data = b"#define A\n" + b"\n" * 40 + b"/* why */\n#ifdef X\n#define B\n" + b"\n" * 40
    assert [(block.first, block.name) for block in blocks(Lines(data), definitions(data, "c"))] == [(1, "A"), (42, "B")]


def test_no_line_is_looked_at_for_each_definition_below() -> None:
    """Methods that begin like comments led up through each other, in time with the square of their number."""
    lines = CountedLines(b"  #get() {\n" * 1200)
    blocks(lines, definitions(lines.data, "javascript"))
    assert lines.looked < 3 * lines.count

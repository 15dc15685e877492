"""Outlines: which names a text defines and where, and its division into blocks that make sense alone."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate, repeat
from operator import add

import msgspec

# Quantifiers that end in + keep what they took: going back over it could not match either, and takes most of the
# time. A lookahead in front of an alternative says what a line must have for the rest to be worth trying.
_MODIFIERS = (
    rb"(?:(?:export|default|pub(?:\([a-z: ]+\))?|public|private|protected|internal|static|final|abstract|async|unsafe|"
    rb"inline|extern|override|open|sealed|data|suspend|virtual|partial|declare|readonly|local|const)[ \t]++)*"
)
_KEYWORDS = (
    rb"(?:def|class|func|fun|fn|function\*?|struct|enum|trait|interface|type|mod|module|namespace|protocol|extension|"
    rb"object|record|union|defmodule|defp?|macro_rules!|message|service|rpc|const|let|var|val)"
)
_NAME = rb"([A-Za-z_$][\w$]*+)"
_GENERIC = rb"\n[ \t]*+" + _MODIFIERS + _KEYWORDS + rb"[ \t]++" + _NAME
_NOT_CONTROL = rb"(?!(?:if|for|while|switch|catch|return|else|do|throw|new|await|with|function)\b)"
_METHOD_JS = (
    rb"\n[ \t]++(?:(?:async|static|get|set|public|private|protected|readonly)[ \t]++)*[*#]?" + _NOT_CONTROL + _NAME
    + rb"[ \t]*+(?=[<(][^\n]*\{[ \t]*+\n)(?:<[^>\n]*>)?\([^\n;]*\)?[ \t]*(?::[^\n;{=]+)?\{[ \t]*(?=\n)"
)  # fmt: skip
_MEMBER_JS = (
    rb"\n[ \t]*+(?=[\w$.]++[ \t]*+=)(?:module\.)?(?:exports|[\w$.]+\.prototype|this|[A-Z][\w$]*)\.([A-Za-z_$][\w$]*)"
    rb"[ \t]*=[ \t]*(?:async[ \t]+)?(?:function|\()"
)
_PROPERTY_JS = rb"\n[ \t]++[\"']?([A-Za-z_$][\w$-]*+)[\"']?[ \t]*+:[ \t]*+(?:async[ \t]++)?function\b"
_ASSIGNMENT = rb"\n([A-Za-z_]\w*+)[ \t]*+(?::[^=\n]+)?=(?!=)"
_METHOD_TYPED = (
    rb"\n[ \t]*+(?=[^\n(=;{}]++\()"
    rb"(?:(?:public|private|protected|internal|static|final|abstract|override|virtual|async|synchronized)[ \t]++)+"
    rb"[^\n(=;{}]{0,160}?\b([A-Za-z_]\w*)[ \t]*\("
)
_FUNCTION_C = (
    rb"\n(?=[A-Za-z_][\w:<>,*&~ \t]*+\()"
    rb"(?:[A-Za-z_][\w:<>,*& \t]*?[ \t*&])([A-Za-z_~][\w:~]*)[ \t]*\([^;\n]*(?:\)[^;\n]*)?(?=\n|\{)"
)
_DEFINE_C = rb"\n[ \t]*+#[ \t]*+define[ \t]++([A-Za-z_]\w*+)"
_GO = rb"\n[ \t]*+(?:func[ \t]*+(?:\([^)\n]*\)[ \t]*+)?|type[ \t]++|var[ \t]++|const[ \t]++)([A-Za-z_]\w*+)"
_RUST = (
    rb"\n[ \t]*+(?:pub(?:\([a-z: ]+\))?[ \t]++)?(?:(?:async|unsafe|const|default|extern(?:[ \t]+\"[^\"\n]*\")?)[ \t]+)*"
    rb"(?:fn|struct|enum|trait|mod|type|union|static|macro_rules!|impl(?:<[^\n]*?>)?(?:[ \t]+[^\n{]*?\bfor)?)"
    rb"[ \t]+(?:mut[ \t]+|&|dyn[ \t]+)*"
    rb"(?:[a-z_]\w*::)*([A-Za-z_]\w*)"
)
_PYTHON = rb"\n[ \t]*+(?:def|class|async[ \t]++def)[ \t]++" + _NAME
_RUBY = rb"\n[ \t]*+(?:def|class|module)[ \t]+(?:self\.)?([A-Za-z_]\w*[?!]?)"
_HEADING = rb"\n#{1,6}[ \t]+([^\n]+)|\n(?=[^\s])([^\n]+)\n(?:={3,}|-{3,}|~{3,}|\^{3,})[ \t]*(?=\n)"
_TABLE = rb"\n[ \t]*\[+([^\[\]\n]+)\]+"
_SQL = (
    rb"(?i:\n[ \t]*create[ \t]+(?:or[ \t]+replace[ \t]+)?(?:\w+[ \t]+){0,2}?(?:table|view|function|procedure|index|"
    rb"trigger|type)[ \t]+(?:if[ \t]+not[ \t]+exists[ \t]+)?[\"`\[]?([\w.]+))"
)


def _any(*patterns: bytes) -> bytes:
    """Either of ``patterns``, whose common line end is written once: else it is looked for once for each."""
    end = rb"\n"
    return end + rb"(?:" + rb"|".join(pattern.removeprefix(end) for pattern in patterns) + rb")"


_SCRIPT = _any(_GENERIC, _METHOD_JS, _MEMBER_JS, _PROPERTY_JS)
_SOURCES: dict[str, bytes] = {
    "python": _any(_PYTHON, _ASSIGNMENT),
    "go": _GO,
    "rust": _RUST,
    "javascript": _SCRIPT,
    "typescript": _SCRIPT,
    "vue": _SCRIPT,
    "svelte": _SCRIPT,
    "c": _any(_GENERIC, _FUNCTION_C, _DEFINE_C),
    "c++": _any(_GENERIC, _FUNCTION_C, _DEFINE_C),
    "objective-c": _any(_GENERIC, _FUNCTION_C, _DEFINE_C),
    "ruby": _RUBY,
    "sql": _SQL,
    "markdown": _HEADING,
    "restructuredtext": _HEADING,
    "asciidoc": _HEADING,
    "toml": _TABLE,
    "ini": _TABLE,
}
_TYPED = frozenset(("java", "c#", "kotlin", "scala", "swift", "dart", "php", "groovy", "apex", "visual basic", "f#"))
#: What stands further to the right in a line is not searched for definitions.
_LONGEST_LINE = 1000
#: Texts without definitions worth the search.
_PLAIN = frozenset(("", "json", "text", "csv", "xml", "css", "jupyter notebook", "properties"))


class Definition(msgspec.Struct, frozen=True, array_like=True):
    """A defined name and the byte offset of the line that defines it."""

    offset: int
    name: str


@lru_cache(maxsize=64)
def _pattern(language: str) -> re.Pattern[bytes] | None:
    if language in _PLAIN:
        return None
    if language in _TYPED:
        return re.compile(_any(_GENERIC, _METHOD_TYPED))
    return re.compile(_SOURCES.get(language, _GENERIC))


def _with_short_lines(data: bytes) -> bytes:
    """``data`` with line ends in place of what is too far right: the patterns' time grows with the square of a
    line's length, and no pattern goes over a line end that leads to another."""
    place = 0
    while place + _LONGEST_LINE < len(data):
        place = data.rfind(b"\n", place, place + _LONGEST_LINE) + 1
        if not place:
            lines = data.split(b"\n")
            return b"\n".join([line[:_LONGEST_LINE].ljust(len(line), b"\n") for line in lines])
    return data


def definitions(data: bytes, language: str) -> list[Definition]:
    """The definitions in ``data``, in order. Found by patterns, so a few may be missing or false."""
    pattern = _pattern(language)
    if pattern is None:
        return []
    text = b"\n" + _with_short_lines(data)
    found = []
    for match in pattern.finditer(text):
        group = match.lastindex
        if group is None:
            continue
        found.append(Definition(match.start(), match.group(group).decode("utf-8", "replace")))
    return found


def defined_names(data: bytes, language: str) -> list[bytes]:
    """The names of ``definitions`` as bytes, without their places."""
    pattern = _pattern(language)
    if pattern is None:
        return []
    return [
        match.group(match.lastindex) for match in pattern.finditer(b"\n" + _with_short_lines(data)) if match.lastindex
    ]


class Block(msgspec.Struct, frozen=True, array_like=True):
    """Lines ``first`` to ``last`` (1-based, inclusive) of a text; ``size`` in bytes with their line ends."""

    first: int
    last: int
    size: int
    name: str


#: Blocks of lines: a shorter one joins its neighbour, a longer one is divided at its blank lines.
_LEAST_LINES = 6
_MOST_LINES = 60
_LEADERS = (b"@", b"#", b"//", b"/*", b"*", b"--", b"///", b"%", b"#[", b'"""')
_MACRO_OR_HEADING = re.compile(rb"#[ \t]*define[ \t]|#{1,6}[ \t]")


class Lines:
    """A text by lines: line ends by offset, the text between line numbers, sizes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        # every line with its end by C code; the last one has none, and is no line when it is empty
        self._ends: array[int] = array("I", accumulate(map(add, map(len, data.split(b"\n")), repeat(1))))
        if data.endswith(b"\n") or not data:
            self._ends.pop()
        else:
            self._ends[-1] = len(data)

    @property
    def count(self) -> int:
        """Number of lines; text after the last line end counts as one."""
        return len(self._ends)

    def number(self, offset: int) -> int:
        """The 1-based number of the line that holds the byte at ``offset``."""
        return min(bisect_right(self._ends, offset) + 1, max(1, self.count))

    def start(self, line: int) -> int:
        """Offset of the first byte of ``line``."""
        return self._ends[line - 2] if line > 1 else 0

    def end(self, line: int) -> int:
        """Offset just after ``line``, its line end included."""
        return self._ends[line - 1]

    def text(self, first: int, last: int) -> bytes:
        """Lines ``first`` to ``last``, line ends included."""
        return self.data[self.start(first) : self.end(last)]

    def size(self, first: int, last: int) -> int:
        """Bytes of these lines, where the last one counts with a line end even when it has none."""
        size = self.end(last) - self.start(first)
        return size + 1 if last == self.count and not self.data.endswith(b"\n") else size


def blocks(lines: Lines, found: list[Definition]) -> list[Block]:
    """Divide a text into blocks, in order and without gaps: definitions with what leads them, then by blank lines."""
    if not lines.count:
        return []
    cuts: dict[int, str] = {1: ""}
    defined, lead = 0, 1
    for definition in found:
        line = lines.number(definition.offset)
        lead = _lead(lines, line, defined, lead)
        cuts[lead] = definition.name
        defined = line
    result: list[Block] = []
    starts = sorted(cuts)
    for index, first in enumerate(starts):
        last = starts[index + 1] - 1 if index + 1 < len(starts) else lines.count
        if result and (last - first + 1 < _LEAST_LINES or result[-1].last - result[-1].first + 1 < _LEAST_LINES):
            previous = result[-1]
            if last - previous.first + 1 <= _MOST_LINES // 2:
                name = previous.name or cuts[first]
                result[-1] = Block(previous.first, last, lines.size(previous.first, last), name)
                continue
        result.extend(_divided(lines, first, last, cuts[first]))
    return result


def _lead(lines: Lines, line: int, defined: int, lead: int) -> int:
    """The first of the decorators, attributes and comments directly above ``line``. The definition before is in line
    ``defined``, and its own first one is ``lead``: nothing above is looked at twice."""
    while line > 1:
        above = lines.text(line - 1, line - 1).strip()
        if not above.startswith(_LEADERS):
            break
        if line - 1 == defined:
            # a method such as JavaScript's ``#name() {`` counts as a comment; macros and headings stand for themselves
            return line if _MACRO_OR_HEADING.match(above) else lead
        line -= 1
    return line


def _divided(lines: Lines, first: int, last: int, name: str) -> list[Block]:
    result = []
    while last - first + 1 > _MOST_LINES:
        cut = _cut(lines, first + _MOST_LINES // 2, min(first + _MOST_LINES, last))
        result.append(Block(first, cut, lines.size(first, cut), name))
        first = cut + 1
    result.append(Block(first, last, lines.size(first, last), name))
    return result


def _cut(lines: Lines, low: int, high: int) -> int:
    """The last line of ``low..high`` that is blank, else the least indented one's predecessor."""
    best, best_indent = high, 1 << 30
    for line in range(high, low - 1, -1):
        text = lines.text(line, line)
        bare = text.strip()
        if not bare:
            return line
        indent = len(text) - len(text.lstrip())
        if indent < best_indent and line > low:
            best, best_indent = line - 1, indent
    return best

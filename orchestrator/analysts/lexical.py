"""Reading source text of curly-brace languages without a parser: blanking comments and strings, finding functions."""

from __future__ import annotations

import bisect
import re
from typing import Final

import msgspec

#: Languages whose functions are delimited by braces and whose comments are ``//`` and ``/* */``.
BRACES: Final = frozenset(
    {"JavaScript", "TypeScript", "Go", "Rust", "Java", "Kotlin", "Scala", "C", "C++", "C#", "Swift", "Dart", "PHP",
     "Objective-C", "Groovy", "Apex", "Solidity"}
)  # fmt: skip
_HASH = frozenset(
    {"Python", "Ruby", "Shell", "Perl", "R", "Elixir", "YAML", "TOML", "Makefile", "Dockerfile", "Terraform"}
)

_COMMENT = r"//[^\n]*|/\*.*?(?:\*/|\Z)"
_DOUBLE = r'"(?:\\.|[^"\\\n])*"'
_SINGLE = r"'(?:\\.|[^'\\\n])*'"
_BACKTICK = r"`(?:\\.|[^`\\])*`"
#: A regular expression literal of JavaScript can only stand where an operand can.
_REGEX = r"(?<=[(,=:\[!&|?{};\n])[ \t]*/(?![/*])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n\[])+/[a-z]*"
_TOKENS: Final = {
    "default": re.compile(f"{_COMMENT}|{_DOUBLE}|{_SINGLE}", re.DOTALL),
    "script": re.compile(f"{_COMMENT}|{_DOUBLE}|{_SINGLE}|{_BACKTICK}|{_REGEX}", re.DOTALL),
    "go": re.compile(f"{_COMMENT}|{_DOUBLE}|'(?:\\\\.[^']*|[^'\\\\\n])'|`[^`]*`", re.DOTALL),
    "rust": re.compile(
        f"{_COMMENT}" + r'|b?r(#+)".*?"\1|b?"(?:\\.|[^"\\])*"' + r"|b?'(?:\\[^']*|[^'\\\n])'", re.DOTALL
    ),
    "triple": re.compile(f'{_COMMENT}|""".*?(?:"""|\\Z)|{_DOUBLE}|{_SINGLE}', re.DOTALL),
    "hash": re.compile(r"(?<![\w$\\{])#[^\n]*", re.DOTALL),
}
_DIALECT: Final = {
    "JavaScript": "script", "TypeScript": "script", "Vue": "script", "Svelte": "script", "Go": "go", "Rust": "rust",
    "Kotlin": "triple", "Swift": "triple", "Scala": "triple", "Java": "triple", "Dart": "default",
}  # fmt: skip
_NOT_NEWLINE = re.compile(r"[^\n]")

_NAME = r"(?P<name>[A-Za-z_$][\w$]*)"
_HEADS: Final = {
    "Go": re.compile(rf"^func\s+(?:\([^)]*\)\s*)?{_NAME}\s*[\[(]", re.MULTILINE),
    "Rust": re.compile(rf"^[ \t]*(?:pub(?:\([^)]*\))?\s+)?(?:(?:const|async|unsafe|extern\s*\"\s*\")\s+)*fn\s+{_NAME}",
                       re.MULTILINE),
    "script": re.compile(
        rf"\bfunction\s*\*?\s*{_NAME}\s*\("
        r"|^[ \t]*(?:export\s+)?(?:const|let|var)\s+(?P<arrow>[\w$]+)\s*(?::[^=\n]+)?=\s*(?:async\s*)?"
        r"(?:function\b[^\n{]*|\([^)]*\)\s*(?::[^=\n]+)?=>|[\w$]+\s*=>)\s*\{"
        r"|^[ \t]*(?:(?:public|private|protected|static|async|override|readonly|get|set)\s+)*"
        r"(?P<method>[#\w$]+)\s*(?:<[^>\n]*>)?\([^;{}]*\)\s*(?::\s*[^{;\n]+)?\{",
        re.MULTILINE,
    ),
    "Swift": re.compile(rf"\bfunc\s+{_NAME}\s*[<(]"),
    "Kotlin": re.compile(rf"\bfun\s+(?:<[^>]*>\s*)?(?:[\w.]+\.)?{_NAME}\s*\("),
    "Scala": re.compile(rf"\bdef\s+{_NAME}\b"),
    "PHP": re.compile(rf"\bfunction\s+&?{_NAME}\s*\("),
    "typed": re.compile(
        rf"^[ \t]*(?:[\w@<>\[\],.?&*:~]+[ \t\n]+)+?[*&]*(?:\w+::)*{_NAME}[ \t]*\([^;{{}}]*\)[^;{{}}()]*\{{",
        re.MULTILINE,
    ),
}  # fmt: skip
_RUST_TESTS: Final = re.compile(r"#\[cfg\(test\)\]\s*(?:pub )?mod \w+ \{")
_KEYWORDS: Final = frozenset(
    {"if", "for", "while", "switch", "catch", "return", "else", "do", "try", "with", "synchronized", "using", "new",
     "throw", "match", "function", "super", "constructor_", "describe", "it", "test", "lock", "foreach", "elseif"}
)  # fmt: skip
_BRANCH = re.compile(
    r"\b(?:if|for|foreach|while|case|catch|guard|loop)\b|&&|\|\||\?\?|(?<![?:.\w)\]>])\?(?![?.:])| \? "
)
_RUST_BRANCH = re.compile(r"\b(?:if|for|while|loop)\b|&&|\|\||=>")


class Function(msgspec.Struct, frozen=True):
    """One function: ``line`` to ``end`` (1-based, inclusive), ``complexity`` as McCabe counts it (1 + branches)."""

    path: str
    name: str
    line: int
    end: int
    complexity: int

    @property
    def lines(self) -> int:
        """How many lines it spans."""
        return self.end - self.line + 1


def blank(text: str, language: str | None, *, keep_strings: bool = False) -> str:
    """``text`` with comments (and string contents) turned into blanks; lines and columns stay where they are."""
    if language in _HASH:
        return _TOKENS["hash"].sub(lambda match: " " * len(match[0]), text)
    pattern = _TOKENS[_DIALECT.get(language or "", "default")]

    def replace(match: re.Match[str]) -> str:
        token = match[0]
        if token.startswith(("//", "/*")):
            return _NOT_NEWLINE.sub(" ", token)
        if keep_strings or len(token) < 2:
            return token
        return token[0] + _NOT_NEWLINE.sub(" ", token[1:-1]) + token[-1]

    return pattern.sub(replace, text)


def without_rust_tests(code: str) -> str:
    """Rust code up to its ``#[cfg(test)]`` module, which by custom ends a file."""
    match = _RUST_TESTS.search(code)
    return code[: match.start()] if match else code


class LineIndex:
    """Offsets to 1-based line numbers."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def line(self, offset: int) -> int:
        """The line that ``offset`` is in."""
        return bisect.bisect_right(self._starts, offset)


def functions(path: str, text: str, language: str, *, blanked: str | None = None) -> list[Function]:
    """Named functions with bodies of a curly-brace language, in order; nested ones are listed too."""
    if language not in BRACES:
        return []
    code = blank(text, language) if blanked is None else blanked
    dialect = "script" if _DIALECT.get(language) == "script" else language
    head = _HEADS.get(dialect) or _HEADS["typed"]
    index = LineIndex(code)
    ends = _brace_ends(code)
    branch = _RUST_BRANCH if language == "Rust" else _BRANCH
    found: list[Function] = []
    for match in head.finditer(code):
        name = next((value for value in match.groupdict().values() if value), "")
        if not name or name in _KEYWORDS:
            continue
        start = _body_start(code, match)
        end = ends.get(start) if start is not None else None
        if start is None or end is None:
            continue
        name_at = code.find(name, match.start(), match.end())
        complexity = 1 + len(branch.findall(code, start, end))
        found.append(Function(path, name, index.line(max(name_at, match.start())), index.line(end), complexity))
    return _without_nested(found)


def _without_nested(found: list[Function]) -> list[Function]:
    """The functions with the branches of functions inside them counted there only, as for any other two functions."""
    own = [function.complexity for function in found]
    enclosing: list[int] = []
    for index, function in enumerate(found):
        while enclosing and found[enclosing[-1]].end < function.line:
            enclosing.pop()
        if enclosing and found[enclosing[-1]].end >= function.end:
            own[enclosing[-1]] -= function.complexity - 1
        enclosing.append(index)
    return [
        Function(function.path, function.name, function.line, function.end, max(1, complexity))
        for function, complexity in zip(found, own, strict=True)
    ]


def _body_start(code: str, match: re.Match[str]) -> int | None:
    """Where the brace of the body is: the first one outside parentheses, unless the declaration ends before it."""
    if code[match.end() - 1] == "{":
        return match.end() - 1
    depth = 0
    for offset in range(match.start(), min(len(code), match.start() + 4000)):
        char = code[offset]
        if char in "([":
            depth += 1
        elif char in ")]":
            depth -= 1
        elif char == "{" and depth <= 0:
            return offset
        elif char == ";" and depth <= 0:
            return None
    return None


def _brace_ends(code: str) -> dict[int, int]:
    """Offset of each opening brace to that of its closing one; unbalanced ones are left out."""
    stack: list[int] = []
    ends: dict[int, int] = {}
    for match in re.finditer(r"[{}]", code):
        if match[0] == "{":
            stack.append(match.start())
        elif stack:
            ends[stack.pop()] = match.start()
    return ends

"""Which public names a project has, and which of them say what they are for — in several languages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from orchestrator.analysts import pysource
from orchestrator.analysts.lexical import LineIndex, blank, without_rust_tests
from orchestrator.analysts.tree import SourceFile, Tree

_PATTERNS: Final = {
    "Go": re.compile(
        r"^(?:func\s+(?:\([^)]*?\*?(?P<receiver>\w+)(?:\[[^\]]*\])?\)\s*)?|type\s+)(?P<name>[A-Z]\w*)", re.MULTILINE
    ),
    "Rust": re.compile(
        r"^[ \t]*pub\s+(?:(?:const|async|unsafe)\s+)*(?:fn|struct|enum|trait|type|macro|union)\s+(?P<name>\w+)",
        re.MULTILINE,
    ),
    "JavaScript": re.compile(
        r"^export\s+(?:default\s+)?(?:abstract\s+)?(?:async\s+)?(?:function\s*\*?|class|interface|enum)\s+(?P<name>\w+)",
        re.MULTILINE,
    ),
    "Java": re.compile(
        r"^[ \t]*public\s+(?:(?:static|final|abstract|synchronized|default|sealed)\s+)*"
        r"(?:(?:class|interface|enum|record|@interface)\s+(?P<type>\w+)|[\w<>\[\],.? ]+\s+(?P<name>\w+)\s*\()",
        re.MULTILINE,
    ),
}
_DIALECT: Final = {"TypeScript": "JavaScript", "Kotlin": "", "C#": ""}


class Name(msgspec.Struct, frozen=True):
    """One public name and whether it is documented."""

    path: str
    name: str
    line: int
    is_documented: bool


def languages() -> frozenset[str]:
    """The languages whose public names can be read."""
    return frozenset({"Python", "TypeScript", *_PATTERNS})


def public_names(tree: Tree, file: SourceFile) -> list[Name]:
    """The public names of one file; empty for other languages and for files that do not parse."""
    if file.language == "Python":
        return list(_python(tree, file))
    pattern = _PATTERNS.get(_DIALECT.get(file.language or "", file.language or ""))
    text = tree.text(file.path) if pattern is not None else None
    if text is None or pattern is None or (file.language == "Go" and "internal" in file.path.split("/")):
        return []
    code = blank(text, file.language)
    if file.language == "Rust":
        code = without_rust_tests(code)
    index, lines = LineIndex(text), text.split("\n")
    found = []
    for match in pattern.finditer(code):
        groups = match.groupdict()
        receiver = groups.get("receiver") or ""
        if receiver and not receiver[0].isupper():
            continue
        bare = groups.get("name") or groups.get("type") or ""
        line = index.line(match.start(0) + len(match[0]) - len(match[0].lstrip()))
        found.append(Name(file.path, f"{receiver}.{bare}" if receiver else bare, line, _has_comment(lines, line)))
    return found


def _python(tree: Tree, file: SourceFile) -> Iterator[Name]:
    *directories, base = file.path.split("/")
    if any(part.startswith("_") for part in directories):
        return
    front = _front(tree, "/".join(directories)) if base.startswith("_") and base != "__init__.py" else None
    module = pysource.parse(file.path, tree.data(file.path) or b"")
    for one in pysource.public_names(module.tree) if module.tree is not None else ():
        if front is None or one.name.partition(".")[0] in front:
            yield Name(file.path, one.name, one.line, one.has_docstring)


def _front(tree: Tree, directory: str) -> set[str]:
    """What a package's ``__init__`` shows: its ``__all__``, or all that it imports from its own modules."""
    path = f"{directory}/__init__.py".lstrip("/")
    module = pysource.parse(path, tree.data(path) or b"")
    if module.tree is None:
        return set()
    taken = {one.name for one in pysource.imports(module.tree) if one.level and one.name != "*"}
    return pysource.exported(module.tree) or taken


def _has_comment(lines: list[str], line: int) -> bool:
    """Whether a comment ends right above ``line``, attributes and annotations between them skipped."""
    at = line - 2
    if at >= 0 and "#[doc" in "".join(lines[max(0, at - 3) : at + 1]):
        return True
    while at >= 0 and (lines[at].strip().startswith(("#[", "@", "#!")) or lines[at].strip() in {")]", ")"}):
        at -= 1
    above = lines[at].strip() if at >= 0 else ""
    return above.startswith(("//", "/*", "*")) or above.endswith("*/")

"""HTTP routes, command-line options and API descriptions found in source text, in the usual frameworks' forms."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from orchestrator.analysts.lexical import LineIndex, blank, without_rust_tests
from orchestrator.analysts.tree import SourceFile, Tree

_VERBS = "get|post|put|patch|delete|head|options"
_ROUTES: Final = {
    "Python": (
        re.compile(rf"@(?:\w+\.)*(?P<verb>{_VERBS}|route|websocket|api_route)\(\s*[rf]?[\"'](?P<path>/[^\"']*|)[\"'](?P<rest>[^\n]*)"),
        re.compile(r"\.add_url_rule\(\s*[\"'](?P<path>/[^\"']*)[\"'](?P<rest>[^\n]*)"),
        re.compile(r"\b(?:re_)?path\(\s*r?[\"'](?P<path>[^\"']*)[\"']\s*,(?P<rest>[^\n]*)"),
        re.compile(rf"\b(?:app|router|web)\.(?:add_)?(?P<verb>{_VERBS})\(\s*[\"'](?P<path>/[^\"']*)[\"']"),
    ),
    "JavaScript": (
        re.compile(rf"\b(?:app|router|server|fastify|api|\w*[rR]outer)\s*\.\s*(?P<verb>{_VERBS}|all)\(\s*[\"'`](?P<path>/[^\"'`]*)[\"'`]"),
        re.compile(r"@(?P<verb>Get|Post|Put|Patch|Delete)\(\s*(?:[\"'`](?P<path>[^\"'`]*)[\"'`])?\s*\)"),
    ),
    "Go": (
        re.compile(r"\.(?P<verb>GET|POST|PUT|PATCH|DELETE|HEAD|OPTIONS|Any|Get|Post|Put|Patch|Delete)\(\s*\"(?P<path>/[^\"]*)\"\s*,"),
        re.compile(r"\bHandle(?:Func)?\(\s*\"(?:(?P<verb>[A-Z]+) )?(?P<path>/[^\"]*)\""),
    ),
    "Rust": (
        re.compile(rf"\.route\(\s*\"(?P<path>/[^\"]*)\"\s*,\s*(?:\w+::)*(?P<verb>{_VERBS}|any)\b"),
        re.compile(rf"#\[(?P<verb>{_VERBS})\(\s*\"(?P<path>/[^\"]*)\""),
    ),
    "Java": (
        re.compile(r"@(?P<verb>Get|Post|Put|Patch|Delete|Request)Mapping\(\s*(?:value\s*=\s*|path\s*=\s*)?\{?\s*\"(?P<path>[^\"]*)\""),
        re.compile(r"@Path\(\s*\"(?P<path>[^\"]*)\""),
    ),
    "Ruby": (re.compile(rf"^\s*(?P<verb>{_VERBS}) [\"'](?P<path>/[^\"']*)[\"']", re.MULTILINE),),
    "PHP": (re.compile(rf"(?:Route::|\$\w+->)(?P<verb>{_VERBS}|any)\(\s*[\"'](?P<path>/[^\"']*)[\"']"),),
    "C#": (re.compile(r"\[Http(?P<verb>Get|Post|Put|Patch|Delete)\(\s*\"(?P<path>[^\"]*)\""),),
}  # fmt: skip
_DIALECT: Final = {"TypeScript": "JavaScript", "Kotlin": "Java"}
_GRAPHQL_ROOT = re.compile(r"\btype (Query|Mutation|Subscription)\b[^{]*\{([^}]*)\}")
_METHODS = re.compile(r"methods\s*=\s*[\[({]([^\])}]*)")
_PARAMETER = re.compile(r"\{[^}]*\}|<[^>]*>|:[A-Za-z_]\w*|\*\w*")


class Route(msgspec.Struct, frozen=True):
    """One HTTP route: ``method`` in capitals (``ANY`` when unknown), ``path`` as written."""

    method: str
    path: str
    file: str
    line: int

    @property
    def key(self) -> str:
        """Method and path with every parameter written ``{}``, so that frameworks and descriptions compare."""
        return f"{self.method} {normal_path(self.path)}"


def normal_path(path: str) -> str:
    """``/users/<int:id>/`` as ``/users/{}``."""
    return "/" + _PARAMETER.sub("{}", path).strip("/")


def routes(tree: Tree, file: SourceFile) -> list[Route]:
    """The HTTP routes that one source file declares."""
    dialect = _DIALECT.get(file.language or "", file.language or "")
    patterns = _ROUTES.get(dialect)
    text = tree.text(file.path) if patterns else None
    if text is None or patterns is None:
        return []
    if dialect == "Python" and "urlpatterns" not in text:
        patterns = (patterns[0], patterns[1], patterns[3])
    code = blank(text, file.language, keep_strings=True)
    if dialect == "Rust":
        code = without_rust_tests(code)
    index = LineIndex(code)
    found: dict[tuple[int, str, str], Route] = {}
    for pattern in patterns:
        for match in pattern.finditer(code):
            groups = match.groupdict()
            for method in _methods(groups):
                route = Route(method, groups.get("path") or "", file.path, index.line(match.start()))
                found.setdefault((route.line, route.method, route.path), route)
    return sorted(found.values(), key=lambda one: one.line)


def _methods(groups: dict[str, str | None]) -> list[str]:
    verb = (groups.get("verb") or "").upper()
    if verb in {"ROUTE", "API_ROUTE", "", "ANY", "ALL", "REQUEST"}:
        named = _METHODS.search(groups.get("rest") or "")
        return sorted(re.findall(r"[A-Z]+", named[1].upper())) if named else ["GET" if verb == "ROUTE" else "ANY"]
    return ["WS" if verb == "WEBSOCKET" else verb]


class Description(msgspec.Struct, frozen=True):
    """An API description file: ``kind`` openapi | graphql | proto, its ``operations`` as ``METHOD /path`` or names."""

    path: str
    kind: str
    operations: tuple[str, ...]


def descriptions(tree: Tree) -> list[Description]:
    """OpenAPI (JSON or YAML), GraphQL and Protocol Buffers files with what they offer."""
    found: list[Description] = []
    for file in tree.files:
        if file.role in {"vendored", "test"} or file.language not in {"JSON", "YAML", "GraphQL", "Protocol Buffers"}:
            continue
        text = tree.text(file.path) or ""
        if file.language == "GraphQL":
            fields = [
                f"{block[1]}.{name}"
                for block in _GRAPHQL_ROOT.finditer(text)
                for name in re.findall(r"^\s*(\w+)\s*[(:]", block[2], re.MULTILINE)
            ]
            if fields:
                found.append(Description(file.path, "graphql", tuple(fields)))
        elif file.language == "Protocol Buffers":
            calls = re.findall(r"\brpc\s+(\w+)\s*\(", text)
            if calls:
                found.append(Description(file.path, "proto", tuple(calls)))
        elif re.search(r"^[\s{]*[\"']?(openapi|swagger)[\"']?\s*:", text[:2000], re.MULTILINE):
            found.append(Description(file.path, "openapi", tuple(_operations(text, file.language))))
    return found


def _operations(text: str, language: str) -> Iterator[str]:
    if language == "JSON":
        try:
            document: Any = json.loads(text)
        except (ValueError, RecursionError):
            return
        paths = document.get("paths") if isinstance(document, dict) else None
        for path, item in paths.items() if isinstance(paths, dict) else ():
            for verb in item if isinstance(item, dict) else ():
                if verb in _VERBS.split("|"):
                    yield f"{verb.upper()} {normal_path(path)}"
        return
    current = ""
    for line in text.splitlines():
        path = re.match(r"^[ ]{1,8}[\"']?(/[^\s:\"']*)[\"']?:\s*$", line)
        verb = re.match(rf"^[ ]{{2,12}}({_VERBS}):\s*$", line)
        if path:
            current = path[1]
        elif verb and current:
            yield f"{verb[1].upper()} {normal_path(current)}"

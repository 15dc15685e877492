"""Where a project's programs start: declared commands, mains, images, manifests."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from typing import Any

import msgspec

from orchestrator.analysts.tree import Tree

_GO_MAIN = re.compile(r"^package main\b", re.MULTILINE)
_JAVA_MAIN = re.compile(r"\bpublic\s+static\s+void\s+main\s*\(")
_IMAGE = re.compile(r"^\s*(?:CMD|ENTRYPOINT)\s+(.+)$", re.MULTILINE | re.IGNORECASE)


class EntryPoint(msgspec.Struct, frozen=True):
    """One way in: ``kind`` command | module | main | library | image | script, ``target`` what it runs."""

    kind: str
    name: str
    path: str
    target: str = ""


def entry_points(tree: Tree) -> list[EntryPoint]:
    """All ways in, each once, declared ones first."""
    found = [*_python(tree), *_javascript(tree), *_rust(tree), *_compiled(tree), *_images(tree)]
    return list(dict.fromkeys(found))


def load_toml(tree: Tree, path: str) -> dict[str, Any]:
    """A TOML file's content; empty when it is missing or wrong."""
    try:
        return tomllib.loads(tree.text(path) or "")
    except tomllib.TOMLDecodeError:
        return {}


def load_json(tree: Tree, path: str) -> dict[str, Any]:
    """A JSON object's content; empty when it is missing, wrong, or no object."""
    try:
        document = json.loads(tree.text(path) or "{}")
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def table(document: Any, *keys: str) -> dict[str, Any]:
    """The nested table under ``keys``; empty when any step is missing or no table."""
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document if isinstance(document, dict) else {}


def _python(tree: Tree) -> Iterator[EntryPoint]:
    for file in tree.named("pyproject.toml"):
        if file.role in {"test", "example"}:
            continue
        document = load_toml(tree, file.path)
        for keys in (("project", "scripts"), ("project", "gui-scripts"), ("tool", "poetry", "scripts")):
            for name, target in table(document, *keys).items():
                yield EntryPoint("command", name, file.path, str(target))
    for file in tree.named("__main__.py"):
        if file.role == "source":
            yield EntryPoint("module", "python -m " + file.path.rpartition("/")[0].replace("/", "."), file.path)
    for file in tree.named("manage.py", "wsgi.py", "asgi.py"):
        if file.role == "source":
            yield EntryPoint("main", file.path.rpartition("/")[2], file.path)


def _javascript(tree: Tree) -> Iterator[EntryPoint]:
    for file in tree.named("package.json"):
        if file.role in {"test", "example"}:
            continue
        document = load_json(tree, file.path)
        binaries = document.get("bin")
        name = str(document.get("name", ""))
        if isinstance(binaries, str):
            yield EntryPoint("command", name, file.path, binaries)
        for command, target in table(document, "bin").items():
            yield EntryPoint("command", command, file.path, str(target))
        if isinstance(document.get("main"), str):
            yield EntryPoint("library", name or "main", file.path, document["main"])
        start = table(document, "scripts").get("start")
        if isinstance(start, str):
            yield EntryPoint("script", "npm start", file.path, start)


def _rust(tree: Tree) -> Iterator[EntryPoint]:
    for file in tree.named("main.rs"):
        if file.role == "source" and file.path.endswith("src/main.rs"):
            yield EntryPoint("main", file.path.rpartition("/src/")[0] or "main", file.path)
    for file in tree.named("lib.rs"):
        if file.role == "source" and file.path.endswith("src/lib.rs"):
            yield EntryPoint("library", file.path.rpartition("/src/")[0] or "lib", file.path)


def _compiled(tree: Tree) -> Iterator[EntryPoint]:
    for file in tree.of({"Go"}, {"source"}):
        text = tree.text(file.path) or ""
        if _GO_MAIN.search(text) and "func main()" in text:
            yield EntryPoint("main", file.path.rpartition("/")[0] or "main", file.path)
    for file in tree.of({"Java", "Kotlin"}, {"source"}):
        if _JAVA_MAIN.search(tree.text(file.path) or ""):
            yield EntryPoint("main", file.path.rpartition("/")[2].partition(".")[0], file.path)


def _images(tree: Tree) -> Iterator[EntryPoint]:
    for file in tree.of({"Dockerfile"}):
        if file.role in {"source", "data", "tooling"}:
            commands = _IMAGE.findall(tree.text(file.path) or "")
            if commands:
                yield EntryPoint("image", file.path, file.path, commands[-1][:200])

"""Dependency manifests of many ecosystems, read into one shape; and which of them have a lock file."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from orchestrator.analysts.entrypoints import load_json, load_toml, table
from orchestrator.analysts.tree import Tree

_REQUIREMENT = re.compile(r"^\s*([A-Za-z0-9][\w.-]*)\s*(\[[^\]]*\])?\s*([^;#]*)")
_GO_REQUIRE = re.compile(r"^\s*(?:require\s+)?([\w.-]+\.[\w./~-]+)\s+(v[\w.+-]+)(\s*//\s*indirect)?", re.MULTILINE)
_GEM = re.compile(r"^\s*gem\s+['\"]([\w-]+)['\"](?:\s*,\s*['\"]([^'\"]+)['\"])?", re.MULTILINE)
_MAVEN = re.compile(
    r"<dependency>\s*<groupId>([^<]+)</groupId>\s*<artifactId>([^<]+)</artifactId>(?:\s*<version>([^<]+)</version>)?"
)
_GRADLE = re.compile(
    r"\b(?:implementation|api|compile|testImplementation|runtimeOnly)\s*\(?\s*['\"]([\w.-]+:[\w.-]+)(?::([\w.$+-]+))?"
)
LOCKS: Final = {
    "python": ("poetry.lock", "uv.lock", "pdm.lock", "Pipfile.lock", "requirements.lock", "pylock.toml"),
    "npm": ("package-lock.json", "npm-shrinkwrap.json", "yarn.lock", "pnpm-lock.yaml", "bun.lockb", "bun.lock"),
    "cargo": ("Cargo.lock",), "go": ("go.sum",), "gem": ("Gemfile.lock",), "composer": ("composer.lock",),
}  # fmt: skip


class Dependency(msgspec.Struct, frozen=True):
    """One declared dependency.

    Attributes:
        ecosystem: python | npm | go | cargo | gem | maven | composer.
        name: as declared (Python names in lower case with ``-``).
        spec: version constraint or source as written; empty for any version.
        path, line: where it is declared (line 0 unknown).
        group: main, or dev, test, an extra's name…
    """

    ecosystem: str
    name: str
    spec: str
    path: str
    line: int
    group: str = "main"


def read_manifests(tree: Tree) -> list[Dependency]:
    """All declared dependencies, manifests near the top first; those of tests, examples and vendored code left out."""
    found: list[Dependency] = []
    for file in tree.files:
        name = file.path.rpartition("/")[2]
        if file.role in {"vendored", "generated", "test", "example"} or file.path.count("/") > 4:
            continue
        text = tree.text(file.path)
        if text is None:
            continue
        if (
            re.fullmatch(r"(?:.*[-_])?requirements(?:[-_.].*)?\.(?:txt|in)", name)
            or "/requirements/" in f"/{file.path}"
        ):
            found.extend(_requirements(file.path, text) if name.endswith((".txt", ".in")) else ())
        else:
            reader = _READERS.get(name)
            if reader is not None:
                found.extend(_with_lines(text, reader(tree, file.path, text)))
    return found


def has_lock(tree: Tree, ecosystem: str, path: str) -> bool:
    """Whether a lock file of ``ecosystem`` lies beside ``path`` or above it."""
    directory = posixpath.dirname(path)
    while True:
        prefix = f"{directory}/" if directory else ""
        if any(tree.get(prefix + name) for name in LOCKS.get(ecosystem, ())):
            return True
        if not directory:
            return False
        directory = posixpath.dirname(directory)


def normal(name: str) -> str:
    """A Python distribution name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _with_lines(text: str, dependencies: Iterator[Dependency]) -> Iterator[Dependency]:
    """Add the line where the name first stands as a word of its own."""
    lines = text.splitlines()
    for one in dependencies:
        bare = one.name if one.ecosystem != "python" else one.name.replace("-", "[-_.]")
        pattern = re.compile(
            rf"(?i)[\"'\s:>^]{bare if one.ecosystem == 'python' else re.escape(bare)}[\"'\s=<>~!:;\[,]"
        )
        line = next((number for number, row in enumerate(lines, 1) if pattern.search(f" {row} ")), 0)
        yield msgspec.structs.replace(one, line=line)


def _requirements(path: str, text: str) -> Iterator[Dependency]:
    group = "dev" if re.search(r"dev|test|doc|lint|ci", path.rpartition("/")[2]) else "main"
    for number, row in enumerate(text.splitlines(), 1):
        line = row.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("-"):
            if re.match(r"--?(?:i|index-url|extra-index-url|find-links|f|trusted-host)\b", line):
                yield Dependency("python", line.split()[0].split("=")[0], line, path, number, "option")
            continue
        match = _REQUIREMENT.match(line)
        if match and "://" not in match[1]:
            yield Dependency("python", normal(match[1]), match[3].strip(), path, number, group)


def _python_text(spec: str) -> tuple[str, str] | None:
    match = _REQUIREMENT.match(spec)
    return (normal(match[1]), match[3].strip()) if match else None


def _pyproject(tree: Tree, path: str, _: str) -> Iterator[Dependency]:
    document = load_toml(tree, path)
    project = table(document, "project")
    groups: list[tuple[str, Any]] = [("main", project.get("dependencies"))]
    groups += list(table(project, "optional-dependencies").items()) + list(table(document, "dependency-groups").items())
    for group, specs in groups:
        for spec in specs if isinstance(specs, list) else []:
            parsed = _python_text(spec) if isinstance(spec, str) else None
            if parsed:
                yield Dependency("python", *parsed, path, 0, group)
    poetry = table(document, "tool", "poetry")
    sections = [("main", table(poetry, "dependencies")), ("dev", table(poetry, "dev-dependencies"))]
    sections += [(group, table(poetry, "group", group, "dependencies")) for group in table(poetry, "group")]
    for group, section in sections:
        for name, spec in section.items():
            if name.lower() != "python":
                yield Dependency("python", normal(name), _spec(spec), path, 0, group)


def _spec(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("version") or value.get("git") or value.get("url") or value.get("path") or "workspace")
    return str(value)


def _setup_cfg(_: Tree, path: str, text: str) -> Iterator[Dependency]:
    block = re.search(r"^install_requires\s*=\s*\n((?:[ \t]+.*\n?)*)", text, re.MULTILINE)
    for row in block[1].splitlines() if block else []:
        parsed = _python_text(row)
        if parsed:
            yield Dependency("python", *parsed, path, 0)


def _package_json(tree: Tree, path: str, _: str) -> Iterator[Dependency]:
    document = load_json(tree, path)
    for section, group in (("dependencies", "main"), ("devDependencies", "dev"), ("optionalDependencies", "optional"),
                           ("peerDependencies", "peer")):  # fmt: skip
        for name, spec in table(document, section).items():
            yield Dependency("npm", name, str(spec), path, 0, group)


def _cargo(tree: Tree, path: str, _: str) -> Iterator[Dependency]:
    document = load_toml(tree, path)
    for section, group in (("dependencies", "main"), ("dev-dependencies", "dev"), ("build-dependencies", "build")):
        for holder in (document, table(document, "workspace")):
            for name, spec in table(holder, section).items():
                yield Dependency("cargo", name, _spec(spec), path, 0, group)


def _go_mod(_: Tree, path: str, text: str) -> Iterator[Dependency]:
    for match in _GO_REQUIRE.finditer(text):
        yield Dependency("go", match[1], match[2], path, 0, "indirect" if match[3] else "main")


def _gemfile(_: Tree, path: str, text: str) -> Iterator[Dependency]:
    return (Dependency("gem", match[1], match[2] or "", path, 0) for match in _GEM.finditer(text))


def _pom(_: Tree, path: str, text: str) -> Iterator[Dependency]:
    return (Dependency("maven", f"{m[1]}:{m[2]}", m[3] or "managed", path, 0) for m in _MAVEN.finditer(text))


def _gradle(_: Tree, path: str, text: str) -> Iterator[Dependency]:
    return (Dependency("maven", match[1], match[2] or "managed", path, 0) for match in _GRADLE.finditer(text))


def _composer(tree: Tree, path: str, _: str) -> Iterator[Dependency]:
    document = load_json(tree, path)
    for section, group in (("require", "main"), ("require-dev", "dev")):
        for name, spec in table(document, section).items():
            if "/" in name:
                yield Dependency("composer", name, str(spec), path, 0, group)


_READERS: Final = {
    "pyproject.toml": _pyproject, "setup.cfg": _setup_cfg, "package.json": _package_json, "Cargo.toml": _cargo,
    "go.mod": _go_mod, "Gemfile": _gemfile, "pom.xml": _pom, "build.gradle": _gradle, "build.gradle.kts": _gradle,
    "composer.json": _composer,
}  # fmt: skip

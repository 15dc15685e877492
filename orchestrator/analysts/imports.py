"""Which file of the project uses which other: imports of many languages resolved to paths."""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

from orchestrator.analysts.deadlines import Deadline
from orchestrator.analysts.languages import Role
from orchestrator.analysts.lexical import blank, without_rust_tests
from orchestrator.analysts.pysource import PyModule, imports, parse
from orchestrator.analysts.tree import SourceFile, Tree

_SCRIPT: Final = frozenset({"JavaScript", "TypeScript", "Vue", "Svelte"})
_SCRIPT_IMPORT = re.compile(
    r"""(?:\bfrom|\bimport)\s*\(?\s*["']([^"'\n]+)["']|\brequire\s*\(\s*["']([^"'\n]+)["']\s*\)"""
)
_SCRIPT_ENDS = ("", ".ts", ".tsx", ".js", ".jsx", ".mjs", ".cjs", ".vue", ".svelte", ".d.ts",
                "/index.ts", "/index.tsx", "/index.js", "/index.mjs", "/index.jsx")  # fmt: skip
_GO_IMPORT = re.compile(r'^\s*(?:import\s+)?(?:[\w.]+\s+)?"([^"\n]+)"', re.MULTILINE)
_GO_BLOCK = re.compile(r'^import\s*(?:\(([^)]*)\)|((?:[\w.]+\s+)?"[^"\n]+"))', re.MULTILINE)
_RUST_USE = re.compile(r"\b(?:use|pub use)\s+((?:crate|super|self)(?:::\w+)+)|\bcrate((?:::\w+)+)")
_RUST_EXTERNAL = re.compile(r"(?<!::)\b([a-z]\w*)::")
_RUST_MOD = re.compile(r"^\s*(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+)\s*;", re.MULTILINE)
_JAVA_IMPORT = re.compile(r"^\s*import\s+(?:static\s+)?([\w.]+)", re.MULTILINE)
_C_INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"\n]+)"', re.MULTILINE)
_RUBY_REQUIRE = re.compile(r"""^\s*require_relative\s*\(?\s*["']([^"'\n]+)["']""", re.MULTILINE)
_DART_IMPORT = re.compile(r"""^\s*(?:import|export|part)\s+["']([^"'\n]+)["']""", re.MULTILINE)
_PHP_USE = re.compile(r"^\s*use\s+([\w\\]+)", re.MULTILINE)


class ImportGraph:
    """File-level dependencies inside the project.

    Attributes:
        eager: path to paths that it needs as soon as it is loaded.
        deferred: path to paths that it needs later (Python imports in functions or for type checking).
        modules: the Python modules that were parsed, by path.
        is_complete: False when the time was up before all files were read.
    """

    def __init__(self, tree: Tree, deadline: Deadline, roles: Iterable[Role] = ("source",)) -> None:
        self._tree = tree
        self.eager: dict[str, set[str]] = {}
        self.deferred: dict[str, set[str]] = {}
        self.modules: dict[str, PyModule] = {}
        self.is_complete = True
        self._files = tree.of(None, set(roles))
        self._python = _python_names(tree)
        self._by_suffix = _suffixes(tree)
        self._go_modules = _go_modules(tree)
        self._crates = _crates(tree)
        for file in self._files:
            if deadline.is_over:
                self.is_complete = False
                break
            eager, deferred = self._targets(file)
            self.eager[file.path] = eager - {file.path}
            self.deferred[file.path] = deferred - eager - {file.path}

    def importers(self) -> dict[str, int]:
        """Path to the number of files that import it (either way)."""
        counts: dict[str, int] = defaultdict(int)
        for path in self.eager:
            for target in self.eager[path] | self.deferred.get(path, set()):
                counts[target] += 1
        return dict(counts)

    def _targets(self, file: SourceFile) -> tuple[set[str], set[str]]:
        if file.language == "Python":
            return self._python_targets(file)
        text = self._tree.text(file.path)
        if not text:
            return set(), set()
        if file.language in _SCRIPT:
            return set(self._script_targets(file.path, blank(text, file.language, keep_strings=True))), set()
        if file.language == "Go":
            return set(self._go_targets(file.path, text)), set()
        if file.language == "Rust":
            code = without_rust_tests(blank(text, "Rust"))
            return {*self._rust_targets(file.path, code), *self._crate_targets(code)}, set()
        return set(self._named_targets(file, text)), set()

    def _python_targets(self, file: SourceFile) -> tuple[set[str], set[str]]:
        data = self._tree.data(file.path)
        module = parse(file.path, data) if data is not None else PyModule(file.path, None, "unreadable")
        self.modules[file.path] = module
        if module.tree is None:
            return set(), set()
        eager: set[str] = set()
        deferred: set[str] = set()
        for one in imports(module.tree):
            base = _absolute(file.path, one.level) if one.level else ""
            dotted = f"{base}.{one.module}".strip(".") if one.level else one.module
            found = self._python.get(f"{dotted}.{one.name}") if one.name else None
            found = found or self._python.get(dotted)
            if found is not None:
                (deferred if one.is_deferred else eager).add(found)
        return eager, deferred

    def _script_targets(self, path: str, text: str) -> Iterator[str]:
        for match in _SCRIPT_IMPORT.finditer(text):
            wanted = match[1] or match[2]
            if not wanted.startswith("."):
                continue
            base = posixpath.normpath(posixpath.join(posixpath.dirname(path), wanted.split("?")[0]))
            stem = base.removesuffix(".js")
            for end in _SCRIPT_ENDS:
                if self._tree.get(base + end) or self._tree.get(stem + end):
                    yield base + end if self._tree.get(base + end) else stem + end
                    break

    def _go_targets(self, path: str, text: str) -> Iterator[str]:
        for block in _GO_BLOCK.finditer(text):
            for match in _GO_IMPORT.finditer(block[1] or block[2] or ""):
                for module, directory in self._go_modules:
                    if match[1] == module or match[1].startswith(module + "/"):
                        target = posixpath.join(directory, match[1][len(module) :].strip("/"))
                        yield from self._go_package(target)
                        break

    def _go_package(self, directory: str) -> Iterator[str]:
        """A package stands for itself by its first file: Go knows no dependencies between a package's files."""
        prefix = f"{directory}/" if directory else ""
        inside = [
            file.path
            for file in self._files
            if file.language == "Go" and file.path.startswith(prefix) and "/" not in file.path[len(prefix) :]
        ]
        return iter(inside[:1])

    def _rust_targets(self, path: str, text: str) -> Iterator[str]:
        root = path[: path.index("/src/") + 5] if "/src/" in path else "src/" if path.startswith("src/") else ""
        own = path.removesuffix(".rs").removesuffix("/mod").removesuffix("/lib").removesuffix("/main")
        for match in _RUST_MOD.finditer(text):
            yield from self._rust_file(f"{own}/{match[1]}" if path != f"{own}.rs" or own else match[1])
        for match in _RUST_USE.finditer(text):
            parts = (match[1] or f"crate{match[2]}").split("::")
            base = root.rstrip("/") if parts[0] == "crate" else own
            while parts and parts[0] in {"crate", "super", "self"}:
                base = posixpath.dirname(base) if parts[0] == "super" else base
                parts = parts[1:]
            for length in (2, 1):
                found = list(self._rust_file("/".join([base, *parts[:length]]))) if len(parts) >= length else []
                if found:
                    yield from found
                    break

    def _crate_targets(self, text: str) -> Iterator[str]:
        """Other crates of the same workspace, by their library's root file."""
        for name in set(_RUST_EXTERNAL.findall(text)) & self._crates.keys():
            yield self._crates[name]

    def _rust_file(self, stem: str) -> Iterator[str]:
        for candidate in (f"{stem}.rs", f"{stem}/mod.rs"):
            if self._tree.get(candidate):
                yield candidate
                return

    def _named_targets(self, file: SourceFile, text: str) -> Iterator[str]:
        """C includes, Java and Kotlin imports, Ruby, Dart and PHP: matched by relative path or by the path's end."""
        here = posixpath.dirname(file.path)
        pattern, suffix, separator = {
            "C": (_C_INCLUDE, "", "/"), "C++": (_C_INCLUDE, "", "/"), "Objective-C": (_C_INCLUDE, "", "/"),
            "Java": (_JAVA_IMPORT, ".java", "."), "Kotlin": (_JAVA_IMPORT, ".kt", "."),
            "Scala": (_JAVA_IMPORT, ".scala", "."), "Ruby": (_RUBY_REQUIRE, ".rb", "/"),
            "Dart": (_DART_IMPORT, "", "/"), "PHP": (_PHP_USE, ".php", "\\"),
        }.get(file.language or "", (None, "", "/"))  # fmt: skip
        if pattern is None:
            return
        for match in pattern.finditer(text):
            wanted = match[1].replace(separator, "/").removeprefix("package:")
            wanted = wanted if wanted.endswith(suffix) else wanted + suffix
            beside = posixpath.normpath(posixpath.join(here, wanted))
            if self._tree.get(beside):
                yield beside
            else:
                tail = wanted.split("/", 1)[-1] if file.language in {"Dart", "PHP"} else wanted
                yield from self._by_suffix.get(tail, [])[:1]


def _python_names(tree: Tree) -> dict[str, str]:
    """Dotted module name to path, for every root that an import could start from (the top, ``src``, a package)."""
    names: dict[str, str] = {}
    packages = {posixpath.dirname(file.path) for file in tree.of({"Python"}) if file.path.endswith("__init__.py")}
    for file in tree.of({"Python"}):
        parts = file.path.rsplit(".", 1)[0].split("/")
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        names.setdefault(".".join(parts), file.path)
        start = len(parts) - 1
        while start > 0 and "/".join(parts[:start]) in packages:
            start -= 1
        if parts[start:]:
            names.setdefault(".".join(parts[start:]), file.path)
        if parts and parts[0] in {"src", "lib", "python"}:
            names.setdefault(".".join(parts[1:]), file.path)
    names.pop("", None)
    return names


def _absolute(path: str, level: int) -> str:
    parts = posixpath.dirname(path).split("/")
    return ".".join(parts[: len(parts) - (level - 1)] if level > 1 else parts)


def _suffixes(tree: Tree) -> dict[str, list[str]]:
    """Each trailing part of a path (``c.h``, ``b/c.h``, ``a/b/c.h``) to the source files that end so."""
    found: dict[str, list[str]] = defaultdict(list)
    for file in tree.of({"C", "C++", "Objective-C", "Java", "Kotlin", "Scala", "Ruby", "Dart", "PHP"}):
        parts = file.path.split("/")
        for start in range(max(0, len(parts) - 12), len(parts)):
            found["/".join(parts[start:])].append(file.path)
    return found


def _go_modules(tree: Tree) -> list[tuple[str, str]]:
    """(module path, directory) of each ``go.mod``, the longest module path first."""
    modules = []
    for file in tree.named("go.mod"):
        match = re.search(r"^module\s+(\S+)", tree.text(file.path) or "", re.MULTILINE)
        if match:
            modules.append((match[1], posixpath.dirname(file.path)))
    return sorted(modules, key=lambda pair: -len(pair[0]))


def _crates(tree: Tree) -> dict[str, str]:
    """Crate name as code writes it (``_`` for ``-``) to the root file of its library."""
    crates: dict[str, str] = {}
    for file in tree.named("Cargo.toml"):
        match = re.search(
            r"^\[package\][^\[]*?^name\s*=\s*\"([^\"]+)\"", tree.text(file.path) or "", re.MULTILINE | re.DOTALL
        )
        root = posixpath.join(posixpath.dirname(file.path), "src/lib.rs")
        if match and tree.get(root):
            crates[match[1].replace("-", "_")] = root
    return crates

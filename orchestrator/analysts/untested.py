"""Which source files no test seems to know of: neither imported, nor named, nor tested in place."""

from __future__ import annotations

import re

from orchestrator.analysts.languages import PROGRAMMING
from orchestrator.analysts.tree import SourceFile, Tree

_WORD = re.compile(r"[A-Za-z_][\w-]*")
_RUST_TEST = re.compile(r"#\[(?:cfg\(test\)|test|tokio::test)|^\s*//[/!] ```(?:rust|no_run|\s*$)", re.MULTILINE)
#: Languages for which naming in tests is a usable sign.
_JUDGED = frozenset({"Python", "JavaScript", "TypeScript", "Go", "Rust", "Java", "Kotlin", "Ruby", "PHP", "C#", "Dart"})
_TRIVIAL_BYTES = 1500
_GENERIC = frozenset({"index", "main", "mod", "lib", "__init__", "__main__", "types", "constants", "version", "setup"})


def untested(tree: Tree) -> list[SourceFile]:
    """Source files that no test imports or names, the largest first.

    A sign, not a proof: a file may be reached through others. So small files, package fronts and generated ones are
    left out, and a file counts as known when its name (or, for Go, its package's tests) occurs in any test.
    """
    words: set[str] = set()
    tested_directories: set[str] = set()
    for file in tree.of(PROGRAMMING, {"test"}):
        words.update(word.lower() for word in _WORD.findall(tree.text(file.path) or ""))
        words.update(word.lower() for word in re.split(r"[/._-]", file.path))
        words.add(
            re.sub(r"^test_|(_test|\.test|\.spec|test)$", "", file.path.rpartition("/")[2].rpartition(".")[0].lower())
        )
        if file.language == "Go":
            tested_directories.add(file.path.rpartition("/")[0])
    return sorted(
        (file for file in tree.of(PROGRAMMING, {"source"}) if _is_judged(tree, file)
         and not _is_known(tree, file, words, tested_directories)),
        key=lambda file: (-file.size, file.path),
    )  # fmt: skip


def _is_judged(tree: Tree, file: SourceFile) -> bool:
    stem = file.path.rpartition("/")[2].partition(".")[0]
    return (
        file.language in _JUDGED
        and file.size >= _TRIVIAL_BYTES
        and stem not in _GENERIC
        and not file.path.endswith((".d.ts", ".pyi"))
        and not tree.is_generated(file.path)
    )


def _is_known(tree: Tree, file: SourceFile, words: set[str], tested_directories: set[str]) -> bool:
    directory, _, name = file.path.rpartition("/")
    stem = name.partition(".")[0].lower()
    if file.language == "Go":
        return directory in tested_directories
    if file.language == "Rust" and _RUST_TEST.search(tree.text(file.path) or ""):
        return True
    return stem in words or stem.lstrip("_") in words or stem.replace("-", "_") in words

"""A project's parts: files grouped into modules, and what depends on what between them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import msgspec

#: Fewer parts than this say nothing, more cannot be taken in; directories are opened or kept closed accordingly.
_FEW, _MANY = 4, 24


class Module(msgspec.Struct, frozen=True):
    """A directory or file as one part: ``files``, ``lines``, and whether it is a ``directory``."""

    name: str
    files: int
    lines: int


def group(line_counts: Mapping[str, int]) -> dict[str, str]:
    """Path to module name.

    Begins with the top directories and opens the largest (by lines) as long as there are few parts or one holds more
    than half of all lines, so that ``src/package`` does not end as a single part.
    """
    total = sum(line_counts.values()) or 1
    opened: set[str] = {""}
    while True:
        placed = {path: _place(path, opened) for path in line_counts}
        sizes: Counter[str] = Counter()
        for path, name in placed.items():
            sizes[name] += line_counts[path]
        directories = [name for name in sizes if name not in line_counts]
        if not directories:
            return placed
        largest = max(directories, key=lambda name: (sizes[name], name))
        grown = len(sizes) + len({_place(path, opened | {largest}) for path in line_counts if placed[path] == largest})
        is_needed = len(sizes) < _FEW or sizes[largest] > total / 2
        if not is_needed or (grown > 3 * _MANY and len(sizes) >= _FEW):
            return placed
        opened.add(largest)


def _place(path: str, opened: set[str]) -> str:
    parts = path.split("/")
    for depth in range(1, len(parts)):
        directory = "/".join(parts[:depth])
        if directory not in opened:
            return directory
    return path


def modules(placed: Mapping[str, str], line_counts: Mapping[str, int]) -> list[Module]:
    """The modules, the largest first."""
    files: Counter[str] = Counter(placed.values())
    lines: Counter[str] = Counter()
    for path, name in placed.items():
        lines[name] += line_counts[path]
    return sorted((Module(name, files[name], lines[name]) for name in files), key=lambda one: (-one.lines, one.name))


def lift(graph: Mapping[str, Iterable[str]], placed: Mapping[str, str]) -> dict[str, Counter[str]]:
    """The file graph between modules: module to the modules that it uses, with the number of file-level uses."""
    lifted: dict[str, Counter[str]] = defaultdict(Counter)
    for path, targets in graph.items():
        source = placed.get(path)
        if source is None:
            continue
        lifted[source]  # a module without dependencies is still part of the graph
        for target in targets:
            module = placed.get(target)
            if module is not None and module != source:
                lifted[source][module] += 1
    return dict(lifted)

"""Directed graphs of what depends on what: cycles and layers."""

from __future__ import annotations

from collections.abc import Collection, Mapping

Graph = Mapping[str, Collection[str]]


def components(graph: Graph) -> list[list[str]]:
    """Strongly connected components, dependencies before dependents, each sorted.

    Tarjan, "Depth-first search and linear graph algorithms" (1972), without recursion.
    """
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    on_stack: set[str] = set()
    found: list[list[str]] = []
    for root in sorted(graph):
        if root in index:
            continue
        work = [(root, iter(sorted(graph.get(root, ()))))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, targets = work[-1]
            for target in targets:
                if target not in index:
                    index[target] = low[target] = len(index)
                    stack.append(target)
                    on_stack.add(target)
                    work.append((target, iter(sorted(graph.get(target, ())))))
                    break
                if target in on_stack:
                    low[node] = min(low[node], index[target])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    cut = stack.index(node)
                    found.append(sorted(stack[cut:]))
                    on_stack.difference_update(stack[cut:])
                    del stack[cut:]
    return found


def cycles(graph: Graph) -> list[list[str]]:
    """Groups of two or more nodes that reach one another, the largest first."""
    return sorted((group for group in components(graph) if len(group) > 1), key=lambda group: (-len(group), group))


def shortest_cycle(graph: Graph, group: Collection[str]) -> list[str]:
    """A shortest way round inside a strongly connected ``group``: its nodes in order, the first not repeated."""
    inside = set(group)
    best: list[str] = []
    for start in sorted(inside)[:50]:
        before: dict[str, str] = {}
        queue = [start]
        for node in queue:
            for target in sorted(set(graph.get(node, ())) & inside):
                if target == start:
                    path = [node]
                    while path[-1] != start:
                        path.append(before[path[-1]])
                    if not best or len(path) < len(best):
                        best = path[::-1]
                    queue.clear()
                    break
                if target not in before and target != start:
                    before[target] = node
                    queue.append(target)
            else:
                continue
            break
    return best


def layers(graph: Graph) -> list[list[str]]:
    """Nodes by level: level 0 depends on nothing here, each other only on lower levels (cycles share a level)."""
    level: dict[str, int] = {}
    for group in components(graph):
        below = [level[target] for node in group for target in graph.get(node, ()) if target not in group]
        for node in group:
            level[node] = max(below, default=-1) + 1
    rows: list[list[str]] = [[] for _ in range(max(level.values(), default=-1) + 1)]
    for node in sorted(level):
        rows[level[node]].append(node)
    return rows

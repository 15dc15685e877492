"""The API explorer: routes, commands and public names that the project offers, compared with its descriptions."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import Any

from agentpool.agent import Agent
from orchestrator.analysts.apisurface import Description, Route, descriptions, normal_path, routes
from orchestrator.analysts.entrypoints import entry_points
from orchestrator.analysts.findings import plural
from orchestrator.analysts.languages import PROGRAMMING
from orchestrator.analysts.publicnames import languages, public_names
from orchestrator.analysts.workbench import Workbench, conduct

#: Languages of scripts, which offer no names to others.
_SCRIPTS = frozenset({"Shell", "Batch", "PowerShell"})
_VERB_IN_PATH = re.compile(r"/(get|create|update|delete|fetch|remove)[A-Z_-]?[a-z]*(/|$)", re.IGNORECASE)


def run(agent: Agent) -> dict[str, Any]:
    """List what the project offers to others, and where code and descriptions differ."""
    return conduct(agent, lambda bench: Explorer(bench).work())


class Explorer:
    """One inventory of one project's interfaces."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._report = bench.report
        self._routes: list[Route] = []
        self._descriptions: list[Description] = []

    def work(self) -> None:
        """Routes, descriptions, commands, names."""
        self._bench.step("looking for HTTP routes", 15, self._find_routes)
        self._bench.step("reading API descriptions", 35, self._compare)
        self._bench.step("listing commands and public names", 60, self._list)
        self._conclude()

    def _find_routes(self) -> None:
        for file in self._bench.tree.of(PROGRAMMING, {"source"}):
            if self._bench.deadline.is_over:
                break
            self._routes.extend(routes(self._bench.tree, file))
        self._report.metrics |= {
            "routes": len(self._routes),
            "routes_by_method": dict(Counter(route.method for route in self._routes)),
        }
        self._report.artifacts["routes"] = [
            {"method": route.method, "route": route.path, "path": route.file, "line": route.line}
            for route in self._routes
        ]
        places: dict[tuple[str, str], list[Route]] = defaultdict(list)
        for route in self._routes:
            places[route.file, route.key].append(route)
            if _VERB_IN_PATH.search(route.path) and route.method not in {"ANY", "WS"}:
                self._report.add(
                    "info",
                    "verb-in-path",
                    f"{route.method} {route.path} names an action in its path.",
                    path=route.file,
                    line=route.line,
                    suggestion="Name the thing; the method is the verb.",
                )
        for (place, key), same in places.items():
            if (
                same[0].file.endswith((".py", ".js", ".ts", ".rb"))
                and len(same) > 1
                and normal_path(same[0].path) != "/"
                and not key.startswith("ANY")
            ):
                self._report.add(
                    "medium",
                    "duplicate-route",
                    f"{key} is declared again (first in line {same[0].line}).",
                    path=place,
                    line=same[1].line,
                    suggestion="Only one of them is ever reached.",
                )

    def _compare(self) -> None:
        self._descriptions = descriptions(self._bench.tree)
        self._report.artifacts["descriptions"] = [
            {"path": one.path, "kind": one.kind, "operations": len(one.operations)} for one in self._descriptions
        ]
        described = {
            operation: one.path for one in self._descriptions if one.kind == "openapi" for operation in one.operations
        }
        if not described or not self._routes:
            return
        paths = {key.split(" ", 1)[1] for key in described}
        for route in self._routes:
            path = normal_path(route.path)
            is_known = any(path == known or known.endswith(path) for known in paths)
            if not is_known and path != "/":
                self._report.add(
                    "low",
                    "undescribed-route",
                    f"{route.method} {route.path} is in no API description.",
                    path=route.file,
                    line=route.line,
                    suggestion="Describe it, or say that it is internal.",
                )
        coded = {normal_path(route.path) for route in self._routes}
        for operation, where in described.items():
            path = operation.split(" ", 1)[1]
            if not any(path == known or path.endswith(known) for known in coded if known != "/"):
                self._report.add(
                    "low",
                    "described-only",
                    f"{operation} is described, but no code declares it.",
                    path=where,
                    suggestion="Remove it, or check that a router adds it by a prefix.",
                )

    def _list(self) -> None:
        tree = self._bench.tree
        commands = [one for one in entry_points(tree) if one.kind in {"command", "main", "module", "script"}]
        self._report.artifacts["commands"] = [
            {"name": one.name, "kind": one.kind, "path": one.path} for one in commands
        ]
        order = {path: index for index, path in enumerate(self._bench.earlier.paths("public_modules"))}
        rows = []
        total = 0
        for file in sorted(tree.of(languages(), {"source"}), key=lambda file: (order.get(file.path, 9999), file.path)):
            if self._bench.deadline.is_over:
                break
            names = public_names(tree, file)
            total += len(names)
            if names:
                rows.append({"path": file.path, "count": len(names), "names": [one.name for one in names][:25]})
        self._report.artifacts["public_names"] = rows[:60]
        self._report.metrics |= {"commands": len(commands), "public_names": total, "public_modules": len(rows)}
        if order:
            givers = ", ".join(self._bench.earlier.givers("public_modules"))
            self._report.decisions.append(f"Listed public names in the order of use that {givers} found.")

    def _conclude(self) -> None:
        report = self._report
        kinds = Counter(finding.kind for finding in report.findings)
        specs = ", ".join(
            f"{one.kind} {one.path} ({plural(len(one.operations), 'operation')})" for one in self._descriptions[:3]
        )
        unread = Counter(
            file.language or ""
            for file in self._bench.tree.of(PROGRAMMING - _SCRIPTS, {"source"})
            if file.language not in languages()
        )
        report.metrics["languages_not_read"] = dict(unread.most_common())
        report.summary = (
            f"{plural(len(self._routes), 'HTTP route')}, {plural(report.metrics.get('commands', 0), 'command')}, "
            f"{plural(report.metrics.get('public_names', 0), 'public name')}; "
            + (f"described by {specs}." if specs else "no API description file.")
            + (f" {kinds['undescribed-route']} routes are not described." if kinds["undescribed-route"] else "")
        )
        if unread:
            told = ", ".join(f"{name} ({plural(count, 'file')})" for name, count in unread.most_common(5))
            report.warnings.append(f"public names are not read in {told}: there may be more than is told here")
            report.summary += f" Public names are not read in {told}."
        if len(self._routes) >= 5 and not self._descriptions:
            report.add(
                "info",
                "no-description",
                f"{len(self._routes)} routes and no OpenAPI description in the repository.",
                suggestion="Generate one from the code, so that clients can be made and checked.",
            )

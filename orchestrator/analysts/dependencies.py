"""The dependency manager: what is declared, locked, declared twice, imported but undeclared, declared but unused."""

from __future__ import annotations

import re
import sys
from collections import Counter, defaultdict
from typing import Any, Final

from agentpool.agent import Agent
from orchestrator.analysts import pysource
from orchestrator.analysts.entrypoints import load_json, load_toml, table
from orchestrator.analysts.findings import plural
from orchestrator.analysts.lexical import blank
from orchestrator.analysts.manifests import LOCKS, Dependency, has_lock, normal, read_manifests
from orchestrator.analysts.workbench import Workbench, conduct

#: Distribution to the modules that it is imported as, where the two differ (from the distributions' own metadata).
_PROVIDES: Final = {
    "pyyaml": "yaml", "pillow": "PIL", "beautifulsoup4": "bs4", "scikit-learn": "sklearn",
    "python-dateutil": "dateutil",
    "opencv-python": "cv2", "pyjwt": "jwt", "python-dotenv": "dotenv", "attrs": "attr attrs", "protobuf": "google",
    "pycryptodome": "Crypto", "msgpack-python": "msgpack", "mysqlclient": "MySQLdb", "psycopg2-binary": "psycopg2",
    "python-multipart": "multipart", "setuptools": "setuptools pkg_resources", "gitpython": "git", "pyserial": "serial",
    "importlib-metadata": "importlib_metadata", "typing-extensions": "typing_extensions", "djangorestframework":
    "rest_framework", "python-jose": "jose",
    "faiss-cpu": "faiss", "pyopenssl": "OpenSSL", "pywin32": "win32api win32con",
    "ruamel-yaml": "ruamel", "markdown-it-py": "markdown_it", "discord-py": "discord", "websocket-client": "websocket",
    "python-magic":
    "magic", "antlr4-python3-runtime": "antlr4", "google-cloud-storage": "google", "dnspython": "dns",
}  # fmt: skip
#: Distributions that are used without being imported: servers, drivers, plug-ins, tools, stubs.
_SILENT: Final = re.compile(
    r"^(types-.*|.*-stubs|pytest.*|.*-plugin|flake8.*|mypy.*|ruff|black|isort|tox.*|coverage|pre-commit|build|twine|wheel|"
    r"setuptools.*|hatch.*|poetry.*|uvicorn|gunicorn|hypercorn|uvloop|tzdata|colorama|sphinx.*|furo|mkdocs.*|psycopg.*|"
    r"mysqlclient|asyncpg|aiosqlite|cython|pip|virtualenv|.*-binary|brotli.*|zstandard|h2|socksio)$"
)
_SCRIPT_USE = re.compile(
    r"""(?:\bfrom|\bimport|\brequire(?:\.resolve)?\s*\(|\bimport\s*\()\s*["']([^"'.\n][^"'\n]*)["']"""
)
#: https://nodejs.org/api: modules that need no declaration.
_NODE_BUILTIN: Final = re.compile(
    r"^(assert|async_hooks|buffer|child_process|cluster|console|constants|crypto|dgram|diagnostics_channel|dns|domain|"
    r"events|fs|http|http2|https|inspector|module|net|os|path|perf_hooks|process|punycode|querystring|readline|repl|"
    r"stream|string_decoder|sys|test|timers|tls|trace_events|tty|url|util|v8|vm|wasi|worker_threads|zlib|bun|electron)$"
)
_PACKAGE: Final = re.compile(r"^(@[\w.-]+/)?[A-Za-z0-9][\w.-]*$")


def run(agent: Agent) -> dict[str, Any]:
    """Check the project's dependencies from its own files; nothing is downloaded."""
    return conduct(agent, lambda bench: Dependencies(bench).work())


class Dependencies:
    """One look at one project's dependencies."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._report = bench.report
        self._declared: list[Dependency] = []

    def work(self) -> None:
        """Manifests, then what the code uses."""
        self._bench.step("reading manifests", 15, self._read)
        self._bench.step("checking locks and versions", 35, self._check_versions)
        self._bench.step("comparing Python imports", 55, self._check_python)
        self._bench.step("comparing JavaScript imports", 80, self._check_script)
        self._conclude()

    def _read(self) -> None:
        self._declared = [one for one in read_manifests(self._bench.tree) if one.group != "option"]
        counts = Counter(one.ecosystem for one in self._declared)
        self._report.metrics |= {
            "manifests": len({one.path for one in self._declared}),
            "declared": dict(counts),
            "direct_main": sum(one.group == "main" for one in self._declared),
        }
        self._report.artifacts["dependencies"] = [
            {"name": one.name, "spec": one.spec, "ecosystem": one.ecosystem, "group": one.group, "path": one.path}
            for one in self._declared
        ]

    def _check_versions(self) -> None:
        tree = self._bench.tree
        specs: dict[tuple[str, str], dict[str, Dependency]] = defaultdict(dict)
        for one in self._declared:
            if one.group != "peer" and one.spec and not one.spec.startswith(("workspace", "*", "file:", "link:")):
                specs[one.ecosystem, one.name].setdefault(_plain(one.spec), one)
        for (ecosystem, name), found in specs.items():
            pinned = {spec: one for spec, one in found.items() if re.match(r"^(==|=|v)?\d", spec)}
            if len(pinned) > 1 and ecosystem in {"python", "npm"}:
                places = ", ".join(f"{spec} ({one.path})" for spec, one in list(pinned.items())[:3])
                last = list(pinned.values())[-1]
                self._report.add(
                    "medium",
                    "conflicting-versions",
                    f"{name} is wanted in different versions: {places}.",
                    path=last.path,
                    line=last.line,
                    suggestion="Agree on one.",
                )
        for ecosystem in ("npm", "cargo", "gem", "composer", "go"):
            manifest = next((one for one in self._declared if one.ecosystem == ecosystem and one.group == "main"), None)
            if (
                manifest is None
                or has_lock(tree, ecosystem, manifest.path)
                or self._is_library(ecosystem, manifest.path)
            ):
                continue
            self._report.add(
                "low",
                "no-lock-file",
                f"No lock file ({' or '.join(LOCKS[ecosystem][:3])}): builds differ by day.",
                path=manifest.path,
                suggestion="Commit the lock file of what is deployed.",
            )
        for one in self._declared:
            if one.ecosystem == "python" and re.search(r"(^|@ ?)git\+|^https?://", one.spec) and one.group == "main":
                self._report.add(
                    "low",
                    "direct-reference",
                    f"{one.name} comes from {one.spec[:80]}, not from an index.",
                    path=one.path,
                    line=one.line,
                    suggestion="Depend on a release.",
                )

    def _is_library(self, ecosystem: str, path: str) -> bool:
        """Libraries leave their lock file out by custom; applications should not."""
        tree = self._bench.tree
        if ecosystem == "npm":
            document = load_json(tree, path)
            return not document.get("private") and bool(document.get("main") or document.get("exports"))
        if ecosystem == "cargo":
            return not any(file.path.endswith("src/main.rs") for file in tree.of({"Rust"}, {"source"}))
        return ecosystem in {"gem", "composer"} and bool(tree.named(f"{self._bench.root.name}.gemspec"))

    def _check_python(self) -> None:
        tree = self._bench.tree
        declared = {one.name: one for one in self._declared if one.ecosystem == "python"}
        if not declared or not any(one.group == "main" for one in declared.values()):
            return
        used: dict[str, tuple[str, int]] = {}
        required: dict[str, tuple[str, int]] = {}
        for file in tree.of({"Python"}):
            if self._bench.deadline.is_over or file.role == "vendored":
                continue
            module = pysource.parse(file.path, tree.data(file.path) or b"")
            for taken in pysource.imports(module.tree) if module.tree is not None else ():
                top = taken.module.split(".")[0]
                if taken.level or not top:
                    continue
                used.setdefault(top, (file.path, taken.line))
                if file.role == "source" and not taken.is_guarded and not taken.is_deferred:
                    required.setdefault(top, (file.path, taken.line))
        own = self._own_modules()
        provided = {module: name for name in declared for module in _modules_of(name)}
        for top, (path, line) in sorted(required.items()):
            if top not in sys.stdlib_module_names and top not in own and top not in provided:
                self._report.add(
                    "medium",
                    "undeclared-dependency",
                    f"{top} is imported, but no manifest declares it.",
                    path=path,
                    line=line,
                    suggestion="Declare the distribution that provides it.",
                )
        text = " ".join(
            tree.text(name) or "" for name in ("pyproject.toml", "setup.cfg", "tox.ini", "Makefile", "Dockerfile")
        )
        for name, one in sorted(declared.items()):
            is_used = any(module in used or module in own for module in _modules_of(name))
            if one.group == "main" and not is_used and not _SILENT.match(name) and text.lower().count(name) < 2:
                self._report.add(
                    "low",
                    "unused-dependency",
                    f"{name} is declared, but nothing imports it.",
                    path=one.path,
                    line=one.line,
                    suggestion="Remove it if no plug-in or command needs it.",
                )

    def _own_modules(self) -> set[str]:
        own: set[str] = set()
        for file in self._bench.tree.of({"Python"}):
            parts = file.path.split("/")
            own.update(part.removesuffix(".py") for part in parts)
        project = table(load_toml(self._bench.tree, "pyproject.toml"), "project")
        return own | {str(project.get("name", "")).replace("-", "_")}

    def _check_script(self) -> None:
        tree = self._bench.tree
        declared = {one.name: one for one in self._declared if one.ecosystem == "npm" and one.path == "package.json"}
        if not declared:
            return
        document = load_json(tree, "package.json")
        packages = [re.escape(file.path.rpartition("/")[0]) for file in tree.named("package.json") if "/" in file.path]
        nested = re.compile("|".join(f"{directory}/" for directory in packages) or r"(?!)")
        used: dict[str, tuple[str, int]] = {}
        for file in tree.of({"JavaScript", "TypeScript", "Vue", "Svelte"}):
            if self._bench.deadline.is_over or file.role != "source" or nested.match(file.path):
                continue
            text = blank(tree.text(file.path) or "", file.language, keep_strings=True)
            for match in _SCRIPT_USE.finditer(text):
                name = "/".join(match[1].split("/")[: 2 if match[1].startswith("@") else 1])
                if _is_package(name):
                    used.setdefault(name, (file.path, text.count("\n", 0, match.start()) + 1))
        own = {str(document.get("name", ""))} | {
            str(load_json(tree, file.path).get("name")) for file in tree.named("package.json")
        }
        for name, (path, line) in sorted(used.items()):
            if name not in declared and name not in own and f"@types/{name}" not in declared:
                self._report.add(
                    "medium",
                    "undeclared-dependency",
                    f"{name} is imported, but package.json does not declare it.",
                    path=path,
                    line=line,
                    suggestion="Declare it; it may be there only by another's grace.",
                )
        anywhere = " ".join(
            tree.text(file.path) or ""
            for file in tree.of({"JavaScript", "TypeScript", "JSON", "Vue", "Svelte"})
            if "lock" not in file.path and file.path != "package.json" and file.size < 300_000
        )
        anywhere += str(document.get("scripts", ""))
        for name, one in sorted(declared.items()):
            if one.group == "main" and name not in anywhere and not name.startswith("@types/"):
                self._report.add(
                    "low",
                    "unused-dependency",
                    f"{name} is declared, but nothing names it.",
                    path=one.path,
                    line=one.line,
                    suggestion="Remove it if no tool loads it by convention.",
                )

    def _conclude(self) -> None:
        report = self._report
        kinds = Counter(finding.kind for finding in report.ranked())
        declared = report.metrics.get("declared", {})
        if not declared:
            report.summary = "No dependency manifest was found."
            return
        told = ", ".join(f"{count} {name}" for name, count in declared.items())
        report.summary = (
            f"{plural(sum(declared.values()), 'declared dependency', 'declared dependencies')} ({told}): "
            f"{kinds['undeclared-dependency']} imported but undeclared, "
            f"{kinds['unused-dependency']} declared but unused, "
            f"{plural(kinds['conflicting-versions'], 'conflict')}."
        )
        report.next_steps.extend(f"Settle {one.message}" for one in report.ranked()[:3] if one.severity == "medium")


def _plain(spec: str) -> str:
    return spec.replace(" ", "").strip("\"'")


def _is_package(name: str) -> bool:
    return _PACKAGE.match(name) is not None and _NODE_BUILTIN.match(name) is None


def _modules_of(name: str) -> set[str]:
    known = _PROVIDES.get(normal(name))
    if known:
        return set(known.split())
    plain = normal(name).replace("-", "_")
    shared = plain.startswith(("google_", "azure_", "zope_", "backports_"))
    top = plain.split("_")[0] if shared else plain
    return {plain, plain.removeprefix("python_"), plain.removesuffix("_python"), plain.removeprefix("py"), name, top}

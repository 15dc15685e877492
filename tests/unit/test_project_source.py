"""House rules that no linter knows, over all source files of the three packages."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("agentpool", "orchestrator", "api")
MODULE_LINES = 400
FUNCTION_LINES = 50
FORBIDDEN_NAMES = frozenset({"utils", "util", "helpers", "helper", "common", "misc", "stuff"})

#: Modules that read the environment besides ``orchestrator.config``, and why they must.
ENVIRONMENT_READERS = {
    "orchestrator/config.py": "the one place for settings",
    "agentpool/agent.py": "the agent's side: its environment is what it was given",
    "api/client/agent.py": "the agent's side: its environment is what it was given",
    "agentpool/testing.py": "PATH alone, for the scripted agent",
    "agentpool/zygote.py": "it replaces the environment by the one that its agent was given",
    "agentpool/zygotes.py": "PATH alone, for the interpreter that it starts",
    "orchestrator/context/git.py": "git is given only a fixed list of variables; where it looks for its own files",
}


@cache
def sources() -> dict[str, str]:
    """Path relative to the root -> text, of every module of the packages."""
    return {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
    }


@cache
def trees() -> dict[str, ast.Module]:
    """Path -> syntax tree."""
    return {name: ast.parse(text, name) for name, text in sources().items()}


def test_there_is_something_to_check() -> None:
    """A wrong root would make every rule below pass."""
    assert len(sources()) > 50


def test_modules_are_short() -> None:
    """A module over the limit holds more than one noun."""
    long = {name: lines for name, text in sources().items() if (lines := text.count("\n")) > MODULE_LINES}
    assert long == {}


def test_functions_are_short() -> None:
    """A function over the limit does more than one thing."""
    long = {
        f"{name}:{node.lineno} {node.name}": lines
        for name, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES
    }
    assert long == {}


def test_nothing_is_left_for_later() -> None:
    """What is not done is not promised in a comment."""
    mark = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b(?![-\"'|])")
    marks = [
        f"{name}:{number}"
        for name, text in sources().items()
        # Analysts look for such marks in other projects and name them in strings.
        for number, line in enumerate(text.splitlines(), 1)
        if "#" in line and mark.search(line.partition("#")[2])
    ]
    assert marks == []
    raised = [
        f"{name}:{node.lineno}"
        for name, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id == "NotImplementedError"
    ]
    assert raised == []


def test_modules_are_named_by_what_they_hold() -> None:
    """A drawer for everything is where nothing is found."""
    bad = [name for name in sources() if FORBIDDEN_NAMES & set(Path(name).with_suffix("").parts)]
    assert bad == []


def test_what_is_public_is_documented() -> None:
    """Modules, public classes, and public functions and methods of more than two statements."""
    bare = []
    for name, tree in trees().items():
        if not ast.get_docstring(tree) and tree.body:
            bare.append(name)
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith(
                "_"
            ):
                bare += [f"{name}:{node.lineno} {node.name}"] * (not ast.get_docstring(node) and not is_tiny(node))
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                bare += [f"{name}:{item.lineno} in {node.name}" for item in node.body if is_bare_method(item)]
    assert bare == []


def is_bare_method(node: ast.stmt) -> bool:
    """A public method, longer than two statements, without a docstring, that no base class documents."""
    return (
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
        and not is_tiny(node)
        and not any(isinstance(mark, ast.Name) and mark.id in ("override", "overload") for mark in node.decorator_list)
        and node.name not in inherited_names()
    )


@cache
def inherited_names() -> frozenset[str]:
    """Methods that a protocol documents: an implementation need not say it again."""
    return frozenset(
        item.name
        for tree in trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for item in node.body
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(item)
    ) | {
        item.name
        for tree in trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and any(isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases)
        for item in node.body
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def is_tiny(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """At most two statements: its name says all."""
    return not isinstance(node, ast.ClassDef) and len(node.body) <= 2


def test_packages_only_re_export() -> None:
    """Code in ``__init__`` runs for whoever needs any part of the package."""
    allowed = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.Expr, ast.If, ast.FunctionDef)
    bad = []
    for name, tree in trees().items():
        if not name.endswith("__init__.py"):
            continue
        for node in tree.body:
            is_lazy = isinstance(node, ast.FunctionDef) and node.name in ("__getattr__", "__dir__")
            if not isinstance(node, allowed) or (isinstance(node, ast.FunctionDef) and not is_lazy):
                bad.append(f"{name}:{node.lineno}")
    # The command line's root defines its group and entry point there.
    assert [item for item in bad if not item.startswith("api/cli/__init__.py")] == []


def test_the_environment_is_read_in_one_place() -> None:
    """A setting that a module reads by itself is in no documentation and no ``config show``."""
    readers: dict[str, list[int]] = {}
    for name, tree in trees().items():
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "os"
                and node.attr in ("environ", "getenv", "environb")
            ):
                readers.setdefault(name, []).append(node.lineno)
    # The command line is a process of its own: it reads the environment at its edge and passes it down.
    unexplained = {
        name: lines
        for name, lines in readers.items()
        if name not in ENVIRONMENT_READERS and not name.startswith("api/cli/") and not passes_it_whole(name, lines)
    }
    assert unexplained == {}


def passes_it_whole(name: str, lines: list[int]) -> bool:
    """Every mention hands the whole environment on (a default argument, a child's base), none reads a name from it."""
    text = sources()[name].splitlines()
    return not any(re.search(r"os\.(getenv|environ\.get|environ\[)", text[line - 1]) for line in lines)


#: Directories of one machine that a program must not name; ``/proc`` and ``/sys`` are Linux's own interfaces.
MACHINE_PATH = re.compile(r"""["'](/(work|tmp|home|root|Users|opt|mnt)(/[^"']*)?)["']""")

#: Modules that name such directories because every machine of a platform has them.
MACHINE_PATHS_ALLOWED = {"agentpool/sandbox.py": "what a sandbox shows and hides"}


def test_no_directory_of_one_machine_is_named() -> None:
    """A path that exists here only."""
    named = [
        f"{name}:{number} {found[1]}"
        for name, text in sources().items()
        for number, line in enumerate(text.splitlines(), 1)
        if (found := MACHINE_PATH.search(line)) and name not in MACHINE_PATHS_ALLOWED
    ]
    assert named == []


@pytest.mark.parametrize("module", ["api.client.agent", "agentpool.agent"])
def test_the_agents_side_is_standard_library_only(module: str) -> None:
    """An agent's start-up time is paid 119 times, and its environment has none of our dependencies."""
    code = (
        f"import sys; before = set(sys.modules); import {module}; new = set(sys.modules) - before\n"
        "roots = {name.partition('.')[0] for name in new}\n"
        "print(sorted(roots - set(sys.stdlib_module_names) - {'api', 'agentpool', 'orchestrator'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

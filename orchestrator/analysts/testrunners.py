"""How a project's tests are run: what is there, and with which of the installed programs."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from typing import Literal

import msgspec

from orchestrator.analysts.entrypoints import load_json, load_toml, table
from orchestrator.analysts.workbench import Workbench

Format = Literal["junit", "unittest", "go", "cargo", "script"]

_PROBE_S = 15.0
#: pytest-benchmark makes a directory in the project, even when nothing is measured.
_PROBE = "import pytest, importlib.util as u; print('benchmark' if u.find_spec('pytest_benchmark') else '')"
_MAKE_TEST = re.compile(r"^(test|tests|check)\s*:(?!=)", re.MULTILINE)
_NO_TEST = re.compile(r"no test specified", re.IGNORECASE)


class Runner(msgspec.Struct, frozen=True):
    """One way to run tests.

    Attributes:
        name: pytest, unittest, npm test, …
        argv: the command; empty when it cannot be run here.
        format: how its output is read.
        reason: why it cannot be run, for the user.
        environ: what is added to its environment.
    """

    name: str
    argv: tuple[str, ...]
    format: Format
    reason: str = ""
    environ: tuple[tuple[str, str], ...] = ()


def detect(bench: Workbench) -> list[Runner]:
    """The ways to run this project's tests, the main language's first; a way that cannot be taken says why."""
    if bench.settings.test_command:
        return [Runner(" ".join(bench.settings.test_command)[:80], bench.settings.test_command, "script")]
    found = [*_python(bench), *_script(bench), *_go(bench), *_cargo(bench), *_other(bench)]
    if not found:
        found = list(_make(bench))
    sizes = {
        name: sum(file.size for file in bench.tree.of(languages, {"source"}))
        for name, languages in (
            ("junit", {"Python"}), ("unittest", {"Python"}), ("go", {"Go"}), ("cargo", {"Rust"}),
            ("script", {"JavaScript", "TypeScript"}),
        )
    }  # fmt: skip
    return sorted(found, key=lambda runner: -sizes.get(runner.format, 0))


def python_candidates(bench: Workbench) -> list[str]:
    """Interpreters to try: the project's own environments, then those on ``PATH``, then the one running this."""
    own = [str(bench.root / directory / "bin/python") for directory in (".venv", "venv", "env", ".env")]
    found = [path for path in own if os.access(path, os.X_OK) and os.path.isfile(path)]
    search = bench.tool_environ.get("PATH")
    found += [path for name in ("python3", "python") if (path := shutil.which(name, path=search)) is not None]
    # "python" and "python3" of one directory are one interpreter; those of two environments are not, though both are
    # links to the same file.
    places: dict[tuple[str, str], str] = {}
    for path in [*found, sys.executable]:
        places.setdefault((os.path.dirname(path), os.path.realpath(path)), path)
    return list(places.values())


def _python(bench: Workbench) -> Iterator[Runner]:
    tree = bench.tree
    tests = [
        file
        for file in tree.of({"Python"}, {"test"})
        if file.path.rpartition("/")[2].startswith("test") or file.path.endswith("_test.py")
    ]
    if not tests:
        return
    pyproject = tree.text("pyproject.toml") or ""
    configs = " ".join(tree.text(name) or "" for name in ("setup.cfg", "tox.ini", "pytest.ini"))
    is_pytest = (
        "pytest" in pyproject
        or "pytest" in configs
        or bool(tree.named("conftest.py", "pytest.ini"))
        or any("pytest" in (tree.text(file.path) or "") for file in tests[:50])
    )
    tried: list[str] = []
    for python in python_candidates(bench):
        probe = bench.tool(python, "-c", _PROBE, timeout_s=_PROBE_S) if is_pytest else None
        if probe is not None and probe.ok:
            argv = _pytest_argv(bench, python, pyproject + configs)
            if "benchmark" in probe.stdout:
                argv = (*argv, f"--benchmark-storage=file://{bench.scratch / 'benchmarks'}")
            yield Runner("pytest", argv, "junit", environ=_source_path(bench))
            return
        tried.append(python)
    if is_pytest:
        yield Runner("pytest", (), "junit", f"pytest is not installed for {' or '.join(tried)}")
        return
    tops = {file.path.split("/")[0] for file in tests if "/" in file.path}
    start = next((top for top in ("tests", "test") if top in tops), ".")
    top = ("-t", ".") if start == "." or tree.get(f"{start}/__init__.py") else ()
    yield Runner(
        "unittest",
        (tried[0], "-m", "unittest", "discover", "-s", start, *top),
        "unittest",
        "",
        _source_path(bench),
    )


def _source_path(bench: Workbench) -> tuple[tuple[str, str], ...]:
    """Makes a ``src`` layout importable, lest another version that the interpreter has installed be tested instead."""
    source = bench.root / "src"
    return (("PYTHONPATH", str(source)),) if source.is_dir() and bench.tree.of({"Python"}, {"source"}) else ()


def _pytest_argv(bench: Workbench, python: str, config: str) -> tuple[str, ...]:
    """pytest with its cache and report outside the project; the project's own options stay in force."""
    scratch = bench.scratch
    argv = [
        python, "-m", "pytest", "-q", "--tb=short", "--color=no", "--continue-on-collection-errors",
        "-o", f"cache_dir={scratch / 'pytest'}", "-o", "junit_family=xunit1", f"--junitxml={scratch / 'junit.xml'}",
        f"--basetemp={scratch / 'tests'}",
    ]  # fmt: skip
    if "--cov" in config:
        argv.append("--no-cov")
    return tuple(argv)


def _script(bench: Workbench) -> Iterator[Runner]:
    tree = bench.tree
    if not tree.get("package.json"):
        return
    document = load_json(tree, "package.json")
    script = table(document, "scripts").get("test")
    if not isinstance(script, str) or _NO_TEST.search(script):
        return
    program = next((name for lock, name in (("pnpm-lock.yaml", "pnpm"), ("yarn.lock", "yarn"), ("bun.lockb", "bun"))
                    if tree.get(lock) and shutil.which(name, path=bench.tool_environ.get("PATH"))), "npm")  # fmt: skip
    needs = {**table(document, "dependencies"), **table(document, "devDependencies")}
    if shutil.which(program, path=bench.tool_environ.get("PATH")) is None:
        yield Runner(f"{program} test", (), "script", f"{program} is not installed")
    elif needs and not (bench.root / "node_modules").is_dir():
        yield Runner(f"{program} test", (), "script", "the dependencies are not installed (no node_modules)")
    else:
        silent = ("--silent",) if program in {"npm", "pnpm"} else ()
        yield Runner(f"{program} test", (program, *silent, "test"), "script")


def _go(bench: Workbench) -> Iterator[Runner]:
    if not bench.tree.get("go.mod") or not any(file.path.endswith("_test.go") for file in bench.tree.of({"Go"})):
        return
    program = shutil.which("go", path=bench.tool_environ.get("PATH"))
    if program is None:
        yield Runner("go test", (), "go", "go is not installed")
    else:
        yield Runner("go test", (program, "test", "-json", "./..."), "go")


def _cargo(bench: Workbench) -> Iterator[Runner]:
    tree = bench.tree
    if not tree.get("Cargo.toml"):
        return
    program = shutil.which("cargo", path=bench.tool_environ.get("PATH"))
    if program is None:
        yield Runner("cargo test", (), "cargo", "cargo is not installed")
    elif not (bench.root / "Cargo.lock").is_file():
        yield Runner("cargo test", (), "cargo", "without a Cargo.lock, cargo would have to write one into the project")
    else:
        workspace = ("--workspace",) if "workspace" in load_toml(tree, "Cargo.toml") else ()
        yield Runner("cargo test", (program, "test", "--offline", "--locked", "--no-fail-fast", *workspace), "cargo")


def _other(bench: Workbench) -> Iterator[Runner]:
    """Build tools that write into the project wherever they run are named, not started."""
    tree = bench.tree
    for marker, name, program in (
        ("pom.xml", "mvn test", "mvn"), ("build.gradle", "gradle test", "gradle"),
        ("build.gradle.kts", "gradle test", "gradle"), ("Package.swift", "swift test", "swift"),
        ("pubspec.yaml", "dart test", "dart"), ("mix.exs", "mix test", "mix"),
    ):  # fmt: skip
        if tree.get(marker):
            reason = f"{program} builds inside the project; start it with ANALYST_TEST_COMMAND"
            yield Runner(name, (), "script", reason)
            return
    for marker, argv in (
        (".rspec", ("bundle", "exec", "rspec", "--no-color")),
        ("phpunit.xml", ("vendor/bin/phpunit", "--do-not-cache-result", "--colors=never")),
        ("phpunit.xml.dist", ("vendor/bin/phpunit", "--do-not-cache-result", "--colors=never")),
    ):
        if tree.get(marker):
            local = bench.root / argv[0]
            program = (
                str(local) if local.is_file() else shutil.which(argv[0], path=bench.tool_environ.get("PATH")) or ""
            )
            if program:
                yield Runner(argv[-2], (program, *argv[1:]), "script")
            else:
                yield Runner(" ".join(argv[:3]), (), "script", f"{argv[0]} is not installed")
            return


def _make(bench: Workbench) -> Iterator[Runner]:
    target = _MAKE_TEST.search(bench.tree.text("Makefile") or "")
    program = shutil.which("make", path=bench.tool_environ.get("PATH"))
    if target and program:
        yield Runner(f"make {target[1]}", (program, target[1]), "script")

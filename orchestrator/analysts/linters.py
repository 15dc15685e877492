"""The project's own linter: used when the project has configured it and it is installed, and never installed here."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from orchestrator.analysts.entrypoints import load_json, load_toml, table
from orchestrator.analysts.findings import Finding
from orchestrator.analysts.processes import ToolRun
from orchestrator.analysts.workbench import Workbench

_MAX_FILES = 200
_POSITION = re.compile(
    r"^(?:\./)?(?P<path>[^\s:][^:\n]*):(?P<line>\d+):(?:(?P<column>\d+):)?\s*(?P<text>.+)$", re.MULTILINE
)
#: Ruff and flake8 rules that mean broken code rather than taste: undefined names, syntax errors, bad comparisons.
_BROKEN = re.compile(r"^(E9\d*|F50\d|F63\d|F7\d\d|F82\d|syntax-error|invalid-syntax)")


class Linter(msgspec.Struct, frozen=True):
    """One configured linter: ``argv`` to run, ``parse`` what it prints into findings."""

    name: str
    argv: tuple[str, ...]
    parse: Callable[[str, str], Iterator[Finding]]


def configured(bench: Workbench, language: str) -> tuple[Linter | None, str]:
    """The linter for ``language``, or None and why there is none to run (empty: the project has not set one up)."""
    finders = {
        "Python": _python, "JavaScript": _eslint, "TypeScript": _eslint, "Go": _go_vet, "Rust": _clippy,
        "Shell": _shellcheck,
    }  # fmt: skip
    finder = finders.get(language)
    return finder(bench) if finder is not None else (None, "")


def lint(bench: Workbench, linter: Linter) -> tuple[list[Finding], str]:
    """Run ``linter`` within the time limit. Returns its findings, and why it gave none (empty when it worked)."""
    run = bench.tool(*linter.argv)
    if run.exit_code is None:
        return [], f"{linter.name} could not be started: {run.error}"
    if run.timed_out:
        return [], f"{linter.name} did not end within {bench.settings.tool_time_s:g} s"
    findings = [
        msgspec.structs.replace(finding, path=_relative(bench, finding.path))
        for finding in linter.parse(run.stdout, run.stderr)
    ]
    if not findings and run.exit_code not in (0, 1):
        return [], f"{linter.name} failed with exit status {run.exit_code}: {_last_line(run)}"
    return findings, ""


def project_program(bench: Workbench, name: str) -> str | None:
    """The project's own ``name`` (virtual environment, ``node_modules``), else the one on ``PATH``, else None."""
    for directory in (".venv/bin", "venv/bin", "env/bin", "node_modules/.bin"):
        candidate = bench.root / directory / name
        if os.access(candidate, os.X_OK) and candidate.is_file():
            return str(candidate)
    return shutil.which(name, path=bench.tool_environ.get("PATH"))


def _relative(bench: Workbench, path: str) -> str:
    return os.path.relpath(path, bench.root) if os.path.isabs(path) else path.removeprefix("./")


def _last_line(run: ToolRun) -> str:
    lines = (run.stderr or run.stdout).strip().splitlines()
    return lines[-1][:300] if lines else "no output"


def _python(bench: Workbench) -> tuple[Linter | None, str]:
    tree = bench.tree
    tool = table(load_toml(tree, "pyproject.toml"), "tool")
    if "ruff" in tool or tree.get("ruff.toml") or tree.get(".ruff.toml"):
        program = project_program(bench, "ruff")
        argv = (program or "", "check", "--no-cache", "--no-fix", "--output-format=json", "--exit-zero", ".")
        return (Linter("ruff", argv, _parse_ruff), "") if program else (None, "ruff is configured but not installed")
    configs = [name for name in ("setup.cfg", "tox.ini") if "[flake8]" in (tree.text(name) or "")]
    if configs or tree.get(".flake8"):
        program = project_program(bench, "flake8")
        return (Linter("flake8", (program, "."), _parse_lines), "") if program else (
            None, "flake8 is configured but not installed")  # fmt: skip
    return None, ""


def _eslint(bench: Workbench) -> tuple[Linter | None, str]:
    tree = bench.tree
    names = ("eslint.config.js", "eslint.config.mjs", "eslint.config.cjs", "eslint.config.ts", ".eslintrc.json",
             ".eslintrc.js", ".eslintrc.cjs", ".eslintrc.yml", ".eslintrc.yaml", ".eslintrc")  # fmt: skip
    if not any(tree.get(name) for name in names) and "eslintConfig" not in load_json(tree, "package.json"):
        return None, ""
    program = bench.root / "node_modules/.bin/eslint"
    if not os.access(program, os.X_OK):
        return None, "eslint is configured but not installed (no node_modules/.bin/eslint)"
    return Linter("eslint", (str(program), "--format=json", "--no-color", "."), _parse_eslint), ""


def _go_vet(bench: Workbench) -> tuple[Linter | None, str]:
    if not bench.tree.get("go.mod"):
        return None, ""
    program = project_program(bench, "go")
    return (Linter("go vet", (program, "vet", "./..."), _parse_vet), "") if program else (None, "go is not installed")


def _clippy(bench: Workbench) -> tuple[Linter | None, str]:
    if not bench.tree.get("Cargo.toml"):
        return None, ""
    program = project_program(bench, "cargo")
    if program is None or not shutil.which("clippy-driver", path=bench.tool_environ.get("PATH")):
        return None, "cargo clippy is not installed"
    if not bench.tree.get("Cargo.lock"):
        return None, "cargo clippy was not run: without a committed Cargo.lock it would have to write one"
    argv = (program, "clippy", "--offline", "--locked", "--quiet", "--message-format=json")
    return Linter("cargo clippy", argv, _parse_cargo), ""


def _shellcheck(bench: Workbench) -> tuple[Linter | None, str]:
    program = project_program(bench, "shellcheck")
    files = [file.path for file in bench.tree.of({"Shell"}) if file.role != "vendored"][:_MAX_FILES]
    if program is None or not files:
        return None, "" if not files else "shellcheck is not installed"
    argv = (program, "--format=gcc", "--severity=warning", "--", *(f"./{path}" for path in files))
    return Linter("shellcheck", argv, _parse_lines), ""


def _decoded(text: str) -> list[Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return document if isinstance(document, list) else []


def _parse_ruff(stdout: str, _: str) -> Iterator[Finding]:
    for item in _decoded(stdout):
        code = str(item.get("code") or "syntax-error")
        location = item.get("location") or {}
        yield Finding(
            "high" if _BROKEN.match(code) else "low",
            f"ruff:{code}",
            str(item.get("filename", "")),
            int(location.get("row", 0)),
            f"{code} {item.get('message', '')}",
            (item.get("fix") or {}).get("message") or "",
        )


def _parse_eslint(stdout: str, _: str) -> Iterator[Finding]:
    for item in _decoded(stdout):
        for message in item.get("messages", []):
            rule = str(message.get("ruleId") or "syntax")
            grave = message.get("fatal") or message.get("severity") == 2
            yield Finding(
                "high" if message.get("fatal") else "medium" if grave else "low",
                f"eslint:{rule}",
                str(item.get("filePath", "")),
                int(message.get("line") or 0),
                str(message.get("message", "")),
            )


def _parse_lines(stdout: str, _: str) -> Iterator[Finding]:
    for match in _POSITION.finditer(stdout):
        text = match["text"]
        code = text.split(" ", 1)[0].rstrip(":")
        severity = "high" if _BROKEN.match(code) else "medium" if code == "error" else "low"
        yield Finding(severity, f"lint:{code}", match["path"], int(match["line"]), text)  # type: ignore[arg-type]


def _parse_vet(_: str, stderr: str) -> Iterator[Finding]:
    for match in _POSITION.finditer(stderr):
        yield Finding("medium", "go-vet", match["path"].removeprefix("vet: "), int(match["line"]), match["text"])


def _parse_cargo(stdout: str, _: str) -> Iterator[Finding]:
    for line in stdout.splitlines():
        try:
            message = json.loads(line).get("message") or {}
        except (ValueError, AttributeError):
            continue
        spans = [span for span in message.get("spans", []) if span.get("is_primary")]
        if not spans or message.get("level") not in {"error", "warning"}:
            continue
        rule = (message.get("code") or {}).get("code", "rustc")
        yield Finding(
            "high" if message["level"] == "error" else "low",
            str(rule),
            str(spans[0].get("file_name", "")),
            int(spans[0].get("line_start", 0)),
            str(message.get("message", "")),
        )

"""What test runners print, read into counts and failures with locations."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import msgspec

from orchestrator.analysts.processes import ToolRun

_MISSING = re.compile(r"(?:ModuleNotFoundError: No module named|ImportError: No module named) '?([\w.]+)'?")
_SHORT_TRACE = re.compile(r"^(?P<path>[^\s:][^:\n]*\.py):(?P<line>\d+): ", re.MULTILINE)
_LONG_TRACE = re.compile(r'File "(?P<path>[^"\n]+)", line (?P<line>\d+)')
_DOTS = re.compile(r"^([.FEsxX]+)\s*(?:\[\s*\d+%\])?$", re.MULTILINE)
_TOTAL = re.compile(r"(\d+) (passed|failed|errors?|skipped|xfailed|xpassed|deselected)")
_UNITTEST_BLOCK = re.compile(
    r"^={20,}\n(FAIL|ERROR): (.+)\n(?:.*\n)?-{20,}\n((?:.*\n)*?)(?=^={20,}|^-{20,}|\Z)", re.MULTILINE
)
_CARGO_TOTAL = re.compile(r"test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored")
_CARGO_PANIC = re.compile(
    r"^thread '([^']+)'[^\n]* panicked at (?:'(?P<old>[^'\n]*)', )?(?P<path>[^\s:]+):(?P<line>\d+):\d+:?\n(?P<new>.*)",
    re.MULTILINE,
)
_GO_LOCATION = re.compile(r"^\s+(?P<path>[\w./-]+\.go):(?P<line>\d+): (?P<message>.*)", re.MULTILINE)
_SCRIPT_COUNTS = (
    ("passed", re.compile(r"^\s*(?:Tests:?\s.*?)?(\d+) (?:passed|passing)\b|^[#ℹ] pass (\d+)", re.MULTILINE)),
    ("failed", re.compile(r"^\s*(?:Tests:?\s+)?(\d+) (?:failed|failing)\b|^[#ℹ] fail (\d+)", re.MULTILINE)),
    ("skipped", re.compile(r"(\d+) (?:skipped|pending)\b|^[#ℹ] skipped (\d+)", re.MULTILINE)),
)
_SCRIPT_LOCATION = re.compile(r"\(?(?P<path>(?:/|\.{0,2}/)?[\w@./-]+\.[cm]?[jt]sx?):(?P<line>\d+):\d+\)?")


class Failure(msgspec.Struct, frozen=True):
    """One failed test: ``path`` and ``line`` where it failed (line 0 unknown), ``message`` the first line of why."""

    name: str
    path: str
    line: int
    message: str


class Outcome(msgspec.Struct, frozen=True):
    """What one run of tests gave; ``missing`` counts test modules by the name of a package that they lack."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    failures: tuple[Failure, ...] = ()
    missing: dict[str, int] = {}
    is_complete: bool = True

    @property
    def total(self) -> int:
        """Tests that ran or should have run."""
        return self.passed + self.failed + self.skipped


def read_output(format_: str, run: ToolRun, root: Path, report: Path) -> Outcome:
    """Read what a runner left.

    Args:
        format_: the runner's format.
        run: its output.
        root: the project, to which paths are made relative.
        report: where a JUnit report would be.
    """
    text = f"{run.stdout}\n{run.stderr}"
    if format_ == "junit":
        return _junit(report, root) or _dots(text)
    reader = {"unittest": _unittest, "go": _go, "cargo": _cargo}.get(format_, _script)
    return reader(text, root)


def _relative(path: str, root: Path) -> str:
    return path.removeprefix(f"{root}/").removeprefix("./")


def _junit(report: Path, root: Path) -> Outcome | None:
    try:
        document = ElementTree.parse(report)
    except (OSError, ElementTree.ParseError):
        return None
    failures: list[Failure] = []
    missing: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for case in document.iter("testcase"):
        trouble = next((child for child in case if child.tag in {"failure", "error"}), None)
        if trouble is None:
            counts["skipped" if case.find("skipped") is not None else "passed"] += 1
            continue
        text = trouble.text or ""
        lacking = _MISSING.search(text) if trouble.get("message") == "collection failure" else None
        if lacking:
            missing[lacking[1]] += 1
            continue
        counts["failed"] += 1
        failures.append(_junit_failure(case, trouble.get("message") or "", text, root))
    return Outcome(counts["passed"], counts["failed"], counts["skipped"], tuple(failures), dict(missing))


def _junit_failure(case: ElementTree.Element, message: str, text: str, root: Path) -> Failure:
    name = "::".join(part for part in (case.get("classname", ""), case.get("name", "")) if part)
    places = [
        (path, int(match["line"]))
        for match in _SHORT_TRACE.finditer(text)
        if not (path := _relative(match["path"], root)).startswith(("/", "..")) and "site-packages" not in path
    ]
    declared = _relative(case.get("file") or "", root), int(case.get("line") or -1) + 1
    path, line = places[-1] if places else declared
    if message == "collection failure":
        errors = [row[1:].strip() for row in text.splitlines() if row.startswith("E ")]
        message = "cannot be collected: " + (errors[-1] if errors else text.strip().rpartition("\n")[2])
        path = path or name.replace(".", "/") + ".py"
    return Failure(name, path, line, message.strip().partition("\n")[0][:300])


def _dots(stdout: str) -> Outcome:
    """Counts from pytest's progress lines, when it was ended before it could write its report."""
    lacking = _MISSING.search(stdout)
    if lacking and "conftest" in stdout:
        return Outcome(missing={lacking[1]: 1}, is_complete=False)
    counts: Counter[str] = Counter("".join(_DOTS.findall(stdout)))
    totals = {name: int(number) for number, name in _TOTAL.findall(stdout[-2000:])}
    if totals:
        failed = totals.get("failed", 0) + totals.get("error", 0) + totals.get("errors", 0)
        return Outcome(totals.get("passed", 0), failed, totals.get("skipped", 0))
    return Outcome(counts["."] + counts["x"] + counts["X"], counts["F"] + counts["E"], counts["s"], is_complete=False)


def _unittest(text: str, root: Path) -> Outcome:
    ran = re.search(r"^Ran (\d+) tests?", text, re.MULTILINE)
    skipped = re.search(r"skipped=(\d+)", text)
    failures: list[Failure] = []
    missing: Counter[str] = Counter()
    for match in _UNITTEST_BLOCK.finditer(text):
        body = match[3]
        lacking = _MISSING.search(body)
        if lacking and "_FailedTest" in match[2]:
            missing[lacking[1]] += 1
            continue
        places = [(_relative(place["path"], root), int(place["line"])) for place in _LONG_TRACE.finditer(body)]
        inside = [place for place in places if not place[0].startswith("/")] or [("", 0)]
        failures.append(Failure(match[2], *inside[-1], body.strip().rpartition("\n")[2][:300]))
    total = int(ran[1]) if ran else 0
    passed = max(0, total - len(failures) - sum(missing.values()) - (int(skipped[1]) if skipped else 0))
    return Outcome(passed, len(failures), int(skipped[1]) if skipped else 0, tuple(failures), dict(missing), bool(ran))


def _go(text: str, root: Path) -> Outcome:
    """``go test -json``: one object a line (``go doc test2json``)."""
    counts: Counter[str] = Counter()
    output: dict[tuple[str, str], list[str]] = {}
    failures: list[Failure] = []
    for row in text.splitlines():
        try:
            event = json.loads(row)
        except ValueError:
            continue
        if not isinstance(event, dict) or "Action" not in event:
            continue
        key = (str(event.get("Package", "")), str(event.get("Test", "")))
        if event["Action"] == "output":
            output.setdefault(key, []).append(str(event.get("Output", "")))
        elif key[1] and event["Action"] in {"pass", "fail", "skip"}:
            counts[event["Action"]] += 1
            if event["Action"] == "fail":
                failures.append(_go_failure(key, "".join(output.get(key, [])), root))
        elif event["Action"] == "fail" and not any(one.name.startswith(key[0]) for one in failures):
            failures.append(Failure(key[0], "", 0, "".join(output.get(key, ["build failed"])).strip()[:300]))
    return Outcome(counts["pass"], len(failures), counts["skip"], tuple(failures))


def _go_failure(key: tuple[str, str], text: str, root: Path) -> Failure:
    module = re.search(r"^module\s+(\S+)", _text(root / "go.mod"), re.MULTILINE)
    directory = key[0].removeprefix(module[1]).strip("/") if module else ""
    place = _GO_LOCATION.search(text)
    path = f"{directory}/{place['path']}".lstrip("/") if place is not None else ""
    message = place["message"] if place is not None else text.strip().partition("\n")[0]
    return Failure(f"{key[0]}.{key[1]}", path, int(place["line"]) if place is not None else 0, message[:300])


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _cargo(text: str, root: Path) -> Outcome:
    totals = [tuple(int(number) for number in match.groups()) for match in _CARGO_TOTAL.finditer(text)]
    failures = [
        Failure(match[1], _relative(match["path"], root), int(match["line"]), (match["old"] or match["new"])[:300])
        for match in _CARGO_PANIC.finditer(text)
    ]
    passed, failed, skipped = (sum(row[index] for row in totals) for index in range(3))
    return Outcome(passed, failed, skipped, tuple(failures[: max(failed, 0)]), {}, bool(totals))


def _script(text: str, root: Path) -> Outcome:
    """mocha, jest, vitest, node's own runner, or anything: the last counts that look like a total."""
    counts: dict[str, int] = {}
    for name, pattern in _SCRIPT_COUNTS:
        found = [int(next(group for group in match.groups() if group)) for match in pattern.finditer(text)]
        counts[name] = found[-1] if found else 0
    failures: list[Failure] = []
    if counts["failed"]:
        for match in re.finditer(r"^\s*(?:not ok \d+ - |✖ |● |\d+\) )(.+)$", text, re.MULTILINE):
            place = _SCRIPT_LOCATION.search(text, match.end(), match.end() + 3000)
            path = _relative(place["path"], root) if place and "node_modules" not in place["path"] else ""
            failures.append(
                Failure(match[1].strip()[:200], path, int(place["line"]) if place and path else 0, "failed")
            )
    unique = {failure.name: failure for failure in reversed(failures)}
    return Outcome(counts["passed"], counts["failed"], counts["skipped"], tuple(reversed(unique.values())))

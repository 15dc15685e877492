"""The language specialist: real mistakes found, sound code left alone."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from agentpool.agent import Agent
from orchestrator.analysts import linters, pychecks, pysource, sourcechecks
from orchestrator.analysts.deadlines import Deadline
from orchestrator.analysts.findings import Finding
from orchestrator.analysts.language import Specialist
from orchestrator.analysts.workbench import Workbench, conduct
from tests.support.repositories import analyse, finding, kinds, write


def check(source: str, *, is_test: bool = False) -> list[Finding]:
    """Findings of one Python module."""
    module = pysource.parse("m.py", source.encode(), compiled=True)
    assert module.tree is not None, module.error
    return list(pychecks.check(module, source, is_test=is_test, imported_elsewhere=frozenset()))


class EndingSoon(Deadline):
    """Is over after it has been asked ``looks`` times."""

    def __init__(self, looks: int) -> None:
        super().__init__(600)
        self._looks = looks

    @property
    def is_over(self) -> bool:
        """Whether it was asked often enough."""
        self._looks -= 1
        return self._looks < 0


@pytest.mark.parametrize(("looks", "checked"), [(1, 0), (3, 2), (4, 2), (100, 2)])
def test_files_whose_checks_gave_findings_were_checked(tmp_path: Path, looks: int, checked: int) -> None:
    """When the time was up between two looks at the files, a report said "0 files checked" beside what it had found."""
    root = write(tmp_path / "p", {"a.py": "import os\n", "b.py": "import re\n"})

    def work(bench: Workbench) -> None:
        bench.deadline = EndingSoon(looks)
        Specialist(bench).work()

    environ = {"AGENT_WORKSPACE": str(root), "AGENT_TYPE": "python-specialist", "AGENT_TASK": "", "AGENT_ID": "a1"}
    result = conduct(Agent(environ=environ, out=io.StringIO()), work)
    found = [one for one in result["findings"] if one["kind"] == "unused-import"]
    assert (result["metrics"]["files_checked"], len(found)) == (checked, checked)
    told = [text for text in result["warnings"] if text.endswith(": time was up")]
    assert told == {
        1: ["2 files not checked: time was up"],
        3: ["2 files not checked, or only in part (2): time was up"],
        4: ["1 file not checked, or only in part (1): time was up"],
        100: [],
    }.get(looks, told)


@pytest.mark.parametrize(
    ("kind", "line", "source"),
    [
        ("unused-import", 1, "import os\n"),
        ("undefined-name", 2, "def f():\n    return missing\n"),
        ("mutable-default", 1, "def f(x=[]):\n    x.append(1)\n    return x\n"),
        ("bare-except", 3, "try:\n    pass\nexcept:\n    pass\n"),
        ("redefinition", 3, "def f():\n    return 1\ndef f():\n    return 2\n"),
        ("duplicate-key", 1, "a = {'k': 1, 'k': 2}\n"),
        ("is-literal", 2, "def f(x):\n    return x is 'a'\n"),
        ("assert-tuple", 2, "def f(x):\n    assert (x, 'no')\n"),
        ("unreachable", 3, "def f():\n    return 1\n    print(2)\n"),
        ("return-in-finally", 5, "def f():\n    try:\n        return 1\n    finally:\n        return 2\n"),
        ("raise-notimplemented", 2, "def f():\n    raise NotImplemented\n"),
        ("blocking-in-async", 3, "import time\nasync def f():\n    time.sleep(1)\n"),
        ("debugger-left", 1, "breakpoint()\n"),
    ],
)
def test_mistake_is_found_at_its_line(kind: str, line: int, source: str) -> None:
    """A check stops seeing what it is there for, or points at another line."""
    assert (kind, line) in [(one.kind, one.line) for one in check(source)]


@pytest.mark.parametrize(
    "source",
    [
        "import os  # noqa: F401\n",
        "from typing import List\ndef f(x: 'List[int]') -> None:\n    return None\n",
        "try:\n    import yaml\nexcept ImportError:\n    yaml = None\n",
        "def f(x=()):\n    return x\n",
        "def f(x=[]):\n    x = list(x)\n    x.append(1)\n    return x\n",
        "from typing import overload\n@overload\ndef f(x: int) -> int: ...\n"
        "@overload\ndef f(x: str) -> str: ...\ndef f(x):\n    return x\n",
        "def f():\n    global counter\n    counter = 1\ndef g():\n    return counter\n",
        "class A:\n    y = 1\n    def m(self):\n        return __class__\n",
        "def gen():\n    return\n    yield\n",
        "from mod import *\ndef f():\n    return anything\n",
        "def f():\n    try:\n        pass\n    except:\n        raise\n",
        "print(__file__, __name__)\n",
    ],
)
def test_sound_code_is_left_alone(source: str) -> None:
    """A false alarm that a maintainer would call silly."""
    assert check(source) == []


def test_syntax_error_is_critical_and_located(tmp_path: Path) -> None:
    """A file that cannot be imported drowns among style findings."""
    result = analyse("language", write(tmp_path / "p", {"a.py": "x = 1\ndef f(:\n", "b.py": "y = 1\n"}))
    error = finding(result, "syntax-error")
    assert (error["severity"], error["path"], error["line"]) == ("critical", "a.py", 2)
    assert result["findings"][0]["kind"] == "syntax-error"


def test_specialist_without_its_language_says_so(tmp_path: Path) -> None:
    """A Swift specialist reports on Python."""
    result = analyse("language", write(tmp_path / "p", {"a.py": "import os\n"}), agent_type="swift-specialist")
    assert kinds(result) == {"no-such-language"}
    assert "No Swift" in result["summary"]


@pytest.mark.parametrize(
    ("kind", "language", "role", "text"),
    [
        ("focused-test", "JavaScript", "test", "it.only('x', () => {})\n"),
        ("debugger-left", "TypeScript", "source", "debugger;\n"),
        ("no-http-timeout", "Go", "source", "r, err := http.Get(u)\n"),
        ("rm-variable", "Shell", "source", 'rm -rf "$DIR"/\n'),
        ("todo-macro", "Rust", "source", "fn f() { todo!() }\n"),
        ("conflict-marker", "Python", "source", "<<<<<<< HEAD\nx = 1\n"),
    ],
)
def test_rule_of_other_languages_fires(kind: str, language: str, role: str, text: str) -> None:
    """A rule's expression no longer matches the code it was written for."""
    assert kind in [one.kind for one in sourcechecks.check("f", text, language, role)]  # type: ignore[arg-type]


def test_comments_and_strings_are_not_code() -> None:
    """A rule fires on a comment that explains it, or on a test module at a Rust file's end."""
    assert list(sourcechecks.check("f.js", "// debugger;\nconst a = 'it.only(';\n", "JavaScript", "source")) == []
    rust = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() { todo!() }\n}\n"
    assert list(sourcechecks.check("f.rs", rust, "Rust", "source")) == []


def test_configured_linter_is_run_and_missing_one_told(tmp_path: Path) -> None:
    """The project's linter is skipped in silence, or its findings keep absolute paths."""
    root = write(tmp_path / "p", {"a.py": "x = 1\n", "ruff.toml": "line-length = 100\n"})
    tool = root / ".venv/bin/ruff"
    tool.parent.mkdir(parents=True)
    answer = (
        f'[{{"code":"F821","filename":"{root}/a.py","location":{{"row":1}},"message":"Undefined name","fix":null}}]'
    )
    tool.write_text(f"#!/bin/sh\ncat <<'EOF'\n{answer}\nEOF\n", encoding="utf-8")
    tool.chmod(0o755)
    result = analyse("language", root, agent_type="python-specialist")
    linted = finding(result, "ruff:F821")
    assert (linted["path"], linted["severity"]) == ("a.py", "high")
    assert result["metrics"]["linter"] == "ruff"
    tool.write_text("#!/bin/sh\necho no such option >&2\nexit 2\n", encoding="utf-8")
    assert "exit status 2" in analyse("language", root)["warnings"][0]


def test_linter_output_formats() -> None:
    """A parser breaks on the format of its linter."""
    vet = list(linters._parse_vet("", "# pkg\n./a.go:3:2: unreachable code\n"))
    assert [(one.path, one.line) for one in vet] == [("a.go", 3)]
    eslint = (
        '[{"filePath":"/p/a.js","messages":[{"ruleId":"no-undef","severity":2,"line":4,"message":"x is not defined"}]}]'
    )
    assert [one.kind for one in linters._parse_eslint(eslint, "")] == ["eslint:no-undef"]

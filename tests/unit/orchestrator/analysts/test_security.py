"""The security auditor: what is dangerous is found, what is not is left alone, secrets are never shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.analysts import hygiene, pysecurity, pysource, secrets, securityrules
from orchestrator.context.secrets import redact
from tests.support.repositories import analyse, finding, kinds, write

TOKEN = "ghp_" + "a8Kd02mZqP4vXr7TbN1sWy5cJ9eLh3uGfQ6o"


def test_secret_is_found_and_never_shown(tmp_path: Path) -> None:
    """The report of a leak leaks it again."""
    result = analyse("security", write(tmp_path / "p", {"app.py": f"token = '{TOKEN}'\n"}))
    found = finding(result, "secret")
    assert (found["severity"], found["path"], found["line"]) == ("critical", "app.py", 1)
    assert TOKEN[8:] not in json.dumps(result)


@pytest.mark.parametrize(
    "text",
    [
        "AKIAIOSFODNN7EXAMPLE",
        "password = 'changeme-please-now'",
        "url = 'https://user:pass@localhost/x'",
        "secret = os.environ['SECRET_KEY_FOR_X1']",
        "api_key = 'app.settings.api_key_name'",
        "# begins with -----BEGIN PRIVATE KEY----- as a rule",
        "secret_name = 'projects/one/two/three9'",
    ],
)
def test_placeholder_is_no_secret(text: str) -> None:
    """Documentation and configuration set off the alarm."""
    assert list(secrets.find_secrets(text)) == []


@pytest.mark.parametrize(
    "text",
    [
        "api_key = 'secret-8fK2mQ9zX7vB4nL1'",
        "PASSWORD = 'Password8fK2mQ9zX7vB4nL1'",
        "url = 'postgres://admin:secret_8fK2mQ9zX7vB4nL1@db.internal/app'",
    ],
)
def test_a_secret_that_calls_itself_one_is_found(text: str) -> None:
    """A value was taken for a placeholder since it holds the word `secret`, though contexts hide it."""
    (found,) = secrets.find_secrets(text)
    assert "8fK2" not in found.shown
    assert "8fK2" not in redact(text), "what is hidden from agents is reported to people"


@pytest.mark.parametrize(
    "text",
    [
        "secret = 'my-secret-key-v2-production'",
        "password = 'the-secret-password-1'",
        "api_key = 'secret-secret-1'",
        "url = 'postgres://username:8fK2mQ9zX7vB4nL1@db.internal/app'",
        "url = 'postgres://admin:secret1@db.internal/app'",
    ],
)
def test_a_word_for_a_secret_is_none(text: str) -> None:
    """Names and words of documentation set off the alarm."""
    assert list(secrets.find_secrets(text)) == []


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("shell-injection", "import subprocess\nsubprocess.run(f'ls {x}', shell=True)\n"),
        ("shell-injection", "from os import system as s\ns('ls ' + x)\n"),
        ("dynamic-code", "eval(x)\n"),
        ("unsafe-deserialization", "import yaml\nyaml.load(x)\n"),
        ("unsafe-deserialization", "import pickle\npickle.loads(x)\n"),
        ("sql-injection", "cursor.execute(f'SELECT a FROM t WHERE id = {x}')\n"),
        ("sql-injection", "cursor.execute('SELECT a FROM t WHERE id = %s' % x)\n"),
        ("no-tls-verification", "import requests\nrequests.get(u, verify=False, timeout=3)\n"),
        ("weak-random", "import random\ntoken = random.choice(x)\n"),
        ("archive-traversal", "tar.extractall(x)\n"),
        ("unverified-token", "jwt.decode(t, options={'verify_signature': False})\n"),
    ],
)
def test_dangerous_python_is_found(kind: str, source: str) -> None:
    """A check stops seeing what it is there for."""
    tree = pysource.parse("m.py", source.encode()).tree
    assert tree is not None
    assert kind in [one.kind for one in pysecurity.check("m.py", tree)]


@pytest.mark.parametrize(
    "source",
    [
        "import subprocess\nsubprocess.run(['ls', x])\n",
        "import subprocess\nsubprocess.run('ls -l', shell=True)\n",
        "import yaml\nyaml.load(x, Loader=yaml.SafeLoader)\n",
        "cursor.execute('SELECT a FROM t WHERE id = ?', (x,))\n",
        "import hashlib\nhashlib.md5(x, usedforsecurity=False)\n",
        "tar.extractall(x, filter='data')\n",
        "import ast\nast.literal_eval(x)\n",
        "model.eval()\n",
    ],
)
def test_safe_python_is_left_alone(source: str) -> None:
    """A false alarm that a maintainer would call silly."""
    tree = pysource.parse("m.py", source.encode()).tree
    assert tree is not None
    assert list(pysecurity.check("m.py", tree)) == []


def test_other_languages_by_text() -> None:
    """Comments set off alarms, or a rule no longer matches."""
    assert [one.kind for one in securityrules.check("a.js", "exec(`rm ${x}`)\n// exec(`rm ${x}`)\n", "JavaScript")] == [
        "shell-injection"
    ]
    assert [one.kind for one in securityrules.check("a.go", "c := tls.Config{InsecureSkipVerify: true}\n", "Go")] == [
        "no-tls-verification"
    ]


def test_workflow_injection_only_in_scripts() -> None:
    """An expression that is passed by env is taken for an injection, or one in a block script is missed."""
    bad = "on: issues\npermissions: {}\njobs:\n  a:\n    steps:\n      - run: |\n"
    bad += "          echo ${{ github.event.issue.title }}\n"
    good = bad.replace(
        "echo ${{ github.event.issue.title }}", "echo $T\n        env:\n          T: ${{ github.event.issue.title }}"
    )
    assert [(one.kind, one.line) for one in hygiene.check_workflow(".github/workflows/a.yml", bad)] == [
        ("script-injection", 7)
    ]
    assert list(hygiene.check_workflow(".github/workflows/a.yml", good)) == []


def test_image_checks() -> None:
    """A build stage's own name is taken for an unpinned image."""
    text = "FROM python AS build\nFROM build\nENV API_TOKEN=s3cr3tvalue\nCMD python\n"
    found = [(one.kind, one.line) for one in hygiene.check_dockerfile("Dockerfile", text)]
    assert found == [("image-not-pinned", 1), ("runs-as-root", 2), ("secret-in-image", 3)]


def test_marked_line_and_safe_project_are_quiet(tmp_path: Path) -> None:
    """What was weighed and marked in place is reported again and again."""
    files = {"a.py": "eval(x)  # nosec\n", "b.py": "def f():\n    return 1\n"}
    assert kinds(analyse("security", write(tmp_path / "p", files))) == set()


def test_what_is_withheld_from_git_is_not_the_projects(tmp_path: Path) -> None:
    """A sidecar's storage inside a project without git is reported as a leak of its own keys."""
    key = "-----BEGIN PRIVATE KEY-----\n" + "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC" * 4 + "\n"
    files = {".sidecar/.gitignore": "# not for git\n*\n", ".sidecar/keys/a.pem": key, "a.py": "X = 1\n"}
    assert not kinds(analyse("security", write(tmp_path / "p", files))) & {"secret"}
    (tmp_path / "p" / ".sidecar" / ".gitignore").write_text("*.pyc\n")
    assert "secret" in kinds(analyse("security", tmp_path / "p"))

"""Small real projects in git, in several languages and with a history."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

#: A Python package with a test, a fault that a linter sees, and a broken link in its README.
PYTHON_FILES = {
    "pyproject.toml": '[project]\nname = "ledger"\nversion = "1.0"\nrequires-python = ">=3.11"\n'
    'dependencies = ["requests>=2"]\n',
    "README.md": "# Ledger\n\nKeeps accounts. See [the guide](docs/guide.md) and [nothing](docs/missing.md).\n",
    "docs/guide.md": "# Guide\n\nOpen an account, then post to it.\n",
    "ledger/__init__.py": '"""Accounts and postings."""\n',
    "ledger/accounts.py": '"""Accounts."""\n\nfrom ledger.money import add\n\n\nclass Account:\n'
    '    """An account with a balance in cents."""\n\n    def __init__(self, balance: int = 0) -> None:\n'
    "        self.balance = balance\n\n    def post(self, amount: int) -> int:\n"
    "        self.balance = add(self.balance, amount)\n        return self.balance\n",
    "ledger/money.py": '"""Money in cents."""\n\n\ndef add(left: int, right: int) -> int:\n'
    '    """The sum."""\n    return left + right\n',
    "tests/test_accounts.py": "from ledger.accounts import Account\n\n\ndef test_posting():\n"
    "    assert Account(5).post(7) == 12\n",
    ".gitignore": "*.pyc\n__pycache__/\nbuild/\n",
}

#: A module in Go, one in TypeScript and a crate in Rust, in one repository.
MIXED_FILES = {
    "go.mod": "module example.invalid/service\n\ngo 1.22\n",
    "main.go": 'package main\n\nimport "fmt"\n\nfunc main() {\n\tfmt.Println(Greeting("world"))\n}\n',
    "greeting.go": "package main\n\n// Greeting greets.\n"
    'func Greeting(name string) string {\n\treturn "hello " + name\n}\n',
    "greeting_test.go": 'package main\n\nimport "testing"\n\nfunc TestGreeting(t *testing.T) {\n'
    '\tif Greeting("x") != "hello x" {\n\t\tt.Fatal("wrong")\n\t}\n}\n',
    "web/package.json": '{"name": "web", "version": "1.0.0", "dependencies": {"react": "^18.0.0"}}\n',
    "web/src/index.ts": "export function greet(name: string): string {\n  return `hello ${name}`;\n}\n",
    "engine/Cargo.toml": '[package]\nname = "engine"\nversion = "0.1.0"\nedition = "2021"\n',
    "engine/src/lib.rs": "/// Adds.\npub fn add(a: i32, b: i32) -> i32 {\n    a + b\n}\n",
    "README.md": "# Service\n",
}


def git(directory: Path, *arguments: str, date: str = "2026-01-02T03:04:05Z") -> str:
    """Run git in ``directory``; its output. ``date`` is fixed, so that the same history has the same hashes."""
    environment = {
        **os.environ,
        "GIT_AUTHOR_NAME": "Ada",
        "GIT_AUTHOR_EMAIL": "ada@example.invalid",
        "GIT_COMMITTER_NAME": "Ada",
        "GIT_COMMITTER_EMAIL": "ada@example.invalid",
        "GIT_AUTHOR_DATE": date,
        "GIT_COMMITTER_DATE": date,
    }
    done = subprocess.run(["git", *arguments], cwd=directory, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"git {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def write_files(directory: Path, files: Mapping[str, str]) -> None:
    """Write texts to paths below ``directory``."""
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def commit_all(directory: Path, subject: str) -> str:
    """Commit everything that git sees; the new commit's hash."""
    git(directory, "add", "--all")
    git(directory, "commit", "--quiet", "--allow-empty", "--message", subject)
    return git(directory, "rev-parse", "HEAD").strip()


def repository(directory: Path, files: Mapping[str, str], *, subject: str = "Begin") -> Path:
    """A new repository on branch ``main`` with one commit of ``files``; its real path."""
    directory.mkdir(parents=True)
    git(directory, "init", "--quiet", "--initial-branch", "main")
    write_files(directory, files)
    commit_all(directory, subject)
    return directory.resolve()


def sample_repository(directory: Path, *, seed: str = "ledger") -> Path:
    """A Python project with three commits, named by ``seed`` in a file of its own."""
    root = repository(directory, {**PYTHON_FILES, "NAME.txt": f"{seed}\n"}, subject="Begin the ledger")
    write_files(root, {"ledger/money.py": PYTHON_FILES["ledger/money.py"].replace("The sum", "The sum in cents")})
    commit_all(root, "Say the unit of the sum")
    write_files(root, {"docs/guide.md": PYTHON_FILES["docs/guide.md"] + "\nBalances are cents.\n"})
    commit_all(root, "Explain balances")
    return root


def mixed_repository(directory: Path) -> Path:
    """Go, TypeScript and Rust in one repository."""
    return repository(directory, MIXED_FILES, subject="Begin the service")

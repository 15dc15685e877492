"""Nothing undocumented: endpoints, settings, metrics, error codes, commands, event types."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from functools import cache
from typing import get_type_hints

import click
import msgspec
import pytest
from click.testing import CliRunner

from api.cli.app import root as command_line
from api.routes.table import ALL_ROUTES
from orchestrator.config import SHORT_VARIABLES, Section, Settings
from tests.support.markdown import ROOT
from tests.support.server import Server

EVENT_TYPES = [
    *("agent_spawned", "agent_started", "agent_completed", "agent_failed", "agent_killed", "agent_restarted"),
    *("result_stored", "phase_complete", "run_started", "run_completed", "approval_requested"),
]
TOPICS = [
    *("architecture", "implementation", "testing", "security", "deployment", "documentation", "error"),
    "coordination",
]
PROFILE_KEYS = [
    *("name", "description", "model", "tools", "category", "permission_class", "context", "subscribes"),
    *("publishes", "hands_over_to", "runtime", "command", "workspace", "limits", "restart", "timeout_seconds"),
]


@cache
def page(name: str) -> str:
    """A page of the reference."""
    path = ROOT / "docs" / "reference" / name
    assert path.exists(), f"docs/reference/{name} is missing"
    return path.read_text(encoding="utf-8")


def unnamed(path: str) -> str:
    """A path whose parameters have lost their names."""
    return re.sub(r"(\{[^}]*\}|<[^>]*>)", "{}", path)


def test_every_endpoint_is_documented() -> None:
    """An endpoint that is not in the reference does not exist for its readers."""
    told = {
        (found[1], unnamed(found[2]))
        for found in re.finditer(r"\b(GET|POST|DELETE|PUT|PATCH) `?(/[^\s`?|)]*)", page("http.md").replace("` `", " "))
    }
    missing = {
        f"{route.method} {route.path}" for route in ALL_ROUTES if (route.method, unnamed(route.path)) not in told
    }
    assert missing == set()


def test_no_endpoint_is_invented() -> None:
    """A documented endpoint that is not served sends its readers into 404s."""
    served = {unnamed(route.path) for route in ALL_ROUTES}
    told = {
        unnamed(found[1])
        for found in re.finditer(
            r"\b(?:GET|POST|DELETE|PUT|PATCH) `?(/[^\s`?|)]*)", page("http.md").replace("` `", " ")
        )
    }
    assert told - served == set()


def settings() -> list[str]:
    """``section.name`` of every setting."""
    return [
        f"{section}.{field.name}"
        for section, hint in get_type_hints(Settings).items()
        if isinstance(hint, type) and issubclass(hint, Section)
        for field in msgspec.structs.fields(hint)
    ]


def test_every_setting_is_documented() -> None:
    """With its section, so that two of the same name are told apart."""
    text = page("configuration.md")
    parts = re.split(r"^#+ .*?`?\[(\w+)\]`?.*$", text, flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    missing = []
    for setting in settings():
        section, _, name = setting.partition(".")
        if f"`{setting}`" not in text and f"`{name}`" not in sections.get(section, ""):
            missing.append(setting)
    assert missing == []
    assert [name for name in SHORT_VARIABLES if name not in text] == []


def test_every_error_code_is_documented() -> None:
    """A code is what a program looks up."""
    found: set[str] = set()
    for package in ("orchestrator", "api"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found |= set(re.findall(r"\b[A-Z]{3,6}_\d{3}\b", node.value))
    assert len(found) > 15
    text = page("errors.md")
    assert sorted(code for code in found if code not in text) == []


def test_every_metric_is_documented(sidecar: Server) -> None:
    """Dashboards and alerts are built from this list."""
    text = page("metrics.md")
    served = set(re.findall(r"^# TYPE (\S+) ", sidecar.anonymous().get("/metrics").body.decode(), re.MULTILINE))
    assert len(served) > 6
    assert (
        sorted(
            name for name in served if not name.endswith("_created") and not re.search(rf"`{name}(_total)?[`{{]", text)
        )
        == []
    )


def all_commands(group: click.Group, context: click.Context, path: str = "") -> list[tuple[str, click.Command]]:
    """Every command below a group with its words."""
    found: list[tuple[str, click.Command]] = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, name
        words = f"{path} {name}".strip()
        if isinstance(command, click.Group):
            found += all_commands(command, click.Context(command, parent=context), words)
        else:
            found.append((words, command))
    return found


COMMANDS = all_commands(command_line, click.Context(command_line))


@pytest.mark.parametrize(("words", "command"), COMMANDS, ids=[words for words, _ in COMMANDS])
def test_every_command_and_option_is_documented(words: str, command: click.Command) -> None:
    """And its help shows an example."""
    text = page("cli.md")
    assert f"orchestrator {words}" in text
    own = [option for option in command.params if isinstance(option, click.Option) and not option.hidden]
    missing = [option.opts[-1] for option in own if not any(name in text for name in option.opts)]
    assert missing == []
    shown = CliRunner().invoke(command_line, [*words.split(), "--help"])
    assert shown.exit_code == 0, shown.output
    assert "Examples:" in shown.output or "Example:" in shown.output


def test_every_event_of_the_sidecar_is_documented() -> None:
    """Whoever waits for one must know its name and its data."""
    text = page("events.md")
    assert [kind for kind in EVENT_TYPES + TOPICS if f"`{kind}`" not in text] == []


def test_every_key_of_a_profile_is_documented() -> None:
    """A role's author reads this page and no other."""
    text = page("profiles.md")
    assert [key for key in PROFILE_KEYS if f"`{key}`" not in text] == []


def test_the_made_pages_are_up_to_date() -> None:
    """A page that is made from the program must be made again when the program changes."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr

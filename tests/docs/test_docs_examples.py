"""Examples that work: the tutorial word for word, commands and settings that exist."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from api.cli.app import root as command_line
from orchestrator.config import PROJECT_SECTIONS, Settings, load_settings
from tests.support.markdown import ROOT, blocks, name_of, pages
from tests.support.processes import assert_no_survivors

TUTORIAL = ROOT / "docs" / "tutorial" / "first-team.md"


def console_lines(page: Path) -> list[str]:
    """The commands of a page's console blocks that are run."""
    text = "".join(block.text for block in blocks(page) if block.language == "console" and block.is_run)
    return [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]


@pytest.mark.critical
@pytest.mark.timeout(300)
def test_the_tutorial_works_word_for_word(tmp_path: Path) -> None:
    """The first page that a new user follows: every command must do what it says, in this order."""
    storage = tmp_path / "storage"
    script = tmp_path / "tutorial.sh"
    lines = ["set -euo pipefail", *console_lines(TUTORIAL)]
    script.write_text("\n".join(f"echo {shlex.quote('$ ' + line)}\n{line}" for line in lines) + "\n")
    environment = os.environ | {
        "PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}",
        "ORCHESTRATOR_STORAGE": str(storage),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    log = tmp_path / "tutorial.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["bash", str(script)], cwd=tmp_path, env=environment, stdout=out, stderr=out, start_new_session=True
        )
        try:
            code = process.wait(280)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            if process.returncode != 0:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    said = log.read_text(errors="replace")
    assert code == 0, said[-6000:]
    assert_no_survivors(str(storage), timeout_s=10)
    # What the text promises.
    for word in ("cart.py", "guide.md", "eval", "I am python-specialist", "deployed", "healthy"):
        assert word in said, f"{word!r} is nowhere in:\n{said[-8000:]}"
    # What the tutorial itself makes is no part of the project: agents would be told of it.
    left = subprocess.run(["git", "status", "--porcelain"], cwd=tmp_path / "shop", capture_output=True, text=True)
    assert (left.returncode, left.stdout) == (0, "")


def commands() -> list[tuple[str, str]]:
    """Every ``orchestrator`` command in a code block of any page: (page, command)."""
    found = []
    for page in pages():
        for block in blocks(page):
            if block.language not in ("sh", "console", "bash"):
                continue
            for line in block.text.replace("\\\n", " ").splitlines():
                # A command inside another's quotes, $(orchestrator token), is taken out of them.
                plain = re.sub(r"\"[^\"]*\$\((orchestrator [^)]*)\)[^\"]*\"", r"; \1 ;", line.removeprefix("$ "))
                for part in re.split(r"&&|\|\||[|;]|\$\(|\)", plain.partition(" # ")[0]):
                    match = re.match(r"\s*(?:\S*/)?orchestrator\s+(.*)", part)
                    if match:
                        command = re.sub(r"(\d?>+\s*\S+|\s&\s*$|2>&1)", "", match[1]).strip()
                        found.append((name_of(page), command))
    return sorted(set(found))


@pytest.mark.parametrize(("page", "command"), commands())
def test_documented_commands_exist_with_their_options(page: str, command: str) -> None:
    """An option that was renamed leaves its old name in some page."""
    try:
        arguments = shlex.split(command)
    except ValueError:
        pytest.fail(f"{page}: not a command: {command}")
    group: click.Command = command_line
    context = click.Context(command_line, info_name="orchestrator")
    while isinstance(group, click.Group):
        parser = group.make_parser(context)
        parser.allow_interspersed_args = False
        _, arguments, _ = parser.parse_args(arguments)
        assert arguments, f"{page}: {command}: a command is missing"
        name = arguments.pop(0)
        found = group.get_command(context, name)
        assert found is not None, f"{page}: no command {name}"
        group, context = found, click.Context(found, info_name=name, parent=context)
    try:
        group.make_parser(context).parse_args(arguments)
    except click.UsageError as error:
        pytest.fail(f"{page}: {command}: {error.format_message()}")


def code_blocks(language: str) -> list[Any]:
    """Blocks of a language, as test parameters."""
    return [
        pytest.param(block.text, id=f"{name_of(page)}:{block.line}")
        for page in pages()
        for block in blocks(page)
        if block.language == language and block.is_run
    ]


@pytest.mark.parametrize("text", code_blocks("toml"))
def test_documented_settings_are_taken(tmp_path: Path, text: str) -> None:
    """A setting that does not exist is refused at start: the reader would be stuck."""
    document = tomllib.loads(text)
    if set(document) - set(Settings.__struct_fields__) - PROJECT_SECTIONS:
        pytest.skip("not an orchestrator.toml")
    (tmp_path / "orchestrator.toml").write_text(text)
    load_settings(project_dir=tmp_path, environ={"HOME": str(tmp_path)})


@pytest.mark.parametrize("text", code_blocks("json"))
def test_documented_json_is_json(text: str) -> None:
    """One document, or one a line."""
    try:
        json.loads(text)
    except ValueError:
        for line in filter(None, text.splitlines()):
            json.loads(line)


@pytest.mark.parametrize("text", code_blocks("yaml"))
def test_documented_yaml_is_yaml(text: str) -> None:
    """Tabs and bad indentation do not show on a page."""
    list(yaml.safe_load_all(text))


def test_ci_runs_the_readmes_test_command() -> None:
    """The command that users are told must be the one that is proven."""
    readme = [line for block in blocks(ROOT / "README.md") for line in block.text.splitlines()]
    (command,) = [line for line in readme if line.endswith("/tox")]
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()
    (main,) = [line for line in readme if line.startswith("python3 ") and "orchestrator run" in line]
    assert main.startswith("python3 -m venv .venv && ")

"""The reference of the command line, made from the commands themselves.

``python -m api.cli.reference`` prints it; a test compares it with ``docs/reference/cli.md``.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Sequence

import click

from api.cli.app import SECTIONS, root
from api.cli.options import COMMON

_INTRODUCTION = """# Command line

`orchestrator COMMAND` talks to the sidecar that runs on the storage directory, else to the one at
`http://127.0.0.1:3001`. This page is made from the commands' own help: `python -m api.cli.reference`.

Exit codes: 0 ok, 1 the work failed, 2 usage, 3 sidecar not reachable, 4 not permitted.

Answers go to standard output, everything else to standard error. Commands that list or show take
`--format table|json|csv|yaml`. Shell completion: `orchestrator completion bash|zsh|fish`.

Every command takes:

| option | meaning |
|---|---|
"""


def reference() -> str:
    """The whole page, in Markdown."""
    context = click.Context(root, info_name="orchestrator")
    common = [parameter for parameter in root.params if parameter.name in COMMON]
    parts = [_INTRODUCTION + "".join(f"{row}\n" for row in _rows(common, context))]
    for title, section in SECTIONS.items():
        parts.append(f"## {title}\n")
        for name in section:
            command = root.get_command(context, name)
            assert command is not None, name
            parts.extend(_entries(command, click.Context(command, info_name=name, parent=context)))
    return "\n".join(parts)


def _entries(command: click.Command, context: click.Context) -> Iterator[str]:
    if isinstance(command, click.Group):
        yield f"### {context.command_path}\n\n{_text(command)}"
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None, name
            yield from _entries(child, click.Context(child, info_name=name, parent=context))
        return
    usage = command.collect_usage_pieces(context)
    own = [each for each in command.params if isinstance(each, click.Option) and each.name not in COMMON]
    rows = [row for row in _rows(own, context) if row]
    table = "\n| option | meaning |\n|---|---|\n" + "\n".join(rows) + "\n" if rows else ""
    yield f"### {context.command_path}\n\n`{' '.join([context.command_path, *usage])}`\n\n{_text(command)}{table}"


def _rows(parameters: Sequence[click.Parameter], context: click.Context) -> list[str]:
    rows = []
    for parameter in parameters:
        record = parameter.get_help_record(context)
        if record is not None:
            option, meaning = (re.sub(r"\s+", " ", part).replace("|", "\\|") for part in record)
            rows.append(f"| `{option}` | {meaning} |")
    return rows


def _text(command: click.Command) -> str:
    """The help text, its examples as a code block."""
    text = inspect.cleandoc(command.help or "")
    before, _, examples = text.partition("\b\nExamples:\n")
    lines = [line.strip() for line in examples.splitlines() if line.strip()]
    return f"{before.strip()}\n\n```console\n" + "".join(f"$ {line}\n" for line in lines) + "```\n"


if __name__ == "__main__":
    sys.stdout.write(reference())

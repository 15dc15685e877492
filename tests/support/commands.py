"""The command line's commands, as click knows them."""

from __future__ import annotations

from collections.abc import Iterator

import click

from api.cli.app import root


def all_commands() -> dict[str, click.Command]:
    """Every command that does something (no groups), by its words: ``agent spawn``."""
    return dict(_walk(root, ()))


def all_groups() -> dict[str, click.Group]:
    """Every group below the root, by its word."""
    context = click.Context(root)
    found = ((name, root.get_command(context, name)) for name in root.list_commands(context))
    return {name: command for name, command in found if isinstance(command, click.Group)}


def _walk(group: click.Group, words: tuple[str, ...]) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, name
        if isinstance(command, click.Group):
            yield from _walk(command, (*words, name))
        else:
            yield " ".join((*words, name)), command

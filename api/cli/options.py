"""What every command takes: where the sidecar is, and how to speak."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

#: Output formats of commands that list or show.
FORMATS = ("table", "json", "csv", "yaml")

#: Names of the parameters that become the session.
COMMON = ("storage", "url", "project_id", "quiet", "no_color")


def _parameters() -> list[click.Option]:
    return [
        click.Option(
            ["--storage"],
            metavar="DIR",
            help="The sidecar's storage directory (ORCHESTRATOR_STORAGE).",
        ),
        click.Option(["--url"], metavar="URL", help="The sidecar's address (ORCHESTRATOR_URL)."),
        click.Option(
            ["--project-id"],
            metavar="ID",
            help="The project to act in; by default the one that holds the current directory.",
        ),
        click.Option(["--quiet", "-q"], is_flag=True, help="Say nothing but what was asked for."),
        click.Option(["--no-color"], is_flag=True, help="No colours (NO_COLOR works too)."),
    ]


def common_options(function: F) -> F:
    """Add the common options to a group; its commands take them as well."""
    for option in reversed(_parameters()):
        params: list[click.Parameter] = getattr(function, "__click_params__", [])
        params.append(option)
        function.__click_params__ = params  # type: ignore[attr-defined]
    return function


class Command(click.Command):
    """A command with the common options, whose callback is handed the ``Session`` made of them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(_parameters())

    def invoke(self, ctx: click.Context) -> Any:
        """Make the session of the options (its own before its groups') and run the callback."""
        from api.cli.session import Session

        values: dict[str, Any] = dict(ctx.obj) if isinstance(ctx.obj, dict) else {}
        for name in COMMON:
            own = ctx.params.pop(name, None)
            values[name] = own or values.get(name)
        values["format"] = ctx.params.pop("format", None)
        ctx.obj = Session(**values)
        try:
            return super().invoke(ctx)
        finally:
            ctx.obj.close()

    def get_short_help_str(self, limit: int = 45) -> str:
        """The first sentence whole: click would cut it at 45 characters."""
        return super().get_short_help_str(max(limit, 110))


class Group(click.Group):
    """A group whose commands take the common options."""

    command_class = Command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the names that there are in the message."""
        name = args[0] if args else ""
        if name and not name.startswith("-") and self.get_command(ctx, name) is None:
            raise click.UsageError(f"No such command '{name}'; there is {', '.join(self.list_commands(ctx))}.", ctx)
        return super().resolve_command(ctx, args)


def formatted(function: F) -> F:
    """Add ``--format`` to a command that lists or shows."""
    option = click.option(
        "--format",
        "format",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        help="How to print; all but table are for programs.",
    )
    return option(function)


def limited(default: int = 100) -> Callable[[F], F]:
    """Add ``--limit`` to a command that lists."""
    return click.option(
        "--limit",
        type=click.IntRange(1, 100_000),
        default=default,
        show_default=True,
        metavar="N",
        help="At most so many.",
    )

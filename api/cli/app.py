"""The command line's root: finds commands without importing them all, turns every failure into a sentence.

Exit codes: 0 ok, 1 the work failed, 2 usage, 3 sidecar not reachable, 4 not permitted.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from api.cli.options import Group, common_options

#: Name -> (module, attribute, one line of help), by section, in the order in which help shows them.
SECTIONS: dict[str, dict[str, tuple[str, str, str]]] = {
    "Work": {
        "run": ("run", "run", "Have a team of agents work on a task, and report."),
        "agent": ("agents", "agent", "Spawn, watch, talk to and end agents."),
        "runs": ("runs", "runs", "List, show, approve and cancel runs."),
        "results": ("results", "results", "List, read, store and compare results."),
        "events": ("events", "events", "Publish, read and follow events."),
        "context": ("contexts", "context", "See, refresh, clear and search what roles are given."),
        "knowledge": ("knowledge", "knowledge", "Search decisions and findings of earlier work, add notes."),
    },
    "Sidecar": {
        "serve": ("serve", "serve", "Run the sidecar in the foreground."),
        "stop": ("serve", "stop", "Stop a running sidecar and wait until it has ended."),
        "status": ("status", "status", "Show what the sidecar does and how it is."),
        "pool": ("pool", "pool", "Show the pool of agents; pause, drain and resume it."),
        "token": ("token", "token", "Print a token for an operator or a role."),
        "service": ("service", "service", "Install the sidecar as a service of your user account."),
        "doctor": ("doctor", "doctor", "Check this machine and say what is missing."),
    },
    "Roles and settings": {
        "profiles": ("profiles", "profiles", "List, show, check and write role profiles."),
        "config": ("settings", "config", "Show the settings in force and where they come from."),
        "completion": ("completion", "completion", "Print the shell completion script."),
    },
    "Care": {
        "backup": ("backup", "backup", "Write a consistent copy of the storage, also while running."),
        "restore": ("backup", "restore", "Put a backup in place, after checking it."),
        "repair": ("backup", "repair", "Rebuild every copy from the database."),
    },
}


class Root(Group):
    """The group of all commands; a command's module is imported when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of the sections."""
        return [name for section in SECTIONS.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None when there is none of this name."""
        for section in SECTIONS.values():
            if cmd_name in section:
                module, attribute, _ = section[cmd_name]
                command: click.Command = getattr(importlib.import_module(f"api.cli.{module}"), attribute)
                return command
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest name in the message."""
        name = args[0] if args else ""
        if name and not name.startswith("-") and self.get_command(ctx, name) is None:
            near = difflib.get_close_matches(name, self.list_commands(ctx), n=1)
            hint = f" Did you mean '{near[0]}'?" if near else " See 'orchestrator --help'."
            raise click.UsageError(f"No such command '{name}'.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by section, from the table alone."""
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, (_, _, text) in section.items()])


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"orchestrator {version('orchestration-sidecar')}")
        ctx.exit()


@click.group(
    cls=Root,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 ok, 1 the work failed, 2 usage, 3 sidecar not reachable, 4 not permitted.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version."
)
@common_options
@click.pass_context
def root(ctx: click.Context, /, **common: Any) -> None:
    """Run, feed, watch and coordinate coding agents on your repositories.

    \b
    Examples:
      orchestrator run "Review the error handling"
      orchestrator serve --project ~/src/shop
      orchestrator agent list --format json
    """
    ctx.obj = {name: value for name, value in common.items() if value}


def run(args: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; no exception leaves it."""
    from api.cli.failures import explain

    try:
        code = root.main(args=list(args) if args is not None else None, prog_name="orchestrator", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of a pipe has left (`| head`). Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except BaseException as error:  # noqa: BLE001 - the edge of the process
        return explain(error)
    return code if isinstance(code, int) else 0


def main() -> NoReturn:
    """The console script."""
    sys.exit(run())

"""``config``: the settings in force, and where each comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from api.cli.failures import USAGE, Failure
from api.cli.options import Group, formatted
from api.cli.output import Column
from api.cli.session import Session

COLUMNS = (Column("Setting", "setting"), Column("Value", "value"))
ORIGIN_COLUMNS = (*COLUMNS, Column("Origin", "origin"))


@click.group(cls=Group)
def config() -> None:
    """Show the settings in force and where they come from.

    Lowest first: defaults, your own orchestrator.toml, the project's, ORCHESTRATOR_* variables, options.

    \b
    Examples:
      orchestrator config show --origin
      orchestrator config path
    """


@config.command()
@click.argument("names", metavar="[SETTING]...", nargs=-1)
@click.option("--origin", is_flag=True, help="Say which file or variable set each.")
@click.option("--set", "is_set_only", is_flag=True, help="Only those that are not defaults.")
@click.option("--project", metavar="DIR", default=".", help="Whose orchestrator.toml counts (default: here).")
@formatted
@click.pass_obj
def show(session: Session, names: tuple[str, ...], origin: bool, is_set_only: bool, project: str) -> None:
    """Show all settings, or those named (`server`, `server.port`).

    \b
    Examples:
      orchestrator config show
      orchestrator config show --origin --set
      orchestrator config show server.port --format json
    """
    from orchestrator.config import effective

    directory = Path(project).expanduser().resolve()
    if not directory.is_dir():
        raise Failure(f"--project {project}: not a directory; name the project's directory", USAGE)
    rows: list[dict[str, Any]] = [
        {"setting": item.name, "value": item.value, "origin": item.origin}
        for item in effective(session.load(project_dir=directory))
    ]
    for name in names:
        if not any(_is_named(row["setting"], name) for row in rows):
            raise Failure(f"there is no setting {name!r}; 'orchestrator config show' lists all", USAGE)
    if names:
        rows = [row for row in rows if any(_is_named(row["setting"], name) for name in names)]
    if is_set_only:
        rows = [row for row in rows if row["origin"] != "default"]
    if not origin:
        rows = [{"setting": row["setting"], "value": row["value"]} for row in rows]
    session.out.rows(rows, ORIGIN_COLUMNS if origin else COLUMNS, nothing="only defaults")


def _is_named(setting: str, name: str) -> bool:
    return setting == name or setting.startswith(name.rstrip(".") + ".")


@config.command()
@formatted
@click.pass_obj
def path(session: Session) -> None:
    """Show where settings are looked for, lowest first, and which files there are.

    \b
    Examples:
      orchestrator config path
    """
    from orchestrator.config import PROJECT_FILE, user_config_path

    files = [
        {"scope": scope, "path": str(file), "exists": file.is_file()}
        for scope, file in (
            ("user", user_config_path(session.environ)),
            ("project", session.directory / PROJECT_FILE),
        )
    ]
    session.out.rows(files, (Column("Scope", "scope"), Column("Path", "path"), Column("Exists", "exists")))

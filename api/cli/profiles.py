"""``profiles``: the roles in force here, without a running sidecar."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from api.cli.catalogue import open_profiles
from api.cli.failures import FAILED, USAGE, Failure
from api.cli.options import Group, formatted
from api.cli.output import Column
from api.cli.session import Session

if TYPE_CHECKING:
    from orchestrator.profiles import Problem, Profile
    from orchestrator.profiles.model import PermissionClass

CLASSES = ("architect", "coding", "qa-security", "documentation", "support")
COLUMNS = (
    Column("Role", "agent_type"),
    Column("Category", "category"),
    Column("Class", "permission_class"),
    Column("Tier", "tier"),
    Column("Runtime", "runtime"),
    Column("From", "layer"),
    Column("Description", "description"),
)
PROBLEM_COLUMNS = (
    Column("Severity", "severity"),
    Column("File", lambda row: f"{row['source']}:{row['line']}" if row.get("line") else row["source"]),
    Column("Reason", "reason"),
)
#: Where a new role of a project is written, and a user's own.
PROJECT_PROFILES = Path(".orchestrator") / "profiles"

project_option = click.option(
    "--project",
    metavar="DIR",
    default=".",
    show_default=True,
    help="Whose own profiles are laid over the shipped ones.",
)


@click.group(cls=Group)
def profiles() -> None:
    """List, show, check and write role profiles.

    \b
    Examples:
      orchestrator profiles list --category security
      orchestrator profiles show python-specialist
      orchestrator profiles validate
    """


@profiles.command("list")
@click.option("--category", metavar="NAME", help="Only of this category.")
@click.option("--tier", type=click.Choice(("opus", "sonnet", "haiku", "inherit")), help="Only of this tier.")
@click.option("--class", "permission_class", type=click.Choice(CLASSES), help="Only of this permission class.")
@project_option
@formatted
@click.pass_obj
def list_(session: Session, category: str | None, tier: str | None, permission_class: str | None, project: str) -> None:
    """List the roles in force.

    \b
    Examples:
      orchestrator profiles list
      orchestrator profiles list --class architect --format json
      orchestrator profiles list --tier opus --format csv
    """
    wanted = {"category": category, "tier": tier, "permission_class": permission_class}
    chosen = [
        _view(profile)
        for profile in open_profiles(session).list(_directory(project))
        if all(value is None or getattr(profile, name) == value for name, value in wanted.items())
    ]
    session.out.rows(chosen, COLUMNS, nothing="no profiles")


@profiles.command()
@click.argument("agent_type", metavar="TYPE")
@project_option
@formatted
@click.pass_obj
def show(session: Session, agent_type: str, project: str) -> None:
    """Show a role's effective values and which file each comes from.

    \b
    Examples:
      orchestrator profiles show security-auditor
      orchestrator profiles show security-auditor --format yaml
    """
    from orchestrator.profiles.display import effective_values

    directory = _directory(project)
    effective = open_profiles(session).explain(agent_type, directory)
    values = effective_values(effective)
    if session.out.format != "table":
        session.out.document({**_view(effective.profile), "origins": {entry.key: entry.origin for entry in values}})
        return
    rows = [
        {"key": entry.key, "value": _cell(entry.key, entry.value), "origin": _short(entry.origin, directory)}
        for entry in values
        if entry.value not in (None, "", (), [], {}) and entry.key != "instructions"
    ]
    session.out.rows(rows, (Column("Key", "key"), Column("Value", "value"), Column("From", "origin")))
    session.out.text(f"\n{effective.profile.instructions}")


def _cell(key: str, value: Any) -> Any:
    """Hand-overs as names with their case; all else as it is."""
    if key != "hands_over_to":
        return value
    return [
        entry["agent_type"] if entry["when"] == "always" else f"{entry['agent_type']} ({entry['when']})"
        for entry in value
    ]


def _short(origin: str, directory: str) -> str:
    """A file of the project without the project's path."""
    return origin.removeprefix(f"{directory}/")


@profiles.command()
@click.argument("files", metavar="[FILE]...", nargs=-1, type=click.Path(path_type=Path))
@project_option
@formatted
@click.pass_obj
def validate(session: Session, files: tuple[Path, ...], project: str) -> int:
    """Check profile files, or with none named all that are in force and how they hang together.

    Exits with 1 when something is wrong. Notes do not count as wrong.

    \b
    Examples:
      orchestrator profiles validate
      orchestrator profiles validate .orchestrator/profiles/payments.md
      orchestrator profiles validate --format json
    """
    if files:
        problems = [problem for path in files for problem in _check_file(path)]
        count = len(files)
    else:
        from orchestrator.profiles.validation import validate as validate_all

        catalogue = open_profiles(session)
        problems = validate_all(catalogue, _directory(project))
        count = len(catalogue.names(_directory(project)))
    rows = [
        {"severity": p.severity, "source": p.source, "line": p.line, "reason": p.reason, "agent_type": p.agent_type}
        for p in problems
    ]
    if session.out.format != "table" or rows:
        session.out.rows(rows, PROBLEM_COLUMNS)
    wrong = sum(problem.severity != "note" for problem in problems)
    session.out.note(f"{count} profiles, {wrong} problems" if wrong else f"{count} profiles are good")
    return FAILED if wrong else 0


def _check_file(path: Path) -> list[Problem]:
    from orchestrator.profiles import Problem
    from orchestrator.profiles.parser import parse_layer
    from orchestrator.profiles.problems import ProfileInvalid

    try:
        data = path.read_bytes()
    except OSError as error:
        raise Failure(f"{path}: cannot be read: {error.strerror}", USAGE) from error
    dialect: Any = "claude" if ".claude" in path.absolute().parts else "own"
    try:
        return list(parse_layer(data, str(path), dialect).problems)
    except ProfileInvalid as error:
        return [Problem(severity="error", source=str(path), line=error.line, reason=error.reason)]


@profiles.command()
@click.argument("name")
@click.option("--from", "like", metavar="TYPE", help="Take needs, hand-overs and limits from this role.")
@click.option("--class", "permission_class", type=click.Choice(CLASSES), show_default="coding", help="What it may do.")
@click.option("--category", metavar="NAME", show_default="custom", help="Its group in lists.")
@click.option("--user", "is_user", is_flag=True, help="Write it for all of your projects.")
@project_option
@click.pass_obj
def new(
    session: Session,
    name: str,
    like: str | None,
    permission_class: PermissionClass | None,
    category: str | None,
    is_user: bool,
    project: str,
) -> None:
    """Write a new role's file, ready to be edited; an existing file is never overwritten.

    The text is yours to write: that of another role is never taken over, since two roles with one text are one.

    \b
    Examples:
      orchestrator profiles new payments-specialist
      orchestrator profiles new house-reviewer --from code-reviewer --user
    """
    from orchestrator.config import user_config_path
    from orchestrator.profiles.template import profile_template

    if like is not None and (permission_class or category):
        raise Failure("--from takes class and category from that role; leave out --class and --category", USAGE)
    text = profile_template(
        name,
        permission_class=permission_class or "coding",
        category=category or "custom",
        like=open_profiles(session).get(like, _directory(project)) if like else None,
    )
    directory = (
        user_config_path(session.environ).parent / "profiles"
        if is_user
        else Path(_directory(project)) / PROJECT_PROFILES
    )
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / f"{name}.md"
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise Failure(f"{target} exists already; edit it, or choose another name", FAILED) from error
    session.out.text(str(target))


@profiles.command()
@click.option("--from", "start", metavar="TYPE", help="Only what this role leads to.")
@click.option("--depth", type=click.IntRange(1), metavar="N", help="At most so many steps from it.")
@click.option("--category", metavar="NAME", help="Only roles of this category.")
@project_option
@click.pass_obj
def graph(session: Session, start: str | None, depth: int | None, category: str | None, project: str) -> None:
    """Print who hands over to whom, as a Mermaid flowchart.

    \b
    Examples:
      orchestrator profiles graph > handovers.mmd
      orchestrator profiles graph --from chief-architect --depth 1
    """
    from orchestrator.profiles.graph import mermaid, reachable

    catalogue = open_profiles(session)
    known = {profile.agent_type: profile for profile in catalogue.list(_directory(project))}
    roles = set(known)
    if start is not None:
        catalogue.get(start, _directory(project))
        roles = reachable(known, start, depth)
    chosen = [known[role] for role in sorted(roles) if category in (None, known[role].category)]
    session.out.text(mermaid(chosen).rstrip())


@profiles.command()
@click.pass_obj
def schema(session: Session) -> None:
    """Print the JSON Schema of a profile's front matter, for editors and other programs.

    \b
    Examples:
      orchestrator profiles schema > profile.schema.json
    """
    from orchestrator.profiles.schema import profile_schema

    session.out.text(json.dumps(profile_schema(), indent=2))


def _view(profile: Profile) -> dict[str, Any]:
    import msgspec

    view: dict[str, Any] = msgspec.to_builtins(profile)
    return view


def _directory(project: str) -> str:
    directory = Path(project).expanduser().resolve()
    if not directory.is_dir():
        raise Failure(f"--project {project}: not a directory; name the project's directory", USAGE)
    return str(directory)

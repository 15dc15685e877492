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
      orchestrator profiles list --category testing
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
    effective = open_profiles(session).explain(agent_type, _directory(project))
    view = _view(effective.profile)
    if session.out.format != "table":
        session.out.document({**view, "origins": effective.origins})
        return
    from api.cli.output import flatten

    instructions = view.pop("instructions", "")
    rows = [
        {"key": key, "value": value, "origin": _origin(effective.origins, key)} for key, value in flatten(view) if value
    ]
    session.out.rows(rows, (Column("Key", "key"), Column("Value", "value"), Column("From", "origin")))
    session.out.text(f"\n{instructions}")


def _origin(origins: dict[str, str], key: str) -> str:
    origin = origins.get(key) or origins.get(key.partition(".")[0]) or ""
    return Path(origin).name if "/" in origin else origin


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
        catalogue = open_profiles(session)
        known = catalogue.list(_directory(project))
        problems = [*catalogue.problems(_directory(project)), *check_graph(known)]
        count = len(known)
    rows = [
        {"severity": p.severity, "source": p.source, "line": p.line, "reason": p.reason, "agent_type": p.agent_type}
        for p in problems
    ]
    if session.out.format != "table" or rows:
        session.out.rows(rows, PROBLEM_COLUMNS)
    wrong = sum(problem.severity != "note" for problem in problems)
    session.out.note(f"{count} profiles, {wrong} problems" if wrong else f"{count} profiles are good")
    return FAILED if wrong else 0


def check_graph(known: list[Profile]) -> list[Problem]:
    """What is wrong with the hand-overs as a whole: roles that nothing leads to, and unmeant ends."""
    from api.cli.handovers import ROOT_ROLE, edges_of, unreachable
    from orchestrator.profiles import Problem

    by_name = {profile.agent_type: profile for profile in known}
    problems = [
        Problem(
            severity="warning",
            source=by_name[role].source,
            reason=f"no chain of hand-overs from {ROOT_ROLE} reaches {role!r}",
            agent_type=role,
        )
        for role in unreachable(edges_of(known))
        # A user's or project's own role may well be spawned by name only.
        if by_name[role].layer == "shipped"
    ]
    problems += [
        Problem(
            severity="warning",
            source=profile.source,
            reason="hands over to nobody and is not marked final (is_final: true)",
            agent_type=profile.agent_type,
        )
        for profile in known
        if not profile.hands_over_to and not profile.is_final and profile.layer == "shipped"
    ]
    return problems


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
@click.option("--from", "template", metavar="TYPE", help="Begin with a copy of this role.")
@click.option("--class", "permission_class", type=click.Choice(CLASSES), default="coding", show_default=True)
@click.option("--category", metavar="NAME", default="custom", show_default=True)
@click.option("--user", "is_user", is_flag=True, help="Write it for all of your projects.")
@project_option
@click.pass_obj
def new(
    session: Session,
    name: str,
    template: str | None,
    permission_class: str,
    category: str,
    is_user: bool,
    project: str,
) -> None:
    """Write a new role's file, ready to be edited; an existing file is never overwritten.

    \b
    Examples:
      orchestrator profiles new payments-specialist
      orchestrator profiles new house-reviewer --from code-reviewer --user
    """
    from orchestrator.config import user_config_path
    from orchestrator.identifiers import check_identifier

    check_identifier(name, "name")
    text = _copy_of(session, template, name, project) if template else _template(name, permission_class, category)
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


def _copy_of(session: Session, template: str, name: str, project: str) -> str:
    source = Path(open_profiles(session).get(template, _directory(project)).source)
    head, separator, rest = source.read_text(encoding="utf-8").partition(f"name: {template}\n")
    if not separator:
        raise Failure(f"{source}: cannot be used as a template: its name is not on a line of its own", FAILED)
    return f"{head}name: {name}\n{rest}"


def _template(name: str, permission_class: str, category: str) -> str:
    return f"""---
name: {name}
description: One sentence that says when to call on this role.
category: {category}
permission_class: {permission_class}
model: inherit
# Globs of files that count most for this role; requirements are named sections of the context.
context:
  include: ["**/*"]
  requirements: [readme_files, previous_decisions]
subscribes: [coordination]
publishes: []
hands_over_to: [test-engineer]
# runtime: jsonl, text or python, or a coding CLI's name; command: program and arguments.
runtime: text
command: ["cat", "-"]
timeout_seconds: 1800
---

Say what this role is for, what it looks at first, how it works, what it delivers in the result (which keys),
when it hands over and to whom, and what it must not do.
"""


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
    from api.cli.handovers import edges_of, mermaid, reachable

    catalogue = open_profiles(session)
    known = catalogue.list(_directory(project))
    if start is not None:
        catalogue.get(start, _directory(project))
        roles = reachable(edges_of(known), start, depth)
    else:
        roles = {profile.agent_type for profile in known}
    if category is not None:
        roles &= {profile.agent_type for profile in known if profile.category == category}
    session.out.text(mermaid(known, roles))


@profiles.command()
@click.pass_obj
def schema(session: Session) -> None:
    """Print the JSON Schema of a profile's front matter, for editors and other programs.

    \b
    Examples:
      orchestrator profiles schema > profile.schema.json
    """
    import msgspec

    from orchestrator.profiles.authored import FrontMatter

    session.out.text(json.dumps(msgspec.json.schema(FrontMatter), indent=2))


def _view(profile: Profile) -> dict[str, Any]:
    import msgspec

    view: dict[str, Any] = msgspec.to_builtins(profile)
    return view


def _directory(project: str) -> str:
    directory = Path(project).expanduser().resolve()
    if not directory.is_dir():
        raise Failure(f"--project {project}: not a directory; name the project's directory", USAGE)
    return str(directory)

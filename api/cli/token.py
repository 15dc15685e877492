"""``token``: tokens made from the storage's key, without a running sidecar."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from api.cli.failures import USAGE, Failure
from api.cli.options import Command
from api.cli.session import FALLBACK_PROJECT, Session

if TYPE_CHECKING:
    from orchestrator.profiles.model import PermissionClass


@click.command(cls=Command)
@click.option("--agent-type", metavar="TYPE", help="Make a role's token, with its permissions.")
@click.option("--admin", is_flag=True, help="Make an operator's token (the default).")
@click.option("--rotate", is_flag=True, help="Make a new signing key instead of a token; tokens go on being good.")
@click.option("--ttl", type=click.IntRange(1), metavar="SECONDS", help="Seconds until it expires (default 3600).")
@click.pass_obj
def token(session: Session, agent_type: str | None, admin: bool, rotate: bool, ttl: int | None) -> None:
    """Print a token, and nothing else.

    Whoever can read the storage directory is the operator. No sidecar needs to run. A role's token made here has
    no agent behind it: it is good until it expires. With --rotate the storage gets a new key, which a running sidecar
    signs with in a moment; what older keys signed is good until it expires.

    \b
    Examples:
      curl -H "Authorization: Bearer $(orchestrator token)" http://127.0.0.1:3001/api/agents
      orchestrator token --agent-type security-auditor --project-id shop --ttl 600
      orchestrator token --rotate
    """
    if rotate:
        if admin or agent_type or ttl is not None:
            raise Failure("--rotate makes no token; leave --admin, --agent-type and --ttl out", USAGE)
        _rotate(session)
        return
    if admin and agent_type:
        raise Failure("--admin and --agent-type exclude each other; give one", USAGE)
    from api.auth.offline import mint_offline

    permission_class = _class_of(session, agent_type) if agent_type else None
    session.out.text(
        mint_offline(
            session.storage,
            _project_id(session),
            agent_type,
            agent_type is None,
            ttl if ttl is not None else session.settings.auth.token_ttl_s,
            permission_class=permission_class,
        )
    )


def _rotate(session: Session) -> None:
    from api.auth.offline import rotate_offline
    from orchestrator.clock import rfc3339

    kid, until = rotate_offline(session.storage)
    session.out.text(
        f"new tokens are signed with the key {kid}; those of the key before it are good until they expire, "
        f"at the latest until {rfc3339(until)}"
    )


def _project_id(session: Session) -> str:
    """Told, else as the running sidecar says, else the registered one that holds the current directory, else the
    configured first, else the directory's name. Raises Failure where that is another directory's.
    """
    if session.settings.client.project_id:
        return session.settings.client.project_id
    if session.running is not None:
        from api.client import ClientError

        try:
            return session.project_id
        except ClientError:
            session.out.note("the sidecar does not answer; the project is taken from the settings")
    here = session.directory.resolve()
    known = _registered(session)
    holding = [project_id for project_id, path in known.items() if here.is_relative_to(path)]
    if holding:
        return max(holding, key=lambda project_id: len(known[project_id]))
    if session.settings.projects:
        return next(iter(session.settings.projects))
    from orchestrator.projects import is_project, project_id_for

    if not is_project(session.directory):
        return FALLBACK_PROJECT
    wanted = project_id_for(here)
    if wanted in known:
        raise Failure(
            f"the project {wanted!r} is {known[wanted]}, and {here} is none yet; "
            f"name a project with --project-id, or add this one with `orchestrator serve --project ID={here}`",
            USAGE,
        )
    return wanted


def _registered(session: Session) -> dict[str, str]:
    """Path by id of the projects in the storage; none, with a word on it, where the database cannot be read."""
    from orchestrator.errors import StorageReadFailed
    from orchestrator.storage.projects import registered_projects

    try:
        return registered_projects(session.storage)
    except StorageReadFailed as error:
        session.out.note(f"{error.message}; which projects are registered is not known")
        return {}


def _class_of(session: Session, agent_type: str) -> PermissionClass:
    from api.cli.catalogue import open_profiles

    return open_profiles(session).get(agent_type, str(session.directory)).permission_class

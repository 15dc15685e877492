"""``backup``, ``restore`` and ``repair``: care for the storage."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import click

from api.cli.failures import FAILED
from api.cli.options import Command, formatted
from api.cli.session import Session


@click.command(cls=Command)
@click.argument("target", metavar="[FILE]", type=click.Path(path_type=Path), required=False)
@click.option("--with-keys", is_flag=True, help="Also the signing keys: whoever has them is the operator.")
@click.option("--with-agents", is_flag=True, help="Also agents' files and output.")
@formatted
@click.pass_obj
def backup(session: Session, target: Path | None, with_keys: bool, with_agents: bool) -> None:
    """Write a consistent copy of the storage to FILE (default: sidecar-backup-<time>.tar.gz), also while running.

    \b
    Examples:
      orchestrator backup
      orchestrator backup /mnt/backups/sidecar.tar.gz --with-agents
    """
    from orchestrator.archive import write_backup

    path = target or Path(f"sidecar-backup-{time.strftime('%Y%m%d-%H%M%S')}.tar.gz")
    manifest = write_backup(session.storage, path.absolute(), with_keys=with_keys, with_agents=with_agents)
    session.out.document(
        {
            "path": str(path.absolute()),
            "files": len(manifest.files),
            "size_bytes": manifest.size_bytes,
            "schema_version": manifest.schema_version,
            "created_at": manifest.created_at,
        }
    )


@click.command(cls=Command)
@click.argument("source", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Move what is in the storage aside.")
@formatted
@click.pass_obj
def restore(session: Session, source: Path, force: bool) -> int:
    """Put a backup in place; it is checked whole before anything is touched. No sidecar may be running.

    \b
    Examples:
      orchestrator restore sidecar-backup-20260131-120000.tar.gz
      orchestrator restore backup.tar.gz --storage /srv/sidecar --force
    """
    from orchestrator.archive import restore_backup
    from orchestrator.repair import repair as rebuild

    aside = restore_backup(source, session.storage, is_replacing=force)
    repaired = asyncio.run(rebuild(session.storage))
    session.out.document(
        {
            "storage": str(session.storage),
            "results": repaired.results,
            "events": repaired.events,
            "is_sound": repaired.is_sound,
            "replaced": str(aside) if aside else None,
        }
    )
    return 0 if repaired.is_sound else FAILED


@click.command(cls=Command)
@formatted
@click.pass_obj
def repair(session: Session) -> int:
    """Check the database and rebuild every copy from it. No sidecar may be running.

    Exits with 1 when something is damaged; what is whole is served all the same.

    \b
    Examples:
      orchestrator repair
      orchestrator repair --storage /srv/sidecar --format json
    """
    import msgspec

    from orchestrator.repair import repair as rebuild

    repaired = asyncio.run(rebuild(session.storage))
    session.out.document(msgspec.to_builtins(repaired))
    return 0 if repaired.is_sound else FAILED

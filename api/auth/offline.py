"""Minting without a running sidecar, for whoever can read the key: the operator."""

from __future__ import annotations

from pathlib import Path

from api.auth.keys import OVERLAP_S, KeyRing
from api.auth.tokens import TokenCodec
from orchestrator.errors import BadRequest, StorageWriteFailed
from orchestrator.identifiers import check_identifier, new_id
from orchestrator.profiles.model import PermissionClass
from orchestrator.profiles.permissions import PERMISSIONS, permissions_of

#: The ``agent_type`` of an operator's token.
OPERATOR = "operator"


def mint_offline(
    storage_dir: Path,
    project_id: str,
    agent_type: str | None,
    admin: bool,
    ttl_s: float,
    *,
    permission_class: PermissionClass | None = None,
) -> str:
    """A token made from the key in ``storage_dir`` (which is made when there is none).

    Args:
        storage_dir: the sidecar's storage directory.
        project_id: the project that it acts in.
        agent_type: a role; its ``permission_class`` must be given with it.
        admin: an operator's token with all permissions; the default when no role is named.
        ttl_s: seconds until it expires, at least 1.

    Raises BadRequest for a value that cannot be used, StorageReadFailed and StorageWriteFailed for the key.
    """
    check_identifier(project_id, "project_id")
    if ttl_s < 1:
        raise BadRequest("ttl must be at least 1 second", details={"field": "ttl"})
    if agent_type is not None:
        check_identifier(agent_type, "agent_type")
    is_operator = admin or agent_type is None
    permissions: tuple[str, ...] = PERMISSIONS
    if not is_operator:
        if permission_class is None:
            raise BadRequest("a role's token needs its permission class", details={"field": "agent_type"})
        permissions = permissions_of(permission_class)
    keys = KeyRing.open(storage_dir / "keys")
    token, principal = TokenCodec(keys).encode(
        agent_id=new_id("operator" if is_operator else "agent"),
        agent_type=agent_type or OPERATOR,
        project_id=project_id,
        permissions=permissions,
        ttl_s=ttl_s,
    )
    if ttl_s > OVERLAP_S:
        try:
            keys.note_expiry(keys.kid, principal.expires_at)
        except OSError as error:
            raise StorageWriteFailed(f"{storage_dir}/keys cannot be written: {error.strerror or error}") from error
    return token


def rotate_offline(storage_dir: Path) -> tuple[str, float]:
    """Make a new signing key in ``storage_dir``: its id, and until when (seconds since the epoch) old tokens are good.

    A running sidecar signs with it within a second or two. Raises StorageReadFailed and StorageWriteFailed.
    """
    keys = KeyRing.open(storage_dir / "keys")
    try:
        until = keys.rotate()
    except OSError as error:
        raise StorageWriteFailed(f"{storage_dir}/keys cannot be written: {error.strerror or error}") from error
    return keys.kid, until

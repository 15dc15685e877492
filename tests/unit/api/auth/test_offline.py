"""Minting without a server."""

from __future__ import annotations

from pathlib import Path

import jwt
import pytest

from api.auth.keys import KeyRing
from api.auth.offline import mint_offline
from api.auth.tokens import TokenCodec
from orchestrator.errors import BadRequest
from orchestrator.profiles.permissions import PERMISSIONS


def test_an_operators_token_may_do_everything(tmp_path: Path) -> None:
    """It is made before any server ran, and a server must take it."""
    token = mint_offline(tmp_path, "p", None, True, 60)
    principal = TokenCodec(KeyRing.open(tmp_path / "keys")).decode(token)
    assert principal.is_admin
    assert principal.permissions == frozenset(PERMISSIONS)
    assert principal.expires_at - principal.issued_at == 60


def test_a_roles_token_has_its_class_and_a_subject_of_its_own(tmp_path: Path) -> None:
    """Two tokens of one role must not share a rate limit or an end."""
    tokens = [
        mint_offline(tmp_path, "p", "go-specialist", False, 60, permission_class="documentation") for _ in range(2)
    ]
    first, second = (jwt.decode(token, options={"verify_signature": False}) for token in tokens)
    assert first["permissions"] == ["read_context", "write_results", "read_results", "subscribe_events"]
    assert first["sub"] != second["sub"]
    assert first["agent_type"] == "go-specialist"


@pytest.mark.parametrize(
    ("project_id", "agent_type", "ttl_s"), [("../x", None, 60), ("p", "a/b", 60), ("p", "role", 60), ("p", None, 0.5)]
)
def test_bad_values_are_refused(tmp_path: Path, project_id: str, agent_type: str | None, ttl_s: float) -> None:
    """A token with them would be refused later, where nobody sees why."""
    with pytest.raises(BadRequest):
        mint_offline(tmp_path, project_id, agent_type, agent_type is None, ttl_s)

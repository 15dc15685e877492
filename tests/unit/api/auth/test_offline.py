"""Minting without a server."""

from __future__ import annotations

from pathlib import Path

import jwt
import pytest

from api.auth.keys import KeyRing
from api.auth.offline import mint_offline, rotate_offline
from api.auth.tokens import TokenCodec
from orchestrator.errors import BadRequest
from orchestrator.profiles.permissions import PERMISSIONS
from tests.support.api_fakes import FakeClock


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


def test_a_token_that_outlives_the_overlap_outlives_a_rotation(tmp_path: Path) -> None:
    """An operator's token of a year was refused a month after the keys were rotated."""
    keys = tmp_path / "keys"
    year = 365 * 86400
    token = mint_offline(tmp_path, "p", None, True, year)
    principal = TokenCodec(KeyRing.open(keys)).decode(token)
    mint_offline(tmp_path, "p", None, True, year / 2)
    _, until = rotate_offline(tmp_path)
    assert until == principal.expires_at
    _, until = rotate_offline(tmp_path)
    assert until < principal.expires_at, "the second key signed nothing that lives so long"
    clock = FakeClock()
    clock.seconds = principal.expires_at - 1.0
    assert TokenCodec(KeyRing.open(keys, clock=clock), clock=clock).decode(token) == principal

"""The signing keys."""

from __future__ import annotations

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from api.auth.keys import OVERLAP_S, KeyRing
from api.auth.tokens import TokenCodec
from orchestrator.agents.launch import TOKEN_MARGIN_S, TOKEN_MINIMUM_S
from orchestrator.errors import ExpiredToken, InvalidToken, StorageReadFailed, StorageWriteFailed
from orchestrator.profiles.authored import Seconds
from tests.support.api_fakes import FakeClock


def _token(ring: KeyRing, clock: FakeClock) -> str:
    token, _ = TokenCodec(ring, clock=clock).encode(
        agent_id="a", agent_type="t", project_id="p", permissions=("read_context",), ttl_s=600
    )
    return token


def test_keys_are_private_whatever_the_umask(tmp_path: Path) -> None:
    """A key that others can read lets them be the operator."""
    old = os.umask(0)
    try:
        KeyRing.open(tmp_path / "keys")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    for file in (tmp_path / "keys").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name


def test_a_second_open_finds_the_same_key(tmp_path: Path) -> None:
    """A restart that made a new key would end all tokens."""
    assert KeyRing.open(tmp_path / "keys").kid == KeyRing.open(tmp_path / "keys").kid


def test_two_first_starts_at_once_make_one_key(tmp_path: Path) -> None:
    """`serve` and `token` on a fresh storage directory must agree."""
    with ThreadPoolExecutor(4) as pool:
        kids = set(pool.map(lambda _: KeyRing.open(tmp_path / "keys").kid, range(4)))
    assert len(kids) == 1


def test_rotation_keeps_live_tokens(tmp_path: Path) -> None:
    """A rotation in the middle of a run must not lock its agents out; after the overlap it must."""
    clock = FakeClock()
    ring = KeyRing.open(tmp_path / "keys", clock=clock)
    token = _token(ring, clock)
    old = ring.kid
    assert ring.rotate(overlap_s=300) == clock.now() + 300
    new = ring.kid
    assert new != old
    assert {key["kid"] for key in ring.jwks()["keys"]} == {old, new}
    assert TokenCodec(ring, clock=clock).decode(token).agent_id == "a"
    clock.seconds += 301
    with pytest.raises(InvalidToken):
        TokenCodec(ring, clock=clock).decode(token)
    assert {key["kid"] for key in ring.jwks()["keys"]} == {new}
    ring.rotate(overlap_s=300)
    assert not (tmp_path / "keys" / f"{old}.pem").exists()


def test_a_rotation_by_another_process_is_noticed(tmp_path: Path) -> None:
    """The command line rotates while the server runs; the server must learn of it without a restart."""
    clock = FakeClock()
    serving = KeyRing.open(tmp_path / "keys", clock=clock)
    other = KeyRing.open(tmp_path / "keys", clock=clock)
    other.rotate(overlap_s=300)
    assert serving.public_key(other.kid) is None
    serving.refresh()
    assert serving.public_key(other.kid) is None, "a look at the disk for each bad token would make it busy"
    clock.seconds += 2
    serving.refresh()
    assert serving.public_key(other.kid) is not None


def test_a_rotation_by_another_process_is_followed(tmp_path: Path) -> None:
    """A running sidecar went on signing with the retired key, and its tokens were refused once the overlap was over."""
    clock = FakeClock()
    serving = KeyRing.open(tmp_path / "keys", clock=clock)
    old = serving.kid
    other = KeyRing.open(tmp_path / "keys", clock=clock)
    other.rotate()
    serving.follow()
    assert serving.kid == other.kid != old
    assert {key["kid"] for key in serving.jwks()["keys"]} == {old, other.kid}
    token = _token(serving, clock)
    clock.seconds += OVERLAP_S + 1
    fresh = _token(serving, clock)
    codec = TokenCodec(KeyRing.open(tmp_path / "keys", clock=clock), clock=clock)
    assert codec.decode(fresh).agent_id == "a"
    with pytest.raises(ExpiredToken):
        codec.decode(token)


def test_the_overlap_is_longer_than_any_agents_token(tmp_path: Path) -> None:
    """A rotation refused live tokens of agents that had more time than the overlap."""
    longest = next(item for item in get_args(Seconds) if isinstance(item, msgspec.Meta)).le
    assert longest is not None
    assert max(TOKEN_MINIMUM_S, longest + TOKEN_MARGIN_S) + 60 < OVERLAP_S


def test_the_published_keys_hold_no_private_part(tmp_path: Path) -> None:
    """JWKS is open to all."""
    (key,) = KeyRing.open(tmp_path / "keys").jwks()["keys"]
    assert set(key) == {"kty", "use", "alg", "kid", "n", "e"}


@pytest.mark.parametrize("damage", ["ring", "pem", "swapped", "path"])
def test_unreadable_keys_are_told_not_replaced(tmp_path: Path, damage: str) -> None:
    """Making new keys over damaged ones would hide the damage and end all tokens."""
    kid = KeyRing.open(tmp_path / "keys").kid
    ring, pem = tmp_path / "keys" / "ring.json", tmp_path / "keys" / f"{kid}.pem"
    if damage == "ring":
        ring.write_text("{")
    elif damage == "pem":
        pem.write_text("nonsense")
    elif damage == "swapped":
        KeyRing.open(tmp_path / "others")
        foreign = next(path for path in (tmp_path / "others").glob("*.pem"))
        pem.write_bytes(foreign.read_bytes())
    else:
        ring.write_text(json.dumps({"current": "../../etc/passwd", "retired": {}}))
    with pytest.raises(StorageReadFailed, match="keys"):
        KeyRing.open(tmp_path / "keys")


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """`serve` on a bad storage path must say so instead of a traceback."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageWriteFailed, match="owner and mode"):
        KeyRing.open(tmp_path / "file" / "keys")

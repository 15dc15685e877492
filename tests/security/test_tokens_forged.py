"""Forged and odd tokens: faults 61 to 64 of the fault list."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from api.auth.keys import KeyRing
from api.auth.tokens import MAX_TOKEN_CHARS, TokenCodec
from orchestrator.errors import ExpiredToken, InvalidToken
from tests.support.api_fakes import FakeClock

CLOCK = FakeClock()
NOW = int(CLOCK.now())
CLAIMS: dict[str, Any] = {
    "sub": "agent-1",
    "agent_type": "python-specialist",
    "project_id": "p",
    "permissions": ["read_context"],
    "iss": "orchestration-sidecar",
    "aud": "sidecar-agents",
    "iat": NOW,
    "nbf": NOW,
    "exp": NOW + 60,
    "jti": "j-1",
}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    """One ring for all forgeries."""
    return KeyRing.open(tmp_path_factory.mktemp("forged") / "keys", clock=CLOCK)


def forge(keys: KeyRing, claims: dict[str, Any], **header: Any) -> str:
    """A token signed with the right key."""
    return jwt.encode(claims, keys.signing_key, algorithm="RS256", headers={"kid": keys.kid, **header})


def refuse(keys: KeyRing, token: str) -> None:
    """Assert that the codec refuses it."""
    with pytest.raises(InvalidToken):
        TokenCodec(keys, clock=CLOCK).decode(token)


def test_the_unchanged_claims_are_taken(keys: KeyRing) -> None:
    """Otherwise the refusals below would prove nothing."""
    assert TokenCodec(keys, clock=CLOCK).decode(forge(keys, CLAIMS)).agent_id == "agent-1"


@pytest.mark.parametrize("claim", CLAIMS)
def test_each_claim_is_required(keys: KeyRing, claim: str) -> None:
    """A library that checks only the claims it finds takes tokens that never expire."""
    refuse(keys, forge(keys, {name: value for name, value in CLAIMS.items() if name != claim}))


@pytest.mark.parametrize(
    "wrong",
    [
        {"aud": ["sidecar-agents"]},
        {"aud": "other"},
        {"iss": "other"},
        {"nbf": NOW + 1},
        {"iat": NOW + 1},
        {"exp": "later"},
        {"exp": NOW + 60.5},
        {"exp": True},
        {"sub": ""},
        {"sub": "../x"},
        {"project_id": "a\nb"},
        {"agent_type": "a b"},
        {"permissions": "admin"},
        {"permissions": ["root"]},
        {"permissions": [1]},
        {"jti": ""},
        {"generation": 0},
        {"generation": "1"},
    ],
    ids=str,
)
def test_each_claim_is_strict(keys: KeyRing, wrong: dict[str, Any]) -> None:
    """Lists, numbers as text and future times are what lenient checks let through."""
    refuse(keys, forge(keys, CLAIMS | wrong))


def test_there_is_no_leeway(keys: KeyRing) -> None:
    """Expired is expired, in the very second."""
    with pytest.raises(ExpiredToken):
        TokenCodec(keys, clock=CLOCK).decode(forge(keys, CLAIMS | {"exp": NOW}))
    assert TokenCodec(keys, clock=CLOCK).decode(forge(keys, CLAIMS | {"exp": NOW + 1})).expires_at == NOW + 1


@pytest.mark.parametrize(
    "header",
    [
        {"kid": "0" * 16},
        {"kid": "../../../../dev/null"},
        {"kid": 5},
        {"crit": ["exp"]},
        {"crit": ["b64"], "b64": False},
        {"jku": "http://127.0.0.1/jwks"},
        {"x5u": "http://127.0.0.1/x"},
        {"x5c": ["AAAA"]},
        {"jwk": {"kty": "oct", "k": "AAAA"}},
        {"zip": "DEF"},
    ],
    ids=str,
)
def test_the_caller_does_not_choose_the_key(keys: KeyRing, header: dict[str, Any]) -> None:
    """Keys come from the ring by a known id, whatever else the header offers."""
    part = base64.urlsafe_b64encode(json.dumps({"alg": "RS256", "kid": keys.kid, **header}).encode()).rstrip(b"=")
    _, payload, _ = forge(keys, CLAIMS).split(".")
    signed = f"{part.decode()}.{payload}".encode()
    signature = jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256).sign(signed, keys.signing_key)
    refuse(keys, f"{signed.decode()}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}")


def test_no_other_algorithm_is_taken(keys: KeyRing, tmp_path: Path) -> None:
    """`none`, and HS256 with the public key as its secret."""
    refuse(keys, jwt.encode(CLAIMS, key="", algorithm="none", headers={"kid": keys.kid}))
    public = keys.public_key(keys.kid)
    assert public is not None
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    segments = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"alg": "HS256", "kid": keys.kid}, CLAIMS)
    ]
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(b".".join(segments), pem)
    refuse(keys, b".".join([*segments, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode())
    refuse(keys, jwt.encode(CLAIMS, keys.signing_key, algorithm="RS512", headers={"kid": keys.kid}))
    stranger = KeyRing.open(tmp_path / "keys", clock=CLOCK)
    refuse(keys, jwt.encode(CLAIMS, stranger.signing_key, algorithm="RS256", headers={"kid": keys.kid}))


def test_a_huge_token_is_not_read(keys: KeyRing) -> None:
    """Decoding megabytes before refusing them is an invitation."""
    refuse(keys, forge(keys, CLAIMS | {"padding": "x" * MAX_TOKEN_CHARS}))


@given(text=st.text(max_size=200))
def test_nonsense_is_refused_and_never_crashes(keys: KeyRing, text: str) -> None:
    """Whatever is sent, the answer is a refusal, not another error."""
    refuse(keys, text)


@given(payload=st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=5))
def test_signed_nonsense_is_refused(keys: KeyRing, payload: Any) -> None:
    """Even the right key does not make a token of any JSON."""
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"alg": "RS256", "kid": keys.kid}, payload)
    ]
    signature = jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256).sign(b".".join(parts), keys.signing_key)
    refuse(keys, b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode())

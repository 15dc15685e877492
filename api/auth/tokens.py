"""JSON Web Tokens: signed and read by the strict rules of the contract, and by no others.

RS256 only (RFC 8725 section 3.1), keys from the ring by ``kid`` alone, every claim required and typed, no leeway.
"""

from __future__ import annotations

import secrets
from typing import Any, NoReturn

import jwt
import msgspec

from api.auth.keys import KeyRing
from api.auth.principal import Principal
from orchestrator.clock import Clock, SystemClock
from orchestrator.errors import ExpiredToken, InvalidToken
from orchestrator.identifiers import is_identifier
from orchestrator.profiles.permissions import OPERATOR_PERMISSIONS

ISSUER = "orchestration-sidecar"
AUDIENCE = "sidecar-agents"
ALGORITHM = "RS256"
#: Longest token that is looked at; ours are under 1,200 characters.
MAX_TOKEN_CHARS = 8192
#: The only header members that a token of ours has; anything else (``crit``, ``jwk``, ``jku``, ``x5u``) is refused.
_HEADER_MEMBERS = frozenset({"alg", "typ", "kid"})
#: Our own checks of claims replace the library's, which allow an audience list and numeric strings.
_SIGNATURE_ONLY: dict[str, Any] = {
    "verify_signature": True,
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}


class UnknownKey(InvalidToken):
    """A token of a key that was not loaded; another process may have made it since."""


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """The claims of a token; each is required but ``generation``, which counts refreshes, and ``attempt``."""

    sub: str
    agent_type: str
    project_id: str
    permissions: list[str]
    iss: str
    aud: str
    iat: int
    nbf: int
    exp: int
    jti: str
    generation: int = 1
    attempt: int | None = None


class TokenCodec:
    """Makes and reads tokens with the keys of one ring."""

    def __init__(self, keys: KeyRing, *, clock: Clock | None = None) -> None:
        self._keys = keys
        self._clock = clock or SystemClock()

    def encode(
        self,
        *,
        agent_id: str,
        agent_type: str,
        project_id: str,
        permissions: tuple[str, ...],
        ttl_s: float,
        generation: int = 1,
        attempt: int | None = None,
    ) -> tuple[str, Principal]:
        """A new token valid from now for ``ttl_s`` seconds (at least 1), and whom it stands for."""
        now = int(self._clock.now())
        claims = Claims(
            sub=agent_id,
            agent_type=agent_type,
            project_id=project_id,
            permissions=list(permissions),
            iss=ISSUER,
            aud=AUDIENCE,
            iat=now,
            nbf=now,
            exp=now + max(1, int(ttl_s)),
            jti=secrets.token_urlsafe(18),
            generation=generation,
            attempt=attempt,
        )
        kid, key = self._keys.signer
        token = jwt.encode(
            {name: value for name, value in msgspec.to_builtins(claims).items() if value is not None},
            key,
            algorithm=ALGORITHM,
            headers={"kid": kid},
        )
        return token, _principal(claims)

    def decode(self, token: str) -> Principal:
        """Whom a token stands for. Raises InvalidToken, or ExpiredToken for one that only came too late."""
        if len(token) > MAX_TOKEN_CHARS:
            _refuse("it is too long")
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise InvalidToken("the token is not a JSON Web Token") from error
        kid = header.get("kid")
        if set(header) - _HEADER_MEMBERS or header.get("alg") != ALGORITHM or not isinstance(kid, str):
            _refuse("its header is not one of this sidecar's")
        key = self._keys.public_key(kid)
        if key is None:
            raise UnknownKey("the token is refused: its key is not one of this sidecar's")
        try:
            payload = jwt.decode(token, key, algorithms=[ALGORITHM], options=_SIGNATURE_ONLY)  # type: ignore[arg-type]
            claims = msgspec.convert(payload, Claims)
        except (jwt.PyJWTError, msgspec.ValidationError, ValueError, RecursionError) as error:
            raise InvalidToken("the token's signature or claims are wrong") from error
        self._check(claims)
        return _principal(claims)

    def _check(self, claims: Claims) -> None:
        now = self._clock.now()
        if claims.iss != ISSUER or claims.aud != AUDIENCE:
            _refuse("it is meant for another service")
        if not (is_identifier(claims.sub) and is_identifier(claims.agent_type) and is_identifier(claims.project_id)):
            _refuse("a name in it is not an identifier")
        if not claims.jti or not set(claims.permissions) <= OPERATOR_PERMISSIONS or claims.generation < 1:
            _refuse("a claim in it is wrong")
        if claims.nbf > now or claims.iat > now:
            _refuse("it is not valid yet")
        if claims.exp <= now:
            raise ExpiredToken("the token has expired; refresh it in time, or mint one with: orchestrator token")


def _refuse(reason: str) -> NoReturn:
    raise InvalidToken(f"the token is refused: {reason}")


def _principal(claims: Claims) -> Principal:
    return Principal(
        agent_id=claims.sub,
        agent_type=claims.agent_type,
        project_id=claims.project_id,
        permissions=frozenset(claims.permissions),
        jti=claims.jti,
        issued_at=claims.iat,
        expires_at=claims.exp,
        generation=claims.generation,
        attempt=claims.attempt,
    )

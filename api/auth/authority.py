"""The authority over tokens: mints, verifies (cached), refreshes, revokes, ends."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections import OrderedDict
from typing import Any, Protocol

import structlog

from agentpool.states import FINAL_STATES
from api.auth.keys import RELOAD_INTERVAL_S, KeyRing
from api.auth.principal import Principal
from api.auth.tokens import TokenCodec, UnknownKey
from orchestrator.clock import Clock, SystemClock
from orchestrator.config import AuthSettings
from orchestrator.errors import ExpiredToken, InvalidToken, RefreshRefused, SidecarError
from orchestrator.models import AgentRecord
from orchestrator.profiles.permissions import PERMISSIONS

log = structlog.get_logger(__name__)

#: Verified tokens that are remembered; beyond it the oldest are verified again when they come back.
CACHED_TOKENS = 4096
#: Ended agents and attempts that are remembered in memory; older ones are looked up in the store.
REMEMBERED_ENDS = 65536


class TokenRecords(Protocol):
    """What the authority asks of storage."""

    async def find_agent(self, agent_id: str) -> AgentRecord | None:
        """The agent's record in whatever project."""

    async def revoke_token(self, jti: str, expires_at: float) -> bool:
        """True for exactly one caller."""

    async def revoked_tokens(self, now: float) -> list[str]:
        """All that are still of interest."""


class Authority:
    """Says who a bearer of a token is.

    A token's signature is checked once; then its hash is looked up until it expires, is revoked or its agent ends.
    It is also the agents service's ``TokenMinter``.

    Args:
        keys: sign and verify.
        settings: lifetimes.
    """

    def __init__(self, keys: KeyRing, settings: AuthSettings, *, clock: Clock | None = None) -> None:
        self._keys = keys
        self._codec = TokenCodec(keys, clock=clock)
        self._settings = settings
        self._clock = clock or SystemClock()
        self._records: TokenRecords | None = None
        self._verified: OrderedDict[bytes, Principal] = OrderedDict()
        self._revoked: dict[str, float] = {}
        self._fences: OrderedDict[str, float] = OrderedDict()
        self._prune_at = REMEMBERED_ENDS
        self._minted: dict[str, list[Principal]] = {}

    def jwks(self) -> dict[str, Any]:
        """The public keys (RFC 7517)."""
        return self._keys.jwks()

    async def start(self, records: TokenRecords) -> None:
        """Take the store and load what was revoked. Until then every token is refused."""
        for jti in await records.revoked_tokens(self._clock.now()):
            self._revoked[jti] = math.inf  # the store does not say until when; they are few
        self._records = records

    async def follow_keys(self) -> None:
        """Sign with the newest key and publish it, whichever process made it; ends when it is cancelled."""
        was_told = False
        while True:
            await asyncio.sleep(RELOAD_INTERVAL_S)
            try:
                await asyncio.to_thread(self._keys.follow)
                was_told = False
            except SidecarError as error:
                if not was_told:
                    log.warning("keys_not_read", error=error.message)
                was_told = True

    # -- the agents service's TokenMinter -------------------------------------------------------

    def mint(
        self,
        agent_id: str,
        agent_type: str,
        project_id: str,
        permissions: tuple[str, ...],
        ttl_s: float,
        *,
        attempt: int | None = None,
    ) -> str:
        """A token for an agent, valid for ``ttl_s`` seconds or until this attempt, or the agent, ends."""
        token, principal = self._codec.encode(
            agent_id=agent_id,
            agent_type=agent_type,
            project_id=project_id,
            permissions=permissions,
            ttl_s=ttl_s,
            attempt=attempt,
        )
        self._minted.setdefault(agent_id, []).append(principal)
        return token

    def end(self, agent_id: str) -> None:
        """Refuse all tokens of this agent from now on."""
        self._raise_fence(agent_id, math.inf)
        for principal in self._minted.pop(agent_id, ()):
            self._remember_revoked(principal)

    def end_attempt(self, agent_id: str, attempt: int) -> None:
        """Refuse the tokens of this attempt and those before it from now on."""
        self._raise_fence(agent_id, attempt)
        minted = self._minted.pop(agent_id, [])
        for principal in filter(self._is_fenced, minted):
            self._remember_revoked(principal)
        self._minted[agent_id] = [principal for principal in minted if not self._is_fenced(principal)]

    def _raise_fence(self, agent_id: str, attempt: float) -> None:
        self._fences[agent_id] = max(attempt, self._fences.get(agent_id, 0))
        self._fences.move_to_end(agent_id)
        while len(self._fences) > REMEMBERED_ENDS:
            self._fences.popitem(last=False)
        self._forget_verified(agent_id)

    def _is_fenced(self, principal: Principal) -> bool:
        """Whether its attempt, or its agent, is known here to have ended."""
        fence = self._fences.get(principal.agent_id, 0)
        return fence >= (math.inf if principal.attempt is None else principal.attempt)

    # -- verification ----------------------------------------------------------------------------

    def recall(self, authorization: bytes | None) -> Principal | None:
        """The caller behind an ``Authorization`` header that was verified before and is still good, else None."""
        if authorization is None:
            return None
        principal = self._verified.get(_digest(authorization))
        if principal is None or principal.expires_at <= self._clock.now():
            return None
        return principal

    async def verify(self, authorization: bytes | None) -> Principal:
        """The caller behind an ``Authorization`` header. Raises InvalidToken or ExpiredToken."""
        token = bearer_token(authorization)
        if self._records is None:
            raise InvalidToken("tokens cannot be verified yet")
        try:
            principal = self._codec.decode(token)
        except UnknownKey:
            await asyncio.to_thread(self._keys.refresh)
            principal = self._codec.decode(token)
        if principal.jti in self._revoked:
            raise InvalidToken("the token was revoked")
        await self._check_alive(principal)
        # Looked at again after the await: a revocation or an end may have come in between.
        if principal.jti in self._revoked or self._is_fenced(principal):
            raise InvalidToken("the token was revoked")
        assert authorization is not None
        self._verified[_digest(authorization)] = principal
        while len(self._verified) > CACHED_TOKENS:
            self._verified.popitem(last=False)
        return principal

    async def _check_alive(self, principal: Principal) -> None:
        """Raise InvalidToken when the agent, or the attempt that the token was made for, has ended."""
        if self._is_fenced(principal):
            raise InvalidToken("the token's agent, or its attempt of it, has ended")
        assert self._records is not None
        record = await self._records.find_agent(principal.agent_id)
        if record is None:
            return
        if record.status in FINAL_STATES:
            raise InvalidToken("the token's agent has ended")
        # The store knows it too, so that an attempt that an earlier sidecar ended stays ended.
        if principal.attempt is not None and principal.attempt < record.open_attempt:
            raise InvalidToken("the token's attempt has ended; the agent was started again since")

    # -- refresh ---------------------------------------------------------------------------------

    async def refresh(self, principal: Principal) -> tuple[str, Principal]:
        """A new token in place of a live one that is about to expire; the old one is refused from then on.

        The new one lives as long as the old one did. Raises RefreshRefused (too early, too many generations, or it
        was refreshed before), ExpiredToken, InvalidToken.
        """
        now = self._clock.now()
        left = principal.expires_at - now
        if left <= 0:
            raise ExpiredToken("the token has expired")
        if left > self._settings.refresh_window_s:
            raise RefreshRefused(
                f"a token is refreshed in the last {self._settings.refresh_window_s:.0f} s of its life; "
                f"this one has {left:.0f} s left",
                details={"seconds_left": int(left), "window_seconds": int(self._settings.refresh_window_s)},
                retry_after_s=left - self._settings.refresh_window_s,
            )
        if principal.generation >= self._settings.max_generations:
            raise RefreshRefused(
                f"this token was refreshed {principal.generation - 1} times, which is the limit; a new one is needed",
                details={"generation": principal.generation},
            )
        await self._check_alive(principal)
        await self.revoke(principal)
        token, fresh = self._codec.encode(
            agent_id=principal.agent_id,
            agent_type=principal.agent_type,
            project_id=principal.project_id,
            permissions=tuple(name for name in PERMISSIONS if name in principal.permissions),
            ttl_s=principal.expires_at - principal.issued_at,
            generation=principal.generation + 1,
            attempt=principal.attempt,
        )
        if self._is_fenced(principal):
            raise InvalidToken("the token's agent has ended")
        if principal.agent_id in self._minted:
            self._minted[principal.agent_id].append(fresh)
        return token, fresh

    async def revoke(self, principal: Principal) -> None:
        """Refuse this token durably. Raises InvalidToken when it was revoked before (exactly one caller wins)."""
        if self._records is None:
            raise InvalidToken("tokens cannot be revoked yet")
        is_first = await self._records.revoke_token(principal.jti, float(principal.expires_at))
        self._remember_revoked(principal)
        self._forget_verified(principal.agent_id)
        if not is_first:
            raise InvalidToken("the token was revoked")

    def _remember_revoked(self, principal: Principal) -> None:
        self._revoked[principal.jti] = principal.expires_at
        if len(self._revoked) >= self._prune_at:
            now = self._clock.now()
            self._revoked = {jti: until for jti, until in self._revoked.items() if until > now}
            self._prune_at = max(REMEMBERED_ENDS, 2 * len(self._revoked))

    def _forget_verified(self, agent_id: str) -> None:
        for digest in [key for key, principal in self._verified.items() if principal.agent_id == agent_id]:
            del self._verified[digest]


def bearer_token(authorization: bytes | None) -> str:
    """The token of an ``Authorization: Bearer`` header. Raises InvalidToken, which says how to get one."""
    if authorization is None:
        raise InvalidToken(
            "a token is needed: send 'Authorization: Bearer <token>'; mint one with: orchestrator token",
            slug="missing_token",
        )
    scheme, _, token = authorization.partition(b" ")
    token = token.strip()
    if scheme.lower() != b"bearer" or not token or not token.isascii() or b" " in token:
        raise InvalidToken("the Authorization header must be 'Bearer <token>'")
    return token.decode("ascii")


def _digest(authorization: bytes) -> bytes:
    # The hash, so that no usable token lies about in a long-lived table.
    return hashlib.sha256(authorization).digest()

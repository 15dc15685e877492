"""Minting, verifying, refreshing, revoking and ending."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from api.auth import authority as module
from api.auth.authority import Authority, bearer_token
from api.auth.keys import KeyRing
from api.auth.principal import Principal
from orchestrator.config import AuthSettings
from orchestrator.errors import ExpiredToken, InvalidToken, RefreshRefused, StorageWriteFailed
from orchestrator.models import AgentRecord
from tests.support.api_fakes import FakeClock, agent_record


class Records:
    """A token and agent store in memory."""

    def __init__(self) -> None:
        self.revoked: dict[str, float] = {}
        self.agents: dict[str, AgentRecord] = {}
        self.lookups = 0
        self.is_broken = False

    async def find_agent(self, agent_id: str) -> AgentRecord | None:
        self.lookups += 1
        await asyncio.sleep(0)
        return self.agents.get(agent_id)

    async def revoke_token(self, jti: str, expires_at: float) -> bool:
        await asyncio.sleep(0)
        if self.is_broken:
            raise StorageWriteFailed("disk full")
        is_first = jti not in self.revoked
        self.revoked[jti] = expires_at
        return is_first

    async def revoked_tokens(self, now: float) -> list[str]:
        return [jti for jti, until in self.revoked.items() if until > now]


class World:
    """An authority with its clock and stores."""

    def __init__(self, tmp_path: Path) -> None:
        self.clock = FakeClock()
        self.records = Records()
        self.directory = tmp_path / "keys"
        self.keys = KeyRing.open(self.directory, clock=self.clock)
        self.authority = self.restarted()

    def restarted(self) -> Authority:
        """A new authority over the same stores and keys, as after a restart."""
        return Authority(self.keys, AuthSettings(), clock=self.clock)

    def mint(self, agent_id: str = "a", ttl_s: float = 3600, attempt: int | None = None) -> bytes:
        """An Authorization header."""
        token = self.authority.mint(agent_id, "python-specialist", "p", ("read_context",), ttl_s, attempt=attempt)
        return f"Bearer {token}".encode()


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A fresh authority, not started."""
    return World(tmp_path)


async def test_a_verified_token_is_recalled_until_it_expires(world: World) -> None:
    """A signature check per request would cost more than the request; a stale entry would outlive its token."""
    await world.authority.start(world.records)
    header = world.mint(ttl_s=60)
    assert world.authority.recall(header) is None
    principal = await world.authority.verify(header)
    assert principal.agent_id == "a"
    assert world.authority.recall(header) is principal
    world.clock.seconds += 59.9
    assert world.authority.recall(header) is principal
    world.clock.seconds += 0.1
    assert world.authority.recall(header) is None
    with pytest.raises(ExpiredToken):
        await world.authority.verify(header)


async def test_before_the_store_is_known_every_token_is_refused(world: World) -> None:
    """Fail closed: a revoked token must not pass in the first moments of a start."""
    with pytest.raises(InvalidToken):
        await world.authority.verify(world.mint())


async def test_an_ended_agents_token_is_refused_at_once(world: World) -> None:
    """Replay after the end: the verified entry must go with the agent."""
    await world.authority.start(world.records)
    header = world.mint()
    await world.authority.verify(header)
    world.authority.end("a")
    assert world.authority.recall(header) is None
    with pytest.raises(InvalidToken):
        await world.authority.verify(header)


@pytest.mark.parametrize("status", ["completed", "failed", "killed", "timed_out"])
async def test_an_ended_agents_token_is_refused_after_a_restart(world: World, status: str) -> None:
    """What is only in memory is forgotten by a restart; the record is not."""
    header = world.mint()
    world.records.agents["a"] = agent_record("a", "p", status=status)
    again = world.restarted()
    await again.start(world.records)
    with pytest.raises(InvalidToken, match="ended"):
        await again.verify(header)


async def test_a_restarted_agent_has_only_its_new_token(world: World) -> None:
    """An attempt's leftover process must not go on in the name of the next attempt."""
    await world.authority.start(world.records)
    first = world.mint(attempt=1)
    assert (await world.authority.verify(first)).attempt == 1
    world.authority.end_attempt("a", 1)
    assert world.authority.recall(first) is None
    second = world.mint(attempt=2)
    assert (await world.authority.verify(second)).attempt == 2
    with pytest.raises(InvalidToken):
        await world.authority.verify(first)
    world.authority.end("a")
    with pytest.raises(InvalidToken):
        await world.authority.verify(second)


@pytest.mark.parametrize(
    ("status", "attempt", "is_good"),
    [("queued", 0, True), ("running", 1, True), ("queued", 1, False), ("starting", 2, False), ("running", 2, False)],
)
async def test_an_attempt_stays_fenced_over_a_restart(world: World, status: str, attempt: int, is_good: bool) -> None:
    """A sidecar that was killed forgot which attempts had ended, and took their tokens again."""
    header = world.mint(attempt=1)
    world.records.agents["a"] = agent_record("a", "p", status=status, attempt=attempt)
    again = world.restarted()
    await again.start(world.records)
    if is_good:
        assert (await again.verify(header)).attempt == 1
    else:
        with pytest.raises(InvalidToken, match="attempt"):
            await again.verify(header)


async def test_an_attempt_that_ends_during_verification_is_fenced(world: World) -> None:
    """The record may be that of the attempt's last moment."""
    await world.authority.start(world.records)
    world.records.agents["a"] = agent_record("a", "p", status="running", attempt=1)
    header = world.mint(attempt=1)
    verifying = asyncio.create_task(world.authority.verify(header))
    await asyncio.sleep(0)
    world.authority.end_attempt("a", 1)
    with pytest.raises(InvalidToken):
        await verifying
    assert world.authority.recall(header) is None


async def test_a_refreshed_token_speaks_for_the_same_attempt(world: World) -> None:
    """A refresh must not lead past the fence."""
    await world.authority.start(world.records)
    token, fresh = await world.authority.refresh(await world.authority.verify(world.mint(ttl_s=200, attempt=1)))
    assert fresh.attempt == 1
    world.authority.end_attempt("a", 1)
    with pytest.raises(InvalidToken):
        await world.authority.verify(f"Bearer {token}".encode())


async def test_an_end_during_verification_counts(world: World) -> None:
    """The agent may end while its record is being looked up: then nothing may be remembered as good."""
    await world.authority.start(world.records)
    header = world.mint()
    verifying = asyncio.create_task(world.authority.verify(header))
    await asyncio.sleep(0)
    world.authority.end("a")
    with pytest.raises(InvalidToken):
        await verifying
    assert world.authority.recall(header) is None


async def test_a_token_without_a_record_is_good(world: World) -> None:
    """`orchestrator token` makes callers that were never spawned."""
    await world.authority.start(world.records)
    assert (await world.authority.verify(world.mint("nobody-spawned-me"))).agent_id == "nobody-spawned-me"


async def test_refresh_only_in_the_last_minutes(world: World) -> None:
    """Refreshing at will would make tokens immortal."""
    await world.authority.start(world.records)
    principal = await world.authority.verify(world.mint(ttl_s=3600))
    world.clock.seconds += 3299
    with pytest.raises(RefreshRefused) as caught:
        await world.authority.refresh(principal)
    assert caught.value.retry_after_s == pytest.approx(1, abs=1)
    world.clock.seconds += 1
    _, fresh = await world.authority.refresh(principal)
    assert fresh.expires_at - fresh.issued_at == 3600
    assert (fresh.agent_id, fresh.permissions, fresh.generation) == ("a", principal.permissions, 2)
    world.clock.seconds += 300
    with pytest.raises(ExpiredToken):
        await world.authority.refresh(principal)


async def test_a_refresh_ends_the_old_token_for_good(world: World) -> None:
    """A stolen token must die with the refresh, after a restart too."""
    await world.authority.start(world.records)
    header = world.mint(ttl_s=200)
    token, _ = await world.authority.refresh(await world.authority.verify(header))
    for authority in (world.authority, world.restarted()):
        await authority.start(world.records)
        with pytest.raises(InvalidToken):
            await authority.verify(header)
        assert (await authority.verify(f"Bearer {token}".encode())).generation == 2


async def test_two_refreshes_at_once_give_one_token(world: World) -> None:
    """Two heirs of one token would double with each generation."""
    await world.authority.start(world.records)
    principal = await world.authority.verify(world.mint(ttl_s=200))
    outcomes = await asyncio.gather(*(world.authority.refresh(principal) for _ in range(3)), return_exceptions=True)
    assert sorted(isinstance(outcome, InvalidToken) for outcome in outcomes) == [False, True, True]


async def test_a_refresh_that_could_not_be_stored_gives_nothing(world: World) -> None:
    """A new token beside a live old one would be two tokens."""
    await world.authority.start(world.records)
    header = world.mint(ttl_s=200)
    principal = await world.authority.verify(header)
    world.records.is_broken = True
    with pytest.raises(StorageWriteFailed):
        await world.authority.refresh(principal)
    assert world.authority.recall(header) is principal


async def test_generations_end(world: World) -> None:
    """24 generations are a day; an agent that still runs then needs a person."""
    await world.authority.start(world.records)
    principal = await world.authority.verify(world.mint(ttl_s=200))
    for _ in range(23):
        _, principal = await world.authority.refresh(principal)
    assert principal.generation == 24
    with pytest.raises(RefreshRefused, match="limit"):
        await world.authority.refresh(principal)


async def test_no_refresh_once_the_agent_has_ended(world: World) -> None:
    """The end must hold for what is refreshed in the same moment."""
    await world.authority.start(world.records)
    principal = await world.authority.verify(world.mint(ttl_s=200))
    refreshing = asyncio.create_task(world.authority.refresh(principal))
    await asyncio.sleep(0)
    world.authority.end("a")
    with pytest.raises(InvalidToken):
        await refreshing


async def test_a_refreshed_token_ends_with_its_agent(world: World) -> None:
    """A restarted agent must not be shadowed by what its last attempt had refreshed."""
    await world.authority.start(world.records)
    token, _ = await world.authority.refresh(await world.authority.verify(world.mint(ttl_s=200)))
    world.authority.end("a")
    with pytest.raises(InvalidToken):
        await world.authority.verify(f"Bearer {token}".encode())


async def test_the_memory_of_tokens_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that runs for months must not keep every token it ever saw."""
    monkeypatch.setattr(module, "CACHED_TOKENS", 3)
    monkeypatch.setattr(module, "REMEMBERED_ENDS", 3)
    await world.authority.start(world.records)
    headers = [world.mint(f"a{number}") for number in range(6)]
    for header in headers:
        await world.authority.verify(header)
    assert [world.authority.recall(header) is not None for header in headers] == [False] * 3 + [True] * 3
    for number in range(6):
        world.authority.end(f"a{number}")
    with pytest.raises(InvalidToken):
        await world.authority.verify(headers[0])


async def test_a_key_that_another_process_made_is_found(world: World) -> None:
    """Tokens that the command line mints after a rotation must work at once."""
    await world.authority.start(world.records)
    other = await asyncio.to_thread(KeyRing.open, world.directory, clock=world.clock)
    await asyncio.to_thread(other.rotate, overlap_s=300)
    token = Authority(other, AuthSettings(), clock=world.clock).mint("b", "t", "p", ("read_context",), 60)
    world.clock.seconds += 2
    assert (await world.authority.verify(f"Bearer {token}".encode())).agent_id == "b"


@pytest.mark.parametrize("header", [None, b"", b"Bearer", b"Bearer ", b"Basic abc", b"Bearer a b", b"Bearer \xff"])
def test_a_header_that_is_no_bearer_token_is_refused(header: bytes | None) -> None:
    """Each of them must be a 401, not a 500."""
    with pytest.raises(InvalidToken):
        bearer_token(header)


def test_the_tier_follows_the_permissions() -> None:
    """The signed permissions decide about the rate, so that no profile edit loosens a live token."""

    def tier(*permissions: str) -> str:
        return Principal(
            agent_id="a",
            agent_type="t",
            project_id="p",
            permissions=frozenset(permissions),
            jti="j",
            issued_at=0,
            expires_at=1,
        ).tier

    assert tier("admin", "spawn_agents") == "operator"
    assert tier("spawn_agents", "publish_events") == "architect"
    assert tier("publish_events", "write_results") == "coding"
    assert tier("write_results") == "documentation"
    assert tier("read_context") == "documentation"

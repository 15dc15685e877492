"""The 119 shipped profiles: facts, texts, hand-overs and needs."""

from __future__ import annotations

import itertools
import re
from functools import cache

import pytest

from orchestrator.profiles import Profiles
from orchestrator.profiles.graph import dead_ends, reachable
from orchestrator.profiles.model import Profile
from orchestrator.profiles.permissions import CLASS_PERMISSIONS, PUBLISH_EVENTS
from orchestrator.profiles.roster import load_roster
from orchestrator.profiles.validation import MAX_WORDS, MIN_WORDS, count_words, validate
from tests.support.roster import Role, roster

#: Words in a row; two texts by different hands share hardly any run of four.
SHINGLE = 4
#: Largest share of the shorter text's runs that two roles may have in common (0.02 was the most when written).
MAX_SHARED = 0.10
ROLES = [role.agent_type for role in roster()]


@cache
def _shipped() -> dict[str, Profile]:
    return {profile.agent_type: profile for profile in Profiles().list()}


def test_exactly_the_roster_ships() -> None:
    """A lost, renamed or additional role would break spawns by name."""
    assert sorted(_shipped()) == sorted(ROLES)
    assert len(ROLES) == 119


@pytest.mark.parametrize("role", roster(), ids=ROLES)
def test_facts_equal_the_roster(role: Role) -> None:
    """A wrong class gives a role permissions it must not have; a wrong tier costs money."""
    profile = _shipped()[role.agent_type]
    assert (profile.category, profile.tier, profile.permission_class) == (
        role.category,
        role.tier,
        role.permission_class,
    )


def test_the_packages_own_roster_equals_the_tests_copy() -> None:
    """``profiles validate`` must check against the true facts."""
    assert [tuple(vars_of) for vars_of in map(_facts, load_roster().values())] == [tuple(role) for role in roster()]


def _facts(role: object) -> list[str]:
    return [getattr(role, name) for name in Role._fields]


def test_nothing_is_wrong_with_the_shipped_profiles() -> None:
    """What users' files are held to must hold for ours: names, topics, commands, chains."""
    assert [str(problem) for problem in validate(Profiles())] == []


@pytest.mark.parametrize("agent_type", ROLES)
def test_instructions_can_be_acted_on(agent_type: str) -> None:
    """A text too short says nothing, one too long is not read; each must name result keys and a limit."""
    profile = _shipped()[agent_type]
    text = profile.instructions
    assert MIN_WORDS <= count_words(text) <= MAX_WORDS
    assert re.search(r"`(decisions|findings|metrics|artifacts|files_\w+|warnings|next_steps)", text), "no result keys"
    assert re.search(r"\b(no|not|never|nothing|nobody|none|cannot|forbidden|without|only)\b", text, re.I), "no limits"
    assert not re.search(r"\b(TODO|FIXME|lorem|TBD)\b", text)
    if profile.hands_over_to:
        assert any(entry.agent_type in text for entry in profile.hands_over_to), "hand-over not explained"


def test_every_role_mentioned_in_a_text_exists() -> None:
    """A text that sends a model to a role that does not exist ends its chain."""
    endings = {name.rpartition("-")[2] for name in ROLES if "-" in name}
    unknown = {
        (name, word)
        for name, profile in _shipped().items()
        for word in re.findall(r"\b[a-z][a-z0-9]*(?:-[a-z0-9]+)+\b", profile.instructions)
        if word.rpartition("-")[2] in endings and word not in ROLES and not word.startswith("re-")
    }
    assert unknown == set()


def test_no_two_roles_have_the_same_text() -> None:
    """Roles that differ only in name are one role under two names."""
    shingles = {name: _shingles(profile.instructions) for name, profile in _shipped().items()}
    too_alike = [
        (left, right)
        for (left, a), (right, b) in itertools.combinations(shingles.items(), 2)
        if len(a & b) > MAX_SHARED * min(len(a), len(b))
    ]
    assert too_alike == []


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"[a-z0-9_']+", text.lower())
    return {tuple(words[start : start + SHINGLE]) for start in range(len(words) - SHINGLE + 1)}


def test_descriptions_are_distinct_sentences() -> None:
    """The description decides who is called: two alike, or an empty one, decide nothing."""
    descriptions = [profile.description for profile in _shipped().values()]
    assert len(set(descriptions)) == len(descriptions)
    assert all(description.endswith(".") and len(description.split()) >= 8 for description in descriptions)


def test_needs_differ_as_the_roles_do() -> None:
    """Equal needs would give two roles the same context."""
    needs = [profile.context for profile in _shipped().values()]
    assert len(set(needs)) == len(needs)
    requirements = {frozenset(need.requirements) for need in needs}
    assert len(requirements) == len(needs)
    assert all(need.max_bytes is not None and need.requirements for need in needs)


def test_every_role_is_reached_from_the_architect() -> None:
    """A role that no chain leads to is never called on."""
    assert set(ROLES) - reachable(_shipped()) == set()


def test_chains_end_only_where_they_are_meant_to() -> None:
    """A role without successors that is not declared final loses the work."""
    assert dead_ends(_shipped()) == []
    final = {name for name, profile in _shipped().items() if profile.is_final}
    assert final == {
        "changelog-generator",
        "llms-maintainer",
        "markdown-syntax-formatter",
        "report-generator",
        "tag-agent",
    }


def test_every_coding_role_always_hands_over_to_the_tests() -> None:
    """What a coding role changed must be tested, whatever its result looked like."""
    for profile in _shipped().values():
        if profile.permission_class == "coding":
            outcomes = [profile.next_agents({"status": status}) for status in ("success", "partial", "failed")]
            assert all("test-engineer" in [entry.agent_type for entry in outcome] for outcome in outcomes), profile


def test_only_those_who_may_publish_say_that_they_do() -> None:
    """Instructions to publish would end in refusals for classes without the permission."""
    for profile in _shipped().values():
        may_publish = PUBLISH_EVENTS in CLASS_PERMISSIONS[profile.permission_class]
        assert bool(profile.publishes) <= may_publish, profile.agent_type


def test_roles_that_write_code_never_restart_by_themselves_half_way() -> None:
    """A restarted writer would begin on top of its own half-made changes."""
    for profile in _shipped().values():
        if {"Edit", "Write"} <= set(profile.tools) and profile.category == "coding":
            assert profile.restart == "never", profile.agent_type


def test_overlapping_roles_send_to_each_other() -> None:
    """Pairs that users mix up must say where one ends and the other begins."""
    pairs = [
        ("python-specialist", "python-pro"),
        ("go-specialist", "golang-pro"),
        ("rust-specialist", "rust-pro"),
        ("database-optimization", "database-optimizer"),
        ("react-performance-optimization", "react-performance-optimizer"),
        ("swift-specialist", "ios-developer"),
        ("data-analyst", "data-scientist"),
        ("security-auditor", "security-engineer"),
        ("test-engineer", "test-automator"),
        ("devops-engineer", "deployment-engineer"),
        ("debugger", "error-detective"),
        ("research-orchestrator", "research-coordinator"),
    ]
    for left, right in pairs:
        assert right in _shipped()[left].instructions, (left, right)
        assert left in _shipped()[right].instructions, (right, left)


def test_limits_and_times_are_set_for_every_role() -> None:
    """An agent without bounds can hold a slot of the pool for ever."""
    for profile in _shipped().values():
        assert profile.timeout_seconds <= 3600, profile.agent_type
        assert profile.idle_seconds is not None, profile.agent_type
        assert profile.limits.memory_bytes is not None, profile.agent_type
        assert profile.limits.cpu_s is not None, profile.agent_type

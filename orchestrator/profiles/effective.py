"""What is in force for a role: layers laid over one another, with the origin of every value."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from agentpool.outcomes import EndRules
from agentpool.specs import Limits
from orchestrator.profiles.authored import DEFAULTS, MERGED_KEYS
from orchestrator.profiles.model import TIERS, ContextNeeds, HandOver, Profile
from orchestrator.profiles.parser import Layer
from orchestrator.profiles.problems import Problem
from orchestrator.profiles.sources import LayerKind

DEFAULT_ORIGIN = "default"
CONTRACT_ORIGIN = "contract"
#: Key of the origins that is there when the hand-over to test-engineer was added and not written.
TESTS_ORIGIN = "hands_over_to.test-engineer"
#: What the contract asks of every role that writes code.
_TESTS_FOLLOW = HandOver(agent_type="test-engineer", reason="what a coding role changed is tested")


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """One layer of a role with the file it comes from."""

    layer: Layer
    file: str
    kind: LayerKind


class Effective(msgspec.Struct, frozen=True, kw_only=True):
    """A role's profile, and for every key (dotted for ``context`` and ``limits``) the file that gave it.

    An origin is a file, or ``default``, or ``contract`` for the hand-over that every coding role has.
    """

    profile: Profile
    origins: dict[str, str]
    problems: tuple[Problem, ...] = ()


def lay_over(sources: Sequence[Source]) -> Effective:
    """The profile of ``sources``, lowest first, at least one; all of the same role."""
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    problems: list[Problem] = []
    body, is_shipped = "", sources[0].kind == "shipped"
    for source in sources:
        given = dict(source.layer.values)
        refused = _refused_class(source, values.get("permission_class"), is_shipped)
        if refused:
            problems.append(refused)
            del given["permission_class"]
        _merge(values, origins, given, source.file)
        if source.layer.body:
            body = source.layer.body
            origins["instructions"] = source.file
    for key, value in DEFAULTS.items():
        if key not in values:
            values[key] = value
            origins[key] = DEFAULT_ORIGIN
    top = sources[-1]
    profile = _profile(top, values, body, origins, [source.layer.digest for source in sources])
    return Effective(profile=profile, origins=dict(sorted(origins.items())), problems=tuple(problems))


def _merge(values: dict[str, Any], origins: dict[str, str], given: dict[str, Any], file: str) -> None:
    for key, value in given.items():
        if key not in MERGED_KEYS:
            values[key] = value
            origins[key] = file
            continue
        values[key] = {**values.get(key, {}), **value}
        for name in value:
            origins[f"{key}.{name}"] = file


def _refused_class(source: Source, below: str | None, is_shipped: bool) -> Problem | None:
    """Why a project's file may not set this class: whoever can write to a project could give itself permissions."""
    wanted = source.layer.values.get("permission_class")
    if wanted is None or source.kind != "project" or wanted == below:
        return None
    if is_shipped:
        reason = f"a project cannot change the permission class of a shipped role; {below!r} stays in force"
    elif wanted == "architect":
        reason = "a project cannot define a role of class 'architect'; put its file into the user's directory"
    else:
        return None
    return Problem(
        severity="error",
        source=source.file,
        line=source.layer.lines.get("permission_class"),
        reason=reason,
        agent_type=source.layer.name,
    )


def _profile(
    top: Source, values: dict[str, Any], body: str, origins: dict[str, str], digests: Sequence[str]
) -> Profile:
    hand_overs = tuple(
        HandOver(agent_type=entry.agent_type, priority=entry.priority, reason=entry.reason, when=entry.when)
        for entry in values["hands_over_to"]
    )
    if values["permission_class"] == "coding" and all(h.agent_type != _TESTS_FOLLOW.agent_type for h in hand_overs):
        hand_overs += (_TESTS_FOLLOW,)
        origins[TESTS_ORIGIN] = CONTRACT_ORIGIN
    rest = {key: values[key] for key in DEFAULTS if key not in (*MERGED_KEYS, "hands_over_to")}
    return Profile(
        **rest,
        agent_type=top.layer.name,
        tier=_tier(values["model"]),
        context=ContextNeeds(**values["context"]),
        limits=Limits(**values["limits"]),
        ends=EndRules(**values["ends"]),
        hands_over_to=hand_overs,
        instructions=body,
        source=top.file,
        layer=top.kind,
        revision=hashlib.blake2b("".join(digests).encode(), digest_size=8).hexdigest(),
    )


def _tier(model: str) -> str:
    return next((tier for tier in TIERS if tier in model.lower()), "inherit")

"""A profile for a reader: each effective value with where it comes from, and as a file."""

from __future__ import annotations

from typing import Any

import msgspec
import yaml

from orchestrator.profiles.authored import DEFAULTS, MERGED_KEYS
from orchestrator.profiles.effective import CONTRACT_ORIGIN, DEFAULT_ORIGIN, TESTS_ORIGIN, Effective
from orchestrator.profiles.model import Profile


class EffectiveValue(msgspec.Struct, frozen=True, kw_only=True):
    """One key (dotted within those of MERGED_KEYS), its value as plain data, and the file that gave it.

    ``origin`` is ``default`` where no file gave it; that of ``hands_over_to`` tells by ``contract`` that the step to
    the tests was added.
    """

    key: str
    value: Any
    origin: str


def effective_values(effective: Effective) -> list[EffectiveValue]:
    """Every key in the order of the reference, then the instructions."""
    rows: list[EffectiveValue] = []
    plain = authored_values(effective.profile)
    for key, value in plain.items():
        if key not in MERGED_KEYS:
            rows.append(EffectiveValue(key=key, value=value, origin=_origin(effective, key)))
            continue
        for name, part in value.items():
            rows.append(EffectiveValue(key=f"{key}.{name}", value=part, origin=_origin(effective, f"{key}.{name}")))
    text = effective.profile.instructions
    rows.append(EffectiveValue(key="instructions", value=text, origin=_origin(effective, "instructions")))
    return rows


def authored_values(profile: Profile) -> dict[str, Any]:
    """The profile's values under the keys of front matter, as plain data."""
    plain: dict[str, Any] = msgspec.to_builtins(profile)
    return {"name": profile.agent_type, **{key: plain[key] for key in DEFAULTS}}


def render_file(values: dict[str, Any], body: str) -> str:
    """A profile file of ``values`` and ``body``."""
    header = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)
    return f"---\n{header}---\n\n{body.strip()}\n"


def _origin(effective: Effective, key: str) -> str:
    if key == "name":
        return effective.profile.source
    origin = effective.origins.get(key, DEFAULT_ORIGIN)
    if key == "hands_over_to" and TESTS_ORIGIN in effective.origins:
        # test-engineer was added, whoever wrote the rest.
        return CONTRACT_ORIGIN if origin == DEFAULT_ORIGIN else f"{origin}, {CONTRACT_ORIGIN}"
    return origin

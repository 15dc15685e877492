"""Roles: which kinds and languages of files count for whom. The tables are data in ``roles.toml``."""

from __future__ import annotations

import re
import tomllib
from functools import lru_cache
from importlib import resources
from typing import Any

import msgspec

from orchestrator.context.globs import compile_globs
from orchestrator.context.models import FileFacts, Role
from orchestrator.profiles.requirements import REQUIREMENTS


@lru_cache(maxsize=1)
def _table() -> dict[str, Any]:
    text = resources.files("orchestrator.context").joinpath("roles.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


class Focus(msgspec.Struct, frozen=True, kw_only=True):
    """What of a project counts for one role.

    Attributes:
        name: the kind of role (a section of ``roles.toml``).
        kinds: weight by kind of file.
        languages: the role's own languages; empty means all alike.
        required: names of requirements with the pattern of their globs.
        included: pattern of the profile's own globs.
        excluded: pattern of what the role never gets.
        wished: what a request itself asked for, beyond the profile: pattern of its globs.
        wants_entries: entry points count more.
        wants_recent: files of the last commits count more.
        wants_large: large files count more.
    """

    name: str
    kinds: dict[str, float]
    languages: frozenset[str] = frozenset()
    required: tuple[tuple[str, re.Pattern[str]], ...] = ()
    included: re.Pattern[str] | None = None
    excluded: re.Pattern[str] | None = None
    wished: re.Pattern[str] | None = None
    wants_entries: bool = False
    wants_recent: bool = False
    wants_large: bool = False

    def prior(self, facts: FileFacts) -> tuple[float, dict[str, float]]:
        """``(factor, shares)``: how much this kind of file counts, and what the role's wishes add."""
        factor = self.kinds.get(facts.kind, 0.3)
        if self.languages and facts.kind in ("code", "test") and facts.language not in self.languages:
            factor *= _OTHER_LANGUAGE
        shares: dict[str, float] = {}
        if self.wished is not None and self.wished.match(facts.path):
            shares["required"] = DEMAND
            factor = max(factor, 1.0)
        elif self.included is not None and self.included.match(facts.path):
            shares["included"] = _WISH
        elif (place := self._place(facts.path)) is not None:
            shares["required"] = _WISH * (0.9 - place / 2)
        if self.wants_entries and is_entry_point(facts.path):
            shares["entry"] = _WISH
        if self.wants_large and facts.kind == "code":
            shares["large"] = _WISH * min(1.0, facts.stamp.size / _LARGE_BYTES)
        return factor, shares

    def _place(self, path: str) -> float | None:
        """Where the first requirement that brings ``path`` stands in the profile: 0 first, towards 1 last."""
        for place, (_, pattern) in enumerate(self.required):
            if pattern.match(path):
                return place / len(self.required)
        return None


_OTHER_LANGUAGE = 0.5
#: What a profile's wish adds to a score: it orders files when the task says nothing, and little otherwise.
_WISH = 0.06
#: What a request's own requirement adds: more than most signals together, so that it comes first.
DEMAND = 3.0
#: Least weight of a kind that the profile requires.
_REQUIRED_KIND = 0.5
_LARGE_BYTES = 50_000
_ENTRY = re.compile(
    r"(^|/)(__main__\.py|main\.(?!tf|hcl|ya?ml|json|toml|css|scss|html?|md)[a-z]+|app\.(py|js|ts|tsx|rb)|cli\.(py|js|ts)|index\.(js|ts|tsx)|server\.(py|js|ts)|manage\.py|"
    r"wsgi\.py|asgi\.py|lib\.rs|mod\.rs|Program\.cs|Main\.java|Application\.(java|kt)|cmd/[^/]+/[^/]+\.go|__init__\.py)$"
)


def is_entry_point(path: str) -> bool:
    """Whether a program or package starts here, by common names; the nearer to the root the likelier."""
    return path.count("/") <= 3 and _ENTRY.search(path) is not None


def focus_for(role: Role) -> Focus:
    """The focus of ``role``; unknown requirement names are ignored."""
    table = _table()
    words = re.split(r"[-_.]", role.agent_type.lower())
    name = _section(table, words, role.category)
    kinds = {**table["default"]["kinds"], **table["focus"][name].get("kinds", {})}
    languages = {language for word in words for language in table["languages"].get(word, ())}
    wanted = [REQUIREMENTS[name] for name in dict.fromkeys(role.requirements) if name in REQUIREMENTS]
    names = {need.name for need in wanted}
    for need in wanted:
        kind = table["requirement_kinds"].get(need.name)
        if kind is not None:
            kinds[kind] = max(kinds[kind], 1.0 if need.name in role.wished else _REQUIRED_KIND)
    wished = tuple(glob for need in wanted if need.name in role.wished for glob in need.include)
    required = tuple((need.name, pattern) for need in wanted if (pattern := compile_globs(need.include)) is not None)
    return Focus(
        name=name,
        kinds=kinds,
        languages=frozenset(languages),
        required=required,
        included=compile_globs(role.include),
        excluded=compile_globs(role.exclude),
        wished=compile_globs(wished),
        wants_entries="entry_points" in names,
        wants_recent="recently_changed_files" in names,
        wants_large="largest_source_files" in names,
    )


def _section(table: dict[str, Any], words: list[str], category: str) -> str:
    for name, entry in table["focus"].items():
        if set(entry["words"]) & set(words):
            return str(name)
    for name, entry in table["focus"].items():
        if category in entry.get("categories", ()):
            return str(name)
    return "developer"

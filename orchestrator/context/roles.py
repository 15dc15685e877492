"""Roles: which kinds and languages of files count for whom. The tables are data in ``roles.toml``."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
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

    def factor(self, kind: str, language: str) -> float:
        """How much this kind of file counts."""
        factor = self.kinds.get(kind, 0.3)
        is_foreign = self.languages and kind in ("code", "test") and language not in self.languages
        return factor * _OTHER_LANGUAGE if is_foreign else factor

    def wishes(self) -> Iterator[tuple[str, float, Callable[[str], object]]]:
        """``(name, share, is_wanted)``: what the role's wishes add to the score of the paths that they choose, the
        strongest last. Of these one path gets the last one's only."""
        count = len(self.required)
        for place in range(count - 1, -1, -1):  # the earlier in the profile, the more
            yield "required", WISH * (0.9 - place / count / 2), self.required[place][1].match
        if self.included is not None:
            yield "included", WISH, self.included.match
        if self.wished is not None:
            yield "required", DEMAND, self.wished.match


def share_of_size(facts: FileFacts) -> float:
    """What a role that wants large files adds to the score of this one."""
    return WISH * min(1.0, facts.stamp.size / _LARGE_BYTES)


_OTHER_LANGUAGE = 0.5
#: What a profile's wish adds to a score: it orders files when the task says nothing, and little otherwise.
WISH = 0.06
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

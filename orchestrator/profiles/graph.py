"""Hand-overs as a graph: who can be reached, where it ends, and a picture of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from orchestrator.profiles.model import Profile
from orchestrator.profiles.roster import ROOT

_ARROWS = {"high": "==>", "normal": "-->", "low": "-.->"}


def reachable(profiles: Mapping[str, Profile], root: str = ROOT, depth: int | None = None) -> set[str]:
    """Names that hand-overs lead to from ``root`` in at most ``depth`` steps (None is any number), itself among them.

    Names without a profile are left out.
    """
    seen = {root} & profiles.keys()
    border, step = set(seen), 0
    while border and (depth is None or step < depth):
        following = {entry.agent_type for name in border for entry in profiles[name].hands_over_to}
        border = (following & profiles.keys()) - seen
        seen |= border
        step += 1
    return seen


def dead_ends(profiles: Mapping[str, Profile]) -> list[str]:
    """Roles that hand over to nobody and are not declared final, sorted."""
    return sorted(name for name, profile in profiles.items() if not profile.hands_over_to and not profile.is_final)


def mermaid(profiles: Iterable[Profile], *, around: str | None = None) -> str:
    """A Mermaid flowchart, one subgraph a category.

    Thick arrows are of high priority, dotted ones of low; a label says when a hand-over applies, if not always.
    Final roles have round ends.

    Args:
        profiles: which roles to draw.
        around: draw only this role with those that hand over to it and those it hands over to.
    """
    chosen = {profile.agent_type: profile for profile in profiles}
    if around is not None:
        chosen = _neighbourhood(chosen, around)
    lines = ["flowchart LR"]
    categories: dict[str, list[Profile]] = {}
    for profile in chosen.values():
        categories.setdefault(profile.category, []).append(profile)
    for category, members in sorted(categories.items()):
        lines.append(f"  subgraph {_identifier('category ' + category)}[{_text(category)}]")
        for profile in sorted(members, key=lambda member: member.agent_type):
            left, right = ("([", "])") if profile.is_final else ("[", "]")
            name = profile.agent_type
            lines.append(f"    {_identifier(name)}{left}{_text(name)}{right}")
        lines.append("  end")
    for name, profile in sorted(chosen.items()):
        for entry in profile.hands_over_to:
            if entry.agent_type not in chosen or (around is not None and around not in (name, entry.agent_type)):
                continue
            label = "" if entry.when == "always" else f"|{entry.when.replace('_', ' ')}|"
            arrow = _ARROWS[entry.priority]
            lines.append(f"  {_identifier(name)} {arrow}{label} {_identifier(entry.agent_type)}")
    return "\n".join(lines) + "\n"


def _neighbourhood(profiles: Mapping[str, Profile], around: str) -> dict[str, Profile]:
    names = {around}
    for name, profile in profiles.items():
        successors = {entry.agent_type for entry in profile.hands_over_to}
        if name == around:
            names |= successors
        elif around in successors:
            names.add(name)
    return {name: profile for name, profile in profiles.items() if name in names}


def _identifier(name: str) -> str:
    """A node's identifier: letters, digits and '_', prefixed so that no Mermaid keyword (``end``) is hit."""
    return "n_" + "".join(character if character.isalnum() else "_" for character in name)


def _text(text: str) -> str:
    return '"' + text.replace('"', "'") + '"'

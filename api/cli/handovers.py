"""The graph of who hands over to whom: what is reachable, where it ends, and its drawing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.profiles import Profile

#: The role that every chain begins with.
ROOT_ROLE = "chief-architect"


def edges_of(profiles: Iterable[Profile]) -> dict[str, list[str]]:
    """Each role's successors, most important first."""
    return {profile.agent_type: [entry.agent_type for entry in profile.hands_over_to] for profile in profiles}


def reachable(edges: Mapping[str, Sequence[str]], start: str, depth: int | None = None) -> set[str]:
    """The roles that ``start`` leads to in at most ``depth`` steps, itself included."""
    seen = {start} if start in edges else set()
    border = list(seen)
    step = 0
    while border and (depth is None or step < depth):
        border = [role for source in border for role in edges.get(source, ()) if role not in seen]
        seen.update(border)
        step += 1
    return seen


def unreachable(edges: Mapping[str, Sequence[str]]) -> list[str]:
    """Roles that no chain from the architect reaches, sorted; none when there is no architect."""
    return sorted(edges.keys() - reachable(edges, ROOT_ROLE)) if ROOT_ROLE in edges else []


def mermaid(profiles: Sequence[Profile], roles: set[str]) -> str:
    """The graph of ``roles`` as a Mermaid flowchart, grouped by category (mermaid.js.org/syntax/flowchart)."""
    chosen = [profile for profile in profiles if profile.agent_type in roles]
    lines = ["flowchart LR"]
    for category in sorted({profile.category for profile in chosen}):
        lines.append(f'  subgraph {_node("category " + category)}["{category}"]')
        lines += [f'    {_node(p.agent_type)}["{p.agent_type}"]' for p in chosen if p.category == category]
        lines.append("  end")
    for profile in chosen:
        for entry in profile.hands_over_to:
            if entry.agent_type in roles:
                label = "" if entry.when == "always" else f"|{entry.when}|"
                lines.append(f"  {_node(profile.agent_type)} -->{label} {_node(entry.agent_type)}")
    return "\n".join(lines)


def _node(name: str) -> str:
    # Mermaid's node ids may not hold "-" beside arrows, nor the word "end".
    return "n_" + "".join(c if c.isalnum() else "_" for c in name)

"""A first version of a new role's file."""

from __future__ import annotations

from typing import Any

import msgspec

from agentpool.outcomes import EndRules
from agentpool.specs import Limits
from orchestrator.identifiers import check_identifier
from orchestrator.profiles.authored import DEFAULTS
from orchestrator.profiles.display import authored_values, render_file
from orchestrator.profiles.model import ContextNeeds, PermissionClass, Profile

_BODY = """\
What this role is for, in one sentence, and what it leaves to which other role.

Look first at: the files, commands or earlier results that tell how things stand.

Then work like this: the steps, in order, with the checks that show each has worked.

Deliver in the result: `decisions` (choice and reason), `findings` (`file`, `line`, `message`), `files_modified`,
`next_steps`; name the keys that this role fills and what each entry holds.

Hand over to test-engineer when files have changed. Hand over to another role when: say in which case.

Do not: what lies outside this role, and what must never happen.
"""


def profile_template(
    name: str,
    *,
    description: str = "Say in one sentence when this role is to be called on.",
    category: str = "custom",
    permission_class: PermissionClass = "coding",
    like: Profile | None = None,
) -> str:
    """The text of a valid profile file for ``name``, to be filled in.

    Args:
        name: the new role's name. Raises BadRequest when it is no identifier.
        description: when to call on it.
        category: group in lists.
        permission_class: see ``orchestrator.profiles.permissions``.
        like: take needs, hand-overs and limits from this profile rather than a plain start; its text is not
            taken, since two roles with one text are one role.
    """
    check_identifier(name, "name")
    values: dict[str, Any] = {"name": name, "description": description}
    if like is not None:
        return render_file({**values, **_taken_from(like)}, _BODY)
    values |= {
        "model": "sonnet",
        "category": category,
        "permission_class": permission_class,
        "tools": "Read, Grep, Glob",
        "context": {
            "include": ["src/**"],
            "requirements": ["project_structure", "source_files", "previous_decisions"],
            "max_bytes": 300_000,
        },
        "subscribes": ["coordination"],
        "publishes": ["implementation"] if permission_class in ("architect", "coding", "qa-security") else [],
        "hands_over_to": [{"agent_type": "test-engineer", "reason": "what changed is tested"}],
        "workspace": "worktree",
        "timeout_seconds": 1800,
        "idle_seconds": 300,
    }
    return render_file(values, _BODY)


def _taken_from(profile: Profile) -> dict[str, Any]:
    """What the profile says beyond the defaults, as plain lists and mappings."""
    plain = msgspec.json.decode(msgspec.json.encode(authored_values(profile)))
    defaults = msgspec.json.decode(msgspec.json.encode(DEFAULTS))
    taken = {key: plain[key] for key in DEFAULTS if key != "description" and plain[key] != defaults[key]}
    for key, nothing in (("context", ContextNeeds()), ("limits", Limits()), ("ends", EndRules())):
        usual = msgspec.json.decode(msgspec.json.encode(nothing))
        taken[key] = {name: value for name, value in plain[key].items() if value != usual[name]}
    return {key: value for key, value in taken.items() if value != {}}

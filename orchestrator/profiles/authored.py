"""What an author writes: the front matter's keys with their types, and what an omitted one becomes."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta

from agentpool.specs import Limits
from orchestrator.identifiers import IDENTIFIER_PATTERN
from orchestrator.models import Priority
from orchestrator.profiles.model import (
    Condition,
    Part,
    PermissionClass,
    RestartPolicy,
    Sandbox,
    Trigger,
    Workspace,
)

Identifier = Annotated[str, Meta(pattern=f"^{IDENTIFIER_PATTERN}$")]
Text = Annotated[str, Meta(min_length=1)]
VariableName = Annotated[str, Meta(pattern="^[A-Za-z_][A-Za-z0-9_]*$")]
#: Up to 30 days.
Seconds = Annotated[float, Meta(gt=0, le=2_592_000)]
Count = Annotated[int, Meta(ge=0, le=1000)]


class AuthoredContext(Part, frozen=True, kw_only=True, omit_defaults=True):
    """``context``: see ``ContextNeeds`` for the meaning of each key."""

    include: tuple[Text, ...] = ()
    exclude: tuple[Text, ...] = ()
    requirements: tuple[Identifier, ...] = ()
    max_bytes: Annotated[int, Meta(ge=1024, le=10_485_760)] | None = None
    max_tokens: Annotated[int, Meta(ge=256)] | None = None


class AuthoredHandOver(Part, frozen=True, kw_only=True, omit_defaults=True):
    """One entry of ``hands_over_to``, which may also be just a role's name: see ``HandOver``."""

    agent_type: Identifier
    priority: Priority = "normal"
    reason: str = ""
    when: Condition = "always"


class AuthoredCheck(Part, frozen=True, kw_only=True, omit_defaults=True):
    """``verify``: see ``Check``."""

    command: Text | tuple[Text, ...]
    timeout_seconds: Seconds = 300.0


class AuthoredEnds(Part, frozen=True, kw_only=True, omit_defaults=True):
    """``ends``: see ``agentpool.outcomes.EndRules``."""

    expects: Literal["nothing", "output", "result"] = "nothing"
    quota_exit_codes: tuple[Annotated[int, Meta(ge=1, le=255)], ...] = ()
    quota_phrases: tuple[Text, ...] = ()


class FrontMatter(Part, frozen=True, kw_only=True):
    """All keys of a profile's front matter. Only ``name`` must be there; the others come from the layer below.

    ``model``, ``tools``, ``description`` and ``name`` are those of coding CLIs' own sub-agent files.
    """

    name: Identifier
    description: Text | msgspec.UnsetType = msgspec.UNSET
    category: Identifier | msgspec.UnsetType = msgspec.UNSET
    permission_class: PermissionClass | msgspec.UnsetType = msgspec.UNSET
    model: Text | msgspec.UnsetType = msgspec.UNSET
    tools: str | tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    context: AuthoredContext | msgspec.UnsetType = msgspec.UNSET
    subscribes: tuple[Identifier, ...] | msgspec.UnsetType = msgspec.UNSET
    publishes: tuple[Identifier, ...] | msgspec.UnsetType = msgspec.UNSET
    hands_over_to: tuple[AuthoredHandOver | Identifier, ...] | msgspec.UnsetType = msgspec.UNSET
    is_final: bool | msgspec.UnsetType = msgspec.UNSET
    runtime: Identifier | msgspec.UnsetType = msgspec.UNSET
    command: Text | tuple[Text, ...] | msgspec.UnsetType = msgspec.UNSET
    workspace: Workspace | msgspec.UnsetType = msgspec.UNSET
    environment: tuple[VariableName, ...] | msgspec.UnsetType = msgspec.UNSET
    limits: Limits | msgspec.UnsetType = msgspec.UNSET
    sandbox: Sandbox | msgspec.UnsetType = msgspec.UNSET
    sandbox_network: bool | msgspec.UnsetType = msgspec.UNSET
    restart: RestartPolicy | msgspec.UnsetType = msgspec.UNSET
    restart_limit: Count | msgspec.UnsetType | None = msgspec.UNSET
    restart_window_seconds: Seconds | msgspec.UnsetType | None = msgspec.UNSET
    verify: AuthoredCheck | msgspec.UnsetType | None = msgspec.UNSET
    ends: AuthoredEnds | msgspec.UnsetType = msgspec.UNSET
    timeout_seconds: Seconds | msgspec.UnsetType = msgspec.UNSET
    idle_seconds: Seconds | msgspec.UnsetType | None = msgspec.UNSET
    triggers: tuple[Trigger, ...] | msgspec.UnsetType = msgspec.UNSET


#: Every key, in the order of the reference.
KEYS = tuple(get_type_hints(FrontMatter))
#: Keys of coding CLIs' own files that mean something to them and nothing here.
FOREIGN_KEYS = frozenset(
    {
        "background",
        "color",
        "disallowedTools",
        "effort",
        "hooks",
        "initialPrompt",
        "isolation",
        "maxTurns",
        "mcpServers",
        "memory",
        "permissionMode",
        "skills",
        "version",
    }
)
#: Mappings whose keys are laid over one another one by one; every other value is replaced whole.
MERGED_KEYS = ("context", "limits", "ends")

#: What a role that no shipped profile stands behind gets for a key that its file leaves out.
DEFAULTS: dict[str, Any] = {
    "description": "",
    "category": "custom",
    "permission_class": "coding",
    "model": "inherit",
    "tools": (),
    "context": {"requirements": ("project_structure", "source_files", "readme_files", "previous_decisions")},
    "subscribes": ("coordination",),
    "publishes": (),
    "hands_over_to": (),
    "is_final": False,
    "runtime": "python",
    "command": ("orchestrator.analysts.research:run",),
    "workspace": "shared",
    "environment": (),
    "limits": {},
    "sandbox": "none",
    "sandbox_network": True,
    "restart": "never",
    "restart_limit": None,
    "restart_window_seconds": None,
    "verify": None,
    "ends": {},
    "timeout_seconds": 900.0,
    "idle_seconds": None,
    "triggers": (),
}

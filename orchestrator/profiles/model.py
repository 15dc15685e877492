"""What a role is: the values that a profile's front matter and body become."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from agentpool.outcomes import EndRules
from agentpool.specs import Limits
from orchestrator.models import Priority

PermissionClass = Literal["architect", "coding", "qa-security", "documentation", "support"]
Workspace = Literal["shared", "scratch", "worktree"]
RestartPolicy = Literal["never", "on-failure", "always"]
Sandbox = Literal["none", "workspace"]
#: When a hand-over applies, read from the result: see ``HandOver``.
Condition = Literal["always", "success", "partial", "failed", "files_changed", "findings"]

#: The model tiers of the roster; a profile's ``model`` may also be a full model name or ``inherit``.
TIERS = ("opus", "sonnet", "haiku")
#: Where commands of the built-in analysts begin.
BUILT_IN_ANALYSTS = "orchestrator.analysts."
#: Topics with subscribers by default (contract section 5); others are free.
TOPICS = (
    "architecture",
    "implementation",
    "testing",
    "security",
    "deployment",
    "documentation",
    "error",
    "coordination",
)


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of a profile's parts; a key that is not a field is an error in the file."""


class ContextNeeds(Part, frozen=True, kw_only=True):
    """What of a project the role needs to see.

    Attributes:
        include: globs (as in ``.gitignore``) of files that count most for this role.
        exclude: globs of files that it never gets.
        requirements: names of ``orchestrator.profiles.requirements``.
        max_bytes: bound on the summed file contents; None takes the settings' bound.
        max_tokens: the same in tokens (estimated by the context engine); None is unbounded.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    max_bytes: int | None = None
    max_tokens: int | None = None


class HandOver(Part, frozen=True, kw_only=True):
    """Who takes over from this role, and in which case.

    ``when`` is read from the result: ``always``; ``success``, ``partial`` or ``failed`` is its status;
    ``files_changed`` means that it names created, modified or deleted files; ``findings`` that it lists
    findings, errors or warnings.
    """

    agent_type: str
    priority: Priority = "normal"
    reason: str = ""
    when: Condition = "always"

    def applies_to(self, result: dict[str, Any]) -> bool:
        """Whether this hand-over follows from ``result`` (the contract's result object)."""
        if self.when == "always":
            return True
        if self.when in ("success", "partial", "failed"):
            return result.get("status") == self.when
        keys = ("files_created", "files_modified", "files_deleted")
        if self.when == "findings":
            keys = ("findings", "errors", "warnings")
        return any(result.get(key) for key in keys)


class Trigger(Part, frozen=True, kw_only=True):
    """On an event, spawn an agent; the same grammar as ``[triggers]`` of a project's ``orchestrator.toml``.

    Attributes:
        on: types of events that fire it; ``*`` is every type.
        topic: only events of this topic; None is any.
        filter: a filter of the events endpoint; None matches all.
        spawn: whom to spawn; empty means the profile's own role.
        task: template of the task; ``{path}`` stands for a field of the event, such as ``{data.summary}``.
        issue: template of the issue that the agent works on.
        priority: of the spawn.
    """

    on: tuple[str, ...]
    task: str
    topic: str | None = None
    filter: str | None = None
    spawn: str = ""
    issue: str = "{data.issue_id}"
    priority: Priority = "normal"


class Check(Part, frozen=True, kw_only=True):
    """The command that verifies what the role did (``verify``): exit code 0 means that the work is good.

    Attributes:
        command: program and arguments, run in the agent's workspace.
        timeout_seconds: its longest time.
    """

    command: tuple[str, ...]
    timeout_seconds: float = 300.0


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """One role, with everything that is in force for it.

    Attributes:
        agent_type: the role's name (front matter ``name``).
        description: one or two sentences: when to call on it.
        category: group in lists, such as ``development``.
        permission_class: decides permissions and rate limits (``orchestrator.profiles.permissions``).
        model: as written: a tier, a full model name or ``inherit``.
        tier: ``opus``, ``sonnet`` or ``haiku`` when ``model`` names one, else ``inherit``.
        tools: the coding CLI's tools that it may use; empty means all.
        context: what it needs to see.
        subscribes: topics whose events reach it.
        publishes: topics that it uses.
        hands_over_to: who comes next, most important first.
        is_final: it ends a chain on purpose, so it needs no hand-over.
        runtime: name of a runtime (``python``, ``jsonl``, ``text``, ``claude``, ...).
        command: program and arguments; for ``python`` one item ``module:function``.
        workspace: what a run gives it (see ``workspace_in_runs``); a plain spawn that names none gets ``shared``
            (contract section 5).
        environment: names of further variables of the sidecar's own environment that it gets.
        limits: bounds on its process tree.
        sandbox: ``workspace`` shuts it into its workspace (bubblewrap).
        sandbox_network: whether a sandboxed agent keeps the network.
        restart: what happens when an attempt fails.
        restart_limit: at most this many restarts ...
        restart_window_seconds: ... in this time; None takes the settings' value for either.
        verify: who checks its work once an attempt has ended well; None is nobody.
        ends: what an attempt's end means that does not say so itself.
        timeout_seconds: longest time of one attempt.
        idle_seconds: longest time without output and CPU use; None is unbounded.
        triggers: events that spawn agents.
        instructions: the body: what a model is told.
        source: file that gave the topmost layer, as text.
        layer: ``shipped``, ``user`` or ``project``: where that file belongs.
        revision: changes whenever anything of the profile does; fit for cache keys.
    """

    agent_type: str
    description: str
    category: str
    permission_class: PermissionClass
    model: str = "inherit"
    tier: str = "inherit"
    tools: tuple[str, ...] = ()
    context: ContextNeeds = ContextNeeds()
    subscribes: tuple[str, ...] = ()
    publishes: tuple[str, ...] = ()
    hands_over_to: tuple[HandOver, ...] = ()
    is_final: bool = False
    runtime: str = "python"
    command: tuple[str, ...] = ("orchestrator.analysts.research:run",)
    workspace: Workspace = "shared"
    environment: tuple[str, ...] = ()
    limits: Limits = Limits()
    sandbox: Sandbox = "none"
    sandbox_network: bool = True
    restart: RestartPolicy = "never"
    restart_limit: int | None = None
    restart_window_seconds: float | None = None
    verify: Check | None = None
    ends: EndRules = EndRules()
    timeout_seconds: float = 900.0
    idle_seconds: float | None = None
    triggers: tuple[Trigger, ...] = ()
    instructions: str = ""
    source: str = ""
    layer: Literal["shipped", "user", "project"] = "shipped"
    revision: str = ""

    @property
    def workspace_in_runs(self) -> Workspace:
        """What a run gives it: its ``workspace``, but a built-in analyst the project itself, which it only reads, with
        what is not committed.
        """
        is_analyst = self.runtime == "python" and self.command[0].startswith(BUILT_IN_ANALYSTS)
        return "shared" if is_analyst else self.workspace

    def trigger_documents(self) -> dict[str, dict[str, Any]]:
        """The triggers by name (``profile.<role>.<number>``) as ``[triggers]`` of a project's file would hold them."""
        documents: dict[str, dict[str, Any]] = {}
        for number, trigger in enumerate(self.triggers, start=1):
            document: dict[str, Any] = msgspec.to_builtins(trigger)
            document["spawn"] = trigger.spawn or self.agent_type
            documents[f"profile.{self.agent_type}.{number}"] = document
        return documents

    def next_agents(self, result: dict[str, Any]) -> list[HandOver]:
        """The hand-overs that follow from ``result``, in the profile's order."""
        return [hand_over for hand_over in self.hands_over_to if hand_over.applies_to(result)]

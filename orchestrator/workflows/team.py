"""Which roles work on an issue, in which phases (pure)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from orchestrator.errors import BadRequest
from orchestrator.models import Model, RunStep

#: At most this many language specialists in one team; the project's main languages come first.
MAX_LANGUAGES = 3
LANGUAGE_ROLES = {
    "python": "python-specialist",
    "go": "go-specialist",
    "rust": "rust-specialist",
    "swift": "swift-specialist",
    "dart": "flutter-specialist",
    "javascript": "javascript-pro",
    "typescript": "typescript-pro",
    "shell": "shell-scripting-pro",
    "sql": "sql-pro",
}
#: A specialist for what has no role of its own.
OTHER_LANGUAGE_ROLE = "fullstack-developer"


class Facts(Model, frozen=True, kw_only=True):
    """What decides about the team: languages by size (largest first), and what kinds of files there are."""

    languages: tuple[str, ...] = ()
    has_infrastructure: bool = False
    has_api: bool = False


class Workflow(Model, frozen=True, kw_only=True):
    """Phases of roles; ``@languages``, ``@infrastructure`` and ``@api`` stand for what the project calls for."""

    name: str
    description: str
    phases: tuple[tuple[str, ...], ...]


WORKFLOWS = {
    workflow.name: workflow
    for workflow in (
        Workflow(
            name="team",
            description="architect, then specialists side by side, then a review of everything found",
            phases=(
                ("chief-architect",),
                (
                    "@languages",
                    "security-auditor",
                    "test-engineer",
                    "documentation-expert",
                    "@infrastructure",
                    "@api",
                ),
                ("code-reviewer",),
            ),
        ),
        Workflow(
            name="review",
            description="specialists and security on the work tree's changes, then the reviewer",
            phases=(("@languages", "security-auditor"), ("code-reviewer",)),
        ),
        Workflow(
            name="quick",
            description="architect and reviewer only",
            phases=(("chief-architect",), ("code-reviewer",)),
        ),
    )
}
DEFAULT_WORKFLOW = "team"


def get_workflow(name: str) -> Workflow:
    """The workflow. Raises BadRequest with the known names."""
    try:
        return WORKFLOWS[name]
    except KeyError:
        raise BadRequest(
            f"workflow {name!r} is not known; there are {', '.join(WORKFLOWS)}", details={"field": "workflow"}
        ) from None


def specialists(languages: Sequence[str]) -> list[str]:
    """Roles for the project's main languages, at most MAX_LANGUAGES, each once."""
    roles: list[str] = []
    for language in languages:
        role = LANGUAGE_ROLES.get(language.lower())
        if role is not None and role not in roles:
            roles.append(role)
    return roles[:MAX_LANGUAGES] or ([OTHER_LANGUAGE_ROLE] if languages else [])


def plan(workflow: Workflow, facts: Facts, task: str, known_roles: Collection[str]) -> list[RunStep]:
    """The steps of a run, phase by phase; roles that no profile describes are left out."""
    steps: list[RunStep] = []
    for phase, slots in enumerate(workflow.phases, start=1):
        roles: list[str] = []
        for slot in slots:
            roles += _fill(slot, facts)
        for role in dict.fromkeys(roles):
            if role in known_roles:
                steps.append(RunStep(step=f"{phase}.{role}", phase=phase, agent_type=role, task=task))
    return steps


def _fill(slot: str, facts: Facts) -> list[str]:
    if slot == "@languages":
        return specialists(facts.languages)
    if slot == "@infrastructure":
        return ["devops-engineer"] if facts.has_infrastructure else []
    if slot == "@api":
        return ["api-explorer"] if facts.has_api else []
    return [slot]

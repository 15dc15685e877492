"""Which team works on what."""

from __future__ import annotations

import pytest

from orchestrator.errors import BadRequest
from orchestrator.workflows.facts import facts_of
from orchestrator.workflows.team import LANGUAGE_ROLES, WORKFLOWS, Facts, get_workflow, plan, specialists

ROLES = {
    "chief-architect",
    "security-auditor",
    "test-engineer",
    "documentation-expert",
    "devops-engineer",
    "api-explorer",
    "code-reviewer",
    "fullstack-developer",
    *LANGUAGE_ROLES.values(),
}


def test_mixed_project_gets_its_specialists() -> None:
    """Everybody got the Python team, whatever their project was written in."""
    facts = Facts(languages=("go", "python", "html"), has_infrastructure=True, has_api=True)
    steps = plan(WORKFLOWS["team"], facts, "task", ROLES)
    assert [step.agent_type for step in steps if step.phase == 1] == ["chief-architect"]
    middle = {step.agent_type for step in steps if step.phase == 2}
    assert {"go-specialist", "python-specialist", "devops-engineer", "api-explorer", "test-engineer"} <= middle
    assert [step.agent_type for step in steps if step.phase == 3] == ["code-reviewer"]
    assert len({step.step for step in steps}) == len(steps)


def test_bounds_and_unknown_languages() -> None:
    """A polyglot repository spawned a specialist for each of twenty languages; COBOL got nobody."""
    assert len(specialists(["python", "go", "rust", "swift", "sql"])) == 3
    assert specialists(["cobol"]) == ["fullstack-developer"]
    assert specialists([]) == []


def test_roles_without_a_profile_are_left_out() -> None:
    """A project that removed a role could not start any run."""
    steps = plan(WORKFLOWS["quick"], Facts(), "task", {"code-reviewer"})
    assert [step.agent_type for step in steps] == ["code-reviewer"]


def test_unknown_workflow_names_the_known_ones() -> None:
    """The way out was missing from the error."""
    with pytest.raises(BadRequest, match="team, review, quick"):
        get_workflow("nope")


def test_facts_come_from_a_context_document() -> None:
    """Infrastructure roles joined although there was nothing for them, or were missing."""
    document = {
        "context": {
            "project_structure": {"files": [{"path": "Dockerfile"}, {"path": "api/openapi.yaml"}]},
            "metadata": {"languages": {"Python": 10, "Go": 20}},
        }
    }
    assert facts_of(document) == Facts(languages=("Go", "Python"), has_infrastructure=True, has_api=True)
    assert facts_of({}) == Facts()

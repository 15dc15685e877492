"""Named context requirements, permissions and hand-over conditions."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.errors import BadRequest
from orchestrator.events.rules import parse_event_rules
from orchestrator.profiles.model import HandOver, Profile, Trigger
from orchestrator.profiles.permissions import CLASS_PERMISSIONS, PERMISSIONS, permissions_of
from orchestrator.profiles.requirements import REQUIREMENTS, resolve_requirements

#: Names that users were promised.
PROMISED = {
    "project_structure",
    "all_files",
    "source_files",
    "test_files",
    "previous_decisions",
    "previous_code_reviews",
    "security_configs",
    "dependency_manifests",
    "ci_configs",
    "api_specs",
    "readme_files",
    "git_history",
    "test_coverage_reports",
}


def test_the_promised_names_are_there() -> None:
    """A renamed requirement would break every request that uses it."""
    assert REQUIREMENTS.keys() >= PROMISED


def test_every_row_says_how_it_is_resolved() -> None:
    """A name without globs or section would bring nothing, silently."""
    for requirement in REQUIREMENTS.values():
        assert requirement.description.endswith("."), requirement.name
        if requirement.kind == "section":
            assert requirement.section, requirement.name
        if requirement.kind == "files":
            assert requirement.include, requirement.name
            assert len(set(requirement.include)) == len(requirement.include), requirement.name


def test_names_are_resolved_in_order_and_once() -> None:
    """A request that repeats a name must not pay for it twice."""
    rows = resolve_requirements(["test_files", "readme_files", "test_files"])
    assert [row.name for row in rows] == ["test_files", "readme_files"]


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    """A typing error must not quietly bring less context."""
    with pytest.raises(BadRequest) as caught:
        resolve_requirements(["readme_files", "test_file"])
    assert "did you mean 'test_files'" in caught.value.message
    assert caught.value.details["nearest"][0] == "test_files"
    with pytest.raises(BadRequest, match=r"'zzzzqqq'$"):
        resolve_requirements(["zzzzqqq"])


@pytest.mark.parametrize(
    ("permission_class", "granted"),
    [
        ("architect", set(PERMISSIONS) - {"admin"}),
        ("coding", {"read_context", "read_results", "subscribe_events", "write_results", "publish_events"}),
        ("qa-security", {"read_context", "read_results", "subscribe_events", "write_results", "publish_events"}),
        ("documentation", {"read_context", "read_results", "subscribe_events", "write_results"}),
        ("support", {"read_context", "read_results", "subscribe_events"}),
    ],
)
def test_classes_have_the_permissions_of_the_contract(permission_class: Any, granted: set[str]) -> None:
    """A class with one permission too many can spawn or kill what it should not."""
    assert set(permissions_of(permission_class)) == granted
    assert set(CLASS_PERMISSIONS[permission_class]) == granted
    assert "admin" not in granted


@pytest.mark.parametrize(
    ("when", "result", "applies"),
    [
        ("always", {}, True),
        ("success", {"status": "success"}, True),
        ("success", {"status": "failed"}, False),
        ("partial", {"status": "partial"}, True),
        ("failed", {"status": "failed"}, True),
        ("files_changed", {"files_created": ["a"]}, True),
        ("files_changed", {"files_deleted": [{"path": "a"}]}, True),
        ("files_changed", {"files_created": []}, False),
        ("findings", {"findings": [{"line": 1}]}, True),
        ("findings", {"errors": ["x"]}, True),
        ("findings", {"warnings": ["x"]}, True),
        ("findings", {"status": "failed"}, False),
    ],
)
def test_hand_overs_apply_by_the_result(when: Any, result: dict[str, Any], applies: bool) -> None:
    """A hand-over in the wrong case sends work to a role that has nothing to do."""
    assert HandOver(agent_type="x", when=when).applies_to(result) is applies


def test_triggers_are_written_as_a_projects_rules_are() -> None:
    """A trigger of a profile must be a rule that the event log can carry out as it is."""
    profile = Profile(
        agent_type="helper",
        description="",
        category="support",
        permission_class="support",
        triggers=(
            Trigger(on=("incident_declared",), task="Look at {data.summary}"),
            Trigger(on=("*",), topic="testing", filter="status:failed", spawn="debugger", task="Mend it"),
        ),
    )
    rules = parse_event_rules({"triggers": profile.trigger_documents()}, "test").triggers
    assert {name: rule.spawn for name, rule in rules.items()} == {
        "profile.helper.1": "helper",
        "profile.helper.2": "debugger",
    }

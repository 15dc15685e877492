"""Everything that can be wrong with the roles in force, beyond what keeps a file from being read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import util
from pathlib import Path

from orchestrator.profiles.catalogue import Profiles
from orchestrator.profiles.effective import TESTS_ORIGIN, Effective
from orchestrator.profiles.graph import dead_ends, reachable
from orchestrator.profiles.model import TOPICS, Profile
from orchestrator.profiles.permissions import CLASS_PERMISSIONS, PUBLISH_EVENTS
from orchestrator.profiles.problems import Problem, Severity
from orchestrator.profiles.requirements import describe_unknown
from orchestrator.profiles.roster import ROOT, Role, load_roster

#: Length of a shipped role's instructions, in words.
MIN_WORDS, MAX_WORDS = 80, 300
_WORD = re.compile(r"[^\W_][\w'’.-]*")
_PYTHON_COMMAND = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def validate(profiles: Profiles, project_path: str | None = None) -> list[Problem]:
    """All that is wrong with the roles in force for a project (or for none), errors first.

    Shipped roles are held to the roster and to the bounds on their text; a user's and a project's roles to what
    would keep them from working. Imports nothing of a project's.
    """
    roster = load_roster()
    effective = {name: profiles.explain(name, project_path) for name in profiles.names(project_path)}
    by_name = {name: entry.profile for name, entry in effective.items()}
    found = profiles.problems(project_path)
    for entry in effective.values():
        found.extend(_check_role(entry, roster.get(entry.profile.agent_type)))
    found.extend(_check_graph(by_name))
    for name in roster.keys() - by_name.keys():
        found.append(Problem(severity="error", source="roster", reason="this role has no profile", agent_type=name))
    order: dict[Severity, int] = {"error": 0, "warning": 1, "note": 2}
    return sorted(found, key=lambda problem: (order[problem.severity], problem.agent_type, problem.source))


def count_words(text: str) -> int:
    """Words of a text: runs of letters, digits and inner marks; Markdown signs do not count."""
    return len(_WORD.findall(text))


def _check_role(effective: Effective, role: Role | None) -> Iterator[Problem]:
    profile = effective.profile
    is_shipped = profile.layer == "shipped"
    problem = _Reporter(profile)
    if not profile.description:
        yield problem("error" if is_shipped else "warning", "description is missing: it says when to call on the role")
    if is_shipped:
        yield from _check_shipped(effective, role, problem)
    elif not profile.instructions:
        yield problem("warning", "the body is empty: a model is told nothing about this role")
    if role is not None and profile.permission_class != role.permission_class and not is_shipped:
        yield problem("warning", f"permission_class differs from the roster's {role.permission_class!r}")
    yield from _check_topics(profile, problem)
    yield from _check_hand_overs(profile, problem)
    if reason := _wrong_command(profile):
        yield problem("error" if is_shipped else "warning", reason)


class _Reporter:
    """Makes problems about one role."""

    def __init__(self, profile: Profile) -> None:
        self._source = profile.source
        self._agent_type = profile.agent_type

    def __call__(self, severity: Severity, reason: str) -> Problem:
        return Problem(severity=severity, source=self._source, reason=reason, agent_type=self._agent_type)


def _check_shipped(effective: Effective, role: Role | None, problem: _Reporter) -> Iterator[Problem]:
    profile = effective.profile
    if role is None:
        yield problem("error", "not a role of the roster")
    else:
        for key in ("category", "tier", "permission_class"):
            if getattr(profile, key) != getattr(role, key):
                yield problem("error", f"{key} is {getattr(profile, key)!r}, the roster has {getattr(role, key)!r}")
    if Path(profile.source).stem != profile.agent_type:
        yield problem("error", "the file must be named after the role")
    words = count_words(profile.instructions)
    if not MIN_WORDS <= words <= MAX_WORDS:
        yield problem("error", f"instructions have {words} words; {MIN_WORDS} to {MAX_WORDS} are wanted")
    is_tested = any(entry.agent_type == "test-engineer" and entry.when == "always" for entry in profile.hands_over_to)
    if profile.permission_class == "coding" and (not is_tested or TESTS_ORIGIN in effective.origins):
        yield problem("error", "a coding role must always hand over to test-engineer")
    if profile.hands_over_to and not any(entry.agent_type in profile.instructions for entry in profile.hands_over_to):
        yield problem("error", "the instructions name none of the roles that it hands over to")
    if not (profile.context.requirements or profile.context.include):
        yield problem("error", "context asks for nothing")


def _check_topics(profile: Profile, problem: _Reporter) -> Iterator[Problem]:
    severity: Severity = "error" if profile.layer == "shipped" else "warning"
    for key in ("subscribes", "publishes"):
        for topic in getattr(profile, key):
            if topic not in TOPICS:
                yield problem(severity, f"{key}: unknown topic {describe_unknown(topic, TOPICS)}")
    if profile.publishes and PUBLISH_EVENTS not in CLASS_PERMISSIONS[profile.permission_class]:
        yield problem(severity, f"publishes: class {profile.permission_class!r} may not publish events")


def _check_hand_overs(profile: Profile, problem: _Reporter) -> Iterator[Problem]:
    names = [entry.agent_type for entry in profile.hands_over_to]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield problem("warning", f"hands over to {name!r} more than once")
    if profile.agent_type in names:
        yield problem("error", "hands over to itself")
    if profile.is_final and names:
        yield problem("warning", "is_final, yet it hands over")


def _check_graph(by_name: Mapping[str, Profile]) -> Iterator[Problem]:
    for name in dead_ends(by_name):
        yield _Reporter(by_name[name])("warning", "a dead end: hands over to nobody and is not declared is_final")
    for name in sorted(by_name.keys() - reachable(by_name)):
        severity: Severity = "error" if by_name[name].layer == "shipped" else "note"
        yield _Reporter(by_name[name])(severity, f"no chain of hand-overs leads here from {ROOT}")


def _wrong_command(profile: Profile) -> str | None:
    if profile.runtime != "python":
        return None
    if len(profile.command) != 1 or _PYTHON_COMMAND.fullmatch(profile.command[0]) is None:
        return "command: the python runtime takes one item of the form module:function"
    module = profile.command[0].partition(":")[0]
    if not module.startswith("orchestrator."):
        return None  # a user's module need not be importable here, and its packages are not imported to find out
    try:
        spec = util.find_spec(module)
    except ImportError:
        spec = None
    return None if spec else f"command: no module {module!r}"

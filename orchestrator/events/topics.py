"""Who may publish to and read which topic; by default everyone of the project, every topic."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, Protocol

import msgspec

from orchestrator.errors import ConfigInvalid
from orchestrator.identifiers import is_identifier

#: Topics that have subscribers by default (contract section 5); strict rules leave them open.
DEFAULT_TOPICS = (
    "architecture",
    "implementation",
    "testing",
    "security",
    "deployment",
    "documentation",
    "error",
    "coordination",
)


class TopicRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Agent types (globs with ``*``) that may publish to and read one topic; None is everyone."""

    publish: tuple[str, ...] | None = None
    read: tuple[str, ...] | None = None
    description: str = ""


class TopicRules(msgspec.Struct, frozen=True, kw_only=True):
    """A project's rules. ``strict`` closes every topic that is neither named here nor a default one."""

    strict: bool = False
    topics: dict[str, TopicRule] = {}

    def is_known(self, topic: str) -> bool:
        """Whether the topic is named here or a default one."""
        return topic in self.topics or topic in DEFAULT_TOPICS

    def may_publish(self, topic: str, role: str | None) -> bool:
        """Whether an agent type may publish; None stands for the supervisor and operators."""
        return self._allows(topic, role, "publish")

    def may_read(self, topic: str, role: str | None) -> bool:
        """Whether an agent type may read; None stands for the supervisor and operators."""
        return self._allows(topic, role, "read")

    def is_open(self, topic: str) -> bool:
        """Whether every agent type may read."""
        rule = self.topics.get(topic)
        return self._is_open_by_default(topic) if rule is None else rule.read is None

    def _allows(self, topic: str, role: str | None, action: str) -> bool:
        if role is None:
            return True
        rule = self.topics.get(topic)
        if rule is None:
            return self._is_open_by_default(topic)
        allowed = rule.publish if action == "publish" else rule.read
        return allowed is None or any(fnmatchcase(role, pattern) for pattern in allowed)

    def _is_open_by_default(self, topic: str) -> bool:
        return not self.strict or topic in DEFAULT_TOPICS


OPEN = TopicRules()


class TopicSource(Protocol):
    """Where the bus finds a project's rules."""

    async def prepare(self, project_id: str) -> None:
        """Load them; called before the project's first event is published or read."""

    def topics(self, project_id: str) -> TopicRules:
        """Those in force."""


class OpenTopics:
    """A source without rules: every topic is open."""

    async def prepare(self, project_id: str) -> None:
        return None

    def topics(self, project_id: str) -> TopicRules:
        return OPEN


def parse_topic_rules(document: Mapping[str, Any], origin: str) -> TopicRules:
    """Rules of a project file's ``[topics]`` table. Raises ConfigInvalid naming the setting and ``origin``."""
    strict = document.get("strict", False)
    if not isinstance(strict, bool):
        raise _invalid(origin, "topics.strict", "must be true or false")
    topics = {}
    for name, value in document.items():
        if name == "strict":
            continue
        if not is_identifier(name):
            raise _invalid(origin, f"topics.{name}", "is not a topic name")
        try:
            topics[name] = msgspec.convert(value, TopicRule)
        except msgspec.ValidationError as error:
            raise _invalid(origin, f"topics.{name}", str(error)) from error
    return TopicRules(strict=strict, topics=topics)


def _invalid(origin: str, setting: str, reason: str) -> ConfigInvalid:
    return ConfigInvalid(f"{origin}: {setting}: {reason}", details={"setting": setting, "origin": origin})

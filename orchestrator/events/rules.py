"""A project's own rules about events: topics, triggers and webhooks of its ``orchestrator.toml``."""

from __future__ import annotations

import asyncio
import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog

from orchestrator.errors import ConfigInvalid, SidecarError
from orchestrator.events.query import EventQuery, Matcher, compile_query
from orchestrator.events.topics import OPEN, TopicRules, parse_topic_rules
from orchestrator.identifiers import is_identifier

T = TypeVar("T", bound=msgspec.Struct)

log = structlog.get_logger(__name__)

FILE_NAME = "orchestrator.toml"
#: Seconds after which a project's file is looked at again.
RELOAD_S = 2.0


class Selection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which events a rule is about. ``on`` lists event types, ``["*"]`` is every type."""

    on: tuple[str, ...]
    topic: str | None = None
    filter: str | None = None

    def matcher(self) -> Matcher:
        """The compiled selection. Raises BadRequest, BadFilter."""
        types = None if "*" in self.on else self.on
        return compile_query(EventQuery(types=types, topic=self.topic, filter=self.filter))


class Trigger(Selection, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Spawn an agent of type ``spawn`` with ``task``; ``{path}`` stands for a field of the event.

    ``issue`` is a template too; by default the issue of the event's ``data``.
    """

    spawn: str
    task: str
    issue: str = "{data.issue_id}"
    priority: str = "normal"


class Webhook(Selection, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Post matching events to ``url``, signed with ``secret``.

    ``allow`` lists private addresses or networks that it may reach; ``timeout_s`` bounds one attempt.
    """

    url: str
    secret: str
    allow: tuple[str, ...] = ()
    timeout_s: float = 10.0


class EventRules(msgspec.Struct, frozen=True, kw_only=True):
    """All rules of one project."""

    topics: TopicRules = OPEN
    triggers: dict[str, Trigger] = {}
    webhooks: dict[str, Webhook] = {}

    def selections(self) -> list[tuple[str, Matcher]]:
        """``(target, matcher)`` of every rule that pushes."""
        found = [(f"trigger:{name}", rule.matcher()) for name, rule in self.triggers.items()]
        return found + [(f"webhook:{name}", rule.matcher()) for name, rule in self.webhooks.items()]


NO_RULES = EventRules()


def parse_event_rules(document: Mapping[str, Any], origin: str) -> EventRules:
    """The rules in a project file's document. Raises ConfigInvalid naming setting and ``origin``."""
    topics = document.get("topics", {})
    if not isinstance(topics, dict):
        raise _invalid(origin, "topics", "must be a table")
    return EventRules(
        topics=parse_topic_rules(topics, origin),
        triggers=_section(document, "triggers", Trigger, origin),
        webhooks=_section(document, "webhooks", Webhook, origin),
    )


def _section(document: Mapping[str, Any], section: str, kind: type[T], origin: str) -> dict[str, T]:
    values = document.get(section, {})
    if not isinstance(values, dict):
        raise _invalid(origin, section, "must be a table of named tables")
    rules: dict[str, T] = {}
    for name, value in values.items():
        setting = f"{section}.{name}"
        if not is_identifier(name):
            raise _invalid(origin, setting, "the name must be an identifier")
        if isinstance(value, dict) and isinstance(value.get("on"), str):
            value = {**value, "on": [value["on"]]}
        try:
            rule = msgspec.convert(value, kind)
            rule.matcher()  # type: ignore[attr-defined]
        except (msgspec.ValidationError, SidecarError) as error:
            raise _invalid(origin, setting, str(error)) from error
        rules[name] = rule
    return rules


class RuleBook:
    """The rules of all projects, read from their files and read again when those change.

    A file that does not parse is logged with its reason and leaves the rules before it in force.

    Args:
        directory_of: a project's directory; None when it is not registered.
        more_triggers: further triggers by name for a project's directory, written as its file would hold them
            (those of its profiles); the file's own win, and a bad one is logged and left out.
    """

    def __init__(
        self,
        directory_of: Callable[[str], str | None],
        *,
        more_triggers: Callable[[str], Mapping[str, Any]] | None = None,
    ) -> None:
        self._directory_of = directory_of
        self._more_triggers = more_triggers
        self._rules: dict[str, EventRules] = {}
        self._stamps: dict[str, tuple[tuple[int, int] | None, Mapping[str, Any]]] = {}
        self.errors: dict[str, str] = {}

    async def prepare(self, project_id: str) -> None:
        """Read the project's file when it is new or has changed."""
        directory = self._directory_of(project_id)
        if directory is not None:
            await asyncio.to_thread(self._load, project_id, Path(directory) / FILE_NAME)

    async def refresh(self) -> None:
        """``prepare`` every project seen so far."""
        for project_id in list(self._stamps):
            await self.prepare(project_id)

    def rules(self, project_id: str) -> EventRules:
        """Those in force."""
        return self._rules.get(project_id, NO_RULES)

    def topics(self, project_id: str) -> TopicRules:
        """The topic rules in force."""
        return self.rules(project_id).topics

    def projects(self) -> list[str]:
        """Projects seen so far."""
        return list(self._stamps)

    def _load(self, project_id: str, path: Path) -> None:
        stamp: tuple[int, int] | None
        try:
            status = os.stat(path)
            stamp = (status.st_mtime_ns, status.st_size)
        except OSError:
            stamp = None
        more = self._more_triggers(str(path.parent)) if self._more_triggers else {}
        if project_id in self._stamps and self._stamps[project_id] == (stamp, more):
            return
        self._stamps[project_id] = (stamp, more)
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8")) if stamp else {}
            rules = parse_event_rules(document, str(path))
            self._rules[project_id] = msgspec.structs.replace(rules, triggers={**_good(more), **rules.triggers})
            self.errors.pop(project_id, None)
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, ConfigInvalid) as error:
            self.errors[project_id] = str(error)
            log.error("event_rules_refused", project_id=project_id, path=str(path), reason=str(error))


def _good(triggers: Mapping[str, Any]) -> dict[str, Trigger]:
    """Those of ``triggers`` that can be carried out; one bad profile must not take a project's rules away."""
    found: dict[str, Trigger] = {}
    for name, value in triggers.items():
        try:
            found |= _section({"triggers": {name: value}}, "triggers", Trigger, "profiles")
        except ConfigInvalid as error:
            log.error("profile_trigger_refused", trigger=name, reason=str(error))
    return found


def _invalid(origin: str, setting: str, reason: str) -> ConfigInvalid:
    return ConfigInvalid(f"{origin}: {setting}: {reason}", details={"setting": setting, "origin": origin})

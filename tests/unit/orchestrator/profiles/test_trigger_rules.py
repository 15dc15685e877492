"""Triggers of profiles among the event rules of a project."""

from __future__ import annotations

import asyncio
from pathlib import Path

from orchestrator.events.rules import RuleBook
from tests.support.profiles import ProfileTree, write_profile

TRIGGER = "name: helper\ntriggers:\n  - on: [{on}]\n    task: Look at {{data.summary}}"


async def test_a_profiles_trigger_is_in_force_and_follows_its_file(tmp_path: Path) -> None:
    """A trigger in a profile must do what one in the project's file does, and change with its profile."""
    tree = ProfileTree(tmp_path)
    catalogue = tree.open()
    book = RuleBook(lambda _: str(tree.project), more_triggers=catalogue.trigger_documents)
    await book.prepare("project")
    assert book.rules("project").triggers == {}
    path = tree.project_own / "helper.md"
    await asyncio.to_thread(write_profile, path, TRIGGER.format(on="incident_declared"))
    await book.refresh()
    rule = book.rules("project").triggers["profile.helper.1"]
    assert (rule.on, rule.spawn, rule.task) == (("incident_declared",), "helper", "Look at {data.summary}")
    await asyncio.to_thread(write_profile, path, TRIGGER.format(on="alarm"))
    await book.refresh()
    assert book.rules("project").triggers["profile.helper.1"].on == ("alarm",)
    await asyncio.to_thread(path.unlink)
    await book.refresh()
    assert book.rules("project").triggers == {}


async def test_a_bad_trigger_of_a_profile_leaves_the_projects_own_in_force(tmp_path: Path) -> None:
    """A profile with a filter that does not parse must not switch off the rules of the project."""
    tree = ProfileTree(tmp_path)
    header = 'name: helper\ntriggers:\n  - {on: [a], task: t, filter: "::"}\n  - {on: [b], task: t}'
    await asyncio.to_thread(write_profile, tree.project_own / "helper.md", header)
    text = '[triggers.own]\non = ["c"]\nspawn = "helper"\ntask = "t"\n'
    await asyncio.to_thread((tree.project / "orchestrator.toml").write_text, text, encoding="utf-8")
    book = RuleBook(lambda _: str(tree.project), more_triggers=tree.open().trigger_documents)
    await book.prepare("project")
    assert set(book.rules("project").triggers) == {"own", "profile.helper.2"}

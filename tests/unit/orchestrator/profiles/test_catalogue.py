"""The catalogue: layers, reload, bad files, and what a project may not do."""

from __future__ import annotations

import asyncio
import functools
import os
from pathlib import Path

import pytest

from orchestrator.errors import UnknownAgentType
from orchestrator.profiles.catalogue import Profiles
from tests.support.profiles import ProfileTree, write_profile
from tests.support.waiting import until_async


@pytest.fixture
def tree(tmp_path: Path) -> ProfileTree:
    return ProfileTree(tmp_path)


def test_layers_are_laid_over_in_the_order_of_the_contract(tree: ProfileTree) -> None:
    """The project's own file must win over its coding CLI's, that over the user's, that over the shipped one."""
    project = str(tree.project)
    catalogue = tree.open()
    expected = "The helper role."
    for directory in (tree.user_claude, tree.user_own, tree.project_claude, tree.project_own):
        assert catalogue.get("helper", project).description == expected
        expected = f"from {directory.parent.name}"
        write_profile(directory / "any-name.md", f"name: helper\ndescription: {expected}", body="")
    profile = catalogue.get("helper", project)
    assert profile.description == expected
    assert profile.layer == "project"
    assert profile.instructions == "Help."
    assert profile.permission_class == "coding"
    assert catalogue.get("helper").description == f"from {tree.user_own.parent.name}"


def test_values_that_a_layer_leaves_out_come_from_below_with_their_origin(tree: ProfileTree) -> None:
    """An overlay that changes one number must not reset the rest, and one must see who set what."""
    path = write_profile(tree.project_own / "helper.md", "name: helper\ncontext: {max_bytes: 2048}", "New text.")
    effective = tree.open().explain("helper", str(tree.project))
    assert effective.profile.context.max_bytes == 2048
    assert effective.profile.context.include == ("docs/**",)
    assert effective.profile.instructions == "New text."
    assert effective.origins["context.max_bytes"] == str(path)
    assert effective.origins["context.include"] == str(tree.shipped / "helper.md")
    assert effective.origins["instructions"] == str(path)
    assert effective.origins["sandbox"] == "default"


def test_a_bad_file_leaves_the_previous_version_in_force(tree: ProfileTree) -> None:
    """Saving a half-finished file must not take a role out of service."""
    catalogue = tree.open()
    project = str(tree.project)
    path = write_profile(tree.project_own / "helper.md", "name: helper\ntimeout_seconds: 7")
    assert catalogue.get("helper", project).timeout_seconds == 7
    write_profile(path, "name: helper\ntimeout_seconds: [")
    assert catalogue.get("helper", project).timeout_seconds == 7
    (problem,) = [problem for problem in catalogue.problems(project) if problem.severity == "error"]
    assert (problem.source, problem.agent_type) == (str(path), "helper")
    assert problem.line is not None
    assert "previous version stays in force" in problem.reason
    write_profile(path, "name: helper\ntimeout_seconds: 8")
    assert catalogue.get("helper", project).timeout_seconds == 8
    assert catalogue.problems(project) == []


def test_a_file_that_was_never_good_leaves_the_layer_below(tree: ProfileTree) -> None:
    """A bad overlay must not hide the shipped role."""
    write_profile(tree.project_own / "helper.md", "name: helper\nmodel: [")
    catalogue = tree.open()
    assert catalogue.get("helper", str(tree.project)).layer == "shipped"
    assert len(catalogue.problems(str(tree.project))) == 1


def test_a_removed_file_is_out_of_force(tree: ProfileTree) -> None:
    """A deleted overlay lived on."""
    path = write_profile(tree.project_own / "helper.md", "name: helper\ntimeout_seconds: 7")
    catalogue = tree.open()
    assert catalogue.get("helper", str(tree.project)).timeout_seconds == 7
    path.unlink()
    assert catalogue.get("helper", str(tree.project)).timeout_seconds == 60


def test_projects_do_not_see_one_another(tree: ProfileTree, tmp_path: Path) -> None:
    """One project's role or overlay must not leak into another's, nor into none's."""
    write_profile(tree.project_own / "extra.md", "name: extra\ndescription: Only here.")
    other = tmp_path / "other"
    other.mkdir()
    catalogue = tree.open()
    assert "extra" in catalogue.names(str(tree.project))
    assert "extra" not in catalogue.names(str(other))
    assert "extra" not in catalogue.names()


def test_an_unknown_role_is_refused_with_the_nearest(tree: ProfileTree) -> None:
    """A typing error must be answered with the name that was meant, and a hostile name kept short."""
    catalogue = tree.open()
    with pytest.raises(UnknownAgentType) as caught:
        catalogue.get("test-enginer")
    assert caught.value.details["nearest"] == ["test-engineer"]
    assert "did you mean 'test-engineer'" in caught.value.message
    with pytest.raises(UnknownAgentType) as caught:
        catalogue.get("x" * 10_000)
    assert len(caught.value.message) < 300


def test_a_project_cannot_give_a_shipped_role_more_permissions(tree: ProfileTree) -> None:
    """An agent that can write to the project must not make itself an architect by an overlay."""
    path = write_profile(
        tree.project_own / "helper.md", "name: helper\npermission_class: architect\ntimeout_seconds: 7"
    )
    catalogue = tree.open()
    profile = catalogue.get("helper", str(tree.project))
    assert profile.permission_class == "coding"
    assert profile.timeout_seconds == 7
    (problem,) = catalogue.problems(str(tree.project))
    assert (problem.source, problem.line, problem.severity) == (str(path), 3, "error")


def test_a_project_cannot_define_an_architect_but_its_user_can(tree: ProfileTree) -> None:
    """A new role of a project must not be able to spawn agents; the user's own files may say so."""
    write_profile(tree.project_own / "boss.md", "name: boss\npermission_class: architect")
    write_profile(tree.user_own / "chief.md", "name: chief\npermission_class: architect")
    catalogue = tree.open()
    assert catalogue.get("boss", str(tree.project)).permission_class == "coding"
    assert catalogue.get("chief", str(tree.project)).permission_class == "architect"


def test_a_coding_role_always_hands_over_to_the_tests(tree: ProfileTree) -> None:
    """A coding role from a file without hand-overs must still lead to test-engineer."""
    write_profile(tree.project_claude / "writer.md", "name: writer\ndescription: Writes.\ntools: Read, Edit")
    effective = tree.open().explain("writer", str(tree.project))
    assert [entry.agent_type for entry in effective.profile.hands_over_to] == ["test-engineer"]
    assert effective.origins["hands_over_to.test-engineer"] == "contract"


def test_a_second_file_for_a_role_is_ignored_and_named(tree: ProfileTree) -> None:
    """Two files for one role in one directory must not win by chance."""
    write_profile(tree.project_own / "a.md", "name: helper\ntimeout_seconds: 7")
    second = write_profile(tree.project_own / "b.md", "name: helper\ntimeout_seconds: 8")
    catalogue = tree.open()
    assert catalogue.get("helper", str(tree.project)).timeout_seconds == 7
    (problem,) = catalogue.problems(str(tree.project))
    assert problem.source == str(second)
    assert "a.md" in problem.reason


def test_odd_files_are_refused_without_blocking(tree: ProfileTree, tmp_path: Path) -> None:
    """A FIFO would block for ever, a link could show a private file, a directory is no file."""
    tree.project_own.mkdir(parents=True)
    secret = write_profile(tmp_path / "secret.md", "name: secret\ndescription: Private.")
    (tree.project_own / "link.md").symlink_to(secret)
    (tree.project_own / "dangling.md").symlink_to(tmp_path / "nothing")
    os.mkfifo(tree.project_own / "pipe.md")
    (tree.project_own / "folder.md").mkdir()
    (tree.project_own / "README.md").write_text("# Not a role\n", encoding="utf-8")
    write_profile(tree.project_own / "good.md", "name: good\ndescription: Fine.")
    catalogue = tree.open()
    assert "good" in catalogue.names(str(tree.project))
    assert "secret" not in catalogue.names(str(tree.project))
    reasons = {Path(problem.source).name: problem.reason for problem in catalogue.problems(str(tree.project))}
    assert reasons.keys() == {"link.md", "dangling.md", "pipe.md", "folder.md"}
    assert "out of the project" in reasons["link.md"]
    assert "not a regular file" in reasons["pipe.md"]


def test_a_linked_directory_out_of_the_project_is_not_followed(tree: ProfileTree, tmp_path: Path) -> None:
    """Linking the whole directory must not get round the check of single links."""
    write_profile(tmp_path / "elsewhere" / "role.md", "name: role\ndescription: Not the project's.")
    (tree.project / ".orchestrator").mkdir()
    tree.project_own.symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    catalogue = tree.open()
    assert "role" not in catalogue.names(str(tree.project))


def test_a_directory_that_cannot_be_listed_is_named_and_keeps_what_was_read(tree: ProfileTree) -> None:
    """A failing directory must be told, and not be taken for an empty one."""
    write_profile(tree.project_own / "helper.md", "name: helper\ntimeout_seconds: 7")
    catalogue = tree.open()
    project = str(tree.project)
    assert catalogue.get("helper", project).timeout_seconds == 7
    tree.project_own.rename(tree.project / "aside")
    tree.project_own.symlink_to(tree.project_own)  # a link to itself: listing fails for every user
    (problem,) = catalogue.problems(project)
    assert "cannot be listed" in problem.reason
    assert catalogue.get("helper", project).timeout_seconds == 7


def test_a_successor_that_does_not_exist_is_told(tree: ProfileTree) -> None:
    """A hand-over to nobody ends a chain without anyone noticing."""
    write_profile(tree.project_own / "x.md", "name: x\npermission_class: support\nhands_over_to: [nobody]")
    (problem,) = tree.open().problems(str(tree.project))
    assert (problem.severity, problem.agent_type) == ("warning", "x")
    assert "'nobody'" in problem.reason


def test_the_revision_changes_with_any_layer_and_only_then(tree: ProfileTree) -> None:
    """A cache keyed by the revision must neither go stale nor be thrown away for nothing."""
    catalogue = tree.open()
    project = str(tree.project)
    before = catalogue.get("helper", project).revision
    other = catalogue.get("test-engineer", project).revision
    write_profile(tree.user_own / "helper.md", "name: helper\ntimeout_seconds: 7")
    after = catalogue.get("helper", project).revision
    assert after != before
    assert catalogue.get("test-engineer", project).revision == other
    assert tree.open().get("helper", project).revision == after


def test_the_disk_is_left_alone_between_looks(tree: ProfileTree) -> None:
    """Each request must not pay for a look at the disk; a forced one must see the change."""
    catalogue = tree.open(check_interval_s=3600)
    project = str(tree.project)
    assert catalogue.get("helper", project).timeout_seconds == 60
    write_profile(tree.project_own / "helper.md", "name: helper\ntimeout_seconds: 7")
    assert catalogue.get("helper", project).timeout_seconds == 60
    assert catalogue.refresh(project) is True
    assert catalogue.get("helper", project).timeout_seconds == 7
    assert catalogue.refresh(project) is False


def test_a_forgotten_project_is_read_anew(tree: ProfileTree) -> None:
    """A project that was unregistered must not keep its roles in memory."""
    catalogue = tree.open(check_interval_s=3600)
    project = str(tree.project)
    catalogue.get("helper", project)
    write_profile(tree.project_own / "helper.md", "name: helper\ntimeout_seconds: 7")
    catalogue.forget(project)
    assert catalogue.get("helper", project).timeout_seconds == 7


async def test_within_an_event_loop_the_disk_is_read_behind_the_caller(tree: ProfileTree) -> None:
    """A stale look-up in a request must neither block the loop nor stay stale."""
    catalogue = tree.open(check_interval_s=0)
    project = str(tree.project)
    await catalogue.prepare(project)
    await asyncio.to_thread(write_profile, tree.project_own / "helper.md", "name: helper\ntimeout_seconds: 7")
    assert catalogue.get("helper", project).timeout_seconds == 60
    await until_async(lambda: catalogue.get("helper", project).timeout_seconds == 7)


async def test_changes_are_watched(tree: ProfileTree) -> None:
    """While watching, a new directory, a change and a removal must each come into force by themselves."""
    catalogue = tree.open(check_interval_s=3600)
    project = str(tree.project)
    await catalogue.prepare(project)
    changes: list[int] = []
    watching = asyncio.create_task(catalogue.watch(lambda: changes.append(1), poll_interval_s=0.2))
    try:
        path = tree.project_own / "helper.md"
        await asyncio.to_thread(write_profile, path, "name: helper\ntimeout_seconds: 7")
        await until_async(lambda: catalogue.get("helper", project).timeout_seconds == 7)
        await asyncio.to_thread(write_profile, path, "name: helper\ntimeout_seconds: 8")
        await until_async(lambda: catalogue.get("helper", project).timeout_seconds == 8)
        await asyncio.to_thread(path.unlink)
        await until_async(lambda: catalogue.get("helper", project).timeout_seconds == 60)
        # The first may have come before the watch began; of the last, the listener is told after it is in force.
        await until_async(lambda: len(changes) >= 2)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_a_failing_listener_does_not_end_the_watch(tree: ProfileTree) -> None:
    """An error in whoever is told of a change must not stop reloading for good."""
    catalogue = tree.open(check_interval_s=3600)
    project = str(tree.project)
    await catalogue.prepare(project)

    def fail() -> None:
        raise RuntimeError("listener")

    watching = asyncio.create_task(catalogue.watch(fail, poll_interval_s=0.2))
    try:
        for timeout_s in (7, 8):
            header = f"name: helper\ntimeout_seconds: {timeout_s}"
            await asyncio.to_thread(write_profile, tree.project_own / "helper.md", header)
            await until_async(functools.partial(_has_timeout, catalogue, project, timeout_s))
        assert not watching.done()
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def _has_timeout(catalogue: Profiles, project: str, timeout_s: float) -> bool:
    return catalogue.get("helper", project).timeout_seconds == timeout_s


def test_an_empty_installation_says_so(tmp_path: Path) -> None:
    """A missing data directory must end in a clear answer and not in an empty list taken for good."""
    with pytest.raises(UnknownAgentType):
        Profiles(tmp_path / "nothing").get("helper")


def test_a_command_of_ones_own_gets_the_worktree_that_a_built_in_analyst_does_without(tree: ProfileTree) -> None:
    """Analysts would have looked at what is committed only, each after a checkout; who writes needs one."""
    write_profile(tree.user_own / "helper.md", "name: helper\nworkspace: worktree", body="")
    catalogue = tree.open()
    assert catalogue.get("helper", str(tree.project)).workspace_in_runs == "shared"
    write_profile(tree.project_own / "helper.md", "name: helper\nruntime: text\ncommand: my-cli", body="")
    catalogue = tree.open()
    assert catalogue.get("helper", str(tree.project)).workspace_in_runs == "worktree"
    write_profile(tree.project_own / "helper.md", "name: helper\nworkspace: scratch\ncommand: mine:run", body="")
    assert tree.open().get("helper", str(tree.project)).workspace_in_runs == "scratch"

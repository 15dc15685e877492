"""Workspaces: git worktrees are whole or made again, and go when nobody needs them."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from orchestrator import workspaces
from orchestrator.errors import SpawnFailed
from orchestrator.models import AgentRecord, Project, SpawnRequest
from orchestrator.workspaces import Workspaces, branch_of
from tests.support.processes import processes_with
from tests.support.repo import commit_all, git, repository, write_files
from tests.support.waiting import until

FILES = {"a.txt": "a\n", "sub/b.txt": "b\n", "z.slow": "z\n"}
RECORD = AgentRecord(
    agent_id="agt_1",
    agent_type="python-specialist",
    issue_id="issue-1",
    project_id="p",
    status="queued",
    request=SpawnRequest(agent_type="python-specialist", issue_id="issue-1", task="t", project_id="p"),
    created_at=1.0,
    updated_at=1.0,
)


class Place(NamedTuple):
    """A project and where its workspaces are made."""

    root: Path

    @property
    def made(self) -> Workspaces:
        """Its workspaces."""
        return Workspaces(self.root.parent / "agents", self.root.parent / "trees")

    def prepare(self, directory: str = "") -> Path:
        """The worktree of the one agent, as the project ``directory`` of the repository gets it."""
        return Path(self.made.prepare("worktree", project(self.root / directory), RECORD))

    def branches(self) -> str:
        """The branches of agents."""
        return git(self.root, "branch", "--list", "sidecar/*").strip()


class Slow(NamedTuple):
    """A filter that holds a checkout until it is let go; each of its starts is a line in ``started``."""

    started: Path
    gate: Path

    def let_go(self) -> None:
        """Let one checkout go on."""
        self.gate.write_text("go\n")


def project(root: Path) -> Project:
    """A project at a directory."""
    return Project(project_id="p", path=str(root), created_at=1.0)


def prepare_elsewhere(root: Path) -> None:
    """What an earlier sidecar does, in a process of its own."""
    Place(root).prepare()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A repository with one commit."""
    return Place(repository(tmp_path.resolve() / "r", FILES))


@pytest.fixture
def slow(place: Place, monkeypatch: pytest.MonkeyPatch) -> Slow:
    """Check out ``*.slow`` through a filter of the person's own."""
    home = place.root.parent / "home"
    home.mkdir()
    found = Slow(home / "started", home / "gate")
    os.mkfifo(found.gate)
    shutil.copy(Path(os.environ["HOME"], ".gitconfig"), home)
    program = f"echo >> {found.started}; read word < {found.gate}; cat"
    git(place.root, "config", "--file", str(home / ".gitconfig"), "filter.slow.smudge", program)
    git(place.root, "config", "--file", str(home / ".gitconfig"), "filter.slow.clean", "cat")
    write_files(place.root, {".gitattributes": "*.slow filter=slow\n"})
    commit_all(place.root, "Filter")
    monkeypatch.setenv("HOME", str(home))
    return found


@pytest.fixture
def earlier(place: Place, slow: Slow) -> Iterator[tuple[psutil.Process, list[psutil.Process]]]:
    """A sidecar in the midst of a checkout, and its gits and filter."""
    process = multiprocessing.get_context("spawn").Process(target=prepare_elsewhere, args=(place.root,))
    process.start()
    assert process.pid is not None
    until(slow.started.exists, timeout_s=60.0, what="the checkout begins")
    sidecar = psutil.Process(process.pid)
    children = sidecar.children(recursive=True)
    yield sidecar, children
    for child in children:
        if child.is_running():
            child.kill()
    process.kill()
    process.join()
    process.close()


def is_whole(tree: Path) -> bool:
    """Whether a worktree holds what was committed, and git sees no change in it."""
    assert {name: (tree / name).read_text() for name in FILES} == FILES
    return git(tree, "status", "--porcelain") == ""


def test_a_worktree_left_half_made_is_made_again(
    place: Place, slow: Slow, earlier: tuple[psutil.Process, list[psutil.Process]]
) -> None:
    """A machine that went down during the checkout: the restarted agent got a tree in which files were missing."""
    sidecar, children = earlier
    for process in (sidecar, *children):
        process.kill()
    until(lambda: all(not child.is_running() for child in children), what="all ended")
    assert not (place.root.parent / "trees/agt_1/z.slow").exists()
    letting = threading.Thread(target=slow.let_go)
    letting.start()
    assert is_whole(place.prepare())
    letting.join()
    assert len(slow.started.read_text().splitlines()) == 2


def test_a_git_of_an_earlier_sidecar_is_waited_for(
    place: Place, slow: Slow, earlier: tuple[psutil.Process, list[psutil.Process]]
) -> None:
    """The sidecar alone was killed: its git went on, in the directory that the restarted agent was given already."""
    earlier[0].kill()
    letting = threading.Timer(0.2, slow.let_go)  # that it is let go before anybody waits is no failure
    letting.start()
    assert is_whole(place.prepare())
    letting.join()
    assert len(slow.started.read_text().splitlines()) == 1


def test_a_git_that_takes_too_long_is_ended_with_its_children(
    place: Place, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkout that git had started went on after the time limit, and its pipes held up the spawn for ever."""
    with monkeypatch.context() as patch:
        patch.setattr(workspaces, "GIT_TIMEOUT_S", 5.0)
        with pytest.raises(SpawnFailed, match="took longer than 5 s"):
            place.prepare()
    assert slow.started.exists()
    until(lambda: not processes_with(str(slow.gate)), what="all ended")
    assert (place.branches(), list((place.root.parent / "trees").iterdir())) == ("", [])
    assert git(place.root, "worktree", "list", "--porcelain").count("worktree ") == 1


def test_what_an_earlier_attempt_committed_is_found_again(place: Place) -> None:
    """A worktree that somebody had removed could not be made again, since its branch was there."""
    tree = place.prepare()
    write_files(tree, {"new.txt": "n\n"})
    commit_all(tree, "New")
    git(place.root, "worktree", "remove", str(tree))
    assert (place.prepare() / "new.txt").exists()


def test_a_project_inside_a_repository_gets_its_own_directory(place: Place) -> None:
    """An agent of a project in a subdirectory was started at the repository's top."""
    assert place.prepare("sub") == place.root.parent / "trees/agt_1/sub"
    assert [path.name for path in place.prepare("sub").iterdir()] == ["b.txt"]


@pytest.mark.parametrize("name", ["no repository", "nothing committed", "untracked directory"])
def test_where_there_can_be_no_worktree_runs_share_the_project(place: Place, name: str) -> None:
    """A run failed in a project of which git holds nothing."""
    root = place.root.parent / "bare ground"
    if name == "untracked directory":
        root = place.root / "more"
    root.mkdir()
    if name == "nothing committed":
        git(root, "init", "--quiet")
    made = place.made
    assert made.possible("worktree", project(root)) == "shared"
    with pytest.raises(SpawnFailed, match="ask for workspace 'shared' or 'scratch', or commit once"):
        made.prepare("worktree", project(root), RECORD)
    assert (place.branches(), (place.root.parent / "trees").exists()) == ("", False)
    assert made.possible("worktree", project(place.root)) == "worktree"
    assert made.possible("scratch", project(root)) == "scratch"


def nothing(_: Path, __: Path) -> None:
    """Change nothing."""


def new_file(tree: Path, _: Path) -> None:
    """Write a file."""
    write_files(tree, {"new.txt": "n\n"})


def hidden_file(tree: Path, root: Path) -> None:
    """Write a file that the repository's settings hide."""
    git(root, "config", "status.showUntrackedFiles", "no")
    new_file(tree, root)


def commit(tree: Path, root: Path) -> None:
    """Commit on the agent's branch."""
    new_file(tree, root)
    commit_all(tree, "New")


def loose_commit(tree: Path, root: Path) -> None:
    """Commit on no branch."""
    git(tree, "checkout", "--quiet", "--detach")
    commit(tree, root)


def merged_commit(tree: Path, root: Path) -> None:
    """Commit, and let somebody take that over."""
    commit(tree, root)
    git(root, "merge", "--quiet", branch_of(RECORD))


def lost_repository(tree: Path, root: Path) -> None:
    """Let the repository be made anew."""
    new_file(tree, root)
    shutil.rmtree(root)
    repository(root, FILES)


@pytest.mark.parametrize(
    ("work", "is_tree_kept", "is_branch_kept"),
    [
        (nothing, False, False),
        (new_file, True, True),
        (hidden_file, True, True),
        (commit, False, True),
        (loose_commit, True, True),
        (merged_commit, False, False),
        (lost_repository, True, False),
    ],
)
def test_worktrees_go_with_their_agents_but_never_work(
    place: Place, work: Callable[[Path, Path], None], is_tree_kept: bool, is_branch_kept: bool
) -> None:
    """Worktrees and branches of agents stayed for ever; what nobody else has must."""
    tree = place.prepare()
    work(tree, place.root)
    assert place.made.sweep(lambda agent_id: agent_id == RECORD.agent_id) == 0
    assert place.made.sweep(lambda _: False) == (not is_tree_kept)
    assert (tree.exists(), place.branches() != "") == (is_tree_kept, is_branch_kept)


def test_a_worktree_that_was_never_whole_goes(
    place: Place, earlier: tuple[psutil.Process, list[psutil.Process]]
) -> None:
    """Git holds on to a worktree that it did not finish, and calls its missing files changes."""
    for process in (earlier[0], *earlier[1]):
        process.kill()
    until(lambda: all(not child.is_running() for child in earlier[1]), what="all ended")
    assert place.made.sweep(lambda _: False) == 1
    assert not list((place.root.parent / "trees").iterdir())
    assert git(place.root, "worktree", "list", "--porcelain").count("worktree ") == 1

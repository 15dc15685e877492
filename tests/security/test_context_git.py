"""Nothing that a repository's configuration plants is run, by whatever name, wherever git is asked."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import click
import pytest

from api.cli.results import apply
from api.cli.session import Session
from orchestrator.analysts.diffs import find_change
from orchestrator.analysts.git import Git
from orchestrator.context.gitsafe import NotDisarmed, disarmed
from orchestrator.errors import SpawnFailed
from orchestrator.models import AgentRecord, Project, SpawnRequest
from orchestrator.workspaces import Workspaces
from tests.support.context import document
from tests.support.repo import commit_all, git, repository, sample_repository, write_files

#: How a filter may be called in a configuration and in ``.gitattributes``.
_NAMES = {
    "plain": (b'[filter "evil"]', b"evil"),
    "equals sign": (b'[filter "a=b"]', b"a=b"),
    "equals signs": (b'[filter "=a.clean="]', b"=a.clean="),
    "not UTF-8": (b'[filter "\xff"]', b"\xff"),
    "dots and capitals": (b'[FILTER "A.Clean.b"]', b"A.Clean.b"),
    "empty": (b'[filter ""]', b""),
    "old form": (b"[filter.Evil]", b"evil"),
    "marks": (b'[filter "!-\'$(x);\\\\"]', b"!-'$(x);\\"),
}


def _look(root: Path) -> None:
    changes = document(root, "money")["context"]["git_context"]["uncommitted_changes"]
    assert next(change["diff"] for change in changes if change["path"] == "ledger/money.py")


def _review(root: Path) -> None:
    assert find_change(Git(root, os.environ)).files


def _context(root: Path) -> str:
    return json.dumps(document(root, "").get("context"))


def _analyst(root: Path) -> str:
    asked = Git(root, os.environ)
    return repr((asked.head and asked.log(max_commits=9, timeout_s=9.0), asked.files(), find_change(asked)))


def _check_out(root: Path) -> None:
    request = SpawnRequest(agent_type="python-specialist", issue_id="i", task="t", project_id="p")
    record = AgentRecord(
        agent_id="a", agent_type="python-specialist", issue_id="i", project_id="p", status="queued", request=request,
        created_at=1.0, updated_at=1.0,
    )  # fmt: skip
    project = Project(project_id="p", path=str(root), created_at=1.0)
    path = Workspaces(root.parent / "agents", root.parent / "trees").prepare("worktree", project, record)
    assert (Path(path) / "ledger/money.py").is_file()


_ASKERS = pytest.mark.parametrize("ask", [_look, _review, _check_out])


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """What a planted program leaves behind."""
    return tmp_path / "sprung"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with an uncommitted change."""
    root = sample_repository(tmp_path / "r").resolve()
    write_files(root, {"ledger/money.py": "changed = 1\n"})
    return root


def _plant(root: Path, header: bytes, name: bytes, mark: Path, file: str = ".git/config") -> None:
    """Let every file go through a filter that leaves ``mark``."""
    (root / ".gitattributes").write_bytes(b"* filter=" + name + b"\n")
    git(root, "add", ".gitattributes")
    git(root, "commit", "--quiet", "--message", "Filter")
    program = f'"touch {shlex.quote(str(mark))}; cat"'.encode()
    with open(root / file, "ab") as config:
        config.write(b"%b\n\tclean = %b\n\tsmudge = %b\n\trequired\n" % (header, program, program))


@_ASKERS
@pytest.mark.parametrize("name", _NAMES)
def test_a_filter_of_any_name_is_not_run(root: Path, mark: Path, name: str, ask: Callable[[Path], None]) -> None:
    """A filter called ``a=b``, or by bytes that are no text, was not switched off, and run; in worktrees and for
    analysts others too (fault 71)."""
    _plant(root, *_NAMES[name], mark)
    ask(root)
    assert not mark.exists()
    git(root, "diff")
    assert mark.exists()  # else nothing was planted


@_ASKERS
@pytest.mark.parametrize("place", ["included", "of the work tree"])
def test_a_filter_is_not_run_wherever_it_is_named(
    root: Path, mark: Path, place: str, ask: Callable[[Path], None]
) -> None:
    """Filters that an included file or the work tree's configuration named were run by analysts."""
    if place == "included":
        git(root, "config", "include.path", "more")
        _plant(root, *_NAMES["plain"], mark, ".git/more")
    else:
        git(root, "config", "extensions.worktreeConfig", "true")
        _plant(root, *_NAMES["plain"], mark, ".git/config.worktree")
    ask(root)
    assert not mark.exists()
    git(root, "diff")
    assert mark.exists()


@_ASKERS
def test_a_filter_that_others_trust_is_not_led_by_the_repository(
    root: Path, mark: Path, ask: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The person's own git-lfs started what the repository's configuration called an extension of it."""
    home = root.parent / "home"
    home.mkdir()
    git(root, "config", "lfs.extension.evil.clean", "evil")
    write_files(root, {".gitattributes": "* filter=lfs\n"})
    commit_all(root, "Filter")
    write_files(root, {"ledger/money.py": "more = 1\n"})
    for part in ("clean", "smudge"):
        git(root, "config", "--file", str(home / ".gitconfig"), f"filter.lfs.{part}", f"touch {mark}; cat")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    ask(root)
    assert not mark.exists()
    git(root, "diff")
    assert mark.exists()


@pytest.mark.parametrize("ask", [_look, _review])
def test_nothing_is_run_inside_a_submodule(root: Path, mark: Path, ask: Callable[[Path], None]) -> None:
    """Git went into submodules, whose configuration names other programs: for ``diff.submodule = diff`` and, asked by
    analysts, for each ``git status``."""
    inner = repository(root / "inner", {"a.py": "a = 1\n"})
    git(root, "add", "inner")
    git(root, "commit", "--quiet", "--message", "Add inner")
    git(root, "config", "diff.submodule", "diff")
    _plant(inner, *_NAMES["plain"], mark)
    git(inner, "config", "diff.external", f"touch {mark};")
    write_files(inner, {"a.py": "b = 1\n"})
    mark.unlink(missing_ok=True)
    ask(root)
    assert not mark.exists()
    git(root, "diff")
    assert mark.exists()


def test_a_worktree_is_made_without_transports(root: Path, mark: Path) -> None:
    """What was missing of a partial clone was fetched by the program that the repository's configuration named."""
    missing = git(root, "rev-parse", "HEAD:NAME.txt").strip()
    (root / ".git/objects" / missing[:2] / missing[2:]).unlink()
    for key, value in {
        "core.repositoryFormatVersion": "1",
        "extensions.partialClone": "origin",
        "protocol.ext.allow": "always",
        "remote.origin.promisor": "true",
        "remote.origin.url": f"ext::touch {mark}",
    }.items():
        git(root, "config", key, value)
    with pytest.raises(SpawnFailed):
        _check_out(root)
    assert not mark.exists()
    subprocess.run(["git", "cat-file", "-p", missing], cwd=root, capture_output=True, check=False)
    assert mark.exists()


def test_a_git_that_cannot_be_told_is_not_asked() -> None:
    """A git before 2.31 does not read settings from its environment: planted filters would have been run."""
    plain = [("local", "core.bare", "false"), ("global", "filter.lfs.clean", "git-lfs clean")]
    planted = [*plain, ("local", "filter.a=b.clean", "evil")]
    assert disarmed(plain) == ()
    for settings in (planted, [*planted, ("local", "sidecar.isread", "true")]):
        with pytest.raises(NotDisarmed):
            disarmed(settings)
    assert ("filter.a=b.clean", "") in disarmed([*planted, ("command", "sidecar.isread", "true")])


def test_hooks_that_a_configuration_defines_are_disabled() -> None:
    """Git 2.54 runs hooks that a configuration defines, whatever ``core.hooksPath`` says."""
    settings = [("local", "hook.a.b.command", "evil"), ("local", "hook.a.b.event", "post-index-change")]
    assert disarmed([*settings, ("command", "sidecar.isread", "true")]) == (("hook.a.b.enabled", "false"),)


def test_changes_of_a_result_are_applied_without_the_repositorys_programs(root: Path, mark: Path) -> None:
    """``results apply`` ran filters and hooks that an agent had written into the repository's configuration."""
    _plant(root, *_NAMES["equals sign"], mark)
    git(root, "checkout", "--quiet", "--", "ledger")
    mark.unlink(missing_ok=True)
    patch = "diff --git a/NAME.txt b/NAME.txt\n--- a/NAME.txt\n+++ b/NAME.txt\n@@ -1 +1 @@\n-ledger\n+book\n"
    session = Session(directory=root, quiet=True)
    session.__dict__["client"] = SimpleNamespace(result=lambda _: {"result": {"artifacts": {"diff": patch}}})
    assert apply.callback is not None
    with click.Context(apply, obj=session):
        apply.callback("res")
    assert not mark.exists()
    assert (root / "NAME.txt").read_text() == "book\n"
    assert git(root, "diff", "--cached", "--name-only") == "NAME.txt\n"


def _private(directory: Path) -> Path:
    """A repository outside of the project, with a word that is nowhere else in its history, files and names."""
    root = repository(directory / "private", {"secret_word.py": "secret_word = 1\n"}, subject="Tell the secret_word")
    return root / ".git"


def _by_file(root: Path, private: Path) -> None:
    (root / ".git").rename(root / "own")
    (root / ".git").write_text(f"gitdir: {private}\n")


def _by_link(root: Path, private: Path) -> None:
    (root / ".git").rename(root / "own")
    (root / ".git").symlink_to(private)


def _by_common_directory(root: Path, private: Path) -> None:
    (root / ".git/commondir").write_text(f"{private}\n")


def _by_a_common_directory_with_spaces(root: Path, private: Path) -> None:
    """What is another path when the spaces around it are left out."""
    (root / ".git/inside").mkdir()
    (root / ".git/ inside").symlink_to(private)
    (root / ".git/commondir").write_text(" inside\n")


def _by_a_long_common_directory(root: Path, private: Path) -> None:
    """What is another path when only its beginning is read."""
    (root / ".git/commondir").write_text("./" * 2048 + str(os.path.relpath(private, root / ".git")) + "\n")


def _by_index_and_objects(root: Path, private: Path) -> None:
    for name in ("index", "objects"):
        _replace(root / ".git" / name, private / name)


def _by_references(root: Path, private: Path) -> None:
    (root / ".git/objects/info/alternates").write_text(f"{private / 'objects'}\n")
    _replace(root / ".git/refs", private / "refs")


def _by_branch(root: Path, private: Path) -> None:
    (root / ".git/objects/info/alternates").write_text(f"{private / 'objects'}\n")
    _replace(root / ".git/refs/heads/main", private / "refs/heads/main")


def _by_a_chain(root: Path, private: Path) -> None:
    """HEAD leads to a branch that is a reference to one that is a link to another by name, which is one out."""
    (root / ".git/HEAD").write_text("ref:\trefs/heads/first\n")
    (root / ".git/refs/heads/first").write_text("ref: refs/heads/second\n")
    (root / ".git/refs/heads/second").symlink_to("refs/heads/main")
    _by_branch(root, private)


def _by_packed_references(root: Path, private: Path) -> None:
    git(private.parent, "pack-refs", "--all")
    (root / ".git/objects/info/alternates").write_text(f"{private / 'objects'}\n")
    (root / ".git/refs/heads/main").unlink()
    (root / ".git/packed-refs").symlink_to(private / "packed-refs")


def _replace(path: Path, target: Path) -> None:
    path.rename(path.with_name(f"former {path.name}"))
    path.symlink_to(target)


@pytest.mark.parametrize(
    "lead_out",
    [
        _by_file,
        _by_link,
        _by_common_directory,
        _by_a_common_directory_with_spaces,
        _by_a_long_common_directory,
        _by_index_and_objects,
        _by_references,
        _by_branch,
        _by_a_chain,
        _by_packed_references,
    ],
)
@pytest.mark.parametrize("ask", [_context, _analyst])
def test_another_repository_is_not_told_of(
    root: Path, lead_out: Callable[[Path, Path], None], ask: Callable[[Path], str]
) -> None:
    """An agent in a sandbox wrote ``.git`` so that it led to a repository outside, and got its commits and, as
    deleted files, its contents (fault 69)."""
    lead_out(root, _private(root.parent))
    plainly = [["log", "--name-only", "HEAD"], ["ls-files"]]
    told = [subprocess.run(["git", *call], cwd=root, capture_output=True, check=False).stdout for call in plainly]
    assert b"secret_word" in b"".join(told)  # else nothing leads out
    assert "secret_word" not in ask(root)


def test_a_repository_elsewhere_is_asked_when_it_says_whose_it_is(tmp_path: Path) -> None:
    """A git directory apart from its work tree must name it, which separate ones do not by themselves."""
    root = tmp_path / "r"
    root.mkdir()
    git(root, "init", "--quiet", "--separate-git-dir", str(tmp_path / 'with "marks" #'))
    write_files(root, {"a.py": "account = 1\n"})
    head = commit_all(root, "Add an account")
    context = document(root, "account")["context"]
    assert context["git_context"]["problems"][0].startswith("git_elsewhere: ")
    assert context["git_context"].get("head") is None
    assert context["project_structure"]["files"] == ["a.py"]
    git(root, "config", "core.worktree", str(root))
    context = document(root, "account")["context"]
    assert context["git_context"]["head"] == head
    assert "problems" not in context["git_context"]


@pytest.mark.parametrize("kind", ["worktree", "worktree by a relative path", "submodule", "submodule in a worktree"])
def test_what_git_itself_puts_elsewhere_is_asked(tmp_path: Path, kind: str) -> None:
    """A check of where ``.git`` leads refused work trees or submodules."""
    inner = sample_repository(tmp_path / "inner").resolve()
    outer = repository(tmp_path / "outer", {"a.py": "a = 1\n"})
    git(outer, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner), "below/inner")
    commit_all(outer, "Add inner")
    git(outer, "worktree", "add", "--quiet", "-b", "side", str(tmp_path / "tree"))
    asked = outer / "below/inner"
    if kind.startswith("worktree"):
        asked = tmp_path / "tree"
    if kind.endswith("path"):  # as git makes them for worktree.useRelativePaths
        back = outer / ".git/worktrees/tree/gitdir"
        back.write_text(os.path.relpath(asked / ".git", back.parent) + "\n")
        (asked / ".git").write_text(f"gitdir: {os.path.relpath(back.parent, asked)}\n")
    if kind.endswith("in a worktree"):
        asked = tmp_path / "tree/below/inner"
        git(tmp_path / "tree", "-c", "protocol.file.allow=always", "submodule", "--quiet", "update", "--init")
    context = document(asked, "")["context"]["git_context"]
    assert context["head"] == git(asked, "rev-parse", "HEAD").strip()
    assert context["recent_commits"]

"""Git's settings are asked for once, and again whenever they may be others."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.context import gitsettings
from orchestrator.context.git import GitFailed, Repository
from orchestrator.context.gitsettings import SettingsCache
from tests.support.repo import git, sample_repository


class Calls:
    """A repository's settings, asked for through one cache; counts how often git was asked."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._root = str(root)
        self._cache = SettingsCache()
        ask = Repository._ask_settings

        def counted(repository: Repository) -> list[tuple[str, str, str]]:
            self.count += 1
            return ask(repository)

        monkeypatch.setattr(Repository, "_ask_settings", counted)

    def get(self) -> dict[str, str]:
        """The settings as a new look at the project has them."""
        settings = Repository(self._root, 10.0, settings=self._cache).settings()
        return {name: value for _, name, value in settings}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository."""
    return sample_repository(tmp_path / "r").resolve()


@pytest.fixture
def _is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file counts as one that has just changed: when a file changed last cannot be set."""
    monkeypatch.setattr(gitsettings, "_RACY_NS", 0)


@pytest.mark.usefixtures("_is_old")
def test_what_has_not_changed_is_not_asked_for_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each refresh started git once more only to hear the same settings."""
    calls = Calls(root, monkeypatch)
    assert calls.get() == calls.get() == calls.get()
    assert calls.count == 1


def _add(root: Path) -> None:
    with open(root / ".git/config", "a") as config:
        config.write('[filter "evil"]\n\tclean = touch sprung; cat\n')


def _add_with_old_time(root: Path) -> None:
    before = (root / ".git/config").stat()
    _add(root)
    os.utime(root / ".git/config", ns=(before.st_atime_ns, before.st_mtime_ns))


def _add_for_the_work_tree(root: Path) -> None:
    git(root, "config", "extensions.worktreeConfig", "true")
    (root / ".git/config.worktree").write_text('[filter "evil"]\n\tclean = touch sprung; cat\n')


@pytest.mark.usefixtures("_is_old")
@pytest.mark.parametrize("change", [_add, _add_with_old_time, _add_for_the_work_tree])
def test_a_filter_that_is_planted_later_is_seen(
    root: Path, change: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A filter that came after the first look was not switched off, and run."""
    calls = Calls(root, monkeypatch)
    assert "filter.evil.clean" not in calls.get()
    change(root)
    assert "filter.evil.clean" in calls.get()


@pytest.mark.usefixtures("_is_old")
def test_what_another_file_brings_is_asked_for_each_time(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter in a file that the configuration includes was missed, since only the configuration was compared."""
    included = root.parent / "included"
    included.write_text("[core]\n\tpager = less\n")
    git(root, "config", "include.path", str(included))
    calls = Calls(root, monkeypatch)
    assert "filter.evil.clean" not in calls.get()
    included.write_text('[filter "evil"]\n\tclean = touch sprung; cat\n')
    assert "filter.evil.clean" in calls.get()


def test_a_young_file_is_asked_for_each_time(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two writes in one grain of the file's time looked like one."""
    calls = Calls(root, monkeypatch)
    calls.get()
    calls.get()
    assert calls.count == 2


@pytest.mark.usefixtures("_is_old")
def test_a_failure_is_not_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was known before a broken configuration counted again while it was broken."""
    calls = Calls(root, monkeypatch)
    before = calls.get()
    config = (root / ".git/config").read_bytes()
    (root / ".git/config").write_text("[broken\n")
    for _ in range(2):
        with pytest.raises(GitFailed):
            calls.get()
    (root / ".git/config").write_bytes(config)
    assert calls.get() == before

"""Git, asked read-only: nothing that a repository's configuration plants is run, and everything has a time limit."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from orchestrator.context.gitindex import IndexCopy, Stamp, index_stamp, stamp_of
from orchestrator.context.gitplace import (
    Elsewhere,
    NoPlace,
    beginning,
    find_common_dir,
    find_git_dir,
    find_top,
    is_bare,
)
from orchestrator.context.gitsafe import HARMLESS_OPTIONS, NotDisarmed, as_environment, disarmed
from orchestrator.context.gitsettings import Settings, SettingsCache

#: Variables of the caller that git may see; none of its GIT_* may redirect us.
_KEPT_VARIABLES = ("PATH", "HOME", "USER", "XDG_CONFIG_HOME", "TMPDIR", "SYSTEMROOT")
#: What work trees share and what git's answers depend on, beside the branch.
_SHARED = ("packed-refs", "reftable/tables.list", "config", "info/exclude", "shallow")
_CHUNK = 1 << 16
_SETTINGS_BYTES = 4 << 20


class GitFailed(Exception):
    """Git did not answer; ``reason``: ``git_missing``, ``git_timeout``, ``not_a_repository``, ``git_elsewhere`` (it is
    not asked about what may be another's repository) or ``git_failed``."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class Answer(msgspec.Struct, frozen=True):
    """Output of one call; ``is_cut`` when it was longer than the limit and the rest was not read."""

    output: bytes
    is_cut: bool


def personal_ignore() -> Path:
    """The file of what a person ignores in every repository, where git looks for it by default (gitignore(5))."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"), "git", "ignore")


class Repository:
    """The repository that holds a project's directory, found without running anything.

    Args:
        root: the project's directory (real path).
        timeout_s: longest time of one call, in seconds.
        program: the git binary; None looks it up in PATH.
        index_copy: what git may use, and write, in place of the repository's index; None for nothing.
        settings: where git's settings are kept for the next time; None for nowhere.

    Raises GitFailed when the directory belongs to no repository or git is not installed.
    """

    def __init__(
        self,
        root: str,
        timeout_s: float,
        *,
        program: str | None = None,
        index_copy: IndexCopy | None = None,
        settings: SettingsCache | None = None,
    ) -> None:
        found = program or shutil.which("git")
        self.root = root
        try:
            self.is_bare = is_bare(root)
            self.top = root if self.is_bare else find_top(root)
            self.git_dir = self.top if self.is_bare else find_git_dir(self.top)
            self._common_dir = find_common_dir(self.git_dir, self.top)
        except NoPlace as error:
            raise GitFailed("not_a_repository", str(error)) from error
        except Elsewhere as error:
            raise GitFailed("git_elsewhere", str(error)) from error
        self.timeout_s = timeout_s
        if found is None:
            raise GitFailed("git_missing", "install git, or put it into PATH")
        self._program = found
        self._settings: Settings | None = None
        self._kept = settings or SettingsCache()
        #: set when git runs for the first time
        self.is_asked = threading.Event()
        relative = os.path.relpath(root, self.top)
        #: Prefix of the project's paths in the repository: ``""`` or ``sub/dir/``.
        self.prefix = "" if relative == "." else relative.replace(os.sep, "/") + "/"
        #: The index that calls see, or one before it: taken before the copy, so that what they say is never taken for
        #: what a later index says.
        self.index_stamp = index_stamp(self.git_dir)
        self._index_file = index_copy.of(self.git_dir) if index_copy is not None and not self.is_bare else None

    @property
    def is_shallow(self) -> bool:
        """Whether history was cut off when it was fetched."""
        return self.history_end is not None

    @property
    def history_end(self) -> Stamp | None:
        """The stamp of the list of commits whose parents were not fetched; None when nothing was cut off."""
        return stamp_of(os.path.join(self._common_dir, "shallow"))

    def state(self) -> dict[str, Stamp | None]:
        """Stamps of the files that say where HEAD is, what is staged and ignored, and where history ends: as long as
        they are the same, git says the same of the same files (gitrepository-layout(5))."""
        common = self._common_dir
        try:
            head = beginning(os.path.join(self.git_dir, "HEAD")).strip().removeprefix("ref: ")
        except OSError:
            head = "HEAD"
        own, shared = ("HEAD", "index", "reftable/tables.list"), (head, *_SHARED)
        paths = [os.path.join(self.git_dir, name) for name in own] + [os.path.join(common, name) for name in shared]
        return {path: stamp_of(path) for path in paths}

    def environment(self, *, uses_filters: bool = False) -> dict[str, str]:
        """The environment of every call: where the repository is, and no way to ask, page, lock or connect; with
        ``uses_filters`` also what switches off the repository's own ones. Raises GitFailed then.
        """
        kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        fixed = {
            "GIT_DIR": self.git_dir,
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "true",
            "SSH_ASKPASS": "true",
            "GIT_PAGER": "cat",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_ALLOW_PROTOCOL": "none",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_LITERAL_PATHSPECS": "1",
            "LC_ALL": "C",
        }
        if not self.is_bare:
            fixed["GIT_WORK_TREE"] = self.top
        if self._common_dir != self.git_dir:
            fixed["GIT_COMMON_DIR"] = self._common_dir
        if self._index_file is not None:
            fixed |= {"GIT_INDEX_FILE": self._index_file, "GIT_OPTIONAL_LOCKS": "1"}
        try:
            overrides = disarmed(self.settings()) if uses_filters else ()
        except NotDisarmed as error:
            raise GitFailed("git_failed", str(error)) from error
        return {**kept, **fixed, **as_environment(overrides)}

    def call(self, arguments: Sequence[str], *, limit: int = 256 << 20, uses_filters: bool = False) -> Answer:
        """Run ``git`` with ``arguments`` in the project's directory and return at most ``limit`` bytes of output.

        ``uses_filters``: the command may run content filters (status, diff); those of the repository's own
        configuration are then switched off. Raises GitFailed.
        """
        return self._run(self.command(arguments), limit, self.environment(uses_filters=uses_filters))

    def command(self, arguments: Sequence[str]) -> list[str]:
        """The command line of a call, without anything that starts programs; to be run in ``environment``."""
        return [self._program, "--no-pager", *HARMLESS_OPTIONS, *arguments]

    def _run(self, command: list[str], limit: int, environment: dict[str, str]) -> Answer:
        try:
            process = subprocess.Popen(
                command,
                cwd=self.root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                umask=0o077,  # of the index's copy
            )
        except OSError as error:
            raise GitFailed("git_missing", str(error)) from error
        self.is_asked.set()
        try:
            answer = self._collect(process, limit)
        finally:
            _end(process)
        if process.returncode and not answer.is_cut:
            name = command[len(self.command(()))]
            raise GitFailed("git_failed", f"`git {name}` exited with {process.returncode}; run it there to see why")
        return answer

    def _collect(self, process: subprocess.Popen[bytes], limit: int) -> Answer:
        assert process.stdout is not None
        descriptor = process.stdout.fileno()
        deadline = time.monotonic() + self.timeout_s
        chunks: list[bytes] = []
        size = 0
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                raise GitFailed("git_timeout", f"no answer within {self.timeout_s} s")
            chunk = os.read(descriptor, _CHUNK)
            if not chunk:
                break
            chunks.append(chunk)
            size += len(chunk)
            if size > limit:
                return Answer(b"".join(chunks)[:limit], True)
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired as error:
            raise GitFailed("git_timeout", f"did not end within {self.timeout_s} s") from error
        return Answer(b"".join(chunks), False)

    def settings(self) -> Settings:
        """``(scope, name, value)`` of git's settings as they are for this repository, the same at each call.

        Raises GitFailed, also when there is more than can be read: an unread filter could not be switched off.
        """
        if self._settings is None:
            names = (os.path.join(self._common_dir, "config"), os.path.join(self.git_dir, "config"))
            self._settings = self._kept.get([*names, os.path.join(self.git_dir, "config.worktree")], self._ask_settings)
        return self._settings

    def _ask_settings(self) -> Settings:
        listed = self.call(["config", "--list", "--show-scope", "-z"], limit=_SETTINGS_BYTES)
        if listed.is_cut:
            raise GitFailed("git_failed", f"the configuration is larger than {_SETTINGS_BYTES} bytes")
        fields = os.fsdecode(listed.output).split("\0")  # the names must be found again as they are
        entries = [(scope, *entry.partition("\n")) for scope, entry in zip(fields[::2], fields[1::2], strict=False)]
        return [(scope, name, value) for scope, name, _, value in entries]


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a call with its children, and reap it."""
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            process.kill()
    if process.stdout is not None:
        process.stdout.close()
    process.wait()

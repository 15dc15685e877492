"""Where profile files come from: directories in layers, read safely, each file parsed once per state of it."""

from __future__ import annotations

import os
import stat
from importlib import resources
from pathlib import Path
from typing import Literal

import msgspec

from orchestrator.profiles.front_matter import MAX_FILE_BYTES
from orchestrator.profiles.parser import Dialect, Layer, parse_layer
from orchestrator.profiles.problems import Problem, ProfileInvalid

LayerKind = Literal["shipped", "user", "project"]
#: A directory with more files than this is not one of profiles.
MAX_FILES = 2000
_IGNORED = frozenset({"readme.md"})

Stamp = tuple[int, int, int]


class Directory(msgspec.Struct, frozen=True, kw_only=True):
    """One directory of a layer.

    Attributes:
        path: it need not exist.
        layer: whose it is.
        dialect: how its files are read.
        root: files must really lie below it (symlinks are followed, but not out of it); None allows any.
    """

    path: Path
    layer: LayerKind
    dialect: Dialect = "own"
    root: Path | None = None


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A file's last good content and what is wrong with its present one."""

    stamp: Stamp
    layer: Layer | None
    problem: Problem | None


def shipped_directory() -> Path:
    """The profiles that ship with this package: the directory ``profiles`` beside it.

    It is found from this package and not by its own name, since another distribution, or the directory that a
    program is started in, may hold a package ``profiles`` too.
    """
    package = resources.files("orchestrator")
    return Path(str(package)).parent / "profiles"


def user_directories(home: Path, config_dir: Path) -> tuple[Directory, ...]:
    """The user's own, lowest first: the coding CLI's agents, then ``profiles`` in this program's configuration."""
    return (
        Directory(path=home / ".claude" / "agents", layer="user", dialect="claude"),
        Directory(path=config_dir / "profiles", layer="user"),
    )


def project_directories(project: Path) -> tuple[Directory, ...]:
    """A project's own, lowest first."""
    return (
        Directory(path=project / ".claude" / "agents", layer="project", dialect="claude", root=project),
        Directory(path=project / ".orchestrator" / "profiles", layer="project", root=project),
    )


class DirectoryReader:
    """Keeps the files of one directory, each read again only when its inode, size or time of change differs."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self._entries: dict[str, Entry] = {}
        self._problems: tuple[Problem, ...] = ()
        self._listing_problem: Problem | None = None
        self._layers: tuple[tuple[str, Layer], ...] = ()

    @property
    def layers(self) -> tuple[tuple[str, Layer], ...]:
        """``(file, layer)`` of every role, by file name; a second file for the same role is left out."""
        return self._layers

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong or was ignored, by file name."""
        return self._problems

    def refresh(self) -> bool:
        """Look at the directory; whether anything changed since the last time."""
        stamps, listing_problem = self._listing()
        known_stamps = {name: entry.stamp for name, entry in self._entries.items()}
        if listing_problem is not None and not stamps:
            stamps = known_stamps  # what was read stays in force
        if listing_problem == self._listing_problem and stamps == known_stamps:
            return False
        entries: dict[str, Entry] = {}
        for name, stamp in sorted(stamps.items()):
            known = self._entries.get(name)
            entries[name] = known if known is not None and known.stamp == stamp else self._read(name, stamp, known)
        self._entries, self._listing_problem = entries, listing_problem
        self._settle(listing_problem)
        return True

    def _listing(self) -> tuple[dict[str, Stamp], Problem | None]:
        stamps: dict[str, Stamp] = {}
        try:
            with os.scandir(self.directory.path) as found:
                for entry in found:
                    if not entry.name.lower().endswith(".md") or entry.name.lower() in _IGNORED:
                        continue
                    if len(stamps) >= MAX_FILES:
                        reason = f"more than {MAX_FILES} files; the rest is ignored"
                        return stamps, Problem(severity="error", source=str(self.directory.path), reason=reason)
                    try:
                        status = entry.stat()
                    except OSError:  # gone between the two calls, or a dangling link: read() tells which
                        stamps[entry.name] = (0, 0, 0)
                        continue
                    stamps[entry.name] = (status.st_ino, status.st_size, status.st_mtime_ns)
        except (FileNotFoundError, NotADirectoryError):
            return {}, None
        except OSError as error:
            reason = f"cannot be listed: {error.strerror}"
            return {}, Problem(severity="error", source=str(self.directory.path), reason=reason)
        return stamps, None

    def _read(self, name: str, stamp: Stamp, known: Entry | None) -> Entry:
        path = self.directory.path / name
        try:
            layer = parse_layer(read_regular_file(path, self.directory.root), str(path), self.directory.dialect)
        except ProfileInvalid as error:
            previous = known.layer if known else None
            problem = Problem(
                severity="error",
                source=str(path),
                line=error.line,
                reason=error.reason + ("; the previous version stays in force" if previous else ""),
                agent_type=previous.name if previous else "",
            )
            return Entry(stamp=stamp, layer=previous, problem=problem)
        return Entry(stamp=stamp, layer=layer, problem=None)

    def _settle(self, listing_problem: Problem | None) -> None:
        problems = [listing_problem] if listing_problem else []
        layers: dict[str, tuple[str, Layer]] = {}
        for name, entry in self._entries.items():
            source = str(self.directory.path / name)
            if entry.problem:
                problems.append(entry.problem)
            if entry.layer is None:
                continue
            problems.extend(entry.layer.problems)
            first = layers.get(entry.layer.name)
            if first is None:
                layers[entry.layer.name] = (source, entry.layer)
                continue
            reason = f"role {entry.layer.name!r} is already given by {first[0]}; this file is ignored"
            line = entry.layer.lines.get("name")
            problems.append(
                Problem(severity="error", source=source, line=line, reason=reason, agent_type=entry.layer.name)
            )
        self._layers = tuple(layers.values())
        self._problems = tuple(problems)


def read_regular_file(path: Path, root: Path | None) -> bytes:
    """The bytes of a profile file. Raises ProfileInvalid for anything but a regular file of bounded size.

    Opening never blocks (a FIFO would); with ``root`` the opened file must really lie below it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise ProfileInvalid(f"cannot be read: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ProfileInvalid("not a regular file")
        if status.st_size > MAX_FILE_BYTES:
            raise ProfileInvalid(f"file over {MAX_FILE_BYTES} bytes")
        if root is not None and not _is_below(path, root, status):
            raise ProfileInvalid("a link that leads out of the project")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ProfileInvalid(f"cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)


def _is_below(path: Path, root: Path, opened: os.stat_result) -> bool:
    """Whether the file that was opened is the one that the path really leads to, and that below ``root``."""
    try:
        real = path.resolve(strict=True)
        return real.is_relative_to(root.resolve()) and os.path.samestat(real.lstat(), opened)
    except OSError:
        return False

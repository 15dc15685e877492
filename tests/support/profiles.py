"""Small profile catalogues on disk."""

from __future__ import annotations

from pathlib import Path

from orchestrator.profiles.catalogue import Profiles
from orchestrator.profiles.sources import user_directories

BASE = """name: {name}
description: The {name} role.
model: haiku
category: support
permission_class: {permission_class}
subscribes: [testing]
context: {{include: [docs/**], requirements: [readme_files], max_bytes: 9000}}
hands_over_to: [{successor}]
timeout_seconds: 60"""


def write_profile(path: Path, header: str, body: str = "Do the work.") -> Path:
    """Write a profile file, its directories too, so that a change is seen even within one tick of the clock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".new")
    beside.write_text(f"---\n{header}\n---\n{body}\n", encoding="utf-8")
    beside.replace(path)  # a new inode: the stamp differs whatever the clock's resolution
    return path


class ProfileTree:
    """Directories of all layers below one, with two shipped roles: ``helper`` (coding) and ``test-engineer``."""

    def __init__(self, root: Path) -> None:
        self.shipped = root / "shipped"
        self.home = root / "home"
        self.config = root / "config"
        self.project = root / "project"
        self.project.mkdir(parents=True)
        header = BASE.format(name="helper", permission_class="coding", successor="test-engineer")
        write_profile(self.shipped / "helper.md", header, "Help.")
        header = BASE.format(name="test-engineer", permission_class="qa-security", successor="helper")
        write_profile(self.shipped / "test-engineer.md", header, "Test.")

    @property
    def user_claude(self) -> Path:
        """Where the coding CLI keeps the user's agents."""
        return self.home / ".claude" / "agents"

    @property
    def user_own(self) -> Path:
        """Where this program keeps the user's profiles."""
        return self.config / "profiles"

    @property
    def project_claude(self) -> Path:
        """Where the coding CLI keeps the project's agents."""
        return self.project / ".claude" / "agents"

    @property
    def project_own(self) -> Path:
        """Where this program keeps the project's profiles."""
        return self.project / ".orchestrator" / "profiles"

    def open(self, *, check_interval_s: float = 0.0) -> Profiles:
        """A catalogue over all layers; by default it looks at the disk each time."""
        user = user_directories(self.home, self.config)
        return Profiles(self.shipped, user, check_interval_s=check_interval_s)

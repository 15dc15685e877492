"""Profiles as the command line sees them: the files of this installation, user and project; no sidecar needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from api.cli.session import Session
    from orchestrator.profiles import Profiles


def open_profiles(session: Session) -> Profiles:
    """The catalogue with the user's own profiles laid over the shipped ones."""
    from pathlib import Path

    from orchestrator.config import user_config_path
    from orchestrator.profiles import Profiles, user_directories

    home = Path(session.environ.get("HOME") or Path.home())
    return Profiles(user=user_directories(home, user_config_path(session.environ).parent))

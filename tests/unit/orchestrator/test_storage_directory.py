"""The storage directory itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.storages import opened


async def test_git_leaves_a_storage_in_a_work_tree_out(tmp_path: Path) -> None:
    """Signing keys and agents' tokens would be committed with the next ``git add .``."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    async with opened("sqlite", tmp_path / ".sidecar"):
        (tmp_path / ".sidecar" / "keys").mkdir()
        (tmp_path / ".sidecar" / "keys" / "one.pem").write_text("secret")
        seen = subprocess.run(
            ["git", "-C", str(tmp_path), "status", "--porcelain", "-uall"], check=True, capture_output=True, text=True
        )
    assert seen.stdout == ""
    assert (tmp_path / ".sidecar" / ".gitignore").stat().st_mode & 0o777 == 0o600


async def test_other_peoples_files_stay_visible_to_git(tmp_path: Path) -> None:
    """A storage in a directory of sources would hide them from git."""
    (tmp_path / "notes.txt").write_text("mine")
    async with opened("sqlite", tmp_path):
        assert not (tmp_path / ".gitignore").exists()


async def test_a_gitignore_of_ones_own_is_kept(tmp_path: Path) -> None:
    """Who wants to commit results, say, says so in the file; a restart must not undo it."""
    async with opened("sqlite", tmp_path / "s"):
        (tmp_path / "s" / ".gitignore").write_text("keys\n")
    async with opened("sqlite", tmp_path / "s"):
        assert (tmp_path / "s" / ".gitignore").read_text() == "keys\n"

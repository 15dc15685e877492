"""Whether a storage directory can be written, found by trying."""

from __future__ import annotations

import tempfile
from pathlib import Path


def why_not_writable(storage: Path) -> str | None:
    """Why nothing can be written below ``storage`` (which need not exist yet), or None when it can.

    Permissions alone do not tell: root passes them on read-only and virtual file systems too.
    """
    nearest = next(parent for parent in (storage, *storage.parents) if parent.exists())
    if not nearest.is_dir():
        return f"{nearest} is not a directory"
    try:
        with tempfile.TemporaryFile(dir=nearest):
            return None
    except OSError as error:
        return f"{nearest}: {error.strerror or error}"

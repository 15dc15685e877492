"""What keeps a sidecar from starting with given settings: one list for ``serve`` and for ``serve --check``."""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from orchestrator.config import ServerSettings, Settings, storage_directory
from orchestrator.errors import ConfigInvalid


class Problem(NamedTuple):
    """A setting and what is wrong with its value, with the way out."""

    setting: str
    text: str


def problems_of(settings: Settings) -> Iterator[Problem]:
    """Every reason why a server with these settings could not start."""
    server = settings.server
    if server.workers != 1:
        yield Problem("server.workers", "the sidecar is one process by design; leave it at 1, its pool uses all cores")
    yield from _tls_problems(server)
    storage = storage_directory(settings)
    reason = why_not_writable(storage)
    if reason is not None:
        yield Problem(
            "storage.directory", f"{storage} cannot be written: {reason}; choose another directory with --storage"
        )


def check_settings(settings: Settings) -> None:
    """Raise ConfigInvalid for the first problem."""
    for problem in problems_of(settings):
        raise ConfigInvalid(f"{problem.setting}: {problem.text}", details={"setting": problem.setting})


def _tls_problems(server: ServerSettings) -> Iterator[Problem]:
    given = {"server.certificate": server.certificate, "server.private_key": server.private_key}
    missing = [setting for setting, path in given.items() if path is None]
    if len(missing) == 1:
        yield Problem(missing[0], "server.certificate and server.private_key belong together; give both or none")
    unreadable = [setting for setting, path in given.items() if path is not None and not os.access(path, os.R_OK)]
    for setting in unreadable:
        yield Problem(setting, f"{given[setting]} cannot be read; name an existing PEM file that you may read")
    if missing or unreadable or server.certificate is None:
        return
    try:
        # An encrypted key would be asked for at the terminal; an empty password makes it an error instead.
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
            server.certificate, server.private_key, password=""
        )
    except ssl.SSLError as error:
        yield Problem(
            "server.certificate",
            f"{server.certificate} and the key {server.private_key} cannot be used together "
            f"({error.reason or error}); give a PEM certificate and its own key without a password",
        )


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

"""Results kept on disk until the sidecar has them: an agent's work is not lost while the sidecar is away."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from api.client import calls, types
from api.client.errors import APIError, SidecarUnavailable

if TYPE_CHECKING:
    from api.client.sync import Client

#: Refusals after which the same result may be accepted later (a new token, a lower rate, a repaired disk).
_PASSING_STATUSES = frozenset({401, 408, 429, 500, 502, 503, 504})


class Flushed(NamedTuple):
    """What a flush did: what was stored, how many wait on, and which files were refused for good."""

    stored: list[types.StoredResult]
    waiting: int
    refused: list[Path]


class ResultBuffer:
    """A directory of results that still have to be sent, oldest first.

    One file is one result; its name is also its idempotency key, so a result that was sent but whose answer got
    lost, or that two processes send at once, is stored once. Files are 0600, written whole or not at all.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def put(self, issue_id: str, result: Mapping[str, Any], **fields: str | None) -> Path:
        """Keep a result durably; ``fields`` are ``agent_id``, ``agent_type``, ``project_id``, ``timestamp``."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        name = f"{time.time_ns():020d}-{os.urandom(16).hex()}"
        document = {"issue_id": issue_id, "result": dict(result), **{k: v for k, v in fields.items() if v}}
        target = self.directory / f"{name}.json"
        temporary = self.directory / f".{name}.tmp"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(json.dumps(document, allow_nan=False).encode())
                file.flush()
                os.fsync(descriptor)
            os.rename(temporary, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        self._sync_directory()
        return target

    def __len__(self) -> int:
        return sum(1 for _ in self._waiting())

    def flush(self, client: Client) -> Flushed:
        """Send what waits, oldest first, until the sidecar is away; never raises for the sidecar's answers.

        A result that is refused for good moves to ``refused/`` with the reason beside it.
        """
        stored: list[types.StoredResult] = []
        refused: list[Path] = []
        for path in self._waiting():
            try:
                document = json.loads(path.read_bytes())
                answer = client.send(calls.store_result(**document, idempotency_key=path.stem))
            except FileNotFoundError:
                continue  # another process has sent it
            except SidecarUnavailable:
                break
            except APIError as error:
                if error.status in _PASSING_STATUSES:
                    break
                refused.append(self._refuse(path, str(error)))
            except (ValueError, TypeError) as error:
                refused.append(self._refuse(path, f"not a buffered result: {error}"))
            else:
                stored.append(answer)
                path.unlink(missing_ok=True)
        return Flushed(stored, len(self), refused)

    def _waiting(self) -> Iterator[Path]:
        try:
            names = sorted(entry.name for entry in os.scandir(self.directory) if entry.name.endswith(".json"))
        except FileNotFoundError:
            return
        yield from (self.directory / name for name in names)

    def _refuse(self, path: Path, reason: str) -> Path:
        directory = self.directory / "refused"
        directory.mkdir(exist_ok=True, mode=0o700)
        target = directory / path.name
        os.replace(path, target)
        target.with_suffix(".reason").write_text(reason + "\n", encoding="utf-8")
        return target

    def _sync_directory(self) -> None:
        # The name must survive power loss as well as the bytes.
        descriptor = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

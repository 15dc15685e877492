"""From an exception to a sentence on stderr and an exit code; a traceback never reaches a user."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback

import click

from api.client import APIError, ClientError, SidecarUnavailable
from orchestrator.errors import BadRequest, ConfigInvalid, SidecarError, UnknownAgentType

#: The contract's exit codes.
OK, FAILED, USAGE, UNREACHABLE, NOT_PERMITTED = 0, 1, 2, 3, 4

#: Codes of the API that speak of what the user typed.
_USAGE_CODES = frozenset({"REQ_001", "REQ_002", "EVT_002", "EVT_003", "AGT_002", "CFG_001", "HTTP_400"})


class Failure(click.ClickException):
    """A command that could not do its work, told in one sentence; ``exit_code`` is one of the contract's."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]


def explain(error: BaseException) -> int:
    """Say on stderr what went wrong and return the exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else FAILED
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, (click.Abort, KeyboardInterrupt)):
        _say("interrupted")
        return FAILED
    code = exit_code_of(error)
    if code is not None:
        _say(message_of(error))
        return code
    if isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename else ""
        _say(f"{name}{error.strerror or error}")
        return NOT_PERMITTED if isinstance(error, PermissionError) else FAILED
    _say(f"internal error ({type(error).__name__}); please report it with {_keep(error)}")
    return FAILED


def exit_code_of(error: BaseException) -> int | None:
    """The exit code of an error of the client or the server's packages; None for any other."""
    if isinstance(error, SidecarUnavailable):
        return UNREACHABLE
    if isinstance(error, APIError):
        if error.status in (401, 403):
            return NOT_PERMITTED
        return USAGE if error.code in _USAGE_CODES else FAILED
    if isinstance(error, (BadRequest, ConfigInvalid, UnknownAgentType)):
        return USAGE
    if isinstance(error, (ClientError, SidecarError)):
        return FAILED
    return None


def message_of(error: BaseException) -> str:
    """One sentence or two, with the code that the documentation lists."""
    if isinstance(error, APIError):
        text = f"{error.message} ({error.code})"
        if error.status == 401:
            text += (
                "; the token was refused: name the storage directory of that sidecar with --storage, "
                "or a token with ORCHESTRATOR_TOKEN"
            )
        return text
    if isinstance(error, SidecarError):
        return f"{error.message} ({error.code})"
    return str(error)


def _say(message: str) -> None:
    from api.cli.output import plain

    click.echo(f"Error: {plain(message)}", err=True)


def _keep(error: BaseException) -> str:
    """Write the traceback where only this user can read it; the file's name."""
    descriptor, path = tempfile.mkstemp(prefix="orchestrator-error-", suffix=".txt")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(f"{sys.version}\n{sys.platform}\n")
        traceback.print_exception(error, file=file)
    return path

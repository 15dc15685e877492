"""What a project's own ``orchestrator.toml`` adds to the scan and takes from it."""

from __future__ import annotations

import tomllib

import msgspec

from orchestrator.config import PROJECT_FILE
from orchestrator.context.reading import Refused, reading

#: A larger file is none that a person wrote.
_LARGEST_BYTES = 1 << 20


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Globs of ignored files that are scanned all the same, globs of files that never are, and what is wrong with
    the file (empty: nothing)."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    problem: str = ""


def choice_of(root: str) -> Choice:
    """The ``[context]`` globs of the project at ``root``; none, with the problem, when they cannot be used.

    Raises FileNotFoundError when the root is gone.
    """
    with reading(root) as reader:
        try:
            data = reader.read(PROJECT_FILE, _LARGEST_BYTES).data
        except Refused as refused:
            is_absent = refused.reason == "missing"
            return Choice() if is_absent else Choice(problem=f"{PROJECT_FILE} is not used: {refused.reason}")
    try:
        section = tomllib.loads(data.decode()).get("context", {})
        globs = {name: section[name] for name in ("include", "exclude") if name in section}
        return msgspec.convert(globs, Choice)
    except (ValueError, TypeError, RecursionError, msgspec.ValidationError) as error:
        return Choice(problem=f"{PROJECT_FILE} is not used: [context]: {error}")

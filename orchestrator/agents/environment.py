"""The environment of an agent: what it gets, and what a request may not set."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping

from orchestrator.errors import BadRequest

#: Variables of the supervisor that an agent inherits.
INHERITED = ("PATH", "HOME", "USER", "SHELL", "LANG", "TZ", "TMPDIR")
#: Variables that only the sidecar sets.
OWNED = frozenset(
    {
        "AGENT_ID",
        "AGENT_TYPE",
        "ISSUE_ID",
        "PROJECT_ID",
        "SIDECAR_URL",
        "SIDECAR_CERTIFICATE",
        "JWT_TOKEN",
        "AGENT_TASK",
        "AGENT_WORKSPACE",
        "AGENT_CONTEXT_FILE",
        "TRACEPARENT",
        "ORCHESTRATOR_AGENT_NONCE",
    }
)
#: Variables by which a loader or a shell runs code of the caller's before the program's own.
LOADER_NAMES = frozenset(
    {"BASH_ENV", "ENV", "SHELLOPTS", "BASHOPTS", "PS4", "GCONV_PATH", "GLIBC_TUNABLES", "PYTHONSTARTUP", "PERL5DB"}
)
LOADER_PREFIXES = ("LD_", "DYLD_", "BASH_FUNC_")
#: Variables by which a program is found, or by which a common interpreter or git runs code besides its program's:
#: whoever sets one chooses what a role's command runs. That is an operator's, as the command itself is.
COMMANDING_NAMES = frozenset(
    {
        "PATH", "HOME", "SHELL", "EDITOR", "PAGER", "PYTHONPATH", "PYTHONHOME", "NODE_OPTIONS", "NODE_PATH",
        "PERL5OPT", "PERL5LIB", "RUBYOPT", "RUBYLIB", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS",
        "CLASSPATH",
    }
)  # fmt: skip
COMMANDING_PREFIXES = ("GIT_", "NPM_CONFIG_", "DOTNET_")
#: What begins like one of these and names a person only.
HARMLESS_PREFIXES = ("GIT_AUTHOR_", "GIT_COMMITTER_")
#: Linux refuses an argument or variable over 32 pages (MAX_ARG_STRLEN, execve(2)); the task file holds the whole.
MAX_VARIABLE_BYTES = 128 * 1024 - 1
MAX_TASK_BYTES = 64 * 1024
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")


def check_environment(environment: Mapping[str, str]) -> None:
    """Raise BadRequest for a name or value that a spawn request may not set."""
    for name, value in environment.items():
        field = f"environment.{name}"[:200]
        if not _NAME.fullmatch(name):
            raise _bad(field, "names are letters, digits and '_', not beginning with a digit")
        if name in OWNED:
            raise _bad(field, "is set by the sidecar itself; choose another name")
        if name in LOADER_NAMES or name.startswith(LOADER_PREFIXES):
            raise _bad(field, "would load code into the agent and is refused; name the command itself instead")
        if "\x00" in value:
            raise _bad(field, "must not hold a NUL character")
        try:
            size = len(value.encode()) + len(name) + 1
        except UnicodeEncodeError:
            raise _bad(field, "must be valid Unicode text") from None
        if size > MAX_VARIABLE_BYTES:
            raise _bad(field, f"is larger than {MAX_VARIABLE_BYTES} bytes; write it to a file instead")


def check_delegated_environment(environment: Mapping[str, str]) -> None:
    """Raise BadRequest for a name that only an operator's spawn request may set."""
    for name in environment:
        upper = name.upper()  # npm reads its own in any case
        is_commanding = upper in COMMANDING_NAMES or upper.startswith(COMMANDING_PREFIXES)
        if is_commanding and not upper.startswith(HARMLESS_PREFIXES):
            problem = "chooses what programs run and takes an operator's token; leave it out"
            raise _bad(f"environment.{name}"[:200], problem)


def _bad(field: str, problem: str) -> BadRequest:
    return BadRequest(f"{field} {problem}", details={"field": field})


def inherited_environment(environ: Mapping[str, str], extra: tuple[str, ...] = ()) -> dict[str, str]:
    """The part of the supervisor's environment that agents get; ``extra`` are the names a profile asks for."""
    wanted = {*INHERITED, *extra} - OWNED
    return {name: value for name, value in environ.items() if name in wanted or name.startswith("LC_")}


def new_traceparent() -> str:
    """A W3C Trace Context ``traceparent`` (version 00, sampled) of a new trace (w3.org/TR/trace-context)."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def task_for_environment(task: str) -> str:
    """``task`` cut to what fits into a variable; ``task.md`` always holds the whole."""
    data = task.encode()
    if len(data) <= MAX_TASK_BYTES:
        return task
    return data[:MAX_TASK_BYTES].decode(errors="ignore")

"""The optional sandbox: bubblewrap around a command, refused where it cannot be had."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

from agentpool.errors import LaunchFailed
from agentpool.launching import PASSING_ERRORS
from agentpool.runtimes.base import Invocation
from agentpool.specs import LaunchSpec

SANDBOXES = ("none", "workspace")
SYSTEM_PATHS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/opt", "/nix", "/run/current-system")
#: The worker waits for it, and all its agents must be gone within 5 s of the supervisor's death. With 12 busy processes
#: a core the test took 0.14 s.
TEST_TIMEOUT_S = 2.0
WAY_OUT = "install it (package bubblewrap), or ask for sandbox `none`"
NOT_FOUND = ("sandbox", f"(bwrap) is not on the PATH; {WAY_OUT}")


class Sandbox:
    """Wraps commands. Whether the system allows it is tried until it does, and again when bwrap came or went.

    A refusal stands as long again as finding it out took, so that trying takes half of the worker's time at most: what
    was in the way may have passed.
    """

    def __init__(self) -> None:
        self._proven = ""
        self._refusal: tuple[str, str] | None = None
        self._try_at = 0.0

    def wrap(self, spec: LaunchSpec, invocation: Invocation) -> tuple[str, ...]:
        """The command to execute. Raises LaunchFailed ``sandbox`` rather than run without what was asked.

        It is ``resources``, and not permanent, where the system had no room for the test at the moment.
        """
        command = invocation.argv[0] if invocation.argv else ""
        if spec.sandbox == "none":
            return invocation.argv
        if spec.sandbox not in SANDBOXES:
            text = f"{command}: unknown sandbox {spec.sandbox!r}; known are: {', '.join(SANDBOXES)}"
            raise LaunchFailed("sandbox", text, command=command, is_permanent=True)
        program = shutil.which("bwrap") or ""
        refusal = self._refusal_of(program)
        if refusal is not None:
            reason, why = refusal
            text = f"{command}: a sandbox was asked for, but bubblewrap {why}"
            raise LaunchFailed(reason, text, command=command, is_permanent=reason == "sandbox")
        return (program, *bubblewrap_arguments(spec, invocation.env), "--", *invocation.argv)

    def _refusal_of(self, program: str) -> tuple[str, str] | None:
        if not program:
            self._proven = ""
            return NOT_FOUND
        if program == self._proven:
            return None
        began = time.monotonic()
        if self._refusal is None or began >= self._try_at:
            self._refusal = _try(program)
            self._proven = program if self._refusal is None else ""
            now = time.monotonic()
            self._try_at = now + (now - began)
        return self._refusal


def _try(program: str) -> tuple[str, str] | None:
    """Why a sandbox cannot be had, as reason and text; None when it can."""
    test = [program, "--ro-bind", "/", "/", "--proc", "/proc", "--unshare-all", "--die-with-parent", "true"]
    try:
        done = subprocess.run(test, stdin=subprocess.DEVNULL, capture_output=True, timeout=TEST_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return "resources", f"did not answer within {TEST_TIMEOUT_S:g} s; try again"
    except OSError as error:
        if error.errno in PASSING_ERRORS:
            return "resources", f"could not be tried ({error.strerror}); try again"
        return "sandbox", f"does not work here ({error}); {WAY_OUT}"
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        reason = said[-1] if said else "no reason given"
        return "sandbox", f"does not work here ({reason}); {WAY_OUT}"
    return None


def bubblewrap_arguments(spec: LaunchSpec, env: dict[str, str]) -> tuple[str, ...]:
    """System, interpreter, PATH and ``readonly_paths`` read-only, /tmp private, the workspace writable (bwrap(1))."""
    arguments = ["--unshare-all", "--die-with-parent", "--new-session"]
    if spec.sandbox_network:
        arguments.append("--share-net")
    shown = [*SYSTEM_PATHS, *_extra_paths(env)]
    for path in shown:
        arguments += ["--ro-bind-try", path, path]
    arguments += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    for path in spec.readonly_paths:
        arguments += ["--ro-bind-try", path, path]
    arguments += ["--bind", spec.workspace, spec.workspace, "--chdir", spec.workspace]
    return tuple(arguments)


def _extra_paths(env: dict[str, str]) -> list[str]:
    """Directories of PATH and this interpreter's prefixes, as far as the system paths do not hold them."""
    found: list[str] = []
    for path in [*env.get("PATH", "").split(os.pathsep), sys.prefix, sys.base_prefix]:
        is_shown = any(path == shown or path.startswith(shown + "/") for shown in (*SYSTEM_PATHS, *found))
        if os.path.isabs(path) and not is_shown and os.path.realpath(path) not in ("/", "/tmp"):
            found.append(path)
    return found

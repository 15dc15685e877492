"""The optional sandbox: bubblewrap around a command, refused where it cannot be had."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from agentpool.errors import LaunchFailed
from agentpool.runtimes.base import Invocation
from agentpool.specs import LaunchSpec

SANDBOXES = ("none", "workspace")
SYSTEM_PATHS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/opt", "/nix", "/run/current-system")
TEST_TIMEOUT_S = 5.0
WAY_OUT = "install it (package bubblewrap), or ask for sandbox `none`"


class Sandbox:
    """Wraps commands. Whether the system allows it is tried when it is first asked for, and when bwrap came or went."""

    def __init__(self) -> None:
        self._refusal: str | None = None
        self._program: str | None = None

    def wrap(self, spec: LaunchSpec, invocation: Invocation) -> tuple[str, ...]:
        """The command to execute. Raises LaunchFailed ``sandbox`` rather than run without what was asked."""
        command = invocation.argv[0] if invocation.argv else ""
        if spec.sandbox == "none":
            return invocation.argv
        if spec.sandbox not in SANDBOXES:
            text = f"{command}: unknown sandbox {spec.sandbox!r}; known are: {', '.join(SANDBOXES)}"
            raise LaunchFailed("sandbox", text, command=command, is_permanent=True)
        program = shutil.which("bwrap")
        if self._refusal is None or program != self._program:
            self._program = program
            self._refusal = self._try(program)
        if program is None or self._refusal:
            raise LaunchFailed("sandbox", f"{command}: {self._refusal}", command=command, is_permanent=True)
        return (program, *bubblewrap_arguments(spec, invocation.env), "--", *invocation.argv)

    @staticmethod
    def _try(program: str | None) -> str:
        if program is None:
            return f"a sandbox was asked for, but bubblewrap (bwrap) is not on the PATH; {WAY_OUT}"
        test = [program, "--ro-bind", "/", "/", "--proc", "/proc", "--unshare-all", "--die-with-parent", "true"]
        try:
            done = subprocess.run(
                test, stdin=subprocess.DEVNULL, capture_output=True, timeout=TEST_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"a sandbox was asked for, but bubblewrap does not work here ({error}); {WAY_OUT}"
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            reason = said[-1] if said else "no reason given"
            return f"a sandbox was asked for, but bubblewrap does not work here ({reason}); {WAY_OUT}"
        return ""


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

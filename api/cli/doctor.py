"""``doctor``: what this machine has, what it lacks, and what to do about it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import click

from api.cli.failures import FAILED
from api.cli.options import Command, formatted
from api.cli.output import Column
from api.cli.session import Session
from api.readiness import why_not_writable

#: Coding CLIs that a profile can run, by the name of their program.
CODING_CLIS = ("claude", "codex", "gemini", "opencode")
#: Oldest git with everything that is used (settings given in its environment).
OLDEST_GIT = (2, 31)
#: Descriptors for 119 agents: three pipes, a pidfd and two logs each, and some for the server.
WANTED_DESCRIPTORS = 1024
#: Free disk below which the storage calls itself degraded.
WANTED_DISK_BYTES = 512 << 20

COLUMNS = (
    Column("Check", "check"),
    Column("State", "state"),
    Column("Found", "found"),
    Column("Way out", "way_out"),
)


class Check(NamedTuple):
    """One line: ``state`` is ok, warning (works with less) or error (does not work)."""

    check: str
    state: str
    found: str
    way_out: str = ""


@click.command(cls=Command)
@formatted
@click.pass_obj
def doctor(session: Session) -> int:
    """Check Python, git, storage, port, limits, sandbox, control groups and coding CLIs.

    Exits with 1 when something that the sidecar needs is missing; a warning is something it can do without.

    \b
    Examples:
      orchestrator doctor
      orchestrator doctor --format json | jq '.[] | select(.state != "ok")'
    """
    checks = list(examine(session))
    session.out.rows([check._asdict() for check in checks], COLUMNS)
    errors = sum(check.state == "error" for check in checks)
    session.out.note(f"{errors} errors" if errors else "everything that is needed is there")
    return FAILED if errors else 0


def examine(session: Session) -> Iterator[Check]:
    """All checks, in order; one that fails itself is a warning."""
    parts: tuple[Callable[[Session], Iterator[Check]], ...] = (
        _python,
        _git,
        _configuration,
        _storage,
        _sidecar,
        _limits,
        _isolation,
        _clis,
    )
    for part in parts:
        try:
            yield from part(session)
        except (OSError, subprocess.SubprocessError) as error:
            yield Check(part.__name__.strip("_"), "warning", f"could not be checked: {error}")


def _python(_: Session) -> Iterator[Check]:
    found = ".".join(map(str, sys.version_info[:3]))
    is_new = sys.version_info >= (3, 11)
    yield Check("python", "ok" if is_new else "error", found, "" if is_new else "install Python 3.11 or newer")
    import importlib.metadata

    try:
        version = importlib.metadata.version("orchestration-sidecar")
    except importlib.metadata.PackageNotFoundError:
        yield Check("installation", "warning", "not installed as a package", "pip install orchestration-sidecar")
    else:
        yield Check("installation", "ok", f"orchestration-sidecar {version}")


def _git(_: Session) -> Iterator[Check]:
    path = shutil.which("git")
    if path is None:
        yield Check("git", "error", "not found", "install git: project files and history are read with it")
        return
    said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout.strip()
    digits = tuple(int(part) for part in said.split()[2].split(".")[:2] if part.isdigit()) if said else ()
    is_new = digits >= OLDEST_GIT
    yield Check(
        "git",
        "ok" if is_new else "warning",
        said,
        "" if is_new else "git 2.31 or newer is needed to read projects safely",
    )


def _configuration(session: Session) -> Iterator[Check]:
    from orchestrator.errors import ConfigInvalid

    try:
        loaded = session.load()
    except ConfigInvalid as error:
        yield Check("configuration", "error", error.message, "mend it; 'orchestrator serve --check' checks again")
        return
    files = sorted({origin for origin in loaded.origins.values() if origin.endswith(".toml")})
    yield Check("configuration", "ok", ", ".join(files) or "defaults")


def _storage(session: Session) -> Iterator[Check]:
    from orchestrator.errors import ConfigInvalid

    try:
        storage = session.storage
    except ConfigInvalid:
        return  # told by the check before
    reason = why_not_writable(storage)
    if reason is not None:
        yield Check("storage", "error", f"{storage}: {reason}", "choose another directory with --storage")
        return
    nearest = next(parent for parent in (storage, *storage.parents) if parent.exists())
    yield Check("storage", "ok", f"{storage}{'' if storage.exists() else ' (made at the first start)'}")
    free = shutil.disk_usage(nearest).free
    is_enough = free >= WANTED_DISK_BYTES
    found = f"{free >> 20} MiB free"
    yield Check("disk", "ok" if is_enough else "warning", found, "" if is_enough else "free some space")


def _sidecar(session: Session) -> Iterator[Check]:
    from api.client import ClientError
    from orchestrator.errors import ConfigInvalid

    try:
        running, server = session.running, session.settings.server
    except ConfigInvalid:
        return  # told by the check before
    if running is not None:
        try:
            state = session.open_client.health()["status"]
        except ClientError as error:
            yield Check("sidecar", "error", f"process {running.pid} does not answer: {error}", "orchestrator stop")
            return
        is_well = state == "healthy"
        yield Check("sidecar", "ok" if is_well else "warning", f"{state} at {running.url} (process {running.pid})")
        return
    with socket.socket(socket.AF_INET6 if ":" in server.host else socket.AF_INET) as probe:
        # As the server does it, so that a port in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((server.host, server.port))
        except OSError as error:
            found = f"{server.host}:{server.port}: {error.strerror}"
            yield Check("port", "warning", found, "choose another one with --port (0 takes a free one)")
        else:
            yield Check("port", "ok", f"{server.host}:{server.port} is free")


def _limits(_: Session) -> Iterator[Check]:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    reachable = hard >= WANTED_DESCRIPTORS or hard == resource.RLIM_INFINITY
    found = f"open files {_limit(soft)} (at most {_limit(hard)}; raised at start)"
    yield Check(
        "descriptors", "ok" if reachable else "warning", found, "" if reachable else "raise ulimit -n for teams"
    )
    soft, _hard = resource.getrlimit(resource.RLIMIT_NPROC)
    is_high = soft == resource.RLIM_INFINITY or soft >= WANTED_DESCRIPTORS
    yield Check(
        "processes", "ok" if is_high else "warning", _limit(soft), "" if is_high else "raise ulimit -u for teams"
    )


def _limit(value: int) -> str:
    import resource

    return "unlimited" if value == resource.RLIM_INFINITY else str(value)


def _isolation(_: Session) -> Iterator[Check]:
    if not sys.platform.startswith("linux"):
        yield Check("sandbox", "warning", "only on Linux", "agents with sandbox: workspace are refused here")
        return
    path = shutil.which("bwrap")
    if path is None:
        yield Check("sandbox", "warning", "bwrap not found", "install bubblewrap for roles with sandbox: workspace")
    else:
        argv = [path, "--unshare-all", "--ro-bind", "/", "/", "--dev", "/dev", "true"]
        tried = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
        if tried.returncode == 0:
            yield Check("sandbox", "ok", f"{path} works")
        else:
            reason = (tried.stderr.strip().splitlines() or ["unknown reason"])[-1]
            yield Check("sandbox", "warning", f"{path}: {reason}", "allow user namespaces for roles with a sandbox")
    found = _cgroup()
    yield Check(
        "cgroups",
        "ok" if found else "warning",
        found or "no writable control group of version 2",
        "" if found else "not needed: processes are then found and ended one by one",
    )


def _cgroup() -> str:
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()
    except OSError:
        return ""
    own = next((line[3:] for line in lines if line.startswith("0::")), None)
    if own is None:
        return ""
    directory = Path("/sys/fs/cgroup") / own.lstrip("/")
    if not os.access(directory, os.W_OK) or not os.access(directory / "cgroup.procs", os.W_OK):
        return ""
    controllers = (directory / "cgroup.controllers").read_text(encoding="ascii").strip()
    return f"{directory} (controllers: {controllers or 'none'})"


def _clis(_: Session) -> Iterator[Check]:
    found = [f"{name} ({path})" for name in CODING_CLIS if (path := shutil.which(name))]
    if found:
        yield Check("coding CLIs", "ok", ", ".join(found))
    else:
        hint = "not needed: the built-in analysts work without a model"
        yield Check("coding CLIs", "warning", "none of " + ", ".join(CODING_CLIS), hint)

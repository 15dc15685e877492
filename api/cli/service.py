"""``service``: the sidecar as a service of the user's account (systemd or launchd), started at login."""

from __future__ import annotations

import os
import plistlib
import shlex
import subprocess
import sys
from pathlib import Path

import click

from api.cli.failures import FAILED, Failure
from api.cli.options import Group
from api.cli.session import Session

UNIT = "orchestration-sidecar.service"
LABEL = "org.orchestration-sidecar"


@click.group(cls=Group)
def service() -> None:
    """Install the sidecar as a service of your user account.

    \b
    Examples:
      orchestrator service install --project ~/src/shop
      orchestrator service uninstall
    """


@service.command()
@click.option("--project", "projects", multiple=True, metavar="[ID=]DIR", help="A project; may be repeated.")
@click.option("--port", type=click.IntRange(1, 65535), metavar="PORT", help="Port (default 3001).")
@click.option("--print", "is_print", is_flag=True, help="Print the unit file and change nothing.")
@click.option("--no-start", is_flag=True, help="Write the unit file, but do not enable and start it.")
@click.pass_obj
def install(session: Session, projects: tuple[str, ...], port: int | None, is_print: bool, no_start: bool) -> None:
    """Write the unit file (systemd) or property list (launchd), enable it and start it.

    \b
    Examples:
      orchestrator service install --project ~/src/shop
      orchestrator service install --print
    """
    from api.cli.serve import parse_project

    argv = [*_program(), "serve", "--storage", str(session.storage)]
    if port is not None:
        argv += ["--port", str(port)]
    for text in projects:
        name, path = parse_project(text)
        argv += ["--project", f"{name}={path}" if name else path]
    is_mac = sys.platform == "darwin"
    content = launchd_plist(argv, session.storage) if is_mac else systemd_unit(argv)
    if is_print:
        session.out.text(content.rstrip("\n"))
        return
    target = _target(session)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(content, encoding="utf-8")
    session.out.note(f"wrote {target}")
    if no_start:
        return
    if is_mac:
        _manage(["launchctl", "bootstrap", f"gui/{os.getuid()}", str(target)])
    else:
        _manage(["systemctl", "--user", "daemon-reload"])
        _manage(["systemctl", "--user", "enable", "--now", UNIT])
    session.out.note("started; 'orchestrator status' shows it")


@service.command()
@click.pass_obj
def uninstall(session: Session) -> None:
    """Stop the service and remove its unit file; the storage stays.

    \b
    Examples:
      orchestrator service uninstall
    """
    target = _target(session)
    if not target.exists():
        raise Failure(f"no service is installed ({target} is not there)", FAILED)
    # What the manager says must not keep the file: it may be absent, or the service not loaded.
    try:
        if sys.platform == "darwin":
            _manage(["launchctl", "bootout", f"gui/{os.getuid()}/{LABEL}"])
        else:
            _manage(["systemctl", "--user", "disable", "--now", UNIT])
    except Failure as error:
        session.out.warn(str(error))
    target.unlink()
    session.out.note(f"removed {target}")


def systemd_unit(argv: list[str]) -> str:
    """A user unit (systemd.service(5)); ``%`` and ``$`` are doubled, since systemd expands them."""
    command = " ".join(_systemd_word(word) for word in argv)
    return f"""[Unit]
Description=Orchestration sidecar
After=network.target

[Service]
Type=exec
ExecStart={command}
Restart=on-failure
RestartSec=2
# The sidecar ends its agents itself, in order, within 20 s.
KillMode=mixed
TimeoutStopSec=25
LimitNOFILE=65536

[Install]
WantedBy=default.target
"""


def _systemd_word(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if escaped != shlex.quote(escaped) or not escaped else escaped


def launchd_plist(argv: list[str], storage: Path) -> str:
    """A launch agent (launchd.plist(5))."""
    return plistlib.dumps(
        {
            "Label": LABEL,
            "ProgramArguments": argv,
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "ExitTimeOut": 25,
            "SoftResourceLimits": {"NumberOfFiles": 65536},
            "StandardErrorPath": str(storage / "logs" / "service.log"),
        }
    ).decode()


def _program() -> list[str]:
    """How to start this installation whatever the PATH of the service manager is."""
    script = Path(sys.prefix) / "bin" / "orchestrator"
    return [str(script)] if os.access(script, os.X_OK) else [sys.executable, "-m", "api.cli"]


def _target(session: Session) -> Path:
    home = Path(session.environ.get("HOME") or Path.home())
    if sys.platform == "darwin":
        return home / "Library" / "LaunchAgents" / f"{LABEL}.plist"
    base = Path(session.environ.get("XDG_CONFIG_HOME") or home / ".config")
    return base / "systemd" / "user" / UNIT


def _manage(argv: list[str]) -> None:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(
            f"{argv[0]} could not be run ({error}); the file is written, start it yourself", FAILED
        ) from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"
        raise Failure(f"{shlex.join(argv)}: {said}", FAILED)

"""A warm ``python`` agent that leaves a daemon behind without ever executing another program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.waiting import until

#: The daemon takes no notice of TERM; its pid is in ``<last part of its nonce>.daemon``. Then ``leaves`` ends, and
#: ``stays`` waits.
SOURCE = """
import os, signal

def leaves(agent):
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(writer, b"%d" % os.getpid())
            signal.pause()
        os._exit(0)
    os.wait()
    name = os.environ["ORCHESTRATOR_AGENT_NONCE"].rpartition("-")[2] + ".daemon"
    with open(name + ".new", "wb") as file:
        file.write(os.read(reader, 100))
    os.rename(name + ".new", name)
    agent.heartbeat()

def stays(agent):
    leaves(agent)
    signal.pause()
"""


def place_of_daemons(directory: Path) -> dict[str, Any]:
    """Write the module; the fields of a spec that runs ``daemons:leaves`` or ``daemons:stays`` in ``directory``."""
    (directory / "daemons.py").write_text(SOURCE, encoding="utf-8")
    return {"runtime": "python", "workspace": str(directory)}


def daemon_of(directory: Path, agent_id: str) -> int:
    """The pid of an agent's daemon, waited for."""
    file = directory / f"{agent_id}.daemon"
    until(file.exists)
    return int(file.read_text(encoding="utf-8"))

"""A real sidecar in its own process, started as a user starts it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from api.auth.offline import mint_offline
from tests.support.http import Api
from tests.support.processes import assert_no_survivors
from tests.support.roster import permission_class
from tests.support.waiting import until

#: Seconds for a start and for a stop on a busy machine; the contract allows 20 for a stop.
START_S = 60.0
STOP_S = 20.0
_REPORT = re.compile(r"report it with (\S+)")
_READY = re.compile(r"^listening on (https?://\S+:(\d+))$", re.MULTILINE)


def command_line() -> list[str]:
    """How the ``orchestrator`` command of this environment is started."""
    script = Path(sysconfig.get_path("scripts")) / "orchestrator"
    if script.exists():
        return [str(script)]
    return [sys.executable, "-c", "import sys; from api.cli import main; sys.exit(main())"]


def orchestrator(
    *arguments: str | Path,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout_s: float = 60.0,
    stdin: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run one ``orchestrator`` command to its end; output is captured as text."""
    return subprocess.run(
        [*command_line(), *map(str, arguments)],
        env={**os.environ, **(environment or {})},
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


class Server:
    """``orchestrator serve`` on a free port; restartable on the same storage.

    Attributes:
        storage: its storage directory.
        projects: ids and directories, the first is the default project.
        process: the running process, or None.
    """

    def __init__(
        self,
        storage: Path,
        projects: Mapping[str, Path],
        *,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.storage = storage
        self.projects = dict(projects)
        self.process: subprocess.Popen[bytes] | None = None
        self._arguments = list(arguments)
        self._environment = dict(environment or {})
        self._url = ""
        self._starts = 0
        self._apis: list[Api] = []
        self._tokens: dict[tuple[str | None, str | None], str] = {}

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close(check=kind is None)

    # -- life ---------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start it and wait until it listens. Raises AssertionError with its output when it does not."""
        self._starts += 1
        command = [*command_line(), "serve", "--port", "0", "--storage", str(self.storage)]
        for project_id, directory in self.projects.items():
            command += ["--project", f"{project_id}={directory}"]
        command += self._arguments
        environment = {**os.environ, **self._environment}
        with self._file("stdout").open("wb") as out, self._file("stderr").open("wb") as err:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment, start_new_session=True
            )
        try:
            ready = until(self._ready, timeout_s=START_S, what=lambda: f"the sidecar listens:\n{self.diagnosis()}")
        except AssertionError:
            if self.process is not None:
                self.kill9()
            raise
        self._url = ready[1]
        return self

    def stop(self, timeout_s: float = STOP_S) -> int:
        """SIGTERM; the exit code. Raises TimeoutExpired when it takes longer than the contract allows."""
        process = self._running()
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(timeout_s)
        finally:
            if process.returncode is None:
                process.kill()
                process.wait()
            self._stopped()

    def exited(self, timeout_s: float = STOP_S) -> int:
        """Wait for it to end by itself, or by what a test did to it; the exit code."""
        code = self._running().wait(timeout_s)
        self._stopped()
        return code

    def kill9(self) -> None:
        """SIGKILL, as a crash would be: nothing of it can say goodbye."""
        process = self._running()
        process.kill()
        process.wait()
        self._stopped()

    def restart(self) -> Self:
        """Start again on the same storage; the port is a new one, older tokens stay what they were."""
        return self.start()

    def close(self, *, check: bool = True) -> None:
        """Stop what runs; with ``check``, fail on a bad exit code or a surviving process."""
        if self.process is not None:
            if check:
                code = self.stop()
                assert code == 0, f"exit code {code} after SIGTERM:\n{self.diagnosis()}"
            else:
                self.kill9()
        if check:
            assert_no_survivors(str(self.storage))

    # -- access -------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """``http://127.0.0.1:<port>``."""
        return self._url

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._url.rpartition(":")[2])

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        return self._running().pid

    @property
    def default_project(self) -> str:
        """The id of the first project."""
        return next(iter(self.projects))

    def token(self, agent_type: str | None = None, *, project_id: str | None = None, ttl_s: float = 3600.0) -> str:
        """A fresh token of a role, or an operator's when no role is named; made without the server."""
        return mint_offline(
            self.storage,
            project_id or self.default_project,
            agent_type,
            agent_type is None,
            ttl_s,
            permission_class=None if agent_type is None else permission_class(agent_type),
        )

    def api(self, agent_type: str | None = None, *, project_id: str | None = None, token: str | None = None) -> Api:
        """Calls as a role (as an operator when none is named); one token for each role and project."""
        if token is None:
            key = (agent_type, project_id)
            token = self._tokens.get(key) or self._tokens.setdefault(key, self.token(agent_type, project_id=project_id))
        api = Api(self.url, token)
        self._apis.append(api)
        return api

    def anonymous(self) -> Api:
        """Calls without a token."""
        api = Api(self.url)
        self._apis.append(api)
        return api

    def cli(self, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """An ``orchestrator`` command that talks to this sidecar."""
        environment = {"ORCHESTRATOR_STORAGE": str(self.storage), "ORCHESTRATOR_URL": self.url}
        return orchestrator(*arguments, environment=environment | options.pop("environment", {}), **options)

    def close_clients(self) -> None:
        """Close the connections of all clients handed out so far."""
        for api in self._apis:
            api.close()
        self._apis.clear()

    def diagnosis(self) -> str:
        """The ends of what it wrote to stdout and stderr."""
        tails = []
        for name in ("stdout", "stderr"):
            text = self._file(name).read_text(encoding="utf-8", errors="replace")
            tails.append(f"--- {name} ---\n{text[-6000:]}")
            if (report := _REPORT.search(text)) and (path := Path(report[1])).exists():
                tails.append(f"--- {path} ---\n{path.read_text(encoding='utf-8', errors='replace')[-6000:]}")
                path.unlink()
        return "\n".join(tails)

    # -- internal -----------------------------------------------------------------------------

    def _ready(self) -> re.Match[str] | None:
        process = self._running()
        if (code := process.poll()) is not None:
            self._stopped()
            raise AssertionError(f"the sidecar ended at start with {code}:\n{self.diagnosis()}")
        return _READY.search(self._file("stdout").read_text(encoding="utf-8"))

    def _file(self, name: str) -> Path:
        # Beside the storage, since the sidecar makes that directory itself.
        return self.storage.with_name(f"{self.storage.name}.{self._starts}.{name}")

    def _running(self) -> subprocess.Popen[bytes]:
        assert self.process is not None, "the sidecar is not running"
        return self.process

    def _stopped(self) -> None:
        self.process = None
        self.close_clients()

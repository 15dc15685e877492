"""One command's view of the world: settings, storage, the sidecar's address, a client, the output."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from api.cli.output import Output

if TYPE_CHECKING:
    from api.cli.discovery import Running
    from api.client import Client
    from orchestrator.config import Loaded, Settings

#: Seconds that an operator's token of one command lives.
TOKEN_TTL_S = 3600.0
#: The project of a token where nothing says which (the sidecar then answers what it lacks).
FALLBACK_PROJECT = "default"
#: A token of one's own, for those who cannot read the storage; never an option: others see arguments.
TOKEN_VARIABLE = "ORCHESTRATOR_TOKEN"


class Session:
    """Made for each command from the common options; everything is found when it is first asked for."""

    def __init__(
        self,
        *,
        storage: str | None = None,
        url: str | None = None,
        project_id: str | None = None,
        quiet: bool = False,
        no_color: bool = False,
        format: str | None = None,
        directory: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._flags = {"storage.directory": storage or None, "client.url": url, "client.project_id": project_id}
        self._environ = environ
        self.directory = directory or Path.cwd()
        self.out = Output(format or "table", is_quiet=bool(quiet), is_colored=not no_color)

    @property
    def environ(self) -> Mapping[str, str]:
        """The environment in use."""
        return os.environ if self._environ is None else self._environ

    def load(self, *, project_dir: Path | None = None, flags: Mapping[str, Any] | None = None) -> Loaded:
        """Settings with their origins; ``flags`` are laid over the common options. Raises ConfigInvalid."""
        from orchestrator.config import load_settings

        merged = {**self._flags, **(flags or {})}
        return load_settings(project_dir=project_dir or self.directory, environ=self._environ, flags=merged)

    @cached_property
    def settings(self) -> Settings:
        """The settings in force in the current directory."""
        return self.load().settings

    @cached_property
    def storage(self) -> Path:
        """The absolute storage directory."""
        from orchestrator.config import storage_directory

        return storage_directory(self.settings, self._environ)

    @cached_property
    def running(self) -> Running | None:
        """The sidecar that runs on the storage, or None."""
        from api.cli.discovery import find_running

        return find_running(self.storage)

    @cached_property
    def url(self) -> str:
        """Where the sidecar is: told, else found through its storage, else where it would listen."""
        if self.settings.client.url:
            return self.settings.client.url
        if self.running is not None:
            return self.running.url
        server = self.settings.server
        scheme = "https" if server.certificate else "http"
        host = f"[{server.host}]" if ":" in server.host else server.host
        return f"{scheme}://{host}:{server.port or 3001}"

    @cached_property
    def open_client(self) -> Client:
        """A client without a token, for the endpoints that take none."""
        return self._client(None)

    @cached_property
    def operator(self) -> Client:
        """A client with an operator's token, not yet bound to a project of interest."""
        return self._client(self._token(self.settings.client.project_id or FALLBACK_PROJECT))

    @cached_property
    def client(self) -> Client:
        """A client with an operator's token for ``project_id``."""
        if self._given_token is not None:
            return self.operator
        if self.settings.client.project_id:
            self._check_project(self.settings.client.project_id)
            return self.operator
        return self._client(self._token(self.project_id))

    def _check_project(self, project_id: str) -> None:
        """Raise Failure unless the sidecar knows the project: it takes a token of an unknown one for its default's."""
        from api.cli.failures import Failure

        known = [str(project["project_id"]) for project in self.operator.projects().get("projects", [])]
        if project_id not in known:
            text = f"no project is named {project_id!r}; known are: {', '.join(sorted(known)) or 'none'}"
            raise Failure(f"{text}. `orchestrator serve --project ID=DIR` and `run --project DIR` add one", 2)

    @cached_property
    def project_id(self) -> str:
        """The project to act in: told, else the one that holds the current directory, else the sidecar's first."""
        if self.settings.client.project_id:
            return self.settings.client.project_id
        return self._project_of_directory() or FALLBACK_PROJECT

    def client_of(self, url: str) -> Client:
        """An operator's client of the sidecar at ``url``, which runs on this session's storage."""
        self.__dict__["url"] = url
        return self._client(self._token(self.settings.client.project_id or FALLBACK_PROJECT))

    def forget(self) -> None:
        """Look for the sidecar anew at the next use: one that has started since may listen elsewhere."""
        self.close()
        for name in ("running", "url", "open_client", "operator", "client"):
            self.__dict__.pop(name, None)

    def close(self) -> None:
        """Close the clients that were made."""
        for name in ("open_client", "operator", "client"):
            if name in self.__dict__:
                self.__dict__[name].close()

    @cached_property
    def _given_token(self) -> str | None:
        return self.environ.get(TOKEN_VARIABLE) or None

    def _client(self, token: str | None) -> Client:
        from api.cli.failures import Failure
        from api.client import Client, Retry

        try:
            return Client(self.url, token, retry=Retry(connect_attempts=1), certificate=self._certificate)
        except ValueError as error:
            raise Failure(str(error), 2) from error

    @property
    def _certificate(self) -> str | None:
        # Only for the address beside which it was found: another one has to be vouched for by an authority.
        running = self.running
        return running.certificate if running is not None and running.url == self.url else None

    def _token(self, project_id: str) -> str:
        if self._given_token is not None:
            return self._given_token
        if not (self.storage / "keys").is_dir():
            # Without a sidecar nothing is made: asking it first raises SidecarUnavailable.
            self.open_client.health()
        from api.auth.offline import mint_offline

        return mint_offline(self.storage, project_id, None, True, TOKEN_TTL_S)

    def _project_of_directory(self) -> str | None:
        projects = self.operator.projects().get("projects", [])
        here = self.directory.resolve()
        holding = [p for p in projects if here.is_relative_to(p["path"])]
        if holding:
            return str(max(holding, key=lambda p: len(p["path"]))["project_id"])
        default = next((p for p in projects if p.get("default") or p.get("is_default")), None)
        chosen = default or (projects[0] if projects else None)
        return str(chosen["project_id"]) if chosen else None

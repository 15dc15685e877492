"""Serving: bind, start the supervisor, serve until told to stop, stop in bounded steps."""

from __future__ import annotations

import asyncio
import gc
import importlib.metadata
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import hypercorn.asyncio
import structlog
from quart import Quart

from api.app import create_app
from api.auth.authority import Authority
from api.auth.keys import KeyRing
from api.listening import Listener
from api.readiness import check_settings
from api.routes.waiters import Waiters
from api.server_config import make_config
from orchestrator.config import ServerSettings, Settings, storage_directory
from orchestrator.logs import configure_logging
from orchestrator.privacy import replace_private
from orchestrator.supervisor import Supervisor
from orchestrator.trust import own_certificate

#: In the storage directory while the server listens: its process id, address and certificate, for the command line.
DISCOVERY_FILE = "sidecar.json"
#: Seconds between two tries to write it.
DISCOVERY_RETRY_S = 1.0
#: Seconds that open requests have to finish once the waits among them were released.
DRAIN_S = 3.0
#: Seconds beyond ``[server] shutdown_s`` after which the process ends itself whatever still hangs: the contract's
#: bound is 20, and agents of a process that is gone are gone within 5.
HARD_EXIT_S = 3.0
#: Seconds after which a thread that waits for the interpreter gets it.
SWITCH_INTERVAL_S = 0.0005
#: New objects between two runs of the collector (of the young ones; ten of them look at the next generation).
GC_THRESHOLD = 10_000
log = structlog.get_logger(__name__)


def serve(
    settings: Settings,
    *,
    projects: list[tuple[str | None, str]],
    on_ready: Callable[[str], None] | None = None,
) -> int:
    """Run a sidecar in the foreground until SIGTERM or SIGINT; the exit code.

    Args:
        settings: what is configured.
        projects: ``(id or None, path)``; the first is the default project.
        on_ready: called with the URL once requests are answered; the default prints the contract's line.

    Raises a SidecarError that names the way out when it cannot start: ConfigInvalid, AddressUnavailable,
    StorageInUse, StorageWriteFailed, StorageReadFailed, BadRequest (a project's path).
    """
    check_settings(settings)
    return asyncio.run(Server(settings, projects, on_ready or _print_ready).run())


def version() -> str:
    """The version of this program."""
    try:
        return importlib.metadata.version("orchestration-sidecar")
    except importlib.metadata.PackageNotFoundError:
        return "0+unknown"


def _certificate_of(server: ServerSettings) -> str | None:
    """What clients of this machine pin, PEM; None without TLS."""
    if server.certificate is None:
        return None
    # Around the certificates there may be comments in any encoding (RFC 7468, 5.2).
    return own_certificate(Path(server.certificate).read_text(encoding="ascii", errors="replace"))


def _print_ready(url: str) -> None:
    sys.stdout.write(f"listening on {url}\n")
    sys.stdout.flush()


class Server:
    """One life of a server."""

    def __init__(
        self, settings: Settings, projects: list[tuple[str | None, str]], on_ready: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._projects = projects
        self._on_ready = on_ready
        self._directory = storage_directory(settings)
        self._certificate = _certificate_of(settings.server)
        self._stopping = asyncio.Event()
        self._is_started = False
        self._waiters = Waiters()
        self._watchdog: threading.Timer | None = None
        self._telling: asyncio.Task[None] | None = None

    async def run(self) -> int:
        """Start, serve, stop; the exit code."""
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ask_to_stop, task)
        try:
            await self._live()
        except asyncio.CancelledError:
            if not self._stopping.is_set():
                raise
            task.uncancel()  # it was told to stop before it had started
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
        return 0

    def _ask_to_stop(self, task: asyncio.Task[object]) -> None:
        if self._stopping.is_set():
            return  # a second signal changes nothing: the stop is bounded anyway
        self._stopping.set()
        self._watchdog = threading.Timer(self._settings.server.shutdown_s + HARD_EXIT_S, _exit_hard)
        self._watchdog.daemon = True
        self._watchdog.start()
        if not self._is_started:
            task.cancel()

    async def _live(self) -> None:
        server = self._settings.server
        listener = Listener.bind(server.host, server.port, is_tls=server.certificate is not None)
        try:
            await asyncio.to_thread(configure_logging, self._settings.log, self._directory / "logs")
            keys = await asyncio.to_thread(KeyRing.open, self._directory / "keys")
            authority = Authority(keys, self._settings.auth)
            program = version()
            async with Supervisor(
                self._settings,
                self._directory,
                base_url=listener.local_url,
                certificate=self._certificate,
                minter=authority,
                projects=self._projects,
                version=program,
            ) as supervisor:
                await authority.start(supervisor.storage)
                app = create_app(supervisor, authority, version=program, waiters=self._waiters)
                self._is_started = True
                keys_followed = asyncio.create_task(authority.follow_keys(), name="keys")
                try:
                    await self._serve(app, listener)
                finally:
                    keys_followed.cancel()
                    await asyncio.gather(keys_followed, return_exceptions=True)
        finally:
            listener.close()

    async def _serve(self, app: Quart, listener: Listener) -> None:
        discovery = self._directory / DISCOVERY_FILE

        async def stop_when_asked() -> None:
            _settle()
            # Hypercorn calls this once it accepts connections, and begins its stop when it returns.
            listener.keep_from_children()
            document = json.dumps({"pid": os.getpid(), "url": listener.url, "certificate": self._certificate}).encode()
            if not await asyncio.to_thread(_tell_where, discovery, document):
                self._telling = asyncio.create_task(_tell_when_possible(discovery, document), name="discovery")
            self._on_ready(listener.url)
            log.info("server_ready", url=listener.url)
            await self._stopping.wait()
            # Waits go first: Hypercorn's stop waits for open requests.
            log.info("server_stopping", waits_released=self._waiters.release())

        serving = asyncio.create_task(
            hypercorn.asyncio.serve(
                app,
                make_config(self._settings.server, listener, drain_s=DRAIN_S),
                shutdown_trigger=stop_when_asked,
                mode="asgi",
            ),
            name="http",
        )
        try:
            stopping = asyncio.create_task(self._stopping.wait(), name="stop signal")
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            await asyncio.wait({serving}, timeout=DRAIN_S + 2.0)
            if serving.done():
                serving.result()
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            if self._telling is not None:
                self._telling.cancel()
                await asyncio.gather(self._telling, return_exceptions=True)
            await asyncio.to_thread(_remove, discovery)


def _settle() -> None:
    """Prepare the interpreter for serving, once all that lives long is there."""
    # The storage's writer takes the interpreter lock several times a commit; at the default of 5 ms each of them
    # could wait that long for the busy event loop.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    # What was made at the start stays: the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    # Nor need it run for every 700 objects: a hundred agents that start at once make as many in a few milliseconds.
    gc.set_threshold(GC_THRESHOLD)


def _tell_where(discovery: Path, document: bytes) -> bool:
    """Write the file by which commands find this sidecar; False when it cannot be written now."""
    try:
        replace_private(discovery, document)
    except OSError as error:
        log.warning("discovery_file_not_written", reason=error.strerror)
        return False
    return True


async def _tell_when_possible(discovery: Path, document: bytes) -> None:
    """Go on until there is room for it; what a killed sidecar left there names a process that is gone."""
    while True:
        await asyncio.sleep(DISCOVERY_RETRY_S)
        if await asyncio.to_thread(_tell_where, discovery, document):
            return


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _exit_hard() -> None:
    log.critical("stop_took_too_long")
    os._exit(1)

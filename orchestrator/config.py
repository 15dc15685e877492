"""Settings: defaults, then the user's file, the project's file, ``ORCHESTRATOR_*`` variables and flags.

This is the only module that reads the environment for configuration.
"""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import msgspec
from msgspec import Meta

from orchestrator.errors import ConfigInvalid
from orchestrator.identifiers import is_identifier

Port = Annotated[int, Meta(ge=0, le=65535)]
Positive = Annotated[int, Meta(ge=1)]
NotNegative = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(gt=0)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all sections; every field has a default."""


class ServerSettings(Section, frozen=True, kw_only=True):
    """``[server]``: where and how HTTP is served."""

    host: str = "127.0.0.1"
    port: Port = 3001
    certificate: str | None = None
    private_key: str | None = None
    allowed_hosts: list[str] = []
    body_limit_bytes: Positive = 10_000_000
    body_timeout_s: Seconds = 30.0
    workers: Positive = 1
    shutdown_s: Seconds = 15.0


class StorageSettings(Section, frozen=True, kw_only=True):
    """``[storage]``: where things are kept and for how long (seconds)."""

    directory: str | None = None
    results_retention_s: Seconds = 30 * 86400.0
    agents_retention_s: Seconds = 7 * 86400.0
    sweep_interval_s: Seconds = 300.0


class PoolSettings(Section, frozen=True, kw_only=True):
    """``[pool]``: how many agents run at once and how they end. ``workers`` 0 takes one a core, 2 to 8."""

    workers: Annotated[int, Meta(ge=0, le=64)] = 0
    max_running: Positive = 256
    queue_size: Positive = 1000
    memory_reserve_bytes: NotNegative = 512 << 20
    agent_memory_bytes: NotNegative = 16 << 20
    disk_reserve_bytes: NotNegative = 256 << 20
    grace_s: Seconds = 5.0
    restart_limit: Positive = 3
    restart_window_s: Seconds = 60.0
    cgroups: bool = True


class AuthSettings(Section, frozen=True, kw_only=True):
    """``[auth]``: lifetimes of tokens in seconds."""

    token_ttl_s: Seconds = 3600.0
    refresh_window_s: Seconds = 300.0
    max_generations: Positive = 24


class RateLimitSettings(Section, frozen=True, kw_only=True):
    """``[rate_limits]``: requests a minute and burst by permission class (0 is unlimited), ceilings a second."""

    enabled: bool = True
    coding_per_minute: NotNegative = 60
    coding_burst: NotNegative = 10
    documentation_per_minute: NotNegative = 30
    documentation_burst: NotNegative = 5
    project_per_second: NotNegative = 500
    sidecar_per_second: NotNegative = 2000


class EventSettings(Section, frozen=True, kw_only=True):
    """``[events]``: retention per project, and bounds."""

    retention_s: Seconds = 86400.0
    keep: Positive = 10_000
    max_data_bytes: Positive = 1 << 20
    heartbeat_s: Seconds = 15.0
    ack_wait_s: Seconds = 30.0
    max_deliveries: Positive = 5
    dead_letters: Positive = 1000
    log_file_bytes: Positive = 16 << 20
    trigger_depth: Positive = 8
    triggers_per_minute: Positive = 60


class ContextSettings(Section, frozen=True, kw_only=True):
    """``[context]``: budgets in bytes, the cache, and what a project adds to or takes from the scan (globs)."""

    max_bytes: Positive = 400_000
    cache_bytes: Positive = 256 << 20
    index_bytes: Positive = 512 << 20
    git_timeout_s: Seconds = 10.0
    include: list[str] = []
    exclude: list[str] = []


class LogSettings(Section, frozen=True, kw_only=True):
    """``[log]``: ``format`` is ``auto`` (JSON unless on a terminal), ``json`` or ``console``."""

    level: Annotated[str, Meta(pattern="^(debug|info|warning|error)$")] = "info"
    format: Annotated[str, Meta(pattern="^(auto|json|console)$")] = "auto"
    file_bytes: Positive = 16 << 20


class ClientSettings(Section, frozen=True, kw_only=True):
    """``[client]``: which sidecar and project the command line talks to; a project's own file may not set it."""

    url: str | None = None
    project_id: str | None = None


class Settings(Section, frozen=True, kw_only=True):
    """All settings. ``projects`` maps ids to directories; the first is the default project."""

    server: ServerSettings = ServerSettings()
    storage: StorageSettings = StorageSettings()
    pool: PoolSettings = PoolSettings()
    auth: AuthSettings = AuthSettings()
    rate_limits: RateLimitSettings = RateLimitSettings()
    events: EventSettings = EventSettings()
    context: ContextSettings = ContextSettings()
    log: LogSettings = LogSettings()
    client: ClientSettings = ClientSettings()
    projects: dict[str, str] = {}


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """Settings with the origin of every one that is not a default: ``section.name`` -> file, variable or flag."""

    settings: Settings
    origins: dict[str, str]


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One setting in force: ``name`` is ``section.name``, ``origin`` a file, a variable, ``flag`` or ``default``."""

    name: str
    value: Any
    origin: str


def effective(loaded: Loaded) -> list[Setting]:
    """Every setting in force with its origin, in the order of the sections; projects come last."""
    found: list[Setting] = []
    for section in Settings.__struct_fields__:
        values = getattr(loaded.settings, section)
        items = values.items() if isinstance(values, dict) else msgspec.structs.asdict(values).items()
        for field, value in items:
            name = f"{section}.{field}"
            found.append(Setting(name=name, value=value, origin=loaded.origins.get(name, "default")))
    return found


#: The name of a project's (and of the user's) file.
PROJECT_FILE = "orchestrator.toml"
#: Sections that a project's own file may not set: a cloned repository must not choose where tokens are sent.
USER_SECTIONS = frozenset({"client"})


#: Variables with a name of their own; all others are ``ORCHESTRATOR_<SECTION>_<NAME>``.
SHORT_VARIABLES = {
    "ORCHESTRATOR_STORAGE": "storage.directory",
    "ORCHESTRATOR_RATE_LIMITS": "rate_limits.enabled",
    "ORCHESTRATOR_URL": "client.url",
    "ORCHESTRATOR_PROJECT_ID": "client.project_id",
}


def user_config_path(environ: Mapping[str, str]) -> Path:
    """``orchestrator.toml`` in the platform's per-user configuration directory."""
    if sys.platform == "darwin":
        base = Path(environ.get("HOME", "~")).expanduser() / "Library" / "Application Support"
    else:
        base = Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME", "~")).expanduser() / ".config")
    return base / "orchestration-sidecar" / PROJECT_FILE


def default_storage(environ: Mapping[str, str]) -> Path:
    """The platform's per-user state directory for the sidecar."""
    if sys.platform == "darwin":
        base = Path(environ.get("HOME", "~")).expanduser() / "Library" / "Application Support"
    else:
        base = Path(environ.get("XDG_STATE_HOME") or Path(environ.get("HOME", "~")).expanduser() / ".local/state")
    return base / "orchestration-sidecar"


def load_settings(
    *,
    project_dir: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Loaded:
    """Merge all sources, lowest first: user's file, project's file, environment, flags.

    ``flags`` maps ``section.name`` to a value (None is left out). Raises ConfigInvalid, which names the
    setting, its origin and what is wrong.
    """
    environ = os.environ if environ is None else environ
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    _merge_file(user_config_path(environ), merged, origins, refused=frozenset())
    if project_dir is not None:
        _merge_file(project_dir / PROJECT_FILE, merged, origins, refused=USER_SECTIONS, own=PROJECT_SETTINGS)
    _merge_environment(environ, merged, origins)
    for key, value in (flags or {}).items():
        if value is not None:
            _put(merged, origins, key, value, "flag")
    try:
        settings = msgspec.convert(merged, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise _invalid(error, origins) from error
    for project_id in settings.projects:
        if not is_identifier(project_id):
            origin = origins.get(f"projects.{project_id}", "configuration")
            raise ConfigInvalid(
                f"{origin}: projects: {project_id!r} is not an id (letters, digits, '.', '_', '-')",
                details={"setting": "projects", "origin": origin},
            )
    return Loaded(settings=settings, origins=origins)


def storage_directory(settings: Settings, environ: Mapping[str, str] | None = None) -> Path:
    """The absolute storage directory that is in force."""
    if settings.storage.directory:
        return Path(settings.storage.directory).expanduser().absolute()
    return default_storage(os.environ if environ is None else environ).absolute()


def _merge_file(
    path: Path,
    merged: dict[str, Any],
    origins: dict[str, str],
    *,
    refused: frozenset[str],
    own: frozenset[str] = frozenset(),
) -> None:
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"{path}: cannot be read: {error}", details={"origin": str(path)}) from error
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigInvalid(f"{path}: not valid TOML: {error}", details={"origin": str(path)}) from error
    for section, values in document.items():
        if section in PROJECT_SECTIONS:
            continue
        if section in refused:
            raise ConfigInvalid(
                f"{path}: [{section}] may only be set in your own file, not in a project's, "
                "or by a variable or an option",
                details={"setting": section, "origin": str(path)},
            )
        if not isinstance(values, dict):
            _put(merged, origins, section, values, str(path))
            continue
        for name, value in values.items():
            if f"{section}.{name}" in own:
                _check_globs(path, f"{section}.{name}", value)
            else:
                _put(merged, origins, f"{section}.{name}", value, str(path))


#: Sections of a project's file that belong to other modules (topic rules, triggers, webhooks).
PROJECT_SECTIONS = frozenset({"topics", "triggers", "webhooks", "project"})
#: Settings that in a project's file are about this project alone, though the sidecar may serve others beside it: the
#: context builder reads them from each project's file.
PROJECT_SETTINGS = frozenset({"context.include", "context.exclude"})


def _check_globs(path: Path, setting: str, value: Any) -> None:
    try:
        msgspec.convert(value, list[str])
    except msgspec.ValidationError as error:
        raise ConfigInvalid(
            f"{path}: {setting}: {error}; write a list of globs", details={"setting": setting, "origin": str(path)}
        ) from error


def _merge_environment(environ: Mapping[str, str], merged: dict[str, Any], origins: dict[str, str]) -> None:
    for variable, key in SHORT_VARIABLES.items():
        if environ.get(variable):
            _put(merged, origins, key, environ[variable], variable)
    for section, hint in get_type_hints(Settings).items():
        if not (isinstance(hint, type) and issubclass(hint, Section)):
            continue
        for field in msgspec.structs.fields(hint):
            variable = f"ORCHESTRATOR_{section}_{field.name}".upper()
            if environ.get(variable):
                raw: Any = environ[variable]
                if field.type == list[str]:
                    raw = [part.strip() for part in raw.split(",") if part.strip()]
                _put(merged, origins, f"{section}.{field.name}", raw, variable)


def _put(merged: dict[str, Any], origins: dict[str, str], key: str, value: Any, origin: str) -> None:
    section, _, name = key.partition(".")
    if isinstance(value, str) and value.lower() in ("on", "off", "yes", "no"):
        value = value.lower() in ("on", "yes")
    if name:
        values = merged.setdefault(section, {})
        if not isinstance(values, dict):
            raise ConfigInvalid(
                f"{origins[section]}: {section} must be a section, [{section}], not a value",
                details={"setting": section, "origin": origins[section]},
            )
        values[name] = value
    else:
        merged[section] = value
    origins[key] = origin


def _invalid(error: msgspec.ValidationError, origins: dict[str, str]) -> ConfigInvalid:
    text = str(error)
    setting = text.rpartition("$.")[2].rstrip("`") if "$." in text else ""
    origin = origins.get(setting, next((o for k, o in origins.items() if k.startswith(setting)), "configuration"))
    reason = text.partition(" - at ")[0]
    return ConfigInvalid(f"{origin}: {setting or 'settings'}: {reason}", details={"setting": setting, "origin": origin})

"""Settings: where they come from, what is refused, and that each is documented."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from api.cli.app import run
from orchestrator.config import Loaded, Settings, effective, load_settings, user_config_path
from orchestrator.errors import ConfigInvalid

REFERENCE = Path(__file__).resolve().parents[4] / "docs" / "reference" / "configuration.md"
DEFAULTS = {item.name: item.value for item in effective(Loaded(settings=Settings(), origins={}))}


def user_file(home: Path, text: str) -> dict[str, str]:
    """An environment whose user has this file."""
    environ = {"HOME": str(home)}
    path = user_config_path(environ)
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    return environ


def test_every_setting_is_documented_with_its_default() -> None:
    """Prevents a setting that nobody can find, one that is gone, and a default that the reference has wrong."""
    rows = re.findall(
        r"^\| `([a-z_]+\.[a-z_]+)` \| (?:`([^`]*)`)? ?\| (.+) \|$", REFERENCE.read_text("utf-8"), re.MULTILINE
    )
    documented = {name: default for name, default, _ in rows}
    shown = {name: _shown(value) for name, value in DEFAULTS.items()}
    assert documented == shown
    assert all(meaning.endswith(".") for _, _, meaning in rows)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value == []:
        return ""
    return (
        f"{value:g}"
        if isinstance(value, float) and value < 1e6
        else str(int(value) if isinstance(value, float) else value)
    )


def test_later_sources_win_and_are_named(tmp_path: Path) -> None:
    """Prevents a setting whose value nobody can trace."""
    environ = user_file(tmp_path / "home", "[server]\nport = 4001\nhost = '::1'\n[log]\nlevel = 'debug'\n")
    project = tmp_path / "project"
    project.mkdir()
    (project / "orchestrator.toml").write_text("[server]\nport = 4002\n[pool]\ngrace_s = 2\n", encoding="utf-8")
    environ["ORCHESTRATOR_POOL_GRACE_S"] = "3"
    environ["ORCHESTRATOR_RATE_LIMITS"] = "off"
    environ["ORCHESTRATOR_SERVER_ALLOWED_HOSTS"] = "a.example, b.example"
    loaded = load_settings(
        project_dir=project, environ=environ, flags={"server.host": "127.0.0.2", "server.port": None}
    )
    settings = loaded.settings
    assert (settings.server.port, settings.server.host, settings.pool.grace_s) == (4002, "127.0.0.2", 3)
    assert settings.server.allowed_hosts == ["a.example", "b.example"]
    assert not settings.rate_limits.enabled
    origins = {item.name: item.origin for item in effective(loaded) if item.origin != "default"}
    assert origins == {
        "server.port": str(project / "orchestrator.toml"),
        "server.host": "flag",
        "server.allowed_hosts": "ORCHESTRATOR_SERVER_ALLOWED_HOSTS",
        "log.level": str(user_config_path(environ)),
        "pool.grace_s": "ORCHESTRATOR_POOL_GRACE_S",
        "rate_limits.enabled": "ORCHESTRATOR_RATE_LIMITS",
    }


@pytest.mark.parametrize("name", [name for name, value in DEFAULTS.items() if not isinstance(value, list)])
def test_every_setting_has_its_variable(name: str) -> None:
    """Prevents a setting that a container cannot set."""
    variable = f"ORCHESTRATOR_{name.replace('.', '_')}".upper()
    default = DEFAULTS[name]
    given = {bool: "off", int: "1", float: "1.5", str: "error", type(None): "text"}[type(default)]
    if name == "log.format":
        given = "json"
    found = {item.name: item for item in effective(load_settings(environ={"HOME": "/nowhere", variable: given}))}
    assert found[name].origin == variable
    assert found[name].value != default or str(default) == given


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[server]\nprt = 1\n", "prt"),
        ("[server]\nport = 70000\n", "server.port"),
        ("[server]\nport = 'x'\n", "server.port"),
        ("[rate_limits]\ncoding_burst = -1\n", "rate_limits.coding_burst"),
        ("[storage]\nresults_retention_s = 0\n", "storage.results_retention_s"),
        ("[log]\nlevel = 'loud'\n", "log.level"),
        ("[surprise]\nx = 1\n", "surprise"),
        ("server = 3\n", "server"),
        ("[projects]\n'../x' = '/tmp'\n", "../x"),
        ("[server\n", "not valid TOML"),
        ("\udcff", "cannot be read"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path: Path, text: str, named: str) -> None:
    """Prevents a wrong setting from being ignored, and a message that does not say where it is."""
    path = tmp_path / "orchestrator.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigInvalid) as caught:
        load_settings(project_dir=tmp_path, environ={"HOME": "/nowhere", "ORCHESTRATOR_SERVER_HOST": "127.0.0.1"})
    assert str(path) in caught.value.message
    assert named in caught.value.message


def test_project_cannot_choose_where_tokens_go(tmp_path: Path) -> None:
    """Prevents a cloned repository from having an operator's token sent to its author."""
    text = "[client]\nurl = 'http://evil.example'\n"
    (tmp_path / "orchestrator.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigInvalid, match="client"):
        load_settings(project_dir=tmp_path, environ={"HOME": "/nowhere"})
    own = load_settings(environ=user_file(tmp_path / "home", text))
    assert own.settings.client.url == "http://evil.example"


def test_sections_of_projects_are_left_to_them(tmp_path: Path) -> None:
    """Prevents a project's triggers and topics from being called unknown settings."""
    (tmp_path / "orchestrator.toml").write_text("[[triggers]]\nevent_type = 'x'\n[topics]\n", encoding="utf-8")
    assert load_settings(project_dir=tmp_path, environ={"HOME": "/nowhere"}).origins == {}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory, which is also the user's home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows_of(capsys: pytest.CaptureFixture[str]) -> list[Mapping[str, Any]]:
    """What was printed, as JSON."""
    rows: list[Mapping[str, Any]] = json.loads(capsys.readouterr().out)
    return rows


def test_config_show(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents an origin that is not where the value came from."""
    (here / "orchestrator.toml").write_text("[server]\nport = 4002\n", encoding="utf-8")
    monkeypatch.setenv("ORCHESTRATOR_STORAGE", "/srv/x")
    assert run(["config", "show", "--set", "--origin", "--format", "json"]) == 0
    assert rows_of(capsys) == [
        {"setting": "server.port", "value": 4002, "origin": str(here / "orchestrator.toml")},
        {"setting": "storage.directory", "value": "/srv/x", "origin": "ORCHESTRATOR_STORAGE"},
    ]
    assert run(["config", "show", "server", "--format", "json"]) == 0
    assert [row["setting"] for row in rows_of(capsys)] == [name for name in DEFAULTS if name.startswith("server.")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server]\nport = 'x'\n", "server.port"),
        ("[server]\nworkers = 2\n", "one process"),
        ("[server]\ncertificate = 'nowhere.pem'\n", "nowhere.pem"),
        ("[server]\ncertificate = 'orchestrator.toml'\nprivate_key = 'orchestrator.toml'\n", "cannot be used together"),
        ("[storage]\ndirectory = 'orchestrator.toml'\n", "choose another directory with --storage"),
        ("[storage]\ndirectory = '/proc/x'\n", "/proc/x"),
        ("[projects]\nshop = '/nowhere'\n", "/nowhere"),
    ],
)
def test_serve_check_finds_it(here: Path, capsys: pytest.CaptureFixture[str], text: str, said: str) -> None:
    """Prevents a configuration that passes the check and then keeps the sidecar from starting."""
    (here / "orchestrator.toml").write_text(text, encoding="utf-8")
    assert run(["serve", "--check"]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""

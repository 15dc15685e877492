"""Manifests, versions, coverage: read by real parsers, absent when unknown."""

from __future__ import annotations

import json
import os
import random
import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.context.metadata import coverage, describe
from orchestrator.context.metadata.coverage import percent_of
from orchestrator.context.metadata.manifests import dependencies
from orchestrator.context.metadata.xml import parse_xml
from tests.support.context import document
from tests.support.repo import MIXED_FILES, write_files

_POM = (
    '<project xmlns="http://maven.apache.org/POM/4.0.0"><properties><v>5.1</v></properties><dependencies><dependency>'
    "<groupId>org.x</groupId><artifactId>y</artifactId><version>${v}</version></dependency></dependencies></project>"
)
_MANAGED_POM = """<project><parent><version>3.2</version></parent><version>1.5</version>
<dependencyManagement><dependencies>
<dependency><groupId>org.x</groupId><artifactId>y</artifactId><version>4.4</version></dependency>
</dependencies></dependencyManagement><dependencies>
<dependency><groupId>org.x</groupId><artifactId>y</artifactId></dependency>
<dependency><groupId>org.x</groupId><artifactId>own</artifactId><version>${project.version}</version></dependency>
<dependency><groupId>org.x</groupId><artifactId>p</artifactId><version>${project.parent.version}</version></dependency>
<dependency><groupId>org.x</groupId><artifactId>z</artifactId><version>${gone}</version></dependency>
</dependencies></project>"""
_GRADLE = """
jar { include '**/*.x' }  // implementation 'dead:one:1'
dependencies {
    implementation group: 'a', name: 'b', version: '1'
    debugImplementation "c:d:2"
    /* api 'dead:two:1'
    api 'dead:three:1' */
    api 'e:f'
    testImplementation(enforcedPlatform('g:h:3:sources@jar')) { exclude group: 'k' }
    annotationProcessor 'i:j:4'  /* */
}
"""
CASES = [
    ("pyproject.toml", '[project]\ndependencies = ["httpx>=0.27", "rich"]\n[dependency-groups]\ndev = ["ruff"]\n', {"httpx": ">=0.27", "rich": "", "ruff": ""}),  # noqa: E501
    ("requirements.txt", "# x\nflask==3.0 ; python_version > '3'\n-r other.txt\nurllib3[socks]>=2\n", {"flask": "==3.0", "urllib3": ">=2"}),  # noqa: E501
    ("setup.cfg", "[options]\ninstall_requires =\n  attrs>=22\n", {"attrs": ">=22"}),
    ("Pipfile", '[packages]\nrequests = "*"\n', {"requests": "*"}),
    ("package.json", '{"dependencies": {"react": "^18"}, "devDependencies": {"vite": "5"}}', {"react": "^18", "vite": "5"}),  # noqa: E501
    ("Cargo.toml", '[dependencies]\nserde = { version = "1", features = ["derive"] }\ntokio = "1.3"\n', {"serde": "1", "tokio": "1.3"}),  # noqa: E501
    ("go.mod", "module m\ngo 1.22\nrequire (\n\tgithub.com/a/b v1.2.0\n\tgithub.com/c/d v0.1.0 // indirect\n)\n", {"github.com/a/b": "v1.2.0", "github.com/c/d": "v0.1.0"}),  # noqa: E501
    ("pom.xml", _POM, {"org.x:y": "5.1"}),
    ("build.gradle", "dependencies {\n  implementation 'org.x:y:1.0'\n}\n", {"org.x:y": "1.0"}),
    ("Gemfile", "gem 'rails', '~> 7.1'\n", {"rails": "~> 7.1"}),
    ("composer.json", '{"require": {"php": ">=8", "monolog/monolog": "^3"}}', {"monolog/monolog": "^3"}),
    ("App.csproj", '<Project><ItemGroup><PackageReference Include="Serilog" Version="3.1" /></ItemGroup></Project>', {"Serilog": "3.1"}),  # noqa: E501
    ("pubspec.yaml", "dependencies:\n  http: ^1.2.0\n", {"http": "^1.2.0"}),
    ("mix.exs", 'defp deps do\n    [{:phoenix, "~> 1.7"}]\n  end\n', {"phoenix": "~> 1.7"}),
    ("requirements.txt", "flask==3.0 \\\n    --hash=sha256:00ff --hash=sha256:11ee\n", {"flask": "==3.0"}),
    ("pom.xml", _MANAGED_POM, {"org.x:y": "4.4", "org.x:own": "1.5", "org.x:p": "3.2", "org.x:z": "${gone}"}),
    ("build.gradle", _GRADLE, {"a:b": "1", "c:d": "2", "e:f": "", "g:h": "3", "i:j": "4"}),
    ("build.gradle.kts", 'implementation(platform("a:b:1"))\napi(group = "c", name = "d")\n', {"a:b": "1", "c:d": ""}),
    ("Gemfile", "gem 'rails', '~> 7.0', '>= 7.0.4' # gem 'x'\n# gem 'dead'\n", {"rails": "~> 7.0, >= 7.0.4"}),
    ("Directory.Packages.props", '<Project><ItemGroup><PackageVersion Include="A" Version="7" /></ItemGroup></Project>', {"A": "7"}),  # noqa: E501
    ("mix.exs", 'def deps do\n    [\n # {:dead, "1"},\n {:b, "~> 2", path: "#x"}]\n  end\n', {"b": "~> 2"}),
    ("Package.swift", '.package(url: "https://example.invalid/a/NIO.git", from: "2.0.0")', {"NIO": 'from: "2.0.0"'}),
    ("Package.swift", '// .package(url: "https://x/old.git", from: "1")\n.package(url: "https://x/new", from: "2")', {"new": 'from: "2"'}),  # noqa: E501
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "expected"), CASES, ids=[f"{case[0]}{n}" for n, case in enumerate(CASES)])
def test_each_manifest_is_read(name: str, text: str, expected: dict[str, str]) -> None:
    """A manifest's dependencies were missing or had wrong versions."""
    assert {row.name: row.version for row in dependencies(name, text.encode())} == expected


@pytest.mark.parametrize("name", sorted({case[0] for case in CASES}))
@pytest.mark.parametrize(
    "text", ["", "{", "[[[", "\0", '{"dependencies": 3}', "[project]\ndependencies = 3\n", "- a\n- b\n"]
)
def test_a_broken_manifest_gives_nothing(name: str, text: str) -> None:
    """One broken manifest failed the whole context."""
    assert isinstance(dependencies(name, text.encode()), list)


_TABLES = (
    "dependencies", "devDependencies", "require", "require-dev", "packages", "dev-packages", "dev_dependencies",
    "project", "tool", "dependency-groups", "target", "workspace",
)  # fmt: skip
_INNER = ("on", "2", "null", "a", "version", "poetry", "group", "dependencies", "optional-dependencies", "pip")
_ODD: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 1 << 70) | st.floats() | st.sampled_from(["", "a>=1", "null", "\x00é"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_INNER), inner, max_size=4),
    max_leaves=12,
)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return "''" if value is None else json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf")


def _written(value: dict[str, Any], name: str) -> str:
    if name.endswith("toml") or name == "Pipfile":
        return "".join(f"{json.dumps(key)} = {_toml(each)}\n" for key, each in value.items())
    text = json.dumps(value)
    return re.sub(r'"(\w+)":', r"\1:", text) if re.search("ya?ml$", name) else text


def _assert_sendable(name: str, text: str) -> None:
    rows = dependencies(name, text.encode())
    msgspec.json.encode(rows)
    assert all(isinstance(part, str) for row in rows for part in (row.name, row.version, row.scope))


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from(_TABLES), _ODD, min_size=1, max_size=8))
def test_a_manifest_of_odd_types_gives_rows_that_can_be_sent(value: dict[str, Any]) -> None:
    """A list for a table, a number for a name or null for a version failed every context of the project."""
    for name in {case[0] for case in CASES} | {"environment.yml"}:
        _assert_sendable(name, _written(value, name))


@pytest.mark.parametrize(("name", "text"), [case[:2] for case in CASES])
def test_a_manifest_with_pieces_out_of_place_gives_rows_that_can_be_sent(name: str, text: str) -> None:
    """A manifest in the middle of a merge failed every context of the project."""
    dice = random.Random(f"{name}{text}")
    pieces = re.split(r"(\W)", text)
    for _ in range(200):
        odd = [dice.choice(pieces), "", "null", "on", "2", "\n", '"\\ud800"', "${", "[", "{"]
        _assert_sendable(name, "".join(dice.choice(odd) if dice.random() < 0.3 else piece for piece in pieces))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("pubspec.yaml", "dependencies:\n  on: ^1.0\n  2: ^2\n  h:\n  path: ~\n  a: {git: x}\n", "on^1.0 2^2 h path a"),
        ("pubspec.yaml", 'dependencies: {"\\uD800": 1, b: 2}\n', ""),
        ("environment.yml", "dependencies: numpy\n", ""),
        ("environment.yml", "dependencies:\n- numpy=1\n- 3\n- null\n- pip: null\n- pip: [a==1]\n", "numpy1 a==1"),
        ("pyproject.toml", '[project]\ndependencies = "httpx"\n', ""),
        ("pyproject.toml", '[project]\ndependencies = {httpx = "1"}\n', ""),
        ("package.json", f'{{"dependencies": {{"{"a" * 5000}": "1", "b": "{"1" * 5000}"}}}}', "b"),
    ],
)  # fmt: skip
def test_names_are_what_the_tool_takes_them_for(name: str, text: str, expected: str) -> None:
    """``on`` was true, which failed every context of the project; the letters of a text were dependencies."""
    assert " ".join(row.name + row.version for row in dependencies(name, text.encode())) == expected


def test_a_manifest_in_a_directory_of_any_name_is_described(tmp_path: Path) -> None:
    """A directory's name that is no UTF-8 failed every context of the project."""
    write_files(tmp_path, {"app.py": "x = 1\n"})
    directory = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(directory)
    Path(os.fsdecode(directory), "package.json").write_text('{"dependencies": {"react": "^18"}}')
    rows = document(tmp_path)["context"]["metadata"]["dependencies"]
    assert rows == [{"name": "react", "version": "^18", "ecosystem": "npm", "manifest": "caf\ufffd/package.json"}]


def test_what_cannot_be_described_is_absent_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in what reads manifests or reports failed every context of the project."""
    write_files(tmp_path, {"app.py": "x = 1\n", "package.json": '{"version": "7"}', "junit.xml": "<testsuite/>"})
    monkeypatch.setattr(describe, "dependencies", lambda *_: [object()])
    monkeypatch.setattr(describe, "last_build", lambda *_: {"status": "\ud800"})
    metadata = document(tmp_path)["context"]["metadata"]
    assert metadata["problems"] == ["dependencies: AttributeError", "last_build: UnicodeEncodeError"]
    assert (metadata["dependencies"], metadata["version"], metadata["project_type"]) == ([], "7", "python")
    assert "last_build_status" not in metadata


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Gemfile", "group " * 50_000),
        ("Gemfile", '"' + '\\"' * 100_000),
        ("build.gradle", "/*" * 100_000),
        ("build.gradle", "\n" * 100_000),
        ("build.gradle", "api" + " " * 100_000 + ";"),
        ("build.gradle", '"' + '\\"' * 100_000),
        ("mix.exs", "defp deps do\n" + "{:a, " * 50_000),
        ("pom.xml", _POM.replace("${v}", "${" * 50_000)),
        ("pom.xml", _POM.replace("${v}", "${v}" * 100).replace("5.1", "5" * 2_000_000)),
        ("pom.xml", "<project>" + "x\n" * 2_000_000 + "</project>"),
        ("Package.swift", '.package(url: "x", ' * 20_000),
        ("Package.swift", '.package(name: "x", url: "' * 20_000),
        ("pyproject.toml", ".".join("a" * 100_000) + " = 1\n"),
        ("Cargo.toml", "[" + ".".join("a" * 100_000) + "]\na = 1\n"),
        ("setup.cfg", "[a]\nb" + " " * 100_000 + "c\n"),
        ("setup.cfg", "[a]\nb" + "\u3000\t" * 100_000 + "c\n"),
        ("requirements.txt", "a [" * 50_000 + "(" * 50_000 + "@ " + " " * 50_000),
        (
            "environment.yml",
            "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{f'*a{n - 1}, ' * 9}]}}\n" for n in range(1, 9)),
        ),
        ("go.mod", "require (\n" * 50_000),
    ],
)
def test_no_manifest_takes_long_to_read(name: str, text: str) -> None:
    """Eight kilobytes of blank lines in a build file took five seconds, and a hundred of them an hour, at each look;
    the longer a text within XML was the longer took each of its lines."""
    began = time.thread_time()
    dependencies(name, text.encode())
    assert time.thread_time() - began < 2.0


@pytest.mark.parametrize(
    ("name", "text", "scopes"),
    [
        ("Gemfile", "gem 'a', group: :test\ngroup :development do\n gem 'b'\nend\ngem 'c'\n", "dev dev runtime"),
        ("build.gradle", "testFixturesApi 'a:b:1'\nandroidTestImplementation 'a:c'\napi 'a:d'\n", "dev dev runtime"),
    ],
)
def test_what_only_tests_need_is_told_apart(name: str, text: str, scopes: str) -> None:
    """A tool of the tests looked like something that the product is shipped with."""
    assert [row.scope for row in dependencies(name, text.encode())] == scopes.split()


def test_xml_entities_are_refused() -> None:
    """A planted pom.xml expanded entities until memory was gone."""
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><x>&b;</x>'
    with pytest.raises(ValueError, match="document type"):
        parse_xml(bomb)


@pytest.mark.parametrize(
    ("name", "data", "percent"),
    [
        (
            "coverage.xml",
            b'<?xml version="1.0"?><!DOCTYPE coverage SYSTEM "x.dtd"><coverage line-rate="0.8125"/>',
            81.25,
        ),
        ("lcov.info", b"SF:a\nLF:10\nLH:4\nend_of_record\n", 40.0),
        ("coverage.json", b'{"totals": {"percent_covered": 91.239}}', 91.24),
        ("coverage.out", b"mode: set\nx.go:1.1,2.2 3 1\nx.go:3.1,4.2 1 0\n", 75.0),
        ("coverage.xml", b"<broken", None),
        ("lcov.info", b"", None),
    ],
)
def test_coverage_is_read_or_absent(name: str, data: bytes, percent: float | None) -> None:
    """An unreadable report was told as 0 %."""
    assert percent_of(name, data) == percent


_ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c"


@pytest.mark.parametrize(
    ("statements", "files"),
    [
        ("CREATE TABLE file (id INTEGER); INSERT INTO file VALUES (1), (2), (3);", 3),
        (f"CREATE VIEW file AS {_ENDLESS} LIMIT 50000;", None),
        (f"CREATE VIEW v AS {_ENDLESS}; CREATE VIRTUAL TABLE file USING fts5(x, content=v, content_rowid=x);", None),
        ("CREATE TABLE line_bits (id INTEGER);", None),
    ],
)  # fmt: skip
def test_files_of_coverages_database_are_counted_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statements: str, files: int | None
) -> None:
    """A view in place of the table was computed, without end if its author liked, while the project waited."""
    monkeypatch.setattr(coverage, "_ASKED_S", 0.2)
    path = tmp_path / "a?b%2f#c" / ".coverage"
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(statements)
    assert coverage.measured_files(path) == files


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("lcov.info", b"LF:1\nLH:" + b"9" * 4000 + b"\n"),
        ("lcov.info", b"LF:1\nLH:-1\n"),
        ("coverage.xml", b'<coverage line-rate="nan"/>'),
        ("coverage.xml", b'<coverage line-rate="1e400"/>'),
        ("coverage.json", b'{"totals": {"percent_covered": 1' + b"0" * 400 + b"}}"),
        ("coverage.json", b'{"totals": [], "total": {"lines": {"pct": "Unknown"}}}'),
    ],
)
def test_coverage_beyond_all_bounds_is_absent(name: str, data: bytes) -> None:
    """A number that is none failed every context of the project, or was told."""
    assert percent_of(name, data) is None


def test_a_mixed_project_is_described(tmp_path: Path) -> None:
    """The project's type was made up for an empty or mixed directory."""
    write_files(tmp_path, MIXED_FILES)
    metadata = document(tmp_path)["context"]["metadata"]
    assert set(metadata["languages"]) >= {"go", "typescript", "rust"}
    assert metadata["project_type"] == next(iter(metadata["languages"]))
    assert metadata["go_version"] == "1.22"
    assert {row["name"] for row in metadata["dependencies"]} == {"react"}
    assert "test_coverage" not in metadata
    (tmp_path / "empty").mkdir()
    assert document(tmp_path / "empty")["context"]["metadata"]["project_type"] == "unknown"

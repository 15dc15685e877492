"""Dependencies from manifests, each read by a parser of its format; a broken manifest gives nothing."""

from __future__ import annotations

import configparser
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import msgspec
import yaml

from orchestrator.context.metadata.toml import parse_toml
from orchestrator.context.metadata.xml import Element, parse_xml
from orchestrator.context.reading import shown

Found = Iterator[tuple[str, str, str]]
#: A longer name is none, and a longer version is not told (characters; the longest are addresses).
_LONGEST = 500


class Dependency(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A declared dependency. ``version`` as written, ``scope``: ``runtime``, ``dev`` or the name of an extra."""

    name: str
    version: str = ""
    scope: str = "runtime"
    ecosystem: str = ""
    manifest: str = ""


def dependencies(path: str, data: bytes) -> list[Dependency]:
    """What the manifest at ``path`` declares, in its order; ``[]`` when it is none or does not parse."""
    name = path.rsplit("/", 1)[-1]
    for pattern, ecosystem, parse in _PARSERS:
        if re.fullmatch(pattern, name):
            text = data.decode("utf-8-sig", "replace")
            try:
                return [
                    Dependency(
                        name=_sendable(name),
                        version=_sendable(version) if len(version) <= _LONGEST else "",
                        scope=_sendable(scope),
                        ecosystem=ecosystem,
                        manifest=shown(path),
                    )
                    for name, version, scope in parse(text)
                    if len(name) <= _LONGEST and len(scope) <= _LONGEST
                ]
            except _BROKEN:
                return []
    return []


def _sendable(text: str) -> str:
    """``text`` without lone surrogates, which a format's escapes can make and nothing can encode."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def is_manifest(path: str) -> bool:
    """Whether ``dependencies`` knows files of this name."""
    return _names().fullmatch(path.rsplit("/", 1)[-1]) is not None


@lru_cache(maxsize=1)
def _names() -> re.Pattern[str]:
    return re.compile("|".join(pattern for pattern, _, _ in _PARSERS))


#: What the parsers raise for broken input, odd types in it included.
_BROKEN = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    ArithmeticError,
    RecursionError,
    configparser.Error,
    yaml.YAMLError,
    msgspec.DecodeError,
)
_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*(?:\(([^)]*)\)|(@\s*\S+|[^;#]*))")


def _requirement(text: str, scope: str) -> tuple[str, str, str] | None:
    """A requirement as in PEP 508."""
    match = _REQUIREMENT.match(text)
    return (match.group(1), (match.group(2) or match.group(3) or "").strip(), scope) if match else None


def _requirements(lines: Any, scope: str = "runtime") -> Found:
    if lines and isinstance(lines, str | dict):
        raise TypeError("no list of requirements")
    for line in lines or ():
        if isinstance(line, str) and not line.strip().startswith(("#", "-")):
            found = _requirement(line, scope)
            if found is not None:
                yield found


def _pyproject(text: str) -> Found:
    data = parse_toml(text)
    project = data.get("project", {})
    yield from _requirements(project.get("dependencies"))
    for extra, lines in project.get("optional-dependencies", {}).items():
        yield from _requirements(lines, extra)
    for group, lines in data.get("dependency-groups", {}).items():
        yield from _requirements(lines, group)
    poetry = data.get("tool", {}).get("poetry", {})
    yield from _versions(poetry.get("dependencies", {}), "runtime", skipped=("python",))
    yield from _versions(poetry.get("dev-dependencies", {}), "dev")
    for group, table in poetry.get("group", {}).items():
        yield from _versions(table.get("dependencies", {}), group)


def _versions(table: dict[str, Any], scope: str, skipped: tuple[str, ...] = ()) -> Found:
    for name, value in table.items():
        if name not in skipped:
            version = value.get("version", "") if isinstance(value, dict) else value
            yield name, version if isinstance(version, str) else "", scope


def _requirements_txt(text: str) -> Found:
    # options of a requirement, such as its hashes, begin with two dashes
    yield from _requirements(re.split(r"\s--", line)[0] for line in re.sub(r"\\\n", " ", text).split("\n"))


_SPACES = re.compile(r"(?<=\S)[^\S\n]{2,}")


def _setup_cfg(text: str) -> Found:
    parser = configparser.RawConfigParser()
    # the time of its pattern for a key grows with the square of the spaces in the line
    parser.read_string(_SPACES.sub(" ", text))
    if parser.has_option("options", "install_requires"):
        yield from _requirements(parser.get("options", "install_requires").split("\n"))
    if parser.has_section("options.extras_require"):
        for extra, value in parser.items("options.extras_require"):
            yield from _requirements(value.split("\n"), extra)


def _pipfile(text: str) -> Found:
    data = parse_toml(text)
    yield from _versions(data.get("packages", {}), "runtime")
    yield from _versions(data.get("dev-packages", {}), "dev")


def _package_json(text: str) -> Found:
    data = msgspec.json.decode(text)
    scopes = (
        ("dependencies", "runtime"),
        ("devDependencies", "dev"),
        ("peerDependencies", "peer"),
        ("optionalDependencies", "optional"),
    )
    for key, scope in scopes:
        yield from _versions(data.get(key) or {}, scope)


def _composer(text: str) -> Found:
    data = msgspec.json.decode(text)
    yield from _versions(data.get("require") or {}, "runtime", skipped=("php",))
    yield from _versions(data.get("require-dev") or {}, "dev")


def _cargo(text: str) -> Found:
    data = parse_toml(text)
    tables = [data, data.get("workspace", {}), *data.get("target", {}).values()]
    for table in tables:
        yield from _versions(table.get("dependencies", {}), "runtime")
        yield from _versions(table.get("dev-dependencies", {}), "dev")
        yield from _versions(table.get("build-dependencies", {}), "build")


def _go_mod(text: str) -> Found:
    is_inside = False
    for raw in text.split("\n"):
        line, _, comment = raw.partition("//")
        words = line.split()
        if words[:2] == ["require", "("]:
            is_inside = True
        elif words[:1] == [")"]:
            is_inside = False
        elif words[:1] == ["require"] and len(words) == 3:
            yield words[1], words[2], "indirect" if "indirect" in comment else "runtime"
        elif is_inside and len(words) == 2:
            yield words[0], words[1], "indirect" if "indirect" in comment else "runtime"


_NAMED = re.compile(r"\$\{([^{}]+)\}")


def _pom(text: str) -> Found:
    root = parse_xml(text)
    parent = next((entry.value("version") for entry in root.children("parent")), "")
    properties = {"project.version": root.value("version") or parent, "project.parent.version": parent}
    properties |= {entry.name: entry.text for part in root.children("properties") for entry in part.entries}

    def version_of(entry: Element) -> str:
        written = entry.value("version")
        # what is too long to be told is not put together: a megabyte may be named in it a hundred thousand times
        if len(written) > _LONGEST or any(len(properties.get(name, "")) > _LONGEST for name in _NAMED.findall(written)):
            return ""
        version = _NAMED.sub(lambda match: properties.get(match[1]) or match[0], written)
        return version if len(version) <= _LONGEST else ""

    managing = [part for holder in root.children("dependencyManagement") for part in holder.children("dependencies")]
    managed = {_coordinates(entry): version_of(entry) for part in managing for entry in part.children("dependency")}
    for holder in root.children("dependencies"):
        for entry in holder.children("dependency"):
            name, scope = _coordinates(entry), entry.value("scope") or "runtime"
            yield name, version_of(entry) or managed.get(name, ""), "dev" if scope == "test" else scope


def _coordinates(entry: Element) -> str:
    return f"{entry.value('groupId')}:{entry.value('artifactId')}"


def _csproj(text: str) -> Found:
    for group in parse_xml(text).children("ItemGroup"):
        # Directory.Packages.props gives the versions of a whole solution in elements of another name
        for entry in (*group.children("PackageReference"), *group.children("PackageVersion")):
            name = entry.attributes.get("Include") or entry.attributes.get("Update")
            if name:
                yield name, entry.attributes.get("Version") or entry.value("Version"), "runtime"


# What is not closed counts as closed at the end of its line, or of the text, and quantifiers that end in + keep what
# they took: going back over a manifest that is made for it would take hours.
_STRING = r"(\"(?:\\.|[^\"\\\n])*+\"?|'(?:\\.|[^'\\\n])*+'?)"
_SLASHES = re.compile(_STRING + r"|//[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)
_HASHES = re.compile(_STRING + r"|#[^\n]*")


def _without(comments: re.Pattern[str], text: str) -> str:
    """A program without its comments; what looks like one within a string stays."""
    return comments.sub(lambda match: match[1] or "", text)


_GRADLE = re.compile(
    r"^[ \t]*+(\w*(?:[iI]mplementation|[aA]pi|[cC]ompileOnly|[rR]untimeOnly|[aA]nnotationProcessor)|kapt|ksp|classpath)"
    r"\b\s*+\(?+\s*+(?:(?:platform|enforcedPlatform)\s*+\(\s*+)?"
    r"(?:[\"']([^\"':]+:[^\"':]+)(?::([^\"'@:]+))?"
    r"|group\s*[:=]\s*[\"']([^\"']+)[\"']\s*,\s*name\s*[:=]\s*[\"']([^\"']+)[\"']"
    r"(?:\s*,\s*version\s*[:=]\s*[\"']([^\"']+)[\"'])?)",
    re.MULTILINE,
)


def _gradle(text: str) -> Found:
    for use, name, version, group, artifact, group_version in _GRADLE.findall(_without(_SLASHES, text)):
        scope = "dev" if "test" in use.lower() else "runtime"
        yield name or f"{group}:{artifact}", version or group_version, scope


_GEM = re.compile(r"\s*gem[\s(]+[\"']([^\"']+)[\"']((?:\s*,\s*[\"'][^\"']*[\"'])*)")

_GROUP = re.compile(r"\bgroups?\b")
_DEV = re.compile(r":(?:development|test)\b")


def _gemfile(text: str) -> Found:
    around = "runtime"
    for line in _without(_HASHES, text).split("\n"):
        group = _GROUP.search(line)
        is_dev = group is not None and _DEV.search(line, group.end()) is not None
        match = _GEM.match(line)
        if match:
            versions = re.findall(r"[\"']([^\"']*)[\"']", match[2])
            yield match[1], ", ".join(versions), "dev" if is_dev else around
        elif is_dev:
            around = "dev"
        elif re.match(r"end\b", line):
            around = "runtime"


#: libyaml's parser takes a tenth of the time. Every scalar is a text to these loaders, as names are to the tools: for
#: YAML 1.1 ``on`` would be true. They know no merging of mappings either, which grows without bounds.
_YAML = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_NULLS = ("~", "null", "Null", "NULL")
_LETTER = re.compile(r"[A-Za-z]")


def _pubspec(text: str) -> Found:
    data = yaml.load(text, Loader=_YAML) or {}
    for key, scope in (("dependencies", "runtime"), ("dev_dependencies", "dev")):
        for name, version, _ in _versions(data.get(key) or {}, scope, skipped=("<<",)):
            yield name, "" if version in _NULLS else version, scope


_MIX = re.compile(r"\{\s*:(\w+)\s*,\s*(?:\"([^\"]*)\")?([^}]*)(?:\}|\Z)")


def _mix(text: str) -> Found:
    _, *rest = re.split(r"\bdefp? deps\b", _without(_HASHES, text), maxsplit=1)
    for match in _MIX.finditer("".join(rest).partition("\n  end")[0]):
        yield (
            match.group(1),
            match.group(2) or "",
            "dev" if re.search(r"only:\s*\[?:(dev|test)", match.group(3)) else "runtime",
        )


_SWIFT = re.compile(r"\.package\(\s*(?:name:\s*\"[^\"]*\"\s*,\s*)?url:\s*\"([^\"]+)\"\s*,\s*([^)]*+)(\)|\Z)")


def _swift(text: str) -> Found:
    for match in _SWIFT.finditer(_without(_SLASHES, text)):
        name = match.group(1).rstrip("/").rsplit("/", 1)[-1].removesuffix(".git")
        if match.group(3):
            yield name, " ".join(match.group(2).split()), "runtime"


def _conda(text: str) -> Found:
    lines = (yaml.load(text, Loader=_YAML) or {}).get("dependencies")
    for line in lines if isinstance(lines, list) else ():
        if isinstance(line, dict):
            yield from _requirements([] if line.get("pip") in _NULLS else line.get("pip"))
        elif isinstance(line, str) and line not in _NULLS and _LETTER.search(line):
            name, _, version = line.partition("=")
            yield name.strip(), version.strip("= "), "runtime"


_PARSERS: tuple[tuple[str, str, Callable[[str], Found]], ...] = (
    (r"pyproject\.toml", "python", _pyproject),
    (r"(?:.*requirements.*|constraints)\.(?:txt|in)", "python", _requirements_txt),
    (r"setup\.cfg", "python", _setup_cfg),
    (r"Pipfile", "python", _pipfile),
    (r"environment\.ya?ml", "conda", _conda),
    (r"package\.json", "npm", _package_json),
    (r"composer\.json", "composer", _composer),
    (r"Cargo\.toml", "cargo", _cargo),
    (r"go\.mod", "go", _go_mod),
    (r"pom\.xml", "maven", _pom),
    (r".*\.(?:cs|fs|vb)proj|Directory\.Packages\.props", "nuget", _csproj),
    (r"build\.gradle(?:\.kts)?", "gradle", _gradle),
    (r"Gemfile", "rubygems", _gemfile),
    (r"pubspec\.ya?ml", "pub", _pubspec),
    (r"mix\.exs", "hex", _mix),
    (r"Package\.swift", "swift", _swift),
)

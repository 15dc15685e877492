"""The contract's ``metadata`` of a project. Unknown is absent, never invented."""

from __future__ import annotations

import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import msgspec

from orchestrator.clock import rfc3339
from orchestrator.context.digest import LARGEST_BYTES
from orchestrator.context.metadata import coverage
from orchestrator.context.metadata.builds import last_build, read_counts
from orchestrator.context.metadata.manifests import Dependency, dependencies, is_manifest
from orchestrator.context.metadata.reports import Outcomes, Reports, find_reports
from orchestrator.context.metadata.toml import parse_toml
from orchestrator.context.models import JSON, FileFacts, Stamp
from orchestrator.context.project import ProjectState
from orchestrator.context.reading import Reader, Refused, reading
from orchestrator.context.secrets import redact_each

_MOST_DEPENDENCIES = 500
_MOST_MANIFESTS = 60
#: So many bytes of manifests are parsed (a hundredth of it is usual): parsers in Python take some seconds for them.
_MANIFESTS_BYTES = 4 << 20
#: Files that state versions, beside the manifests.
_STATING = (".python-version", "pyproject.toml", "package.json", "go.mod")
_CI = (
    ("github-actions", r"\.github/workflows/[^/]+\.ya?ml"),
    ("gitlab-ci", r"\.gitlab-ci\.yml"),
    ("circleci", r"\.circleci/config\.yml"),
    ("travis", r"\.travis\.yml"),
    ("azure-pipelines", r"azure-pipelines[^/]*\.ya?ml"),
    ("jenkins", r"(?:.*/)?Jenkinsfile[^/]*"),
    ("bitbucket-pipelines", r"bitbucket-pipelines\.yml"),
    ("drone", r"\.drone\.ya?ml"),
    ("buildkite", r"\.buildkite/.*"),
    ("script", r"\.ci/.*"),
)


@lru_cache(maxsize=1)
def _ci_pattern() -> re.Pattern[str]:
    return re.compile("|".join(f"(?P<{name.replace('-', '_')}>{pattern})" for name, pattern in _CI))


class Places(msgspec.Struct, frozen=True):
    """What a project's paths alone say: its manifests, nearest to the top first, and its CI systems."""

    manifests: list[str]
    ci_systems: list[str]


class Metadata:
    """Describes projects; the last description of each state is kept."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, JSON]] = {}
        self._places: dict[str, tuple[int, Places]] = {}
        self._declared: dict[str, tuple[list[FileFacts | None], JSON]] = {}
        #: the reports as found, and as later ones are compared with them
        self._reports: dict[str, tuple[Reports, Reports]] = {}
        self._outcomes: defaultdict[str, Outcomes] = defaultdict(Outcomes)

    def look(self, state: ProjectState) -> bool:
        """Look for the project's reports, which mostly are ignored files and do not change its state; whether they
        are others than at the last look. Raises OSError when there is no project."""
        with reading(state.root) as reader:
            found = find_reports(reader)
        known = self._reports.get(state.root)
        self._reports[state.root] = (found, found.lasting())
        return known is not None and known[1] != found

    def has_news(self, state: ProjectState) -> bool:
        """What ``look`` would say. Raises OSError when there is no project."""
        known = self._reports.get(state.root)
        if known is None:
            return False
        with reading(state.root) as reader:
            return known[1] != find_reports(reader)

    def describe(self, state: ProjectState) -> JSON:
        """Type, languages (bytes of code and tests, most first), dependencies and further facts of a project, with its
        reports as they were at the last ``look``.

        ``problems`` says what could not be described, and by which error. Raises OSError when there is no project.
        """
        known = self._known.get(state.root)
        if known is None or known[0] != state.generation:
            known = self._known[state.root] = (state.generation, self._describe(state))
        if state.root not in self._reports:
            self.look(state)
        (found, _), outcomes = self._reports[state.root], self._outcomes[state.root]
        outcomes.keep_only(found.paths)
        described = dict(known[1])
        with reading(state.root) as reader:
            _extend(described, "test_coverage", lambda: _coverage(state.root, found.coverage, reader, outcomes))
            _extend(described, "last_build", lambda: _last_build(found, reader, outcomes))
        return described

    def _describe(self, state: ProjectState) -> JSON:
        spoken, places = languages(state), self._place(state)
        described = {"project_type": next(iter(spoken), "unknown"), "languages": spoken, **self._declare(state, places)}
        return described | ({"ci_systems": places.ci_systems} if places.ci_systems else {})

    def _declare(self, state: ProjectState, places: Places) -> JSON:
        """What the project's files state: read again when one of these files changed."""
        sources = [state.files.get(path) for path in (*places.manifests, *_STATING)]
        known = self._declared.get(state.root)
        if known is None or known[0] != sources:
            stated: JSON = {"dependencies": []}
            with reading(state.root) as reader:
                _extend(stated, "dependencies", lambda: {"dependencies": _dependencies(places.manifests, reader)})
                _extend(stated, "versions", lambda: _versions(state, reader))
            known = self._declared[state.root] = (sources, stated)
        return known[1]

    def _place(self, state: ProjectState) -> Places:
        known = self._places.get(state.root)
        if known is None or known[0] != state.layout:
            known = self._places[state.root] = (state.layout, _find_places(state))
        return known[1]


def _extend(described: JSON, name: str, find: Callable[[], JSON]) -> None:
    """Add what ``find`` gives, or to ``problems`` that it failed: a file of the project never fails its context."""
    try:
        found = find()
        msgspec.json.encode(found)  # else the answer as a whole could not be
    except Exception as error:  # noqa: BLE001 - the edge of what reads files that anybody may have written
        described["problems"] = [*described.get("problems", ()), f"{name}: {type(error).__name__}"]
    else:
        described |= found


def _find_places(state: ProjectState) -> Places:
    ci = _ci_pattern()
    manifests = [
        path for path, facts in state.files.items() if is_manifest(path) and facts.kind not in ("vendored", "test")
    ]
    systems = {name: None for path in state.files if (match := ci.fullmatch(path)) and (name := match.lastgroup)}
    return Places(
        manifests=sorted(manifests, key=lambda path: (path.count("/"), path))[:_MOST_MANIFESTS],
        ci_systems=[name.replace("_", "-") for name in systems],
    )


def languages(state: ProjectState) -> JSON:
    """By language the bytes of its code and tests, most first; of configuration when there is no code."""
    for chosen in (("code", "test"), ("config", "doc", "other", "data")):
        sizes: defaultdict[str, int] = defaultdict(int)
        for facts in state.files.values():
            if facts.kind in chosen and facts.language:
                sizes[facts.language] += facts.stamp.size
        if sizes:
            return dict(Counter(sizes).most_common())
    return {}


def _dependencies(manifests: list[str], reader: Reader) -> list[JSON]:
    rows: list[Dependency] = []
    left = _MANIFESTS_BYTES
    for path in manifests:
        data = _read(reader, path)
        if data is not None and len(data) <= left:
            left -= len(data)
            rows += dependencies(path, data)
    rows = rows[:_MOST_DEPENDENCIES]
    if not rows:
        return []
    # a version may be an address with a password
    texts = iter(redact_each(text for row in rows for text in (row.name, row.version)))
    shown = [msgspec.structs.replace(row, name=next(texts), version=next(texts)) for row in rows]
    return [msgspec.to_builtins(row) for row in shown]


def _read(reader: Reader, path: str) -> bytes | None:
    try:
        return reader.read(path, LARGEST_BYTES).data
    except Refused:
        return None


def _versions(state: ProjectState, reader: Reader) -> JSON:
    """Versions of languages and of the project itself, as its files state them."""
    found: JSON = {}
    data = _read(reader, ".python-version") if ".python-version" in state.files else None
    if data is not None:
        found["python_version"] = data.decode("utf-8", "replace").strip().split("\n")[0][:40]
    project = _pyproject(reader) if "pyproject.toml" in state.files else {}
    requires = project.get("requires-python")
    if isinstance(requires, str):
        found.setdefault("python_version", requires)
    for key, name in (("name", "name"), ("version", "version")):
        if isinstance(project.get(key), str):
            found[name] = project[key]
    package = _json(reader, "package.json") if "package.json" in state.files else {}
    for key in ("name", "version"):
        if isinstance(package.get(key), str):
            found.setdefault(key, package[key])
    engines = package.get("engines")
    if isinstance(engines, dict) and isinstance(engines.get("node"), str):
        found["node_version"] = engines["node"]
    go = _read(reader, "go.mod") if "go.mod" in state.files else None
    if go is not None and (match := re.search(rb"^go[ \t]+(\S+)", go, re.MULTILINE)):
        found["go_version"] = match.group(1).decode("ascii", "replace")
    return dict(zip(found, redact_each(found.values()), strict=True)) if found else {}


def _pyproject(reader: Reader) -> JSON:
    data = _read(reader, "pyproject.toml")
    try:
        project = parse_toml((data or b"").decode("utf-8", "replace")).get("project", {})
    except (ValueError, RecursionError):
        return {}
    return project if isinstance(project, dict) else {}


def _json(reader: Reader, path: str) -> JSON:
    data = _read(reader, path)
    try:
        decoded = msgspec.json.decode(data or b"{}")
    except (msgspec.DecodeError, RecursionError):
        return {}
    return decoded if isinstance(decoded, dict) else {}


def _last_build(found: Reports, reader: Reader, outcomes: Outcomes) -> JSON:
    build = last_build(
        found.runs,
        lambda path, stamp, parse: outcomes.get(path, stamp, partial(read_counts, reader, path, stamp, parse)),
    )
    return {} if build is None else {"last_build_status": build["status"], "last_build": build}


def _coverage(root: str, found: dict[str, Stamp], reader: Reader, outcomes: Outcomes) -> JSON:
    """``test_coverage`` (percent, or number of files, with source and age) by the first report that can be read."""
    for path, stamp in found.items():
        outcome = outcomes.get(path, stamp, partial(_outcome, root, path, stamp, reader))
        if outcome:
            entry = {
                "source": path,
                "measured_at": rfc3339(stamp.mtime_ns / 1e9),
                "age_days": max(0, int((time.time() - stamp.mtime_ns / 1e9) // 86400)),
            }
            is_percent = "line_percent" in outcome
            return {"test_coverage": {**outcome, **entry} if is_percent else {**entry, **outcome}}
    return {}


def _outcome(root: str, path: str, stamp: Stamp, reader: Reader) -> JSON:
    """What a report of coverage says; empty when that is nothing."""
    if not coverage.is_acceptable(stamp.size):
        return {}
    if path == ".coverage":
        files = coverage.measured_files(Path(root, path)) if sys.platform != "win32" else None
        return {} if files is None else {"files_measured": files}
    try:
        percent = coverage.percent_of(path, reader.read(path, stamp.size + 1).data)
    except Refused:
        return {}
    return {} if percent is None else {"line_percent": percent}

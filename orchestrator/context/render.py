"""Render: the contract's document from what was chosen, as JSON within 10 MiB, and as Markdown."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec

from orchestrator.clock import rfc3339
from orchestrator.context.budget import Chosen, Selection
from orchestrator.context.history import describe
from orchestrator.context.models import JSON, BuildOrder
from orchestrator.context.names import Names, name_map
from orchestrator.context.priority import ASKED, NEEDED, REST, TIERS
from orchestrator.context.project import ProjectState
from orchestrator.context.reading import shown
from orchestrator.context.secrets import is_secret_file, redact, redact_part, secrets_in

#: The whole answer is at most this large (contract section 3.1).
ANSWER_BYTES = 10 << 20
STRATEGY = (
    "functions, classes and sections of the best files by worth per byte, nearly complete files whole; then further "
    "files while they fit whole; in this order: what was asked for, what the task needs, files changed within a day, "
    "sources and tests, configuration, documents, other files"
)
#: Texts of so many characters at most are kept redacted; so many of them take some 5 MB.
_SHORT = 200
_redacted_before = lru_cache(maxsize=8192)(redact)
#: RFC 3339 has years from 1 to 9999 only, file systems more.
_EARLIEST_S, _LATEST_S = -62_135_596_800.0, 253_402_300_799.0
_COMMITS_SHOWN = 30
_OMITTED_SHOWN = 500


def render(order: BuildOrder, state: ProjectState, selection: Selection, metadata: JSON) -> tuple[bytes, str]:
    """The answer's JSON, which ends with ``"cache_hit":false}``, and its ETag (quoted)."""
    names = name_map(selection, order.max_bytes)
    files = [_file(chosen, names, displayed(state, chosen.ranked.facts.path)) for chosen in selection.chosen]
    document: JSON = {
        "issue_id": order.issue_id,
        "agent_type": order.role.agent_type,
        "context": {
            "project_structure": _part(state, "structure", _structure),
            "relevant_files": files,
            "git_context": _part(state, "git", _git),
            "previous_agent_outputs": [_redacted(output) for output in order.outputs],
            "metadata": metadata,
        },
        "truncated": selection.is_truncated,
        "truncation_strategy": STRATEGY if selection.is_truncated else "none",
        "total_size_bytes": sum(chosen.size for chosen in selection.chosen),
        "file_count": len(files),
        "omitted": [
            {"path": displayed(state, path), "reason": reason, **({"names": names[path]} if path in names else {})}
            for path, reason in selection.omitted[:_OMITTED_SHOWN]
        ],
        "omitted_total": len(selection.omitted) + selection.unranked,
    }
    body = _quickly(document, state)
    if len(body) > ANSWER_BYTES - 1024:
        body = _bounded(document, [(chosen.tier, chosen.size) for chosen in selection.chosen])
    etag = '"' + hashlib.sha256(body).hexdigest()[:32] + '"'
    tail = f',"timestamp":"{rfc3339(order.now)}","cache_hit":false}}'
    return body[:-1] + tail.encode(), etag


def displayed(state: ProjectState, path: str) -> str:
    """``path`` of a project's file as it is shown: as text, and without a secret in it."""
    known = state.rendered.get("paths")
    if known is None or known[0] != state.layout:
        known = state.rendered["paths"] = (state.layout, secrets_in(shown(path) for path in state.files))
    text = shown(path)
    hidden: str = known[1].get(text, text)
    return hidden


def _part(state: ProjectState, name: str, make: Callable[[ProjectState], JSON]) -> JSON:
    """A part of the answer that is the same whoever asks, made once for a state of the project."""
    known = state.rendered.get(name)
    if known is None or known[0] != state.generation:
        part = make(state)
        known = state.rendered[name] = (state.generation, (part, msgspec.Raw(msgspec.json.encode(part))))
    return dict(known[1][0])


def _quickly(document: JSON, state: ProjectState) -> bytes:
    """Encode with the parts of ``_part`` as they were encoded for the last answer."""
    parts = {
        key: state.rendered[name][1][1] for key, name in (("project_structure", "structure"), ("git_context", "git"))
    }
    return msgspec.json.encode({**document, "context": {**document["context"], **parts}})


def _bounded(document: JSON, sizes: list[tuple[int, int]]) -> bytes:
    """Encode within the limit, giving up what counts least first; ``sizes`` are the files' tiers and bytes.

    The project's lists go first, then history, then files from the last tier on, with the uncommitted changes after
    those changed within a day, then earlier outputs from their end, and what the task needs at the very last.
    """
    context = document["context"]
    structure, git = context["project_structure"], context["git_context"]
    steps: list[tuple[str, JSON, str] | int] = [
        ("project_structure.files", structure, "files"),
        ("project_structure.directories", structure, "directories"),
        ("git_context.recent_commits", git, "recent_commits"),
        *range(REST, NEEDED, -1),
        ("git_context.uncommitted_changes", git, "uncommitted_changes"),
        ("previous_agent_outputs", context, "previous_agent_outputs"),
        NEEDED,
        ASKED,
    ]
    cut: list[str] = []
    strategy = document["truncation_strategy"]
    body = msgspec.json.encode(document)
    for step in steps:
        while len(body) > ANSWER_BYTES - 1024:
            name = TIERS[step] if isinstance(step, int) else step[0]
            excess = len(body) - ANSWER_BYTES + 1024
            if not (_drop(document, sizes, step, excess) if isinstance(step, int) else _halve(step[1], step[2])):
                break
            cut += [name] * (name not in cut)
            document["truncated"] = True
            kept = f"{strategy}; " * (strategy != "none")
            document["truncation_strategy"] = f"{kept}cut to {ANSWER_BYTES >> 20} MiB: {', '.join(cut)}"
            body = msgspec.json.encode(document)
    return body


def _halve(holder: JSON, key: str) -> bool:
    """Give up the latter half of a list; whether there was anything."""
    had = bool(holder[key])
    holder[key] = holder[key][: len(holder[key]) // 2]
    return had


def _drop(document: JSON, sizes: list[tuple[int, int]], tier: int, excess: int) -> bool:
    """Give up files of ``tier``, the worst first, until ``excess`` bytes are gone; whether there was any."""
    files, omitted = document["context"]["relevant_files"], document["omitted"]
    places = [place for place, (own, _) in enumerate(sizes) if own == tier]
    for place in reversed(places):
        entry = files.pop(place)
        document["total_size_bytes"] -= sizes.pop(place)[1]
        document["file_count"] -= 1
        document["omitted_total"] += 1
        if len(omitted) < _OMITTED_SHOWN:
            omitted.append({"path": entry["path"], "reason": "budget"})
        excess -= len(msgspec.json.encode(entry))
        if excess <= 0:
            break
    return bool(places)


def _file(chosen: Chosen, names: dict[str, Names], path: str) -> JSON:
    facts = chosen.ranked.facts
    lines = chosen.view.lines
    if chosen.ranges is None:
        content = lines.data
    else:
        content = b"".join(lines.text(first, last) for first, last in chosen.ranges)
    entry: JSON = {
        "path": path,
        "content": content.decode("utf-8", "replace"),
        "last_modified": _moment(facts.stamp.mtime_ns),
        "size": facts.stamp.size,
        "language": facts.language,
        "checksum": f"sha256:{facts.checksum}",
        "score": round(chosen.ranked.score, 4),
        "reason": chosen.ranked.reason,
    }
    if chosen.ranges is not None:
        entry["ranges"] = [list(part) for part in chosen.ranges]
        entry["truncated"] = True
        if facts.path in names:
            entry["names"] = names[facts.path]
    return entry


@lru_cache(maxsize=4096)
def _moment(time_ns: int) -> str:
    return rfc3339(min(max(time_ns / 1e9, _EARLIEST_S), _LATEST_S))


def _structure(state: ProjectState) -> JSON:
    """The tree's lists, made once for a layout, and its sizes."""
    known = state.rendered.get("lists")
    if known is None or known[0] != state.layout:
        paths = sorted(displayed(state, path) for path in state.files)
        directories: set[str] = set()
        for path in {path.rpartition("/")[0] for path in paths}:
            parent = path
            while parent and parent not in directories:
                directories.add(parent)
                parent = parent.rpartition("/")[0]
        described = {
            "root": shown(state.root),
            "files": paths,
            "directories": sorted(directories),
            "total_files": len(paths),
        }
        known = state.rendered["lists"] = (state.layout, described)
    return {**known[1], "total_size_bytes": sum(facts.stamp.size for facts in state.files.values())}


def _git(state: ProjectState) -> JSON:
    if state.tree is None:
        git: JSON = {
            "branch": None,
            "head": None,
            "recent_commits": [],
            "uncommitted_changes": [],
            "remote": None,
            "remote_url": None,
        }
        if state.problems:
            git["problems"] = list(state.problems)
        return git
    git = describe(state.tree, state.history[:_COMMITS_SHOWN], state.changes, state.remote)
    if git["branch"]:
        git["branch"] = redact(git["branch"])
    # files that are gone, or were renamed, are no longer the project's
    named = [path for commit in git["recent_commits"] for path in commit["files_changed"]]
    hidden = secrets_in(shown(path) for path in (*named, *(change["path"] for change in git["uncommitted_changes"])))
    for commit in git["recent_commits"]:
        if hidden:
            commit["files_changed"] = [hidden.get(shown(path), path) for path in commit["files_changed"]]
        commit["message"] = redact_part(commit["message"])
        commit["author"] = redact(commit["author"])
    for change in git["uncommitted_changes"]:
        change["diff"] = (
            "[redacted:file]" if change["diff"] and is_secret_file(change["path"]) else redact_part(change["diff"])
        )
        path = shown(change["path"])
        change["path"] = hidden.get(path, path)
    if git["remote_url"]:
        git["remote_url"] = redact(git["remote_url"])
    if state.problems:
        git["problems"] = list(state.problems)
    return git


def _redacted(value: Any) -> Any:
    """``value`` with every text in it redacted."""
    if isinstance(value, str):
        # each agent of an issue gets the outputs of all before it, so the same texts come again and again
        return _redacted_before(value) if len(value) <= _SHORT else redact_part(value)
    if isinstance(value, dict):
        return {_redacted(str(key)): _redacted(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(item) for item in value]
    return value

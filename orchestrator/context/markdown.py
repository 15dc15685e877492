"""``CONTEXT.md``: the document for a reader, person or model."""

from __future__ import annotations

import re

from orchestrator.context.models import JSON

_FENCE = re.compile(r"`{3,}")


def markdown(document: JSON) -> str:
    """The contract's document (section 3.1) as Markdown: earlier findings first, then files, then the rest."""
    context = document["context"]
    parts = [
        f"# Context for {document['agent_type']} on {document['issue_id']}\n",
        _project(context),
        _outputs(context["previous_agent_outputs"]),
        _changes(context["git_context"]),
        "## Files\n",
        *(_file(entry) for entry in context["relevant_files"]),
        _history(context["git_context"]),
        _omitted(document),
    ]
    return "\n".join(part for part in parts if part)


def _project(context: JSON) -> str:
    structure, metadata, git = context["project_structure"], context["metadata"], context["git_context"]
    lines = ["## Project\n", f"- root: `{structure['root']}`", f"- type: {metadata.get('project_type', 'unknown')}"]
    lines.append(f"- files: {structure['total_files']} ({structure['total_size_bytes']} bytes)")
    if git.get("head"):
        lines.append(f"- git: {git.get('branch') or 'detached'} at {git['head'][:12]}")
    dependencies = metadata.get("dependencies") or []
    if dependencies:
        names = ", ".join(f"{item['name']} {item.get('version', '')}".strip() for item in dependencies[:40])
        lines.append(f"- dependencies: {names}{', …' if len(dependencies) > 40 else ''}")
    return "\n".join(lines) + "\n"


def _outputs(outputs: list[JSON]) -> str:
    if not outputs:
        return ""
    lines = ["## What earlier agents found\n"]
    for output in outputs:
        who = output.get("agent_type") or output.get("agent")
        lines.append(f"### {who} ({output.get('status')}, {output.get('timestamp')})\n")
        if output.get("summary"):
            lines.append(f"{output['summary']}\n")
        for name in ("decisions", "findings", "warnings", "errors", "next_steps"):
            lines += [f"- {name.rstrip('s').replace('_', ' ')}: {_one_line(text)}" for text in output.get(name) or ()]
        if not output.get("decisions") and output.get("decision"):
            lines.append(f"- {_one_line(output['decision'])}")
        if output.get("files_affected"):
            lines.append("- files: " + ", ".join(f"`{_one_line(path)}`" for path in output["files_affected"][:30]))
        lines.append("")
    return "\n".join(lines)


def _changes(git: JSON) -> str:
    changes = git.get("uncommitted_changes") or []
    if not changes:
        return ""
    lines = ["## Uncommitted changes\n"]
    for change in changes[:200]:
        lines.append(f"- {change['status']}: `{_one_line(change['path'])}`")
    for change in changes[:200]:
        if change.get("diff"):
            lines.append("\n" + _fenced(change["diff"], "diff"))
    return "\n".join(lines) + "\n"


def _file(entry: JSON) -> str:
    head = f"### `{_one_line(entry['path'])}`\n\n{entry['reason']} (score {entry['score']})\n\n"
    if not entry.get("ranges"):
        return head + _fenced(entry["content"], entry["language"])
    lines = entry["content"].split("\n")
    parts, position = [], 0
    for first, last in entry["ranges"]:
        count = last - first + 1
        parts.append(
            f"Lines {first}–{last}:\n\n" + _fenced("\n".join(lines[position : position + count]), entry["language"])
        )
        position += count
    if entry.get("names"):
        parts.append(f"Not shown of it: {_names(entry)}\n")
    return head + "\n".join(parts)


def _history(git: JSON) -> str:
    commits = git.get("recent_commits") or []
    if not commits:
        return ""
    lines = ["## Recent commits\n"]
    lines += [
        f"- {c['hash'][:10]} {c['timestamp'][:10]} {_one_line(c['message'].partition(chr(10))[0])}"
        for c in commits[:20]
    ]
    return "\n".join(lines) + "\n"


def _omitted(document: JSON) -> str:
    omitted, total = document["omitted"], document["omitted_total"]
    if not total:
        return ""
    lines = ["## Left out\n", f"Truncation: {document['truncation_strategy']}.\n"]
    for item in omitted[:100]:
        defines = f"; defines {_names(item)}" if item.get("names") else ""
        lines.append(f"- `{_one_line(item['path'])}`: {item['reason']}{defines}")
    if total > min(len(omitted), 100):
        lines.append(f"- and {total - min(len(omitted), 100)} more")
    return "\n".join(lines) + "\n"


def _names(entry: JSON) -> str:
    return ", ".join(f"`{_one_line(name)}` ({line})" for line, name in entry["names"])


def _one_line(text: str) -> str:
    """Text without line breaks and control characters, so that a name cannot forge structure."""
    return text if text.isprintable() else "".join(letter if letter.isprintable() else " " for letter in text)


def _fenced(text: str, language: str) -> str:
    """A code block whose fence is longer than any in ``text``."""
    fence = "```"
    if fence in text:  # as hardly any text has it, and looking for it costs a tenth of the pattern
        fence = "`" * (1 + max(map(len, _FENCE.findall(text))))
    return f"{fence}{language}\n{text.rstrip(chr(10))}\n{fence}\n"

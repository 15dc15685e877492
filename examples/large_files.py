#!/usr/bin/env python3
"""An agent in plain Python: names files that are too long or too big to work with.

Reads what the sidecar gathered (``AGENT_CONTEXT_FILE``), looks at the files themselves, and tells progress, an
event and the result as JSON lines on standard output. Ends early, with what it has, when it is told to shut down.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

MAX_LINES = int(os.environ.get("LARGE_FILES_LINES", "1000"))
MAX_BYTES = int(os.environ.get("LARGE_FILES_BYTES", "500000"))


def say(**record: object) -> None:
    """One record to the sidecar; flushed, since standard output is a pipe."""
    print(json.dumps(record), flush=True)


def watch_for_shutdown(stopping: threading.Event) -> None:
    """Set ``stopping`` when the sidecar asks for the end."""
    for line in sys.stdin:
        try:
            if json.loads(line).get("type") == "shutdown":
                stopping.set()
        except (ValueError, AttributeError):
            continue


def project_files() -> list[str]:
    """Paths of the project's files, as git sees them, from the context."""
    context = json.loads(Path(os.environ["AGENT_CONTEXT_FILE"]).read_text(encoding="utf-8"))
    entries = context["context"]["project_structure"]["files"]
    return [entry if isinstance(entry, str) else entry["path"] for entry in entries]


def examine(root: Path, name: str) -> dict[str, object] | None:
    """A finding for a file that is too big or, when it is text, too long."""
    path = root / name
    try:
        if path.is_symlink() or not path.is_file():
            return None
        size = path.stat().st_size
        if size > MAX_BYTES:
            return {"severity": "medium", "path": name, "line": 1, "message": f"{size} bytes, over {MAX_BYTES}"}
        data = path.read_bytes()
    except OSError:
        return None
    lines = data.count(b"\n")
    if b"\0" in data or lines <= MAX_LINES:
        return None
    return {"severity": "low", "path": name, "line": MAX_LINES + 1, "message": f"{lines} lines, over {MAX_LINES}"}


def main() -> None:
    """Look at every file, then tell the outcome."""
    stopping = threading.Event()
    threading.Thread(target=watch_for_shutdown, args=(stopping,), daemon=True).start()
    root = Path(os.environ["AGENT_WORKSPACE"])
    names = project_files()
    findings = []
    looked_at = 0
    for number, name in enumerate(names):
        if stopping.is_set():
            break
        if number % 500 == 0:
            say(
                type="progress", message=f"looked at {number} of {len(names)} files", percent=100 * number // len(names)
            )
        looked_at += 1
        if (finding := examine(root, name)) is not None:
            findings.append(finding)
    if findings:
        data = {"count": len(findings), "files": [finding["path"] for finding in findings[:20]]}
        say(type="event", event_type="large_files_found", topic="implementation", data=data)
    say(
        type="result",
        result={
            "status": "partial" if looked_at < len(names) else "success",
            "summary": f"{looked_at} of {len(names)} files looked at, {len(findings)} too large.",
            "findings": findings,
            "metrics": {"files": looked_at, "large_files": len(findings)},
            "next_steps": ["Split the longest files first."] if findings else [],
        },
    )


if __name__ == "__main__":
    main()

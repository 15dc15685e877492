"""Images and pipelines: what in Dockerfiles, compose files and CI workflows is unsafe or breaks later."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from orchestrator.analysts.findings import Finding, plural
from orchestrator.analysts.lexical import LineIndex
from orchestrator.analysts.tree import SourceFile, Tree

_FROM = re.compile(r"^\s*FROM\s+(?:--platform=\S+\s+)?(\S+)(?:\s+AS\s+(\S+))?", re.MULTILINE | re.IGNORECASE)
_USER = re.compile(r"^\s*USER\s+(\S+)", re.MULTILINE | re.IGNORECASE)
_PIPE_SHELL = re.compile(r"\b(?:curl|wget)\b[^\n|;&]*\|\s*(?:sudo\s+)?(?:ba|z|da)?sh\b")
_ADD_URL = re.compile(r"^\s*ADD\s+https?://", re.MULTILINE | re.IGNORECASE)
_SECRET_ARG = re.compile(
    r"^\s*(?:ENV|ARG)\s+(\w*(?:PASSWORD|SECRET|TOKEN|API_?KEY|PRIVATE_KEY)\w*)\s*[= ]\s*[\"']?([^\s\"'$]{6,})",
    re.MULTILINE | re.IGNORECASE,
)
_APT = re.compile(r"apt-get\s+(?:-\S+\s+)*install\b(?:[^\n\\]|\\\n)*")
_USES = re.compile(r"^\s*-?\s*uses:\s*[\"']?([^\s\"'#]+)", re.MULTILINE)
_INJECTED: Final = re.compile(
    r"\$\{\{\s*(github\.event\.(?:issue|pull_request|comment|review|discussion|head_commit|commits)[\w.\[\]*]*"
    r"\.(?:title|body|message|name|email|ref|label|default_branch)|github\.head_ref)\s*\}\}"
)
_RUN = re.compile(r"^(?P<indent>[ \t]*)(?:-[ \t]+)?run:[ \t]*(?P<rest>.*)$", re.MULTILINE)
_SHA = re.compile(r"@[0-9a-f]{40}$")


def docker_files(tree: Tree) -> list[SourceFile]:
    """Files that images are built from, fixtures aside."""
    return [file for file in tree.of({"Dockerfile"}) if file.role not in {"vendored", "test"}]


def workflows(tree: Tree) -> list[SourceFile]:
    """GitHub Actions workflows and composite actions."""
    return [
        file
        for file in tree.of({"YAML"})
        if re.match(r"\.github/(workflows/[^/]+|actions/.+/action)\.ya?ml$", file.path)
    ]


def check_dockerfile(path: str, text: str) -> Iterator[Finding]:
    """Findings of one Dockerfile."""
    index = LineIndex(text)
    stages = {match[2].lower() for match in _FROM.finditer(text) if match[2]}
    bases = list(_FROM.finditer(text))
    for match in bases:
        image = match[1]
        is_own = image.lower() in stages or image == "scratch" or "$" in image or "@sha256:" in image
        if not is_own and (":" not in image.rpartition("/")[2] or image.endswith(":latest")):
            yield Finding(
                "medium",
                "image-not-pinned",
                path,
                index.line(match.start(1)),
                f"{image} is whatever is newest on the day of the build.",
                "Name a version.",
            )
    users = _USER.findall(text, bases[-1].start() if bases else 0)
    if (
        bases
        and (not users or users[-1].split(":")[0] in {"root", "0"})
        and re.search(r"(?mi)^\s*(CMD|ENTRYPOINT)", text)
    ):
        yield Finding(
            "medium",
            "runs-as-root",
            path,
            index.line(bases[-1].start()),
            "The container's program runs as root.",
            "Add a USER of its own after installing.",
        )
    yield from _instructions(path, text, index)


def _instructions(path: str, text: str, index: LineIndex) -> Iterator[Finding]:
    for match in _PIPE_SHELL.finditer(text):
        yield Finding(
            "medium",
            "download-and-run",
            path,
            index.line(match.start()),
            "A download is run unseen.",
            "Download, check the checksum, then run.",
        )
    for match in _ADD_URL.finditer(text):
        yield Finding(
            "low",
            "unchecked-download",
            path,
            index.line(match.start() + 1),
            "ADD from a URL takes whatever is there.",
            "Use ADD --checksum=… or curl with a checksum.",
        )
    for match in _SECRET_ARG.finditer(text):
        yield Finding(
            "high",
            "secret-in-image",
            path,
            index.line(match.start(1)),
            f"{match[1]} is kept in the image's layers.",
            "Use RUN --mount=type=secret, or set it at run time.",
        )
    for match in _APT.finditer(text):
        if "--no-install-recommends" not in match[0]:
            yield Finding(
                "info",
                "image-size",
                path,
                index.line(match.start()),
                "apt-get installs recommended packages too.",
                "Add --no-install-recommends.",
            )
            break


def check_workflow(path: str, text: str) -> Iterator[Finding]:
    """Findings of one GitHub Actions workflow (docs.github.com, "Security hardening for GitHub Actions")."""
    index = LineIndex(text)
    triggers_target = re.search(
        r"^\s*(?:-\s*)?pull_request_target\b|\bon:.*\bpull_request_target\b", text, re.MULTILINE
    )
    checkout = re.search(r"ref:\s*\$\{\{\s*github\.(?:event\.pull_request\.head|head_ref)", text)
    if triggers_target and checkout:
        yield Finding(
            "high",
            "untrusted-checkout",
            path,
            index.line(checkout.start()),
            "pull_request_target checks out a stranger's code while secrets are at hand.",
            "Use pull_request, or do not check out the head.",
        )
    for start, script in _scripts(text):
        for match in _INJECTED.finditer(script):
            yield Finding(
                "high",
                "script-injection",
                path,
                index.line(start + match.start()),
                f"{match[1]} is put into a shell script as it is: its author can run commands.",
                "Pass it through env: and quote the variable.",
            )
    yield from _permissions(path, text, index)
    yield from _actions(path, text, index)


def _permissions(path: str, text: str, index: LineIndex) -> Iterator[Finding]:
    if re.search(r"^\s*permissions:\s*write-all", text, re.MULTILINE):
        line = index.line(text.index("write-all"))
        yield Finding(
            "medium",
            "broad-permissions",
            path,
            line,
            "The job's token may do everything.",
            "Name the permissions that are needed.",
        )
    elif "permissions:" not in text and "/workflows/" in path:
        yield Finding(
            "low",
            "default-permissions",
            path,
            0,
            "No permissions are set: the token gets the default ones.",
            "Begin with permissions: {} or contents: read.",
        )


def _actions(path: str, text: str, index: LineIndex) -> Iterator[Finding]:
    loose = [match for match in _USES.finditer(text) if _is_loose(match[1])]
    if loose:
        names = ", ".join(dict.fromkeys(match[1] for match in loose[:4]))
        yield Finding(
            "low",
            "action-not-pinned",
            path,
            index.line(loose[0].start(1)),
            f"Actions of third parties by a tag that can be moved: {names}.",
            "Pin them by commit.",
        )
    moving = [match for match in _USES.finditer(text) if _is_branch(match[1])]
    if moving:
        names = ", ".join(dict.fromkeys(match[1] for match in moving[:4]))
        yield Finding(
            "medium",
            "action-not-pinned",
            path,
            index.line(moving[0].start(1)),
            f"Changes with every push to it ({plural(len(moving), 'use')}): {names}.",
            "Pin it by commit or release.",
        )


def _is_branch(action: str) -> bool:
    return action.endswith(("@master", "@main")) and not action.startswith("./") and ".github/workflows/" not in action


def _is_loose(action: str) -> bool:
    is_own = action.startswith(("./", "docker://", "actions/", "github/"))
    is_own = is_own or ".github/workflows/" in action or action.endswith(("@master", "@main"))
    return "@" in action and not is_own and not _SHA.search(action)


def _scripts(text: str) -> Iterator[tuple[int, str]]:
    """The text of each ``run:`` with its offset, by indentation."""
    for match in _RUN.finditer(text):
        if not match["rest"].startswith(("|", ">")):
            yield match.start("rest"), match["rest"]
            continue
        indent = match[0].index("run:")
        end = match.end() + 1
        for line in text[end:].splitlines(keepends=True):
            if line.strip() and len(line) - len(line.lstrip()) <= indent:
                break
            end += len(line)
        yield match.end(), text[match.end() : end]

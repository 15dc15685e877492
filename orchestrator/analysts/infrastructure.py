"""The infrastructure engineer: images, compose files, Kubernetes manifests, Terraform, CI workflows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from agentpool.agent import Agent
from orchestrator.analysts import hygiene
from orchestrator.analysts.findings import Finding, plural
from orchestrator.analysts.languages import is_fixture
from orchestrator.analysts.lexical import LineIndex
from orchestrator.analysts.tree import SourceFile
from orchestrator.analysts.workbench import Workbench, conduct

_COMPOSE = re.compile(r"(^|/)(docker-)?compose[\w.-]*\.ya?ml$")
_WORKLOAD = re.compile(r"^kind:\s*(Deployment|StatefulSet|DaemonSet|Job|CronJob|Pod)\b", re.MULTILINE)
_IMAGE = re.compile(r"^\s*-?\s*image:\s*[\"']?([^\s\"'#]+)", re.MULTILINE)
_SECRET_VALUE = re.compile(
    r"^\s*-?\s*[\"']?(\w*(?:PASSWORD|SECRET|TOKEN|API_?KEY)\w*)[\"']?\s*[:=]\s*"
    r"[\"']?(?!\$|\{|<|!|\*|null|~|changeme|example)([^\s\"'#]{6,})",
    re.MULTILINE | re.IGNORECASE,
)
_OPEN_CIDR = re.compile(r"cidr_blocks\s*=\s*\[\s*\"0\.0\.0\.0/0\"")
_TF_BLOCK = re.compile(r'^(resource|module|provider|data)\s+"([^"]+)"(?:\s+"([^"]+)")?\s*\{', re.MULTILINE)
_CI_FILES = (
    ".gitlab-ci.yml",
    ".travis.yml",
    "azure-pipelines.yml",
    "Jenkinsfile",
    ".drone.yml",
    "bitbucket-pipelines.yml",
    ".circleci/config.yml",
    ".ci/run",
    "tox.ini",
    "noxfile.py",
    ".woodpecker.yml",
    ".cirrus.yml",
    ".buildkite/pipeline.yml",
    ".semaphore/semaphore.yml",
    "appveyor.yml",
    ".appveyor.yml",
    "cloudbuild.yaml",
    "buildspec.yml",
)
#: Other ways to deliver, which are not looked into: that they are there must be told, or they seem not to be.
_UNCHECKED = re.compile(
    r"(^|/)(Chart\.yaml|kustomization\.ya?ml|ansible\.cfg|playbooks?/[^/]+\.ya?ml|Pulumi\.yaml|serverless\.ya?ml|Procfile"
    r"|Vagrantfile|flake\.nix|fly\.toml|app\.yaml|netlify\.toml|vercel\.json|skaffold\.ya?ml|[^/]+\.(bicep|nomad))$"
)
_UNCHECKED_CI = re.compile(r"^\.(forgejo|gitea|woodpecker)/.+\.ya?ml$")


def run(agent: Agent) -> dict[str, Any]:
    """Check what builds, ships and runs the project."""
    return conduct(agent, lambda bench: Infrastructure(bench).work())


class Infrastructure:
    """One look at one project's delivery."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._report = bench.report
        self._found: Counter[str] = Counter()
        self._checked: set[str] = set()

    def work(self) -> None:
        """Each kind of file in turn."""
        self._bench.step("reading Dockerfiles", 15, self._docker)
        self._bench.step("reading compose files and Kubernetes manifests", 35, self._yaml)
        self._bench.step("reading Terraform", 55, self._terraform)
        self._bench.step("reading CI workflows", 75, self._pipelines)
        self._conclude()

    def _add(self, findings: Iterator[Finding]) -> None:
        self._report.extend(findings)

    def _docker(self) -> None:
        tree = self._bench.tree
        files = hygiene.docker_files(tree)
        self._found["Dockerfile"] = len(files)
        for file in files:
            self._add(hygiene.check_dockerfile(file.path, tree.text(file.path) or ""))
        if files and not tree.get(".dockerignore") and any("COPY . " in (tree.text(file.path) or "") for file in files):
            self._report.add(
                "low",
                "no-dockerignore",
                "COPY . takes the whole directory, .git and secrets too.",
                path=files[0].path,
                suggestion="Add a .dockerignore.",
            )

    def _yaml(self) -> None:
        for file in self._bench.tree.of({"YAML"}):
            if file.role in {"vendored", "test"} or is_fixture(file.path):
                continue
            text = self._bench.tree.text(file.path) or ""
            if _COMPOSE.search(file.path):
                self._checked.add(file.path)
                self._found["compose file"] += 1
                self._add(_check_compose(file, text))
            elif _WORKLOAD.search(text) and re.search(r"^apiVersion:", text, re.MULTILINE):
                self._checked.add(file.path)
                self._found["Kubernetes manifest"] += 1
                self._add(_check_workload(file, text))

    def _terraform(self) -> None:
        files = [file for file in self._bench.tree.of({"Terraform"}) if file.role != "vendored"]
        self._found["Terraform file"] = len(files)
        blocks: Counter[str] = Counter()
        everything = ""
        for file in files:
            text = self._bench.tree.text(file.path) or ""
            everything += text
            blocks.update(match[1] for match in _TF_BLOCK.finditer(text))
            self._add(_check_terraform(file, text))
        if files:
            self._report.metrics["terraform_blocks"] = dict(blocks)
            if "required_version" not in everything:
                self._report.add(
                    "low",
                    "terraform-version",
                    "No required_version: any Terraform may be used.",
                    path=files[0].path,
                    suggestion="Name the versions that work.",
                )
            if blocks["resource"] and not re.search(r'backend\s+"|\bcloud\s*\{', everything):
                self._report.add(
                    "medium",
                    "local-state",
                    "No backend: the state stays on whoever's disk.",
                    path=files[0].path,
                    suggestion="Configure a remote backend with locking.",
                )

    def _pipelines(self) -> None:
        tree = self._bench.tree
        files = hygiene.workflows(tree)
        self._found["CI workflow"] = len(files)
        runs_tests = False
        endless = [file.path for file in files if _has_no_timeout(tree.text(file.path) or "")]
        if endless:
            self._report.add(
                "info",
                "no-job-timeout",
                f"{plural(len(endless), 'workflow')} without timeout-minutes: a hung job runs for six hours.",
                path=endless[0],
                suggestion="Set timeout-minutes on each job.",
            )
        for file in files:
            text = tree.text(file.path) or ""
            self._add(hygiene.check_workflow(file.path, text))
            self._add(_check_jobs(file, text))
            runs_tests = runs_tests or re.search(r"\b(test|tox|nox|pytest|check|verify|ci)\b", text) is not None
        others = [name for name in _CI_FILES if tree.get(name)]
        others += [file.path for file in tree.files if _UNCHECKED_CI.search(file.path)]
        self._report.metrics["other_ci"] = others
        if not files and not others and tree.files:
            self._report.add(
                "medium",
                "no-ci",
                "No continuous integration of a kind that is known here (GitHub, GitLab, Jenkins, …) is configured.",
                suggestion="Run the tests and the linter on every push.",
            )
        elif files and not runs_tests and not others:
            self._report.add("medium", "ci-without-tests", "No workflow seems to run tests.", path=files[0].path)

    def _conclude(self) -> None:
        report = self._report
        found = {name: count for name, count in self._found.items() if count}
        report.metrics["files"] = found
        ranked = report.ranked()
        counts = Counter(finding.severity for finding in ranked)
        told = ", ".join(plural(count, name) for name, count in found.items())
        grave = [one for one in ranked if one.severity in {"critical", "high", "medium"}]
        worst = f" Worst: {grave[0].kind} in {grave[0].place}." if grave else ""
        told = told or "No container, deployment or CI file of a kind that is known here"
        unchecked = [
            file.path
            for file in self._bench.tree.files
            if file.role not in {"vendored", "test"}
            and file.path not in self._checked
            and (_UNCHECKED.search(file.path) or _UNCHECKED_CI.search(file.path))
            and not is_fixture(file.path)
        ]
        report.artifacts["unchecked"] = unchecked[:60]
        if unchecked:
            shown = ", ".join(unchecked[:4]) + (f" and {len(unchecked) - 4} more" if len(unchecked) > 4 else "")
            report.warnings.append(f"there, but not checked: {shown}")
            told += f" (not checked: {shown})"
        figures = f": {counts['high']} high, {counts['medium']} medium, {counts['low']} low" if found or ranked else ""
        report.summary = f"{told}{figures}.{worst}"
        report.next_steps.extend(f"Settle {one.kind} in {one.place}" for one in grave[:5])


def _check_compose(file: SourceFile, text: str) -> Iterator[Finding]:
    index = LineIndex(text)
    for match in _IMAGE.finditer(text):
        if _is_loose(match[1]):
            yield Finding(
                "low",
                "image-not-pinned",
                file.path,
                index.line(match.start(1)),
                f"{match[1]} is whatever is newest on the day it is pulled.",
                "Name a version.",
            )
    for match in re.finditer(r"^\s*privileged:\s*true", text, re.MULTILINE):
        yield Finding(
            "high",
            "privileged",
            file.path,
            index.line(match.start()),
            "A privileged container is root on the host.",
            "Give single capabilities instead.",
        )
    for match in re.finditer(r"/var/run/docker\.sock", text):
        yield Finding(
            "medium",
            "docker-socket",
            file.path,
            index.line(match.start()),
            "Who reaches the Docker socket is root on the host.",
            "Use a socket proxy, read-only.",
        )
    for match in _SECRET_VALUE.finditer(text):
        if "/" not in match[2] and not match[1].upper().endswith(("_FILE", "_PATH", "_NAME", "_LENGTH", "_TTL")):
            yield Finding(
                "low",
                "password-in-file",
                file.path,
                index.line(match.start(1)),
                f"{match[1]} has its value in the file.",
                "Read it from the environment or a secret.",
            )


def _check_workload(file: SourceFile, text: str) -> Iterator[Finding]:
    index = LineIndex(text)
    first = _WORKLOAD.search(text)
    line = index.line(first.start()) if first is not None else 0
    for match in _IMAGE.finditer(text):
        if _is_loose(match[1]):
            yield Finding(
                "medium",
                "image-not-pinned",
                file.path,
                index.line(match.start(1)),
                f"{match[1]}: nodes may run different versions, and no rollback is possible.",
                "Name a version.",
            )
    if "containers:" in text and "{{" not in text:
        if "resources:" not in text:
            yield Finding(
                "medium",
                "no-limits",
                file.path,
                line,
                "No resources: one pod can starve the node.",
                "Set requests and a memory limit.",
            )
        if first is not None and first[1] in {"Deployment", "StatefulSet"} and "Probe:" not in text:
            yield Finding(
                "medium",
                "no-probes",
                file.path,
                line,
                "No probes: traffic reaches pods that do not work.",
                "Add readinessProbe and livenessProbe.",
            )
        if "securityContext" not in text:
            yield Finding(
                "low",
                "no-security-context",
                file.path,
                line,
                "No securityContext: runs as the image's user, often root.",
                "Set runAsNonRoot and drop capabilities.",
            )
    yield from _check_privileges(file, text, index)


def _check_privileges(file: SourceFile, text: str, index: LineIndex) -> Iterator[Finding]:
    for match in re.finditer(
        r"^\s*(privileged|hostNetwork|hostPID|allowPrivilegeEscalation):\s*true", text, re.MULTILINE
    ):
        yield Finding(
            "high",
            "privileged",
            file.path,
            index.line(match.start(1)),
            f"{match[1]} breaks the isolation from the node.",
            "Do without.",
        )


def _check_terraform(file: SourceFile, text: str) -> Iterator[Finding]:
    index = LineIndex(text)
    for match in _OPEN_CIDR.finditer(text):
        before = text[max(0, match.start() - 400) : match.start()]
        if "ingress" in before[before.rfind("{") - 30 :] or 'type        = "ingress"' in before:
            yield Finding(
                "medium",
                "open-to-the-world",
                file.path,
                index.line(match.start()),
                "This rule lets every address in.",
                "Name the networks that need it.",
            )
    for match in re.finditer(
        r'^\s*(password|secret\w*|token|api_key)\s*=\s*"(?!\$\{|var\.)([^"\s]{6,})"', text, re.MULTILINE
    ):
        yield Finding(
            "high",
            "password-in-file",
            file.path,
            index.line(match.start(1)),
            f"{match[1]} is written out.",
            "Use a variable marked sensitive, or a secret manager.",
        )
    for match in re.finditer(
        r"^\s*(publicly_accessible|force_destroy|skip_final_snapshot)\s*=\s*true", text, re.MULTILINE
    ):
        yield Finding(
            "low",
            "risky-setting",
            file.path,
            index.line(match.start(1)),
            f"{match[1]} = true.",
            "Make sure that this is no production resource.",
        )


def _check_jobs(file: SourceFile, text: str) -> Iterator[Finding]:
    if "/workflows/" not in file.path:
        return
    index = LineIndex(text)
    for match in re.finditer(r"uses:\s*actions/(checkout|setup-\w+|cache|upload-artifact)@v([12])\b", text):
        yield Finding(
            "low",
            "outdated-action",
            file.path,
            index.line(match.start()),
            f"actions/{match[1]}@v{match[2]} runs on a Node version that runners dropped.",
            "Take the current major.",
        )


def _has_no_timeout(text: str) -> bool:
    return "runs-on:" in text and "timeout-minutes" not in text


def _is_loose(image: str) -> bool:
    if "$" in image or "@sha256:" in image or "{{" in image:
        return False
    return ":" not in image.rpartition("/")[2] or image.endswith(":latest")

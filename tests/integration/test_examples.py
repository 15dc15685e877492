"""The example agents, each run as an agent of a real sidecar."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.agents import ended
from tests.support.http import Api
from tests.support.repo import git, repository, write_files
from tests.support.server import Server
from tests.support.waiting import until

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def needs(*programs: str) -> None:
    """Skip, with the reason printed, where a program is missing."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def project_api(server: Server, project_id: str, directory: Path) -> Api:
    """An operator's calls in a project of the test's own."""
    api = server.api(project_id=project_id)
    api.post("/api/projects", {"project_id": project_id, "path": str(directory)}).expect(201)
    return api


def run_example(api: Api, command: list[str], **fields: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Spawn a command, wait for its end; the agent's record and its result's body."""
    body = {"agent_type": "devops-engineer", "issue_id": "try", "task": "an example", "command": command, **fields}
    agent_id = api.post("/api/agents/spawn", body).expect(201).json["agent_id"]
    record = ended(api, agent_id)
    if not record["result_id"]:
        raise AssertionError(api.get(f"/api/agents/{agent_id}/output", stream="stderr").body)
    return record, api.get(f"/api/results/{record['result_id']}").expect(200).json["result"]


def events_of(api: Api, event_type: str) -> list[dict[str, Any]]:
    """The events of a type, as far as there are any."""
    events: list[dict[str, Any]] = api.get("/api/events", type=event_type, since="earliest").expect(200).json["events"]
    return events


def test_python_example_names_large_files(sidecar: Server, tmp_path: Path) -> None:
    """Prevents an example that reads another shape of the context than the sidecar writes."""
    root = repository(tmp_path / "project", {"long.py": "x = 1\n" * 60, "short.py": "x = 1\n", "link.txt": "a\n"})
    api = project_api(sidecar, "example-python", root)
    command = ["python3", str(EXAMPLES / "large_files.py")]
    record, result = run_example(api, command, environment={"LARGE_FILES_LINES": "50"})
    assert record["status"] == "completed"
    assert [(found["path"], found["line"]) for found in result["findings"]] == [("long.py", 51)]
    assert result["metrics"] == {"files": 3, "large_files": 1}
    event = until(lambda: events_of(api, "large_files_found"), timeout_s=10, what="its event")[0]
    assert event["data"]["files"] == ["long.py"]
    assert event["publisher"] == record["agent_id"]


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"app.py": "x = 2\n"}, ["sources changed, but no changelog entry did"]),
        ({"app.py": "x = 2\n", "CHANGELOG.md": "# Changes\n\nx is 2\n"}, []),
        ({}, ["sources changed, but no changelog entry did"]),
    ],
    ids=["no entry", "entry", "clean tree: last commit"],
)
def test_bash_example_checks_the_changelog(
    sidecar: Server, tmp_path: Path, changes: dict[str, str], wanted: list[str], request: pytest.FixtureRequest
) -> None:
    """Prevents a result by curl that the agent's end replaces by a made-up one, and broken quoting of names."""
    needs("bash", "curl", "git")
    name = f"example-bash-{request.node.callspec.indices['changes']}"
    root = repository(tmp_path / "project", {"app.py": "x = 1\n", 'odd "name".txt': "a\n"})
    write_files(root, changes)
    api = project_api(sidecar, name, root)
    record, result = run_example(api, ["bash", str(EXAMPLES / "changelog_check.sh")])
    assert record["status"] == "completed"
    assert [found["message"] for found in result["findings"]] == wanted
    assert result["artifacts"]["source"] == ("the work tree" if changes else "the last commit")
    assert len(events_of(api, "changelog_checked")) == 1
    stored = api.get("/api/results", issue_id="try").json["results"]
    assert [each["id"] for each in stored] == [record["result_id"]]


def test_node_example_checks_packages(sidecar: Server, tmp_path: Path) -> None:
    """Prevents an example that never ends because standard input keeps Node's loop alive."""
    needs("node")
    manifest = {"name": "web", "engines": {"node": ">=20"}, "dependencies": {"left": "*", "right": "^1.2.0"}}
    files = {"web/package.json": json.dumps(manifest), "broken/package.json": "{", "web/package-lock.json": "{}"}
    api = project_api(sidecar, "example-node", repository(tmp_path / "project", files))
    record, result = run_example(api, ["node", str(EXAMPLES / "package_check.mjs")])
    assert record["status"] == "completed"
    assert record["exit_code"] == 0
    found = sorted((each["severity"], each["path"]) for each in result["findings"])
    assert found == [("high", "broken/package.json"), ("medium", "web/package.json")]
    assert events_of(api, "packages_checked")[0]["data"] == {"manifests": 2, "findings": 2}


def test_readme_names_every_example() -> None:
    """Prevents an example that nobody finds."""
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    programs = [path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".sh", ".mjs")]
    assert len(programs) >= 3
    assert [name for name in programs if f"`{name}`" not in text] == []


def test_git_is_left_as_it_was(sidecar: Server, tmp_path: Path) -> None:
    """Prevents an example that changes the project that it only looks at."""
    needs("bash", "curl", "git")
    root = repository(tmp_path / "project", {"app.py": "x = 1\n"})
    api = project_api(sidecar, "example-clean", root)
    run_example(api, ["bash", str(EXAMPLES / "changelog_check.sh")])
    run_example(api, ["python3", str(EXAMPLES / "large_files.py")])
    assert git(root, "status", "--porcelain") == ""

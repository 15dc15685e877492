"""Contract section 3, endpoints 1 and 6: what an agent is told of its project."""

from __future__ import annotations

import hashlib
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.http import Api
from tests.support.repo import commit_all, git, mixed_repository, repository, write_files
from tests.support.server import Server
from tests.support.waiting import until


def read(api: Api, issue_id: str, agent_type: str = "python-specialist", **parameters: Any) -> Any:
    """A context document."""
    return api.get(f"/api/context/{issue_id}/{agent_type}", **parameters).expect(200).json


def register(server: Server, project_id: str, path: Path) -> Api:
    """Register a project; an operator's calls in it."""
    server.api().post("/api/projects", {"project_id": project_id, "path": str(path)}).expect(201)
    return server.api(project_id=project_id)


@pytest.mark.smoke
def test_the_document_has_what_the_contract_names(sidecar: Server, issue: str) -> None:
    """Outside programs read these fields by name."""
    document = read(sidecar.api("python-specialist"), issue)
    assert {"issue_id", "agent_type", "context", "truncated", "truncation_strategy", "total_size_bytes"} <= set(
        document
    )
    assert {"file_count", "omitted", "timestamp", "cache_hit"} <= set(document)
    assert (document["issue_id"], document["agent_type"]) == (issue, "python-specialist")
    assert datetime.fromisoformat(document["timestamp"]).utcoffset() is not None
    context = document["context"]
    structure = context["project_structure"]
    assert structure["root"] == str(sidecar.projects["sample"])
    assert structure["total_files"] == len(structure["files"]) == 9
    assert "ledger" in [str(name).rstrip("/") for name in structure["directories"]]
    assert structure["total_size_bytes"] == sum(
        (sidecar.projects["sample"] / name).stat().st_size for name in git_files(sidecar.projects["sample"])
    )
    assert context["metadata"]["project_type"] == "python"
    assert "previous_agent_outputs" in context


def git_files(root: Path) -> list[str]:
    """The tracked files."""
    return git(root, "ls-files").split()


def test_files_are_given_whole_and_true(sidecar: Server, issue: str) -> None:
    """A content that differs from the file, or a checksum of something else, misleads the agent."""
    document = read(sidecar.api("python-specialist"), issue)
    root = sidecar.projects["sample"]
    files = document["context"]["relevant_files"]
    assert {"ledger/accounts.py", "ledger/money.py"} <= {entry["path"] for entry in files}
    for entry in files:
        raw = (root / entry["path"]).read_bytes()
        assert entry["checksum"] == f"sha256:{hashlib.sha256(raw).hexdigest()}"
        assert entry["size"] == len(raw)
        assert datetime.fromisoformat(entry["last_modified"]).utcoffset() is not None
        assert entry["reason"]
        if "ranges" not in entry and not entry.get("truncated"):
            assert entry["content"] == raw.decode()
    scores = [entry["score"] for entry in files]
    assert scores == sorted(scores, reverse=True)
    assert document["file_count"] == len(files)
    assert not document["truncated"]


def test_git_is_told(server: Server, issue: str) -> None:
    """Branch, history and what is not yet committed."""
    root = server.projects["sample"]
    write_files(root, {"ledger/money.py": '"""Money."""\n', "ledger/new.py": "NEW = 1\n"})
    told = read(server.api(), issue, refresh="true")["context"]["git_context"]
    assert told["branch"] == "main"
    assert git(root, "rev-parse", "HEAD").strip().startswith(told["head"])
    assert [commit["message"].splitlines()[0] for commit in told["recent_commits"]] == [
        "Explain balances",
        "Say the unit of the sum",
        "Begin the ledger",
    ]
    latest = told["recent_commits"][0]
    assert "Ada" in latest["author"]
    assert latest["files_changed"] == ["docs/guide.md"]
    changes = {change["path"]: change for change in told["uncommitted_changes"]}
    assert set(changes) == {"ledger/money.py", "ledger/new.py"}
    assert '+"""Money."""' in changes["ledger/money.py"]["diff"]


@pytest.mark.critical
def test_only_what_git_sees_is_told(sidecar: Server, issue: str, tmp_path: Path) -> None:
    """Ignored files hold builds and secrets; untracked ones are the work in progress."""
    root = repository(tmp_path / "p", {"a.py": "A = 1\n", ".gitignore": "build/\n*.key\n"})
    write_files(root, {"build/out.py": "OUT = 1\n", "my.key": "secret\n", "untracked.py": "U = 1\n"})
    structure = read(register(sidecar, issue, root), issue)["context"]["project_structure"]
    assert sorted(structure["files"]) == [".gitignore", "a.py", "untracked.py"]


@pytest.mark.critical
def test_secrets_and_what_lies_outside_are_never_told(sidecar: Server, issue: str, tmp_path: Path) -> None:
    """A context goes to a model: a key in it is a key lost."""
    outside = tmp_path / "outside.txt"
    outside.write_text("OUTSIDE-THE-PROJECT")
    aws = "AKIA" + "IOSFODNN7EXAMPLQ"
    files = {
        "settings.py": f'AWS_KEY = "{aws}"\nNAME = "kept"\n',
        ".env": "PASSWORD=hunter2-hunter2\n",
        "id_rsa": "-----BEGIN OPENSSH PRIVATE KEY-----\nabcdefgh\n-----END OPENSSH PRIVATE KEY-----\n",
    }
    root = repository(tmp_path / "p", files)
    (root / "link.py").symlink_to(outside)
    commit_all(root, "Link")
    api = register(sidecar, issue, root)
    for role in ("python-specialist", "security-auditor", "chief-architect", "devops-engineer"):
        text = api.get(f"/api/context/{issue}/{role}").expect(200).body.decode()
        for secret in (aws, "hunter2-hunter2", "abcdefgh", "OUTSIDE-THE-PROJECT"):
            assert secret not in text, f"{role} is told {secret}"


def test_a_budget_is_kept_and_what_is_left_out_is_told(sidecar: Server, issue: str) -> None:
    """An agent that does not know that it sees a part takes it for the whole."""
    document = read(sidecar.api("python-specialist"), issue, max_bytes=300)
    assert sum(len(entry["content"].encode()) for entry in document["context"]["relevant_files"]) <= 300
    assert document["truncated"] is True
    assert document["truncation_strategy"]
    assert document["omitted"]
    for entry in document["omitted"]:
        assert entry["path"]
        assert entry["reason"]


def test_a_task_brings_its_files_to_the_front(sidecar: Server, issue: str) -> None:
    """Ranking by role alone gives every task the same files."""
    api = sidecar.api("python-specialist")
    first = read(api, issue, task="The sum in money.py is wrong: add() must refuse floats")
    assert first["context"]["relevant_files"][0]["path"] == "ledger/money.py"
    posted = api.post(
        f"/api/context/{issue}/python-specialist", {"task": "Account.post loses cents", "max_bytes": 5000}
    )
    assert posted.expect(200).json["context"]["relevant_files"][0]["path"] == "ledger/accounts.py"


@pytest.mark.critical
def test_the_cache_is_used_told_and_never_stale(server: Server, issue: str) -> None:
    """A cached answer after a change would send an agent to work on yesterday's file."""
    api = server.api()
    assert read(api, issue)["cache_hit"] is False
    # A file written a moment ago may be written again within its time stamp's grain: such answers are not kept.
    until(lambda: read(api, issue)["cache_hit"], what="the cache is used")
    assert read(api, issue, refresh="true")["cache_hit"] is False
    until(lambda: read(api, issue)["cache_hit"], what="the cache is used")
    write_files(server.projects["sample"], {"ledger/money.py": "CHANGED = 1\n"})

    def is_told() -> bool:
        files = read(api, issue)["context"]["relevant_files"]
        return any(entry["content"] == "CHANGED = 1\n" for entry in files)

    until(is_told, timeout_s=5, what="the change is told")


@pytest.mark.critical
def test_an_unchanged_context_need_not_be_sent_again(sidecar: Server, issue: str) -> None:
    """The ETag ignores the time and the cache flag, or it would never match."""
    api = sidecar.api("python-specialist")
    path = f"/api/context/{issue}/python-specialist"
    first = api.get(path).expect(200)
    second = api.get(path).expect(200)
    assert first.headers["ETag"] == second.headers["ETag"]
    unchanged = api.get(path, headers={"If-None-Match": first.headers["ETag"]}).expect(304)
    assert unchanged.body == b""
    assert unchanged.headers["ETag"] == first.headers["ETag"]
    api.get(path, headers={"If-None-Match": '"another"'}).expect(200)


def test_a_provisional_context_gives_way_to_the_full_one(server: Server, issue: str, tmp_path: Path) -> None:
    """Who would do with a provisional context never got the full one, or could not tell them apart."""
    write_files(tmp_path / "big", {f"m{n}.py": f"def name_{n}(): ...\n" * 250 for n in range(300)})
    api = register(server, issue, tmp_path / "big")
    answer = api.get(f"/api/context/{issue}/python-specialist", partial="true", task="name_77").expect(200)
    document = answer.json
    assert document.get("partial", True) is True, "a full context is not marked at all"
    assert answer.headers["Cache-Control"] == ("no-store" if "partial" in document else "private, no-cache")
    assert document["context"]["relevant_files"][0]["path"] == "m77.py"
    full = api.get(f"/api/context/{issue}/python-specialist", task="name_77").expect(200)
    assert "partial" not in full.json
    again = api.get(f"/api/context/{issue}/python-specialist", partial="true", task="name_77").expect(200)
    assert "partial" not in again.json
    assert again.headers["ETag"] == full.headers["ETag"]
    shown = server.cli("context", "get", issue, "python-specialist", "--partial", "--project-id", issue)
    assert shown.returncode == 0, shown.stderr


def test_a_project_is_indexed_when_it_is_registered(server: Server, issue: str, tmp_path: Path) -> None:
    """The first agent of each project waited for its index."""
    write_files(tmp_path / "big", {f"m{n}.py": f"def name_{n}(): ...\n" for n in range(300)})
    before = set((server.storage / "context").glob("*.index"))
    register(server, issue, tmp_path / "big")
    until(lambda: set((server.storage / "context").glob("*.index")) - before, what="an index is kept")


def test_an_unknown_role_is_not_found_with_the_nearest(sidecar: Server, issue: str) -> None:
    """A typing error should cost one look, not a search."""
    error = sidecar.api().get(f"/api/context/{issue}/python-specalist").refused(404, "AGT_002")
    assert "python-specialist" in str(error)


@pytest.mark.smoke
def test_clearing_the_cache_clears_it_and_says_how_much(sidecar: Server, issue: str) -> None:
    """A constant answer would be believed."""
    api = sidecar.api("chief-architect")
    for role in ("python-specialist", "go-specialist"):
        read(api, issue, role)
    cleared = api.delete(f"/api/cache/context/{issue}").expect(200).json
    assert cleared["cleared"] is True
    assert cleared["entries_removed"] == 2
    assert cleared["bytes_freed"] > 0
    assert cleared["timestamp"]
    api.delete(f"/api/cache/context/{issue}").refused(404)
    assert read(api, issue)["cache_hit"] is False


def test_earlier_results_are_told(sidecar: Server, issue: str) -> None:
    """Each later agent reads what earlier ones found."""
    result = {"status": "success", "decisions": ["Use integers for money"], "files_modified": ["ledger/money.py"]}
    body = {"agent_type": "chief-architect", "issue_id": issue, "result": result}
    sidecar.api("chief-architect").post("/api/results", body).expect(201)
    outputs = read(sidecar.api("python-specialist"), issue)["context"]["previous_agent_outputs"]
    own = next(output for output in outputs if "Use integers for money" in str(output))
    assert own["agent_type"] == "chief-architect"
    assert own["status"] == "success"
    assert "ledger/money.py" in own["files_affected"]
    assert own["agent"]
    assert own["timestamp"]


def test_roles_are_told_different_things(sidecar: Server, issue: str, tmp_path: Path) -> None:
    """A context that is the same for every role is no context."""
    api = register(sidecar, issue, mixed_repository(tmp_path / "mixed"))
    documents = {role: read(api, issue, role) for role in ("go-specialist", "rust-specialist")}
    first = {role: document["context"]["relevant_files"][0]["path"] for role, document in documents.items()}
    assert first["go-specialist"].endswith(".go")
    assert first["rust-specialist"].endswith((".rs", "Cargo.toml"))


@pytest.mark.parametrize("kind", ["not git", "empty", "no commits"])
def test_any_directory_is_a_project(sidecar: Server, issue: str, tmp_path: Path, kind: str) -> None:
    """A project without history, or without files, is where every project begins."""
    root = tmp_path / "p"
    root.mkdir()
    if kind == "not git":
        (root / "a.py").write_text("A = 1\n")
    if kind == "no commits":
        subprocess.run(["git", "init", "-q"], cwd=root, check=True)
        (root / "a.py").write_text("A = 1\n")
    document = read(register(sidecar, issue, root), issue)
    paths = [entry["path"] for entry in document["context"]["relevant_files"]]
    assert paths == ([] if kind == "empty" else ["a.py"])
    assert not document["truncated"]


def test_a_project_that_is_no_directory_is_refused(sidecar: Server, issue: str, tmp_path: Path) -> None:
    """Registered, it would fail at every later call with a worse message."""
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "absent", tmp_path / "file", Path("relative")):
        error = sidecar.api().post("/api/projects", {"project_id": issue, "path": str(path)}).refused(400, "REQ_001")
        assert str(path) in error["message"]

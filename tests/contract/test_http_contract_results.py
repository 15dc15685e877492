"""Contract section 3, endpoint 2, and the results of section 4."""

from __future__ import annotations

import json
import stat
import uuid
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.support.http import Api
from tests.support.roster import roster
from tests.support.server import Server


def store(api: Api, issue_id: str, agent_type: str = "python-specialist", **result: Any) -> Any:
    """Store a result; the body of the 201."""
    body = {"agent_type": agent_type, "issue_id": issue_id, "result": {"status": "success", **result}}
    return api.post("/api/results", body).expect(201).json


@pytest.mark.smoke
def test_a_result_is_stored_and_read_back(sidecar: Server, issue: str) -> None:
    """Nothing of it may be lost, not even what the sidecar does not know."""
    api = sidecar.api("python-specialist")
    result = {
        "status": "partial",
        "files_created": ["a.py", {"path": "b.py", "lines": 3}],
        "files_modified": [],
        "files_deleted": ["c.py"],
        "decisions": ["one", {"decision": "two", "rationale": "why"}],
        "metrics": {"lines": 3, "share": 0.5},
        "artifacts": {"report": "text", "umlaut": "ä\u2028"},
        "errors": ["e"],
        "warnings": ["w"],
        "next_steps": ["n"],
        "unknown_to_the_sidecar": {"deep": [1, None, True, {"x": []}]},
    }
    body = {"issue_id": issue, "result": result, "timestamp": "2026-01-02T03:04:05Z"}
    stored = api.post("/api/results", body).expect(201).json
    assert {"id", "stored", "storage_path", "next_agents", "event_published", "event_id", "timestamp"} <= set(stored)
    assert stored["stored"] is True
    assert stored["event_published"] is True
    read = api.get(f"/api/results/{stored['id']}").expect(200).json
    assert read["result"] == result
    claims = jwt.decode(str(api.token), options={"verify_signature": False})
    assert read["agent_id"] == claims["sub"]
    assert (read["agent_type"], read["issue_id"], read["project_id"]) == ("python-specialist", issue, "sample")
    assert read["round"] == 1
    assert read["timestamp"].startswith("2026-01-02T03:04:05")


@pytest.mark.critical
def test_the_file_at_storage_path_is_the_newest_round(sidecar: Server, issue: str) -> None:
    """Programs that read files must see what the API says, whole, and private to the user."""
    api = sidecar.api("python-specialist")
    for number in (1, 2):
        stored = store(api, issue, metrics={"number": number})
        path = Path(stored["storage_path"])
        assert path == sidecar.storage / "results" / "sample" / issue / "python-specialist.json"
        assert json.loads(path.read_text())["result"]["metrics"] == {"number": number}
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("status", ["success", "failed", "partial"])
def test_storing_publishes_its_event(sidecar: Server, issue: str, status: str) -> None:
    """Whoever waits for an agent's end waits for this."""
    api = sidecar.api("python-specialist")
    body = {"issue_id": issue, "result": {"status": status}}
    stored = api.post("/api/results", body).expect(201).json
    expected = "agent_failed" if status == "failed" else "agent_completed"
    answer = api.get(f"/api/events/wait/{expected}", timeout=0, filter=f"issue_id:{issue}").expect(200).json
    (event,) = answer["events"]
    assert event["event_id"] == stored["event_id"]
    assert event["topic"] == "coordination"
    assert event["data"]["result_id"] == stored["id"]
    assert event["data"]["status"] in (status, "completed", "failed")


def test_every_round_is_kept(sidecar: Server, issue: str) -> None:
    """The second round must not overwrite the first one's reasons."""
    api = sidecar.api("python-specialist")
    ids = [store(api, issue, metrics={"number": number})["id"] for number in range(3)]
    rows = api.get("/api/results", issue_id=issue).expect(200).json["results"]
    assert {row["id"]: row["round"] for row in rows} == {ids[0]: 1, ids[1]: 2, ids[2]: 3}
    assert {row["result"]["metrics"]["number"] for row in rows} == {0, 1, 2}


@pytest.mark.critical
def test_an_idempotency_key_makes_a_retry_harmless(sidecar: Server, issue: str) -> None:
    """A client whose connection broke does not know whether its result was stored."""
    api = sidecar.api("python-specialist")
    key = {"Idempotency-Key": uuid.uuid4().hex}
    body = {"issue_id": issue, "result": {"status": "success"}}
    first = api.post("/api/results", body, headers=key).expect(201).json
    assert api.post("/api/results", body, headers=key).expect(200, 201).json == first
    assert len(api.get("/api/results", issue_id=issue).json["results"]) == 1
    events = api.get("/api/events", type="agent_completed", filter=f"issue_id:{issue}").json["events"]
    assert len(events) == 1


def test_queries_filter_and_page(sidecar: Server, issue: str) -> None:
    """A page boundary must neither lose nor repeat a row."""
    admin = sidecar.api()
    for number in range(7):
        store(admin, issue, ("python-specialist", "go-specialist")[number % 2], metrics={"number": number})
    admin.post(
        "/api/results", {"agent_type": "go-specialist", "issue_id": issue, "result": {"status": "failed"}}
    ).expect(201)
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(10):
        page = admin.get("/api/results", issue_id=issue, limit=3, cursor=cursor).expect(200).json
        seen += [row["id"] for row in page["results"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 8
    by_type = admin.get("/api/results", issue_id=issue, agent_type="go-specialist").json["results"]
    assert {row["agent_type"] for row in by_type} == {"go-specialist"}
    assert len(by_type) == 4
    assert len(admin.get("/api/results", issue_id=issue, status="failed").json["results"]) == 1
    assert admin.get("/api/results", issue_id=issue, from_="2100-01-01T00:00:00Z").json["results"] == []
    assert admin.get("/api/results", issue_id=issue, to="2000-01-01T00:00:00Z").json["results"] == []
    assert len(admin.get("/api/results", issue_id=issue, from_="2000-01-01T00:00:00Z").json["results"]) == 8


def test_an_unknown_result_is_not_found(sidecar: Server) -> None:
    """Not a 500, and not an empty 200."""
    sidecar.api().get("/api/results/no-such-result").refused(404)


@pytest.mark.critical
def test_every_coding_role_hands_over_to_the_test_engineer(sidecar: Server, issue: str) -> None:
    """The contract's one fixed hand-over: what is written is tested."""
    admin = sidecar.api()
    for role in roster():
        stored = store(admin, f"{issue}-{role.agent_type}"[:128], role.agent_type)
        for entry in stored["next_agents"]:
            assert {"agent_type", "priority", "reason"} <= set(entry)
        if role.category == "coding":
            assert "test-engineer" in [entry["agent_type"] for entry in stored["next_agents"]], role


@pytest.mark.parametrize("field", ["files_created", "decisions", "metrics", "artifacts", "errors", "next_steps"])
def test_a_field_of_the_wrong_type_is_refused_by_name(sidecar: Server, issue: str, field: str) -> None:
    """Whoever reads results relies on these types."""
    body = {"issue_id": issue, "result": {"status": "success", field: 5}}
    error = sidecar.api("python-specialist").post("/api/results", body).refused(400, "REQ_001")
    assert field in json.dumps(error)

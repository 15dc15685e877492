"""Contract section 3, endpoints 7 and 8, and the operation, profiles and projects of section 4."""

from __future__ import annotations

import re
from typing import Any

import psutil
import pytest

from tests.support.agents import ended, say_result, spawn
from tests.support.roster import roster
from tests.support.server import Server
from tests.support.waiting import until

#: Every path of contract sections 2 to 4 that the core serves, with its methods.
PATHS = {
    "/api/context/{issue_id}/{agent_type}": {"get", "post"},
    "/api/results": {"get", "post"},
    "/api/results/{id}": {"get"},
    "/api/events/{event_type}": {"post"},
    "/api/events/wait/{event_type}": {"get"},
    "/api/events": {"get"},
    "/api/events/stream": {"get"},
    "/api/events/dead-letters": {"get"},
    "/api/events/dead-letters/{id}/redrive": {"post"},
    "/api/agents/spawn": {"post"},
    "/api/agents": {"get"},
    "/api/agents/{id}": {"get", "delete"},
    "/api/agents/{id}/status": {"get"},
    "/api/agents/{id}/output": {"get"},
    "/api/agents/{id}/input": {"post"},
    "/api/cache/context/{issue_id}": {"delete"},
    "/api/profiles": {"get"},
    "/api/profiles/{type}": {"get"},
    "/api/projects": {"get", "post"},
    "/api/knowledge/search": {"get"},
    "/api/tokens/refresh": {"post"},
    "/health": {"get"},
    "/status": {"get"},
    "/metrics": {"get"},
    "/.well-known/jwks.json": {"get"},
}


def unnamed(path: str) -> str:
    """A path with its parameters' names taken out: they are not part of the contract."""
    return re.sub(r"\{[^}]*\}", "{}", path)


@pytest.mark.smoke
def test_health_is_measured(sidecar: Server) -> None:
    """A constant answer reports a dead sidecar as healthy."""
    answer = sidecar.anonymous().get("/health").expect(200).json
    assert answer["status"] in ("healthy", "degraded")
    assert answer["service"] == "orchestration-sidecar"
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", answer["version"])
    checks = answer["checks"]
    assert {"storage", "event_bus", "pool", "memory_usage_mb", "cpu_usage_percent"} <= set(checks)
    assert {"active_agents", "event_queue_size", "disk_space_available_mb"} <= set(checks)
    resident_mb = psutil.Process(sidecar.pid).memory_info().rss / 2**20
    assert 0.3 * resident_mb < checks["memory_usage_mb"] < 30 * resident_mb
    assert 0 <= checks["cpu_usage_percent"] <= 100 * (psutil.cpu_count() or 1)
    free_mb = psutil.disk_usage(str(sidecar.storage)).free / 2**20
    assert checks["disk_space_available_mb"] == pytest.approx(free_mb, rel=0.2)
    later = sidecar.anonymous().get("/health").json
    assert later["uptime_seconds"] >= answer["uptime_seconds"] > 0


@pytest.mark.critical
def test_status_counts_what_happens(server: Server, issue: str) -> None:
    """Each number is compared with what this test did."""
    api, open_api = server.api(), server.anonymous()

    def status() -> Any:
        return open_api.get("/status").expect(200).json

    before = status()
    assert set(before) >= {"agents", "storage", "events", "performance", "timestamp"}
    running = spawn(api, issue, "sleep 60", agent_type="go-specialist")
    busy = status()
    assert busy["agents"]["active"] == 1
    assert busy["agents"]["by_type"] == {"go-specialist": 1}
    assert server.anonymous().get("/health").json["checks"]["active_agents"] == 1
    ended(api, spawn(api, issue, say_result())["agent_id"])
    ended(api, spawn(api, issue, "exit 3")["agent_id"])
    api.delete(f"/api/agents/{running['agent_id']}", force="true").expect(200)
    context = f"/api/context/{issue}/go-specialist"
    until(lambda: api.get(context).expect(200).json["cache_hit"], what="the cache is used")
    after = until(lambda: status() if status()["agents"]["active"] == 0 else None, what="no agent is active")
    agents = after["agents"]
    assert (agents["spawned_total"], agents["completed"]) == (3, 1)
    assert agents["failed"] >= 1
    assert agents["queued"] == 0
    assert agents["avg_execution_time_ms"] > 0
    assert after["storage"]["results_stored"] >= 2
    assert after["storage"]["context_cache_entries"] >= 1
    assert after["storage"]["total_size_mb"] > 0
    assert 0 < after["storage"]["cache_hit_rate"] <= 1
    assert after["events"]["total_published"] >= before["events"]["total_published"] + 5
    assert {"total_delivered", "active_subscriptions", "queue_depth", "avg_delivery_time_ms"} <= set(after["events"])
    assert after["events"]["dead_letter_queue_size"] == 0
    performance = after["performance"]
    assert performance["avg_response_time_ms"] > 0
    assert performance["p95_response_time_ms"] <= performance["p99_response_time_ms"]
    assert performance["requests_per_second"] > 0
    assert "errors_per_minute" in performance


def test_open_documents_name_no_project_or_issue(sidecar: Server, issue: str) -> None:
    """They are open to every user of the machine."""
    api = sidecar.api()
    api.get(f"/api/context/{issue}/go-specialist").expect(200)
    api.post(f"/api/events/kind-{issue}", {"topic": "testing", "data": {}}).expect(202)
    for path in ("/health", "/status", "/metrics"):
        text = sidecar.anonymous().get(path).expect(200).body.decode()
        assert issue not in text
        assert '"sample"' not in text


@pytest.mark.smoke
def test_metrics_are_prometheus_text_that_counts(sidecar: Server) -> None:
    """The names of the contract, and a counter that moves."""
    anonymous = sidecar.anonymous()

    def requests() -> float:
        text = anonymous.get("/metrics").expect(200).body.decode()
        return sum(
            float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith("sidecar_requests_total")
        )

    # A counter with labels has no line before its first request.
    anonymous.get("/status").expect(200)
    answer = anonymous.get("/metrics").expect(200)
    assert answer.headers["Content-Type"].startswith("text/plain")
    text = answer.body.decode()
    for name in (
        "sidecar_requests_total",
        "sidecar_request_duration_seconds_bucket",
        "sidecar_active_agents",
        "sidecar_events_published_total",
        "sidecar_cache_hits_total",
        "sidecar_cache_misses_total",
        "sidecar_storage_bytes",
    ):
        assert re.search(rf"^{name}[ {{]", text, re.MULTILINE), name
    before = requests()
    for _ in range(5):
        anonymous.get("/health")
    assert requests() >= before + 5


@pytest.mark.critical
def test_the_openapi_document_has_every_endpoint(sidecar: Server) -> None:
    """A client generated from it must be able to do all that the contract promises."""
    document: dict[str, Any] = sidecar.anonymous().get("/openapi.json").expect(200).json
    assert document["openapi"].startswith("3.")
    served = {unnamed(path): set(methods) for path, methods in document["paths"].items()}
    for path, methods in PATHS.items():
        assert methods <= served.get(unnamed(path), set()), path
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation.get("responses"), f"{method} {path} answers nothing"
            named = {item["name"] for item in operation.get("parameters", []) if item["in"] == "path"}
            assert named == set(re.findall(r"\{(\w+)\}", path)), path
    references = set(
        re.findall(r'"\$ref": ?"#/components/schemas/([^"]+)"', sidecar.anonymous().get("/openapi.json").body.decode())
    )
    assert references <= set(document["components"]["schemas"])


def test_the_documentation_page_needs_nothing_from_elsewhere(sidecar: Server) -> None:
    """A page that loads scripts from a foreign host shows nothing offline and trusts that host."""
    answer = sidecar.anonymous().get("/docs").expect(200)
    assert answer.headers["Content-Type"].startswith("text/html")
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//(?!127\.0\.0\.1)", answer.body.decode())


@pytest.mark.critical
def test_the_119_roles_are_there_with_their_classes(sidecar: Server) -> None:
    """A role lost, or one in the wrong class, changes who may do what."""
    listed = {row["agent_type"]: row for row in sidecar.api().get("/api/profiles").expect(200).json["profiles"]}
    assert len(roster()) == 119
    for role in roster():
        row = listed[role.agent_type]
        assert (row["category"], row["permission_class"]) == (role.category, role.permission_class), role.agent_type


def test_a_profile_is_shown_whole(sidecar: Server) -> None:
    """Instructions and hand-overs, not only the name; an unknown one is 404 with the nearest."""
    api = sidecar.api("context-manager")
    profile = api.get("/api/profiles/python-specialist").expect(200).json
    text = str(profile)
    assert "python-specialist" in text
    assert "test-engineer" in text
    assert "python-specialist" in str(api.get("/api/profiles/python-specialst").refused(404, "AGT_002"))


def test_projects_are_listed_and_registered(sidecar: Server, issue: str, tmp_path: Any) -> None:
    """An operator adds a project to a running sidecar and works in it at once."""
    api = sidecar.api()
    api.post("/api/projects", {"project_id": issue, "path": str(tmp_path)}).expect(201)
    listed = {row["project_id"]: row["path"] for row in api.get("/api/projects").expect(200).json["projects"]}
    assert listed[issue] == str(tmp_path.resolve())
    assert listed["sample"] == str(sidecar.projects["sample"])
    own = sidecar.api("python-specialist", project_id=issue)
    own.post("/api/results", {"issue_id": "i", "result": {"status": "success"}}).expect(201)


def test_a_token_of_an_unknown_project_finds_nothing(sidecar: Server) -> None:
    """Not a 500: a project can be removed while tokens live."""
    api = sidecar.api("python-specialist", project_id="no-such-project")
    assert api.get("/api/context/i/python-specialist").status in (401, 403, 404)


def test_knowledge_tells_no_secrets(sidecar: Server, issue: str) -> None:
    """What every context hides came out when somebody searched what the earlier agent had written."""
    api = sidecar.api("python-specialist")
    word, token = "okapi" + issue.translate(str.maketrans("0123456789-", "ghijklmnopq")), "gh" + "p_" + "Zx9Qw8Er7T" * 4
    result = {"status": "success", "findings": [f"The {word} calls with {token}"]}
    api.post("/api/results", {"issue_id": issue, "result": result}).expect(201)
    api.post("/api/knowledge", {"issue_id": issue, "text": f"{word}: never use {token}"}).expect(201)
    answer = api.get("/api/knowledge/search", q=word).expect(200).json
    assert len(answer["results"]) == 2
    assert all(token not in item["text"] and "[redacted:" in item["text"] for item in answer["results"])


def test_knowledge_of_earlier_work_is_found(sidecar: Server, issue: str) -> None:
    """The next issue should not decide again what was decided."""
    api = sidecar.api("python-specialist")
    # Letters only: a search takes words apart at digits, and any part may match.
    word = "zebra" + issue.translate(str.maketrans("0123456789-", "ghijklmnopq"))
    result = {"status": "success", "decisions": [f"Use the {word} protocol"], "warnings": [f"{word} is slow"]}
    stored = api.post("/api/results", {"issue_id": issue, "result": result}).expect(201).json
    answer = api.get("/api/knowledge/search", q=word, limit=10).expect(200).json
    found = next(value for value in answer.values() if isinstance(value, list))
    assert {item["result_id"] for item in found} == {stored["id"]}
    assert len(found) == 2
    other = sidecar.api("python-specialist", project_id="other").get("/api/knowledge/search", q=word).expect(200).json
    assert next(value for value in other.values() if isinstance(value, list)) == []
    for odd in ('"', "a AND", "*", "NEAR(", "ä' OR 1=1 --"):
        api.get("/api/knowledge/search", q=odd).expect(200)

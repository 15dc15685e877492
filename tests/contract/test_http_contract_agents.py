"""Contract section 3, endpoint 5, and the agents of sections 4 and 5."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt
import pytest

from tests.support.agents import agent, ended, say_result, shell, spawn
from tests.support.http import Api
from tests.support.processes import assert_no_survivors, processes_with
from tests.support.server import Server
from tests.support.waiting import until

ENDS = ("agent_completed", "agent_failed", "agent_killed")


def ends_of(api: Api, agent_id: str) -> list[Any]:
    """The end events of an agent."""
    page = api.get("/api/events", type=",".join(ENDS), filter=f"agent_id:{agent_id}").expect(200).json
    return list(page["events"])


@pytest.mark.smoke
def test_spawning_starts_a_process_and_tells_all(sidecar: Server, issue: str) -> None:
    """The 201 is the caller's only handle on the agent."""
    api = sidecar.api()
    answer = spawn(api, issue, "sleep 60")
    assert {"agent_id", "spawned", "process_id", "context_injected", "jwt_token", "webhook_url", "timestamp"} <= set(
        answer
    )
    assert answer["spawned"] is True
    assert answer["context_injected"] is True
    assert answer["webhook_url"] == f"/api/agents/{answer['agent_id']}/status"
    assert Path(f"/proc/{answer['process_id']}").exists() or sys.platform != "linux"
    claims = jwt.decode(answer["jwt_token"], options={"verify_signature": False})
    assert (claims["sub"], claims["agent_type"], claims["project_id"]) == (
        answer["agent_id"],
        "python-specialist",
        "sample",
    )
    record = agent(api, answer["agent_id"])
    assert record["status"] == "running"
    assert record["process_id"] == answer["process_id"]
    assert record["attempt"] == 1
    short = api.get(answer["webhook_url"]).expect(200).json
    assert short["status"] == "running"
    final = api.delete(f"/api/agents/{answer['agent_id']}", timeout=1).expect(200).json
    assert final["status"] == "killed"
    assert_no_survivors(answer["agent_id"], timeout_s=0)


@pytest.mark.critical
def test_the_spawn_of_a_client_that_hangs_up_is_carried_out(sidecar: Server, issue: str) -> None:
    """The spawn was given up wherever it was: no agent at all, or one that nobody had heard of."""
    api = sidecar.api()
    body = {"agent_type": "python-specialist", "issue_id": issue, "task": "t", "command": shell(say_result())}
    content = json.dumps(body).encode()
    head = (
        f"POST /api/agents/spawn HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {sidecar.token()}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", urlsplit(sidecar.url).port)) as connection:
            connection.sendall(head.encode() + content)

    def agents() -> Any:
        found = api.get("/api/agents", issue_id=issue).expect(200).json["agents"]
        return found if len(found) == 5 and all(one["status"] == "completed" for one in found) else None

    until(agents, timeout_s=30, what="all five agents run to their end")


@pytest.mark.critical
def test_a_result_by_pipe_is_the_attempts_one_result(sidecar: Server, issue: str) -> None:
    """One attempt, one result, one end; earlier ones are kept as rounds and the exit adds none."""
    api = sidecar.api()
    script = f"{say_result(metrics={'n': 1})}; {say_result(metrics={'n': 2})}; echo done"
    record = ended(api, spawn(api, issue, script)["agent_id"])
    assert record["status"] == "completed"
    assert record["exit_code"] == 0
    rows = api.get("/api/results", issue_id=issue).expect(200).json["results"]
    assert sorted((row["round"], row["result"]["metrics"]["n"]) for row in rows) == [(1, 1), (2, 2)]
    assert record["result_id"] == next(row["id"] for row in rows if row["result"]["metrics"]["n"] == 2)
    (end,) = ends_of(api, record["agent_id"])
    assert end["event_type"] == "agent_completed"
    assert end["topic"] == "coordination"
    assert {"agent_id", "agent_type", "issue_id", "status", "result_id", "exit_code"} <= set(end["data"])
    assert end["data"]["result_id"] == record["result_id"]
    assert record["usage"]["cpu_seconds"] >= 0
    assert record["usage"]["max_rss_bytes"] > 0


#: Script -> (status, exit code, signal, status of the result, end event).
ENDINGS: dict[str, tuple[str, int | None, int | None, str, str]] = {
    "echo all is well": ("completed", 0, None, "success", "agent_completed"),
    "echo the cause >&2; exit 7": ("failed", 7, None, "failed", "agent_failed"),
    "kill -SEGV $$": ("failed", None, 11, "failed", "agent_failed"),
    "kill -KILL $$": ("failed", None, 9, "failed", "agent_failed"),
}


@pytest.mark.critical
@pytest.mark.parametrize(("script", "expected"), ENDINGS.items(), ids=ENDINGS.keys())
def test_an_exit_without_a_result_makes_one(
    sidecar: Server, issue: str, script: str, expected: tuple[Any, ...]
) -> None:
    """An agent that crashes silently must leave a record with its output's tail."""
    api = sidecar.api()
    record = ended(api, spawn(api, issue, script)["agent_id"])
    status, exit_code, signal, result_status, event = expected
    assert (record["status"], record["exit_code"], record["signal"]) == (status, exit_code, signal)
    result = api.get(f"/api/results/{record['result_id']}").expect(200).json["result"]
    assert result["status"] == result_status
    if "echo" in script:
        assert "all is well" in str(result) or "the cause" in str(result)
    assert [end["event_type"] for end in ends_of(api, record["agent_id"])] == [event]


def test_a_time_limit_ends_the_whole_tree(sidecar: Server, issue: str) -> None:
    """``timed_out`` with a child left over would be a leak with a name."""
    api = sidecar.api()
    answer = spawn(api, issue, "sleep 300 & sleep 300", timeout_seconds=1)
    record = ended(api, answer["agent_id"])
    assert record["status"] == "timed_out"
    assert_no_survivors(answer["agent_id"], timeout_s=0)
    assert [end["event_type"] for end in ends_of(api, answer["agent_id"])] == ["agent_failed"]


@pytest.mark.critical
@pytest.mark.parametrize(
    "script",
    [
        "sleep 300",
        "trap '' TERM; while :; do sleep 1; done",
        "sh -c 'sleep 300' & sleep 300 & wait",
        "setsid sleep 300 & setsid sh -c 'sleep 300 & sleep 300' & wait",
        "kill -STOP $$",
    ],
)
def test_delete_answers_when_nothing_is_left(sidecar: Server, issue: str, script: str) -> None:
    """An agent that ignores TERM, forks or leaves its session must still be gone when the answer comes."""
    api = sidecar.api()
    answer = spawn(api, issue, script)
    until(lambda: processes_with(answer["agent_id"]), what="the agent runs")
    api.delete(f"/api/agents/{answer['agent_id']}", timeout=0.5).expect(200)
    assert_no_survivors(answer["agent_id"], timeout_s=0)
    record = agent(api, answer["agent_id"])
    assert record["status"] == "killed"
    assert [end["event_type"] for end in ends_of(api, answer["agent_id"])] == ["agent_killed"]
    api.delete(f"/api/agents/{answer['agent_id']}").expect(200, 409)


def test_the_token_of_an_ended_agent_is_dead(sidecar: Server, issue: str) -> None:
    """A token that outlives its agent is a token nobody watches."""
    api = sidecar.api()
    answer = spawn(api, issue, "sleep 60")
    own = sidecar.api(token=answer["jwt_token"])
    own.get("/api/results").expect(200)
    api.delete(f"/api/agents/{answer['agent_id']}", force="true").expect(200)
    own.get("/api/results").refused(401, "AUTH_001")
    own.post("/api/tokens/refresh").refused(401, "AUTH_001")


# -- bad requests -----------------------------------------------------------------------------


@pytest.mark.critical
def test_a_command_that_cannot_start_is_named_and_leaves_nothing(sidecar: Server, issue: str, tmp_path: Path) -> None:
    """A failed start must not count as an agent, nor leave its files."""
    api = sidecar.api()
    plain = tmp_path / "plain.txt"
    plain.write_text("not a program")
    before = set(sidecar.storage.glob("agents/*"))  # there is no such directory before the first agent
    for program in ("/nowhere/program", "no-such-program-anywhere", str(plain)):
        body = {"agent_type": "python-specialist", "issue_id": issue, "task": "t", "command": [program]}
        error = api.post("/api/agents/spawn", body).refused(500, "AGT_001")
        assert program in error["message"]
    active = [
        row
        for row in api.get("/api/agents", issue_id=issue).expect(200).json["agents"]
        if row["status"] in ("queued", "starting", "running")
    ]
    assert active == []
    assert set(sidecar.storage.glob("agents/*")) == before


BAD_SPAWNS: dict[str, tuple[dict[str, Any], int, str | None]] = {
    "unknown role": ({"agent_type": "python-specalist"}, 404, "AGT_002"),
    "no task": ({"task": None}, 400, "REQ_001"),
    "bad environment name": ({"environment": {"A=B": "x"}}, 400, "REQ_001"),
    "loader variable": ({"environment": {"LD_PRELOAD": "/x.so"}}, 400, "REQ_001"),
    "own variable": ({"environment": {"AGENT_ID": "x"}}, 400, "REQ_001"),
    "environment value": ({"environment": {"A": 5}}, 400, "REQ_001"),
    "priority": ({"priority": "urgent"}, 400, "REQ_001"),
    "restart": ({"restart": "sometimes"}, 400, "REQ_001"),
    "timeout": ({"timeout_seconds": 0}, 400, "REQ_001"),
    "runtime": ({"runtime": "no-such-runtime"}, 400, "REQ_001"),
    "workspace": ({"workspace": "elsewhere"}, 400, "REQ_001"),
    "empty command": ({"command": []}, 400, "REQ_001"),
    "command type": ({"command": "ls"}, 400, "REQ_001"),
    "requirement": ({"context_requirements": ["no_such_requirement"]}, 400, "REQ_001"),
    "limits": ({"limits": {"no_such_limit": 1}}, 400, "REQ_001"),
    "no time": ({"limits": {"wall_s": 0}}, 400, "REQ_001"),
    "negative time": ({"limits": {"idle_s": -1}}, 400, "REQ_001"),
    "negative CPU time": ({"limits": {"cpu_s": -1}}, 400, "REQ_001"),
    "no memory": ({"limits": {"memory_bytes": 0}}, 400, "REQ_001"),
    "more memory than a number holds": ({"limits": {"memory_bytes": 10**30}}, 400, "REQ_001"),
    "descriptors that load no program": ({"limits": {"open_files": 3}}, 400, "REQ_001"),
    "no output": ({"limits": {"output_bytes": -1}}, 400, "REQ_001"),
    "a priority above all others": ({"limits": {"nice": -5}}, 400, "REQ_001"),
}


@pytest.mark.parametrize(("change", "status", "code"), BAD_SPAWNS.values(), ids=BAD_SPAWNS.keys())
def test_a_bad_spawn_is_refused(
    sidecar: Server, issue: str, change: dict[str, Any], status: int, code: str | None
) -> None:
    """What is not checked here is a process started wrongly."""
    body = {"agent_type": "python-specialist", "issue_id": issue, "task": "t", "command": ["true"]} | change
    sidecar.api().post("/api/agents/spawn", body).refused(status, code)


@pytest.mark.critical
def test_only_an_operator_names_a_command(sidecar: Server, issue: str) -> None:
    """Otherwise every architect's token is a shell."""
    body = {"agent_type": "python-specialist", "issue_id": issue, "task": "t", "command": ["true"]}
    sidecar.api("chief-architect").post("/api/agents/spawn", body).refused(403, "AUTH_003")


@pytest.mark.parametrize(
    "name",
    ["PATH", "HOME", "PYTHONPATH", "NODE_OPTIONS", "PERL5OPT", "RUBYOPT", "GIT_SSH_COMMAND", "BASH_ENV", "ENV",
     "JAVA_TOOL_OPTIONS", "npm_config_node_options", "GIT_CONFIG_COUNT", "EDITOR"],
)  # fmt: skip
def test_only_an_operator_chooses_what_a_roles_command_runs(sidecar: Server, issue: str, name: str) -> None:
    """An architect put a directory of its own before the others in PATH, and its program ran as the role's command."""
    body = {"agent_type": "python-specialist", "issue_id": issue, "task": "t", "environment": {name: "/tmp/bin"}}
    refused = sidecar.api("chief-architect").post("/api/agents/spawn", body).refused(400, "REQ_001")
    assert refused["details"]["field"] == f"environment.{name}"
    assert not sidecar.api().get("/api/agents", issue_id=issue).expect(200).json["agents"]


def test_an_architect_may_still_set_what_commands_nothing(sidecar: Server, issue: str) -> None:
    """A refusal by prefixes must not take an author's name with it; an operator's PATH stays."""
    names = {"GIT_AUTHOR_NAME": "A", "EXTRA": "e"}
    body = {"agent_type": "python-specialist", "issue_id": issue, "task": "t", "environment": names}
    sidecar.api("chief-architect").post("/api/agents/spawn", body).expect(201)
    answer = spawn(sidecar.api(), issue, 'test "$PATH" = /usr/bin:/bin', environment={"PATH": "/usr/bin:/bin"})
    assert ended(sidecar.api(), answer["agent_id"])["exit_code"] == 0


def test_only_an_operator_takes_the_sandbox_from_a_role(server: Server, issue: str) -> None:
    """A role that its profile shuts into a sandbox ran outside of it when an architect asked for that."""
    directory = server.projects["sample"] / ".orchestrator" / "profiles"
    directory.mkdir(parents=True)
    role = "---\nname: shut-in\nruntime: jsonl\ncommand: ['true']\nsandbox: workspace\n---\nDo it.\n"
    (directory / "shut-in.md").write_text(role)
    body = {"agent_type": "shut-in", "issue_id": issue, "task": "t", "sandbox": "none"}
    server.stop()
    server.start()
    refused = server.api("chief-architect").post("/api/agents/spawn", body).refused(403, "AUTH_003")
    assert refused["details"]["field"] == "sandbox"
    answer = server.api().post("/api/agents/spawn", body).expect(201).json
    assert ended(server.api(), answer["agent_id"])["exit_code"] == 0
    # What is no less than the profile's own is no affair of an operator's.
    body |= {"agent_type": "python-specialist"}
    server.api("chief-architect").post("/api/agents/spawn", body).expect(201)


# -- lists ------------------------------------------------------------------------------------


def test_agents_are_listed_and_filtered(sidecar: Server, issue: str) -> None:
    """Pages neither lose nor repeat an agent; filters mean what they say."""
    api = sidecar.api()
    ids = [
        spawn(api, issue, f"exit {number % 2}", agent_type=role)["agent_id"]
        for number, role in enumerate(("go-specialist", "rust-specialist", "go-specialist"))
    ]
    for agent_id in ids:
        ended(api, agent_id)
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(5):
        page = api.get("/api/agents", issue_id=issue, limit=2, cursor=cursor).expect(200).json
        seen += [row["agent_id"] for row in page["agents"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert sorted(seen) == sorted(ids)
    by_type = api.get("/api/agents", issue_id=issue, agent_type="rust-specialist").json["agents"]
    assert [row["agent_id"] for row in by_type] == [ids[1]]
    failed = api.get("/api/agents", issue_id=issue, status="failed").json["agents"]
    assert [row["agent_id"] for row in failed] == [ids[1]]


def test_another_projects_agent_is_not_found(sidecar: Server, issue: str) -> None:
    """Neither to read, nor to feed, nor to end."""
    api = sidecar.api()
    answer = spawn(api, issue, "sleep 60", project_id="other")
    stranger = sidecar.api("chief-architect")
    path = f"/api/agents/{answer['agent_id']}"
    for response in (
        stranger.get(path),
        stranger.get(f"{path}/status"),
        stranger.get(f"{path}/output"),
        stranger.post(f"{path}/input", {"text": "x"}),
        stranger.delete(path),
    ):
        response.refused(404, "AGT_003")
    owner = sidecar.api("chief-architect", project_id="other")
    assert owner.get(path).expect(200).json["status"] == "running"
    owner.delete(path, force="true").expect(200)


def test_a_python_agent_needs_no_interpreter_start(sidecar: Server, issue: str) -> None:
    """The runtime of the built-in analysts: a function in a warm forked child, with the same pipes and ends."""
    api = sidecar.api()
    body = {"agent_type": "chief-architect", "issue_id": issue, "task": "Describe this project", "runtime": "python"}
    record = ended(api, api.post("/api/agents/spawn", body).expect(201).json["agent_id"], timeout_s=90)
    assert record["status"] == "completed", record
    result = api.get(f"/api/results/{record['result_id']}").expect(200).json["result"]
    assert result["status"] == "success"
    assert "python" in str(result).lower()

"""Contract section 5: what an agent's process is given, and what its pipes mean."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.agents import ended, output, say, shell, spawn
from tests.support.repo import git
from tests.support.server import Server


@pytest.mark.critical
def test_the_environment_is_what_the_contract_lists(sidecar: Server, issue: str) -> None:
    """Anything more may be a secret of the person who started the sidecar."""
    api = sidecar.api()
    answer = spawn(api, issue, "env -0; exec cat /proc/self/environ >/dev/null", environment={"EXTRA": "yes ä"})
    record = ended(api, answer["agent_id"])
    text = output(api, record["agent_id"]).decode()
    environment = dict(part.split("=", 1) for part in text.split("\0") if part)
    assert environment["AGENT_ID"] == record["agent_id"]
    assert environment["AGENT_TYPE"] == "python-specialist"
    assert environment["ISSUE_ID"] == issue
    assert environment["PROJECT_ID"] == "sample"
    assert environment["SIDECAR_URL"] == f"{sidecar.url}/api"
    assert environment["JWT_TOKEN"] == answer["jwt_token"]
    assert environment["AGENT_TASK"] == "a test"
    assert environment["AGENT_WORKSPACE"] == str(sidecar.projects["sample"])
    assert environment["EXTRA"] == "yes ä"
    assert environment["TRACEPARENT"].count("-") == 3
    allowed = {"PATH", "HOME", "USER", "SHELL", "LANG", "TZ", "TMPDIR", "EXTRA", "PWD", "SHLVL", "_", "OLDPWD"}
    others = {name for name in environment if name not in allowed and not name.startswith(("LC_", "AGENT_"))}
    assert others <= {"ISSUE_ID", "PROJECT_ID", "SIDECAR_URL", "JWT_TOKEN", "TRACEPARENT", "ORCHESTRATOR_AGENT_NONCE"}


def test_the_context_files_are_complete_before_the_start(sidecar: Server, issue: str) -> None:
    """An agent reads them in its first line."""
    api = sidecar.api()
    script = 'cd "$(dirname "$AGENT_CONTEXT_FILE")" && ls && cat task.md && test -s CONTEXT.md && cat context.json'
    record = ended(api, spawn(api, issue, script, agent_type="go-specialist")["agent_id"])
    assert record["status"] == "completed"
    directory = sidecar.storage / "agents" / record["agent_id"]
    assert directory.stat().st_mode & 0o777 == 0o700
    names = {"context.json", "CONTEXT.md", "task.md", "profile.json", "mcp.json"}
    assert names <= {path.name for path in directory.iterdir()}
    assert all((directory / name).stat().st_mode & 0o777 == 0o600 for name in names)
    text = output(api, record["agent_id"]).decode()
    assert "a test" in text
    assert '"go-specialist"' in text
    assert "ledger/accounts.py" in text


def test_pipes_and_nothing_else_are_open(sidecar: Server, issue: str) -> None:
    """An inherited descriptor is a door to the sidecar's database."""
    api = sidecar.api()
    record = ended(api, spawn(api, issue, "ls /proc/self/fd | tr '\\n' ' '")["agent_id"])
    # The listing itself holds 3.
    assert output(api, record["agent_id"]).split() == [b"0", b"1", b"2", b"3"]


@pytest.mark.parametrize("kind", ["shared", "scratch", "worktree"])
def test_the_workspace_is_the_one_asked_for(sidecar: Server, issue: str, kind: str) -> None:
    """Two agents that write into one tree undo each other's work."""
    api = sidecar.api()
    script = 'test "$(pwd -P)" = "$(cd "$AGENT_WORKSPACE" && pwd -P)" && pwd -P && ls -A'
    record = ended(api, spawn(api, issue, script, workspace=kind)["agent_id"])
    assert record["status"] == "completed"
    where, *names = output(api, record["agent_id"]).decode().splitlines()
    project = str(sidecar.projects["sample"])
    assert (where == project) is (kind == "shared")
    if kind == "scratch":
        assert names == []
    if kind == "worktree":
        assert "ledger" in names
        assert where in git(sidecar.projects["sample"], "worktree", "list") or not Path(where).exists()


# -- pipes ------------------------------------------------------------------------------------


def test_events_by_pipe_are_published_in_the_agents_name(sidecar: Server, issue: str) -> None:
    """Identity comes from the pipe, whatever the line claims."""
    api = sidecar.api()
    event = {"type": "event", "event_type": "found", "topic": "testing", "data": {"issue": issue, "agent_id": "forged"}}
    record = ended(api, spawn(api, issue, f"{say(event)}; {say({'type': 'progress', 'message': 'm'})}")["agent_id"])
    page = api.get("/api/events", type="found", filter=f"data.issue:{issue}").expect(200).json
    if not page["events"]:
        page = api.get("/api/events", type="found", filter=f"issue:{issue}").expect(200).json
    (published,) = page["events"]
    assert published["publisher"] == record["agent_id"]


@pytest.mark.critical
def test_no_output_is_lost_or_reordered(sidecar: Server, issue: str) -> None:
    """3 MB of numbered lines, and bytes that are no text."""
    api = sidecar.api()
    code = (
        "import os, sys\n[sys.stdout.write(f'{n}\\n') for n in range(400000)]\n"
        "sys.stdout.flush()\nos.write(1, bytes(range(256)))"
    )
    body = {"agent_type": "python-specialist", "issue_id": issue, "task": "t", "command": [sys.executable, "-c", code]}
    record = ended(api, api.post("/api/agents/spawn", body).expect(201).json["agent_id"])
    expected = "".join(f"{number}\n" for number in range(400000)).encode() + bytes(range(256))
    assert output(api, record["agent_id"]) == expected
    assert (sidecar.storage / "agents" / record["agent_id"] / "stdout.log").read_bytes() == expected
    answer = api.get(f"/api/agents/{record['agent_id']}/output", stream="stdout", since=10).expect(200)
    assert answer.body == expected[10 : 10 + len(answer.body)]
    assert len(answer.body) <= 1 << 20
    assert int(answer.headers["X-Next-Offset"]) == 10 + len(answer.body)


def test_odd_lines_do_not_stop_the_reader(sidecar: Server, issue: str) -> None:
    """Deep nesting, huge numbers, lone surrogates, NaN and torn lines have each killed a reader."""
    api = sidecar.api()
    code = (
        "import sys\nw = sys.stdout.write\n"
        'w(\'{"type":"result",\' + \'[\' * 100000 + \'\\n\')\nw(\'{"type":"result","result":{"status":"success",'
        '"metrics":{"x":NaN}}}\\n\')\nw(\'{"type":"result","n":\' + \'9\' * 5000 + \'}\\n\')\n'
        'w(\'{"type":"log","message":"\\\\ud800"}\\n\')\nw(\'x\' * 2000000 + \'\\n\')\n'
        'w(\'{"type":"result","result":{"status":"success","metrics":{"right":1}}}\\n\')\n'
        'w(\'{"type":"result","result":{"status":"failed"\')\n'
    )
    body = {"agent_type": "python-specialist", "issue_id": issue, "task": "t", "command": [sys.executable, "-c", code]}
    record = ended(api, api.post("/api/agents/spawn", body).expect(201).json["agent_id"])
    assert record["status"] == "completed"
    rows = api.get("/api/results", issue_id=issue).expect(200).json["results"]
    assert [row["result"].get("metrics") for row in rows] == [{"right": 1}]


def test_a_message_reaches_the_agent(sidecar: Server, issue: str) -> None:
    """``input`` is how an operator answers an agent's question."""
    api = sidecar.api()
    answer = spawn(
        api, issue, "while read -r line; do case $line in *hello*) printf '%s' \"$line\"; exit 0;; esac; done"
    )
    receipt = api.post(f"/api/agents/{answer['agent_id']}/input", {"text": "hello \u2028 you"}).expect(202).json
    assert receipt["message_id"]
    assert receipt["state"]
    record = ended(api, answer["agent_id"])
    assert record["exit_code"] == 0
    said = output(api, record["agent_id"])
    assert receipt["message_id"].encode() in said
    api.post(f"/api/agents/{answer['agent_id']}/input", {"text": "too late"}).refused(409)


def test_agents_keep_the_users_umask(sidecar: Server, issue: str) -> None:
    """What an agent writes into a project belongs to the project, with the project's modes."""
    api = sidecar.api()
    record = ended(api, spawn(api, issue, "umask", workspace="scratch")["agent_id"])
    own = subprocess.run(shell("umask"), capture_output=True, check=True, env=os.environ).stdout
    assert output(api, record["agent_id"]) == own

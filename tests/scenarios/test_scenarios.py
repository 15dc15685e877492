"""The mission's scenarios, one test each, against a running sidecar with real agents.

The load of the concurrency scenario is in ``test_concurrency.py``.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from api.client import Client, ResultBuffer, Retry, SidecarUnavailable
from tests.support.agents import agent, ended, output, say, say_result, spawn
from tests.support.repo import sample_repository, write_files
from tests.support.server import Server, orchestrator
from tests.support.waiting import until


@pytest.mark.smoke
def test_01_a_spawned_agent_has_its_context(sidecar: Server, issue: str) -> None:
    """Spawn to context: what the agent reads from its file is what the API answers for it."""
    api = sidecar.api()
    script = 'cat "$AGENT_CONTEXT_FILE"'
    answer = spawn(api, issue, script, agent_type="go-specialist", task="Explain accounts.py")
    assert answer["context_injected"] is True
    record = ended(api, answer["agent_id"])
    injected = json.loads(output(api, record["agent_id"]))
    asked = api.get(f"/api/context/{issue}/go-specialist", task="Explain accounts.py").expect(200).json
    assert injected["agent_type"] == "go-specialist"
    for part in ("relevant_files", "project_structure", "metadata"):
        assert injected["context"][part] == asked["context"][part]
    assert "ledger/accounts.py" in [entry["path"] for entry in injected["context"]["relevant_files"]]


@pytest.mark.smoke
def test_02_an_executed_agent_leaves_its_result(sidecar: Server, issue: str) -> None:
    """Execute to result: by pipe, durable, announced, readable by API and as a file."""
    api = sidecar.api()
    told = say_result(decisions=["Use integers"], metrics={"n": 42})
    record = ended(api, spawn(api, issue, f"echo working; {told}")["agent_id"])
    assert record["status"] == "completed"
    result = api.get(f"/api/results/{record['result_id']}").expect(200).json
    assert result["agent_id"] == record["agent_id"]
    assert result["result"]["metrics"] == {"n": 42}
    (row,) = api.get("/api/results", issue_id=issue).json["results"]
    assert row["id"] == record["result_id"]
    path = sidecar.storage / "results" / "sample" / issue / "python-specialist.json"
    assert json.loads(path.read_text())["result"]["decisions"] == ["Use integers"]
    events = api.get("/api/events", type="agent_completed", filter=f"agent_id:{record['agent_id']}").json["events"]
    assert [event["data"]["result_id"] for event in events] == [record["result_id"]]


@pytest.mark.critical
def test_03_agents_work_in_rounds(sidecar: Server, issue: str) -> None:
    """Multi-round: a coder, a reviewer who rejects, the coder again, the reviewer who accepts; each sees the last."""
    api = sidecar.api()
    verdicts = []
    for number in (1, 2):
        said = say_result(decisions=[f"draft {number}"], files_modified=["ledger/money.py"])
        coder = ended(api, spawn(api, issue, f'cat "$AGENT_CONTEXT_FILE" >&2; {said}')["agent_id"])
        seen_by_coder = output(api, coder["agent_id"], "stderr").decode()
        verdict = "accepted" if number == 2 else "rejected"
        script = f'grep -q "draft {number}" "$AGENT_CONTEXT_FILE" && {say_result(decisions=[verdict])}'
        reviewer = ended(api, spawn(api, issue, script, agent_type="code-reviewer")["agent_id"])
        assert reviewer["status"] == "completed", "the reviewer does not see the draft"
        verdicts.append(seen_by_coder)
    assert "rejected" not in verdicts[0]
    assert "rejected" in verdicts[1]
    rows = api.get("/api/results", issue_id=issue).expect(200).json["results"]
    rounds = {(row["agent_type"], row["round"]): row["result"]["decisions"] for row in rows}
    assert rounds == {
        ("python-specialist", 1): ["draft 1"],
        ("python-specialist", 2): ["draft 2"],
        ("code-reviewer", 1): ["rejected"],
        ("code-reviewer", 2): ["accepted"],
    }


@pytest.mark.critical
def test_04_projects_are_isolated(sidecar: Server, issue: str) -> None:
    """Isolation: same issue, same role, two projects; neither sees anything of the other, not even by its agents."""
    api = sidecar.api()
    ids = {}
    for project in ("sample", "other"):
        script = f"cat NAME.txt; {say_result(decisions=[f'of {project}'])}; {say_event(project)}"
        answer = spawn(api, issue, script, project_id=project)
        ids[project] = ended(sidecar.api(project_id=project), answer["agent_id"])["agent_id"]
    for project, foreign in (("sample", "other"), ("other", "sample")):
        own = sidecar.api("python-specialist", project_id=project)
        rows = own.get("/api/results", issue_id=issue).expect(200).json["results"]
        assert [row["result"]["decisions"] for row in rows] == [[f"of {project}"]]
        events = own.get("/api/events", type="isolated", filter=f"of:{foreign}").expect(200).json["events"]
        assert events == []
        own.get(f"/api/agents/{ids[foreign]}").refused(404)
        own.get(f"/api/agents/{ids[foreign]}/output").refused(404)
        text = own.get(f"/api/context/{issue}/python-specialist", refresh="true").expect(200).body.decode()
        assert f"of {foreign}" not in text
        name = {"sample": b"ledger", "other": b"other"}[project]
        assert output(own, ids[project]).startswith(name)


def say_event(project: str) -> str:
    """A shell command that publishes an event of this project."""
    return say({"type": "event", "event_type": "isolated", "topic": "testing", "data": {"of": project}})


@pytest.mark.critical
def test_05_an_agent_that_fails_is_restarted_and_recovers(sidecar: Server, issue: str) -> None:
    """Error recovery: fails twice, succeeds the third time; every attempt leaves its end, the last one counts."""
    api = sidecar.api()
    script = (
        "count=$(cat attempts 2>/dev/null || echo 0); count=$((count + 1)); echo $count > attempts; "
        f'if [ $count -lt 3 ]; then echo "broken $count" >&2; exit 9; fi; {say_result(metrics={"n": 3})}'
    )
    answer = spawn(api, issue, script, restart="on-failure", workspace="scratch")
    record = until(
        lambda: agent(api, answer["agent_id"]) if agent(api, answer["agent_id"])["status"] == "completed" else None,
        timeout_s=60,
        what=lambda: f"recovered: {agent(api, answer['agent_id'])}",
    )
    assert record["attempt"] == 3
    assert api.get(f"/api/results/{record['result_id']}").json["result"]["metrics"] == {"n": 3}
    page = api.get("/api/events", type="agent_failed,agent_restarted,agent_completed,agent_killed", limit=1000)
    kinds = [
        event["event_type"] for event in page.json["events"] if event["data"].get("agent_id") == answer["agent_id"]
    ]
    assert kinds.count("agent_failed") == 2
    assert kinds.count("agent_completed") == 1
    assert kinds.count("agent_restarted") == 2
    rows = api.get("/api/results", issue_id=issue).json["results"]
    assert sorted(row["result"]["status"] for row in rows) == ["failed", "failed", "success"]


@pytest.mark.smoke
def test_06_agents_work_at_the_same_time(sidecar: Server, issue: str) -> None:
    """Concurrency: six agents that each wait for the others' files; one after the other they would never end."""
    api = sidecar.api()
    count = 6
    script = (
        'touch "$MEETING/$NUMBER"; while [ "$(ls "$MEETING" | wc -l)" -lt ' + str(count) + " ]; do sleep 0.05; done"
    )
    meeting = sidecar.storage.parent / f"meeting-{issue}"
    meeting.mkdir()
    ids = [
        spawn(api, issue, script, timeout_seconds=40, environment={"MEETING": str(meeting), "NUMBER": str(number)})[
            "agent_id"
        ]
        for number in range(count)
    ]
    assert {ended(api, agent_id, timeout_s=60)["status"] for agent_id in ids} == {"completed"}


@pytest.mark.critical
def test_07_agents_talk_by_events(sidecar: Server, issue: str) -> None:
    """Pub/sub: one agent publishes by its pipe, another hears it by a long poll with its own token and answers."""
    api = sidecar.api()
    listener = (
        "import json, os, urllib.request\n"
        "url = os.environ['SIDECAR_URL'] + '/events/wait/ready?timeout=30000&filter=issue:' + os.environ['ISSUE_ID']\n"
        "headers = {'Authorization': 'Bearer ' + os.environ['JWT_TOKEN']}\n"
        "answer = json.load(urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60))\n"
        "data = answer['events'][0]['data']\n"
        "print(json.dumps({'type': 'result', 'result': {'status': 'success', 'artifacts': {'heard': data}}}))\n"
    )
    body = {
        "agent_type": "test-engineer",
        "issue_id": issue,
        "task": "listen",
        "command": [sys.executable, "-c", listener],
    }
    hearing = api.post("/api/agents/spawn", body).expect(201).json["agent_id"]
    event = {"type": "event", "event_type": "ready", "topic": "implementation", "data": {"issue": issue, "n": 7}}
    ended(api, spawn(api, issue, say(event))["agent_id"])
    record = ended(api, hearing, timeout_s=60)
    assert record["status"] == "completed", output(api, hearing, "stderr")
    heard = api.get(f"/api/results/{record['result_id']}").json["result"]["artifacts"]["heard"]
    assert heard == {"issue": issue, "n": 7}


@pytest.mark.critical
def test_08_an_agent_that_asks_too_much_is_slowed(server: Server, issue: str) -> None:
    """Rate limits: a spawned agent is told when to come again, comes then, and is served; others are not slowed."""
    api = server.api()
    greedy = (
        "import os, sys, time, urllib.error, urllib.request\n"
        "request = urllib.request.Request(os.environ['SIDECAR_URL'] + '/results',\n"
        "    headers={'Authorization': 'Bearer ' + os.environ['JWT_TOKEN']})\n"
        "for n in range(200):\n"
        "    try:\n        urllib.request.urlopen(request).read()\n"
        "    except urllib.error.HTTPError as error:\n"
        "        error.read()\n        assert error.code == 429, error.code\n        print('slowed', n, flush=True)\n"
        "        time.sleep(int(error.headers['Retry-After']))\n"
        "        urllib.request.urlopen(request).read()\n        print('served')\n        sys.exit(0)\n"
        "sys.exit(1)\n"
    )
    body = {
        "agent_type": "python-specialist",
        "issue_id": issue,
        "task": "t",
        "command": [sys.executable, "-c", greedy],
    }
    record = ended(api, api.post("/api/agents/spawn", body).expect(201).json["agent_id"], timeout_s=60)
    said = output(api, record["agent_id"]).decode().split()
    assert record["exit_code"] == 0, output(api, record["agent_id"], "stderr")
    assert said[0] == "slowed"
    assert int(said[1]) >= 10
    assert said[2] == "served"
    server.api("go-specialist").get("/api/results").expect(200)


@pytest.mark.critical
def test_09_later_agents_know_what_earlier_ones_learned(sidecar: Server, issue: str) -> None:
    """Knowledge: a decision of one issue is found by search from another issue, with the result it came from."""
    api = sidecar.api()
    # Letters only: a search takes words apart at digits, and any part may match.
    word = "quokka" + issue.translate(str.maketrans("0123456789-", "ghijklmnopq"))
    first = ended(api, spawn(api, issue, say_result(decisions=[f"Cache with {word} because it is small"]))["agent_id"])
    asking = (
        "import os, urllib.request\n"
        f"url = os.environ['SIDECAR_URL'] + '/knowledge/search?q={word}'\n"
        "headers = {'Authorization': 'Bearer ' + os.environ['JWT_TOKEN']}\n"
        "print(urllib.request.urlopen(urllib.request.Request(url, headers=headers)).read().decode())\n"
    )
    body = {
        "agent_type": "go-specialist",
        "issue_id": f"{issue}-later",
        "task": "t",
        "command": [sys.executable, "-c", asking],
    }
    later = ended(api, api.post("/api/agents/spawn", body).expect(201).json["agent_id"])
    answer = json.loads(output(api, later["agent_id"]))
    (item,) = next(value for value in answer.values() if isinstance(value, list))
    assert item["result_id"] == first["result_id"]
    assert word in item["text"]


@pytest.mark.critical
def test_10_a_large_project_is_cut_to_the_budget_and_says_so(sidecar: Server, issue: str, tmp_path: Path) -> None:
    """Truncation: 300 files do not fit; the most relevant is there, the rest is named, the answer stays bounded."""
    root = sample_repository(tmp_path / "large")
    filler = "".join(f"VALUE_{number} = {number}\n" for number in range(400))
    write_files(root, {f"filler/part_{number:03}.py": filler for number in range(300)})
    write_files(
        root, {"ledger/rounding.py": '"""Rounding of interest."""\n\n\ndef round_interest() -> int:\n    return 0\n'}
    )
    api = sidecar.api()
    api.post("/api/projects", {"project_id": issue, "path": str(root)}).expect(201)
    own = sidecar.api("python-specialist", project_id=issue)
    task = "round_interest in rounding.py must round half to even"
    document = own.get("/api/context/i/python-specialist", task=task, max_bytes=50_000).expect(200).json
    files = document["context"]["relevant_files"]
    assert document["truncated"] is True
    assert files[0]["path"] == "ledger/rounding.py"
    assert sum(len(entry["content"].encode()) for entry in files) <= 50_000
    assert document["omitted"]
    assert document["context"]["project_structure"]["total_files"] == 310
    whole = own.get("/api/context/i/python-specialist", max_bytes=50_000_000).expect(200)
    assert len(whole.body) <= 10 << 20
    why = "/api/context/i/python-specialist/explain"
    own.get(why, task=task).expect(403)
    explained = api.get(why, task=task, max_bytes=50_000, project_id=issue).expect(200).json
    assert explained["files"][0]["path"] == "ledger/rounding.py"
    assert explained["files"][0]["signals"]
    assert sum(entry["bytes"] for entry in explained["files"]) <= 50_000
    assert explained["omitted"]
    note = "round_interest rounds half to even, said the owner"
    api.post("/api/knowledge", {"project_id": issue, "issue_id": "i", "text": note}).expect(201)
    again = own.get("/api/context/i/python-specialist", task=task, max_bytes=50_000).expect(200).json
    assert note in str(again["context"]["previous_agent_outputs"])


@pytest.mark.critical
def test_11_what_happened_can_be_asked(sidecar: Server, issue: str) -> None:
    """Queries: agents, results and events by issue, role, status and time, by API and by command line."""
    api = sidecar.api()
    for role, script in (
        ("go-specialist", say_result()),
        ("rust-specialist", "exit 4"),
        ("go-specialist", say_result(status="partial")),
    ):
        ended(api, spawn(api, issue, script, agent_type=role)["agent_id"])

    def count(path: str, key: str, **parameters: str) -> int:
        return len(api.get(path, issue_id=issue, headers=None, **parameters).expect(200).json[key])

    assert count("/api/results", "results") == 3
    assert count("/api/results", "results", agent_type="go-specialist") == 2
    assert count("/api/results", "results", status="failed") == 1
    assert count("/api/results", "results", status="partial") == 1
    assert count("/api/agents", "agents", status="completed") == 2
    assert count("/api/agents", "agents", status="failed", agent_type="rust-specialist") == 1
    page = api.get("/api/events", type="agent_completed,agent_failed", filter=f"issue_id:{issue}").json
    assert [event["event_type"] for event in page["events"]] == ["agent_completed", "agent_failed", "agent_completed"]
    done = sidecar.cli("results", "list", "--issue", issue, "--format", "json")
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)
    rows = listed if isinstance(listed, list) else next(value for value in listed.values() if isinstance(value, list))
    assert len(rows) == 3


@pytest.mark.critical
def test_12_work_goes_on_when_the_sidecar_is_away(server: Server, issue: str, tmp_path: Path) -> None:
    """Degradation: the client says clearly that it is away, nothing hangs, and it goes on when it is back."""
    url, token = server.url, server.token("python-specialist")
    waiting = ResultBuffer(tmp_path / "waiting")
    assert server.stop() == 0
    began = time.monotonic()
    with Client(url, token, retry=Retry(attempts=1)) as client:
        with pytest.raises(SidecarUnavailable) as away:
            client.results(issue_id=issue)
        assert url.removeprefix("http://") in str(away.value)
        waiting.put(issue, {"status": "success", "decisions": ["made while it was away"]})
        assert waiting.flush(client).waiting == 1
    assert time.monotonic() - began < 20
    environment = {"ORCHESTRATOR_STORAGE": str(server.storage), "ORCHESTRATOR_URL": url}
    done = orchestrator("results", "list", environment=environment)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    server.restart()
    with Client(server.url, token) as client:
        flushed = waiting.flush(client)
    assert (len(flushed.stored), flushed.waiting) == (1, 0)
    (row,) = server.api("python-specialist").get("/api/results", issue_id=issue).expect(200).json["results"]
    assert row["result"]["decisions"] == ["made while it was away"]

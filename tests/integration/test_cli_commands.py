"""Every command of the command line: its help, a good call and a bad call, against a real sidecar."""

from __future__ import annotations

import base64
import io
import json
import os
import shlex
import subprocess
import sysconfig
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.cli.app import run
from tests.support.agents import ended, say_result, spawn
from tests.support.commands import all_commands, all_groups
from tests.support.repo import sample_repository
from tests.support.server import Server, command_line, orchestrator
from tests.support.waiting import until

COMMANDS = all_commands()

#: Command -> (a good call's arguments, its exit code, a bad call's arguments, its exit code).
#: Words in braces are made by ``Things`` when a call uses them.
CALLS: dict[str, tuple[str, int, str, int]] = {
    "run": ("--help", 0, "''", 2),
    "agent spawn": (
        "code-reviewer --issue {issue} --command 'sh -c true' --workspace scratch Look",
        0,
        "code-reviewr --issue {issue} Look",
        2,
    ),
    "agent list": ("--status completed --limit 2 --format json", 0, "--status sleeping", 2),
    "agent show": ("{agent} --format yaml", 0, "agt_none", 1),
    "agent logs": ("{agent}", 0, "{agent} --stream stdin", 2),
    "agent attach": ("{agent}", 0, "agt_none", 1),
    "agent send": ("{sleeper} hello", 0, "{agent} hello", 1),
    "agent kill": ("{sleeper} --grace 0.2", 0, "agt_none", 1),
    "runs list": ("--format csv", 0, "--limit 0", 2),
    "runs show": ("{run} --format json", 0, "run_none", 1),
    "runs approve": ("--help", 0, "{run}", 1),
    "runs cancel": ("{run}", 0, "run_none", 1),
    "results list": ("--issue {issue} --format csv", 0, "--from yesterday", 2),
    "results get": ("{result}", 0, "res_none", 1),
    "results store": (
        '--issue {issue} --type code-reviewer \'{{"status": "success"}}\'',
        0,
        '--issue {issue} --type code-reviewer \'{{"status": "great"}}\'',
        2,
    ),
    "results diff": ("{result}", 0, "res_none", 1),
    "results apply": ("--help", 0, "{result}", 1),
    "events list": ("--topic testing --limit 3", 0, "--filter ::", 2),
    "events publish": ("checked --topic testing '{{\"ok\": true}}' --format json", 0, "checked --topic testing [1]", 2),
    "events subscribe": ("{event_type} --since earliest --count 1 --wait 5", 0, "never --count 1 --wait 0.2", 1),
    "events dead-letters": ("", 0, "--redrive none", 1),
    "events consumers": ("--format json", 0, "--remove none", 1),
    "events export": ("--topic testing", 0, "--since tomorrow", 2),
    "events import": ("{event_file}", 0, "{bad_file}", 2),
    "context get": ("{issue} python-specialist --explain", 0, "{issue} python-specialst", 2),
    "context refresh": ("{issue} python-specialist --format json", 0, "bad/issue python-specialist", 2),
    "context clear": ("{cached_issue}", 0, "never-cached", 1),
    "context search": ("balance --explain", 0, "balance --limit x", 2),
    "knowledge search": ("pool --format json", 0, "pool --limit 0", 2),
    "knowledge add": ("'Releases are cut on Fridays' --issue {issue}", 0, "@nowhere.txt", 1),
    "serve": ("--check", 0, "--project nowhere", 2),
    "stop": ("--help", 0, "--storage {empty} --url ''", 3),
    "status": ("--format json", 0, "--url http://127.0.0.1:1", 3),
    "pool show": ("--format json", 0, "--url http://127.0.0.1:1", 3),
    "pool pause": ("--help", 0, "--url http://127.0.0.1:1", 3),
    "pool drain": ("--help", 0, "--wait -1", 2),
    "pool resume": ("--format yaml", 0, "--url http://127.0.0.1:1", 3),
    "token": ("--agent-type code-reviewer --ttl 60", 0, "--agent-type code-reviewr", 2),
    "service install": ("--print --port 4001", 0, "--project nowhere", 2),
    "service uninstall": ("--help", 0, "", 1),
    "doctor": ("--format json", 0, "--format xml", 2),
    "profiles list": ("--class architect --format csv", 0, "--tier tall", 2),
    "profiles show": ("code-reviewer", 0, "code-reviewr", 2),
    "profiles validate": ("--format json", 0, "{bad_file}", 1),
    "profiles new": ("{name} --project {empty}", 0, "../x --project {empty}", 2),
    "profiles graph": ("--from chief-architect --depth 1", 0, "--from nobody", 2),
    "profiles schema": ("", 0, "extra", 2),
    "config show": ("--origin --format json", 0, "server.prt", 2),
    "config path": ("--format yaml", 0, "extra", 2),
    "completion": ("fish", 0, "tcsh", 2),
    "backup": ("{empty}/backup.tar.gz", 0, "{bad_file}", 1),
    "restore": ("{backup} --storage {empty}/restored", 0, "{bad_file} --storage {empty}/restored", 2),
    "repair": ("--storage {restored}", 0, "--storage {empty}", 1),
}


class Things:
    """What calls need, made when it is first asked for."""

    def __init__(self, sidecar: Server, directory: Path) -> None:
        self._sidecar = sidecar
        self._directory = directory
        self._made: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        if name not in self._made:
            self._made[name] = getattr(self, f"_{name}")()
        return self._made[name]

    def end(self) -> None:
        """End what still works."""
        api = self._sidecar.api()
        if "sleeper" in self._made:
            api.request("DELETE", f"/api/agents/{self['sleeper']}", force="true")
        if "run" in self._made:
            api.post(f"/api/runs/{self['run']}/cancel", {})

    def _issue(self) -> str:
        return f"cli-{uuid.uuid4().hex[:12]}"

    def _name(self) -> str:
        return f"role-{uuid.uuid4().hex[:12]}"

    def _empty(self) -> str:
        path = self._directory / "empty"
        path.mkdir()
        return str(path)

    def _bad_file(self) -> str:
        path = self._directory / "bad.md"
        path.write_text("not what is wanted\n", encoding="utf-8")
        return str(path)

    def _agent(self) -> str:
        api = self._sidecar.api()
        agent_id = str(spawn(api, self["issue"], say_result(decisions=["keep it"]), workspace="scratch")["agent_id"])
        assert ended(api, agent_id)["status"] == "completed"
        return agent_id

    def _result(self) -> str:
        return str(self._sidecar.api().get(f"/api/agents/{self['agent']}").json["result_id"])

    def _sleeper(self) -> str:
        api = self._sidecar.api()
        return str(spawn(api, self["issue"], "cat >/dev/null", workspace="scratch")["agent_id"])

    def _run(self) -> str:
        body = {"issue_id": self["issue"], "task": "look"}
        return str(self._sidecar.api().post("/api/runs", body).expect(201).json["run_id"])

    def _event_type(self) -> str:
        name = f"type-{uuid.uuid4().hex[:12]}"
        self._sidecar.api().post(f"/api/events/{name}", {"topic": "testing", "data": {}}).expect(202)
        return name

    def _event_file(self) -> str:
        path = self._directory / "events.jsonl"
        event = {"event_id": uuid.uuid4().hex, "event_type": "imported", "topic": "testing", "data": {"n": 1}}
        path.write_text(json.dumps(event) + "\n", encoding="utf-8")
        return str(path)

    def _cached_issue(self) -> str:
        self._sidecar.api().get(f"/api/context/{self['issue']}/python-specialist").expect(200)
        return self["issue"]

    def _backup(self) -> str:
        path = self._directory / "backup.tar.gz"
        done = self._sidecar.cli("backup", path)
        assert done.returncode == 0, done.stderr
        return str(path)

    def _restored(self) -> str:
        path = self._directory / "restored"
        done = orchestrator("restore", self["backup"], "--storage", path)
        assert done.returncode == 0, done.stderr
        return str(path)


@pytest.fixture
def things(sidecar: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Things]:
    """The environment of a user in the sample project; what calls need is ended after the test."""
    monkeypatch.setenv("ORCHESTRATOR_STORAGE", str(sidecar.storage))
    monkeypatch.setenv("ORCHESTRATOR_URL", sidecar.url)
    monkeypatch.chdir(sidecar.projects["sample"])
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    made = Things(sidecar, tmp_path)
    yield made
    made.end()


def call(things: Things, command: str, arguments: str) -> int:
    """Run a command in this process, as the console script does; its exit code."""
    return run([*command.split(), *shlex.split(arguments.format_map(things))])


def test_every_command_is_in_the_table() -> None:
    """Prevents a command that no test calls, and a tested one that is gone."""
    assert sorted(CALLS) == sorted(COMMANDS)


@pytest.mark.parametrize("command", [*COMMANDS, *all_groups(), ""])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents a command without help, or whose help shows no example of a call."""
    assert run([*command.split(), "--help"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert f"orchestrator {command}".strip() in said.out.split("Examples:")[1]
    assert "Usage: orchestrator" in said.out


@pytest.mark.parametrize("command", COMMANDS)
def test_common_options(command: str) -> None:
    """Prevents a command that cannot be pointed at another sidecar: contract section 7 has both on every command."""
    names = {name for parameter in COMMANDS[command].params for name in parameter.opts}
    assert {"--storage", "--url", "--project-id", "--quiet", "--no-color"} <= names


@pytest.mark.parametrize("command", CALLS)
def test_good_call(command: str, things: Things, capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents a command whose ordinary use fails, or that says something unasked on stdout."""
    arguments, wanted, _, _ = CALLS[command]
    code = call(things, command, arguments)
    out, err = capsys.readouterr()
    assert code == wanted, f"{out}\n{err}"
    if "--format json" in arguments:
        json.loads(out)


@pytest.mark.parametrize("command", CALLS)
def test_bad_call(command: str, things: Things, capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents a wrong exit code, a traceback, and an error that goes where the answer is expected."""
    _, _, arguments, wanted = CALLS[command]
    code = call(things, command, arguments)
    out, err = capsys.readouterr()
    assert code == wanted, f"{out}\n{err}"
    assert "Traceback" not in err
    assert "internal error" not in err
    silent = ("profiles validate", "events subscribe")
    assert "Error: " in err or command in silent


def test_refused_token_exits_with_4(sidecar: Server, tmp_path: Path) -> None:
    """Prevents a foreign storage's token from looking like a failure of the work."""
    token = orchestrator("token", "--storage", tmp_path / "other").stdout.strip()
    done = sidecar.cli("agent", "list", environment={"ORCHESTRATOR_TOKEN": token})
    assert done.returncode == 4
    assert "ORCHESTRATOR_TOKEN" in done.stderr


def test_rotated_keys_leave_live_tokens_good_and_sign_new_ones(server: Server, issue: str) -> None:
    """Nothing rotated the keys; had it, a running sidecar would have signed on with the retired one."""
    held = server.api()
    old = {key["kid"] for key in server.anonymous().get("/.well-known/jwks.json").json["keys"]}
    done = server.cli("token", "--rotate")
    assert done.returncode == 0, done.stderr
    assert "are good until they expire" in done.stdout

    def published() -> set[str]:
        return {key["kid"] for key in server.anonymous().get("/.well-known/jwks.json").json["keys"]} - old

    (new,) = until(published, what="the new key among the published")
    assert new in done.stdout
    held.get("/api/agents").expect(200)
    token = spawn(held, issue, "true")["jwt_token"]
    assert json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))["kid"] == new
    refused = server.cli("token", "--rotate", "--ttl", "5")
    assert (refused.returncode, refused.stdout) == (2, "")


def test_a_token_made_without_a_sidecar_is_for_the_project_that_is_registered(storage: Path, tmp_path: Path) -> None:
    """A token made in another directory of the same name was for the project that had the name: a stranger's."""
    projects = {"mine": sample_repository(tmp_path / "ledger"), "sample": sample_repository(tmp_path / "first")}
    with Server(storage, projects):
        pass
    namesake = sample_repository(tmp_path / "sample")
    environment = {"ORCHESTRATOR_STORAGE": str(storage)}

    def project_of(directory: Path, *arguments: str) -> str:
        done = orchestrator("token", *arguments, cwd=directory, environment=environment)
        assert done.returncode == 0, done.stderr
        claims = done.stdout.split(".")[1]
        return str(json.loads(base64.urlsafe_b64decode(claims + "=="))["project_id"])

    assert project_of(projects["mine"] / "docs") == "mine", "not the directory's name"
    assert project_of(sample_repository(tmp_path / "new")) == "new"
    refused = orchestrator("token", cwd=namesake, environment=environment)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "the project 'sample' is " in refused.stderr
    assert "--project-id" in refused.stderr
    assert project_of(namesake, "--project-id", "sample") == "sample"
    (storage / "orchestrator.db").write_bytes(b"rubbish" * 1000)
    assert project_of(namesake) == "sample", "without a database that can be read the directory's name has to do"


@pytest.mark.parametrize("where", ["home", "root"])
def test_a_run_does_not_take_all_files_for_a_project(storage: Path, tmp_path: Path, where: str) -> None:
    """A run that was typed in the home directory registered all of it, and read it through."""
    (tmp_path / "home").mkdir()
    environment = {"HOME": str(tmp_path / "home"), "ORCHESTRATOR_STORAGE": str(storage)}
    directory = tmp_path / "home" if where == "home" else Path("/")
    done = orchestrator("run", "Look", cwd=directory, environment=environment)
    assert done.returncode == 2, done.stderr
    assert f"{directory} is {'your home directory' if where == 'home' else 'the root of all files'}" in done.stderr
    assert "--project DIR" in done.stderr
    assert not storage.exists(), "nothing was started"


def test_missing_permission_exits_with_4(sidecar: Server) -> None:
    """Prevents a role's token from being reported as a usage error."""
    token = sidecar.token("documentation-expert")
    arguments = ("agent", "spawn", "code-reviewer", "--issue", "x", "Look")
    done = sidecar.cli(*arguments, environment={"ORCHESTRATOR_TOKEN": token})
    assert done.returncode == 4, done.stderr


def test_an_awaited_agent_shows_what_it_found(sidecar: Server) -> None:
    """Prevents an answer of forty fields of bookkeeping in which the finding that was asked for is missing."""
    script = 'printf \'{"type":"result","result":{"status":"success","findings":["a key in the open"]}}\\n\''
    issue = f"cli-{uuid.uuid4().hex[:12]}"
    arguments = ("agent", "spawn", "code-reviewer", "--issue", issue, "--workspace", "scratch", "--wait")
    done = sidecar.cli(*arguments, "--runtime", "jsonl", "--command", shlex.join(["sh", "-c", script]), "Look")
    assert done.returncode == 0, done.stderr
    assert "a key in the open" in done.stdout
    silent = sidecar.cli(*arguments, "--command", "sh -c 'exit 3'", "Look")
    assert silent.returncode == 1
    assert "code-reviewer" in silent.stdout
    assert "failed" in silent.stdout


def test_status_waits_for_a_sidecar_that_starts(tmp_path: Path) -> None:
    """Prevents the next line of a script from failing because the sidecar in the background is not up yet."""
    storage = tmp_path / "storage"
    command = [*command_line(), "status", "--wait", "60", "--storage", str(storage)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as waiting:
        try:
            with Server(storage, {}) as server:
                said, _ = waiting.communicate(timeout=60)
                assert waiting.returncode == 0
                assert server.url in said
        finally:
            waiting.kill()


def test_project_of_the_current_directory(sidecar: Server) -> None:
    """Prevents a command from acting in the default project while the user stands in another one."""
    here = sidecar.projects["other"] / "ledger"
    stored = sidecar.cli(
        "results", "store", "--issue", "here", "--type", "code-reviewer", '{"status": "success"}', cwd=here
    )
    assert stored.returncode == 0, stored.stderr
    listed = sidecar.cli("results", "list", "--issue", "here", "--format", "json", cwd=here)
    assert [row["project_id"] for row in json.loads(listed.stdout)] == ["other"]
    assert (
        sidecar.cli("results", "list", "--issue", "here", "--project-id", "sample", "--format", "json").stdout == "[]\n"
    )


def test_a_project_that_nobody_knows_is_refused(sidecar: Server) -> None:
    """A slip in --project-id set an agent to work on the default project, and showed that one's results."""
    for arguments in (("results", "list"), ("agent", "spawn", "code-reviewer", "--issue", "slip", "Look")):
        refused = sidecar.cli(*arguments, "--project-id", "nope")
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "no project is named 'nope'; known are: " in refused.stderr
        assert "sample" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("agent", "spawn", "code-reviewer", "--issue", "i", "--command", "", "Look"), "command"),
        (("agent", "kill", "agt_none", "--grace", "301"), "--grace"),
    ],
)
def test_a_value_that_means_nothing_is_refused(sidecar: Server, arguments: tuple[str, ...], complaint: str) -> None:
    """An empty command ran the role's own and told its success; a grace that help allowed was refused as a timeout."""
    done = sidecar.cli(*arguments)
    assert done.returncode == 2
    assert complaint in done.stderr


def test_attach_sends_lines_and_ends_with_the_agent(sidecar: Server) -> None:
    """Prevents attach from losing what is typed, or from never coming back."""
    script = 'read -r line; printf "%s\\n" "got: $line"'
    agent_id = spawn(sidecar.api(), "attach", script, workspace="scratch")["agent_id"]
    done = sidecar.cli("agent", "attach", agent_id, stdin="use tabs\n")
    assert done.returncode == 0, done.stderr
    assert "use tabs" in done.stdout


def test_logs_are_bytes_in_a_pipe(sidecar: Server, tmp_path: Path) -> None:
    """Prevents output in a pipe from being decoded, trimmed or coloured."""
    agent_id = spawn(sidecar.api(), "bytes", "printf '\\377\\001\\033[31mred'", workspace="scratch")["agent_id"]
    ended(sidecar.api(), agent_id)
    target = tmp_path / "out"
    command = f'exec orchestrator agent logs {agent_id} > "{target}"'
    path = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "ORCHESTRATOR_URL": sidecar.url, "ORCHESTRATOR_STORAGE": str(sidecar.storage)}
    subprocess.run(["sh", "-c", command], env=env, check=True, timeout=60)
    assert target.read_bytes() == b"\xff\x01\x1b[31mred"


@pytest.mark.parametrize("options", [(), ("--follow",)])
def test_logs_go_on_over_files_and_say_what_was_not_kept(sidecar: Server, issue: str, options: tuple[str, ...]) -> None:
    """Prevents logs that end with their first file, and a cut that looks like the end of the output."""
    limits = {"output_file_bytes": 4096, "output_bytes": 30_000}
    agent_id = spawn(sidecar.api(), issue, "seq 10000", workspace="scratch", limits=limits)["agent_id"]
    if not options:
        ended(sidecar.api(), agent_id)
    done = sidecar.cli("agent", "logs", agent_id, *options)
    assert done.stdout == "".join(f"{number}\n" for number in range(1, 10_001))[:30_000]
    assert "nothing was kept of stdout from byte 30000 on" in done.stderr
    record = ended(sidecar.api(), agent_id)
    assert record["evidence"]["truncated_at"] == {"stdout": 30_000}
    piece = sidecar.api().get(f"/api/agents/{agent_id}/output", since=4000).expect(200)
    assert len(piece.body) == 26_000


def test_closed_pipe_is_quiet(sidecar: Server) -> None:
    """Prevents `| head` from ending in an error message."""
    path = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path}
    script = "orchestrator profiles list --format json | head -c 10"
    done = subprocess.run(["sh", "-c", script], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert len(done.stdout) == 10


def test_subscribe_goes_on_over_a_restart(server: Server) -> None:
    """Prevents a subscriber from ending, or from missing events, when the sidecar is restarted."""
    # The port changes with a restart, so the subscriber is given one that stays.
    program = str(Path(sysconfig.get_path("scripts")) / "orchestrator")
    port = server.port
    command = [program, "events", "subscribe", "deployed", "--since", "earliest", "--count", "2"]
    env = {**os.environ, "ORCHESTRATOR_STORAGE": str(server.storage), "ORCHESTRATOR_URL": server.url}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as follower:
        try:
            server.api().post("/api/events/deployed", {"topic": "deployment", "data": {"n": 1}}).expect(202)
            assert follower.stdout is not None
            assert json.loads(follower.stdout.readline())["data"] == {"n": 1}
            server.kill9()
            server._arguments = ["--port", str(port)]
            server.restart()
            server.api().post("/api/events/deployed", {"topic": "deployment", "data": {"n": 2}}).expect(202)
            assert json.loads(follower.stdout.readline())["data"] == {"n": 2}
            assert follower.wait(30) == 0
        finally:
            follower.kill()


def test_stop_waits_for_the_end(server: Server) -> None:
    """Prevents `stop` from coming back while the sidecar still holds its storage."""
    assert server.process is not None
    done = server.cli("stop", environment={"ORCHESTRATOR_URL": ""})
    assert done.returncode == 0, done.stderr
    assert until(lambda: server.process is not None and server.process.poll() is not None, what="it has ended")
    assert not (server.storage / "sidecar.json").exists()
    again = server.cli("stop", environment={"ORCHESTRATOR_URL": ""})
    assert again.returncode == 3
    assert "no sidecar runs on the storage" in again.stderr
    assert "start it" not in again.stderr, "it is not what was wanted"
    assert server.process.returncode == 0
    server.process = None


def test_an_import_repeated_says_what_was_there(sidecar: Server, tmp_path: Path, issue: str) -> None:
    """Importing a file again told that all of its events had been published anew."""
    line = {"event_type": "imported", "topic": "testing", "event_id": issue, "data": {}}
    file = tmp_path / "events.jsonl"
    file.write_text(json.dumps(line) + "\n")
    for told in ("1 published, 0 were there already", "0 published, 1 were there already"):
        assert told in sidecar.cli("events", "import", file).stderr

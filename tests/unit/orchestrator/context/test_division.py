"""Work shared with assistants gives what work done alone gives, whatever becomes of them."""

from __future__ import annotations

import fcntl
import os
import resource
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from orchestrator.context import division as module
from orchestrator.context.assistant import serve, tasks_to_send
from orchestrator.context.digest import Digest, Task
from orchestrator.context.division import Division
from orchestrator.context.frames import receive
from orchestrator.context.library import Library
from orchestrator.context.project import Limits, ProjectState
from orchestrator.context.reading import reading
from tests.support.context import order
from tests.support.repo import git, write_files

Behaviour = Callable[[socket.socket], None]


class Office:
    """Starts assistants as threads; counts them."""

    def __init__(self, behaviour: Behaviour = serve) -> None:
        self._behaviour = behaviour
        self._threads: list[threading.Thread] = []

    def hire(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        thread = threading.Thread(target=self._run, args=(theirs,))
        thread.start()
        self._threads.append(thread)
        return ours

    def _run(self, connection: socket.socket) -> None:
        with connection:
            self._behaviour(connection)

    def close(self) -> int:
        """Wait for all to end; how many there were."""
        for thread in self._threads:
            thread.join()
        return len(self._threads)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Some 2 MB of files of many kinds; one is not UTF-8 by name, one too large, one binary, one secret."""
    root = tmp_path / "project"
    text = "def parse_header(line):\n    '''Fold the line.'''\n    return HeaderParser2(line, naïve=True)\n\n"
    write_files(root, {f"pkg{n % 7}/module_{n}.py": f"class Part{n}:\n    pass\n" + text * 60 for n in range(300)})
    write_files(root, {".env": "A=b\n", "large.py": "x = 1\n" * 400_000, "notes.md": "# Headers\n" + "fold\n" * 900})
    (root / "data.bin").write_bytes(b"\0" * 5000)
    (root / "caf\udce9.py").write_bytes(b"caffeine = 1\n" * 300)
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "Begin")
    for path in root.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000), follow_symlinks=False)  # a young file is read again
    return root.resolve()


def _indexed(state: ProjectState) -> dict[str, object]:
    """What the index knows, without the order in which files came."""
    state.index.absorb(state.index.waiting)
    paths = {facts.document: path for path, facts in state.files.items()}
    words = {number: word for word, number in state.index.tokens.items()}
    return {
        "files": {path: msgspec.structs.replace(facts, document=0) for path, facts in state.files.items()},
        "names": {name: {paths[n] for n in found} for name, found in state.index.names.items()},
        **{
            field: (
                postings.total,
                {paths[number]: length for number, length in enumerate(postings.lengths) if number in paths},
                {words[w]: {(paths[p >> 8], p & 255) for p in found} for w, found in postings.lists.items()},
            )
            for field, postings in state.index.fields.items()
        },
    }


def test_the_shared_work_gives_the_same_index_and_answer(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that an assistant read were found otherwise than the others, or twice, or not at all."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    office = Office()
    alone, shared = Library(Limits(), 1 << 28), Library(Limits(), 1 << 28, hire=office.hire)
    asked = order(root, "fold the header line in part77")
    assert shared.build(asked).body == alone.build(asked).body
    assert office.close() == 2
    assert _indexed(shared.state(str(root))) == _indexed(alone.state(str(root)))


def test_answers_are_taken_before_more_is_done_here(root: Path) -> None:
    """An assistant got one portion for each one that was done here, and stood idle while its answers were taken in."""
    go, is_done = threading.Event(), threading.Event()

    def serve_two(connection: socket.socket) -> None:
        assert go.wait(10)
        for _ in range(2):
            _answer_one(connection)
        is_done.set()

    office = Office(serve_two)
    by_assistant = []
    with reading(str(root)) as reader, Division(office.hire, str(root), 1) as division:
        names = [f"pkg{n % 7}/module_{n}.py" for n in range(300)]
        tasks = [Task(name, stamp) for name in names if (stamp := reader.stamp(name)) is not None]
        portions = module._portions(tasks)
        assert len(portions) > 3
        for _, colleague, _ in division._shared(portions, lambda part: tasks_to_send(str(root), part), is_large=True):
            by_assistant.append(colleague is not None)
            go.set()
            assert is_done.wait(10)
    office.close()
    assert by_assistant[:3] == [False, True, True]


def _answer_one(connection: socket.socket) -> None:
    one, theirs = socket.socketpair()
    with one, theirs:
        payload = receive(connection)
        assert payload is not None
        one.sendall(len(payload).to_bytes(4, "big") + payload)
        one.shutdown(socket.SHUT_WR)
        serve(theirs)
        answer = receive(one)
        assert answer is not None
        connection.sendall(len(answer).to_bytes(4, "big") + answer)


def _go(_: socket.socket) -> None:
    pass


def _tear(connection: socket.socket) -> None:
    connection.sendall(b"\0\0\1\0half")


def _listen_and_say_nothing(connection: socket.socket) -> None:
    while receive(connection) is not None:
        pass


@pytest.mark.parametrize(
    "behaviour",
    [_go, _answer_one, _tear, _listen_and_say_nothing],
    ids=["gone", "gone half-way", "torn answer", "silent"],
)
def test_the_share_of_a_lost_assistant_is_done_here(
    root: Path, behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An assistant that was killed took its files along, or the build waited for it for ever."""
    monkeypatch.setattr(module, "_PATIENCE_S", 0.2)
    found = _digests(root, Office(behaviour).hire)
    assert found == _digests(root, None)


def test_without_processes_everything_is_done_here(root: Path) -> None:
    """A machine that has no process left gave no context."""

    def refuse() -> socket.socket:
        raise BlockingIOError("no more processes")

    assert _digests(root, refuse) == _digests(root, None)


def _digests(root: Path, hire: Callable[[], socket.socket] | None) -> dict[str, Digest]:
    with Division(hire, str(root), most=2) as division, reading(str(root)) as reader:
        tasks = []
        for path in sorted(p.relative_to(root) for p in root.rglob("*.py")):
            stamp = reader.stamp(str(path))
            assert stamp is not None
            tasks.append(Task(str(path), stamp))
        found = list(division.digests(reader, tasks))
        assert len(found) == len(tasks)
        return {task.path: digest for task, digest in found}


def test_long_paths_keep_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two wishes of long paths were more than a socket holds: the builder waited for its assistant to read the second,
    the assistant for the builder to read its answer to the first, until both gave up."""
    monkeypatch.setattr(module, "_PATIENCE_S", 3.0)
    folder = "/".join(["d" * 200] * 17)
    monkeypatch.chdir(tmp_path)
    os.makedirs(folder)
    text = b"".join(b"identifier_%d = %d\n" % (n, n) for n in range(200))
    for number in range(400):
        Path(folder, f"{number}.py").write_bytes(text)
    with Division(Office().hire, str(tmp_path), most=1) as division, reading(str(tmp_path)) as reader:
        tasks = []
        for number in range(400):
            stamp = reader.stamp(f"{folder}/{number}.py")
            assert stamp is not None
            tasks.append(Task(f"{folder}/{number}.py", stamp))
        assert len(list(division.digests(reader, tasks))) == 400
        assert len(division._team()) == 1, "the assistant was given up"


def test_words_are_counted_alike_by_all(root: Path) -> None:
    """An assistant counted everything where a few words were asked for, or other words than this process."""
    office = Office()
    with Division(office.hire, str(root), most=1) as division, reading(str(root)) as reader:
        stamp = reader.stamp("pkg0/module_0.py")
        assert stamp is not None
        tasks = [Task(f"pkg{n % 7}/module_{n}.py", stamp) for n in range(300)]
        counted = [found.counted for _, found in division.digests(reader, tasks, ["parser2", "fold", "headeri"])]
    assert office.close() == 1
    assert {(found.identifiers, found.counts) for found in counted if found} == {
        (b"parser2\nfold\nheaderi", bytes((60, 60, 120)))
    }


def test_a_small_project_starts_no_assistant(tmp_path: Path) -> None:
    """Every small change started processes."""
    write_files(tmp_path, {f"m{n}.py": "x = 1\n" for n in range(40)})
    office = Office()
    with Division(office.hire, str(tmp_path), most=2) as division, reading(str(tmp_path)) as reader:
        stamp = reader.stamp("m1.py")
        assert stamp is not None
        assert len(list(division.digests(reader, [Task(f"m{n}.py", stamp) for n in range(40)]))) == 40
    assert office.close() == 0


def test_answers_come_over_descriptors_of_any_number() -> None:
    """With hundreds of watched projects a builder has more than the 1024 descriptors that ``select`` can tell of."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard) if hard > 0 else 4096, hard))
    try:
        ours, theirs = socket.socketpair()
        high = socket.socket(fileno=fcntl.fcntl(ours.fileno(), fcntl.F_DUPFD_CLOEXEC, 1500))
        with ours, theirs, high:
            assert module._readable([high], 0.0) == []
            theirs.sendall(b"x")
            assert module._readable([high], 10.0) == [high]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

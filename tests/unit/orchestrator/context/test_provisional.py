"""The provisional answer: within budget, redacted, marked, and nearly what the full one is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.context.assistant import serve
from orchestrator.context.project import Limits
from orchestrator.context.provisional import glance
from tests.support.context import document, order, paths
from tests.support.repo import commit_all, git, repository, sample_repository, write_files
from tests.unit.orchestrator.context.test_division import Office

TASK = "fold the header line of a parser, then retry the gateway"


def provisional(root: Path, task: str = TASK, *, max_bytes: int = 100_000, **fields: Any) -> dict[str, Any]:
    """The provisional document, decoded."""
    answer = glance(order(root, task, max_bytes=max_bytes, **fields), Limits(), least_bytes=0)
    assert answer is not None
    assert answer.body.endswith(b',"cache_hit":false}')
    decoded: dict[str, Any] = json.loads(answer.body)
    return decoded


def test_it_is_marked_and_has_the_full_answers_form(tmp_path: Path) -> None:
    """A client took the provisional answer for the full one, or found a field missing that the full one has."""
    root = sample_repository(tmp_path / "r")
    (root / "ledger/money.py").write_text("def add(left, right):\n    return right + left\n")
    found, full = provisional(root, "post an amount to an account"), document(root, "post an amount to an account")
    assert found.pop("partial") is True
    assert "partial" not in full
    assert found.keys() == full.keys()
    assert found["context"].keys() == full["context"].keys()
    for part in ("project_structure", "git_context", "metadata"):
        assert found["context"][part] == full["context"][part]
    assert paths(found)[0] == paths(full)[0] == "ledger/accounts.py"


def test_its_tag_is_another_than_the_full_answers(tmp_path: Path) -> None:
    """A client was told with 304 that the provisional answer is still right."""
    root = sample_repository(tmp_path / "r")
    asked = order(root, "account")
    answer, again = (glance(asked, Limits(), least_bytes=0) for _ in range(2))
    assert answer is not None
    assert again is not None
    assert answer.etag == again.etag
    assert answer.etag.startswith('"partial-')
    assert answer.generation == 0


def test_a_small_project_is_not_glanced_at(tmp_path: Path) -> None:
    """Where the full answer takes as long, a worse one was given."""
    root = sample_repository(tmp_path / "r")
    assert glance(order(root, "account"), Limits()) is None


def test_what_git_does_not_track_counts_for_the_size(tmp_path: Path) -> None:
    """A large project whose files were not committed yet was taken for a small one, without a provisional answer."""
    root = sample_repository(tmp_path / "r")
    write_files(root, {f"draft{n}.py": "account = 1\n" * 10_000 for n in range(10)})
    assert glance(order(root, "account"), Limits()) is not None


def test_the_rarest_words_of_a_long_task_decide(tmp_path: Path) -> None:
    """Only so many words are looked for: those of a long task that stand in every file hid the one that tells."""
    common = [f"common{letter}" for letter in "abcdefghijklmnopqrst"]
    write_files(tmp_path, {f"m{n}.py": "".join(f"{word} = {n}\n" for word in common) for n in range(60)})
    write_files(tmp_path, {"n.py": "def quokka():\n    return 1\n"})
    assert paths(provisional(tmp_path, f"{' '.join(common)} quokka"))[0] == "n.py"


def test_what_paths_history_and_earlier_agents_say_counts(tmp_path: Path) -> None:
    """A glance ranked by texts alone."""
    root = repository(tmp_path / "r", {f"src/part{n}.py": f"value = {n}\n" for n in range(40)})
    write_files(root, {"src/part7.py": "value = 77\n"})
    commit_all(root, "Handle rotated credentials of the gateway")
    assert paths(provisional(root, "the gateway loses rotated credentials"))[0] == "src/part7.py"
    assert paths(provisional(root, "look at part31"))[0] == "src/part31.py"
    outputs = ({"agent": "a", "files_affected": ["src/part13.py"]},)
    assert paths(provisional(root, "continue", outputs=outputs))[0] == "src/part13.py"


def test_assistants_change_nothing(tmp_path: Path) -> None:
    """What an assistant looked through was ranked otherwise than what this process looked through."""
    text = "def parse_header(line):\n    return HeaderParser2(line, is_folded=True)\n\n" * 80
    write_files(tmp_path, {f"pkg{n % 7}/module_{n}.py": f"class Part{n}:\n    pass\n{text}" for n in range(300)})
    for path in tmp_path.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    office = Office(serve)
    asked = order(tmp_path, "fold the header line in part77")
    alone, shared = glance(asked, Limits()), glance(asked, Limits(), hire=office.hire)
    assert office.close() >= 1
    assert alone == shared


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.sampled_from(["def alpha():", "    beta = 1", "", "class Gamma:", "\tx", "é ü", "\r"]), st.integers(1, 60)), max_size=40),  # noqa: E501
    st.integers(1, 6000),
    st.sampled_from(["", "alpha", "fix beta in Gamma", "\ud800 \0 retry"]),
)  # fmt: skip
def test_budget_and_excerpts_are_true(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int]], budget: int, task: str
) -> None:
    """A provisional answer was larger than asked for, or showed lines that are not the file's."""
    root = tmp_path_factory.mktemp("excerpts")
    text = "".join((line + "\n") * count for line, count in rows)
    (root / "a.py").write_bytes(text.encode())
    (root / "b.py").write_bytes(b"alpha = 3")
    total = 0
    for entry in provisional(root, task, max_bytes=budget)["context"]["relevant_files"]:
        data = (root / entry["path"]).read_bytes().decode()
        lines = data.split("\n")
        for first, last in entry.get("ranges", ()):
            assert "\n".join(lines[first - 1 : last]) in entry["content"]
        assert "ranges" in entry or entry["content"] == data
        total += len(entry["content"].encode())
    assert total <= budget


def _no_git(root: Path) -> None:
    write_files(root, {"a.py": "header = 1\n", ".gitignore": "b.py\n", "b.py": "header = 2\n"})


def _unborn(root: Path) -> None:
    _no_git(root)
    git(root, "init", "-q")


def _broken(root: Path) -> None:
    sample_repository(root)
    write_files(root, {"a.py": "header = 1\n"})
    (root / ".git/index").write_bytes(b"DIRC" + b"\xff" * 500)


def _odd_names(root: Path) -> None:
    write_files(root, dict.fromkeys(("new\nline.py", "-rf.py", "\x1b[31m.py", "a.py"), "header = 1\n"))
    Path(os.fsdecode(os.fsencode(root) + b"/latin\xe9.py")).write_bytes(b"header = \xe9\n")
    (root / "utf16.py").write_bytes("header = 1\n".encode("utf-16"))
    os.mkfifo(root / "pipe.py")
    (root / "zero.py").symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [_no_git, _unborn, _broken, _odd_names])
def test_odd_projects_are_glanced_at(tmp_path: Path, make: Any) -> None:
    """Without git, without a commit or with odd files there was no provisional answer."""
    root = tmp_path / "r"
    make(root)
    found = provisional(root, "header")
    assert paths(found)[0].endswith(".py")
    assert "a.py" in paths(found)
    assert not {"b.py", "pipe.py", "zero.py"} & set(found["context"]["project_structure"]["files"])


def test_empty_and_bare_projects_are_answered(tmp_path: Path) -> None:
    """A project without files failed the provisional answer."""
    (tmp_path / "empty").mkdir()
    assert provisional(tmp_path / "empty")["file_count"] == 0
    source = sample_repository(tmp_path / "r")
    git(tmp_path, "clone", "-q", "--bare", str(source), "bare.git")
    found = provisional(tmp_path / "bare.git")
    assert found["file_count"] == 0
    assert found["context"]["git_context"]["branch"] == "main"
    with pytest.raises(OSError, match="gone"):
        provisional(tmp_path / "gone")

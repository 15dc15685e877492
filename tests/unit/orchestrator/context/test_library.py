"""Scan, index, rank, budget and render together, in this process."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.context.markdown import markdown
from orchestrator.context.models import Role
from orchestrator.context.persist import path_of
from orchestrator.context.project import ProjectState
from orchestrator.context.rank import MOST_RANKED
from orchestrator.context.render import _moment
from tests.support.context import document, new_library, order, paths
from tests.support.repo import MIXED_FILES, PYTHON_FILES, git, sample_repository, write_files
from tests.support.roster import roster


def test_the_answer_has_the_contracts_shape(tmp_path: Path) -> None:
    """A field of contract section 3.1 was missing or misspelt."""
    root = sample_repository(tmp_path / "r")
    (root / "ledger/money.py").write_text(PYTHON_FILES["ledger/money.py"] + "\n# edited\n")
    answer = document(root, "post an amount to an account")
    assert {"issue_id", "agent_type", "context", "truncated", "truncation_strategy", "total_size_bytes", "file_count", "omitted", "timestamp", "cache_hit"} <= set(answer)  # fmt: skip  # noqa: E501
    context = answer["context"]
    assert set(context) == {"project_structure", "relevant_files", "git_context", "previous_agent_outputs", "metadata"}
    assert {"branch", "head", "recent_commits", "uncommitted_changes", "remote", "remote_url"} <= set(
        context["git_context"]
    )
    assert [c["path"] for c in context["git_context"]["uncommitted_changes"]] == ["ledger/money.py"]
    assert "+# edited" in context["git_context"]["uncommitted_changes"][0]["diff"]
    for entry in context["relevant_files"]:
        data = (root / entry["path"]).read_bytes()
        assert entry["checksum"] == "sha256:" + hashlib.sha256(data).hexdigest()
        assert entry["size"] == len(data)
    assert paths(answer)[0] == "ledger/accounts.py"
    assert not answer["truncated"]


@pytest.mark.parametrize("budget", [1, 50, 500, 5000])
def test_the_budget_bounds_the_summed_content(tmp_path: Path, budget: int) -> None:
    """The contents together were larger than ``max_bytes``."""
    root = sample_repository(tmp_path / "r")
    answer = document(root, "account", max_bytes=budget)
    sizes = [len(entry["content"].encode()) for entry in answer["context"]["relevant_files"]]
    assert sum(sizes) <= answer["total_size_bytes"] <= budget
    assert answer["truncated"] is (budget < 1500)
    assert answer["file_count"] == len(sizes)


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.sampled_from(["def alpha():", "    beta = 1", "", "class Gamma:", "\tx", "é ü", "\r"]), st.integers(1, 60)), max_size=40),  # noqa: E501
    st.integers(1, 6000),
    st.sampled_from(["", "alpha", "fix beta in Gamma"]),
)  # fmt: skip
def test_every_excerpt_is_the_files_lines(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int]], budget: int, task: str
) -> None:
    """Ranges and content drifted apart, so agents edited the wrong lines."""
    root = tmp_path_factory.mktemp("excerpts")
    text = "".join((line + "\n") * count for line, count in rows)
    (root / "a.py").write_bytes(text.encode())
    (root / "b.py").write_bytes(b"alpha = 3")
    answer = document(root, task, max_bytes=budget)
    total = 0
    for entry in answer["context"]["relevant_files"]:
        data = (root / entry["path"]).read_bytes()
        if "ranges" in entry:
            lines = data.decode().split("\n")
            shown = "".join("\n".join(lines[first - 1 : last]) + "\n" for first, last in entry["ranges"])
            assert entry["content"].rstrip("\n") == shown.rstrip("\n")
            assert all(first <= last for first, last in entry["ranges"])
        else:
            assert entry["content"] == data.decode()
        total += len(entry["content"].encode())
    assert total <= budget


@pytest.mark.parametrize(("seconds", "year"), [(1 << 40, "9999"), (-(1 << 40), "0001"), (1_700_000_000, "2023")])
def test_a_file_of_any_time_has_a_moment(seconds: int, year: str) -> None:
    """A file of the year 36812, which some file systems take, failed every context that showed it."""
    assert _moment(seconds * 10**9).startswith(year)


def test_a_changed_file_alone_is_indexed_again(tmp_path: Path) -> None:
    """One edit re-indexed the whole project."""
    root = sample_repository(tmp_path / "r")
    library = new_library()
    document(root, "x", library=library)
    state = library.state(str(root.resolve()))
    before = {path: facts.document for path, facts in state.files.items()}
    (root / "ledger/money.py").write_text("def frobnicate() -> None: ...\n")
    answer = document(root, "frobnicate", library=library)
    assert paths(answer)[0] == "ledger/money.py"
    changed = {path for path, facts in state.files.items() if before[path] != facts.document}
    assert changed == {"ledger/money.py"}


def test_deleted_and_renamed_files_are_gone(tmp_path: Path) -> None:
    """A deleted file was still offered, with content that no longer exists."""
    root = sample_repository(tmp_path / "r")
    library = new_library()
    document(root, library=library)
    (root / "ledger/money.py").rename(root / "ledger/coins.py")
    answer = document(root, "add", library=library)
    assert "ledger/money.py" not in paths(answer)
    assert "ledger/coins.py" in paths(answer)


def test_the_index_survives_a_restart(tmp_path: Path) -> None:
    """Every start indexed large projects anew; a damaged index stopped the start."""
    root = tmp_path / "r"
    write_files(root, {f"m{n}.py": f"def name{n}(): pass\n" for n in range(250)})
    old = time.time() - 100
    for path in root.iterdir():
        os.utime(path, (old, old))
    first = new_library(tmp_path / "state")
    expected = paths(document(root, "name77", library=first))
    first.save(str(root.resolve()))
    kept = path_of(str(tmp_path / "state"), str(root.resolve()))
    assert kept.stat().st_mode & 0o777 == 0o600
    second = new_library(tmp_path / "state")
    assert len(second.state(str(root.resolve())).files) == 250
    assert paths(document(root, "name77", library=second)) == expected
    kept.write_bytes(b"rubbish")
    assert paths(document(root, "name77", library=new_library(tmp_path / "state"))) == expected


def test_past_commits_vote_for_files(tmp_path: Path) -> None:
    """A file that no word of the task leads to was not found although a past commit says the same."""
    root = tmp_path / "r"
    write_files(root, {"a.py": "one = 1\n", "b.py": "two = 2\n", "c.py": "three = 3\n"})
    git(tmp_path, "init", "-q", "r")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "Begin")
    (root / "b.py").write_text("two = 22\n")
    git(root, "commit", "-qam", "Handle rotated credentials of the gateway")
    answer = document(root, "gateway loses rotated credentials")
    assert paths(answer)[0] == "b.py"
    assert "past commits" in answer["context"]["relevant_files"][0]["reason"]


def test_files_that_earlier_agents_named_count(tmp_path: Path) -> None:
    """The next agent did not see the file that the last one changed."""
    root = tmp_path / "r"
    write_files(root, {f"m{n}.py": f"value{n} = {n}\n" for n in range(20)})
    outputs = ({"agent": "a", "files_affected": ["m13.py"]},)
    assert paths(document(root, "continue", outputs=outputs))[0] == "m13.py"


def test_requested_requirements_come_first(tmp_path: Path) -> None:
    """A spawn's ``context_requirements`` changed nothing."""
    write_files(tmp_path, {**MIXED_FILES, ".github/workflows/ci.yml": "on: push\n", "Dockerfile": "FROM x\n"})
    role = Role(agent_type="go-specialist", requirements=("ci_configs",), wished=("ci_configs",))
    assert paths(document(tmp_path, "greeting", role=role))[0] == ".github/workflows/ci.yml"


def test_what_a_profile_excludes_is_left_out(tmp_path: Path) -> None:
    """A role was given files that its profile excludes."""
    write_files(tmp_path, MIXED_FILES)
    role = Role(agent_type="go-specialist", exclude=("web/",))
    assert not [path for path in paths(document(tmp_path, role=role)) if path.startswith("web/")]


def test_each_role_gets_its_own_kind_first(tmp_path: Path) -> None:
    """All roles were given the same files."""
    write_files(tmp_path, {**MIXED_FILES, **PYTHON_FILES, ".github/workflows/ci.yml": "on: push\n"})
    library = new_library()

    def first(agent_type: str, category: str = "", task: str = "greeting account") -> str:
        role = Role(agent_type=agent_type, category=category)
        return paths(document(tmp_path, task, role=role, library=library))[0]

    assert first("go-specialist").endswith(".go")
    assert first("python-specialist").endswith(".py")
    assert "test" in first("test-engineer")
    assert first("documentation-expert", task="guide").endswith(".md")
    assert first("devops-engineer", task="") in (
        ".github/workflows/ci.yml",
        "pyproject.toml",
        "web/package.json",
        "go.mod",
    )


def test_every_role_of_the_roster_gets_files_within_budget(tmp_path: Path) -> None:
    """A role's name or category broke the ranking."""
    write_files(tmp_path, {**MIXED_FILES, **PYTHON_FILES})
    library = new_library()
    leaders = set()
    for entry in roster():
        role = Role(agent_type=entry.agent_type, category=entry.category, permission_class=entry.permission_class)
        answer = document(tmp_path, role=role, max_bytes=1500, library=library)
        assert 0 < answer["total_size_bytes"] <= 1500
        leaders.add(tuple(paths(answer)))
    assert len(leaders) >= 5


def test_search_finds_lines(tmp_path: Path) -> None:
    """Search answered with files but no place in them."""
    root = sample_repository(tmp_path / "r")
    hits = new_library().search(str(root.resolve()), "balance of an account", 3)
    assert hits[0].path == "ledger/accounts.py"
    assert any("balance" in text for _, text in hits[0].lines)
    assert new_library().search(str(root.resolve()), "", 3) == []


def test_explain_says_why_and_what_is_missing(tmp_path: Path) -> None:
    """``--explain`` did not name what was left out."""
    root = sample_repository(tmp_path / "r")
    told = new_library().explain(order(root, "account", max_bytes=400))
    assert told["files"][0]["signals"]["body"] > 0
    assert {entry["path"] for entry in told["omitted"]} | {entry["path"] for entry in told["files"]} >= {"README.md"}


@pytest.mark.parametrize("count", [700, MOST_RANKED + 300])
def test_every_file_that_is_left_out_is_counted(tmp_path: Path, count: int) -> None:
    """Of 700 files 18 were given and 500 named: of the others nothing was said, nor that there were any."""
    write_files(tmp_path, {f"m{n}.py": f"value_{n} = {n}\n" for n in range(count)})
    answer = document(tmp_path, "value_7", max_bytes=300)
    assert answer["file_count"] > 0
    assert len(answer["omitted"]) == 500
    assert answer["file_count"] + answer["omitted_total"] == count
    assert f"- and {answer['omitted_total'] - 100} more" in markdown(answer)


def test_a_file_that_is_refused_is_named_with_the_reason(tmp_path: Path) -> None:
    """A file that could not be read was in the project's list of files, and neither given nor left out."""
    root = tmp_path / "r"
    write_files(root, {"a.py": "x = 1\n", "b.py": "x = 2\n", ".env": "x"})
    for name in ("b.py", ".env"):
        if os.geteuid():
            (root / name).chmod(0)
        else:  # whom no mode stops
            os.link(root / name, tmp_path / name)
            os.chown(root / name, 12345, 12345)
    library = new_library()
    answer = document(root, "x", library=library)
    reason = "unreadable" if os.geteuid() else "foreign_link"
    assert paths(answer) == ["a.py"]
    assert answer["omitted"] == [{"path": ".env", "reason": "secret"}, {"path": "b.py", "reason": reason}]
    assert answer["omitted_total"] == 2
    assert library.explain(order(root, "x"))["omitted"] == answer["omitted"]


def test_what_nobody_could_be_shown_is_no_truncation(tmp_path: Path) -> None:
    """A project of many pictures was told to be cut though every text was given whole."""
    write_files(tmp_path, {f"pictures/{n}.png": "" for n in range(MOST_RANKED)} | {"app.py": "x = 1\n"})
    found = document(tmp_path, "x")
    assert (found["file_count"], found["truncated"], found["truncation_strategy"]) == (1, False, "none")
    write_files(tmp_path, {f"notes/{n}.md": "x\n" for n in range(MOST_RANKED)})
    assert document(tmp_path, "x", max_bytes=1 << 20)["truncated"]


def test_one_look_serves_all_refreshes_that_were_asked_for_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """119 agents that wanted a fresh answer at once looked at every file 119 times, one after the other."""
    root = sample_repository(tmp_path / "r")
    library = new_library()
    looks = 0
    look = ProjectState.refresh

    def counted(state: ProjectState, *arguments: Any) -> bool:
        nonlocal looks
        looks += 1
        return look(state, *arguments)

    monkeypatch.setattr(ProjectState, "refresh", counted)
    asked_at = time.monotonic()
    for number in range(5):
        asked = msgspec.structs.replace(order(root, f"account {number}"), is_refresh=True)
        library.build(asked, changed=(), asked_at=asked_at)
    assert looks == 1


def test_a_refresh_that_was_asked_for_later_looks_again(tmp_path: Path) -> None:
    """An agent that asked after its change got what a look before it had seen."""
    root = sample_repository(tmp_path / "r")
    library = new_library()
    asked = msgspec.structs.replace(order(root, "account"), is_refresh=True)
    for number in range(3):
        write_files(root, {"ledger/money.py": f"account_{number} = {number}\n"})
        answer = library.build(asked, changed=(), asked_at=time.monotonic())
        assert f"account_{number}".encode() in answer.body


def test_a_look_does_not_serve_who_knows_of_later_changes(tmp_path: Path) -> None:
    """The watch lost count after the look began; what changed since was taken for seen."""
    root = sample_repository(tmp_path / "r")
    library = new_library()
    asked = msgspec.structs.replace(order(root, "account"), is_refresh=True)
    asked_at = time.monotonic()
    library.build(asked, changed=(), asked_at=asked_at)
    write_files(root, {"ledger/money.py": "account_late = 1\n"})
    assert b"account_late" in library.build(asked, changed=None, asked_at=asked_at).body
    write_files(root, {"ledger/money.py": "account_later = 1\n"})
    told = library.build(asked, changed={"ledger/money.py"}, asked_at=asked_at)
    assert b"account_later" in told.body

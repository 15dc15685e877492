"""What a task says of places: paths, dotted names, the part before the colon; and which block of a file it means."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.context.excerpts import open_view, score_blocks
from orchestrator.context.library import Library
from orchestrator.context.models import BuildOrder, Role
from orchestrator.context.project import Limits
from orchestrator.context.query import parse
from orchestrator.context.roles import is_entry_point
from orchestrator.context.words import Splitter
from tests.support.repo import git, write_files


def _first(root: Path, task: str) -> tuple[str, dict[str, float]]:
    library = Library(Limits(), 1 << 28)
    order = BuildOrder(
        project_id="p", root=str(root), issue_id="i", role=Role(agent_type="anyone"), task=task, max_bytes=100_000
    )
    found = library.explain(order)["files"][0]
    return found["path"], found["signals"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Files alike in their texts, so that only the place tells them apart."""
    for path in (
        "app/http/session.py",
        "app/store/session.py",
        "app/store/cursor.py",
        "app/http/no_retry.py",
        "lib/retry.py",
        "lib/other.py",
    ):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("def begin(connection):\n    return connection.open()\n")
    return tmp_path


@pytest.mark.parametrize(
    "said",
    [
        "see app/store/session.py",
        'File "/srv/x/app/store/session.py", line 2',
        r"at app\store\session.py",
        "app.store.session.begin is slow",
    ],
)
def test_a_path_chooses_between_files_of_one_name(project: Path, said: str) -> None:
    """The first of two equal names in alphabetical order was shown for a trace that named the other."""
    assert _first(project, f"The connection does not open\n\n{said}")[0] == "app/store/session.py"


def test_a_dotted_name_of_variables_is_no_path(tmp_path: Path) -> None:
    """``self.context`` made a file ``context.py`` at the root the best answer to everything."""
    (tmp_path / "context.py").write_text("pass\n")
    (tmp_path / "engine.py").write_text("def ignite():\n    spark()\n")
    signals = _first(tmp_path, "ignite forgets the spark of self.context")[1]
    assert signals.get("mention", 0.0) < 0.5


@pytest.mark.parametrize(
    ("subject", "scopes"),
    [
        ("store: open the connection", {"store"}),
        ("fix(app/store): open the connection", {"app", "store"}),
        ("feat(http)!: open", {"http"}),
        ("http, no-retry: open the connection", {"http", "noretry"}),
        ("[no-retry] open the connection", {"noretry"}),
        ("Fix: [store] nothing", {"store"}),
        ("fix: open the connection", set()),
        ("a subject that says much before it comes to the point of the matter: here", set()),
        ("open the connection", set()),
    ],
)
def test_the_part_before_the_colon(subject: str, scopes: set[str]) -> None:
    """The sort of a change ("fix:") was taken for a directory, or the directory for a word like any other."""
    assert parse(subject, Splitter()).scopes == scopes


def test_the_part_that_the_subject_names_comes_first(project: Path) -> None:
    """Equal files of two directories were in alphabetical order though the subject named one."""
    path, signals = _first(project, "store: open the connection of the session")
    assert path == "app/store/session.py"
    assert signals["scope"] > 0


def test_a_name_of_several_words_is_no_word_of_prose(project: Path) -> None:
    """``no-retry`` counted no more than any word, so ``retry.py`` came before ``no_retry.py``."""
    assert _first(project, "Handle connection in no_retry")[0] == "app/http/no_retry.py"


def test_the_block_that_is_named_so_matches_best() -> None:
    """A function was beaten by its callers, which have its name as often as it has."""
    caller = "def caller_{0}():\n    parse_header(1)\n    parse_header(2)\n    return 1\n\n\n"
    text = caller.format(1) + "def parse_header(value):\n" + "    value += 1\n" * 8 + "    return value\n\n\n"
    view = open_view((text + caller.format(2) * 4).encode(), "python")
    scores = score_blocks(view, [(b"parse", 1.0), (b"header", 1.0)])
    assert view.blocks[scores.index(max(scores))].name == "parse_header"


def test_what_every_block_says_tells_none_apart() -> None:
    """A word that the whole file repeats hid the one block with the rare word."""
    part = "def part_{0}():\n" + "    session(session, session)\n" * 8 + "\n\n"
    rare = "def rare():\n" + "    session()\n" * 7 + "    expiry()\n\n\n"
    view = open_view((part.format(1) + part.format(2) + rare + part.format(3)).encode(), "python")
    scores = score_blocks(view, [(b"session", 1.0), (b"expiri", 0.0), (b"expiry", 1.0)])
    assert view.blocks[scores.index(max(scores))].name == "rare"


def test_one_commit_is_no_habit(tmp_path: Path) -> None:
    """Every file of a repository with one commit was said to change often."""
    git(tmp_path, "init", "-q")
    write_files(tmp_path, {"main.py": "def run():\n    pass\n", "other.py": "x = 1\n"})
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "begin")
    library = Library(Limits(), 1 << 28)
    order = BuildOrder(
        project_id="p", root=str(tmp_path), issue_id="i", role=Role(agent_type="anyone"), task="run", max_bytes=9000
    )
    assert all("often" not in entry["reason"] for entry in library.explain(order)["files"])
    write_files(tmp_path, {"main.py": "def run():\n    return 1\n"})
    git(tmp_path, "commit", "-qam", "again")
    signals = {entry["path"]: entry["signals"] for entry in library.explain(order)["files"]}
    assert "activity" in signals["main.py"]
    assert "activity" not in signals["other.py"]


@pytest.mark.parametrize(
    ("path", "starts"),
    [
        ("main.py", True),
        ("src/main.rs", True),
        ("web/main.tsx", True),
        ("main.tf", False),
        ("infra/main.tfvars", False),
        ("main.css", False),
        ("docs/main.md", False),
    ],
)
def test_where_a_program_starts(path: str, starts: bool) -> None:
    """Terraform's ``main.tf`` was shown to architects as the program's entry."""
    assert is_entry_point(path) is starts


_TEXT = st.text("aAsz1_é .(\n", max_size=20)


@given(_TEXT, _TEXT, st.text("as", min_size=1, max_size=3) | st.text("as1_é", min_size=4, max_size=6), st.booleans())
def test_a_term_is_found_wherever_it_stands(left: str, right: str, word: str, is_there: bool) -> None:
    """A term within a long identifier, after a digit or beside a letter beyond ASCII was taken for missing."""
    text, term = (left + word * is_there + right).encode(), word.encode()
    if len(term) <= 3:  # as a whole word, maybe in the plural
        stands = re.search(rb"(?<![a-z])" + term + rb"(?![a-rt-z])", text.lower()) is not None
    else:
        stands = term in text.lower()
    assert any(score_blocks(open_view(text, "text"), [(term, 1.0)])) is stands

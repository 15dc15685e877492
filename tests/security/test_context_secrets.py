"""Secrets do not leave: planted ones appear in no part of a context."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.context.models import BuildOrder
from orchestrator.context.project import Limits
from orchestrator.context.provisional import glance
from tests.support.context import new_library, order
from tests.support.repo import commit_all, git, repository, write_files
from tests.support.secrets import planted

_LINES = st.lists(st.sampled_from(["def f():", "    x = 1", "# note", "", "value: 3", '{"a": 1}']), max_size=12)


@settings(max_examples=40)
@given(
    st.sampled_from(sorted(planted(1))),
    st.integers(0, 10_000),
    _LINES,
    st.sampled_from(["a.py", "b.md", "c.yaml", "d.txt", "e.ts"]),
)
def test_no_planted_secret_appears_in_a_context(
    tmp_path_factory: pytest.TempPathFactory, kind: str, seed: int, lines: list[str], name: str
) -> None:
    """A secret hidden alone showed within a larger file of some kind."""
    secret, line = planted(seed)[kind]
    root = tmp_path_factory.mktemp("planted")
    (root / name).write_text("\n".join([*lines, line, *lines]) + "\n")
    asked = order(root, "value", max_bytes=5000)
    assert secret not in new_library().build(asked).body.decode()
    assert secret not in _provisional(asked)


def _provisional(asked: BuildOrder) -> str:
    answer = glance(asked, Limits(), least_bytes=0)
    assert answer is not None
    return answer.body.decode()


def test_secrets_stay_out_of_paths(tmp_path: Path) -> None:
    """A token that somebody had for the name of a file was shown in it: a path was never redacted."""
    made = [planted(seed)["github-token"][0] for seed in (1, 2, 3, 4)]
    in_file, in_folder, in_history, in_change = made
    files = {f"{in_file}.py": "ledger = 1\n", f"{in_folder}/one.py": "ledger = 2\n", f"{in_history}.py": "ledger = 3\n"}
    root = repository(tmp_path / "r", files)
    (root / f"{in_history}.py").unlink()
    commit_all(root, "Remove one")
    write_files(root, {f"{in_change}.py": "ledger = 4\n", f"{in_folder}/one.py": "ledger = 5\n"})
    library = new_library()
    asked = order(root, "ledger", max_bytes=20)
    bodies = [library.build(asked).body.decode(), _provisional(asked), json.dumps(library.explain(asked))]
    hits = library.search(str(root.resolve()), "ledger", 5)
    for text in (*bodies, repr(hits)):
        assert "[redacted:github-token]" in text
        assert not [secret for secret in made if secret in text]
    structure = json.loads(bodies[0])["context"]["project_structure"]
    assert "[redacted:github-token]/one.py" in structure["files"]
    assert structure["directories"] == ["[redacted:github-token]"]


def test_secrets_stay_out_of_diffs_messages_and_earlier_outputs(tmp_path: Path) -> None:
    """What was hidden in files came out in git's part or in another agent's result (fault 72)."""
    secrets = {
        kind: pair
        for kind, pair in planted(77).items()
        if kind in ("github-token", "stripe-key", "password", "anthropic-key")
    }
    (in_diff, diff_line), (in_message, message_line), (in_output, output_line), (in_file, file_line) = secrets.values()
    root = repository(tmp_path / "r", {"a.py": "one = 1\n", ".env": f"{file_line}\n"})
    write_files(root, {"b.py": "two = 2\n"})
    commit_all(root, f"Rotate\n\n{message_line}")
    write_files(root, {"a.py": f"one = 1\n{diff_line}\n", ".env": f"changed=1\n{file_line}\n"})
    outputs = ({"agent": "a", "decisions": [output_line], "artifacts": {"log": [output_line]}, "files_affected": []},)
    library = new_library()
    asked = order(root, "rotate", outputs=outputs)
    for body in (library.build(asked).body.decode(), _provisional(asked)):
        for secret in (in_diff, in_message, in_output, in_file):
            assert secret not in body
        assert "[redacted:" in body
        assert '{"path":".env","reason":"secret"}' in body
    hits = library.search(str(root.resolve()), "one", 5)
    assert all(in_diff not in text for hit in hits for _, text in hit.lines)


def test_secrets_stay_out_of_dependencies_and_names_of_branches(tmp_path: Path) -> None:
    """The password of a private package's address, or a token in a branch's name, came along with the metadata."""
    made = planted(55)
    (in_url, _), (in_branch, _), (in_version, _) = made["url-password"], made["github-token"], made["npm-token"]
    manifest = json.dumps({"version": in_version, "dependencies": {"a": f"git+https://me:{in_url}@git.invalid/a.git"}})
    files = {
        "requirements.txt": f"b @ git+https://me:{in_url}@git.invalid/b.git@v1\n",
        "package.json": manifest,
        "a.py": "one = 1\n",
    }
    root = repository(tmp_path / "r", files)
    git(root, "checkout", "-q", "-b", f"fix/{in_branch}")
    body = new_library().build(order(root, "one")).body.decode()
    for secret in (in_url, in_branch, in_version):
        assert secret not in body
    rows = json.loads(body)["context"]["metadata"]["dependencies"]
    assert not any("scope" in row for row in rows)  # what is common is not said
    assert {row["name"]: row["version"] for row in rows} == {
        "a": "git+https://me:[redacted:url-password]@git.invalid/a.git",
        "b": "@ git+https://me:[redacted:url-password]@git.invalid/b.git@v1",
    }

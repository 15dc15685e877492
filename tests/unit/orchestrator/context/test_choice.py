"""A project's own globs: they are its alone, follow its file, and a bad file costs nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import load_settings
from orchestrator.errors import ConfigInvalid
from tests.support.context import document, new_library, order
from tests.support.repo import sample_repository, write_files

GLOBS = '[context]\ninclude = ["build/out.py"]\nexclude = ["ledger/money.py"]\n'


def _files(answer: dict[str, Any]) -> set[str]:
    return set(answer["context"]["project_structure"]["files"])


def _problems(answer: dict[str, Any]) -> list[str]:
    found: list[str] = answer["context"]["git_context"].get("problems", [])
    return found


def _project(path: Path) -> Path:
    root = sample_repository(path)
    write_files(root, {".gitignore": "build/\n", "build/out.py": "account_out = 1\n"})
    return root


def test_globs_are_those_of_their_own_project(tmp_path: Path) -> None:
    """Globs of the project that the sidecar was started in counted for all, those of the others for none."""
    chosen, plain = _project(tmp_path / "chosen"), _project(tmp_path / "plain")
    write_files(chosen, {"orchestrator.toml": GLOBS})
    library = new_library()
    assert {"build/out.py", "ledger/money.py"} & _files(document(chosen, library=library)) == {"build/out.py"}
    assert {"build/out.py", "ledger/money.py"} & _files(document(plain, library=library)) == {"ledger/money.py"}
    settings = load_settings(project_dir=chosen, environ={"HOME": str(tmp_path)}).settings
    assert (settings.context.include, settings.context.exclude) == ([], [])


def test_a_change_of_the_globs_shows_at_once(tmp_path: Path) -> None:
    """The watch told of the changed file, and only its own text was looked at."""
    root = _project(tmp_path / "r")
    write_files(root, {"orchestrator.toml": "[context]\n"})
    library = new_library()
    assert "ledger/money.py" in _files(document(root, library=library))
    write_files(root, {"orchestrator.toml": GLOBS})
    answer = json.loads(library.build(order(root), changed=frozenset({"orchestrator.toml"})).body)
    assert {"build/out.py", "ledger/money.py"} & _files(answer) == {"build/out.py"}


@pytest.mark.parametrize(
    "text",
    [
        '[context]\ninclude = "build"\n',
        "[context]\nexclude = [1]\n",
        "context = 3\n",
        "[context\n",
        "\udcff",
        "a = " + "[" * 9999,
    ],
)
def test_a_bad_file_is_told_and_the_project_still_shown(tmp_path: Path, text: str) -> None:
    """A project whose orchestrator.toml was broken had no context at all."""
    root = _project(tmp_path / "r")
    (root / "orchestrator.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    answer = document(root)
    assert "ledger/money.py" in _files(answer)
    assert _problems(answer)[0].startswith("orchestrator.toml is not used: ")


def test_globs_that_were_ignored_themselves_end_with_their_file(tmp_path: Path) -> None:
    """A file of globs that git ignores was taken, when it was deleted, for one that came and went."""
    root = _project(tmp_path / "r")
    write_files(root, {".gitignore": "build/\norchestrator.toml\n", "orchestrator.toml": GLOBS})
    library = new_library()
    assert "ledger/money.py" not in _files(document(root, library=library))
    (root / "orchestrator.toml").unlink()
    answer = json.loads(library.build(order(root), changed=frozenset({"orchestrator.toml"})).body)
    assert "ledger/money.py" in _files(answer)


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    """A FIFO in place of the file blocked the builder for ever."""
    root = _project(tmp_path / "r")
    os.mkfifo(root / "orchestrator.toml")
    assert _problems(document(root)) == ["orchestrator.toml is not used: not_regular"]


def test_bad_globs_of_the_project_here_are_refused_at_the_start(tmp_path: Path) -> None:
    """``serve --check`` called a file good whose globs were then not used."""
    (tmp_path / "orchestrator.toml").write_text('[context]\ninclude = "build"\n')
    with pytest.raises(ConfigInvalid, match=r"context\.include: Expected `array`, got `str`; write a list of globs"):
        load_settings(project_dir=tmp_path, environ={"HOME": str(tmp_path)})

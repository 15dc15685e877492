"""The reviewer and the documentation expert, and the smaller analysts: what they find in made-up projects."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import pytest

from orchestrator.analysts import markdown
from orchestrator.analysts.diffs import parse_diff
from orchestrator.analysts.research import task_terms
from orchestrator.analysts.workbench import StepTooLong, time_limit
from tests.support.repositories import analyse, commit, finding, kinds, write


def test_uncommitted_change_is_judged(tmp_path: Path) -> None:
    """The reviewer looks at old commits while work lies in the tree, or approves a syntax error."""
    root = tmp_path / "p"
    commit(root, {"a.py": "def f():\n    return 1\n", "b.py": "from a import f\n"})
    write(root, {"a.py": "def g(:\n", "new.py": "breakpoint()\n"})
    result = analyse("review", root)
    assert result["artifacts"]["verdict"] == "request changes"
    assert {"syntax-error", "debug-left", "removed-but-used"} <= kinds(result)
    assert finding(result, "removed-but-used")["message"].startswith("f is removed, yet b.py")
    assert {row["path"]: row["status"] for row in result["artifacts"]["changed_files"]} == {
        "a.py": "modified",
        "new.py": "untracked",
    }


def test_branch_and_last_commit_are_the_basis(tmp_path: Path) -> None:
    """A clean tree has nothing to review, though a branch is open."""
    root = tmp_path / "p"
    commit(root, {"a.py": "x = 1\n"}, "One")
    assert analyse("review", root)["metrics"]["basis"].startswith("last commit")
    subprocess.run(["git", "checkout", "-q", "-b", "topic"], cwd=root, check=True)
    commit(root, {"b.py": "y = 1\n"}, "Two")
    commit(root, {"c.py": "z = 1\n"}, "Three")
    result = analyse("review", root)
    assert result["metrics"]["basis"] == "branch topic since main"
    assert result["metrics"]["files_changed"] == 2


def test_earlier_findings_are_merged_and_ranked(tmp_path: Path) -> None:
    """Two agents' same finding shows twice, or what lies in the change drowns."""
    root = tmp_path / "p"
    commit(root, {"a.py": "x = 1\n", "b.py": "y = 1\n"})
    write(root, {"a.py": "x = 2\n"})
    same = {"severity": "medium", "kind": "k", "path": "b.py", "line": 1, "message": "old"}
    inside = {"severity": "medium", "kind": "k", "path": "a.py", "line": 1, "message": "touched"}
    previous = [
        {"agent_type": "security-auditor", "agent": "s", "result": {"status": "success", "findings": [same]}},
        {"agent_type": "python-specialist", "agent": "p", "result": {"status": "success", "findings": [same, inside]}},
    ]
    result = analyse("review", root, previous=previous)
    gathered = result["artifacts"]["gathered"]
    assert [(one["path"], one["in_change"]) for one in gathered] == [("a.py", True), ("b.py", False)]
    assert sorted(gathered[1]["found_by"]) == ["python-specialist", "security-auditor"]
    assert result["artifacts"]["verdict"] == "approve with comments"


def test_diff_of_renames_binaries_and_deletions() -> None:
    """Paths or line numbers of a diff are read wrongly."""
    text = (
        "diff --git a/o.py b/n.py\nsimilarity index 90%\nrename from o.py\nrename to n.py\n--- a/o.py\n+++ b/n.py\n"
        "@@ -3 +3,2 @@ def f():\n-a\n+b\n+c\n"
        "diff --git a/x.png b/x.png\nnew file mode 100644\nBinary files /dev/null and b/x.png differ\n"
        "diff --git a/d.py b/d.py\ndeleted file mode 100644\n--- a/d.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-z\n"
    )
    renamed, binary, deleted = parse_diff(text)
    assert (renamed.path, renamed.status, renamed.added, renamed.removed) == (
        "n.py",
        "renamed",
        ((3, "b"), (4, "c")),
        ("a",),
    )
    assert (binary.path, binary.status, binary.is_binary) == ("x.png", "added", True)
    assert (deleted.path, deleted.status) == ("d.py", "deleted")


LINKS = {"broken-link", "broken-anchor", "stale-reference"}


def test_broken_links_and_stale_references(tmp_path: Path) -> None:
    """Links in code blocks are checked, or a wrong anchor passes."""
    readme = (
        "# Tool\n\nInstall with pip. Usage below.\n\n"
        "[good](docs/a.md#first-part) [bad](docs/none.md) [anchor](docs/a.md#nope)\n"
        "[web](https://example.org/x)\n\n```md\n[in code](gone.md)\n```\n\nSee `src/gone.py` and `src/here.py`.\n"
    )
    files = {
        "README.md": readme,
        "docs/a.md": "# A\n\n## First part\n",
        "src/here.py": '"""Here."""\n\ndef f():\n    return 1\n',
        "LICENSE": "MIT",
    }
    result = analyse("documentation", write(tmp_path / "p", files))
    assert [(one["kind"], one["line"]) for one in result["findings"] if one["kind"] in LINKS] == [
        ("broken-link", 5), ("broken-anchor", 5), ("stale-reference", 12)]  # fmt: skip
    assert finding(result, "undocumented-names")["path"] == "src/here.py"


def test_a_wrapped_address_is_told_as_such(tmp_path: Path) -> None:
    """The reader is told that a file named https:/example.org/x is missing, and looks for it."""
    files = {"README.md": "# Tool\n\n[7](<(https://example.org/x)>)\n", "LICENSE": "MIT"}
    found = finding(analyse("documentation", write(tmp_path / "p", files)), "broken-link")
    assert "https:/e" not in found["message"]
    assert "before the address" in found["message"]


def test_places_are_named_as_far_as_known(tmp_path: Path) -> None:
    """Next steps send the reader to line 0, or to no place at all."""
    result = analyse("documentation", write(tmp_path / "p", {"README.md": "# T\n\n[a](gone.md)\n", "a.py": "X = 1\n"}))
    assert result["next_steps"] == [
        "Mend broken-link in README.md:3",
        "Mend no-license in the project",
        "Mend readme-gap in README.md",
    ]


def test_nothing_to_review_has_no_figures(tmp_path: Path) -> None:
    """A directory without history is reported as a change of 0 files and +0 −0 lines."""
    result = analyse("review", write(tmp_path / "p", {"a.py": "X = 1\n"}))
    assert result["summary"] == "Not a git repository: nothing to review."


def test_anchors_are_those_of_github() -> None:
    """Slugs of repeated or decorated headings differ from what GitHub makes."""
    assert markdown.anchors("# A `b` & c\n## Same\n## Same\n### X {#own}\n") == {
        "a-b--c",
        "same",
        "same-1",
        "own",
        "x",
    }


def test_dependencies_are_compared_with_imports(tmp_path: Path) -> None:
    """Local modules or the standard library count as undeclared, or a differing name as unused."""
    files = {
        "pyproject.toml": '[project]\nname = "app"\ndependencies = ["pyyaml>=6", "leftpad"]\n',
        "app/__init__.py": "import os\nimport yaml\nimport undeclared_one\nfrom app import core\n",
        "app/core.py": "",
    }
    result = analyse("dependencies", write(tmp_path / "p", files))
    assert "undeclared_one" in finding(result, "undeclared-dependency")["message"]
    assert finding(result, "unused-dependency")["message"].startswith("leftpad")
    assert len(result["findings"]) == 2


def test_infrastructure_data_and_interfaces(tmp_path: Path) -> None:
    """A kind of file is no longer recognised."""
    files = {
        "k8s/app.yaml": "apiVersion: apps/v1\nkind: Deployment\nspec:\n  template:\n"
        "    spec:\n      containers:\n        - image: shop:latest\n",
        "db/migrations/1.sql": "CREATE TABLE a (id int PRIMARY KEY, b int REFERENCES b(id));\n"
        "DELETE FROM a;\nALTER TABLE a DROP COLUMN c;\n",
        "app.py": "@app.get('/users/<int:id>')\ndef user(id):\n"
        "    for x in xs:\n        db.execute('SELECT a FROM t WHERE x = ?', (x,))\n",
        "openapi.yaml": "openapi: 3.0.0\npaths:\n  /users/{id}:\n    get:\n  /gone:\n    get:\n",
    }
    root = write(tmp_path / "p", files)
    assert {"image-not-pinned", "no-limits", "no-probes", "no-ci"} <= kinds(analyse("infrastructure", root))
    assert {"no-where", "data-loss", "foreign-key-without-index", "query-in-loop"} <= kinds(analyse("data", root))
    surface = analyse("api_surface", root)
    assert surface["artifacts"]["routes"][0]["route"] == "/users/<int:id>"
    assert [one["message"].split(" is")[0] for one in surface["findings"] if one["kind"] == "described-only"] == [
        "GET /gone"
    ]


def test_what_is_not_known_is_not_said_to_be_missing(tmp_path: Path) -> None:
    """A project of a kind that is not looked into was told that it offers nothing, delivers nothing and has no CI."""
    files = {"main.c": "int main(void) { return 0; }\n", "f.lua": "function f() end\n", "run.sh": "true\n"}
    files |= {"chart/Chart.yaml": "name: x\n", ".woodpecker.yml": "steps: []\n"}
    root = write(tmp_path / "p", files)
    explored = analyse("api_surface", root)
    assert explored["metrics"]["languages_not_read"] == {"C": 1, "Lua": 1}
    assert "Public names are not read in " in explored["summary"]
    delivered = analyse("infrastructure", root)
    assert "(not checked: chart/Chart.yaml)" in delivered["summary"]
    assert "no-ci" not in kinds(delivered)
    forge = {".forgejo/workflows/ci.yml": "on: push\n", "k8s/app.yaml": "apiVersion: apps/v1\nkind: Deployment\n"}
    delivered = analyse("infrastructure", write(tmp_path / "forge", forge))
    assert "(not checked: .forgejo/workflows/ci.yml)" in delivered["summary"]
    assert "no-ci" not in kinds(delivered)
    plain = analyse("api_surface", write(tmp_path / "q", {"a.py": "def f():\n    return 1\n", "run.sh": "true\n"}))
    assert (plain["metrics"]["languages_not_read"], plain["metrics"]["public_names"]) == ({}, 1)


def test_research_finds_where_the_task_lives(tmp_path: Path) -> None:
    """Everyday words outweigh the names of the task."""
    files = {
        "net/ratelimit.py": "class RateLimiter:\n    def allow(self):\n        return True\n",
        "other.py": "def make_the_file_work():\n    return 1\n" * 30,
    }
    result = analyse(
        "research", write(tmp_path / "p", files), task="Please make the RateLimiter work with the new file"
    )
    assert result["artifacts"]["locations"][0]["path"] == "net/ratelimit.py"
    assert task_terms("please make the file work") == []


def test_pages_and_costs(tmp_path: Path) -> None:
    """Markup or loops are no longer understood; odd markup takes for ever."""
    files = {
        "index.html": "<html><head></head><body><img src=a.png><input id='a'><label for='b'></label></body></html>"
        + "<p {{ a='" * 5000,
        "a.py": "import re\ndef f(xs):\n    for x in xs:\n        re.compile('a').match(x)\n        xs.pop(0)\n",
    }
    root = write(tmp_path / "p", files)
    assert {"image-without-alt", "control-without-label", "no-language", "no-title"} <= kinds(analyse("frontend", root))
    assert {"compile-in-loop", "pop-front"} <= kinds(analyse("performance", root))


def test_step_is_interrupted_in_the_midst_of_a_loop() -> None:
    """A step that never looks at the clock holds the agent for ever."""
    endless = itertools.repeat(None)
    with pytest.raises(StepTooLong, match="took longer"), time_limit(0.05):
        all(one is None for one in endless)

"""The architect: languages, dependencies, cycles, hotspots."""

from __future__ import annotations

from pathlib import Path

from orchestrator.analysts import graph, lexical, modules
from tests.support.repositories import analyse, commit, finding, kinds, write


def test_cycle_and_foundation_are_found(tmp_path: Path) -> None:
    """Relative and deferred imports are resolved wrongly: cycles invented or missed."""
    files = {
        "app/__init__.py": "",
        "app/base.py": "VALUE = 1\n",
        "app/a.py": "from app.base import VALUE\nfrom . import b\n",
        "app/b.py": "from .a import VALUE\nfrom .base import VALUE as v\n",
        "app/late.py": "from app import base\n\ndef f():\n    from app import a\n    return a\n",
        "app/a2.py": "from app import late\n",
    }
    result = analyse("architecture", write(tmp_path / "p", files))
    cycle = finding(result, "import-cycle")
    assert "app/a.py" in cycle["message"]
    assert "app/b.py" in cycle["message"]
    assert result["metrics"]["import_cycles"] == 1
    assert result["artifacts"]["most_used_files"][0]["path"] == "app/base.py"


def test_hotspot_is_the_file_that_changes_most(tmp_path: Path) -> None:
    """Churn is counted per line, or a mass change makes every file hot."""
    root = tmp_path / "p"
    for number in range(6):
        body = "".join(f"x{line} = {number}\n" for line in range(40))
        commit(root, {"hot.py": body, "cold.py": "y = 1\n"}, f"Change {number}")
    result = analyse("architecture", root)
    assert [one["path"] for one in result["artifacts"]["hotspots"]] == ["hot.py"]
    assert result["artifacts"]["hotspots"][0]["commits"] == 6
    assert "hot.py" in result["decisions"][0]


def test_go_packages_depend_by_module_path(tmp_path: Path) -> None:
    """Go imports are taken for file paths."""
    files = {
        "go.mod": "module example.org/shop\n",
        "main.go": 'package main\n\nimport (\n\t"fmt"\n\t"example.org/shop/store"\n)\n\n'
        "func main() { fmt.Println(store.X) }\n",
        "store/store.go": "package store\n\nvar X = 1\n",
    }
    result = analyse("architecture", write(tmp_path / "p", files))
    assert result["metrics"]["main_language"] == "Go"
    assert {"from": "main.go", "to": "store", "uses": 1} in [
        {**one, "to": one["to"].removesuffix("/store.go")} for one in result["artifacts"]["dependencies"]
    ]
    assert result["artifacts"]["entry_points"][0]["kind"] == "main"


def test_layers_and_cycles_of_a_graph() -> None:
    """Levels of a condensed graph are off by one, or a self-made recursion limit is hit."""
    chain = {str(index): [str(index + 1)] for index in range(5000)}
    assert len(graph.layers(chain)) == 5001
    assert graph.layers({"a": ["b"], "b": ["a", "c"], "c": []}) == [["c"], ["a", "b"]]
    assert graph.cycles({"a": ["b"], "b": ["a"], "c": ["a"]}) == [["a", "b"]]
    assert graph.shortest_cycle({"a": ["b", "c"], "b": ["c"], "c": ["a"]}, ["a", "b", "c"]) == ["a", "c"]


def test_braces_in_strings_do_not_end_functions() -> None:
    """A brace in a string or comment shifts where a function ends."""
    text = (
        'func f(a int) string {\n\t// }\n\tif a > 0 && a < 9 {\n\t\treturn "}"\n\t}\n\treturn `{`\n}\n\nfunc g() {}\n'
    )
    first, second = lexical.functions("x.go", text, "Go")
    assert (first.name, first.line, first.end, first.complexity) == ("f", 1, 7, 3)
    assert (second.name, second.line) == ("g", 9)


def test_nested_functions_count_for_themselves() -> None:
    """A factory of closures seems as complex as all of them together."""
    text = "function outer() {\n  function inner(a) {\n    if (a) { return 1 }\n    return 2\n  }\n  return inner\n}\n"
    found = {one.name: one.complexity for one in lexical.functions("x.js", text, "JavaScript")}
    assert found == {"outer": 1, "inner": 2}


def test_dominant_directory_is_opened() -> None:
    """A src layout ends as one single module."""
    lines = {f"src/pkg/{name}/m.py": 100 for name in "abcdef"} | {"setup.py": 5}
    assert "src/pkg/a" in set(modules.group(lines).values())


def test_project_without_source_says_so(tmp_path: Path) -> None:
    """A documentation repository is called a project of language nothing."""
    result = analyse("architecture", write(tmp_path / "p", {"notes.md": "# Notes\n"}))
    assert "No program source" in result["summary"]
    assert kinds(result) == set()

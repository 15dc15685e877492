"""What is shown of profiles: graph, schema, effective values, the template of a new one, and the wheel."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import msgspec
import pytest
import yaml

from agentpool.specs import Limits
from orchestrator.errors import BadRequest
from orchestrator.profiles import Profiles
from orchestrator.profiles.authored import DEFAULTS, KEYS, AuthoredContext
from orchestrator.profiles.display import effective_values, render_file
from orchestrator.profiles.graph import mermaid
from orchestrator.profiles.model import Condition, Trigger
from orchestrator.profiles.parser import parse_layer
from orchestrator.profiles.requirements import REQUIREMENTS
from orchestrator.profiles.schema import profile_schema
from orchestrator.profiles.template import profile_template
from orchestrator.profiles.validation import validate
from tests.support.profiles import ProfileTree, write_profile

ROOT = Path(__file__).parents[4]
REFERENCE = ROOT / "docs" / "reference"


def test_the_graph_shows_every_hand_over() -> None:
    """A picture that leaves out edges misleads; node names must not collide with Mermaid's words."""
    profiles = Profiles().list()
    drawing = mermaid(profiles)
    edges = re.findall(r"^  n_\S+ (?:==>|-->|-\.->)(?:\|[a-z ]+\|)? n_\S+$", drawing, re.M)
    assert len(edges) == sum(len(profile.hands_over_to) for profile in profiles)
    assert drawing.startswith("flowchart LR\n")
    assert drawing.count("  subgraph ") == drawing.count("  end\n") == len({p.category for p in profiles})
    assert "  n_chief_architect ==>|success| n_task_decomposition_expert\n" in drawing
    assert 'n_tag_agent(["tag-agent"])' in drawing


def test_the_graph_around_one_role_shows_its_neighbours_only() -> None:
    """A neighbourhood with edges between neighbours would hide the role it is about."""
    drawing = mermaid(Profiles().list(), around="tag-agent")
    assert all("n_tag_agent" in line for line in drawing.splitlines() if "-->" in line or "-.->" in line)
    assert "n_connection_agent" in drawing
    assert "n_python_pro" not in drawing


def test_the_published_schema_is_the_present_one() -> None:
    """Editors must not check files against an outdated schema (regenerate it with 'profiles schema')."""
    published = json.loads((REFERENCE / "profile.schema.json").read_text(encoding="utf-8"))
    assert published == profile_schema()


def test_the_schema_knows_every_key_and_requirement() -> None:
    """A key that the schema lacks would be marked wrong in every editor."""
    schema = profile_schema()
    assert list(schema["properties"]) == list(KEYS)
    assert schema["required"] == ["name"]
    assert schema["additionalProperties"] is False
    names = schema["$defs"]["AuthoredContext"]["properties"]["requirements"]["items"]["enum"]
    assert names == list(REQUIREMENTS)
    used = set(re.findall(r'"#/\$defs/(\w+)"', json.dumps(schema)))
    assert used == set(schema["$defs"])


def test_effective_values_show_where_each_comes_from(tmp_path: Path) -> None:
    """A user must see which file set a value that surprises, down to single keys of a mapping."""
    tree = ProfileTree(tmp_path)
    overlay = write_profile(tree.project_own / "helper.md", "name: helper\nlimits: {cpu_s: 5}", "")
    rows = {row.key: row for row in effective_values(tree.open().explain("helper", str(tree.project)))}
    assert (rows["limits.cpu_s"].value, rows["limits.cpu_s"].origin) == (5, str(overlay))
    assert rows["limits.memory_bytes"].origin == "default"
    assert rows["context.max_bytes"].origin == str(tree.shipped / "helper.md")
    assert (rows["instructions"].value, rows["instructions"].origin) == ("Help.", str(tree.shipped / "helper.md"))
    assert {key.partition(".")[0] for key in rows} == {"name", "instructions", *DEFAULTS}
    msgspec.json.encode([row.value for row in rows.values()])


def test_a_template_is_a_good_profile(tmp_path: Path) -> None:
    """What 'new' writes must be accepted as it is, for every class."""
    for permission_class in ("architect", "coding", "qa-security", "documentation", "support"):
        text = profile_template("my-role", permission_class=permission_class)
        path = tmp_path / "user" / "my-role.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        layer = parse_layer(path.read_bytes(), str(path))
        assert layer.problems == ()
        assert layer.values["permission_class"] == permission_class


@pytest.mark.parametrize("agent_type", ["security-auditor", "tag-agent", "performance-engineer", "incident-responder"])
def test_a_template_like_another_role_takes_its_needs_but_not_its_text(tmp_path: Path, agent_type: str) -> None:
    """Copying a role's text would make two roles alike; its needs and limits must arrive unchanged."""
    original = Profiles().get(agent_type)
    project = tmp_path / "project"
    path = project / ".orchestrator" / "profiles" / "mine.md"
    path.parent.mkdir(parents=True)
    path.write_text(profile_template("mine", like=original), encoding="utf-8")
    catalogue = Profiles()
    copy = catalogue.get("mine", str(project))
    for key in DEFAULTS:
        if key != "description":
            assert getattr(copy, key) == getattr(original, key), key
    assert copy.instructions != original.instructions
    assert [p for p in validate(catalogue, str(project)) if p.agent_type == "mine" and p.severity == "error"] == []


@pytest.mark.parametrize(
    ("keys", "ends", "verify"),
    [
        ("", None, None),
        ("ends: {quota_exit_codes: [75]}", {"quota_exit_codes": [75]}, None),
        ("verify: {command: pytest -q}", None, {"command": ["pytest", "-q"], "timeout_seconds": 300.0}),
    ],
)
def test_a_template_like_another_role_says_of_its_ends_what_that_one_does(
    tmp_path: Path, keys: str, ends: object, verify: object
) -> None:
    """Each new role began with three keys that say nothing, and would not have followed a change of their defaults."""
    path = tmp_path / ".orchestrator" / "profiles" / "model.md"
    path.parent.mkdir(parents=True)
    path.write_text(f"---\nname: model\ndescription: It is one.\n{keys}\n---\nWork.\n", encoding="utf-8")
    text = profile_template("mine", like=Profiles().get("model", str(tmp_path)))
    values = yaml.safe_load(text.split("---")[1])
    assert (values.get("ends"), values.get("verify")) == (ends, verify)


def test_a_template_refuses_a_name_that_is_none() -> None:
    """A name with a path in it would be written outside the directory."""
    with pytest.raises(BadRequest):
        profile_template("../evil")


def test_a_rendered_file_reads_back_as_it_was() -> None:
    """Values that YAML could mistake (numbers, stars, colons) must survive being written."""
    values = {"name": "x", "description": "a: b", "tools": "*", "context": {"include": ["**/*.py", "3"]}}
    layer = parse_layer(render_file(values, "Body: text").encode(), "x.md")
    assert layer.values == {
        "description": "a: b",
        "tools": (),
        "context": {"include": ("**/*.py", "3")},
    }
    assert layer.body == "Body: text"


def test_profiles_are_found_from_any_directory_that_holds_a_package_of_that_name(tmp_path: Path) -> None:
    """A project with its own package ``profiles`` must not shadow the shipped ones."""
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "__init__.py").write_text("", encoding="utf-8")
    code = "from orchestrator.profiles import Profiles; print(len(Profiles().names()))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "119"


def test_the_reference_documents_every_key_requirement_and_condition() -> None:
    """A key or name that nobody can look up does not exist for users."""
    text = (REFERENCE / "profiles.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|", text, re.M)
    assert [key for key in KEYS if key not in rows] == []
    assert [name for name in REQUIREMENTS if rows.count(name) != 1] == []
    for requirement in REQUIREMENTS.values():
        assert requirement.description in text, requirement.name
        assert all(f"`{glob}`" in text for glob in requirement.include), requirement.name
    for field in (
        *msgspec.structs.fields(AuthoredContext),
        *msgspec.structs.fields(Limits),
        *msgspec.structs.fields(Trigger),
    ):
        if field.name not in ("wall_s", "idle_s"):
            assert f"`{field.name}`" in text, field.name
    for condition in get_args(Condition):
        assert f"`{condition}`" in text


@pytest.mark.parametrize("page", ["docs/how-to/add-a-role.md", "docs/reference/profiles.md"])
def test_the_profiles_in_the_documentation_are_good(page: str, tmp_path: Path) -> None:
    """An example that is refused when pasted teaches distrust."""
    examples = re.findall(r"^```markdown\n(---\n.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S)
    assert page != "docs/how-to/add-a-role.md" or len(examples) == 2
    for number, example in enumerate(examples):
        path = tmp_path / ".orchestrator" / "profiles" / f"{number}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(example, encoding="utf-8")
    catalogue = Profiles()
    assert [str(p) for p in validate(catalogue, str(tmp_path)) if p.severity != "note"] == []


def test_the_readme_names_only_roles_that_exist() -> None:
    """A table that sends readers to a role that does not exist is worse than none."""
    text = (ROOT / "profiles" / "README.md").read_text(encoding="utf-8")
    names = Profiles().names()
    commands = {"show", "graph", "validate", "name"}
    mentioned = set(re.findall(r"`([a-z][a-z0-9-]+)`", text)) - commands
    assert mentioned - set(names) == set()
    assert len(mentioned) > 50

"""All 119 roles over three mixed projects without a task: what comes first for whom, and that lists differ."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from orchestrator.config import ContextSettings
from orchestrator.context import ContextEngine, ContextRequest
from orchestrator.models import KnowledgeItem, Project, Result, ResultPage, ResultQuery
from orchestrator.profiles import Profiles
from tests.support.mixed import PROJECTS

#: So many files count as "first": about what a model reads before it decides.
FIRST = 10
#: So many of them must not be anything foreign to the role.
GLANCE = 3
#: At most so many of the 119 roles may begin with the same files in the same order.
MOST_ALIKE = 4
#: At least so many different beginnings there must be.
FEWEST_LISTS = 105
DOCUMENTS = r"\.(md|rst|bib)$"
CODE = r"\.(py|ts|tsx|js|go|rs|dart|swift|kt)$"
CI = r"\.github/workflows/"
ENTRIES = r"(main\.(py|go|rs|dart)|lib\.rs|__init__\.py|index\.ts|server\.py)$"
DESIGN = r"docs/(adr|decisions|design)/|ARCHITECTURE"
TESTS = r"(^|/)tests?/|Tests/|_test\.|test_|\.test\.|\.spec\."
SQL = r"\.sql$|/models/|/repositories/|storage/"
INFRASTRUCTURE = r"Dockerfile|compose|\.tf$|k8s/|helm/|\.github/workflows/"
NOT_FOR_WRITERS = r"\.(tf|sql|lock)$|Dockerfile|\.github/workflows/"


class Row(NamedTuple):
    """What a group of roles must begin with.

    Attributes:
        project: name of the project.
        roles: their names.
        wanted: each pattern is found by at least one of the first ten files.
        most: at least five of the first ten are found by this (or as many as the project has).
        never: found by none of the first three.
    """

    project: str
    roles: str
    wanted: tuple[str, ...] = ()
    most: str = ""
    never: str = ""


TABLE = (
    # architecture: where it starts, how it was decided, what it is made of
    Row("shop", "chief-architect backend-architect architect-review", (ENTRIES, DESIGN), never=TESTS),
    Row("portal", "chief-architect architect-review architecture-modernizer", (ENTRIES, DESIGN), never=TESTS),
    Row("field", "chief-architect backend-architect architect-review", (ENTRIES, DESIGN), never=TESTS),
    # languages: their own sources
    Row("shop", "python-specialist python-pro", (r"pricing\.py",), r"\.py$", r"\.(go|tsx?|tf)$"),
    Row("shop", "go-specialist golang-pro", (r"worker/queue\.go", r"go\.mod"), r"worker/", r"\.(py|tsx?|tf)$"),
    Row("shop", "typescript-pro", (r"tsconfig\.json",), r"\.tsx?$", r"\.(py|go|tf)$"),
    Row("portal", "javascript-pro", (r"lib/retry\.js",), r"\.(js|tsx?|json)$", r"\.(py|rs|tf)$"),
    Row("portal", "rust-specialist rust-pro", (r"Cargo\.toml", r"lib\.rs"), r"engine/", r"\.(py|tsx?|tf)$"),
    Row("field", "flutter-specialist", (r"main\.dart", r"visit_test\.dart"), r"app/", r"\.(py|go|tf)$"),
    Row("field", "swift-specialist ios-developer", (r"Sync\.swift", r"Package\.swift"), r"\.swift$", r"\.(py|go|tf)$"),
    Row("shop", "shell-scripting-pro", (r"deploy\.sh", r"backup\.sh"), never=r"\.(py|go|tsx)$"),
    # screens and interfaces
    Row(
        "shop", "frontend-developer web-accessibility-checker ui-ux-designer", (r"\.tsx$", r"theme\.css"), r"web/", SQL
    ),
    Row("portal", "nextjs-architecture-expert", (r"app/page\.tsx", r"next\.config"), r"^app/|next|middleware", SQL),
    Row(
        "portal", "graphql-architect graphql-performance-optimizer", (r"schema\.graphql", r"resolvers"), never=r"\.rs$"
    ),
    Row("shop", "api-explorer api-documenter", (r"openapi\.yaml", r"routes/"), never=r"\.tf$"),
    # tests first
    Row("shop", "test-engineer qa-engineer tdd-coding-agent", (r"tests/test_orders\.py",), TESTS, NOT_FOR_WRITERS),
    Row("field", "test-engineer tdd-coding-agent", (r"visit_test\.dart",), TESTS, r"\.md$"),
    Row("portal", "test-engineer test-automator", (r"publish\.spec", r"engine/tests/"), TESTS, r"\.md$"),
    # data
    Row("shop", "database-architect database-optimization", (r"0001_orders\.sql",), SQL, r"\.(tsx|go|md)$"),
    Row("shop", "sql-pro", (r"0002_customers\.sql", r"revenue\.sql"), never=r"\.(tsx|go|md)$"),
    Row("field", "database-architect database-optimizer", (r"0001_visits\.sql",), never=r"\.(kt|tsx)$|screens/"),
    Row("field", "data-scientist ml-engineer", (r"ml/|notebooks/", r"visits\.csv"), never=r"\.(dart|swift)$"),
    Row("portal", "supabase-schema-architect", (r"policies\.sql", r"0001_articles\.sql"), never=r"\.rs$"),
    Row("portal", "data-engineer", (r"dags/nightly\.py", r"ingest\.py"), never=r"\.(rs|tsx)$"),
    # infrastructure
    Row(
        "shop",
        "devops-engineer deployment-engineer cloud-architect",
        (r"Dockerfile",),
        INFRASTRUCTURE,
        r"\.(py|tsx|go)$",
    ),
    Row("shop", "terraform-specialist", (r"main\.tf", r"network\.tf"), never=r"\.(py|tsx|go)$"),
    Row("shop", "network-engineer", (r"nginx\.conf",), never=r"\.(py|tsx|go)$"),
    Row("portal", "monitoring-specialist", (r"alerts/rules", r"otel"), never=r"\.(rs|tsx)$"),
    Row("shop", "incident-responder", (r"runbooks/", r"prometheus"), never=r"\.(tsx|go)$"),
    Row("field", "devops-engineer", (CI, r"Dockerfile"), never=CODE),
    # security: who may do what, and what is trusted
    Row("shop", "security-auditor security-engineer", (r"auth\.py", r"permissions\.py", r"routes/"), never=DOCUMENTS),
    Row(
        "field",
        "security-auditor security-engineer",
        (r"middleware/auth\.go", r"login\.go", r"Dockerfile"),
        never=DOCUMENTS,
    ),
    Row("portal", "api-security-audit", (r"session\.ts", r"resolvers|route\.ts"), never=r"\.(rs|md)$"),
    Row("shop", "compliance-specialist", (r"LICENSE", r"privacy\.md"), never=r"\.(tsx|go)$"),
    Row("shop", "dependency-manager", (r"pyproject\.toml", r"package\.json", r"go\.mod", r"uv\.lock"), never=CODE),
    # models and tools for models
    Row("field", "llm-engineer ai-engineer", (r"llm_client\.py", r"rag\.py", r"\.prompt$"), never=r"\.(swift|go)$"),
    Row("field", "prompt-engineer", (r"summary\.prompt",), never=r"\.(dart|swift|go)$"),
    Row(
        "field",
        "mcp-server-architect mcp-integration-engineer",
        (r"mcp/server\.py", r"mcp/tools\.py"),
        never=r"\.(swift|kt)$",
    ),
    # documents
    Row("shop", "documentation-expert technical-writer", (r"README",), DOCUMENTS, NOT_FOR_WRITERS),
    Row("field", "changelog-generator", (r"CHANGELOG", r"CONTRIBUTING"), never=CODE),
    Row("portal", "llms-maintainer", (r"llms\.txt",), DOCUMENTS, NOT_FOR_WRITERS),
    Row("shop", "document-structure-analyzer connection-agent tag-agent", (r"docs/",), DOCUMENTS, NOT_FOR_WRITERS),
    # research and business: what was written and decided, not the code
    Row("field", "academic-researcher research-coordinator", (r"routing\.bib", r"research/"), never=CODE),
    Row("shop", "research-orchestrator", (r"adr/", r"roadmap", r"README"), never=CODE),
    Row("field", "technical-researcher research-synthesizer", (r"docs/adr/", r"docs/research/"), never=r"\.dart$"),
    Row("shop", "product-strategist business-analyst", (r"roadmap\.md",), never=r"\.(tf|go|tsx)$"),
    Row("portal", "content-marketer", (r"blog/launch\.md",), DOCUMENTS, CODE),
    Row("shop", "risk-manager", (r"SECURITY\.md", r"runbooks/|privacy"), never=CODE),
)


class NoResults:
    """No agent has worked here yet."""

    async def query_results(self, project_id: str, query: ResultQuery) -> ResultPage:
        none: list[Result] = []
        return ResultPage(results=none, next_cursor=None)


class NoKnowledge:
    """Nothing was learnt elsewhere."""

    async def search_knowledge(self, *_: Any, **__: Any) -> list[KnowledgeItem]:
        return []


Beginnings = dict[str, dict[str, list[str]]]


@pytest.fixture(scope="module")
def beginnings(tmp_path_factory: pytest.TempPathFactory) -> Beginnings:
    """By project and role the paths of all files, best first."""
    return asyncio.run(_build_all(tmp_path_factory.mktemp("roles")))


async def _build_all(directory: Path) -> Beginnings:
    profiles = Profiles()
    engine = ContextEngine(
        profiles,
        NoResults(),  # type: ignore[arg-type]
        NoKnowledge(),  # type: ignore[arg-type]
        ContextSettings(),
        directory / "state",
    )
    found: Beginnings = {}
    await engine.start()
    try:
        for name, make in PROJECTS.items():
            project = Project(project_id=name, path=str(make(directory / name)), created_at=0.0)
            found[name] = {}
            for role in profiles.names():
                built = await engine.build(project, ContextRequest(issue_id="i", agent_type=role))
                found[name][role] = [entry["path"] for entry in built.document["context"]["relevant_files"]]
    finally:
        await engine.stop()
    return found


def _cases() -> list[Any]:
    names = [(row, role, f"{row.project}-{role}") for row in TABLE for role in row.roles.split()]
    return [pytest.param(row, role, id=name) for row, role, name in names]


@pytest.mark.parametrize(("row", "role"), _cases())
def test_a_role_begins_with_what_is_its_own(beginnings: Beginnings, row: Row, role: str) -> None:
    """Prevents contexts that spend a role's first glance on what it does not work on."""
    everything = beginnings[row.project][role]
    first = everything[:FIRST]
    missing = [pattern for pattern in row.wanted if not any(re.search(pattern, path) for path in first)]
    assert not missing, first
    if row.most:
        available = sum(bool(re.search(row.most, path)) for path in everything)
        assert sum(bool(re.search(row.most, path)) for path in first) >= min(FIRST // 2, available), first
    if row.never:
        assert not [path for path in first[:GLANCE] if re.search(row.never, path)], first


@pytest.mark.parametrize("project", PROJECTS)
def test_few_roles_begin_alike(beginnings: Beginnings, project: str) -> None:
    """Prevents profiles whose needs make no difference: 119 roles with one context are one role."""
    lists = Counter(tuple(paths[:FIRST]) for paths in beginnings[project].values())
    assert sum(lists.values()) == 119
    alike, count = lists.most_common(1)[0]
    assert count <= MOST_ALIKE, [role for role, paths in beginnings[project].items() if tuple(paths[:FIRST]) == alike]
    assert len(lists) >= FEWEST_LISTS


@pytest.mark.parametrize("project", PROJECTS)
def test_every_role_gets_something_and_nothing_that_it_excludes(beginnings: Beginnings, project: str) -> None:
    """Prevents an empty context, and globs of ``exclude`` that are not heeded."""
    assert all(len(paths) >= FIRST for paths in beginnings[project].values())
    assert "CHANGELOG.md" not in beginnings[project]["markdown-syntax-formatter"]
    assert "CHANGELOG.md" in beginnings[project]["documentation-expert"]

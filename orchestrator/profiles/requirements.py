"""Named context requirements: what a profile or a spawn request may ask of the context engine.

Globs are written as in ``.gitignore`` and matched against paths relative to the project, ignoring case.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Literal

import msgspec

from orchestrator.errors import BadRequest

#: ``files``: the globs choose files. ``kind``: the scan's own classification chooses them (globs help it).
#: ``section``: it asks for a part of the context document rather than for files.
RequirementKind = Literal["files", "kind", "section"]


class Requirement(msgspec.Struct, frozen=True, kw_only=True):
    """One name of the table.

    Attributes:
        name: what profiles and requests write.
        description: what it brings, in one sentence.
        kind: how it is resolved, see ``RequirementKind``.
        include: globs of files that it brings.
        section: for ``section`` the key of the context document that it asks for.
    """

    name: str
    description: str
    kind: RequirementKind
    include: tuple[str, ...] = ()
    section: str = ""


def _section(name: str, section: str, description: str) -> Requirement:
    return Requirement(name=name, description=description, kind="section", section=section)


def _files(name: str, description: str, globs: str) -> Requirement:
    return Requirement(name=name, description=description, kind="files", include=tuple(globs.split()))


def _kind(name: str, description: str, globs: str = "") -> Requirement:
    return Requirement(name=name, description=description, kind="kind", include=tuple(globs.split()))


_TABLE = (
    _section("project_structure", "project_structure", "The tree of files and directories with their sizes."),
    _section("git_history", "git_context", "Branch, head, remote and recent commits with the files they changed."),
    _section("uncommitted_changes", "git_context", "What differs from the last commit, with bounded diffs."),
    _section("previous_decisions", "previous_agent_outputs", "Decisions of earlier results, this issue's first."),
    _section(
        "previous_code_reviews",
        "previous_agent_outputs",
        "Findings of earlier reviewers, auditors and testers on this project.",
    ),
    _section("project_metadata", "metadata", "Project type, languages, versions and how it is built."),
    _section("dependency_list", "metadata", "Declared dependencies with their version ranges, read from manifests."),
    _kind("all_files", "Every text file of the project, best first, until the budget is used."),
    _kind("source_files", "Program source in any language, without tests, generated or vendored code."),
    _kind(
        "test_files",
        "Tests and their fixtures.",
        "tests/** test/** spec/** __tests__/** test_*.py *_test.* *.test.* *.spec.*",
    ),
    _kind(
        "documentation_files",
        "Prose about the project.",
        "docs/** doc/** *.md *.rst *.adoc",
    ),
    _kind("entry_points", "Where the program starts: mains, command lines, servers, package roots."),
    _kind("recently_changed_files", "Files of the last commits and of the work tree's changes."),
    _kind("largest_source_files", "The largest source files, as excerpts: candidates for splitting."),
    _files(
        "readme_files",
        "READMEs at any depth.",
        "README* readme*",
    ),
    _files(
        "changelog_files",
        "Change logs, release notes and version files.",
        "CHANGELOG* CHANGES* HISTORY* NEWS* RELEASES* VERSION* changelog.d/**",
    ),
    _files(
        "license_files",
        "Licences and notices.",
        "LICENSE* LICENCE* COPYING* NOTICE* THIRD_PARTY*",
    ),
    _files(
        "contributing_files",
        "How to take part.",
        "CONTRIBUTING* CODE_OF_CONDUCT* SECURITY.md GOVERNANCE* CODEOWNERS .github/*.md AGENTS.md CLAUDE.md",
    ),
    _files(
        "decision_records",
        "Architecture decision records and designs.",
        "docs/adr/** docs/decisions/** doc/adr/** adr/** docs/design/** docs/rfcs/** rfcs/** ARCHITECTURE* "
        "DESIGN* *architecture*.md",
    ),
    _files(
        "dependency_manifests",
        "Files that declare dependencies.",
        "pyproject.toml requirements*.txt requirements/*.txt setup.py setup.cfg Pipfile package.json Cargo.toml "
        "go.mod pom.xml build.gradle build.gradle.kts Gemfile composer.json *.csproj pubspec.yaml mix.exs "
        "Package.swift environment.yml Podfile",
    ),
    _files(
        "lock_files",
        "Files that pin dependencies.",
        "poetry.lock uv.lock Pipfile.lock package-lock.json yarn.lock pnpm-lock.yaml Cargo.lock go.sum "
        "Gemfile.lock composer.lock pubspec.lock Package.resolved",
    ),
    _files(
        "build_configs",
        "How it is built, checked and formatted.",
        "Makefile *.mk CMakeLists.txt tox.ini noxfile.py justfile Taskfile* webpack.config.* vite.config.* "
        "rollup.config.* tsconfig*.json babel.config.* .eslintrc* eslint.config.* ruff.toml .golangci* "
        "rustfmt.toml clippy.toml .pre-commit-config.yaml .editorconfig analysis_options.yaml",
    ),
    _files(
        "ci_configs",
        "Continuous integration and delivery.",
        ".github/workflows/** .github/actions/** .gitlab-ci.yml .gitlab/**/*.yml azure-pipelines*.yml "
        "Jenkinsfile* .circleci/** .travis.yml bitbucket-pipelines.yml .drone.yml .buildkite/** .ci/** "
        "cloudbuild*.yaml",
    ),
    _files(
        "container_files",
        "Container images and how they are put together.",
        "Dockerfile* Containerfile* *.dockerfile .dockerignore docker-compose*.y*ml compose*.y*ml",
    ),
    _files(
        "infrastructure_files",
        "Infrastructure as code.",
        "*.tf *.tfvars *.hcl k8s/** kubernetes/** helm/** charts/** kustomization.y*ml ansible/** playbooks/** "
        "cloudformation/** serverless.y*ml Pulumi*.yaml cdk.json deploy/** infra/**",
    ),
    _files(
        "deployment_scripts",
        "Scripts and units that bring it into service.",
        "deploy* scripts/deploy* bin/deploy* release* scripts/release* Procfile fly.toml vercel.json netlify.toml "
        "*.service fastlane/**",
    ),
    _files(
        "monitoring_configs",
        "Metrics, alerts, dashboards, tracing and log settings.",
        "prometheus* alert* *rules.y*ml grafana/** dashboards/** otel* *telemetry* *logging*.conf *logging*.y*ml "
        "datadog* sentry*",
    ),
    _files(
        "network_configs",
        "Proxies, load balancers, DNS and service meshes.",
        "nginx* *.nginx haproxy* traefik* envoy* Caddyfile* *ingress* istio/** *.zone *gateway*.y*ml",
    ),
    _files(
        "security_configs",
        "What decides who may do what.",
        "*auth* *permission* *policy* *policies* *security* *cors* *csp* *oauth* *rbac* "
        "acl* *_acl* *-acl* *jwt* *session* *crypto*",
    ),
    _files(
        "runtime_configs",
        "Settings that the program reads (secret values redacted).",
        "config/** conf/** settings* *config*.y*ml *config*.toml *config*.json *.ini *.properties .env.example "
        ".env.sample application*.yml",
    ),
    _files(
        "api_specs",
        "Machine-readable descriptions of interfaces.",
        "openapi* swagger* asyncapi* *.proto *.graphql *.graphqls *.gql *.raml *.wsdl *.avsc *.thrift *schema*.json",
    ),
    _files(
        "api_routes",
        "Code that answers requests.",
        "*route* *router* *controller* *handler* *endpoint* *resolver* *view*.py urls.py api/** pages/api/** "
        "app/**/route.*",
    ),
    _files(
        "graphql_files",
        "GraphQL schemas, operations and resolvers.",
        "*.graphql *.graphqls *.gql *resolver* *graphql* codegen.*",
    ),
    _files(
        "database_schemas",
        "Schemas, models and migrations.",
        "*.sql migrations/** migrate/** alembic/** prisma/** schema.rb *.dbml supabase/** models.py models/** "
        "entities/**",
    ),
    _files(
        "database_queries",
        "Code that talks to a database.",
        "*.sql *query* *queries* *repository* *repositories* *dao* *store* *storage*",
    ),
    _files(
        "data_pipelines",
        "Jobs that move and shape data.",
        "dags/** *pipeline* etl* *_etl* *-etl* dbt_project.yml models/**/*.sql *ingest* *transform* jobs/** *spark*",
    ),
    _files(
        "notebooks",
        "Notebooks and analysis scripts.",
        "*.ipynb notebooks/** analysis/** *.Rmd *.qmd",
    ),
    _files(
        "data_samples",
        "Small data files and their descriptions.",
        "*.csv *.tsv *.jsonl data/**/*.json fixtures/** *datapackage* *.parquet.md",
    ),
    _files(
        "ml_code",
        "Training, inference and feature code.",
        "train* *_train* *-train* *model*.py *dataset* *feature* *inference* *predict* *pipeline*.py params.y*ml "
        "dvc.y*ml MLproject conda.y*ml",
    ),
    _files(
        "evaluation_files",
        "How models and outputs are judged.",
        "*eval* *benchmark* *metric* *score* golden/** evals/**",
    ),
    _files(
        "prompt_files",
        "Prompts, templates and agent instructions.",
        "prompts/** *prompt* *.prompt *.j2 *.jinja CLAUDE.md AGENTS.md .claude/** .cursor/** profiles/*.md",
    ),
    _files(
        "llm_files",
        "Code that calls language models.",
        "*llm* *openai* *anthropic* *completion* *embedding* *agent*.py *chat* rag* *_rag* *-rag* *retriev* llms*.txt",
    ),
    _files(
        "mcp_files",
        "Model Context Protocol servers, clients and their settings.",
        "*mcp* mcp/** .mcp.json.example *tool*.py *tools*.ts smithery.yaml",
    ),
    _files(
        "frontend_files",
        "What runs in a browser.",
        "*.tsx *.jsx *.vue *.svelte *.html *.css *.scss components/** pages/** app/** public/** static/** templates/**",
    ),
    _files(
        "style_files",
        "Styles, themes and design tokens.",
        "*.css *.scss *.less tailwind.config.* *theme* *tokens* styles/** *.stories.*",
    ),
    _files(
        "mobile_files",
        "Mobile applications.",
        "ios/** android/** *.swift *.kt *.dart AndroidManifest.xml Info.plist *.xcodeproj/** app.json pubspec.yaml",
    ),
    _files(
        "localization_files",
        "Texts in several languages.",
        "locales/** locale/** i18n/** *.po *.pot *.arb *.strings lang/**",
    ),
    _files(
        "shell_scripts",
        "Shell scripts and hooks.",
        "*.sh *.bash *.zsh *.fish *.bats scripts/** bin/** .githooks/** .husky/**",
    ),
    _files(
        "cli_files",
        "Command-line interfaces and their help.",
        "cli cli.* cli_* *_cli* *-cli* cmd/** *command* main.py main.go main.rs main.ts main.js "
        "__main__.py *completion* *argparse*",
    ),
    _files(
        "git_configs",
        "How the repository itself is run.",
        ".gitignore .gitattributes .gitmodules .github/** .gitlab/** CODEOWNERS .mailmap .commitlintrc* "
        ".releaserc* .githooks/**",
    ),
    _files(
        "test_configs",
        "Settings of test runners.",
        "pytest.ini tox.ini conftest.py jest.config.* vitest.config.* karma.conf.* playwright.config.* "
        "cypress.config.* .coveragerc phpunit.xml .rspec codecov.yml",
    ),
    _files(
        "test_coverage_reports",
        "Coverage reports that are present.",
        "coverage.xml coverage.json lcov.info *.lcov coverage/**/index.html cobertura*.xml jacoco*.xml coverage.out",
    ),
    _files(
        "performance_files",
        "Benchmarks, profiles and load tests.",
        "perf/** bench* *benchmark* *.bench.* benches/** *k6* *locust* *.jmx *gatling* lighthouse*",
    ),
    _files(
        "legal_and_compliance",
        "Policies, privacy and audit documents.",
        "*privacy* *gdpr* *hipaa* *compliance* *terms* *retention* *audit* LICENSE* NOTICE* SBOM* *sbom*",
    ),
    _files(
        "product_documents",
        "Goals, road maps and requirements.",
        "*roadmap* *requirements*.md prd* *_prd* *-prd* *vision* *backlog* *spec*.md *stories* TODO* docs/product/**",
    ),
    _files(
        "research_notes",
        "Papers, references and notes.",
        "*.bib papers/** research/** notes/** references/** *.tex docs/research/**",
    ),
    _files(
        "marketing_content",
        "Pages and posts that speak to the public.",
        "blog/** content/** posts/** website/** landing* *announcement* press/** press-*",
    ),
    _files(
        "incident_records",
        "Runbooks and reports on what went wrong.",
        "*runbook* runbooks/** *postmortem* *incident* *troubleshoot* *playbook*.md *oncall*",
    ),
    _files(
        "crash_artifacts",
        "Logs and traces kept in the project.",
        "*.log logs/** *.stacktrace hs_err_pid* *crash* *.trace",
    ),
    _files(
        "accessibility_files",
        "Markup and settings that bear on accessibility.",
        "*a11y* *accessib* *.html *.tsx *.jsx *.vue *.svelte .pa11yci* axe*",
    ),
)

#: Every requirement by name, in the table's order.
REQUIREMENTS: dict[str, Requirement] = {requirement.name: requirement for requirement in _TABLE}


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Up to ``count`` of ``known`` that look most like ``name``, best first (difflib's ratio, at least 0.5)."""
    return difflib.get_close_matches(name.lower(), sorted(known), n=count, cutoff=0.5)


def describe_unknown(name: str, known: Iterable[str]) -> str:
    """``'x'; did you mean 'y'?`` or, when nothing is near, just ``'x'``."""
    close = nearest(name, known, 1)
    return f"{name!r}; did you mean {close[0]!r}?" if close else f"{name!r}"


def resolve_requirements(names: Iterable[str]) -> tuple[Requirement, ...]:
    """The table's rows for ``names``, in their order, each once.

    Raises BadRequest, naming the unknown one and the nearest that exist (``details["nearest"]``).
    """
    found: dict[str, Requirement] = {}
    for name in names:
        requirement = REQUIREMENTS.get(name)
        if requirement is None:
            raise BadRequest(
                f"unknown context requirement {describe_unknown(name, REQUIREMENTS)}",
                details={"field": "context_requirements", "value": name, "nearest": nearest(name, REQUIREMENTS)},
            )
        found[name] = requirement
    return tuple(found.values())

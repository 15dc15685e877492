"""Three projects in several languages each, with documents, CI, infrastructure, SQL, screens and access rules."""

from __future__ import annotations

from pathlib import Path

from tests.support.repo import commit_all, repository, write_files

#: A shop: Python API, React screens, a Go worker, SQL, Terraform and Docker.
SHOP = """
README.md CHANGELOG.md CONTRIBUTING.md LICENSE SECURITY.md docs/index.md docs/tutorial/first-order.md
docs/how-to/refund.md docs/adr/0001-ledger.md docs/design/checkout.md docs/product/roadmap.md docs/privacy.md
runbooks/payments-down.md pyproject.toml uv.lock tox.ini Makefile shop/__init__.py shop/main.py shop/catalogue.py
shop/orders.py shop/pricing.py shop/auth.py shop/permissions.py shop/routes/orders.py shop/routes/login.py
shop/models/order.py shop/models/customer.py shop/repositories/orders.py shop/cli.py shop/settings.py
migrations/0001_orders.sql migrations/0002_customers.sql reports/revenue.sql openapi.yaml
tests/conftest.py tests/test_orders.py tests/test_pricing.py tests/test_auth.py
web/package.json web/tsconfig.json web/src/index.ts web/src/App.tsx web/src/components/Cart.tsx
web/src/components/Price.tsx web/src/hooks/useCart.ts web/src/styles/theme.css web/src/locales/en.json
web/src/components/Cart.test.tsx web/public/index.html
worker/go.mod worker/main.go worker/queue.go worker/retry.go worker/queue_test.go
Dockerfile docker-compose.yml .github/workflows/ci.yml .github/workflows/release.yml infra/main.tf infra/network.tf
k8s/deployment.yaml nginx.conf prometheus.yml scripts/deploy.sh scripts/backup.sh perf/locustfile.py
config/production.toml .env.example
"""
#: A field service: Flutter app, Swift package, Go service, models and prompts, an MCP server.
FIELD = """
README.md CHANGELOG.md CONTRIBUTING.md LICENSE AGENTS.md docs/guide.md docs/explanation/sync.md
docs/reference/api.md docs/adr/0001-offline.md docs/vision.md docs/research/routing.md references/routing.bib
app/pubspec.yaml app/analysis_options.yaml app/lib/main.dart app/lib/screens/visit.dart app/lib/models/visit.dart
app/lib/theme.dart app/lib/l10n/app_en.arb app/test/visit_test.dart app/ios/Runner/Info.plist
app/android/app/src/main/AndroidManifest.xml app/android/app/src/main/kotlin/MainActivity.kt
kit/Package.swift kit/Sources/Kit/Sync.swift kit/Sources/Kit/Store.swift kit/Tests/KitTests/SyncTests.swift
server/go.mod server/go.sum server/main.go server/handlers/visits.go server/handlers/login.go
server/middleware/auth.go server/storage/visits.go server/storage/visits_test.go server/proto/visits.proto
server/migrations/0001_visits.sql ml/train.py ml/dataset.py ml/features.py ml/predict.py ml/params.yaml
ml/test_features.py notebooks/routing.ipynb data/visits.csv evals/routing_eval.py prompts/summary.prompt
assistant/llm_client.py
assistant/rag.py assistant/agent.py mcp/server.py mcp/tools.py mcp/test_tools.py .mcp.json
Dockerfile .github/workflows/test.yml infra/cluster.tf helm/values.yaml grafana/dashboards/sync.json
scripts/release.sh config/settings.yaml
"""
#: A portal: Next.js pages, a Rust engine, GraphQL, Supabase, Python pipelines.
PORTAL = """
README.md CHANGELOG.md CONTRIBUTING.md LICENSE docs/index.md docs/how-to/publish.md docs/reference/graphql.md
docs/decisions/0001-graphql.md docs/ARCHITECTURE.md docs/roadmap.md blog/launch.md llms.txt docs/oncall-runbook.md
package.json pnpm-lock.yaml tsconfig.json next.config.js app/layout.tsx app/page.tsx app/articles/page.tsx
app/api/articles/route.ts components/Article.tsx components/Editor.vue components/Editor.test.tsx styles/globals.css
middleware.ts lib/supabase.ts lib/realtime_channel.ts lib/session.ts lib/cache.js lib/retry.js e2e/publish.spec.ts
graphql/schema.graphql graphql/resolvers.ts graphql/loaders.ts graphql/directives.ts codegen.yml
supabase/migrations/0001_articles.sql supabase/policies.sql supabase/functions/notify.ts
engine/Cargo.toml engine/Cargo.lock engine/src/lib.rs engine/src/main.rs engine/src/index.rs engine/src/rank.rs
engine/tests/rank.rs engine/benches/rank.rs pipelines/ingest.py pipelines/transform.py pipelines/test_transform.py
pipelines/pyproject.toml dags/nightly.py dbt_project.yml queries/popular.sql
.github/workflows/build.yml .github/CODEOWNERS Dockerfile k8s/web.yaml k8s/ingress.yaml terraform/main.tf
alerts/rules.yml otel-collector.yaml bin/deploy scripts/seed.sh sentry.properties .pre-commit-config.yaml
"""


def shop(directory: Path) -> Path:
    """The shop; its last commit touched pricing."""
    return _project(directory, SHOP, "shop/pricing.py")


def field_service(directory: Path) -> Path:
    """The field service; its last commit touched the visits' handler."""
    return _project(directory, FIELD, "server/handlers/visits.go")


def portal(directory: Path) -> Path:
    """The portal; its last commit touched the ranking."""
    return _project(directory, PORTAL, "engine/src/rank.rs")


#: By name what makes the project in a new directory.
PROJECTS = {"shop": shop, "field": field_service, "portal": portal}


def _project(directory: Path, paths: str, touched: str) -> Path:
    files = {path: _text(path) for path in paths.split()}
    root = repository(directory, files, subject="Begin")
    write_files(root, {touched: files[touched] + "\n" + files[touched]})
    commit_all(root, f"Change {touched}")
    return root


def _text(path: str) -> str:
    """Some lines of the file's language that name what the file is about."""
    name = path.rpartition("/")[2].partition(".")[0].replace("-", "_") or "settings"
    suffix = path.rpartition(".")[2]
    forms = {
        "py": '"""The {0}."""\n\n\ndef {0}(value: int) -> int:\n    return value + 1\n',
        "ts": "export function {0}(value: number): number {{\n  return value + 1;\n}}\n",
        "tsx": "export function {0}() {{\n  return <p>{0}</p>;\n}}\n",
        "js": "export function {0}(value) {{\n  return value + 1;\n}}\n",
        "go": "package {0}\n\n// Do {0}.\nfunc Do(value int) int {{\n\treturn value + 1\n}}\n",
        "rs": "/// The {0}.\npub fn {0}(value: i32) -> i32 {{\n    value + 1\n}}\n",
        "dart": "int {0}(int value) {{\n  return value + 1;\n}}\n",
        "swift": "func {0}(_ value: Int) -> Int {{\n    value + 1\n}}\n",
        "sql": "CREATE TABLE t_{0} (id bigint PRIMARY KEY, note text NOT NULL);\n",
        "md": "# About {0}\n\nWhat there is to know about {0}.\n",
        "json": '{{"name": "{0}"}}\n',
        "sh": "#!/bin/sh\nset -eu\necho {0}\n",
    }
    return forms.get(suffix, "# {0}\nname: {0}\n").format(name)

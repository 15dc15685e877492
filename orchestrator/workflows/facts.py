"""What a context document tells about which team a project calls for (pure)."""

from __future__ import annotations

import re
from typing import Any

from orchestrator.models import JSON
from orchestrator.workflows.team import Facts

INFRASTRUCTURE = re.compile(
    r"(^|/)(Dockerfile[^/]*|docker-compose[^/]*|compose\.ya?ml|Jenkinsfile|Makefile|tox\.ini|\.gitlab-ci\.yml)$"
    r"|(^|/)\.(github|circleci|ci)/|\.tf$|(^|/)(k8s|helm|charts|deploy)/"
)
API = re.compile(
    r"(^|/)(openapi|swagger)[^/]*\.(json|ya?ml)$|\.(proto|graphql|gql)$|(^|/)(routes?|api|endpoints)(/|\.py$|\.[jt]s$|\.go$)"
)


def facts_of(document: JSON) -> Facts:
    """Facts from endpoint 1's answer."""
    context: dict[str, Any] = document.get("context", {})
    structure = context.get("project_structure", {})
    paths = [entry if isinstance(entry, str) else entry.get("path", "") for entry in structure.get("files", [])]
    languages = context.get("metadata", {}).get("languages", [])
    if isinstance(languages, dict):
        languages = sorted(languages, key=lambda name: -_size(languages[name]))
    return Facts(
        languages=tuple(str(language) for language in languages),
        has_infrastructure=any(INFRASTRUCTURE.search(path) for path in paths),
        has_api=any(API.search(path) for path in paths),
    )


def _size(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0

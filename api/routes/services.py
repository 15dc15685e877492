"""What the routes need of the supervisor, and no more."""

from __future__ import annotations

from typing import Any, Protocol

from orchestrator.config import Settings
from orchestrator.metrics import Metrics
from orchestrator.projects import ProjectService
from orchestrator.results import ResultService
from orchestrator.storage.base import Storage


class Services(Protocol):
    """The supervisor, as the API sees it."""

    settings: Settings
    storage: Storage
    metrics: Metrics
    projects: ProjectService
    results: ResultService
    bus: Any
    context: Any
    agents: Any
    profiles: Any
    runs: Any

    async def health(self) -> dict[str, Any]:
        """The measured answer of ``GET /health``."""

    async def status(self) -> dict[str, Any]:
        """The measured answer of ``GET /status``."""

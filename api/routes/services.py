"""What the routes need of the supervisor, and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from orchestrator.agents.registry import AgentRegistry
    from orchestrator.agents.service import AgentService
    from orchestrator.audit import AuditLog
    from orchestrator.config import Settings
    from orchestrator.context.engine import ContextEngine
    from orchestrator.events.bus import EventBus
    from orchestrator.metrics import Metrics
    from orchestrator.models import JSON
    from orchestrator.profiles.catalogue import Profiles
    from orchestrator.projects import ProjectService
    from orchestrator.results import ResultService
    from orchestrator.room import Room
    from orchestrator.storage.base import Storage
    from orchestrator.workflows.runner import RunService


class Services(Protocol):
    """The supervisor, as the API sees it."""

    @property
    def room(self) -> Room: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def storage(self) -> Storage: ...
    @property
    def metrics(self) -> Metrics: ...
    @property
    def projects(self) -> ProjectService: ...
    @property
    def results(self) -> ResultService: ...
    @property
    def bus(self) -> EventBus: ...
    @property
    def context(self) -> ContextEngine: ...
    @property
    def agents(self) -> AgentService: ...
    @property
    def registry(self) -> AgentRegistry: ...
    @property
    def profiles(self) -> Profiles: ...
    @property
    def runs(self) -> RunService: ...
    @property
    def audit(self) -> AuditLog: ...

    async def health(self) -> JSON:
        """The measured answer of ``GET /health``."""

    async def status(self) -> JSON:
        """The measured answer of ``GET /status``."""

"""Context: what a role needs of a project for a task (contract section 3.1)."""

from orchestrator.context.engine import ContextEngine
from orchestrator.context.models import BuiltContext, Cleared, ContextRequest, ContextStats, SearchHit

__all__ = ["BuiltContext", "Cleared", "ContextEngine", "ContextRequest", "ContextStats", "SearchHit"]

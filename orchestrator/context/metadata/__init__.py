"""Metadata: what a project is made of, read from its manifests, reports and settings."""

from orchestrator.context.metadata.describe import Metadata

__all__ = ["Metadata"]

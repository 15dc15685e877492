"""The command line: ``orchestrator``."""

from api.cli.app import main, run

__all__ = ["main", "run"]

"""The command line: ``orchestrator``."""

# ``run`` is not re-exported: the module of the command of that name would take its place once imported.
from api.cli.app import main

__all__ = ["main"]

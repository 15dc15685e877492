"""What survives: protocols and their SQLite implementation."""

from orchestrator.storage.base import (
    AgentStore,
    DeliveryStore,
    EventLog,
    EventStore,
    IdempotencyStore,
    KnowledgeStore,
    ProjectStore,
    ResultStore,
    RunStore,
    Storage,
    TokenStore,
)
from orchestrator.storage.lock import StorageLock
from orchestrator.storage.sqlite import SqliteStorage

__all__ = [
    "AgentStore",
    "DeliveryStore",
    "EventLog",
    "EventStore",
    "IdempotencyStore",
    "KnowledgeStore",
    "ProjectStore",
    "ResultStore",
    "RunStore",
    "SqliteStorage",
    "Storage",
    "StorageLock",
    "TokenStore",
]

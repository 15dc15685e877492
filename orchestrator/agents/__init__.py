"""Agents' lives: registry, launch, relay of facts, restarts, recovery."""

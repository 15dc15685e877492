"""The roles: what each of them is, may do, needs to see, and whom it hands over to."""

from orchestrator.profiles.model import ContextNeeds, HandOver, Profile, Trigger
from orchestrator.profiles.permissions import permissions_of
from orchestrator.profiles.requirements import REQUIREMENTS, Requirement, resolve_requirements

__all__ = [
    "REQUIREMENTS",
    "ContextNeeds",
    "HandOver",
    "Profile",
    "Requirement",
    "Trigger",
    "permissions_of",
    "resolve_requirements",
]

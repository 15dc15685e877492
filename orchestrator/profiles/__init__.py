"""The roles: what each of them is, may do, needs to see, and whom it hands over to."""

from orchestrator.profiles.catalogue import Profiles
from orchestrator.profiles.effective import Effective
from orchestrator.profiles.model import ContextNeeds, HandOver, Profile, Trigger
from orchestrator.profiles.permissions import permissions_of
from orchestrator.profiles.problems import Problem
from orchestrator.profiles.requirements import REQUIREMENTS, Requirement, resolve_requirements
from orchestrator.profiles.sources import user_directories

__all__ = [
    "REQUIREMENTS",
    "ContextNeeds",
    "Effective",
    "HandOver",
    "Problem",
    "Profile",
    "Profiles",
    "Requirement",
    "Trigger",
    "permissions_of",
    "resolve_requirements",
    "user_directories",
]

"""Profiles, projects and what earlier work found."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from api.routes.base import ANY_TOKEN, Call, Reply, Route, json_reply
from api.schemas.base import Query
from api.schemas.operation import (
    KnowledgeAnswer,
    KnowledgeAnswerItem,
    KnowledgeQuery,
    ProfileAnswer,
    ProfilesAnswer,
    ProjectAnswer,
    ProjectBody,
    ProjectsAnswer,
)
from orchestrator.clock import rfc3339
from orchestrator.context.secrets import redact_part
from orchestrator.models import Project
from orchestrator.profiles.model import Profile
from orchestrator.profiles.permissions import ADMIN, READ_RESULTS


async def list_profiles(call: Call) -> Reply:
    """``GET /api/profiles``."""
    project = call.project(call.query(Query).project_id)
    profiles = call.services.profiles.list(project.path)
    return json_reply({"profiles": [_profile(profile, is_whole=False) for profile in profiles]})


async def show_profile(call: Call) -> Reply:
    """``GET /api/profiles/{type}``."""
    project = call.project(call.query(Query).project_id)
    profile = call.services.profiles.get(call.names["agent_type"], project.path)
    return json_reply(_profile(profile, is_whole=True))


def _profile(profile: Profile, *, is_whole: bool) -> dict[str, Any]:
    view: dict[str, Any] = msgspec.to_builtins(profile)
    if not is_whole:
        view.pop("instructions", None)
    return view


async def list_projects(call: Call) -> Reply:
    """``GET /api/projects``: an operator sees all, any other its own."""
    principal, projects = call.principal, call.services.projects
    shown = projects.list() if principal.is_admin else [call.project(None)]
    return json_reply(ProjectsAnswer(projects=[_project(call, project) for project in shown]))


async def add_project(call: Call) -> Reply:
    """``POST /api/projects``."""
    body = call.body(ProjectBody)
    project = await call.services.projects.add(body.project_id, body.path)
    call.facts["project_id"] = project.project_id
    return json_reply(_project(call, project), status=201)


def _project(call: Call, project: Project) -> ProjectAnswer:
    return ProjectAnswer(
        project_id=project.project_id,
        path=project.path,
        created_at=rfc3339(project.created_at),
        is_default=project.project_id == call.services.projects.default_id,
    )


async def search_knowledge(call: Call) -> Reply:
    """``GET /api/knowledge/search``."""
    query = call.query(KnowledgeQuery)
    project = call.project(query.project_id)
    items = await call.services.storage.search_knowledge(
        project.project_id, query.q, limit=query.limit, issue_id=query.issue_id
    )
    # as in every context: what an agent wrote down may hold a secret, and long texts would hold up the loop
    texts = await asyncio.to_thread(lambda: [redact_part(item.text) for item in items])
    found = [
        KnowledgeAnswerItem(**{**msgspec.structs.asdict(item), "text": text})
        for item, text in zip(items, texts, strict=True)
    ]
    return json_reply(KnowledgeAnswer(results=found, query=query.q, timestamp=call.now()))


ROUTES = (
    Route(
        method="GET",
        path="/api/profiles",
        permission=ANY_TOKEN,
        handler=list_profiles,
        summary="All roles in force for the project",
        tag="profiles",
        answer=ProfilesAnswer,
    ),
    Route(
        method="GET",
        path="/api/profiles/<agent_type>",
        permission=ANY_TOKEN,
        handler=show_profile,
        summary="One role with its instructions",
        tag="profiles",
        answer=ProfileAnswer,
        codes=("AGT_002",),
    ),
    Route(
        method="GET",
        path="/api/projects",
        permission=ANY_TOKEN,
        handler=list_projects,
        summary="The projects that the token may act in",
        tag="projects",
        answer=ProjectsAnswer,
    ),
    Route(
        method="POST",
        path="/api/projects",
        permission=ADMIN,
        handler=add_project,
        is_audited=True,
        summary="Register a project's directory",
        tag="projects",
        body=ProjectBody,
        answer=ProjectAnswer,
        status=201,
        codes=("REQ_004",),
        is_project_bound=False,
    ),
    Route(
        method="GET",
        path="/api/knowledge/search",
        permission=READ_RESULTS,
        handler=search_knowledge,
        summary="Decisions, findings and warnings of earlier results, best first",
        tag="knowledge",
        query=KnowledgeQuery,
        answer=KnowledgeAnswer,
    ),
)

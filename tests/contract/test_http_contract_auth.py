"""Contract section 2: who may call, with what, inside which project."""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import jwt
import pytest

from api.auth.keys import KeyRing
from tests.support.http import Api
from tests.support.roster import EXAMPLES, PermissionClass
from tests.support.server import Server

CLASSES: tuple[PermissionClass, ...] = ("architect", "coding", "qa-security", "documentation", "support")
READERS = frozenset(CLASSES)
WRITERS = frozenset({"architect", "coding", "qa-security", "documentation"})
PUBLISHERS = frozenset({"architect", "coding", "qa-security"})
ARCHITECT = frozenset({"architect"})

#: Permission -> classes that hold it, and a request that needs it and changes nothing where it is granted.
TABLE: dict[str, tuple[frozenset[str], str, str, Any]] = {
    "read_context": (READERS, "GET", "/api/context/{issue}/{agent_type}", None),
    "read_results": (READERS, "GET", "/api/results", None),
    "read_results of agents": (READERS, "GET", "/api/agents", None),
    "subscribe_events by wait": (READERS, "GET", "/api/events/wait/{issue}?timeout=0", None),
    "subscribe_events by replay": (READERS, "GET", "/api/events?limit=1", None),
    "write_results": (WRITERS, "POST", "/api/results", {"issue_id": "{issue}", "result": {"status": "success"}}),
    "publish_events": (PUBLISHERS, "POST", "/api/events/noted", {"topic": "testing", "data": {}}),
    "spawn_agents": (ARCHITECT, "POST", "/api/agents/spawn", {"agent_type": "nobody", "issue_id": "i", "task": "t"}),
    "manage_agents by input": (ARCHITECT, "POST", "/api/agents/agent-unknown/input", {"text": "hello"}),
    "manage_agents by delete": (ARCHITECT, "DELETE", "/api/agents/agent-unknown", None),
    "clear_cache": (ARCHITECT, "DELETE", "/api/cache/context/{issue}", None),
    "admin": (frozenset(), "POST", "/api/projects", {"project_id": "p", "path": "/"}),
}


@pytest.mark.parametrize("need", TABLE)
@pytest.mark.parametrize("holder", CLASSES)
def test_each_class_may_do_what_its_row_says(sidecar: Server, issue: str, holder: PermissionClass, need: str) -> None:
    """A route that forgets its permission, or asks for the wrong one, opens or closes a door of the table."""
    holders, method, path, body = TABLE[need]
    role = EXAMPLES[holder]
    text = None if body is None else json.dumps(body).replace("{issue}", issue)
    answer = sidecar.api(role).request(
        method,
        path.replace("{issue}", issue).replace("{agent_type}", role),
        content=None if text is None else text.encode(),
        headers={"Content-Type": "application/json"} if text else None,
    )
    if holder in holders:
        assert answer.status not in (401, 403, 405, 500), answer
    else:
        answer.refused(403, "AUTH_003")


@pytest.mark.parametrize("holder", CLASSES)
def test_any_token_reads_profiles(sidecar: Server, holder: PermissionClass) -> None:
    """Profiles are for every agent: a support role must see to whom it may hand over."""
    assert len(sidecar.api(EXAMPLES[holder]).get("/api/profiles").expect(200).json["profiles"]) >= 119


@pytest.mark.smoke
@pytest.mark.parametrize("path", ["/health", "/status", "/metrics", "/openapi.json", "/docs", "/.well-known/jwks.json"])
def test_what_is_open_needs_no_token(sidecar: Server, path: str) -> None:
    """A monitor has no token."""
    sidecar.anonymous().get(path).expect(200)


@pytest.mark.smoke
def test_no_token_is_refused_everywhere_else(sidecar: Server) -> None:
    """Forgotten authentication on one route gives away a project."""
    anonymous = sidecar.anonymous()
    for _, method, path, body in TABLE.values():
        anonymous.request(method, path.replace("{", "").replace("}", ""), body=body).refused(401, "AUTH_001")
    for header in ("Bearer", "Bearer x y", "Basic abc", "Bearer a.b.c", "bearer"):
        anonymous.get("/api/results", headers={"Authorization": header}).refused(401, "AUTH_001")


# -- the token itself -------------------------------------------------------------------------


class Forger:
    """Makes tokens with the sidecar's own key, right but for what a test changes."""

    def __init__(self, server: Server) -> None:
        ring = KeyRing.open(server.storage / "keys")
        self.key, self.kid = ring.signing_key, ring.kid
        now = int(time.time())
        self.claims: dict[str, Any] = {
            "sub": f"agent-{uuid.uuid4().hex}",
            "agent_type": "python-specialist",
            "project_id": server.default_project,
            "permissions": ["read_context", "read_results"],
            "iss": "orchestration-sidecar",
            "aud": "sidecar-agents",
            "iat": now,
            "nbf": now,
            "exp": now + 3600,
            "jti": uuid.uuid4().hex,
        }

    def token(self, *, without: str = "", header: dict[str, Any] | None = None, **changed: Any) -> str:
        """A token with ``changed`` claims and, if named, ``without`` one."""
        claims = {key: value for key, value in (self.claims | changed).items() if key != without}
        return jwt.encode(claims, self.key, algorithm="RS256", headers={"kid": self.kid, **(header or {})})


def results_with(server: Server, token: str) -> Any:
    """The answer to a plain read with this token."""
    with Api(server.url, token) as api:
        return api.get("/api/results")


def test_a_token_with_all_claims_right_is_taken(sidecar: Server) -> None:
    """Otherwise the refusals below would prove nothing."""
    results_with(sidecar, Forger(sidecar).token()).expect(200)


@pytest.mark.critical
@pytest.mark.parametrize(
    "claim", ["sub", "agent_type", "project_id", "permissions", "iss", "aud", "iat", "nbf", "exp", "jti"]
)
def test_a_missing_claim_is_refused(sidecar: Server, claim: str) -> None:
    """A library that checks only the claims it finds takes tokens that never expire."""
    results_with(sidecar, Forger(sidecar).token(without=claim)).refused(401, "AUTH_001")


@pytest.mark.parametrize(
    "wrong",
    [
        {"iss": "another"},
        {"aud": "another"},
        {"aud": ["sidecar-agents"]},
        {"aud": ["sidecar-agents", "another"]},
        {"nbf": 4_000_000_000},
        {"iat": 4_000_000_000},
        {"permissions": "admin"},
        {"permissions": ["everything"]},
        {"sub": "../../etc"},
        {"project_id": "a/b"},
        {"exp": "soon"},
    ],
    ids=str,
)
def test_a_wrong_claim_is_refused(sidecar: Server, wrong: dict[str, Any]) -> None:
    """PyJWT takes an audience list and future times unless told otherwise."""
    results_with(sidecar, Forger(sidecar).token(**wrong)).refused(401, "AUTH_001")


def test_an_expired_token_is_told_so(sidecar: Server) -> None:
    """An agent must know that it should have refreshed; there is no leeway."""
    now = int(time.time())
    token = Forger(sidecar).token(iat=now - 10, nbf=now - 10, exp=now - 1)
    results_with(sidecar, token).refused(401, "AUTH_002")


def _unsigned(forger: Forger) -> str:
    return jwt.encode(forger.claims, key="", algorithm="none", headers={"kid": forger.kid})


def _foreign_kid(forger: Forger) -> str:
    return forger.token(header={"kid": "another"})


def _traversing_kid(forger: Forger) -> str:
    return forger.token(header={"kid": "../../../dev/null"})


def _critical_header(forger: Forger) -> str:
    return forger.token(header={"crit": ["b64"], "b64": True})


def _own_key(forger: Forger) -> str:
    return forger.token(header={"jku": "http://127.0.0.1:1/jwks"})


def _torn(forger: Forger) -> str:
    head, _, signature = forger.token().split(".")
    claims = base64.urlsafe_b64encode(json.dumps(forger.claims | {"permissions": ["admin"]}).encode()).rstrip(b"=")
    return f"{head}.{claims.decode()}.{signature}"


@pytest.mark.parametrize("forge", [_unsigned, _foreign_kid, _traversing_kid, _critical_header, _own_key, _torn])
def test_a_forged_token_is_refused(sidecar: Server, forge: Callable[[Forger], str]) -> None:
    """The classic holes: no signature, the caller's choice of key, claims changed after signing."""
    results_with(sidecar, forge(Forger(sidecar))).refused(401, "AUTH_001")


def test_the_public_key_is_no_secret_key(sidecar: Server) -> None:
    """HS256 with the public key as its secret was how half of all JWT libraries fell."""
    forger = Forger(sidecar)
    public = sidecar.anonymous().get("/.well-known/jwks.json").json["keys"][0]
    secret = jwt.PyJWK(public).key.public_numbers().n.to_bytes(256, "big")
    token = jwt.encode(forger.claims, secret, algorithm="HS256", headers={"kid": forger.kid})
    results_with(sidecar, token).refused(401, "AUTH_001")


def test_tokens_can_be_checked_with_the_published_keys(sidecar: Server) -> None:
    """A peer verifies by JWKS alone; and what is published must not hold a private part."""
    document = sidecar.anonymous().get("/.well-known/jwks.json").expect(200).json
    token = sidecar.token("chief-architect")
    header = jwt.get_unverified_header(token)
    assert header["alg"] == "RS256"
    key = next(key for key in document["keys"] if key["kid"] == header["kid"])
    assert not {"d", "p", "q", "dp", "dq", "qi"} & key.keys()
    claims = jwt.decode(token, jwt.PyJWK(key).key, algorithms=["RS256"], audience="sidecar-agents")
    assert claims["iss"] == "orchestration-sidecar"
    assert claims["exp"] - claims["iat"] == 3600


# -- refresh ----------------------------------------------------------------------------------


def test_refresh_is_refused_before_the_last_five_minutes(sidecar: Server) -> None:
    """Refreshing at will would make tokens immortal."""
    sidecar.api("python-specialist").post("/api/tokens/refresh").refused(409, "AUTH_004")


def test_refresh_gives_a_new_token_and_ends_the_old(sidecar: Server) -> None:
    """A stolen token must die when its owner refreshes."""
    old = sidecar.token("python-specialist", ttl_s=200)
    with Api(sidecar.url, old) as api:
        body = api.post("/api/tokens/refresh").expect(200, 201).json
        new = next(
            value for value in body.values() if isinstance(value, str) and value.count(".") == 2 and value != old
        )
        results_with(sidecar, new).expect(200)
        api.get("/api/results").refused(401, "AUTH_001")
        api.post("/api/tokens/refresh").refused(401, "AUTH_001")
    before, after = (jwt.decode(token, options={"verify_signature": False}) for token in (old, new))
    assert before["sub"] == after["sub"]
    assert before["jti"] != after["jti"]


# -- projects ---------------------------------------------------------------------------------


def test_naming_another_project_is_forbidden(sidecar: Server, issue: str) -> None:
    """The most powerful role of one project has no say in another."""
    architect = sidecar.api("chief-architect")
    for answer in (
        architect.get(f"/api/context/{issue}/chief-architect", project_id="other"),
        architect.get("/api/results", project_id="other"),
        architect.post("/api/results", {"issue_id": issue, "project_id": "other", "result": {"status": "success"}}),
        architect.post(
            "/api/agents/spawn",
            {"agent_type": "python-specialist", "issue_id": issue, "task": "t", "project_id": "other"},
        ),
    ):
        answer.refused(403, "AUTH_003")


def test_another_projects_things_do_not_exist(sidecar: Server, issue: str) -> None:
    """A 403 for a foreign id would reveal that the id exists."""
    owner = sidecar.api("python-specialist", project_id="other")
    stored = owner.post("/api/results", {"issue_id": issue, "result": {"status": "success"}}).expect(201).json
    owner.get(f"/api/results/{stored['id']}").expect(200)
    stranger = sidecar.api("chief-architect")
    stranger.get(f"/api/results/{stored['id']}").refused(404)
    assert stranger.get("/api/results", issue_id=issue).expect(200).json["results"] == []
    events = stranger.get("/api/events", type="agent_completed", filter=f"issue_id:{issue}").expect(200).json["events"]
    assert events == []


def test_an_operator_acts_in_any_project_it_names(sidecar: Server, issue: str) -> None:
    """One operator token serves all projects, by query or by body."""
    operator = sidecar.api()
    stored = operator.post(
        "/api/results",
        {"agent_type": "python-specialist", "issue_id": issue, "project_id": "other", "result": {"status": "success"}},
    ).expect(201)
    assert len(operator.get("/api/results", issue_id=issue, project_id="other").expect(200).json["results"]) == 1
    operator.get(f"/api/results/{stored.json['id']}", project_id="other").expect(200)
    assert operator.get("/api/results", issue_id=issue).expect(200).json["results"] == []


@pytest.mark.critical
def test_only_the_architect_reads_another_roles_context(sidecar: Server, issue: str) -> None:
    """A role's context is made for that role alone."""
    path = f"/api/context/{issue}/go-specialist"
    sidecar.api("python-specialist").get(path).refused(403, "AUTH_003")
    sidecar.api("chief-architect").get(path).expect(200)
    sidecar.api().get(path).expect(200)


@pytest.mark.parametrize("claim", [{"agent_id": "another"}, {"agent_type": "go-specialist"}, {"project_id": "other"}])
def test_a_result_in_anothers_name_is_forbidden(sidecar: Server, issue: str, claim: dict[str, str]) -> None:
    """What an agent says counts as its own only."""
    body = {"issue_id": issue, "result": {"status": "success"}, **claim}
    sidecar.api("python-specialist").post("/api/results", body).refused(403, "AUTH_003")


def test_an_event_in_anothers_name_is_forbidden(sidecar: Server) -> None:
    """A forged publisher would let one agent speak for another."""
    api = sidecar.api("python-specialist")
    body = {"topic": "testing", "data": {}, "publisher": "another"}
    api.post("/api/events/noted", body).refused(403, "AUTH_003")
    own = jwt.decode(str(api.token), options={"verify_signature": False})["sub"]
    api.post("/api/events/noted", body | {"publisher": own}).expect(202)


# -- the command ------------------------------------------------------------------------------


@pytest.mark.smoke
def test_the_token_command_prints_a_working_token_alone(sidecar: Server) -> None:
    """``curl -H "Authorization: Bearer $(orchestrator token)"`` must work as it stands."""
    done = sidecar.cli("token", "--agent-type", "security-auditor", "--ttl", "60", "--project-id", "sample")
    assert done.returncode == 0, done.stderr
    token = done.stdout.removesuffix("\n")
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["agent_type"] == "security-auditor"
    assert claims["exp"] - claims["iat"] == 60
    assert "admin" not in claims["permissions"]
    results_with(sidecar, token).expect(200)
    admin = sidecar.cli("token", "--admin", "--project-id", "sample").stdout.strip()
    assert "admin" in jwt.decode(admin, options={"verify_signature": False})["permissions"]
    assert sidecar.cli("token", "--ttl", "0").returncode == 2

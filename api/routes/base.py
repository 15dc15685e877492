"""What a route is, what it is given and what it gives back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl

import msgspec

from api.asgi_body import JSON_TYPE
from api.auth.principal import Principal
from api.errors import from_validation
from api.schemas.base import Query
from orchestrator.clock import Clock, rfc3339
from orchestrator.errors import BadRequest, NotPermitted, SidecarError
from orchestrator.models import Project

if TYPE_CHECKING:
    from api.asgi import RequestInfo
    from api.auth.authority import Authority
    from api.documents import Documents
    from api.routes.services import Services
    from api.routes.waiters import Waiters

T = TypeVar("T")
#: Marks a route that needs no token.
OPEN = "open"
#: Marks a route that any valid token may use.
ANY_TOKEN = "any"
#: Most parameters of a query string.
MAX_PARAMETERS = 64
_ENCODER = msgspec.json.Encoder()


class Reply(msgspec.Struct, frozen=True):
    """An answer: its body is sent as it is; ``stream`` instead of it is sent as it comes."""

    body: bytes = b""
    status: int = 200
    content_type: str = JSON_TYPE
    headers: tuple[tuple[str, str], ...] = ()
    stream: AsyncIterator[bytes] | None = None


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path; the server, the OpenAPI document and the isolation tests read it.

    Attributes:
        method: GET, POST or DELETE.
        path: with ``<name>`` for each part that is a name.
        permission: a permission, ``any`` or ``open``.
        handler: answers.
        summary: one line for the documentation.
        tag: the resource, for grouping.
        query: form of the query parameters.
        body: form of the body; None takes none.
        answer: form of the success body, for the documentation; None for another media type or an empty one.
        status: the success status.
        codes: error codes beyond those that every route of its kind has.
        media: the success body's media type.
        free_names: path parts that are not single identifiers; the handler checks them.
        is_waiting: holds its answer back (long poll, stream): its time is no measure of speed.
        is_project_bound: acts on a project's things.
        takes_cloudevents: also reads ``application/cloudevents+json``.
        is_hot: answered by the short way of ``api.lane``.
        is_audited: who did it goes to the audit log.
    """

    method: str
    path: str
    permission: str
    handler: Callable[[Call], Awaitable[Reply]]
    summary: str
    tag: str
    query: type[Query] = Query
    body: Any = None
    answer: Any = None
    status: int = 200
    codes: tuple[str, ...] = ()
    media: str = JSON_TYPE
    free_names: tuple[str, ...] = ()
    is_waiting: bool = False
    is_project_bound: bool = True
    takes_cloudevents: bool = False
    is_audited: bool = False
    is_hot: bool = False


class Call:
    """One request, as a route's handler sees it.

    Attributes:
        services: the supervisor's services.
        principal: the caller; None on open routes.
        names: the path's names, checked.
        info: the request's id, headers and body.
        authority: over tokens.
        documents: about the API.
        waiters: for handlers that wait.
        facts: what the audit log is to say beside the path's names; ids only.
    """

    __slots__ = (
        "_principal",
        "_query_string",
        "authority",
        "clock",
        "documents",
        "facts",
        "info",
        "names",
        "route",
        "services",
        "waiters",
    )

    def __init__(
        self,
        *,
        route: Route,
        services: Services,
        principal: Principal | None,
        names: dict[str, str],
        info: RequestInfo,
        query_string: bytes,
        authority: Authority,
        documents: Documents,
        waiters: Waiters,
        clock: Clock,
    ) -> None:
        self.authority = authority
        self.facts: dict[str, str] = {}
        self.documents = documents
        self.route = route
        self.services = services
        self._principal = principal
        self.names = names
        self.info = info
        self._query_string = query_string
        self.waiters = waiters
        self.clock = clock

    @property
    def principal(self) -> Principal:
        """The caller. Raises NotPermitted on a route that has none (a mistake in the table)."""
        if self._principal is None:
            raise NotPermitted("this needs a token")
        return self._principal

    def header(self, name: bytes) -> str | None:
        """A header's last value; ``name`` in lower case."""
        value = self.info.headers.get(name)
        return None if value is None else value.decode("latin-1").strip()

    def query(self, form: type[T]) -> T:
        """The query parameters. Raises BadRequest, naming the parameter."""
        return parse_query(self._query_string, form)

    def body(self, form: type[T]) -> T:
        """The JSON body. Raises BadRequest, naming the field."""
        return parse_body(self.info.body, form)

    def project(self, named: str | None) -> Project:
        """The project that this request acts in.

        ``named`` is what body or query say. A caller that names another project than its token's is refused
        (NotPermitted) unless it is an operator; one that is not registered is NotFound.
        """
        project = self._project(named)
        if self.route.is_audited:
            self.facts["project_id"] = project.project_id
        return project

    def _project(self, named: str | None) -> Project:
        principal = self.principal
        projects = self.services.projects
        if named is None or named == principal.project_id:
            if named is None and principal.is_admin and not projects.has(principal.project_id):
                # An operator's token may have been minted before any project was known.
                return projects.get(projects.default_id or principal.project_id)
            return projects.get(principal.project_id)
        if not principal.is_admin:
            raise NotPermitted(
                "the token is of another project; leave project_id out, or use that project's token",
                details={"field": "project_id"},
            )
        return projects.get(named)

    async def is_still_admitted(self) -> bool:
        """Whether the token of this request, which may be an old one by now, would be admitted today."""
        authorization = self.info.headers.get(b"authorization")
        if self.authority.recall(authorization) is not None:
            return True
        try:
            await self.authority.verify(authorization)
        except SidecarError:
            return False
        return True

    def now(self) -> str:
        """The time, as answers carry it."""
        return rfc3339(self.clock.now())


def json_reply(value: Any, *, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    """``value`` as JSON."""
    return Reply(_ENCODER.encode(value), status, JSON_TYPE, headers)


def parse_body(body: bytes, form: type[T]) -> T:
    """A body in the given form. Raises BadRequest, naming the field."""
    if not body:
        raise BadRequest("a JSON body is needed", details={"field": "body"})
    try:
        return msgspec.json.decode(body, type=form)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise from_validation(error) from error


def parse_query(query_string: bytes, form: type[T]) -> T:
    """Query parameters in the given form; text is turned into numbers and booleans. Raises BadRequest."""
    values: dict[str, str] = {}
    if query_string:
        try:
            pairs = parse_qsl(
                query_string.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS
            )
        except ValueError as error:
            raise BadRequest("the query string cannot be read", details={"field": "query"}) from error
        for name, value in pairs:
            if name in values:
                raise BadRequest(f"{name} is given twice", details={"field": name})
            values[name] = value
    try:
        return msgspec.convert(values, form, strict=False)
    except msgspec.ValidationError as error:
        raise from_validation(error, where="query") from error

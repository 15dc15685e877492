"""The calls as methods, the same for both clients and typed for each: no code is written twice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from api.client import admission, calls, deliveries, knowledge
from api.client.request import Request

if TYPE_CHECKING:
    from typing import Self

    from api.client.aio import AsyncClient
    from api.client.sync import Client

P = ParamSpec("P")
T = TypeVar("T")


class Operation(Generic[P, T]):
    """A call that is sent by whichever client it is read from."""

    def __init__(self, build: Callable[P, Request[T]]) -> None:
        self._build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, client: None, owner: type | None = None) -> Self: ...
    @overload
    def __get__(self, client: Client, owner: type | None = None) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: type | None = None) -> Callable[P, Awaitable[T]]: ...
    def __get__(self, client: Any, owner: type | None = None) -> Any:
        """The call bound to ``client``."""
        if client is None:
            return self

        def call(*args: P.args, **kwargs: P.kwargs) -> Any:
            return client.send(self._build(*args, **kwargs))

        call.__doc__ = self.__doc__
        call.__name__ = self._build.__name__
        return call


class Operations:
    """Every call of the API; the parameters are those of the function of the same name in ``calls``."""

    health = Operation(calls.health)
    status = Operation(calls.status)
    metrics = Operation(calls.metrics)
    openapi = Operation(calls.openapi)
    context = Operation(calls.context)
    clear_context = Operation(calls.clear_context)
    explain_context = Operation(calls.explain_context)
    search_context = Operation(calls.search_context)
    store_result = Operation(calls.store_result)
    results = Operation(calls.results)
    result = Operation(calls.result)
    publish = Operation(calls.publish)
    wait_events = Operation(calls.wait_events)
    events = Operation(calls.events)
    dead_letters = Operation(deliveries.dead_letters)
    dead_letter = Operation(deliveries.dead_letter)
    redrive = Operation(deliveries.redrive)
    redrive_all = Operation(deliveries.redrive_all)
    purge = Operation(deliveries.purge)
    purge_all = Operation(deliveries.purge_all)
    consumers = Operation(deliveries.consumers)
    remove_consumer = Operation(deliveries.remove_consumer)
    spawn = Operation(calls.spawn)
    agents = Operation(calls.agents)
    agent = Operation(calls.agent)
    output = Operation(calls.output)
    send_input = Operation(calls.send_input)
    terminate = Operation(calls.terminate)
    pool = Operation(admission.pool)
    pause_pool = Operation(admission.pause_pool)
    drain_pool = Operation(admission.drain_pool)
    resume_pool = Operation(admission.resume_pool)
    create_run = Operation(calls.create_run)
    runs = Operation(calls.runs)
    run = Operation(calls.run)
    approve_run = Operation(calls.approve_run)
    cancel_run = Operation(calls.cancel_run)
    profiles = Operation(calls.profiles)
    profile = Operation(calls.profile)
    projects = Operation(calls.projects)
    add_project = Operation(calls.add_project)
    search_knowledge = Operation(knowledge.search_knowledge)
    add_note = Operation(knowledge.add_note)

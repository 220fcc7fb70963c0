"""The kind of route we use: it knows the scope it needs, asks for it before anything else, and takes bodies for JSON.

Bodies are JSON whatever their content type says: `curl -d` sends forms unless told otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

import orjson
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from service.http.errors import KINDS, MEDIA_TYPE, Problem, problem_of_faults
from service.http.middleware import PROBES
from service.http.rate_limit import Limiter, caller_of
from service.http.schemas import Id, ListQuery
from service.http.security import Gate, Scope

MAX_FIELDS = 100  # of one object; our models have a dozen
MAX_MARKS = 100_000  # brackets, braces and quotes in a body: a megabyte of empty lists or texts takes ten of memory
WITH_BODY = ("malformed-body", "request-timeout", "body-too-large")
EVERYWHERE = ("unauthorized", "forbidden", "cross-site", "invalid-request", "rate-limited", "overloaded", "internal")
RETRY_AFTER_HEADER = {
    "Retry-After": {"description": "seconds", "required": True, "schema": {"type": "integer", "minimum": 1}}
}
_ID, _LIST_QUERY = TypeAdapter(Id), TypeAdapter(ListQuery)
Handler = Callable[[Request], Awaitable[Response]]


class JsonRequest(Request):
    """A request whose body is strict JSON: no NaN, no lone surrogates, no endless nesting, no name twice."""

    async def json(self) -> Any:
        """The body; raises json.JSONDecodeError."""
        body = await self.body()
        if sum(map(body.count, (b"[", b"{", b'"'))) > MAX_MARKS:
            raise json.JSONDecodeError("too many lists, objects and texts", "", 0)
        _check_objects(body)  # and its result is gone before there is another: each may take ten times the body
        return orjson.loads(body)


def _check_objects(body: bytes) -> None:
    """Raise json.JSONDecodeError where an object has a name twice or too many names, or nesting has no end."""
    try:
        json.loads(body, object_pairs_hook=_check_names)
    except json.JSONDecodeError:
        raise
    except (RecursionError, ValueError) as error:  # not UTF-8, thousands of digits, or _BadNames
        message = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise json.JSONDecodeError(message, "", 0) from None


class _BadNames(ValueError):
    """An object with a name twice, or with far too many."""


def _check_names(pairs: list[tuple[str, Any]]) -> None:
    if len(pairs) > MAX_FIELDS:
        raise _BadNames(f"an object has more than {MAX_FIELDS} fields")
    if len({name for name, _ in pairs}) < len(pairs):
        raise _BadNames("an object has a field twice")


class ScopedRoute(APIRoute):
    """Base of the kinds below. Whoever adds a route chooses one; a test refuses routes without."""

    needs: ClassVar[Scope]

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        options["openapi_extra"] = {
            **(options.get("openapi_extra") or {}),
            "security": [{"bearer": []}, {"apiKey": []}],
            "x-scope": self.needs.name.lower(),
        }
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Any:
        """The framework's handler, behind the gate and with JSON bodies."""
        inner: Any = super().get_route_handler()

        async def handle(request: Request) -> Response:
            await self._admit(request)
            response: Response = await inner(JsonRequest(_as_json(request), request.receive))
            return response

        return handle

    async def _admit(self, request: Request) -> None:
        """Raises Problem where the caller may not, or calls too often. Guesses at keys are counted by address."""
        gate: Gate = request.app.state.gate
        limiter: Limiter = request.app.state.limiter
        address = request.client.host if request.client else None
        try:
            key = gate.check(request.headers, self.needs)
        except Problem:
            if limiter.limits(self.needs) and self.path not in PROBES:
                await limiter.check(self.needs, caller_of(None, address))
            raise
        if limiter.limits(self.needs) and self.path not in PROBES:
            await limiter.check(self.needs, caller_of(key, address))


def _as_json(request: Request) -> dict[str, Any]:
    others = [(name, value) for name, value in request.scope["headers"] if name != b"content-type"]
    return {**request.scope, "headers": [*others, (b"content-type", b"application/json")]}


class ReadRoute(ScopedRoute):
    """Looks things up."""

    needs = Scope.READ


class ListRoute(ReadRoute):
    """A list of pins for the one id in its path: `endpoint(id, query, live)`. It is what is asked most, and the
    framework takes as long to find three arguments as we take to find the pins; so we find them, with the same faults.
    """

    def get_route_handler(self) -> Any:
        """Our own handler."""
        [name] = self.param_convertors

        async def handle(request: Request) -> Response:
            await self._admit(request)
            faults: list[Any] = []
            found = _checked(_ID, request.path_params[name], ("path", name), faults)
            query = _checked(_LIST_QUERY, _given(request), ("query",), faults)
            if faults:
                raise problem_of_faults(faults)
            response: Response = await self.endpoint(found, query, request.app.state.parts.live)
            return response

        return handle


def _given(request: Request) -> dict[str, Any]:
    """The parameters as the model wants them: of several values the last one, but `exclude` takes all."""
    given: dict[str, Any] = {}
    if request.scope["query_string"]:
        for name, value in request.query_params.multi_items():
            if name == "exclude":
                given.setdefault(name, []).append(value)
            else:
                given[name] = value
    return given


def _checked(wanted: TypeAdapter[Any], given: Any, place: tuple[str, ...], faults: list[Any]) -> Any:
    """The value as the type wants it; None where it does not fit, and then `faults` says why."""
    try:
        return wanted.validate_python(given)
    except ValidationError as error:
        faults += [{**fault, "loc": (*place, *fault["loc"])} for fault in error.errors()]
        return None


class WriteRoute(ScopedRoute):
    """Changes pins, boards or what is known of users."""

    needs = Scope.WRITE


class AdminRoute(ScopedRoute):
    """Changes what is served."""

    needs = Scope.ADMIN


def problems(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI answers of some kinds of problem and of those that any route may give, with an example of each."""
    answers: dict[int | str, dict[str, Any]] = {}
    for kind in (*kinds, *EVERYWHERE):
        status, title = KINDS[kind]
        answer = answers.setdefault(
            status,
            {
                "description": title,
                "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemOut"}, "examples": {}}},
                **({"headers": RETRY_AFTER_HEADER} if status in (429, 503) else {}),
            },
        )
        example = Problem(kind).document(request_id="0f8c2d")
        answer["content"][MEDIA_TYPE]["examples"][kind] = {"summary": title, "value": example}
    return answers

"""Every refusal is an RFC 9457 problem: a stable `type`, a status, words for people, and the request's id.

A kind is declared once in KINDS; handlers, middleware, routes and the OpenAPI page all take it from there. A problem
never repeats what the client sent (it may be huge, or a secret) and never tells what went wrong inside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from model.errors import ReleaseError
from service.live.failures import (
    DeltaFull,
    InvalidContent,
    NotReady,
    Overloaded,
    StoreUnavailable,
    UnknownPin,
    UnknownRelease,
)

MEDIA_TYPE = "application/problem+json"
MAX_FAULTS = 20  # faults listed in one answer
MAX_POINTER = 200  # characters of a pointer: it may contain a name that the client made up
BRANCH = "branch:"  # begins the names of branches of our models, which are no part of what was sent


class Kind(NamedTuple):
    """One kind of problem."""

    status: int
    title: str


KINDS = {
    "malformed-request": Kind(400, "This is not an HTTP request as we understand it"),
    "malformed-body": Kind(400, "The body is not the JSON we can read"),
    "malformed-cursor": Kind(400, "The cursor was not made for this query"),
    "unauthorized": Kind(401, "A valid key is needed"),
    "forbidden": Kind(403, "The key does not have the scope this needs"),
    "cross-site": Kind(403, "Without keys, only this machine's own pages may call"),
    "not-found": Kind(404, "There is nothing at this path"),
    "unknown-pin": Kind(404, "There is no such pin"),
    "unknown-job": Kind(404, "There is no such job"),
    "unknown-release": Kind(404, "There is no such release"),
    "method-not-allowed": Kind(405, "The path does not take this method"),
    "request-timeout": Kind(408, "The request did not arrive in time"),
    "job-running": Kind(409, "A reindex is already under way"),
    "job-finished": Kind(409, "The job has already ended"),
    "release-refused": Kind(409, "The release cannot be served"),
    "body-too-large": Kind(413, "The body is longer than the limit"),
    "uri-too-long": Kind(414, "The address is longer than the limit"),
    "invalid-request": Kind(422, "The request does not describe something we can do"),
    "idempotency-mismatch": Kind(422, "The idempotency key was used for another request"),
    "headers-too-large": Kind(431, "The headers are longer than the limit"),
    "rate-limited": Kind(429, "More requests than the limit allows"),
    "overloaded": Kind(503, "Too many requests are being worked on"),
    "not-ready": Kind(503, "No release is being served yet"),
    "store-unavailable": Kind(503, "The online store does not answer"),
    "live-full": Kind(503, "No room for more new pins before the next reindex"),
    "internal": Kind(500, "Something went wrong on our side"),
}
FAILURES = (UnknownPin, UnknownRelease, InvalidContent, ReleaseError, DeltaFull, Overloaded, NotReady, StoreUnavailable)
RETRY_AFTER = {"overloaded": 1, "not-ready": 5, "store-unavailable": 2, "live-full": 60}
_OF_STATUS = {400: "malformed-body", 404: "not-found", 405: "method-not-allowed", 413: "body-too-large"}


class Problem(Exception):
    """A request that cannot be answered as asked; becomes a problem+json answer.

    kind     a key of KINDS
    detail   what to do about it, in a sentence
    headers  extra headers of the answer
    errors   for invalid requests: {"in", "pointer", "message"} of each fault
    """

    def __init__(
        self,
        kind: str,
        detail: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[Mapping[str, str]] = (),
    ) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind, self.detail, self.errors = kind, detail, list(errors)
        self.headers = dict(headers or {})
        if kind in RETRY_AFTER:
            self.headers.setdefault("retry-after", str(RETRY_AFTER[kind]))

    @property
    def status(self) -> int:
        return KINDS[self.kind].status

    def document(self, request_id: str | None) -> dict[str, Any]:
        """The problem as it is sent."""
        document: dict[str, Any] = {
            "type": problem_type(self.kind),
            "title": KINDS[self.kind].title,
            "status": self.status,
        }
        if self.detail is not None:
            document["detail"] = self.detail
        if request_id is not None:
            document["request_id"] = request_id
        if self.errors:
            document["errors"] = self.errors
        return document

    def response(self, request_id: str | None) -> Response:
        """The problem as an answer."""
        return Response(orjson.dumps(self.document(request_id)), self.status, self.headers, MEDIA_TYPE)


def problem_type(kind: str) -> str:
    """The stable identifier of a kind of problem."""
    return f"urn:pinsage:problem:{kind}"


def invalid(where: str, name: str, message: str) -> Problem:
    """The problem of one faulty field that only the data behind the service can judge."""
    return Problem(
        "invalid-request", f"{name}: {message}", errors=[{"in": where, "pointer": f"/{name}", "message": message}]
    )


async def answer_problem(request: Request, error: Exception) -> Response:
    """Handler of Problem."""
    assert isinstance(error, Problem)
    return error.response(request_id_of(request))


async def answer_http_error(request: Request, error: Exception) -> Response:
    """Handler of the framework's own errors: no such route, unreadable body."""
    assert isinstance(error, HTTPException)
    kind = _OF_STATUS.get(error.status_code, "internal" if error.status_code >= 500 else "invalid-request")
    return Problem(kind).response(request_id_of(request))


async def answer_failure(request: Request, error: Exception) -> Response:
    """Handler of what the data behind the service raises."""
    return problem_of_failure(error).response(request_id_of(request))


def problem_of_failure(error: Exception) -> Problem:
    """A failure of the data side in the client's terms."""
    match error:
        case UnknownPin():
            return Problem("unknown-pin", str(error))
        case UnknownRelease():
            return Problem("unknown-release", str(error))
        case InvalidContent():
            return invalid("body", error.field, error.message)
        case ReleaseError():
            return Problem("release-refused", str(error))
        case DeltaFull():
            return Problem("live-full", "POST /v1/admin/reindex makes room")
        case Overloaded():
            return Problem("overloaded", str(error))
        case NotReady():
            return Problem("not-ready", str(error))
        case StoreUnavailable():
            return Problem("store-unavailable", "no write was confirmed; try again")
    return Problem("internal")


async def answer_invalid(request: Request, error: Exception) -> Response:
    """Handler of requests that do not match the models: 400 where the body is no JSON, else 422."""
    assert isinstance(error, RequestValidationError)
    return problem_of_faults(error.errors()).response(request_id_of(request))


def problem_of_faults(faults: Sequence[Mapping[str, Any]]) -> Problem:
    """pydantic's list of faults as a problem."""
    unreadable = next((fault for fault in faults if fault["type"] == "json_invalid"), None)
    if unreadable is not None:
        return Problem("malformed-body", f"{unreadable['ctx']['error']}, at character {unreadable['loc'][-1]}")
    errors = [_shown(fault) for fault in faults[:MAX_FAULTS]]
    more = f" (the first {MAX_FAULTS} of {len(faults)} faults are listed)" if len(faults) > MAX_FAULTS else ""
    first = errors[0]
    return Problem("invalid-request", f"{first['pointer'] or first['in']}: {first['message']}{more}", errors=errors)


def _shown(fault: Mapping[str, Any]) -> dict[str, str]:
    where, *steps = fault["loc"]
    steps = [str(step) for step in steps if not str(step).startswith(BRANCH)]
    pointer = "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)
    return {
        "in": str(where),
        "pointer": pointer[:MAX_POINTER],
        "message": str(fault["msg"]).removeprefix("Value error, "),
    }


def request_id_of(request: Request) -> str | None:
    """The id that the middleware gave the request."""
    value = request.scope.get("request_id")
    return value if isinstance(value, str) else None

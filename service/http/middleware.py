"""What every request passes before a route sees it, as plain ASGI: an id, limits on its size, a bound on how many.

Order from outside: RequestContext, (metrics), BodyLimit, Admission, the app. A slow upload is held in BodyLimit, so it
takes memory from a bounded budget but none of the places that Admission gives out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import uuid
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.errors import Problem

PROBES = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})
ONCE = frozenset(  # headers that mean one thing or nothing: who sends two hopes that we and a proxy see different ones
    (b"host", b"authorization", b"x-api-key", b"idempotency-key", b"x-request-id", b"content-length", b"origin")
)
MAX_ADDRESS = 60_000  # bytes of path and query: some hundred excluded ids fit
REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
LINGER_BYTES, LINGER_SECONDS = 2**23, 2.0  # how much of a refused body is read away, so that the client sees the answer

logger = logging.getLogger("pinsage.http")


async def send_problem(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with a problem from outside the app."""
    await problem.response(scope.get("request_id"))(scope, receive, send)


class RequestContext:
    """Gives each request an id (the client's own when it is well formed), refuses endless addresses, and is the last
    net: what nothing else caught is logged with the id and answered as a problem that says nothing but the id."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        scope["request_id"] = request_id = _request_id(Headers(scope=scope).get("x-request-id"))
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers.setdefault("x-content-type-options", "nosniff")
            await send(message)

        if len(scope.get("raw_path") or scope["path"].encode()) + len(scope["query_string"]) > MAX_ADDRESS:
            problem = Problem("uri-too-long", f"at most {MAX_ADDRESS} bytes", headers={"connection": "close"})
            return await send_problem(problem, scope, receive, send_with_id)
        once = [name for name, _ in scope["headers"] if name in ONCE]
        if len(set(once)) < len(once):
            problem = Problem("malformed-request", "a header that may come once came twice")
            return await send_problem(problem, scope, receive, send_with_id)
        try:
            await self.app(scope, receive, send_with_id)
        except Exception:
            logger.exception("request %s failed", request_id)
            if started:
                raise  # the answer is broken; the server closes the connection
            await send_problem(Problem("internal"), scope, receive, send_with_id)


def _request_id(given: str | None) -> str:
    return given if given is not None and REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


class BodyLimit:
    """Takes in the whole body before the app is called: bytes are counted as they come (a declared length is only
    believed when it is too long), within a time, and all bodies together within a budget."""

    def __init__(self, app: ASGIApp, *, limit: int, seconds: float, budget: int, shed: Callable[[str], None]) -> None:
        self.app = app
        self.limit, self.seconds, self.budget, self.shed = limit, seconds, budget, shed
        self.held = 0  # bytes of bodies in memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        body = bytearray()
        try:
            await self._read(Headers(scope=scope), receive, body)
            await self.app(scope, _replay(bytes(body), receive), send)
        except _Refused as refused:
            await _refuse(refused, scope, receive, send)
        except _Gone:
            pass  # the client left before its body was complete: nobody to answer
        finally:
            self.held -= len(body)

    async def _read(self, headers: Headers, receive: Receive, body: bytearray) -> None:
        declared = headers.get("content-length", "0")
        if "transfer-encoding" not in headers and declared in ("", "0"):
            return
        if declared.isdecimal() and int(declared[:20]) > self.limit:
            raise self._too_large(more=True)
        try:
            async with asyncio.timeout(self.seconds):
                while await self._read_chunk(receive, body):
                    pass
        except TimeoutError:
            raise _Refused(Problem("request-timeout", f"{self.seconds:g} seconds"), more=True) from None

    async def _read_chunk(self, receive: Receive, body: bytearray) -> bool:
        """One more piece; whether there are more."""
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        chunk, more = message.get("body", b""), bool(message.get("more_body", False))
        if len(body) + len(chunk) > self.limit:
            raise self._too_large(more)
        if self.held + len(chunk) > self.budget:
            self.shed("body_budget")
            raise _Refused(Problem("overloaded", "too many bodies are being received"), more)
        body += chunk
        self.held += len(chunk)
        return more

    def _too_large(self, more: bool) -> _Refused:
        return _Refused(Problem("body-too-large", f"at most {self.limit} bytes"), more)


class _Refused(Exception):
    """A body that is not taken; carries the answer, and whether there is more of it on the way."""

    def __init__(self, problem: Problem, more: bool) -> None:
        super().__init__(str(problem))
        self.problem, self.more = problem, more


class _Gone(Exception):
    """The client has left."""


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body that was taken in, as the app's `receive`; later calls wait for the client to leave."""
    waiting = True

    async def replay() -> Message:
        nonlocal waiting
        if waiting:
            waiting = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replay


async def _refuse(refused: _Refused, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer at once and close, but first read some of the rest away: closing a socket with unread bytes in it makes
    the system reset the connection, and the client would see that instead of the answer."""
    response = refused.problem.response(scope.get("request_id"))
    response.headers["connection"] = "close"
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    more, drained = refused.more, 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while more and drained < LINGER_BYTES:
                message = await receive()
                more = bool(message.get("more_body", False))  # absent where the client has left
                drained += len(message.get("body", b""))
    await send({"type": "http.response.body", "body": b"", "more_body": False})


class Admission:
    """At most `places` requests are worked on at once; others are turned away, which keeps those that are let in fast.
    Probes always pass: a busy replica is not a broken one."""

    def __init__(self, app: ASGIApp, *, places: int, shed: Callable[[str], None]) -> None:
        self.app = app
        self.places, self.shed = places, shed
        self.inflight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            return await self.app(scope, receive, send)
        if self.inflight >= self.places:
            self.shed("inflight")
            return await send_problem(Problem("overloaded"), scope, receive, send)
        self.inflight += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.inflight -= 1

"""Body limit, admission, request ids and the last net, each around a small ASGI app."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from service.http.middleware import MAX_ADDRESS, Admission, BodyLimit, RequestContext

shed: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_shed() -> None:
    shed.clear()


async def measure(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers the length of the body."""
    body = await Request(scope, receive).body()
    await JSONResponse({"length": len(body)})(scope, receive, send)


async def fail(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("the secret inside")


def limited(app: ASGIApp = measure, *, limit: int = 1000, budget: int = 10_000, seconds: float = 5.0) -> RequestContext:
    return RequestContext(BodyLimit(app, limit=limit, seconds=seconds, budget=budget, shed=shed.append))


def client(app: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def pieces(size: int, count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * size


def kind(answer: httpx.Response) -> str:
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == answer.status_code
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    return str(answer.json()["type"]).removeprefix("urn:pinsage:problem:")


@pytest.mark.parametrize("length", [0, 1, 1000])
def test_body_up_to_the_limit_arrives_whole(length: int) -> None:
    async def check() -> None:
        async with client(limited()) as http:
            assert (await http.post("/", content=b"x" * length)).json() == {"length": length}

    asyncio.run(check())


def test_body_in_pieces_arrives_whole() -> None:
    async def check() -> None:
        async with client(limited()) as http:
            assert (await http.post("/", content=pieces(100, 10))).json() == {"length": 1000}

    asyncio.run(check())


def test_declared_length_over_the_limit_is_refused_unread() -> None:
    async def check() -> None:
        async with client(limited()) as http:
            answer = await http.post("/", content=b"x" * 1001)
        assert (answer.status_code, kind(answer)) == (413, "body-too-large")
        assert answer.headers["connection"] == "close"

    asyncio.run(check())


def test_chunked_body_is_refused_once_the_limit_is_passed() -> None:
    async def check() -> None:
        app = limited()
        async with client(app) as http:
            answer = await http.post("/", content=pieces(600, 5))
        assert (answer.status_code, kind(answer)) == (413, "body-too-large")

    asyncio.run(check())


def test_declared_length_that_lies_does_not_help() -> None:
    async def check() -> None:
        async with client(limited()) as http:
            answer = await http.post("/", content=pieces(600, 5), headers={"content-length": "10"})
        assert kind(answer) == "body-too-large"

    asyncio.run(check())


def test_all_bodies_together_stay_within_the_budget() -> None:
    """Ten slow uploads of 900 bytes fill a budget of 9,000; the eleventh is turned away, and comes in later."""

    async def check() -> None:
        go = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield b"x" * 900
            await go.wait()

        async with client(limited(budget=9000)) as http:
            waiting = [asyncio.create_task(http.post("/", content=slow())) for _ in range(10)]
            await asyncio.sleep(0.05)
            refused = await http.post("/", content=b"x" * 900)
            assert (refused.status_code, kind(refused), refused.headers["retry-after"]) == (503, "overloaded", "1")
            assert shed == ["body_budget"]
            go.set()
            assert {task.status_code for task in await asyncio.gather(*waiting)} == {200}
            assert (await http.post("/", content=b"x" * 900)).status_code == 200

    asyncio.run(check())


def test_body_that_never_ends_is_given_up() -> None:
    async def check() -> None:
        first, sent = True, []

        async def receive() -> Any:
            nonlocal first
            if not first:
                await asyncio.sleep(3600)
            first = False
            return {"type": "http.request", "body": b"x", "more_body": True}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/",
            "query_string": b"",
            "headers": [(b"content-length", b"5")],
        }
        async with asyncio.timeout(20):
            await limited(seconds=0.05)(scope, receive, send)
        assert [message["status"] for message in sent[:1]] == [408]

    asyncio.run(check())


def test_client_that_leaves_gets_no_answer_and_frees_its_bytes() -> None:
    async def check() -> None:
        app = BodyLimit(measure, limit=1000, seconds=5, budget=1000, shed=shed.append)
        messages = iter([{"type": "http.request", "body": b"x" * 500, "more_body": True}, {"type": "http.disconnect"}])

        async def receive() -> Any:
            return next(messages)

        async def send(message: Any) -> None:
            raise AssertionError("nobody is there")

        scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"transfer-encoding", b"chunked")]}
        await app(scope, receive, send)
        assert app.held == 0

    asyncio.run(check())


@pytest.mark.parametrize("given", ["abc-1.2:3_X", "a" * 128])
def test_well_formed_request_id_is_kept(given: str) -> None:
    async def check() -> None:
        async with client(RequestContext(measure)) as http:
            assert (await http.get("/", headers={"x-request-id": given})).headers["x-request-id"] == given

    asyncio.run(check())


@pytest.mark.parametrize("given", ["", "a" * 129, "a b", "a,b", "<script>"])
def test_other_request_ids_are_replaced(given: str) -> None:
    async def check() -> None:
        async with client(RequestContext(measure)) as http:
            made = (await http.get("/", headers={"x-request-id": given})).headers["x-request-id"]
        assert made != given
        assert len(made) == 32

    asyncio.run(check())


def test_endless_address_is_refused() -> None:
    async def check() -> None:
        async with client(RequestContext(measure)) as http:
            answer = await http.get("/?q=" + "x" * MAX_ADDRESS)
        assert (answer.status_code, kind(answer)) == (414, "uri-too-long")

    asyncio.run(check())


def test_unforeseen_failure_tells_the_id_and_logs_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    async def check() -> None:
        async with client(RequestContext(fail)) as http:
            answer = await http.get("/", headers={"x-request-id": "id-7"})
        assert (answer.status_code, kind(answer)) == (500, "internal")
        assert "secret" not in answer.text

    with caplog.at_level(logging.ERROR):
        asyncio.run(check())
    assert "request id-7 failed" in caplog.text
    assert "the secret inside" in caplog.text


def test_more_requests_than_places_are_shed_but_probes_pass() -> None:
    async def check() -> None:
        go = asyncio.Event()

        async def held(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] == "/slow":
                await go.wait()
            await JSONResponse({})(scope, receive, send)

        app = RequestContext(Admission(held, places=3, shed=shed.append))
        async with client(app) as http:
            waiting = [asyncio.create_task(http.get("/slow")) for _ in range(3)]
            await asyncio.sleep(0.02)
            refused = await http.get("/quick")
            assert (refused.status_code, kind(refused), refused.headers["retry-after"]) == (503, "overloaded", "1")
            probes = [(await http.get(path)).status_code for path in ("/livez", "/readyz", "/metrics")]
            assert probes == [200, 200, 200]
            go.set()
            assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}
            assert (await http.get("/quick")).status_code == 200
        assert shed == ["inflight"]

    asyncio.run(check())


def test_place_is_given_back_when_a_request_fails() -> None:
    async def check() -> None:
        app = Admission(fail, places=1, shed=shed.append)
        async with client(RequestContext(app)) as http:
            assert [(await http.get("/")).status_code for _ in range(3)] == [500, 500, 500]
        assert app.inflight == 0

    asyncio.run(check())

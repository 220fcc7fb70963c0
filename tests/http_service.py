"""The HTTP service around a release, in this process, for tests: the real app with its lifespan and a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

from model.redis_server import URL_VARIABLE, RedisSource
from service.app import create_app
from service.settings import Settings

Check = Callable[[httpx.AsyncClient], Awaitable[None]]
PROBLEM = "application/problem+json"
KIND = "urn:pinsage:problem:"


def with_service(home: Path, source: RedisSource, check: Check, **settings: Any) -> None:
    """Start the service on a home, run a check with a client of it, stop it."""

    async def run() -> None:
        app = create_app(Settings(**{"home": home, "worker": "none", **settings}), {URL_VARIABLE: source.address})
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http,
        ):
            await check(http)

    asyncio.run(run())


def kind_of(answer: httpx.Response) -> str:
    """The kind of a problem, whose form is checked on the way."""
    assert answer.headers["content-type"] == PROBLEM, answer.text
    document = answer.json()
    assert document["status"] == answer.status_code
    assert document["title"]
    assert document["request_id"] == answer.headers["x-request-id"]
    return str(document["type"]).removeprefix(KIND)


def pointers_of(answer: httpx.Response) -> set[str]:
    """What an invalid-request problem points at."""
    assert kind_of(answer) == "invalid-request", answer.text
    return {fault["pointer"] for fault in answer.json()["errors"]}


def ids_of(answer: httpx.Response) -> list[str]:
    """The pins of a list."""
    assert answer.status_code == 200, answer.text
    return [item["pin_id"] for item in answer.json()["items"]]

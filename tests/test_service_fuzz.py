"""Whatever comes in: every call of the app's description × bad paths, queries, headers and bodies. Never a 5xx,
always a problem; and what nobody thought of, drawn by hypothesis."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.redis_server import RedisSource
from tests.http_service import kind_of, with_service
from tests.service_fixtures import VISUAL_DIM, make_release

BAD_IDS = [
    "a%00b",
    "%00",
    "a%2f..%2fb",
    "..%2f..%2fetc",
    "%20",
    "a b",
    "%ff%fe",
    "%E2%98%83",
    "%F0%9F%98%80",
    "a" * 129,
    "%",
    "%zz",
    "a,b",
    "{}",
]
BAD_BODIES: dict[str, bytes] = {
    "not json": b"hello",
    "half": b'{"title": ',
    "two values": b"{} {}",
    "comment": b'{/* */"title": "a"}',
    "NaN": b'{"title": "a", "visual": [NaN]}',
    "Infinity": b'{"title": "a", "visual": [-Infinity]}',
    "1e999": b'{"title": "a", "visual": [1e999]}',
    "text NaN": b'{"title": "a", "visual": ["NaN"]}',
    "float32 overflow": b'{"visual": [' + b",".join([b"1e300"] * VISUAL_DIM) + b"]}",
    "lone surrogate": b'{"title": "\\ud800", "pin_id": "\\ud800", "mode": "\\ud800", "queries": ["\\ud800"]}',
    "NUL": b'{"title": "a\\u0000b", "pin_id": "a\\u0000b", "mode": "in\\u0000dex", "queries": ["a\\u0000"]}',
    "raw NUL": b'{"title": "a\x00b"}',
    "invalid UTF-8": b'{"title": "\xff\xfe"}',
    "UTF-16": '{"title": "a"}'.encode("utf-16"),
    "BOM": b'\xef\xbb\xbf{"title": "a"}',
    "names twice": b'{"title": "a", "title": "b", "mode": "index", "mode": "train"}',
    "names twice inside": b'{"queries": [{"pin_id": "a", "pin_id": "b"}], "events": [{"a": 1, "a": 2}]}',
    "deep lists": b"[" * 100_000,
    "deep and closed": b"[" * 500 + b"]" * 500,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "deep inside": b'{"title": ' + b"[" * 990 + b"]" * 990 + b"}",
    "5,000 digits": b'{"timestamp": %s, "type": "save", "pin_id": "a", "limit": %s}' % (b"9" * 5000, b"9" * 5000),
    "many digits": b'{"limit": 10000000000000000000000, "queries": ["p1"], "mode": 1e22, "title": 1}',
    "many names": b"{" + b",".join(b'"n%d":1' % i for i in range(50_000)) + b"}",
    "long name": b'{"' + b"n" * 900_000 + b'": 1}',
    "long text": b'{"title": "' + b"a" * 900_000 + b'"}',
    "long list": b'{"title": "a", "annotations": [%s"a"], "queries": [%s"p1"]}' % (b'"a",' * 99_999, b'"p1",' * 99_999),
    "many lists": b'{"queries": [%s[]]}' % (b"[]," * 340_000),
    "many objects": b'{"events": [%s{}]}' % (b"{}," * 340_000),
    "wrong kinds": b'{"title": 1, "boards": {}, "pin_id": [], "type": null, "events": "x", "mode": 5, "queries": 7}',
    "list": b"[]",
    "number": b"5",
    "text": b'"a"',
    "true": b"true",
    "unknown field": b'{"title": "a", "pin_id": "p1", "type": "save", "queries": ["p1"], "surprise": 1}',
    "form": b"title=a&boards=b1",
    "multipart": b'--x\r\ncontent-disposition: form-data; name="title"\r\n\r\na\r\n--x--',
}
FILLED = {"pin_id": "p1", "user_id": "u1", "board_id": "b1", "job_id": "j1", "release_id": "r1"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    make_release(home / "releases")
    return home


async def calls(http: httpx.AsyncClient) -> list[tuple[str, str, dict[str, Any]]]:
    """(method, path template, description) of every call."""
    paths = (await http.get("/openapi.json")).json()["paths"]
    return [(method.upper(), path, call) for path, by_method in paths.items() for method, call in by_method.items()]


def filled(path: str, **ids: str) -> str:
    return re.sub(r"{(\w+)}", lambda name: {**FILLED, **ids}[name[1]], path)


def raw(method: str, path: str, **options: Any) -> httpx.Request:
    """A request whose path is sent as it is."""
    url = httpx.URL("http://127.0.0.1:8000", raw_path=path.encode("utf-8"))
    return httpx.Request(method, url, **options)


def refused(answer: httpx.Response, what: object) -> None:
    assert 400 <= answer.status_code < 500, (what, answer.status_code, answer.text[:200])
    kind_of(answer)
    assert len(answer.content) < 20_000, what


def test_bad_ids_in_every_path(home: Path, redis_source: RedisSource) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        for method, path, _ in await calls(http):
            for name, bad in itertools.product(re.findall(r"{(\w+)}", path), BAD_IDS):
                refused(await http.send(raw(method, filled(path, **{name: bad}))), (method, path, bad))

    with_service(home, redis_source, check)


def test_an_endless_id(home: Path, redis_source: RedisSource) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        for method, path, _ in await calls(http):
            for name in re.findall(r"{(\w+)}", path):
                answer = await http.send(raw(method, filled(path, **{name: "a" * 60_000})))
                assert (answer.status_code, kind_of(answer)) == (414, "uri-too-long")

    with_service(home, redis_source, check)


@pytest.mark.parametrize("name", BAD_BODIES)
def test_bad_bodies_at_every_call_that_takes_one(home: Path, redis_source: RedisSource, name: str) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        for method, path, call in await calls(http):
            if "requestBody" not in call:
                continue
            for content_type in ("application/json", "application/x-www-form-urlencoded"):
                answer = await http.request(
                    method, filled(path), content=BAD_BODIES[name], headers={"content-type": content_type}
                )
                refused(answer, (method, path, name))

    with_service(home, redis_source, check)


def test_bodies_that_nobody_asked_for_do_no_harm(home: Path, redis_source: RedisSource) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        for method, path, call in await calls(http):
            if "requestBody" not in call:
                answer = await http.request(method, filled(path), content=BAD_BODIES["deep lists"])
                assert answer.status_code < 500 or path == "/readyz", (method, path)

    with_service(home, redis_source, check)


def test_every_number_of_a_query_is_bounded(home: Path, redis_source: RedisSource) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        for method, path, call in await calls(http):
            for parameter in call.get("parameters", []):
                if parameter["in"] == "query":
                    for bad in ("1e22", "-1", "NaN", "9" * 5000, "%00", "\ud7ff" * 500):
                        query = {"q": "a", parameter["name"]: bad}
                        if parameter["name"] in ("category", "language", "q") and len(bad) < 100:
                            continue
                        refused(await http.request(method, filled(path), params=query), (path, parameter["name"], bad))

    with_service(home, redis_source, check)


@pytest.mark.parametrize(
    "name", ["many names", "long name", "long list", "many lists", "many objects", "deep objects", "long text"]
)
def test_bad_bodies_do_not_hold_up_others(home: Path, redis_source: RedisSource, name: str) -> None:
    """How long the event loop stands still while a body of nearly a megabyte is refused, at best of five."""

    async def check(http: httpx.AsyncClient) -> None:
        stalls = []
        for _ in range(5):
            started = time.process_time()
            refused(await http.post("/v1/users/u1/events", content=BAD_BODIES[name]), name)
            stalls.append(time.process_time() - started)
        assert min(stalls) < 0.5  # measured: under 0.1; a limit that only an endless loop or a quadratic one passes

    with_service(home, redis_source, check)


# --- drawn ---

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
NAMES = st.sampled_from(
    [
        *("title", "annotations", "description", "image_url", "visual", "category", "language", "boards"),
        *("pin_id", "pin_ids", "queries", "limit", "type", "timestamp", "board_id", "event_id", "events", "mode"),
    ]
)
VALUES = JSON | st.sampled_from(
    ["p1", "b1", "save", "index", 5, ["p1"], ["b1"], [{"type": "save", "pin_id": "p1"}], [0.5] * 12]
)
BODIES = st.dictionaries(NAMES, VALUES, max_size=5) | JSON


def batches(strategy: st.SearchStrategy[Any]) -> Iterator[list[Any]]:
    """Examples of a strategy, drawn ahead: the service runs once for all of them."""
    drawn: list[Any] = []

    @settings(max_examples=150, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def draw(example: Any) -> None:
        drawn.append(example)

    draw()
    yield drawn


def test_drawn_bodies_are_taken_or_refused(home: Path, redis_source: RedisSource) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        [bodies] = batches(BODIES)
        for method, path, call in await calls(http):
            if "requestBody" in call:
                for body in bodies:
                    answer = await http.request(method, filled(path), json=body)
                    assert answer.status_code < 500, (method, path, body, answer.text)
                    if answer.status_code >= 400:
                        kind_of(answer)

    with_service(home, redis_source, check)


def test_drawn_texts_as_queries_and_headers(home: Path, redis_source: RedisSource) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        [texts] = batches(st.text(max_size=30))
        for text in texts:
            for query in ({"q": text}, {"q": "a", "limit": text}):
                assert (await http.get("/v1/search", params=query)).status_code < 500, query
            for name in ("cursor", "exclude", "category", "language", "limit", text):
                answer = await http.get("/v1/pins/p1/related", params={name: text})
                assert answer.status_code < 500, (name, text)
            header = text.encode("utf-8").replace(b"\r", b"").replace(b"\n", b"")
            headers = [(b"x-request-id", header), (b"x-api-key", header), (b"authorization", header)]
            assert (await http.get("/v1/pins/p1", headers=headers)).status_code == 200

    with_service(home, redis_source, check)


def test_the_service_is_as_before_after_all_of_it(home: Path, redis_source: RedisSource) -> None:
    """Many bad requests at once leave no place taken and no byte held."""

    async def check(http: httpx.AsyncClient) -> None:
        before = (await http.get("/v1/pins/p7/related")).json()
        bodies = itertools.islice(itertools.cycle(BAD_BODIES.values()), 200)
        answers = await asyncio.gather(*(http.put("/v1/pins/x", content=body) for body in bodies))
        assert {answer.status_code for answer in answers} <= {400, 413, 422, 503}
        assert (await http.get("/v1/pins/p7/related")).json() == before
        assert (await http.get("/v1/pins/x")).status_code == 404

    with_service(home, redis_source, check)

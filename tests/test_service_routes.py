"""Pins, users and boards over HTTP, on a planted release and a real Redis: pin p<i> is of cluster i % 6."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from model.redis_server import RedisSource
from service.http.cursor import Cursor, encode_cursor
from tests.http_service import Check, ids_of, kind_of, pointers_of, with_service
from tests.service_fixtures import VISUAL_DIM, cluster_of, make_release, words_of

Run = Callable[..., None]
ITEM = {"pin_id", "score", "title", "image_url", "reason"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one release that no test here changes."""
    home = tmp_path_factory.mktemp("home")
    make_release(home / "releases")
    return home


@pytest.fixture
def run(home: Path, redis_source: RedisSource) -> Run:
    """Runs a check against the service on an empty Redis."""

    def run(check: Check, **settings: Any) -> None:
        with_service(home, redis_source, check, **settings)

    return run


# --- related ---


def test_related_pins_are_alike_and_best_first(run: Run) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        page = (await http.get("/v1/pins/p7/related")).json()
        assert page.keys() == {"release", "items", "next"}
        assert len(page["items"]) == 20
        assert all(item.keys() == ITEM for item in page["items"])
        scores = [item["score"] for item in page["items"]]
        assert scores == sorted(scores, reverse=True)
        found = [item["pin_id"] for item in page["items"]]
        assert "p7" not in found
        assert sum(cluster_of(pin) == cluster_of("p7") for pin in found) >= 15
        assert page["items"][0]["image_url"] == f"http://images/{found[0]}.png"

    run(check)


def test_pages_follow_each_other_without_gap_or_overlap(run: Run) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        whole = ids_of(await http.get("/v1/pins/p7/related", params={"limit": 50}))
        pieces, cursor = [], None
        for limit in (7, 20, 23):
            query = {"limit": limit} | ({"cursor": cursor} if cursor else {})
            answer = await http.get("/v1/pins/p7/related", params=query)
            pieces += ids_of(answer)
            cursor = answer.json()["next"]
        assert pieces == whole

    run(check)


def test_a_list_ends_with_the_catalogue(run: Run) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        found, cursor = [], ""
        while cursor is not None:
            answer = await http.get(
                "/v1/pins/p7/related", params={"limit": 120, **({"cursor": cursor} if cursor else {})}
            )
            found += ids_of(answer)
            cursor = answer.json()["next"]
        assert sorted(found) == sorted(f"p{row}" for row in range(300) if row != 7)

    run(check)


def test_cursor_of_an_older_release_goes_on_in_the_current_one(run: Run) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        whole = ids_of(await http.get("/v1/pins/p7/related", params={"limit": 30}))
        cursor = encode_cursor(Cursor("older", 10), ("related", "p7", None, None))
        answer = await http.get("/v1/pins/p7/related", params={"limit": 20, "cursor": cursor})
        assert ids_of(answer) == whole[10:]
        assert answer.json()["release"] != "older"

    run(check)


@pytest.mark.parametrize("cursor", ["x", "=", "AAAA", "\u00e9", "MTAv", "a" * 300, "LTEvMC9y"])
def test_malformed_cursor(run: Run, cursor: str) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        answer = await http.get("/v1/pins/p7/related", params={"cursor": cursor})
        assert (answer.status_code, kind_of(answer)) == (400, "malformed-cursor")

    run(check)


def test_cursor_of_another_list_is_refused(run: Run) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        cursor = (await http.get("/v1/pins/p7/related")).json()["next"]
        for path, query in (
            ("/v1/pins/p8/related", {}),
            ("/v1/pins/p7/related", {"category": "c1"}),
            ("/v1/pins/p7/related", {"exclude": "p1"}),
            ("/v1/users/p7/homefeed", {}),
        ):
            answer = await http.get(path, params={"cursor": cursor, **query})
            assert (answer.status_code, kind_of(answer)) == (400, "malformed-cursor"), path

    run(check)


def test_excluded_pins_stay_out_and_the_page_stays_full(run: Run) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        first = ids_of(await http.get("/v1/pins/p7/related"))
        repeated = await http.get("/v1/pins/p7/related", params={"exclude": first[:10]})
        joined = await http.get(f"/v1/pins/p7/related?exclude={','.join(first[:10])}")
        assert ids_of(repeated) == ids_of(joined)
        assert ids_of(joined)[:10] == first[10:]
        assert len(ids_of(joined)) == 20
        assert (
            len(ids_of(await http.get("/v1/pins/p7/related", params={"exclude": [f"p{i}" for i in range(299)]}))) == 1
        )

    run(check)


@pytest.mark.parametrize(
    ("name", "value", "fits"),
    [("category", "c2", lambda row: row % 6 == 2), ("language", "de", lambda row: row % 5 and row % 2)],
)
def test_filters(run: Run, name: str, value: str, fits: Callable[[int], bool]) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        found = ids_of(await http.get("/v1/pins/p7/related", params={name: value, "limit": 30}))
        assert len(found) == 30
        assert all(fits(int(pin[1:])) for pin in found)

    run(check)


def test_category_that_nobody_has_is_an_empty_list(run: Run) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        answer = await http.get("/v1/pins/p7/related", params={"category": "nothing"})
        assert (answer.json()["items"], answer.json()["next"]) == ([], None)

    run(check)


def test_unknown_pin(run: Run) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        for method, path in (("GET", ""), ("GET", "/related"), ("DELETE", "")):
            answer = await http.request(method, f"/v1/pins/nobody{path}")
            assert (answer.status_code, kind_of(answer)) == (404, "unknown-pin")

    run(check)


def test_batch_of_ids_and_content(run: Run) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        content = {"title": " ".join(words_of(3)[:4]), "boards": ["b30", "b31", "b32"]}
        body = {"queries": ["p7", {"pin_id": "p7"}, "nobody", content], "limit": 5}
        answer = (await http.post("/v1/related", json=body)).json()
        single = ids_of(await http.get("/v1/pins/p7/related?limit=5"))
        lists = [[item["pin_id"] for item in result["items"]] for result in answer["results"]]
        assert lists[0] == lists[1] == single
        assert (lists[2], [result["error"] for result in answer["results"]]) == ([], [None, None, "unknown-pin", None])
        assert sum(cluster_of(pin) == 3 for pin in lists[3]) >= 3
        assert answer["release"]

    run(check)


# --- pins ---


def test_a_new_pin_takes_part_at_once(run: Run) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        body = {
            "title": " ".join(words_of(2)[:3]),
            "annotations": words_of(2)[:2],
            "boards": ["b20", "b21"],
            "category": "c2",
        }
        answer = await http.put("/v1/pins/new-1", json=body)
        assert answer.status_code == 201
        put = answer.json()
        assert put.keys() == {"pin_id", "release", "neighbors", "timings"}
        assert put["pin_id"] == "new-1"
        assert sum(neighbor["weight"] for neighbor in put["neighbors"]) == pytest.approx(1, abs=1e-5)
        assert all(cluster_of(neighbor["pin_id"]) == 2 for neighbor in put["neighbors"])
        assert put["timings"]["total"] > 0
        found = ids_of(await http.get("/v1/pins/new-1/related"))
        assert sum(cluster_of(pin) == 2 for pin in found) >= 15
        nearest = found[0]
        assert "new-1" in ids_of(await http.get(f"/v1/pins/{nearest}/related?limit=100"))
        stored = (await http.get("/v1/pins/new-1")).json()
        assert {name: stored[name] for name in body} == body

    run(check)


def test_replacing_answers_200_and_forgets_what_was_left_out(run: Run) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        await http.put("/v1/pins/new-1", json={"title": "first", "description": "old", "boards": ["b1"]})
        assert (await http.put("/v1/pins/new-1", json={"title": "second"})).status_code == 200
        stored = (await http.get("/v1/pins/new-1")).json()
        assert (stored["title"], stored["description"], stored["boards"]) == ("second", None, [])
        assert (await http.put("/v1/pins/p5", json={"title": "of the release"})).status_code == 200

    run(check)


@pytest.mark.parametrize(
    "content_type",
    [None, "application/x-www-form-urlencoded", "text/plain", "nonsense", "application/json; charset=utf-8"],
)
def test_bodies_are_json_whatever_their_type_says(run: Run, content_type: str | None) -> None:
    """`curl -X PUT -d '{…}'` says that it sends a form."""

    async def check(http: httpx.AsyncClient) -> None:
        headers = {} if content_type is None else {"content-type": content_type}
        answer = await http.put(
            "/v1/pins/new-1", content=b'{"title": "caf\xc3\xa9", "boards": ["b1"]}', headers=headers
        )
        assert answer.status_code == 201
        assert (await http.get("/v1/pins/new-1")).json()["title"] == "café"

    run(check)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, ""),
        ({"boards": []}, ""),
        ({"title": "  ", "annotations": ["", " "]}, ""),
        ({"category": "c1", "image_url": "http://x"}, ""),
        ({"title": "a", "titel": "b"}, "/titel"),
        ({"title": "a", "id": "b"}, "/id"),
        ({"title": 5}, "/title"),
        ({"title": "a" * 1001}, "/title"),
        ({"title": "a\u0000b"}, "/title"),
        ({"title": "a", "annotations": "word"}, "/annotations"),
        ({"title": "a", "annotations": ["a"] * 201}, "/annotations"),
        ({"title": "a", "annotations": ["a", 1]}, "/annotations/1"),
        ({"title": "a", "boards": ["b 1"]}, "/boards/0"),
        ({"title": "a", "boards": [""]}, "/boards/0"),
        ({"title": "a", "category": ""}, "/category"),
        ({"title": "a", "visual": []}, "/visual"),
        ({"title": "a", "visual": ["NaN"] * VISUAL_DIM}, "/visual/0"),
        ({"title": "a", "visual": [True] * VISUAL_DIM}, "/visual/0"),
        ({"title": "a", "visual": [0.5] * (VISUAL_DIM + 1)}, "/visual"),
        ({"visual": [0.5]}, "/visual"),
    ],
)  # fmt: skip
def test_content_that_cannot_be_a_pin(run: Run, body: dict[str, Any], pointer: str) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        answer = await http.put("/v1/pins/new-1", json=body)
        assert (answer.status_code, pointers_of(answer)) == (422, {pointer})
        assert (await http.get("/v1/pins/new-1")).status_code == 404

    run(check)


def test_visual_alone_makes_a_pin(run: Run) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        assert (await http.put("/v1/pins/new-1", json={"visual": [0.5] * (VISUAL_DIM - 1) + [1]})).status_code == 201

    run(check)


def test_deleted_pin_is_gone_everywhere(run: Run) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        nearest = ids_of(await http.get("/v1/pins/p7/related"))[0]
        answer = await http.delete(f"/v1/pins/{nearest}")
        assert (answer.status_code, answer.content) == (204, b"")
        assert nearest not in ids_of(await http.get("/v1/pins/p7/related?limit=300"))
        for method, path in (("GET", ""), ("GET", "/related"), ("DELETE", "")):
            assert (await http.request(method, f"/v1/pins/{nearest}{path}")).status_code == 404
        assert (await http.put(f"/v1/pins/{nearest}", json={"boards": ["b1"]})).status_code == 201

    run(check)


def test_search_by_words(run: Run) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        await http.put("/v1/pins/new-1", json={"title": "Walnut desk lamp", "boards": ["b1"]})
        answer = await http.get("/v1/search", params={"q": "walnut"})
        assert ids_of(answer) == ["new-1"]
        assert answer.json()["items"][0].keys() == ITEM
        assert ids_of(await http.get("/v1/search", params={"q": "desk la"})) == ["new-1"]
        assert ids_of(await http.get("/v1/search", params={"q": "zzzz"})) == []

    run(check)


# --- boards ---


def test_boards_change_what_a_pin_is_like(run: Run) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        await http.put("/v1/pins/new-1", json={"title": "nothing known"})
        added = await http.post("/v1/boards/b30/pins", json={"pin_id": "new-1"})
        assert (added.status_code, added.json()) == (200, {"board_id": "b30", "pin_ids": ["new-1"]})
        await http.post("/v1/boards/b31/pins", content='{"pin_ids": ["new-1", "p3", "new-1"]}')
        assert sorted((await http.get("/v1/pins/new-1")).json()["boards"]) == ["b30", "b31"]
        found = ids_of(await http.get("/v1/pins/new-1/related"))
        assert sum(cluster_of(pin) == 3 for pin in found) >= 12
        for _ in range(2):
            assert (await http.delete("/v1/boards/b30/pins/new-1")).status_code == 204
        assert (await http.get("/v1/pins/new-1")).json()["boards"] == ["b31"]

    run(check)


def test_unknown_pin_is_put_on_no_board_nor_are_those_beside_it(run: Run) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        before = (await http.get("/v1/pins/p3")).json()["boards"]
        answer = await http.post("/v1/boards/b59/pins", json={"pin_ids": ["p3", "nobody"]})
        assert (answer.status_code, kind_of(answer)) == (404, "unknown-pin")
        assert (await http.get("/v1/pins/p3")).json()["boards"] == before
        assert (await http.delete("/v1/boards/b1/pins/nobody")).status_code == 404

    run(check)


@pytest.mark.parametrize(
    "body", [{}, {"pin_id": "p1", "pin_ids": ["p2"]}, {"pin_ids": []}, {"pin_id": "p 1"}, {"pins": ["p1"]}, ["p1"]]
)
def test_malformed_board_pins(run: Run, body: Any) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        assert kind_of(await http.post("/v1/boards/b1/pins", json=body)) == "invalid-request"

    run(check)


# --- users ---


def test_feed_of_a_user_that_nobody_knows(run: Run) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        page = (await http.get("/v1/users/stranger/homefeed")).json()
        assert len(page["items"]) == 20
        assert all(item.keys() == ITEM and item["reason"] for item in page["items"])

    run(check)


def test_feed_follows_what_was_saved_and_leaves_out_what_was_hidden(run: Run) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        saved = await http.post("/v1/users/u1/events", json={"type": "save", "pin_id": "p7"})
        assert (saved.status_code, saved.json()) == (202, {"accepted": 1})
        items = (await http.get("/v1/users/u1/homefeed")).json()["items"]
        because = [item for item in items if item["reason"] == "because_you_saved"]
        assert because
        assert {item["source_pin_id"] for item in because} == {"p7"}
        assert sum(cluster_of(item["pin_id"]) == cluster_of("p7") for item in because) > len(because) / 2
        hidden = because[0]["pin_id"]
        await http.post("/v1/users/u1/events", json={"type": "hide", "pin_id": hidden})
        after = ids_of(await http.get("/v1/users/u1/homefeed?limit=200"))
        assert hidden not in after
        assert "p7" not in after

    run(check)


def test_a_batch_counts_each_event_once(run: Run) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        events = [
            {"type": "click", "pin_id": f"p{i}", "event_id": f"e{i}", "timestamp": time.time() - i} for i in range(5)
        ]
        first = await http.post("/v1/users/u1/events", json={"events": events})
        assert (first.status_code, first.json()) == (202, {"accepted": 5})
        again = await http.post(
            "/v1/users/u1/events", json={"events": [*events, {"type": "save", "pin_id": "p9", "board_id": "b1"}]}
        )
        assert (again.status_code, again.json()) == (202, {"accepted": 1})

    run(check)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"type": "like", "pin_id": "p1"}, "/type"),
        ({"type": "save"}, "/pin_id"),
        ({"type": "save", "pin_id": "p 1"}, "/pin_id"),
        ({"type": "save", "pin_id": "p1", "timestamp": time.time() + 90_000}, "/timestamp"),
        ({"type": "save", "pin_id": "p1", "timestamp": 10**22}, "/timestamp"),
        ({"type": "save", "pin_id": "p1", "timestamp": -1}, "/timestamp"),
        ({"type": "save", "pin_id": "p1", "timestamp": "now"}, "/timestamp"),
        ({"type": "save", "pin_id": "p1", "timestamp": True}, "/timestamp"),
        ({"type": "save", "pin_id": "p1", "when": 1}, "/when"),
        ({"events": []}, "/events"),
        ({"events": [{"type": "save", "pin_id": "p1"}, {"type": "save"}]}, "/events/1/pin_id"),
        ({"events": [{"type": "save", "pin_id": "p1"}] * 1001}, "/events"),
        ({"events": [{"type": "save", "pin_id": "p1"}], "extra": 1}, "/extra"),
    ],
)  # fmt: skip
def test_malformed_events(run: Run, body: dict[str, Any], pointer: str) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        answer = await http.post("/v1/users/u1/events", json=body)
        assert (answer.status_code, pointers_of(answer)) == (422, {pointer})

    run(check)


def test_homefeed_pages(run: Run) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        first = await http.get("/v1/users/u1/homefeed?limit=10")
        second = await http.get("/v1/users/u1/homefeed", params={"limit": 10, "cursor": first.json()["next"]})
        assert not set(ids_of(first)) & set(ids_of(second))
        only = await http.get("/v1/users/u1/homefeed?category=c4&exclude=p4,p10")
        assert {cluster_of(pin) for pin in ids_of(only)} == {4}
        assert not {"p4", "p10"} & set(ids_of(only))

    run(check)


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=501",
        "limit=1.5",
        "limit=-1",
        "limit=ten",
        "limit=10000000000000000000000",
        "limit=",
        "limti=5",
        "category=",
        "exclude=a%20b",
        "exclude=" + ",".join(["p1"] * 501),
        "cursor=" + "a" * 401,
    ],
)
def test_malformed_query(run: Run, query: str) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        for path in ("/v1/pins/p7/related", "/v1/users/u1/homefeed"):
            answer = await http.get(f"{path}?{query}")
            assert (answer.status_code, kind_of(answer)) == (422, "invalid-request")

    run(check)

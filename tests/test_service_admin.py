"""Reindexing, releases, probes and numbers over HTTP, on a planted release and a real Redis."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis

from model.jobs import end_job, take_job
from model.redis_server import RedisSource, open_redis
from model.release import current
from tests.http_service import ids_of, kind_of, with_service
from tests.service_fixtures import make_release, make_world


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one release that no test here changes."""
    home = tmp_path_factory.mktemp("home")
    make_release(home / "releases")
    return home


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisSource]:
    """A Redis that a test may stop."""
    with open_redis(tmp_path / "redis-home") as source:
        yield source


# --- reindex ---


def test_reindex_without_a_body(served: Path, redis_source: RedisSource) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        answer = await http.post("/v1/admin/reindex")
        assert answer.status_code == 202
        job = answer.json()
        assert job.keys() >= {"id", "state", "phase", "progress", "eta_seconds", "release", "error"}
        assert (job["state"], job["mode"], job["progress"]) == ("queued", "index", 0.0)
        assert answer.headers["location"] == f"/v1/admin/jobs/{job['id']}"
        assert (await http.get(answer.headers["location"])).json() == job
        assert (await http.get("/v1/admin/jobs")).json() == {"jobs": [job]}

    with_service(served, redis_source, check)


def test_second_reindex_is_told_where_the_first_is(
    served: Path, redis_source: RedisSource, redis_client: redis.Redis
) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        first = await http.post(
            "/v1/admin/reindex", content=b'{"mode": "embed"}', headers={"content-type": "text/plain"}
        )
        for _ in range(2):
            second = await http.post("/v1/admin/reindex", json={"mode": "train"})
            assert (second.status_code, kind_of(second)) == (409, "job-running")
            assert second.headers["location"] == first.headers["location"]
            take_job(redis_client, "w1")
        end_job(redis_client, first.json()["id"], "w1", "succeeded", release="r2")
        done = (await http.get(first.headers["location"])).json()
        assert (done["state"], done["release"], done["progress"]) == ("succeeded", "r2", 1.0)
        assert (await http.post("/v1/admin/reindex", json={"mode": "train"})).status_code == 202

    with_service(served, redis_source, check)


def test_idempotency_key(served: Path, redis_source: RedisSource) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        headers = {"idempotency-key": "k-1"}
        answers = [await http.post("/v1/admin/reindex", headers=headers) for _ in range(3)]
        assert {answer.status_code for answer in answers} == {202}
        assert len({answer.json()["id"] for answer in answers}) == 1
        other = await http.post("/v1/admin/reindex", headers=headers, json={"mode": "train"})
        assert (other.status_code, kind_of(other)) == (422, "idempotency-mismatch")
        malformed = await http.post("/v1/admin/reindex", headers={"idempotency-key": "k 1"})
        assert (malformed.status_code, kind_of(malformed)) == (422, "invalid-request")

    with_service(served, redis_source, check)


@pytest.mark.parametrize("body", ['{"mode": "all"}', '{"mod": "index"}', '{"mode": null}', "[]", '"index"', "5"])
def test_malformed_reindex(served: Path, redis_source: RedisSource, body: str) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        answer = await http.post("/v1/admin/reindex", content=body)
        assert (answer.status_code, kind_of(answer)) == (422, "invalid-request")
        assert (await http.get("/v1/admin/jobs")).json() == {"jobs": []}

    with_service(served, redis_source, check)


def test_cancel(served: Path, redis_source: RedisSource) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        place = (await http.post("/v1/admin/reindex")).headers["location"]
        cancelled = await http.post(f"{place}/cancel")
        assert (cancelled.status_code, cancelled.json()["state"]) == (202, "cancelled")
        again = await http.post(f"{place}/cancel")
        assert (again.status_code, kind_of(again)) == (409, "job-finished")
        for method, path in (("GET", "/v1/admin/jobs/nothing"), ("POST", "/v1/admin/jobs/nothing/cancel")):
            unknown = await http.request(method, path)
            assert (unknown.status_code, kind_of(unknown)) == (404, "unknown-job")

    with_service(served, redis_source, check)


# --- releases ---


def test_releases_are_listed_and_activated(tmp_path: Path, redis_source: RedisSource) -> None:
    root = tmp_path / "releases"
    old = make_release(root, make_world(120), seed=1).id
    new = make_release(root, make_world(180), seed=2).id

    async def check(http: httpx.AsyncClient) -> None:
        listed = (await http.get("/v1/admin/releases")).json()["releases"]
        assert [(release["id"], release["live"], release["num_pins"]) for release in listed] == [
            (new, True, 180),
            (old, False, 120),
        ]
        await http.put("/v1/pins/new-1", json={"title": "word1 word2", "boards": ["b1"]})
        assert (await http.post(f"/v1/admin/releases/{old}/activate")).json() == {"release": old}
        page = await http.get("/v1/pins/p1/related?limit=500")
        assert page.json()["release"] == old
        assert len(ids_of(page)) == 120  # 119 others, and the live pin came along
        assert current(root) == old
        assert [release["live"] for release in (await http.get("/v1/admin/releases")).json()["releases"]] == [
            False,
            True,
        ]

    with_service(tmp_path, redis_source, check)


def test_release_that_cannot_be_served_changes_nothing(tmp_path: Path, redis_source: RedisSource) -> None:
    root = tmp_path / "releases"
    broken = make_release(root, make_world(60), seed=1).id
    good = make_release(root, make_world(90), seed=2).id
    (root / broken / "weights.safetensors").write_bytes(b"nonsense")

    async def check(http: httpx.AsyncClient) -> None:
        refused = await http.post(f"/v1/admin/releases/{broken}/activate")
        assert (refused.status_code, kind_of(refused)) == (409, "release-refused")
        unknown = await http.post("/v1/admin/releases/nothing/activate")
        assert (unknown.status_code, kind_of(unknown)) == (404, "unknown-release")
        assert (await http.get("/v1/pins/p1/related")).json()["release"] == good
        assert current(root) == good

    with_service(tmp_path, redis_source, check)


# --- probes and numbers ---


def test_without_a_release_the_process_lives_and_says_why_it_is_not_ready(
    tmp_path: Path, redis_source: RedisSource
) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        assert (await http.get("/livez")).json() == {"status": "ok", "reasons": []}
        for path in ("/readyz", "/healthz"):
            answer = await http.get(path)
            assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
            assert "no release" in answer.json()["reasons"][0]
        for method, path in (
            ("GET", "/v1/pins/p1/related"),
            ("GET", "/v1/users/u/homefeed"),
            ("GET", "/v1/search?q=a"),
        ):
            answer = await http.request(method, path)
            assert (answer.status_code, kind_of(answer)) == (503, "not-ready")
            assert int(answer.headers["retry-after"]) >= 1
        assert (await http.put("/v1/pins/p1", json={"title": "a"})).status_code == 503
        assert (await http.get("/v1/admin/releases")).json() == {"releases": []}
        assert (await http.get("/v1/status")).json()["release"] is None
        assert (await http.get("/metrics")).status_code == 200

    with_service(tmp_path, redis_source, check)


def test_ready_with_a_release(served: Path, redis_source: RedisSource) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        for _ in range(100):
            answer = await http.get("/readyz")
            if answer.status_code == 200:
                break
            await asyncio.sleep(0.05)
        assert answer.json() == {"status": "ok", "reasons": []}

    with_service(served, redis_source, check)


def test_without_redis_reads_go_on_and_writes_fail_fast(served: Path, own_redis: RedisSource) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        before = ids_of(await http.get("/v1/pins/p7/related"))
        await asyncio.to_thread(own_redis.close)
        for method, path, body in (
            ("PUT", "/v1/pins/new-1", {"title": "a"}),
            ("DELETE", "/v1/pins/p1", None),
            ("POST", "/v1/boards/b1/pins", {"pin_id": "p2"}),
            ("POST", "/v1/users/u1/events", {"type": "save", "pin_id": "p1"}),
            ("POST", "/v1/admin/reindex", None),
            ("GET", "/v1/admin/jobs", None),
        ):
            answer = await http.request(method, path, json=body)
            assert (answer.status_code, kind_of(answer)) == (503, "store-unavailable"), path
            assert int(answer.headers["retry-after"]) >= 1
        assert ids_of(await http.get("/v1/pins/p7/related")) == before
        assert len(ids_of(await http.get("/v1/users/u1/homefeed"))) == 20
        assert (await http.get("/livez")).status_code == 200

    with_service(served, own_redis, check)


def numbers(text: str) -> dict[str, float]:
    """Prometheus text as sample -> value."""
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_metrics(served: Path, redis_source: RedisSource) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        for row in range(5):
            await http.get(f"/v1/pins/p{row}/related")
        await http.get("/v1/pins/nobody/related")
        await http.get("/nothing/at/all")
        await http.request("BREW", "/nothing")
        await http.put("/v1/pins/new-1", json={"title": "word1", "boards": ["b1"]})
        answer = await http.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        found = numbers(answer.text)
        durations = "pinsage_http_request_duration_seconds_count"
        assert found[f'{durations}{{method="GET",route="/v1/pins/{{pin_id}}/related",status="200"}}'] == 5
        assert found[f'{durations}{{method="GET",route="/v1/pins/{{pin_id}}/related",status="404"}}'] == 1
        assert found[f'{durations}{{method="GET",route="unmatched",status="404"}}'] == 1
        assert found[f'{durations}{{method="other",route="unmatched",status="404"}}'] == 1
        assert found["pinsage_index_vectors"] == 300
        assert found["pinsage_delta_vectors"] == found["pinsage_live_pins"] == found["pinsage_store_available"] == 1
        assert found["pinsage_follower_lag_entries"] == found["pinsage_quarantined_entries"] == 0
        assert found["pinsage_ready"] == 1
        assert found['pinsage_embedding_duration_seconds_count{step="total"}'] == 1
        assert any(name.startswith('pinsage_release_info{release="') for name in found)
        assert any(name.startswith('pinsage_build_info{version="') for name in found)
        assert not re.search(r"new-1|nobody|p3", answer.text)

    with_service(served, redis_source, check)


def test_shed_requests_are_counted(served: Path, redis_source: RedisSource) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        answers = await asyncio.gather(*(http.get("/v1/pins/p1/related?limit=500") for _ in range(20)))
        shed = [answer for answer in answers if answer.status_code == 503]
        assert {answer.status_code for answer in answers} == {200, 503}
        assert {kind_of(answer) for answer in shed} == {"overloaded"}
        found = numbers((await http.get("/metrics")).text)
        assert found['pinsage_shed_requests_total{reason="inflight"}'] == len(shed)

    with_service(served, redis_source, check, max_inflight=2)


def test_body_over_the_limit(served: Path, redis_source: RedisSource) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        answer = await http.put("/v1/pins/new-1", content=b'{"title": "' + b"a" * 5000 + b'"}')
        assert (answer.status_code, kind_of(answer)) == (413, "body-too-large")

    with_service(served, redis_source, check, max_body_bytes=4096)


def test_pictures_of_a_folder(served: Path, redis_source: RedisSource, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "p1.png").write_bytes(b"\x89PNG")
    (tmp_path / "secret.txt").write_text("hidden")

    async def check(http: httpx.AsyncClient) -> None:
        picture = await http.get("/images/p1.png")
        assert (picture.status_code, picture.headers["content-type"]) == (200, "image/png")
        assert picture.headers["x-content-type-options"] == "nosniff"
        for path in (
            "/images/p2.png",
            "/images/..%2fsecret.txt",
            "/images/%2e%2e/secret.txt",
            "/images/",
            "/images/a%00b",
        ):
            assert kind_of(await http.get(path)) == "not-found"

    with_service(served, redis_source, check, images_dir=tmp_path / "images")

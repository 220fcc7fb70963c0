"""Limits of how often a caller may call: who is counted under what, over replicas, and while Redis is away."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis
from http_service import kind_of, with_service
from service_fixtures import frozen, make_release

from model import keyspace
from model.errors import UserError
from model.redis_clients import async_client, sync_client
from model.redis_server import RedisSource, open_redis
from service.http import rate_limit
from service.http.errors import Problem
from service.http.rate_limit import Limiter, caller_of, parse_limits
from service.http.security import Key, Scope
from service.settings import load_settings

KEYS = "reader:read:r-secret,writer:write:w-secret,boss:admin:a-secret"
HOUR = 60 * 60


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    make_release(home / "releases")
    return home


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisSource]:
    """A Redis that a test may stop."""
    with open_redis(tmp_path / "redis-home") as source:
        yield source


def ignore(reason: str) -> None: ...


def key(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


async def statuses(http: httpx.AsyncClient, count: int, path: str = "/v1/pins/p1", **options: object) -> Counter[int]:
    return Counter([(await http.get(path, **options)).status_code for _ in range(count)])  # type: ignore[arg-type]


async def admitted(limiter: Limiter, count: int, caller: str = "somebody") -> int:
    """How many of so many requests pass."""
    passed = 0
    for _ in range(count):
        try:
            await limiter.check(Scope.READ, caller)
        except Problem as problem:
            passed -= problem.kind != "rate-limited"
        else:
            passed += 1
    return passed


# --- what may be set ---


def test_one_limit_for_all_scopes_or_one_each() -> None:
    assert parse_limits(None) == parse_limits("") == {}
    everywhere = parse_limits("600/minute")
    assert {(limit.amount, limit.get_expiry()) for limit in everywhere.values()} == {(600, 60)}
    assert set(everywhere) == set(Scope)
    each = parse_limits("read:900/minute, WRITE:5 per 10 seconds")
    assert {scope: (limit.amount, limit.get_expiry()) for scope, limit in each.items()} == {
        Scope.READ: (900, 60),
        Scope.WRITE: (5, 10),
    }
    assert parse_limits("600/minute,admin:1/hour")[Scope.ADMIN].get_expiry() == HOUR


@pytest.mark.parametrize("given", ["fast", "0/minute", "5/fortnight", "root:5/minute", "5/minute;1/second"])
def test_what_is_no_rate_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("PINSAGE_RATE_LIMIT", given)
    with pytest.raises(UserError, match="PINSAGE_RATE_LIMIT"):
        load_settings()


# --- who is counted under what ---


def test_callers_are_keys_else_addresses() -> None:
    one, other = Key("a", Scope.READ, b"1" * 32), Key("a", Scope.READ, b"2" * 32)
    assert len({caller_of(one, "10.0.0.1"), caller_of(other, "10.0.0.1"), caller_of(None, "10.0.0.1")}) == 3
    assert caller_of(one, "10.0.0.1") == caller_of(one, "10.0.0.2")
    assert one.digest.hex()[:16] not in caller_of(one, None)
    assert caller_of(None, "2001:db8::1") == caller_of(None, "2001:db8::ffff") != caller_of(None, "2001:db8:0:1::1")
    assert caller_of(None, None) == caller_of(None, "not an address") == "unknown"


def test_refusals_say_when_to_come_back(home: Path, redis_source: RedisSource) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        assert await statuses(http, 5) == {200: 5}
        for _ in range(2):  # the second one is refused from memory
            refused = await http.get("/v1/pins/p1")
            assert (refused.status_code, kind_of(refused)) == (429, "rate-limited")
            assert 1 <= int(refused.headers["retry-after"]) <= 2 * HOUR
            assert refused.headers["ratelimit-policy"] == f'"read";q=5;w={HOUR}'
            assert refused.headers["ratelimit"] == f'"read";r=0;t={refused.headers["retry-after"]}'
        assert (await http.put("/v1/pins/x", json={"title": "word1"})).status_code == 201  # another scope
        assert 'pinsage_shed_requests_total{reason="rate"} 2.0' in (await http.get("/metrics")).text

    with_service(home, redis_source, check, rate_limit="5/hour")


def test_probes_metrics_and_pages_are_never_limited(home: Path, redis_source: RedisSource) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        assert (await statuses(http, 3))[429] == 2
        for path in ("/livez", "/readyz", "/healthz", "/metrics", "/", "/openapi.json"):
            assert (await statuses(http, 5, path))[429] == 0, path
        assert await statuses(http, 3, "/v1/status") == {429: 3}

    with_service(home, redis_source, check, rate_limit="1/hour")


def test_each_key_has_its_own_limit_and_guesses_count_by_address(home: Path, redis_source: RedisSource) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        assert await statuses(http, 6, headers=key("r-secret")) == {200: 4, 429: 2}
        assert await statuses(http, 6, headers=key("a-secret")) == {200: 4, 429: 2}
        guesses = [(await http.get("/v1/pins/p1", headers=key(f"guess{i}"))).status_code for i in range(6)]
        assert guesses == [401] * 4 + [429] * 2
        assert await statuses(http, 1, headers=key("w-secret")) == {200: 1}  # a true key is not kept out by guesses
        assert await statuses(http, 9, "/metrics") == {401: 9}

    with_service(home, redis_source, check, rate_limit="4/hour", keys=KEYS)


def test_no_key_is_in_redis_nor_in_the_log(
    home: Path, redis_source: RedisSource, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        await statuses(http, 3, headers=key("r-secret"))
        names = [name.decode() for name in redis_client.scan_iter(f"{keyspace.RATE}*")]
        assert names, "nothing was counted in Redis"
        assert not [name for name in names if "r-secret" in name or "reader" in name]
        assert all(redis_client.ttl(name) > 0 for name in names)

    with caplog.at_level(logging.DEBUG):
        with_service(home, redis_source, check, rate_limit="2/hour", keys=KEYS)
    assert "r-secret" not in caplog.text


# --- over replicas, and without Redis ---


def test_replicas_share_one_limit(redis_source: RedisSource) -> None:
    """Twice the limit, half of it at each of two replicas, all at once."""

    async def check() -> None:
        async with async_client(redis_source) as one, async_client(redis_source) as two:
            limits = parse_limits("100/hour")
            passed = await asyncio.gather(*(admitted(Limiter(limits, each, ignore), 100) for each in (one, two)))
            assert sum(passed) == 100
            alone = [await admitted(Limiter(limits, None, ignore), 150) for _ in range(2)]
            assert alone == [100, 100]  # the control: without Redis each counts for itself

    asyncio.run(check())


def test_large_limits_are_taken_in_shares_and_hold_all_the_same(
    redis_source: RedisSource, redis_client: redis.Redis
) -> None:
    """A hundredth at a time: Redis is asked for a tenth of the requests at most, and no more than the limit pass."""

    async def check() -> None:
        limits = parse_limits("2000/hour")
        async with async_client(redis_source) as one, async_client(redis_source) as two:
            before = redis_client.info("stats")["total_commands_processed"]
            passed = await asyncio.gather(*(admitted(Limiter(limits, each, ignore), 1900) for each in (one, two)))
            commands = redis_client.info("stats")["total_commands_processed"] - before
        assert sum(passed) == 2000
        assert min(passed) > 200
        assert commands < 2000

    asyncio.run(check())


def test_what_was_taken_and_not_spent_lapses(redis_source: RedisSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "KEPT", 0.0)

    async def check() -> None:
        async with async_client(redis_source) as client:
            limiter = Limiter(parse_limits("500/hour"), client, ignore)
            assert await admitted(limiter, 300) == 100  # five are taken for each, and four of them lost

    asyncio.run(check())


def test_a_limit_that_is_off_asks_nobody(redis_source: RedisSource, redis_client: redis.Redis) -> None:
    async def check() -> None:
        async with async_client(redis_source) as client:
            limiter = Limiter(parse_limits("write:5/hour"), client, ignore)
            before = redis_client.info("stats")["total_commands_processed"]
            assert await admitted(limiter, 50) == 50
            assert redis_client.info("stats")["total_commands_processed"] - before <= 1  # our own question

    asyncio.run(check())


def test_without_redis_the_limit_holds_here_and_one_of_all_waits(
    own_redis: RedisSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.http.rate_limit.AWAY_SECONDS", HOUR)
    asked: list[object] = []
    hit = rate_limit._hit

    async def counting(window: rate_limit.Window, *more: object) -> float | None:
        asked.append(window)
        return await hit(window, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(rate_limit, "_hit", counting)

    async def check() -> None:
        async with async_client(own_redis) as client:
            limiter = Limiter(parse_limits("20/hour"), client, ignore)
            assert await admitted(limiter, 5) == 5
            asked.clear()
            with sync_client(own_redis) as control, frozen(control):
                assert await admitted(limiter, 200) == 20  # the count begins anew, but there is one
                assert asked.count(limiter._shared) == 1
            limiter = Limiter(parse_limits("20/hour"), client, ignore)
            # Redis is back and remembers the first five; it may have counted the one that did not wait for it.
            assert await admitted(limiter, 30) in (14, 15)

    asyncio.run(check())


def test_a_redis_that_comes_back_is_asked_again(own_redis: RedisSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.http.rate_limit.AWAY_SECONDS", 0.2)

    async def check() -> None:
        async with async_client(own_redis) as client:
            limiter = Limiter(parse_limits("1000/hour"), client, ignore)
            with sync_client(own_redis) as control:
                with frozen(control):
                    assert await admitted(limiter, 3) == 3
                async with asyncio.timeout(20):
                    while not list(control.scan_iter(f"{keyspace.RATE}*")):
                        assert await admitted(limiter, 1) == 1
                        await asyncio.sleep(0.05)

    asyncio.run(check())


def test_many_callers_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.http.rate_limit.MAX_CALLERS", 50)

    async def check() -> None:
        limiter = Limiter(parse_limits("1/hour"), None, ignore)
        for caller in range(500):
            assert await admitted(limiter, 1, f"caller{caller}") == 1
        assert len(limiter._storage_here.storage) <= 101

    asyncio.run(check())


def test_a_window_ends(redis_source: RedisSource) -> None:
    async def check() -> None:
        async with async_client(redis_source) as client:
            for each in (client, None):
                limiter = Limiter(parse_limits("3/second"), each, ignore)
                assert await admitted(limiter, 10) in (3, 4, 5)  # the window may end meanwhile
                await asyncio.sleep(2.1)
                assert await admitted(limiter, 1) == 1

    asyncio.run(check())

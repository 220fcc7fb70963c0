"""The network between a service and its Redis is slow, breaks off, or swallows what is sent: reads go on, a write is
done or refused, and afterwards everything is as before. Times are printed, not judged: they are the machine's.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import httpx
import psutil
import pytest
from crash_harness import wait_until
from live_service import PATIENCE, WORLD
from redis import RedisError, WatchError
from redis_proxy import NO_FAULT, Fault, RedisProxy
from service_fixtures import make_release
from service_load import HOMEFEED, NUM_READERS, TIMEOUT, Load, is_own, sender
from service_process import RedisProcess, ServiceProcess

from model import keyspace
from model.changes import PinRecord, read_changes, unpack_entry, write_records
from model.redis_clients import MAX_CONNECTIONS, async_client, sync_client
from service.live.failures import StoreUnavailable
from service.live.views import Event, UserState
from service.online.store import Store

FAULTS = {
    "late100": Fault(delay=0.1),
    "late500": Fault(delay=0.5),
    "reset": Fault(reset=True),
    "half-open": Fault(swallow=True),
    "trickle": Fault(rate=1_000),
    "cut": Fault(cut=0.3),
}
LATE = Fault(delay=0.05)  # so that requests overlap in Redis
NUM_LEAVING = 8  # at a time
T = TypeVar("T")
numbers = itertools.count()


@dataclass
class Place:
    """A service that has its Redis behind a proxy."""

    redis: RedisProcess
    proxy: RedisProxy
    service: ServiceProcess
    http: httpx.Client

    def num_connections(self) -> int:
        """Those that the service has to the proxy, closed ones that it has not let go of as well."""
        assert self.service.process is not None
        found = psutil.Process(self.service.process.pid).net_connections("tcp")
        return sum(bool(each.raddr) and each.raddr.port == self.proxy.port for each in found)

    def num_clients(self) -> int:
        """Connections that clients have to the service."""
        assert self.service.process is not None
        found = psutil.Process(self.service.process.pid).net_connections("tcp")
        return sum(bool(each.raddr) and each.laddr.port == int(self.service.url.rpartition(":")[2]) for each in found)

    def load(self, name: str) -> Load:
        return Load(sender(self.http), f"{name}{next(numbers)}")

    def overlap(self, name: str) -> int:
        """A load whose requests wait for Redis together; the connections that this takes."""
        load = Load(sender(self.http), f"{name}{next(numbers)}", reads=[HOMEFEED])
        with self.struck_by(LATE), load.running():
            time.sleep(1)
        assert load.wrong == []
        return self.num_connections()

    def overlap_as_before(self, before: int) -> int:
        """The same again, once it takes about as many connections as before; there may be more."""
        deadline = time.monotonic() + PATIENCE
        while (count := self.overlap("after")) < before - 1:
            assert time.monotonic() < deadline
        return count

    @contextmanager
    def struck_by(self, fault: Fault) -> Iterator[None]:
        """The network has a fault."""
        self.proxy.fault = fault
        try:
            yield
        finally:
            self.proxy.fault = NO_FAULT


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One for all tests of this file: each begins with a network that works, and leaves one."""
    folder = tmp_path_factory.mktemp("network")
    make_release(folder / "home" / "releases", WORLD)
    with ExitStack() as stack:
        redis = stack.enter_context(RedisProcess(folder / "redis", fsync="everysec"))
        proxy = stack.enter_context(RedisProxy(redis.folder / "redis.sock", seed=1))
        service = stack.enter_context(ServiceProcess(folder / "home", redis_url=proxy.source.address, queue_seconds=60))
        http = stack.enter_context(httpx.Client(base_url=service.url, timeout=TIMEOUT))
        place = Place(redis, proxy, service, http)
        wait_until(lambda: place.overlap("first") > NUM_READERS)  # the pool has as many as it needs
        yield place


QUICK = ("late100", "half-open", "cut")  # one of each sort; all of them, and longer, are among the slow ones


@pytest.mark.parametrize(
    ("kind", "seconds"),
    [*((kind, 2) for kind in QUICK), *(pytest.param(kind, 20, marks=pytest.mark.slow) for kind in FAULTS)],
)
def test_a_bad_network_stops_no_read_and_makes_no_answer_wrong(place: Place, kind: str, seconds: float) -> None:
    before, load = place.overlap("before"), place.load(kind)
    with load.running():
        with place.struck_by(FAULTS[kind]):
            num_struck, ends = place.proxy.num_struck, time.monotonic() + seconds
            elsewhere = put_elsewhere(place)
            while time.monotonic() < ends:
                time.sleep(0.05)
            num_struck = place.proxy.num_struck - num_struck
        num_refused, started = load.num_refused, time.monotonic()
        wait_until(lambda: load.write(0))
        works, first = time.monotonic() - started, time.monotonic()
        wait_until(lambda: place.http.get(f"/v1/pins/{elsewhere}").status_code == 200)
        follows = time.monotonic() - first + works
    after = place.overlap_as_before(before)
    print(
        f"{load}, {num_refused} of them while {num_struck} replies or connections were struck; a write again after"
        f" {works:.2f} s, what another wrote found after {follows:.2f} s; {before} connections before, {after} after"
    )
    assert num_struck > 0
    with sync_client(place.redis.source) as client:
        assert load.faults(client) == []
    assert load.faults_of_reads(sender(place.http)) == []
    assert after <= before + NUM_READERS, "a pool grows to what is used at once, and no further"


def put_elsewhere(place: Place) -> str:
    """A pin that another service puts, whose network works."""
    name = f"elsewhere{next(numbers)}"
    with sync_client(place.redis.source) as client:
        write_records(client, [PinRecord(name, title=f"word1 {name}")])
    return name


def test_a_write_whose_answer_is_lost_is_refused_and_not_done_again(place: Place) -> None:
    """All is done in Redis, and the network fails before it says so: whoever asked is told that nobody knows."""
    load = place.load("lost")
    wait_until(lambda: load.write(0))
    with place.struck_by(Fault(cut=1.0, to=b"EXEC")):
        answers = [load.write(turn) for turn in (0, 1, 3)]
        assert answers == [False] * 3
    wait_until(lambda: load.write(0))
    with sync_client(place.redis.source) as client:
        assert load.faults(client) == []


def test_a_tools_write_whose_answer_is_lost_is_not_done_again(place: Place) -> None:
    name = f"tool{next(numbers)}"
    with place.struck_by(Fault(cut=1.0, to=b"EXEC")), sync_client(place.proxy.source, timeout=2.0) as client:
        with pytest.raises(RedisError) as lost:
            write_records(client, [PinRecord(name)])
        assert not isinstance(lost.value, WatchError)
    with sync_client(place.redis.source) as client:
        entries = [unpack_entry(entry) for _, entry in client.xrange(keyspace.CHANGES)]
    assert [entry.pin_id for entry in entries].count(name) == 1


# --- clients that leave ---


@pytest.mark.parametrize("num_requests", [100, pytest.param(1_000, marks=pytest.mark.slow)])
def test_clients_that_leave_while_redis_works_leave_nothing_behind(place: Place, num_requests: int) -> None:
    before, seed = place.num_clients(), random.randrange(10**6)
    chance, name = random.Random(seed), f"gone{next(numbers)}"
    waits = [chance.uniform(0.01, 0.2) for _ in range(num_requests)]
    with place.struck_by(LATE), ThreadPoolExecutor(NUM_LEAVING) as threads:
        asked = [request(f"{name}-{i}", i) for i in range(num_requests)]
        gone = sum(threads.map(partial(leave, place.service.url), asked, waits))
        load = place.load("stayed")
        wait_until(lambda: load.write(0))  # writes take turns: all those before are done
    with sync_client(place.redis.source) as client:
        changes = [change for change in read_changes(client, 0) if change.pin_id.startswith(f"{name}-")]
        assert load.faults(client) == []
    print(f"seed {seed}: {gone} of {num_requests} left unanswered, {len(changes)} pins are there")
    wait_until(lambda: place.num_clients() <= before + 1)
    assert place.overlap("after") <= MAX_CONNECTIONS + 1, "one of them is the follower's"
    assert gone >= 0.05 * num_requests, "they were all answered before they left"
    for change in changes:
        assert isinstance(change, PinRecord)
        assert is_own(change.key, change.title)
        assert place.http.get(f"/v1/pins/{change.pin_id}").json()["title"] == change.title


def request(key: str, turn: int) -> bytes:
    """A read that asks Redis, or a write."""
    if turn % 10:
        return f"GET /v1/users/{key}/homefeed HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode()
    body = json.dumps({"title": f"word1 {key}"})
    head = f"PUT /v1/pins/{key} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}"
    return f"{head}\r\n\r\n{body}".encode()


def leave(url: str, request: bytes, seconds: float) -> bool:
    """Ask, wait as long and go; whether there was no answer until then."""
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=TIMEOUT) as client:
        client.sendall(request)
        client.settimeout(seconds)
        try:
            client.recv(1)
        except TimeoutError:
            return True
        return False


@pytest.mark.parametrize("num_reads", [100, pytest.param(1_000, marks=pytest.mark.slow)])
def test_reads_that_are_cancelled_while_redis_works_mix_up_no_answers(place: Place, num_reads: int) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    asyncio.run(cancel_reads(place.proxy, num_reads, random.Random(seed)))


async def cancel_reads(proxy: RedisProxy, num_reads: int, chance: random.Random) -> None:
    """Reads of users, each of whom saved a pin of their own, many at a time, a part of them cancelled."""
    client = async_client(proxy.source)
    store, users, counts = Store(client), [f"user{next(numbers)}" for _ in range(20)], Counter[str]()
    for user in users:
        await insist(store, partial(store.record_events, user, [Event("save", user, 1)], lambda *_: False))
    proxy.fault = LATE
    try:
        for i in range(0, num_reads, len(users)):
            reads = [asyncio.create_task(store.user_state(user)) for user in users]
            await asyncio.sleep(chance.uniform(0, 0.12))
            for read in reads[i // len(users) % 2 :: 2]:
                read.cancel()
            counts += await compare(users, reads)
            await insist(store, store.look)
    finally:
        proxy.fault = NO_FAULT
    print(f"of {num_reads} reads, half of which were cancelled at some moment: {dict(counts)}")
    assert counts["own"]
    assert counts["cancelled"]
    for user in users:
        state = await insist(store, partial(store.user_state, user))
        assert [action.pin_id for action in state.recent] == [user]
    pool: Any = client.connection_pool
    assert not pool._in_use_connections
    assert len(asyncio.all_tasks()) == 1
    await client.aclose()


async def compare(users: Sequence[str], reads: Sequence[asyncio.Task[UserState]]) -> Counter[str]:
    """How many reads were of their own user, cancelled, or too late; of another's there must be none."""
    counts = Counter[str]()
    for user, answer in zip(users, await asyncio.gather(*reads, return_exceptions=True), strict=True):
        if isinstance(answer, UserState):
            assert [action.pin_id for action in answer.recent] == [user]
            counts["own"] += 1
        else:
            assert isinstance(answer, asyncio.CancelledError | StoreUnavailable), answer
            counts["cancelled" if isinstance(answer, asyncio.CancelledError) else "late"] += 1
    return counts


async def insist(store: Store, work: Callable[[], Awaitable[T]]) -> T:
    """Again and again until it is done; a busy machine may be too slow for it."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with suppress(StoreUnavailable):
                await store.look()
                return await work()

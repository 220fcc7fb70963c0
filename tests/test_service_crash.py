"""kill -9 of the service and of Redis at random moments of a stream of writes: what was acknowledged is there.

The service runs with its private Redis, as by default, where it is the one that is killed: its end takes the private
Redis with it, which writes out its file. Where Redis itself is killed it syncs its file at each write (`appendfsync
always`); the default, `everysec`, promises the same only as long as the disk keeps up.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from crash_harness import Harness, Victim
from live_service import WORLD
from service_fixtures import make_release
from service_process import RedisProcess, ServiceProcess, copy_home

HASTY = (sys.executable, str(Path(__file__).with_name("hasty_service.py")))


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a small release; copied by those who use it."""
    home = tmp_path_factory.mktemp("released")
    make_release(home / "releases", WORLD)
    return home


@pytest.fixture
def home(released: Path, tmp_path: Path) -> Path:
    return copy_home(released, tmp_path / "home")


@pytest.fixture
def redis_process(tmp_path: Path) -> Iterator[RedisProcess]:
    with RedisProcess(tmp_path / "redis") as process:
        yield process


def kill_often(
    home: Path,
    redis: RedisProcess | None,
    num_writes: int,
    num_rounds: int,
    *,
    what: Victim = "service",
    num_services: int = 1,
) -> None:
    """Rounds of writes with a kill each, of the services in turn; nothing may be lost, doubled or made up."""
    seed = random.randrange(10**6)
    with ExitStack() as stack:
        services = [stack.enter_context(ServiceProcess(home, redis)) for _ in range(num_services)]
        harness = Harness(services, redis, seed=seed, num_pins=WORLD.num_pins)
        print(f"seed {seed}")
        for turn in range(num_rounds):
            harness.round(num_writes, what=what, victim=turn % num_services)
        harness.compare()
        print(harness.report)
    assert harness.report.faults() == []
    assert harness.report.num_acknowledged >= num_writes * num_rounds


def test_a_killed_service_has_all_that_it_acknowledged(home: Path) -> None:
    kill_often(home, None, 100, 2)


def test_a_killed_redis_has_all_that_was_acknowledged(home: Path, redis_process: RedisProcess) -> None:
    kill_often(home, redis_process, 100, 1, what="redis")


def test_a_service_that_is_told_to_go_has_all_that_it_acknowledged(home: Path) -> None:
    kill_often(home, None, 100, 1, what="service by SIGTERM")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_kills_of_the_service_in_two_thousand_writes_each(home: Path) -> None:
    kill_often(home, None, 2_000, 10)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_kills_of_redis_in_two_thousand_writes_each(home: Path, redis_process: RedisProcess) -> None:
    kill_often(home, redis_process, 2_000, 10, what="redis")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_kills_of_two_services_in_two_thousand_writes_each(home: Path, redis_process: RedisProcess) -> None:
    """While one is away its clients write to the other one."""
    kill_often(home, redis_process, 2_000, 10, num_services=2)


def test_the_harness_sees_what_a_hasty_service_loses(home: Path, redis_process: RedisProcess) -> None:
    """The control: a service that answers a second before Redis has the write."""
    with ServiceProcess(home, redis_process, command=HASTY) as service:
        harness = Harness([service], redis_process, seed=0, num_pins=WORLD.num_pins)
        harness.round(60)
    print(harness.report)
    assert harness.report.missing or harness.report.wrong

"""Fixtures that several test files share: a real Redis of our own, in a temporary folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import settings

from model.redis_clients import sync_client
from model.redis_server import RedisSource, open_redis

# A busy machine is no failure.
settings.register_profile("pinsage", deadline=None)
settings.load_profile("pinsage")


@pytest.fixture(scope="session")
def _session_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisSource]:
    with open_redis(tmp_path_factory.mktemp("redis-home"), {"PATH": os.environ.get("PATH", os.defpath)}) as source:
        yield source


@pytest.fixture
def redis_source(_session_redis: RedisSource) -> RedisSource:
    """A private Redis, empty at the start of each test."""
    with sync_client(_session_redis) as client:
        client.flushall()
    return _session_redis


@pytest.fixture
def redis_client(redis_source: RedisSource) -> Iterator[redis.Redis]:
    """A client of `redis_source`."""
    with sync_client(redis_source) as client:
        yield client


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder that nobody used before."""
    return tmp_path / "home"

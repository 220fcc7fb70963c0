"""Random operations against a dictionary (tests/live_machine.py): 1,000 in the suite, 50,000 among the slow tests."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from live_machine import LiveMachine
from live_service import PATIENCE, WORLD
from service_fixtures import make_release

from model.redis_clients import async_client
from model.redis_server import RedisSource
from service.live import compaction, delta, live, switch
from service.online import store

STEPS = 100  # operations of one machine
UNHURRIED = settings(deadline=None, stateful_step_count=STEPS, suppress_health_check=list(HealthCheck), print_blob=True)
settings.register_profile("operations", UNHURRIED, max_examples=13)
settings.register_profile("operations-many", UNHURRIED, max_examples=650)


@pytest.mark.parametrize(
    "profile",
    ["operations", pytest.param("operations-many", marks=[pytest.mark.slow, pytest.mark.timeout(4 * 3600)])],
)
def test_random_operations_do_what_a_dictionary_does(
    profile: str, tmp_path: Path, redis_source: RedisSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_release(tmp_path / "releases", WORLD)
    monkeypatch.setattr(delta, "INDEX_FROM", 30)  # so that compactions make an index
    monkeypatch.setattr(compaction, "PAUSE", 0.05)
    monkeypatch.setattr(switch, "POLL_SECONDS", 0.02)
    # A busy machine is no failure: nothing here is about time.
    monkeypatch.setattr(live, "async_client", partial(async_client, timeout=PATIENCE))
    for name in ("WRITE_SECONDS", "READ_SECONDS", "PING_SECONDS"):
        monkeypatch.setattr(store, name, PATIENCE)
    monkeypatch.setattr(LiveMachine, "released", tmp_path, raising=False)
    monkeypatch.setattr(LiveMachine, "source", redis_source, raising=False)
    monkeypatch.setattr(LiveMachine, "num_operations", 0)
    monkeypatch.setattr(LiveMachine, "hits", (0, 0))
    run_state_machine_as_test(LiveMachine, settings=settings.get_profile(profile))
    found, wanted = LiveMachine.hits
    print(f"{LiveMachine.num_operations} operations, recall@10 {found / wanted:.4f} of {wanted} neighbours")
    assert LiveMachine.num_operations > 0.5 * STEPS * settings.get_profile(profile).max_examples
    assert found >= 0.99 * wanted

"""Compaction: nothing is lost, nothing comes twice, and nobody waits for it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from live_service import WORLD, pin, serving, until
from service_fixtures import make_release, make_world

from model.changes import EdgeRecord, PinRecord
from model.redis_server import RedisSource
from model.release import Release
from service.live import compaction, delta
from service.live.catalogue import Catalogue
from service.live.compaction import Stopped
from service.live.facets import Filter
from service.live.live import Live

NUM_READERS = 4
MIN_COMPACTIONS = 3  # however slow the machine is


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return make_release(tmp_path_factory.mktemp("home") / "releases", make_world(300))


@pytest.fixture
def catalogue(release: Release) -> Catalogue:
    """With 200 live pins, of which 20 were replaced and 20 deleted, and 20 changed pins of the release."""
    catalogue = Catalogue(release, max_live_pins=10_000)
    for i in range(200):
        catalogue.apply(pin(f"new{i}", i % 6, category=f"c{i % 3}"))
    for i in range(20):
        catalogue.apply(pin(f"new{i}", (i + 1) % 6, category="again"))
        catalogue.apply(PinRecord(f"new{i + 50}", deleted=True))
        catalogue.apply(EdgeRecord("mine", f"p{i}", True))
    return catalogue


@pytest.fixture
def small_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compaction makes an index from 100 slots on."""
    monkeypatch.setattr(delta, "INDEX_FROM", 100)


def everything(catalogue: Catalogue, wanted: Filter | None = None) -> dict[str, np.ndarray]:
    """Vector by name of all pins that a search for all of them finds; each may come once only."""
    found = catalogue.search(catalogue.release.embeddings_PD[:1], 10_000, wanted=wanted or Filter()).rows_QK[0]
    rows = found[found >= 0]
    assert len(set(rows.tolist())) == len(rows)
    names = [catalogue.directory.pins.name(row) for row in rows.tolist()]
    return dict(zip(names, catalogue.vectors(rows), strict=True))


def assert_same(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> None:
    assert one.keys() == two.keys()
    for name, vector_D in one.items():
        np.testing.assert_array_equal(vector_D, two[name])


@pytest.mark.usefixtures("small_index")
def test_a_compaction_changes_nothing_that_can_be_seen(catalogue: Catalogue) -> None:
    queries_QD = np.stack(list(everything(catalogue).values()))[::5]
    before = everything(catalogue), everything(catalogue, Filter("again")), catalogue.search(queries_QD, 10)
    neighbors = [catalogue.neighbors(catalogue.row(f"new{i}")) for i in range(20)]
    old = catalogue.delta
    assert catalogue.compact()
    assert (old.num_slots, catalogue.delta.num_slots) == (240, 200)
    assert catalogue.delta.num_alive == catalogue.delta.num_indexed == 200
    assert_same(everything(catalogue), before[0])
    assert_same(everything(catalogue, Filter("again")), before[1])
    found = catalogue.search(queries_QD, 10)
    assert (found.rows_QK == before[2].rows_QK).mean() > 0.99
    np.testing.assert_allclose(found.scores_QK, before[2].scores_QK, atol=1e-5)
    for i, (ids_T, weights_T) in enumerate(neighbors):
        after = catalogue.neighbors(catalogue.row(f"new{i}"))
        np.testing.assert_array_equal(after[0], ids_T)
        np.testing.assert_array_equal(after[1], weights_T)


@pytest.mark.usefixtures("small_index")
def test_what_comes_during_a_compaction_is_in_it(release: Release, catalogue: Catalogue) -> None:
    """Half way: new pins, one replaced, one deleted, one brought back, one put on a board."""
    changes = [pin(f"late{i}", i % 6) for i in range(30)]
    changes += [pin("new1", 5), PinRecord("new2", deleted=True), PinRecord("late3", deleted=True), pin("new50", 2)]
    changes += [EdgeRecord("mine", "new3", True), EdgeRecord("mine", "p30", True), PinRecord("p31", deleted=True)]

    def come() -> None:
        while changes:
            catalogue.apply(changes.pop(0))

    old = catalogue.delta
    assert catalogue.compact(come)
    assert not changes
    indexed = catalogue.delta
    assert_same(everything(catalogue), {name: vectors_of(catalogue, old, name) for name in everything(catalogue)})
    assert indexed.num_indexed == 200
    there = everything(catalogue).keys()
    assert there >= {"new50", "late4", "new1", "new3", "p30"}
    assert not there & {"new2", "late3", "p31"}
    np.testing.assert_array_equal(catalogue.num_live_pins(), len([name for name in there if name[0] != "p"]))


def vectors_of(catalogue: Catalogue, old: delta.Delta, name: str) -> np.ndarray:
    """A pin's vector as the delta before the compaction has it; all writes went there until the swap."""
    row = catalogue.row(name)
    slot = old.slot_of(row)
    return old.vectors(np.array([slot]))[0] if slot >= 0 else catalogue.release.embeddings_PD[row]


def test_a_compaction_that_is_not_wanted_any_more_changes_nothing(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delta, "INDEX_FROM", 100)
    before, old = everything(catalogue), catalogue.delta

    def stop() -> None:
        raise Stopped

    with pytest.raises(Stopped):
        catalogue.compact(stop)
    assert catalogue.delta is old
    assert_same(everything(catalogue), before)


@pytest.mark.usefixtures("small_index")
def test_a_compaction_gives_way_to_the_writer(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer let go of dead slots itself meanwhile: its delta stays."""
    monkeypatch.setattr(delta, "FEWEST_DEAD", 10)
    before = everything(catalogue)
    turns = iter(range(300))

    def replace_often() -> None:
        for turn in turns:
            catalogue.apply(pin("new0", turn % 6))

    assert not catalogue.compact(replace_often)
    assert everything(catalogue).keys() == before.keys()
    assert catalogue.delta.num_slots < 2 * catalogue.delta.num_alive + 12


def test_the_service_compacts_by_itself(home: Path, redis_source: RedisSource, monkeypatch: pytest.MonkeyPatch) -> None:
    make_release(home / "releases", WORLD)
    monkeypatch.setattr(delta, "INDEX_FROM", 100)
    monkeypatch.setattr(compaction, "PAUSE", 0.02)

    async def is_compacted(live: Live) -> bool:
        return int(live.status()["delta_vectors_indexed"]) > 100

    async def work() -> None:
        async with serving(home, redis_source) as live:
            for i in range(150):
                await live.put_pin(pin(f"new{i}", i % 6))
            await until(lambda: is_compacted(live))
            page = await live.related("new0", limit=1_000)
            assert {f"new{i}" for i in range(1, 150)} <= {item.pin_id for item in page.items}

    asyncio.run(work())


# --- threads ---


class Scene:
    """Readers and a writer of one catalogue, while it is compacted again and again.

    Pins new0 … new99 stay and are replaced, gone0 … are deleted and never come back.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.stop = threading.Event()
        self.num_gone = 0
        self.num_compactions = 0

    def write(self) -> int:
        turn = 0
        while not self.stop.is_set():
            turn += 1
            self.catalogue.apply(pin(f"new{turn % 100}", turn % 6))
            self.catalogue.apply(pin(f"gone{turn}", turn % 6))
            self.catalogue.apply(EdgeRecord(f"mine{turn % 5}", f"p{turn % 300}", turn % 2 == 0))
            self.catalogue.apply(PinRecord(f"gone{turn}", deleted=True))
            self.num_gone = turn
        return turn

    def compact(self) -> None:
        while not self.stop.is_set():
            self.num_compactions += self.catalogue.compact()

    def read(self, seed: int) -> int:
        rng, turn = np.random.default_rng(seed), 0
        stay = {f"p{row}" for row in range(300)} | {f"new{row}" for row in range(200)}
        while not self.stop.is_set():
            turn += 1
            gone = {f"gone{i}" for i in range(max(0, self.num_gone - 50), self.num_gone + 1)}
            found = everything(self.catalogue).keys()
            assert stay <= found, sorted(stay - found)
            assert not gone & found
            self._read_one(int(rng.integers(100, 200)))
        return turn

    def _read_one(self, i: int) -> None:
        """A pin that is not replaced finds itself first, and few others as near."""
        row = self.catalogue.row(f"new{i}")
        own_D = self.catalogue.vectors(np.array([row]))
        found = self.catalogue.search(own_D, 10)
        assert found.scores_QK[0, 0] > 1 - 1e-4
        assert row in found.rows_QK[0] or found.scores_QK[0, 9] > 1 - 1e-4
        assert self.catalogue.describe(row)["pin_id"] == f"new{i}"


def play(catalogue: Catalogue, seconds: float) -> Scene:
    for i in range(200):
        catalogue.apply(pin(f"new{i}", i % 6))
    scene = Scene(catalogue)
    with ThreadPoolExecutor(NUM_READERS + 2) as threads:
        actors: list[Callable[[], object]] = [scene.write, scene.compact]
        actors += [lambda seed=seed: scene.read(seed) for seed in range(NUM_READERS)]  # type: ignore[misc]
        work = [threads.submit(actor) for actor in actors]
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline or scene.num_compactions < MIN_COMPACTIONS:
            if any(each.done() for each in work):
                break
            time.sleep(0.05)
        scene.stop.set()
    counts = [each.result() for each in work]
    print(f"{scene.num_compactions} compactions, {counts[0]} rounds of writes, {sum(counts[2:])} of reads")
    assert scene.num_compactions >= MIN_COMPACTIONS
    assert all(count is None or count for count in counts)
    return scene


@pytest.mark.usefixtures("small_index")
@pytest.mark.parametrize("seconds", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_readers_and_a_writer_beside_compactions(release: Release, seconds: float) -> None:
    play(Catalogue(release, max_live_pins=10_000), seconds)


BARE = """
import threading, time
import hnswlib
import numpy as np

vectors = np.random.default_rng(0).normal(size=(2000, 32)).astype(np.float32)
index = hnswlib.Index("ip", 32)
index.init_index(500)
index.add_items(vectors[:500])
stop = time.monotonic() + 20

def read():
    while time.monotonic() < stop:
        index.knn_query(vectors[:50], 20, num_threads=1)

threads = [threading.Thread(target=read) for _ in range(4)]
for thread in threads:
    thread.start()
size = 500
while time.monotonic() < stop:
    size += 100
    index.resize_index(size)
    index.add_items(vectors[:100], np.arange(size - 100, size))
    if size > 20_000:
        break
"""


@pytest.mark.slow
def test_the_same_with_bare_hnswlib_fails() -> None:
    """The control: one index that grows while it is queried ends the process, or raises in the readers."""
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", BARE], capture_output=True, text=True, timeout=120, check=False)
        if done.returncode < 0 or "Error" in done.stderr:
            print(done.returncode, done.stderr[-200:])
            return
    pytest.fail("bare hnswlib was changed while it was queried, and nothing happened")

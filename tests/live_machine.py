"""Random operations on two services of one home and one Redis, beside a dictionary that says what must come out.

Every operation is done on either service; the model takes it in when it was acknowledged. Vectors are the services':
the model keeps those that it saw and checks that they stay until the pin changes, and that a search over all of them by
hand finds what the service finds.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from live_service import PATIENCE, has, has_heard_of, serves, until
from service_fixtures import words_of

from model.changes import PinRecord
from model.exact import exact_neighbors
from model.redis_clients import sync_client
from model.redis_server import RedisSource
from model.release import current, list_releases
from offline.progress import silent
from offline.release.reindex import reindex
from service.live.failures import UnknownPin
from service.live.live import Live
from service.live.views import Event

T = TypeVar("T")

NUM_NAMES = 120
SHARE_OF_BASE = 60  # of the names, so many are pins of the release
K = 10

names = st.integers(0, NUM_NAMES - 1).map(lambda i: f"p{i}" if i < SHARE_OF_BASE else f"new{i}")
boards = st.integers(0, 15).map(lambda i: f"b{i * 4}" if i < 12 else f"mine{i}")
users = st.sampled_from(["ana", "ben"])
sides = st.integers(0, 1)  # which of the two services


@dataclass
class Pin:
    """What is compared of a pin."""

    title: str | None
    boards: set[str]


class LiveMachine(RuleBasedStateMachine):
    """See the top of the file. `num_operations` counts those of all machines."""

    released: Path
    source: RedisSource
    num_operations = 0
    hits: tuple[int, int] = 0, 0  # neighbours found, neighbours wanted

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="pinsage-"))
        shutil.copytree(self.released / "releases", self.home / "releases")
        with sync_client(self.source) as client:
            client.flushall()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.lives = [self.do(self._new_live()) for _ in range(2)]
        self.pins: dict[str, Pin] = {}
        self.saved: dict[str, set[str]] = {}
        self.seen: list[dict[str, np.ndarray]] = [{}, {}]  # vectors of each service
        self.count = 0
        self.trace: deque[str] = deque(maxlen=100)
        catalogue = self.lives[0]._switch.serving.catalogue
        for row in range(catalogue.num_base):
            shown = catalogue.describe(row)
            self.pins[shown["pin_id"]] = Pin(shown["title"], set(shown["boards"]))

    def teardown(self) -> None:
        try:
            self.compare()
        finally:
            for live in self.lives:
                self.do(live.stop())
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join()
            self.loop.close()
            shutil.rmtree(self.home)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something on the loop where the services live, and go on living when it is done."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10 * PATIENCE)

    async def _new_live(self) -> Live:
        live = Live(self.home, self.source, native_threads=2)
        await live.start()
        await until(lambda: is_ready(live))
        return live

    # --- writes ---

    @rule(side=sides, name=names, cluster=st.integers(0, 5), on=st.lists(boards, max_size=3, unique=True))
    def put(self, side: int, name: str, cluster: int, on: Sequence[str]) -> None:
        title = f"{' '.join(words_of(cluster)[:4])} {self._next('put', side, name, cluster, on)}"
        result = self.do(self.lives[side].put_pin(PinRecord(name, title, boards=tuple(on))))
        assert sum(weight for _, weight in result.neighbors) <= 1.001
        self.pins[name] = Pin(title, set(on))
        self._changed(side, name)

    @rule(side=sides, name=names)
    def delete(self, side: int, name: str) -> None:
        self._next("delete", side, name)
        if self._expect(side, name, self.lives[side].delete_pin(name)):
            del self.pins[name]
            self._changed(side, name)

    @rule(side=sides, name=names, board=boards, present=st.booleans())
    def set_edge(self, side: int, name: str, board: str, present: bool) -> None:
        self._next("set_edge", side, name, board, present)
        if self._expect(side, name, self.lives[side].set_edge(board, name, present)):
            self._set(name, board, present)
            self._changed(side, name)

    @rule(side=sides, name=names, board=boards)
    def change_ones_mind(self, side: int, name: str, board: str) -> None:
        """At once, and at the other service, which may not have heard of the first change."""
        self.set_edge(side, name, board, True)
        self.set_edge(1 - side, name, board, False)

    @rule(side=sides, user=users, name=names, board=st.none() | boards)
    def save(self, side: int, user: str, name: str, board: str | None) -> None:
        event = Event("save", name, self._next("save", side, user, name, board), board, f"event-{self.count}")
        for expected in (1, 0):  # a repetition counts for nothing
            assert self.do(self.lives[side].record_events(user, [event])) == expected
        self.saved.setdefault(user, set()).add(name)
        if board is not None and name in self.pins:
            self._set(name, board, True)
            self._changed(side, name)

    # --- reads ---

    @rule(side=sides, name=names)
    def related(self, side: int, name: str) -> None:
        self._next("related", side, name)
        self._catch_up(side)
        work = self.lives[side].related(name, limit=10_000)
        if name not in self.pins:
            assert self._fails(work)
            return
        found = [item.pin_id for item in self.do(work).items]
        assert sorted(found) == sorted(self.pins.keys() - {name})

    @rule(side=sides, user=users)
    def homefeed(self, side: int, user: str) -> None:
        self._next("homefeed", side, user)
        self._catch_up(side)
        found = [item.pin_id for item in self.do(self.lives[side].homefeed(user, limit=50)).items]
        assert len(found) == len(set(found))
        assert set(found) <= self.pins.keys() - self.saved.get(user, set())

    @rule(side=sides)
    def compare_one(self, side: int) -> None:
        self._next("compare", side)
        self._compare(side)

    # --- what happens to services ---

    @rule(side=sides)
    def compact(self, side: int) -> None:
        self._next("compact", side)
        self.do(self.lives[side]._compactor.compact())

    @rule(side=sides, luck=st.integers(1, 4))
    def restart(self, side: int, luck: int) -> None:
        if luck > 1:
            return
        self._next("restart", side)
        self.do(self.lives[side].stop())
        self.lives[side] = self.do(self._new_live())
        self.seen[side] = {}

    @rule(luck=st.integers(1, 12), on=st.lists(st.tuples(names, boards), max_size=3))
    def make_release(self, luck: int, on: Sequence[tuple[str, str]]) -> None:
        """A reindex, and writes while it runs."""
        if luck > 1:
            return
        done: Future[Any] = Future()

        def work() -> None:
            try:
                with sync_client(self.source) as client:
                    done.set_result(reindex(self.home, client, "index", silent))
            except BaseException as error:
                done.set_exception(error)

        thread = threading.Thread(target=work)
        thread.start()
        for turn, (name, board) in enumerate(on):
            self.put(turn % 2, name, turn, [board])
        thread.join()
        self._served(done.result().id)

    @rule(luck=st.integers(1, 12))
    def roll_back(self, luck: int) -> None:
        """To the oldest release that is kept."""
        if luck > 1:
            return
        self._next("roll back")
        release_id = list_releases(self.home / "releases")[0].id
        self.do(self.lives[0].activate(release_id))
        self._served(release_id)

    # --- what must hold ---

    @invariant()
    def one_release(self) -> None:
        served = {live.release_id for live in self.lives}
        assert served == {current(self.home / "releases")}

    def compare(self) -> None:
        """Everything of both services, and of one that starts now."""
        for side in (0, 1):
            self._compare(side)
        fresh = self.do(self._new_live())
        try:
            self._compare_content(fresh)
        finally:
            self.do(fresh.stop())

    def _compare(self, side: int) -> None:
        self._catch_up(side)
        live = self.lives[side]
        try:
            self._compare_content(live)
        except AssertionError:
            print(side, *self.trace, sep="\n")  # a race may never come again
            raise
        catalogue = live._switch.serving.catalogue
        known = sorted(self.pins)
        rows = catalogue.rows(known)
        vectors_PD = catalogue.vectors(rows)
        seen = self.seen[side]
        for name, vector_D in zip(known, vectors_PD, strict=True):
            np.testing.assert_array_equal(seen.setdefault(name, vector_D), vector_D, name)
        self._compare_search(catalogue, rows, np.stack([seen[name] for name in known]))

    def _compare_search(self, catalogue: Any, rows: np.ndarray, vectors_PD: np.ndarray) -> None:
        """The service finds what comparing with each vector finds, and every pin finds itself."""
        queries_QD = vectors_PD[self.count % 7 :: 7]
        exact = exact_neighbors(vectors_PD, queries_QD, K)
        found = catalogue.search(queries_QD, K)
        assert np.isin(found.rows_QK, rows).all()
        np.testing.assert_allclose(found.scores_QK[:, 0], 1, atol=1e-3)
        hits = int((found.scores_QK >= exact.scores_QK[:, -1:] - 1e-6).sum())
        LiveMachine.hits = LiveMachine.hits[0] + hits, LiveMachine.hits[1] + found.rows_QK.size

    def _compare_content(self, live: Live) -> None:
        for name in [f"p{i}" for i in range(SHARE_OF_BASE)] + [f"new{i}" for i in range(SHARE_OF_BASE, NUM_NAMES)]:
            assert self.do(has(live, name)) == (name in self.pins), name
        for name, pin in self.pins.items():
            shown = self.do(live.get_pin(name))
            assert (shown["title"], set(shown["boards"])) == (pin.title, pin.boards), name
        status = live.status()
        in_release = sum(live._switch.serving.catalogue.row(name) < status["index_vectors"] for name in self.pins)
        assert status["live_pins"] == len(self.pins) - in_release
        assert status["quarantined_entries"] == 0

    # --- helpers ---

    def _next(self, *what: object) -> int:
        LiveMachine.num_operations += 1
        self.count += 1
        self.trace.append(f"{self.count}: {what}")
        return self.count

    def _expect(self, side: int, name: str, work: Coroutine[Any, Any, object]) -> bool:
        """Whether the pin exists, which the service must say, too; of a pin that the other one took out, it may not
        have heard."""
        live = self.lives[side]
        has_heard = self.do(has_heard_of(live, self.do(live._store.last_seq())))
        failed = self._fails(work)
        exists = name in self.pins
        assert not (failed and exists), name
        assert failed or exists or not has_heard, name
        return exists

    def _fails(self, work: Coroutine[Any, Any, object]) -> bool:
        try:
            self.do(work)
        except UnknownPin:
            return True
        return False

    def _set(self, name: str, board: str, present: bool) -> None:
        (self.pins[name].boards.add if present else self.pins[name].boards.discard)(board)

    def _changed(self, side: int, name: str) -> None:
        """A pin has, or may soon have, another vector; who was told sees it at once."""
        for seen in self.seen:
            seen.pop(name, None)
        if name in self.pins:
            assert self.do(has(self.lives[side], name))

    def _catch_up(self, side: int) -> None:
        last = self.do(self.lives[side]._store.last_seq())
        self.do(until(lambda: has_heard_of(self.lives[side], last)))

    def _served(self, release_id: str) -> None:
        for live in self.lives:
            self.do(until(lambda live=live: serves(live, release_id)))
        self.seen = [{}, {}]


async def is_ready(live: Live) -> bool:
    return live.ready()[0]

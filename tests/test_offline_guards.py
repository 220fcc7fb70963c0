"""What stands between a reindex and the release that is served: room before it starts, hit rate before the flip, and a
worker that is killed at any moment."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import redis
from tiny_run import make_run
from topic_world import embedded_run, write_world

from model import keyspace
from model.changes import PinRecord, write_records
from model.errors import PinsageError
from model.jobs import WORKER_DIED, create_job, expire_dead_job, read_job
from model.redis_server import RedisSource
from model.release import current, open_release
from offline.release import preflight
from offline.release import reindex as reindex_module
from offline.release.index_stage import build_index
from offline.release.preflight import available_memory
from offline.release.publish import publish_run
from offline.release.reindex import reindex
from offline.run_folder import RunFolder
from offline.stages import read_config

GIB = 2**30


def silent(text: str, share: float) -> None: ...


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("tiny") / "run")


@pytest.fixture(scope="module")
def topics(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of which related pins are related: its vectors know the topics."""
    folder = tmp_path_factory.mktemp("topics")
    run = embedded_run(write_world(folder / "set"), folder / "run")
    run.dataset.write_text(json.dumps({"path": str(folder / "set")}))
    return run


def unchanged(home: Path, client: redis.Redis, before: str) -> bool:
    """Whether the old release is current, whole and alone."""
    root = home / "releases"
    open_release(root, before).load()
    folders = [path.name for path in root.iterdir() if path.is_dir()]
    return current(root) == before and folders == [before] and not list((home / "reindex").glob("*"))


# --- hit rate ---


def test_the_hit_rates_before_and_after_are_in_the_manifest(
    topics: RunFolder, home: Path, redis_client: redis.Redis
) -> None:
    publish_run(topics, home, redis=redis_client)
    quality = reindex(home, redis_client, "index", silent).quality
    assert quality["hit_rate"] == quality["hit_rate_before"] > 0.3
    assert reindex(home, redis_client, "embed", silent).quality["hit_rate"] == pytest.approx(
        quality["hit_rate"], abs=0.05
    )


@pytest.mark.parametrize("share", [1.0, 0.6])
def test_vectors_that_forgot_what_is_related_do_not_go_live(
    topics: RunFolder, home: Path, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """They are finite, of unit length, not all alike and well indexed: only the hit rate tells."""
    before = publish_run(topics, home, redis=redis_client)
    build = reindex_module._build

    def forget(overlay: object, run: RunFolder, *more: object) -> None:
        build(overlay, run, *more)  # type: ignore[arg-type]
        vectors = np.load(run.embeddings)
        rng = np.random.default_rng(0)
        rows = rng.permutation(len(vectors))[: int(share * len(vectors))]
        vectors[rows] = vectors[rng.permutation(rows)]
        np.save(run.embeddings, vectors)
        build_index(run, read_config(topics).index, seed=1, num_threads=1)

    monkeypatch.setattr(reindex_module, "_build", forget)
    with pytest.raises(PinsageError, match=r"find \d+\.\d% of \d+ related pins among the \d+ nearest"):
        reindex(home, redis_client, "index", silent)
    assert unchanged(home, redis_client, before.id)
    assert redis_client.smembers(keyspace.RELEASES) == {before.id.encode()}


def test_without_labelled_pairs_there_is_no_hit_rate_and_no_refusal(
    tiny: RunFolder, home: Path, redis_client: redis.Redis, tmp_path: Path
) -> None:
    run = RunFolder(Path(shutil.copytree(tiny.path, tmp_path / "run")))
    for split in ("train", "valid", "test"):
        np.save(run.pairs(split), np.empty((0, 2), np.int32))
    publish_run(run, home, redis=redis_client)
    assert set(reindex(home, redis_client, "index", silent).quality) == {"index_recall"}


def test_a_damaged_old_index_is_no_reason_against_the_new_one(
    tiny: RunFolder, home: Path, redis_client: redis.Redis
) -> None:
    before = publish_run(tiny, home, redis=redis_client)
    (home / "releases" / before.id / "index" / "index.bin").write_bytes(b"nonsense")
    quality = reindex(home, redis_client, "index", silent).quality
    assert "hit_rate" in quality
    assert "hit_rate_before" not in quality


# --- room ---


@pytest.mark.parametrize("mode", ["index", "embed", "train"])
@pytest.mark.parametrize("what", ["memory", "disk", "memory of Redis"])
def test_without_room_nothing_is_begun_and_it_is_said_how_much_is_missing(
    tiny: RunFolder, home: Path, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, what: str, mode: str
) -> None:
    before = publish_run(tiny, home, redis=redis_client)
    write_records(redis_client, [PinRecord("n0", boards=("b1",))])
    monkeypatch.setattr(reindex_module, "read_overlay", pytest.fail)
    if what == "memory":
        monkeypatch.setattr(preflight, "available_memory", lambda: 100 * 2**20)
    elif what == "disk":
        usage = type(shutil.disk_usage(home))(10 * GIB, 10 * GIB - 4096, 4096)
        monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: usage)
    else:
        monkeypatch.setattr(preflight, "_redis_memory", lambda client: 1024)
    with pytest.raises(PinsageError, match=rf"no room .*{mode}; {what}.*: about [\d.]+ [GM]iB needed, \d+ MiB there$"):
        reindex(home, redis_client, mode, silent)  # type: ignore[arg-type]
    assert unchanged(home, redis_client, before.id)


def test_everything_that_is_short_is_named_at_once(
    tiny: RunFolder, home: Path, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_run(tiny, home, redis=redis_client)
    monkeypatch.setattr(preflight, "available_memory", lambda: 0)
    monkeypatch.setattr(preflight, "_redis_memory", lambda client: 0)
    with pytest.raises(PinsageError, match=r"; memory: .*; memory of Redis: "):
        reindex(home, redis_client, "index", silent)


def test_what_nobody_can_measure_bars_no_way(
    tiny: RunFolder, home: Path, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_run(tiny, home, redis=redis_client)
    monkeypatch.setattr(preflight, "available_memory", lambda: None)
    assert preflight._redis_memory(redis_client) is None
    reindex(home, redis_client, "index", silent)


def test_the_limit_of_redis_is_read(redis_client: redis.Redis) -> None:
    redis_client.config_set("maxmemory", "64mb")
    try:
        room = preflight._redis_memory(redis_client)
        assert room is not None
        assert 0 < room < 64 * 2**20
    finally:
        redis_client.config_set("maxmemory", "0")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ({}, 8 * GIB),
        ({"memory.max": "max\n", "memory.current": "5"}, 8 * GIB),
        (
            {"memory.max": str(3 * GIB), "memory.current": str(GIB), "memory.stat": f"anon 1\ninactive_file {GIB}"},
            3 * GIB,
        ),
        ({"a/b/memory.max": str(3 * GIB), "a/b/memory.current": str(GIB)}, 2 * GIB),
        ({"a/memory.max": str(2 * GIB), "a/memory.current": str(GIB), "a/b/memory.max": "max"}, GIB),
        ({"a/b/memory.max": str(GIB), "a/b/memory.current": str(2 * GIB)}, 0),
        ({"memory/c/memory.limit_in_bytes": str(GIB), "memory/c/memory.usage_in_bytes": str(GIB // 2)}, GIB // 2),
        ({"memory/c/memory.limit_in_bytes": str(2**63 - 4096), "memory/c/memory.usage_in_bytes": "5"}, 8 * GIB),
    ],
)
def test_memory_is_what_the_machine_and_every_group_leave(
    tmp_path: Path, groups: dict[str, str], expected: int
) -> None:
    write(tmp_path / "proc" / "meminfo", f"MemTotal: 99 kB\nMemAvailable:   {8 * GIB // 1024} kB\n")
    write(tmp_path / "proc" / "self" / "cgroup", "4:cpu,memory:/c\n3:pids:/x\n0::/a/b\n")
    for name, text in groups.items():
        write(tmp_path / "groups" / name, text)
    if "memory.max" in groups:  # as in a container: the path that the process is told is that of the host
        write(tmp_path / "proc" / "self" / "cgroup", "0::/host/path\n")
    assert available_memory(tmp_path / "proc", tmp_path / "groups") == expected


def test_a_machine_that_says_nothing_has_unknown_memory(tmp_path: Path) -> None:
    assert available_memory(tmp_path, tmp_path) is None


# --- a worker that is killed ---

# A real worker that kills itself, as hard as can be, when its reindex gets to a step.
DOOMED = """
import os, signal, sys
from pathlib import Path
from offline.release import publish
from offline.release import reindex
from offline.release import worker
from model import release_writer

step, home = sys.argv[1], Path(sys.argv[2])

def die(*args, **more):
    os.kill(os.getpid(), signal.SIGKILL)

for module, name in ((release_writer, "fsync_tree"), (release_writer, "write_atomic"), (publish, "set_current")):
    if step == name:
        setattr(module, name, die)
if step == "after set_current":
    publish._remove_old = die
tell = worker._Progress.__call__

def told(self, phase, share):
    tell(self, phase, share)
    if phase.startswith(step):
        die()

worker._Progress.__call__ = told
worker.run_worker(home)
"""
STEPS = ["adding items", "write_atomic", "vectors into Redis", "set_current", "after set_current"]
MORE_STEPS = ["reading", "merging", "choosing ef", "checking", "copying embeddings", "checksums", "fsync_tree"]


@contextmanager
def doomed_worker(home: Path, step: str, source: RedisSource) -> Iterator[subprocess.Popen[bytes]]:
    root = Path(reindex_module.__file__).parents[1]
    paths = [*sys.path, str(root)]
    environ = {**os.environ, "PINSAGE_REDIS_URL": source.address, "PYTHONPATH": os.pathsep.join(paths)}
    with subprocess.Popen([sys.executable, "-c", DOOMED, step, str(home)], env=environ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(condition: Callable[[], bool]) -> None:
    while not condition():  # the test's own time limit ends it otherwise
        time.sleep(0.05)


@pytest.mark.parametrize("step", [*STEPS, *(pytest.param(step, marks=pytest.mark.slow) for step in MORE_STEPS)])
def test_a_worker_killed_at_any_step_leaves_a_whole_release_and_a_free_job(
    tiny: RunFolder, home: Path, redis_source: RedisSource, redis_client: redis.Redis, step: str
) -> None:
    root = home / "releases"
    before = publish_run(tiny, home, redis=redis_client).id
    write_records(redis_client, [PinRecord("n0", visual=(1.0, 2.0, 3.0, 4.0), boards=("b1",))])
    job = create_job(redis_client, "index")
    with doomed_worker(home, step, redis_source) as doomed:
        assert doomed.wait(120) == -signal.SIGKILL
    live = current(root)
    assert (live == before) is (step != "after set_current")
    assert live is not None
    open_release(root, live, verify=True).load()
    found = read_job(redis_client, job.id)
    assert found is not None
    assert found.state == "running", "nobody knows yet"
    redis_client.pexpire(keyspace.JOB_LEASE, 1)
    wait_for(lambda: expire_dead_job(redis_client) is not None)
    failed = read_job(redis_client, job.id)
    assert failed is not None
    assert (failed.state, failed.error) == ("failed", WORKER_DIED)
    # The next one is taken by another worker, succeeds, and nothing of the dead one is left.
    manifest = reindex(home, redis_client, "index", silent)
    assert open_release(root, manifest.id).pin_ids.lookup("n0") >= 0
    assert {path.name for path in root.iterdir() if path.is_dir()} == {live, manifest.id}
    assert not list((home / "reindex").iterdir())
    assert redis_client.smembers(keyspace.RELEASES) == {live.encode(), manifest.id.encode()}
    wanted = {name.encode() for name in (live, manifest.id)}
    held = {key.split(b":")[1].rstrip(b"}") for key in redis_client.scan_iter("{pinsage:*") if b"vectors" in key}
    assert held == wanted

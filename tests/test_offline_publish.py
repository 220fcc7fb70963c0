from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import redis
from tiny_run import CONFIG, NUM_PINS, make_run

from model import keyspace
from model.changes import PinRecord, write_records
from model.codecs import unpack_vector
from model.errors import PinsageError, UserError
from model.release import current, list_releases, open_release
from offline.release import publish, vectors_to_redis
from offline.release.index_stage import build_index
from offline.release.publish import publish_run
from offline.release.vectors_to_redis import write_vectors
from offline.run_folder import RunFolder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("tiny") / "run")


@pytest.fixture
def run(made: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy that a test may damage."""
    return RunFolder(Path(shutil.copytree(made.path, tmp_path / "run")))


def embed_as(run: RunFolder, vectors: np.ndarray) -> None:
    """Give the run these vectors, and an index of them."""
    np.save(run.embeddings, vectors.astype(np.float32))
    build_index(run, CONFIG.index, seed=1, num_threads=1)


def vector_keys(client: redis.Redis) -> list[bytes]:
    return sorted(key for key in client.scan_iter() if key.startswith(b"{pinsage:"))


def test_a_run_becomes_the_current_release_with_its_vectors(
    run: RunFolder, home: Path, redis_client: redis.Redis
) -> None:
    said: list[tuple[str, float]] = []
    manifest = publish_run(run, home, redis=redis_client, seq=5, progress=lambda *words: said.append(words))
    assert current(home / "releases") == manifest.id
    assert (manifest.seq, manifest.mode, manifest.parent, manifest.dataset) == (5, "publish", None, "/data/tiny")
    assert manifest.quality["index_recall"] > 0.98
    release = open_release(home / "releases", manifest.id)
    meta = redis_client.hgetall(keyspace.vectors_meta(manifest.id))
    assert meta == {b"dim": b"8", b"count": b"%d" % NUM_PINS, b"buckets": b"1", b"dtype": b"f4", b"state": b"complete"}
    stored = redis_client.hgetall(keyspace.vectors(manifest.id, 0))
    for row in range(NUM_PINS):
        np.testing.assert_array_equal(unpack_vector(stored[f"p{row}".encode()]), release.embeddings_PD[row])
    shares = [share for _, share in said]
    assert shares == sorted(shares)
    assert (shares[0], said[-1]) == (0.0, ("published", 1.0))


def test_an_emptied_redis_goes_on_above_every_release(run: RunFolder, home: Path, redis_client: redis.Redis) -> None:
    [seq] = write_records(redis_client, [PinRecord("a")])
    publish_run(run, home, redis=redis_client, seq=seq + 10**9)
    assert write_records(redis_client, [PinRecord("b")]) == [seq + 10**9 + 1]
    redis_client.flushall()
    publish_run(run, home, redis=redis_client, seq=seq)
    assert write_records(redis_client, [PinRecord("c")]) == [seq + 10**9 + 1]


def test_the_homes_own_redis_is_used_where_no_client_is_given(
    run: RunFolder, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PINSAGE_REDIS_URL", raising=False)
    manifest = publish_run(run, home)
    assert current(home / "releases") == manifest.id
    assert not (home / "redis" / "redis.sock").exists()
    assert any((home / "redis").rglob("*.aof"))


def test_the_last_two_releases_are_kept_and_the_changes_after_them(
    run: RunFolder, home: Path, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    trimmed: list[object] = []
    monkeypatch.setattr(type(redis_client), "xtrim", lambda self, name, **how: trimmed.append(how["minid"]))
    seqs = write_records(redis_client, [PinRecord(f"new{n}") for n in range(5)])
    manifests = [publish_run(run, home, redis=redis_client, seq=seq) for seq in seqs[:3]]
    assert [m.id for m in list_releases(home / "releases")] == [m.id for m in manifests[1:]]
    assert [m.parent for m in manifests[1:]] == [manifests[0].id, manifests[1].id]
    held = {key.split(b"}")[0] for key in vector_keys(redis_client)}
    assert held == {f"{{pinsage:{m.id}".encode() for m in manifests[1:]}
    assert trimmed == [f"{seqs[0]}-0", f"{seqs[0]}-0", f"{seqs[1]}-0"]


def test_many_buckets_hold_every_vector_once(redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors_to_redis, "CHUNK", 70)
    vectors = np.random.default_rng(0).normal(size=(2500, 4)).astype(np.float32)
    ids = [f"pin{row}" for row in range(2500)]
    write_vectors(redis_client, "r20260101-000000-0000", ids, vectors)
    assert len(vector_keys(redis_client)) == 3 + 1
    for row in (0, 1234, 2499):
        key = keyspace.vectors("r20260101-000000-0000", keyspace.bucket_of(ids[row], 3))
        np.testing.assert_array_equal(unpack_vector(redis_client.hget(key, ids[row])), vectors[row])


def test_large_releases_are_stored_in_half_precision(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors_to_redis, "FLOAT32_LIMIT", 100)
    vectors = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32) / 4
    write_vectors(redis_client, "r20260101-000000-0000", [str(row) for row in range(50)], vectors)
    packed = redis_client.hget(keyspace.vectors("r20260101-000000-0000", 0), "7")
    assert len(packed) == 8 + 2 * 4
    np.testing.assert_allclose(unpack_vector(packed), vectors[7], atol=1e-3)


# --- what does not pass changes nothing ------------------------------------------------------------------------


@pytest.fixture
def state(made: RunFolder, home: Path, redis_client: redis.Redis) -> tuple[str, set[str], list[bytes]]:
    """A first, good release, and how everything looks with it."""
    first = publish_run(made, home, redis=redis_client)
    return first.id, {path.name for path in (home / "releases").iterdir()}, vector_keys(redis_client)


def assert_unchanged(home: Path, client: redis.Redis, state: tuple[str, set[str], list[bytes]]) -> None:
    root = home / "releases"
    assert (current(root), {path.name for path in root.iterdir()}, vector_keys(client)) == state
    assert client.smembers(keyspace.RELEASES) == {state[0].encode()}


def damage(run: RunFolder, what: str) -> None:
    vectors = np.load(run.embeddings)
    if what == "collapsed":
        embed_as(run, np.repeat(vectors[:1], NUM_PINS, axis=0))
    elif what == "half alike":
        vectors[:50] = vectors[0]
        embed_as(run, vectors)
    elif what == "not finite":
        vectors[7, 1] = np.nan
        np.save(run.embeddings, vectors)
    elif what == "not unit":
        vectors[7] *= 1.1
        np.save(run.embeddings, vectors)
    elif what == "another index":
        embed_as(run, vectors[::-1])
        np.save(run.embeddings, vectors)
    elif what == "damaged index":
        (run.index / "index.bin").write_bytes(b"x")
    elif what == "a row short":
        np.save(run.messages(1), np.load(run.messages(1))[:-1])
    elif what == "no weights":
        run.weights.unlink()


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("collapsed", "collapsed"),
        ("half alike", "collapsed"),
        ("not finite", "row 7"),
        ("not unit", "row 7"),
        ("another index", "index does not fit"),
        ("damaged index", "index does not fit"),
        ("a row short", r"messages_1\.npy: 59 rows for 60 pins"),
        ("no weights", r"weights\.safetensors"),
    ],
)
def test_a_gate_names_its_reason_and_the_current_release_stays(
    run: RunFolder,
    home: Path,
    redis_client: redis.Redis,
    state: tuple[str, set[str], list[bytes]],
    what: str,
    words: str,
) -> None:
    damage(run, what)
    with pytest.raises(PinsageError, match=words):
        publish_run(run, home, redis=redis_client)
    assert_unchanged(home, redis_client, state)


def test_an_unfinished_run_is_a_users_mistake(tmp_path: Path, home: Path, redis_client: redis.Redis) -> None:
    with pytest.raises(UserError, match="not a finished run"):
        publish_run(RunFolder(tmp_path / "none"), home, redis=redis_client)
    assert not home.exists()


def test_an_index_of_poor_recall_is_refused(
    run: RunFolder,
    home: Path,
    redis_client: redis.Redis,
    state: tuple[str, set[str], list[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(publish, "recall", lambda *args, **more: 0.89)
    with pytest.raises(PinsageError, match=r"89\.0% of the true neighbours"):
        publish_run(run, home, redis=redis_client)
    assert_unchanged(home, redis_client, state)


def test_vectors_that_redis_lost_on_the_way_are_noticed(
    run: RunFolder,
    home: Path,
    redis_client: redis.Redis,
    state: tuple[str, set[str], list[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pack = vectors_to_redis.pack_vectors
    monkeypatch.setattr(vectors_to_redis, "pack_vectors", lambda vectors, dtype: pack(vectors[::-1], dtype))
    with pytest.raises(PinsageError, match="another vector"):
        publish_run(run, home, redis=redis_client)
    assert_unchanged(home, redis_client, state)


def test_redis_going_away_in_the_middle_changes_nothing(
    run: RunFolder,
    home: Path,
    redis_client: redis.Redis,
    state: tuple[str, set[str], list[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lose(*args: object) -> None:
        write_vectors(*args)  # type: ignore[arg-type]
        raise redis.ConnectionError("gone")

    monkeypatch.setattr(publish, "write_vectors", lose)
    with pytest.raises(PinsageError, match="gone"):
        publish_run(run, home, redis=redis_client)
    assert_unchanged(home, redis_client, state)


def test_whoever_watches_over_it_may_stop_it_before_the_flip(
    run: RunFolder, home: Path, redis_client: redis.Redis, state: tuple[str, set[str], list[bytes]]
) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish_run(run, home, redis=redis_client, before_flip=stop)
    assert_unchanged(home, redis_client, state)


def test_vectors_left_by_a_killed_publication_go_with_the_next(
    run: RunFolder, home: Path, redis_client: redis.Redis
) -> None:
    left = "r20200101-000000-0000"
    write_vectors(redis_client, left, ["a", "b"], np.eye(2, dtype=np.float32))
    redis_client.hset(keyspace.vectors_meta(left), "state", "writing")
    manifest = publish_run(run, home, redis=redis_client)
    assert redis_client.smembers(keyspace.RELEASES) == {manifest.id.encode()}
    assert all(manifest.id.encode() in key for key in vector_keys(redis_client))


def test_a_run_that_the_service_could_not_open_is_refused(
    run: RunFolder, tmp_path: Path, redis_client: redis.Redis
) -> None:
    # A run that an earlier version left: its encoder has a format that this one does not read.
    about = run.encoder / "encoder.json"
    about.write_text(about.read_text().replace('"format": ', '"format": 9'))
    with pytest.raises(PinsageError, match=r"encoder\.json: format 9"):
        publish_run(run, tmp_path / "home", redis=redis_client)
    assert current(tmp_path / "home" / "releases") is None
    assert list_releases(tmp_path / "home" / "releases") == []
    assert vector_keys(redis_client) == []

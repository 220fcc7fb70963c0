from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model import changes, keyspace
from model.changes import (
    Change,
    EdgeRecord,
    PinRecord,
    ensure_epoch,
    ensure_epoch_async,
    pack_record,
    read_changes,
    read_changes_async,
    unpack_entry,
    write_records,
    write_records_async,
)
from model.codecs import DamagedBytes
from model.redis_clients import async_client, sync_client
from model.redis_server import RedisSource


def stream(client: redis.Redis) -> list[Change]:
    return [unpack_entry(entry) for _, entry in client.xrange(keyspace.CHANGES)]


def test_one_write_is_in_state_log_and_stream(redis_client: redis.Redis) -> None:
    pin, edge = PinRecord("a", title="A", visual=(0.5,), boards=("x",)), EdgeRecord("x", "b", True)
    first, second = write_records(redis_client, [pin, edge])
    assert second == first + 1 == int(redis_client.get(keyspace.SEQ))
    written = list(read_changes(redis_client, 0))
    assert [record.seq for record in written] == [first, second]
    assert written[0] == PinRecord("a", title="A", visual=(0.5,), boards=("x",), seq=first)
    assert stream(redis_client) == written
    assert redis_client.xinfo_stream(keyspace.CHANGES)["last-generated-id"] == f"{second}-0".encode()


def test_the_last_word_about_a_thing_is_kept_and_the_stream_tells_all(redis_client: redis.Redis) -> None:
    write_records(redis_client, [PinRecord("a", title="one"), PinRecord("b")])
    write_records(redis_client, [PinRecord("a", title="two")])
    kept = list(read_changes(redis_client, 0))
    assert [(record.pin_id, getattr(record, "title", None)) for record in kept] == [("b", None), ("a", "two")]
    assert len(stream(redis_client)) == 3


def test_reading_goes_on_after_a_number_and_stops_at_one(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "_PAGE", {**changes._PAGE, "num": 3})
    seqs = write_records(redis_client, [PinRecord(f"p{number}") for number in range(10)])
    assert [record.seq for record in read_changes(redis_client, seqs[1])] == seqs[2:]
    assert [record.seq for record in read_changes(redis_client, seqs[1], up_to=seqs[7])] == seqs[2:8]
    assert list(read_changes(redis_client, seqs[-1])) == []


def test_a_snapshot_leaves_out_what_changed_later(redis_client: redis.Redis) -> None:
    seqs = write_records(redis_client, [PinRecord("a"), PinRecord("b")])
    reader = read_changes(redis_client, 0, up_to=seqs[1])
    write_records(redis_client, [PinRecord("a", title="later")])
    assert [record.pin_id for record in reader] == ["b"]  # whoever reads on from seqs[1] gets a
    assert [record.pin_id for record in read_changes(redis_client, seqs[1])] == ["a"]


def test_writers_of_many_clients_share_one_row_of_numbers(redis_source: RedisSource, redis_client: redis.Redis) -> None:
    def write(writer: int) -> list[int]:
        with sync_client(redis_source) as client:
            return [write_records(client, [PinRecord(f"{writer}-{n}")])[0] for n in range(25)]

    with ThreadPoolExecutor(4) as threads:
        seqs = sorted(seq for part in threads.map(write, range(4)) for seq in part)
    assert seqs == list(range(seqs[0], seqs[0] + 100))
    assert [record.seq for record in stream(redis_client)] == seqs


def test_async_writers_of_one_process_take_turns(redis_source: RedisSource, redis_client: redis.Redis) -> None:
    async def write() -> list[int]:
        async with async_client(redis_source) as client:
            numbers = await asyncio.gather(
                *(write_records_async(client, [PinRecord(f"p{n}"), EdgeRecord("b", f"p{n}", True)]) for n in range(60))
            )
            seen = [record.seq async for record in read_changes_async(client, 0)]
            assert seen == sorted(seen)
            return [seq for pair in numbers for seq in pair]

    seqs = asyncio.run(write())
    assert sorted(seqs) == list(range(seqs[0], seqs[0] + 120))
    assert [record.seq for record in stream(redis_client)] == seqs


@pytest.mark.parametrize("command", ["watch", "mget"])
def test_a_refused_command_leaves_no_answer_behind_for_the_next(
    redis_source: RedisSource, redis_client: redis.Redis, command: str
) -> None:
    async def write() -> None:
        async with async_client(redis_source) as client:
            redis_client.acl_setuser("default", commands=[f"-{command}"], keys=["*"], enabled=True)
            with pytest.raises(redis.exceptions.NoPermissionError, match=command):
                await write_records_async(client, [PinRecord("a")])
            redis_client.acl_setuser("default", commands=["+@all"], keys=["*"], enabled=True)
            assert [await client.echo(text) for text in ("one", "two")] == [b"one", b"two"]
            await write_records_async(client, [PinRecord("b")])

    try:
        asyncio.run(write())
    finally:
        redis_client.acl_setuser("default", commands=["+@all"], keys=["*"], enabled=True)
    assert [record.pin_id for record in read_changes(redis_client, 0)] == ["b"]


def test_a_write_over_a_connection_that_died_meanwhile_is_done_once(
    redis_source: RedisSource, redis_client: redis.Redis
) -> None:
    async def write() -> list[int]:
        async with async_client(redis_source) as client:
            first = await write_records_async(client, [PinRecord("a")])
            redis_client.client_kill_filter(_type="normal", skipme=True)
            return [*first, *await write_records_async(client, [PinRecord("b")])]

    first, second = asyncio.run(write())
    assert second == first + 1
    assert [record.pin_id for record in stream(redis_client)] == ["a", "b"]


def test_more_commands_go_into_the_same_transaction(redis_client: redis.Redis) -> None:
    write_records(redis_client, [PinRecord("a")], also=lambda pipe: pipe.set("more", 1))
    assert redis_client.get("more") == b"1"

    def fail(pipe: object) -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        write_records(redis_client, [PinRecord("b")], also=fail)
    assert [record.pin_id for record in read_changes(redis_client, 0)] == ["a"]


def test_numbers_do_not_come_again_when_redis_lost_everything(redis_client: redis.Redis) -> None:
    epoch = ensure_epoch(redis_client)
    assert ensure_epoch(redis_client) == epoch
    before = write_records(redis_client, [PinRecord("a")])[0]
    redis_client.flushall()
    time.sleep(0.005)  # a number a millisecond
    after = write_records(redis_client, [PinRecord("b")])[0]
    assert after > before
    assert redis_client.get(keyspace.EPOCH).decode() == ensure_epoch(redis_client) != epoch
    assert [record.pin_id for record in read_changes(redis_client, before)] == ["b"]


def test_a_database_that_is_behind_what_is_known_begins_a_new_life_above_it(redis_client: redis.Redis) -> None:
    epoch = ensure_epoch(redis_client)
    [seq] = write_records(redis_client, [PinRecord("a")])
    assert ensure_epoch(redis_client, after=seq) == epoch
    assert write_records(redis_client, [PinRecord("b")], after=seq) == [seq + 1]
    known = seq + 10**9  # ahead of the clock, too
    assert write_records(redis_client, [PinRecord("c")], after=known) == [known + 1]
    second = ensure_epoch(redis_client, after=known)
    assert second != epoch
    assert ensure_epoch(redis_client, after=known + 5) != second
    assert write_records(redis_client, [PinRecord("d")]) == [known + 6]
    assert [record.pin_id for record in read_changes(redis_client, 0)] == ["a", "b", "c", "d"]


def test_the_first_change_follows_the_number_that_the_epoch_was_made_with(redis_source: RedisSource) -> None:
    async def run() -> None:
        async with async_client(redis_source) as client:
            await ensure_epoch_async(client)
            start = int(await client.get(keyspace.SEQ))
            assert await write_records_async(client, [PinRecord("a")]) == [start + 1]

    asyncio.run(run())


def test_damaged_records_are_set_aside_and_the_others_read(redis_client: redis.Redis) -> None:
    write_records(redis_client, [PinRecord(name) for name in "abcd"])
    redis_client.hset(keyspace.STATE, keyspace.pin_key("a"), b"junk")
    redis_client.hset(keyspace.STATE, keyspace.pin_key("b"), pack_record(PinRecord("c")))
    redis_client.hdel(keyspace.STATE, keyspace.pin_key("c"))
    damaged: list[str] = []
    good = list(read_changes(redis_client, 0, on_damage=lambda key, error: damaged.append(key)))
    assert [record.pin_id for record in good] == ["d"]
    assert damaged == ["p/a", "p/b", "p/c"]
    with pytest.raises(DamagedBytes):
        list(read_changes(redis_client, 0))


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {b"seq": b"1", b"key": b"p/a"},
        {b"seq": b"1", b"key": b"p/a", b"record": b"junk"},
        {b"seq": b"x", b"key": b"p/a", b"record": pack_record(PinRecord("a", seq=1))},
        {b"seq": b"2", b"key": b"p/a", b"record": pack_record(PinRecord("a", seq=1))},
    ],
)
def test_a_damaged_entry_of_the_stream_is_refused(entry: dict[bytes, bytes]) -> None:
    with pytest.raises(DamagedBytes):
        unpack_entry(entry)


RECORDS = st.one_of(
    st.builds(PinRecord, st.sampled_from("abc"), boards=st.lists(st.sampled_from("xy"), unique=True).map(tuple)),
    st.builds(PinRecord, st.sampled_from("abc"), deleted=st.just(True)),
    st.builds(EdgeRecord, st.sampled_from("xy"), st.sampled_from("abc"), st.booleans()),
)


def apply(records: list[Change]) -> dict[str, set[str]]:
    """The catalogue as the module's docstring says: pin -> its boards."""
    pins: dict[str, set[str]] = {"a": {"x"}, "b": set()}  # a base of two pins
    for record in records:
        if isinstance(record, EdgeRecord):
            if record.pin_id in pins:
                (pins[record.pin_id].add if record.present else pins[record.pin_id].discard)(record.board_id)
        elif record.deleted:
            pins.pop(record.pin_id, None)
        else:
            pins[record.pin_id] = set(record.boards)
    return pins


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(RECORDS, min_size=1, max_size=4), max_size=8))
def test_the_kept_changes_lead_where_all_changes_lead(redis_client: redis.Redis, batches: list[list[Change]]) -> None:
    redis_client.flushall()
    for batch in batches:
        write_records(redis_client, batch)
    everything = [record for batch in batches for record in batch]
    assert apply(list(read_changes(redis_client, 0))) == apply(everything)

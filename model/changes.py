"""The change log: what was put online since a release, and how it is written to and read from Redis.

A change is a whole statement about one thing, a pin or one membership of a board, so that the last one about a thing
says everything: STATE keeps just that one, LOG orders them by number, and the stream CHANGES tells other replicas.
Whoever applies changes in the order of their numbers arrives at the same catalogue:

    PinRecord    replaces the pin whole, content and list of boards; `deleted` removes it
    EdgeRecord   adds or removes one membership; without effect when the pin is unknown or deleted

Numbers grow by one with every change. The first number of a new database is the time in milliseconds, so that numbers
do not come again after Redis has lost everything, and "every change above the release's number" stays right. The same
holds for a database that was restored to an older state than a writer knows of: it goes on above what is known, in a
new life (EPOCH).
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from redis import Redis, RedisError, WatchError
from redis.asyncio import Redis as AsyncRedis

from model import keyspace
from model.codecs import DamagedBytes, pack_json, unpack_json
from model.redis_clients import watch_and_read

MAX_TRIES = 100
CHUNK = 1_000


@dataclass(frozen=True)
class PinRecord:
    """A pin as a client put it; `seq` is given when it is written."""

    pin_id: str
    title: str | None = None
    annotations: tuple[str, ...] = ()
    description: str | None = None
    image_url: str | None = None
    visual: tuple[float, ...] | None = None
    category: str | None = None
    language: str | None = None
    boards: tuple[str, ...] = ()
    created_at: int | None = None
    deleted: bool = False
    seq: int = 0

    @property
    def key(self) -> str:
        return keyspace.pin_key(self.pin_id)


@dataclass(frozen=True)
class EdgeRecord:
    """Whether a pin is on a board; `seq` is given when it is written."""

    board_id: str
    pin_id: str
    present: bool
    seq: int = 0

    @property
    def key(self) -> str:
        return keyspace.edge_key(self.board_id, self.pin_id)


Change = PinRecord | EdgeRecord
OnDamage = Callable[[str, DamagedBytes], None]
Plan = Callable[[Sequence[bytes | None]], tuple[Sequence[Change], Callable[[Any], None] | None]]

_KINDS: dict[str, type[PinRecord] | type[EdgeRecord]] = {"pin": PinRecord, "edge": EdgeRecord}
_TEXTS = ("title", "description", "image_url", "category", "language")


def pack_record(record: Change) -> bytes:
    """A change as bytes."""
    kind = "pin" if isinstance(record, PinRecord) else "edge"
    return pack_json({"kind": kind, **vars(record)})


def unpack_record(packed: bytes) -> Change:
    """The change in some bytes; DamagedBytes when they do not hold exactly the fields of one, well typed."""
    value = unpack_json(packed)
    kind = _KINDS.get(str(value.pop("kind", None)))
    if kind is None or value.keys() != {field.name for field in dataclasses.fields(kind)}:
        raise DamagedBytes("a record has not the fields of a pin or of an edge")
    good = _is_pin(value) if kind is PinRecord else _is_edge(value)
    if not good:
        raise DamagedBytes("a record has a field of the wrong type")
    for name in ("annotations", "boards", "visual"):
        if value.get(name) is not None:
            value[name] = tuple(value[name])
    return kind(**value)


def _is_pin(value: Mapping[str, Any]) -> bool:
    lists = (value["annotations"], value["boards"])
    visual = value["visual"]
    return (
        isinstance(value["pin_id"], str)
        and all(value[name] is None or isinstance(value[name], str) for name in _TEXTS)
        and all(isinstance(texts, list) and all(isinstance(text, str) for text in texts) for texts in lists)
        and (visual is None or (isinstance(visual, list) and all(type(x) in (int, float) for x in visual)))
        and (value["created_at"] is None or type(value["created_at"]) is int)
        and type(value["deleted"]) is bool
        and type(value["seq"]) is int
    )


def _is_edge(value: Mapping[str, Any]) -> bool:
    ids = isinstance(value["board_id"], str) and isinstance(value["pin_id"], str)
    return ids and type(value["present"]) is bool and type(value["seq"]) is int


# --- writing ---------------------------------------------------------------------------------------------------


def ensure_epoch(client: Redis, *, after: int = 0) -> str:
    """The id of this life of the database, made here when there is none; numbers go on above `after`.

    after  what the caller knows to be taken, such as the number of a release. A database that is behind it was emptied
           or restored: it begins a new life, so that whoever follows it reads it anew, and no number comes again.
    """
    epoch: bytes = _transact(client, lambda pipe, last: _queue_epoch(pipe, last, after))[-1]
    return epoch.decode()


async def ensure_epoch_async(client: AsyncRedis, *, after: int = 0) -> str:
    """As `ensure_epoch`."""
    answers = await _transact_async(client, (), lambda pipe, values: _queue_epoch(pipe, values[0], after))
    epoch: bytes = answers[-1]
    return epoch.decode()


def write_records(
    client: Redis, records: Sequence[Change], *, also: Callable[[Any], None] | None = None, after: int = 0
) -> list[int]:
    """Write changes in one MULTI and return their numbers; `also` may queue more commands into it.

    Numbers are above `after` (see `ensure_epoch`). They are given under WATCH, so writers of several processes take
    turns; WatchError after MAX_TRIES lost turns.
    """
    numbered: list[Change] = []

    def queue(pipe: Any, last: Any) -> None:
        numbered[:] = _queue_records(pipe, records, _follow(pipe, last, after), also)

    _transact(client, queue)
    return [record.seq for record in numbered]


async def write_records_async(
    client: AsyncRedis, records: Sequence[Change], *, also: Callable[[Any], None] | None = None, after: int = 0
) -> list[int]:
    """As `write_records`."""
    written = await write_planned_async(client, (), lambda _: (records, also), after=after)
    return [record.seq for record in written]


async def write_planned_async(client: AsyncRedis, watch: Sequence[str], plan: Plan, *, after: int = 0) -> list[Change]:
    """As `write_records`, where what is written depends on what some keys hold; returns the changes with their numbers.

    `plan` is given the values of the keys, and planned again when one of them changed before we wrote.
    """
    numbered: list[Change] = []

    def queue(pipe: Any, values: Sequence[Any]) -> None:
        records, also = plan(values[1:])
        numbered[:] = _queue_records(pipe, records, _follow(pipe, values[0], after), also)

    await _transact_async(client, watch, queue)
    return numbered


def _transact(client: Redis, queue: Callable[[Any, Any], None]) -> list[Any]:
    """Run in one MULTI what `queue` makes of the last number, again when another was first; the answers.

    Raises RedisError where the connection is lost, and then nobody knows whether it is done.
    """
    pipe: Any
    for _ in range(MAX_TRIES):
        with client.pipeline(transaction=True) as pipe:
            try:
                pipe.watch(keyspace.SEQ)
                last = pipe.get(keyspace.SEQ)
                pipe.multi()
                queue(pipe, last)
                answers: list[Any] = pipe.execute()
                return answers
            except WatchError as error:
                _raise_if_lost(error)
    raise WatchError(f"other writers were first {MAX_TRIES} times")


# Writers of one process queue here instead of losing turns to each other.
_turns: WeakKeyDictionary[AsyncRedis, asyncio.Lock] = WeakKeyDictionary()


async def _transact_async(
    client: AsyncRedis, watch: Sequence[str], queue: Callable[[Any, Sequence[Any]], None]
) -> list[Any]:
    """As `_transact`; `queue` is given the last number and the values of the keys to watch."""
    pipe: Any
    async with _turns.setdefault(client, asyncio.Lock()):
        for _ in range(MAX_TRIES):
            async with client.pipeline(transaction=True) as pipe:
                try:
                    values = await watch_and_read(pipe, (keyspace.SEQ, *watch))
                    pipe.multi()
                    queue(pipe, values)
                    answers: list[Any] = await pipe.execute()
                    return answers
                except WatchError as error:
                    _raise_if_lost(error)
    raise WatchError(f"other writers were first {MAX_TRIES} times")


def _raise_if_lost(error: WatchError) -> None:
    """redis-py calls a connection lost at EXEC a lost turn, too; Redis may have done it, and again would be twice."""
    if isinstance(error.__context__, RedisError):
        raise error.__context__ from None


def _queue_epoch(pipe: Any, last: Any, after: int) -> None:
    _follow(pipe, last, after)
    pipe.get(keyspace.EPOCH)


def _follow(pipe: Any, last: Any, after: int) -> int:
    """The number that new ones follow; queues the beginning of a new life where the database is behind `after`."""
    if last is not None and int(last) >= after:
        pipe.set(keyspace.EPOCH, uuid.uuid4().hex, nx=True)
        return int(last)
    first = max(time.time_ns() // 1_000_000, after)
    pipe.set(keyspace.EPOCH, uuid.uuid4().hex)
    pipe.set(keyspace.SEQ, first)
    return first


def _queue_records(
    pipe: Any, records: Sequence[Change], after: int, also: Callable[[Any], None] | None
) -> list[Change]:
    """Queue everything that one write consists of; the changes with their numbers."""
    numbered = [dataclasses.replace(record, seq=after + i) for i, record in enumerate(records, 1)]
    for record in numbered:
        packed = pack_record(record)
        pipe.hset(keyspace.STATE, record.key, packed)
        pipe.zadd(keyspace.LOG, {record.key: record.seq})
        entry = {"seq": record.seq, "key": record.key, "record": packed}
        pipe.xadd(keyspace.CHANGES, entry, id=f"{record.seq}-0", maxlen=keyspace.MAX_CHANGES)
    if numbered:
        pipe.set(keyspace.SEQ, numbered[-1].seq)
    if also is not None:
        also(pipe)
    return numbered


# --- reading ---------------------------------------------------------------------------------------------------

_PAGE: dict[str, Any] = {"byscore": True, "offset": 0, "num": CHUNK, "withscores": True}


def unpack_entry(entry: Mapping[bytes, bytes]) -> Change:
    """The change in one entry of the stream; DamagedBytes when it is not whole."""
    try:
        record = unpack_record(entry[b"record"])
        agrees = int(entry[b"seq"]) == record.seq
    except (KeyError, ValueError) as error:
        raise DamagedBytes(f"an entry of the change stream is damaged: {error}") from None
    if not agrees:
        raise DamagedBytes("an entry of the change stream has two numbers")
    return record


def read_changes(
    client: Redis, after: int, *, up_to: int | None = None, on_damage: OnDamage | None = None
) -> Iterator[Change]:
    """The last change of each thing with number in (after, up_to], by number.

    A thing that changes while we read may come a second time with its newer number. A damaged record is given to
    `on_damage` with its key, or raised when there is no such function.
    """
    last = "+inf" if up_to is None else str(up_to)
    while True:
        page: Any = client.zrange(keyspace.LOG, f"({after}", last, **_PAGE)
        if not page:
            return
        packed: Any = client.hmget(keyspace.STATE, [key for key, _ in page])
        yield from _decode_page(page, packed, up_to, on_damage)
        after = int(page[-1][1])


async def read_changes_async(
    client: AsyncRedis, after: int, *, up_to: int | None = None, on_damage: OnDamage | None = None
) -> AsyncIterator[Change]:
    """As `read_changes`."""
    last = "+inf" if up_to is None else str(up_to)
    while True:
        page: Any = await client.zrange(keyspace.LOG, f"({after}", last, **_PAGE)
        if not page:
            return
        packed: Any = await client.hmget(keyspace.STATE, [key for key, _ in page])
        for change in _decode_page(page, packed, up_to, on_damage):
            yield change
        after = int(page[-1][1])


def _decode_page(
    page: Sequence[Any], packed: Sequence[bytes | None], up_to: int | None, on_damage: OnDamage | None
) -> Iterator[Change]:
    for (key, _), data in zip(page, packed, strict=True):
        try:
            if data is None:
                raise DamagedBytes("the log names a record that is not there")
            record = unpack_record(data)
            if record.key.encode() != key:
                raise DamagedBytes("a record lies under another's key")
        except DamagedBytes as error:
            if on_damage is None:
                raise
            on_damage(key.decode(errors="replace"), error)
            continue
        # Written again after `up_to` was chosen: whoever reads on from there gets it.
        if up_to is None or record.seq <= up_to:
            yield record

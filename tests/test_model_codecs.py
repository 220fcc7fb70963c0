from __future__ import annotations

import dataclasses
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from model.changes import Change, EdgeRecord, PinRecord, pack_record, unpack_record
from model.codecs import DamagedBytes, pack_json, pack_vector, pack_vectors, unpack_json, unpack_vector

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
OPTIONAL = st.none() | TEXT
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
PINS = st.builds(
    PinRecord,
    pin_id=TEXT,
    title=OPTIONAL,
    annotations=st.lists(TEXT, max_size=4).map(tuple),
    description=OPTIONAL,
    image_url=OPTIONAL,
    visual=st.none() | st.lists(NUMBERS, max_size=4).map(tuple),
    category=OPTIONAL,
    language=OPTIONAL,
    boards=st.lists(TEXT, max_size=4).map(tuple),
    created_at=st.none() | st.integers(0, 2**53),
    deleted=st.booleans(),
    seq=st.integers(0, 2**53),
)
EDGES = st.builds(EdgeRecord, board_id=TEXT, pin_id=TEXT, present=st.booleans(), seq=st.integers(0, 2**53))
VECTORS = arrays(np.float32, st.integers(1, 40), elements=st.floats(-(2.0**99), 2.0**99, width=32))


@given(VECTORS)
def test_a_vector_comes_back_bit_for_bit(vector_D: np.ndarray) -> None:
    assert unpack_vector(pack_vector(vector_D)).tobytes() == vector_D.tobytes()


def test_half_precision_rounds_to_float16_and_takes_half_the_room() -> None:
    vector_D = np.linspace(-1, 1, 64, dtype=np.float32)
    packed = pack_vector(vector_D, "f2")
    assert len(packed) == 8 + 2 * 64
    np.testing.assert_array_equal(unpack_vector(packed), vector_D.astype(np.float16).astype(np.float32))


def test_the_layout_of_a_vector_is_fixed() -> None:
    """Worked by hand: version 1, float32, two numbers, crc32 of their eight bytes."""
    assert pack_vector(np.array([1.0, -2.0], np.float32)).hex() == "01000200562687c30000803f000000c0"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_only_finite_vectors_are_packed(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        pack_vectors(np.array([[0.0, 1.0], [bad, 0.0]]))


def test_a_number_too_large_for_half_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite in f2"):
        pack_vector(np.array([1e6]), "f2")


@given(VECTORS, st.data())
def test_any_changed_byte_of_a_vector_is_noticed(vector_D: np.ndarray, data: st.DataObject) -> None:
    packed = bytearray(pack_vector(vector_D))
    place = data.draw(st.integers(0, len(packed) - 1))
    packed[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DamagedBytes):
        unpack_vector(bytes(packed))


@given(st.binary(max_size=64))
def test_random_bytes_are_no_vector_and_no_record(junk: bytes) -> None:
    with pytest.raises(DamagedBytes):
        unpack_vector(junk)
    with pytest.raises(DamagedBytes):
        unpack_record(junk)


def test_numbers_that_are_not_finite_are_refused_even_with_a_good_checksum() -> None:
    good = pack_vector(np.array([1.0], np.float32))
    evil = np.array([np.nan], np.float32).tobytes()
    with pytest.raises(DamagedBytes, match="not finite"):
        unpack_vector(good[:4] + struct.pack("<I", zlib.crc32(evil)) + evil)


@given(PINS | EDGES)
def test_a_record_comes_back_equal(record: Change) -> None:
    assert unpack_record(pack_record(record)) == record


@given(PINS | EDGES, st.data())
def test_any_changed_byte_of_a_record_is_noticed(record: Change, data: st.DataObject) -> None:
    packed = bytearray(pack_record(record))
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DamagedBytes):
        unpack_record(bytes(packed))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pin_id", 3),
        ("title", 3),
        ("annotations", ["a", None]),
        ("boards", "b"),
        ("visual", [1.0, None]),
        ("visual", [True]),
        ("created_at", 1.5),
        ("deleted", 0),
        ("seq", "1"),
        ("kind", "board"),
        ("more", 1),
    ],
)
def test_a_record_with_a_field_of_the_wrong_type_is_refused(name: str, value: object) -> None:
    fields = {"kind": "pin", **dataclasses.asdict(PinRecord("a"))}
    assert unpack_record(pack_json(fields)) == PinRecord("a")
    with pytest.raises(DamagedBytes):
        unpack_record(pack_json({**fields, name: value}))


def test_a_record_is_a_json_object() -> None:
    for data in (b"[]", b"{", b"null"):
        with pytest.raises(DamagedBytes):
            unpack_json(struct.pack("<BI", 1, zlib.crc32(data)) + data)

"""Ids to rows and back: against a plain dict, with hashes forced to collide, and with damaged files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import model.ids
from model.errors import ReleaseError, UserError
from model.ids import IdTable

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
UNIQUE_IDS = st.lists(TEXT, unique=True, max_size=40)


@given(ids=UNIQUE_IDS, others=st.lists(TEXT, max_size=10), cut=st.integers(0, 40))
def test_every_lookup_agrees_with_a_dict(ids: list[str], others: list[str], cut: int) -> None:
    rows = {id: row for row, id in enumerate(ids)}
    chunks = [pa.array(ids[:cut], pa.string()), pa.array(ids[cut:], pa.string())]
    table = IdTable.build(pa.chunked_array(chunks))
    queries = others + ids[::-1]
    expected = [rows.get(id, -1) for id in queries]
    assert [table.lookup(id) for id in queries] == expected
    assert table.lookup_many(queries).tolist() == expected
    assert [id in table for id in queries] == [id in rows for id in queries]
    assert table.ids_of(range(len(ids))) == [table.id_of(row) for row in range(len(ids))] == ids
    assert len(table) == len(ids)


def one_of_few(id: str) -> bytes:
    """Almost all ids collide; the largest hash is the end of the range."""
    return (2**64 - 1 - len(id) % 3).to_bytes(8, "little")


@pytest.fixture
def colliding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.ids, "_digest", one_of_few)


@pytest.mark.usefixtures("colliding")
def test_ids_of_equal_hash_are_told_apart() -> None:
    ids = [f"{'x' * (i % 7)}{i}" for i in range(100)]
    table = IdTable.build(ids)
    assert len(np.unique(table.hashes_N)) == 3
    assert table.lookup_many([*ids, "absent", ""]).tolist() == [*range(100), -1, -1]
    assert [table.lookup(id) for id in [*ids, "absent", ""]] == [*range(100), -1, -1]


@pytest.mark.usefixtures("colliding")
def test_an_id_that_occurs_twice_is_named_with_both_rows() -> None:
    with pytest.raises(UserError, match="'b' occurs twice, in rows 1 and 3"):
        IdTable.build(["a", "b", "c", "b"])


def test_missing_ids_are_refused() -> None:
    with pytest.raises(UserError, match="1 of 2 ids are missing"):
        IdTable.build(pa.array(["a", None]))


def test_text_that_no_column_can_hold_is_just_not_found() -> None:
    table = IdTable.build(["a"])
    assert table.lookup("\ud800") == -1
    assert table.lookup_many(["\ud800", "a"]).tolist() == [-1, 0]


@pytest.mark.parametrize("row", [-1, 3])
def test_a_row_outside_the_table_is_an_error(row: int) -> None:
    table = IdTable.build(["a", "b", "c"])
    with pytest.raises(IndexError, match=f"{row}"):
        table.id_of(row)
    with pytest.raises(IndexError, match=f"{row}"):
        table.ids_of([0, row])


@pytest.mark.parametrize("type", [pa.string(), pa.large_string(), pa.string_view()])
def test_a_saved_table_opens_over_any_kind_of_string_column(tmp_path: Path, type: pa.DataType) -> None:
    ids = [f"pin-{i}" for i in range(50)]
    IdTable.build(ids).save(tmp_path, "pins")
    table = IdTable.load(tmp_path, "pins", pa.chunked_array([pa.array(ids[:20], type), pa.array(ids[20:], type)]))
    assert table.lookup_many(["pin-49", "pin-0", "pin-50"]).tolist() == [49, 0, -1]


def test_an_empty_table_saves_and_opens(tmp_path: Path) -> None:
    IdTable.build([]).save(tmp_path, "pins")
    table = IdTable.load(tmp_path, "pins", pa.chunked_array([], pa.string()))
    assert table.lookup("a") == -1
    assert table.lookup_many(["a"]).tolist() == [-1]


def damage_missing(folder: Path) -> None:
    (folder / "pins_hashes.npy").unlink()


def damage_cut(folder: Path) -> None:
    whole = (folder / "pins_hashes.npy").read_bytes()
    (folder / "pins_hashes.npy").write_bytes(whole[:-3])


def damage_order(folder: Path) -> None:
    np.save(folder / "pins_hashes.npy", np.load(folder / "pins_hashes.npy")[::-1].copy())


def damage_length(folder: Path) -> None:
    np.save(folder / "pins_rows.npy", np.zeros(2, np.int32))


def damage_range(folder: Path) -> None:
    np.save(folder / "pins_rows.npy", np.array([0, 1, 3], np.int32))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (damage_missing, "pins_hashes.npy"),
        (damage_cut, "pins_hashes.npy"),
        (damage_order, "pins_hashes.npy"),
        (damage_length, "pins_rows.npy"),
        (damage_range, "pins_rows.npy"),
    ],
)
def test_damage_is_found_when_opening_and_names_the_file(tmp_path: Path, damage, named: str) -> None:
    ids = pa.array(["a", "b", "c"])
    IdTable.build(ids).save(tmp_path, "pins")
    damage(tmp_path)
    with pytest.raises(ReleaseError, match=named):
        IdTable.load(tmp_path, "pins", ids)

"""A feature encoder on disk: what `prepare` writes, a release carries and the service maps into memory.

encoder.json         format version, and the width of each group it has
encoder.safetensors  weights and tables, all but the boards' table
vocabulary.arrow     column `token`, in the order of the tables
boards.npy           the boards' table, float16, memory-mapped
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from model.errors import ReleaseError
from model.feature_groups import DegreeScale, Group, PooledTable, PopularityScale, VisualScale
from model.files import writing

ENCODER_FORMAT = 3
TABLES = ("text", "annotations", "boards")

Arrays = dict[str, np.ndarray[Any, Any]]


def save_groups(folder: Path, vocabulary: Mapping[str, int], groups: Mapping[str, Group]) -> None:
    """Write an encoder's files; boards.npy only where there is a board group."""
    folder.mkdir(parents=True, exist_ok=True)
    widths = {name: group.dim for name, group in groups.items()}
    about = {"format": ENCODER_FORMAT, "groups": widths, "num_tokens": len(vocabulary)}
    (folder / "encoder.json").write_text(json.dumps(about, indent=1) + "\n")
    _write_tokens(folder / "vocabulary.arrow", sorted(vocabulary, key=vocabulary.__getitem__))
    arrays: Arrays = {}
    for name, group in groups.items():
        arrays |= {f"{name}.{part}": array for part, array in _parts(group).items()}
    boards = arrays.pop("boards.table", None)
    if boards is not None:
        np.save(folder / "boards.npy", boards)
    path = folder / "encoder.safetensors"
    with writing(path):
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)


def load_groups(folder: Path) -> tuple[dict[str, int], dict[str, Group]]:
    """Read an encoder's files. Raises ReleaseError naming the one that is missing, damaged or of another format."""
    about = _read_about(folder / "encoder.json")
    tokens = _read_tokens(folder / "vocabulary.arrow")
    if len(tokens) != about["num_tokens"]:
        raise ReleaseError(f"{folder / 'vocabulary.arrow'}: {len(tokens)} tokens, want {about['num_tokens']}")
    arrays = _read_arrays(folder / "encoder.safetensors")
    if "boards" in about["groups"]:
        arrays["boards.table"] = _map_boards(folder / "boards.npy")
    groups = {}
    for name, width in about["groups"].items():
        try:
            groups[name] = _rebuild(name, arrays)
            _check(name, groups[name], width, len(tokens))
        except (KeyError, TypeError, ValueError) as error:
            raise ReleaseError(f"{folder / 'encoder.safetensors'}: group {name}: {error}") from error
    return {token: row for row, token in enumerate(tokens)}, groups


def _parts(group: Group) -> Arrays:
    """The arrays of one group."""
    if isinstance(group, PooledTable):
        return {"weights": group.weights_R, "table": group.table_RD}
    if isinstance(group, DegreeScale):
        return {"scale": np.array([group.mean, group.deviation])}
    if isinstance(group, PopularityScale):
        return {"scale": np.array([group.most_degree, group.most_asked, group.mean_share])}
    parts: Arrays = {"mean": group.mean_V, "deviation": group.deviation_V}
    return parts if group.components_VD is None else parts | {"components": group.components_VD}


def _rebuild(name: str, arrays: Arrays) -> Group:
    """The reverse of `_parts`."""
    if name == "degree":
        return DegreeScale(*arrays["degree.scale"].tolist())
    if name == "popularity":
        return PopularityScale(*arrays["popularity.scale"].tolist())
    if name == "visual":
        return VisualScale(arrays["visual.mean"], arrays["visual.deviation"], arrays.get("visual.components"))
    if name in TABLES:
        return PooledTable(arrays[f"{name}.weights"], arrays[f"{name}.table"])
    raise ValueError("not a group that this program knows")


def _check(name: str, group: Group, width: int, num_tokens: int) -> None:
    """Raise ValueError unless shapes and types fit each other and what is small is finite."""
    parts = _parts(group)
    if isinstance(group, PooledTable):
        num_rows = len(group.weights_R) if name == "boards" else num_tokens
        want = {"weights": (num_rows,), "table": (num_rows, width)}
        if group.table_RD.dtype != np.float16:
            raise ValueError(f"its table is {group.table_RD.dtype}, want float16")
        parts.pop("table")  # may be larger than memory; its bytes are covered by the release's checksums
    elif isinstance(group, VisualScale):
        raw = len(group.mean_V)
        want = {"mean": (raw,), "deviation": (raw,), "components": (raw, width)}
    else:
        want = {"scale": (3,) if name == "popularity" else (2,)}
    for part, array in _parts(group).items():
        if array.shape != want[part]:
            raise ValueError(f"{part} is of shape {array.shape}, want {want[part]}")
    for part, array in parts.items():
        if not np.isfinite(array).all() or (part == "deviation" and not (array > 0).all()):
            raise ValueError(f"{part} has numbers that cannot be")


def _read_about(path: Path) -> dict[str, Any]:
    try:
        about: dict[str, Any] = json.loads(path.read_text())
        found, _ = about["format"], (about["num_tokens"], about["groups"].items())
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ReleaseError(f"{path}: {error}") from error
    if found != ENCODER_FORMAT:
        raise ReleaseError(f"{path}: format {found}, this program reads {ENCODER_FORMAT}")
    return about


def _read_arrays(path: Path) -> Arrays:
    try:
        arrays: Arrays = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ReleaseError(f"{path}: {error}") from error
    return arrays


def _map_boards(path: Path) -> np.ndarray[Any, Any]:
    try:
        table: np.ndarray[Any, Any] = np.asarray(np.load(path, mmap_mode="r"))
    except (OSError, ValueError, EOFError) as error:
        raise ReleaseError(f"{path}: {error}") from error
    return table


def _write_tokens(path: Path, tokens: list[str]) -> None:
    table = pa.table({"token": pa.array(tokens, pa.string())})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _read_tokens(path: Path) -> list[str]:
    try:
        with pa.memory_map(str(path)) as source:
            tokens: list[str] = pa.ipc.open_file(source).read_all().column("token").to_pylist()
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise ReleaseError(f"{path}: {error}") from error
    return tokens

"""Embeddings and their ids in files that other programs read."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model.errors import UserError
from offline.run_folder import RunFolder

ROWS_PER_GROUP = 65_536


def export_embeddings(run: RunFolder, out: Path) -> str:
    """Write the run's embeddings as .npy (ids beside it, one a line) or .parquet (pin_id, embedding); says what.

    Raises UserError for a run without embeddings or an ending of another kind.
    """
    if not run.embeddings.exists():
        raise UserError(f"{run.embeddings}: not there yet; make it with: pinsage embed {run.path}")
    vectors_PD = np.load(run.embeddings, mmap_mode="r")
    if out.suffix == ".npy":
        shutil.copyfile(run.embeddings, out)
        shutil.copyfile(run.pin_ids, out.with_suffix(".txt"))
        return f"{out} and {out.with_suffix('.txt')}: {len(vectors_PD)} embeddings of {vectors_PD.shape[1]} dimensions"
    if out.suffix != ".parquet":
        raise UserError(f"{out}: can write .npy or .parquet, not {out.suffix or 'a file without ending'}")
    ids = run.pin_ids.read_text().splitlines()
    width = vectors_PD.shape[1]
    schema = pa.schema([("pin_id", pa.string()), ("embedding", pa.list_(pa.float32(), width))])
    with pq.ParquetWriter(out, schema) as writer:
        for start in range(0, len(ids), ROWS_PER_GROUP):
            part = np.asarray(vectors_PD[start : start + ROWS_PER_GROUP]).ravel()
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(part), width)
            writer.write_table(pa.table([pa.array(ids[start : start + ROWS_PER_GROUP]), vectors], schema=schema))
    return f"{out}: {len(ids)} embeddings of {width} dimensions"

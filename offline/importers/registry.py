"""Which formats can be imported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from model.errors import UserError
from offline.data.dataset_writer import ImportSummary
from offline.importers.citeulike import import_citeulike
from offline.importers.csv import import_csv
from offline.importers.movietweetings import import_movietweetings

Importer = Callable[[Path, Path], ImportSummary]
IMPORTERS: dict[str, Importer] = {
    "citeulike": import_citeulike,
    "movietweetings": import_movietweetings,
    "csv": import_csv,
}


def import_dataset(format: str, source: Path, out: Path) -> ImportSummary:
    """Turn a publisher's files into the data set `out`.

    Raises UserError for a format that is none or an `out` that is there already, DatasetError for faults of the files.
    """
    if format not in IMPORTERS:
        raise UserError(f'no importer is called "{format}"; there are {", ".join(IMPORTERS)}')
    if not source.exists():
        raise UserError(f"{source}: is not there")
    return IMPORTERS[format](source, out)

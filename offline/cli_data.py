"""The commands about data sets: generate, import, validate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from model.errors import UserError
from offline.cli_options import DatasetPath, JsonOption
from offline.progress import show_progress

data_app = typer.Typer()


@data_app.command()
def generate(
    out: Annotated[Path, typer.Argument(help="folder to write", show_default=False)],
    pins: Annotated[int, typer.Option(help="number of pins", min=100)] = 5000,
    seed: Annotated[int, typer.Option(help="same seed, same world")] = 1,
    images: Annotated[bool, typer.Option(help="draw a picture per pin")] = True,
) -> None:
    """Make a synthetic world: topics, boards that mix them, sessions, drawn pictures."""
    from offline.world.synthetic import generate_world

    with show_progress("generate") as report:
        generate_world(out, num_pins=pins, seed=seed, images=images, progress=report)


@data_app.command("import")
def import_(
    format: Annotated[str, typer.Argument(help="citeulike, movietweetings or csv", show_default=False)],
    source: Annotated[Path, typer.Argument(help="the publisher's folder, or the CSV file", show_default=False)],
    out: Annotated[Path, typer.Argument(help="data set folder to write", show_default=False)],
    items: Annotated[Path | None, typer.Option(help="csv only: a second file with one item a line")] = None,
    column: Annotated[list[str] | None, typer.Option(help="csv only: our column=theirs, as often as wanted")] = None,
) -> None:
    """Turn a publisher's files into a data set."""
    from offline.importers.csv import import_csv
    from offline.importers.registry import import_dataset

    if format == "csv":
        summary = import_csv(source, out, items=items, columns=_column_names(column or []))
    elif items or column:
        raise UserError("--items and --column go with the format csv only")
    else:
        summary = import_dataset(format, source, out)
    print(f"{out}: {summary}")


def _column_names(assignments: list[str]) -> dict[str, str]:
    wrong = next((text for text in assignments if not all(text.partition("="))), None)
    if wrong is not None:
        raise UserError(f"--column {wrong}: want ours=theirs, like --column pin_id=sku")
    return dict(text.split("=", 1) for text in assignments)


@data_app.command()
def validate(dataset: DatasetPath, as_json: JsonOption = False) -> None:
    """List every fault of a data set, with file, row and column."""
    from offline.data.validation import validate_dataset

    faults = validate_dataset(dataset)
    for fault in faults:
        print(json.dumps(vars(fault)) if as_json else str(fault))
    if faults:
        raise UserError(f"{dataset}: {len(faults)} faults")
    if not as_json:
        print(f"{dataset}: no faults")

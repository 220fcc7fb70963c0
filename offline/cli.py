"""The command line: `pinsage COMMAND`. Heavy libraries are imported by the commands that need them."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from model.errors import PinsageError, UserError
from offline.cli_data import data_app
from offline.cli_evaluate import evaluate_and_print, measure_and_print
from offline.cli_options import (
    DEFAULT_HOME,
    ConfigOption,
    DatasetPath,
    EngineOption,
    HomeOption,
    HostOption,
    JsonOption,
    MasterOption,
    PortOption,
    PresetOption,
    RunOption,
    RunPath,
    SetOption,
)
from offline.cli_releases import release_app
from offline.progress import show_progress

if TYPE_CHECKING:
    from offline.stages import Runner

LITTLE_ROOM = 1 << 20  # bytes free on a disk that is full

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data_app)
app.add_typer(release_app)
config_app = typer.Typer(help="Look at settings.", no_args_is_help=True)
app.add_typer(config_app, name="config")


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="say which version this is, and end")] = False,
) -> None:
    """Related items and home feeds from your own graph: PinSage trained on your data, served live."""
    if version:
        print(f"pinsage {importlib.metadata.version('pinsage')}")
        raise typer.Exit


def main() -> None:
    """Entry point: a user's mistake is one line and exit code 2, any other failure of ours exit code 1."""
    try:
        app()
    except UserError as error:
        _fail(error, 2)
    except PinsageError as error:
        _fail(error, 1)
    except ModuleNotFoundError as error:
        if error.name not in {"torch", "polars", "scipy", "sklearn", "gensim", "PIL", "matplotlib"}:
            raise
        _fail(UserError(f"{error.name} is not installed; this command needs: pip install 'pinsage[train]'"), 2)
    except OSError as error:
        _fail(PinsageError(f"{error.filename or _full_place() or 'input or output'}: {error.strerror or error}"), 1)


def _full_place() -> str | None:
    """Which path of the command line has no room left: an error of writing does not say."""
    for path in filter(os.path.exists, sys.argv[1:]):
        if shutil.disk_usage(path).free < LITTLE_ROOM:
            return path
    return None


def _fail(error: PinsageError, code: int) -> None:
    print(f"pinsage: {error}", file=sys.stderr)
    sys.exit(code)


@app.command()
def run(
    dataset: DatasetPath,
    run: RunOption,
    preset: PresetOption = "default",
    config: ConfigOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
    evaluate: Annotated[bool, typer.Option(help="evaluate at the end")] = True,
) -> None:
    """All offline stages: prepare, train, embed, index, evaluate. Goes on where it was stopped."""
    from offline.stages import STAGES

    _run_stages(dataset, run, STAGES, preset, config, set_, as_json)
    if evaluate:
        evaluate_and_print(run, as_json, sample=None, report=True)


@app.command()
def prepare(
    dataset: DatasetPath,
    run: RunOption,
    preset: PresetOption = "default",
    config: ConfigOption = None,
    set_: SetOption = None,
    engine: EngineOption = "local",
    master: MasterOption = None,
    as_json: JsonOption = False,
) -> None:
    """First stage: graph, neighbourhoods (on Spark where asked for), features, labelled pairs."""
    _run_stages(dataset, run, ("prepare",), preset, config, set_, as_json, _runners(engine, master))


@app.command()
def train(run: RunPath, as_json: JsonOption = False) -> None:
    """Second stage: train the network; goes on from the last checkpoint."""
    _rerun(run, "train", as_json)


@app.command()
def embed(
    run: RunPath,
    engine: EngineOption = "local",
    master: MasterOption = None,
    as_json: JsonOption = False,
) -> None:
    """Third stage: embeddings of all pins."""
    _rerun(run, "embed", as_json, _runners(engine, master))


@app.command()
def index(run: RunPath, as_json: JsonOption = False) -> None:
    """Fourth stage: the nearest-neighbour index."""
    _rerun(run, "index", as_json)


@app.command()
def evaluate(
    run: RunPath,
    as_json: JsonOption = False,
    sample: Annotated[int | None, typer.Option(help="look at this many pairs and users only")] = None,
    report: Annotated[bool, typer.Option(help="write RUN/report.html too")] = True,
    table: Annotated[
        Literal["1", "3", "4"] | None, typer.Option(help="instead, train and measure a table of the paper")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="longest training of each row of the table", show_default="10")
    ] = None,
) -> None:
    """Metrics against baselines, as a table, as RUN/metrics.json and as RUN/report.html."""
    if table is not None:
        measure_and_print(run, int(table), minutes, sample, as_json)
    elif minutes is not None:
        raise UserError("--minutes goes with --table")
    else:
        evaluate_and_print(run, as_json, sample, report)


@app.command()
def export(
    run: RunPath,
    out: Annotated[Path, typer.Argument(help="file to write: .npy (ids beside it as .txt) or .parquet")],
) -> None:
    """Embeddings and their pin ids for other programs."""
    from offline.export import export_embeddings
    from offline.run_folder import RunFolder

    print(export_embeddings(RunFolder(run), out))


@app.command()
def publish(run: RunPath, home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Verify a run, write it as a release, put its vectors into Redis and make it the current one."""
    from offline.release.publish import publish_run
    from offline.run_folder import RunFolder

    with show_progress("publish", as_json=as_json) as report:
        manifest = publish_run(RunFolder(run), home.expanduser(), progress=report)
    _say({"release": manifest.id, "pins": manifest.num_pins}, as_json)


@app.command()
def worker(home: HomeOption = DEFAULT_HOME) -> None:
    """Take reindex jobs from Redis and run them, one at a time, until stopped."""
    from offline.release.worker import run_worker

    run_worker(home.expanduser())


@app.command()
def serve(
    home: HomeOption = DEFAULT_HOME,
    host: HostOption = None,
    port: PortOption = None,
) -> None:
    """Serve the current release over HTTP, with the console at /."""
    from service.serve import serve as run_service

    run_service(home.expanduser(), host, port)


@app.command()
def demo(
    pins: Annotated[int, typer.Option(help="number of pins of the generated world", min=200)] = 5000,
    folder: Annotated[Path, typer.Option(help="where the world, the run and the home go")] = Path("demo"),
    host: HostOption = None,
    port: PortOption = None,
    serving: Annotated[bool, typer.Option("--serve/--no-serve", help="serve it at the end")] = True,
) -> None:
    """Generate a small world, run everything on it and serve it with the console."""
    from offline.demo import build_demo

    home = build_demo(folder, pins, show_progress)
    if serving:
        os.environ.setdefault("PINSAGE_IMAGES_DIR", str((folder / "world" / "images").resolve()))
        serve(home, host, port)


@config_app.command("show")
def config_show(
    preset: PresetOption = "default", config: ConfigOption = None, set_: SetOption = None, as_json: JsonOption = False
) -> None:
    """Every setting and its value: the offline ones, then the service's (keys masked)."""
    from offline.config import load_config
    from service.settings import load_settings

    offline = load_config(preset, config, set_ or ()).model_dump()
    service = load_settings().masked()
    if as_json:
        print(json.dumps({"offline": offline, "service": service}, default=str))
        return
    table = Table("setting", "value")
    for name, value in _flat(offline):
        table.add_row(name, str(value))
    for name, value in service.items():
        table.add_row(f"PINSAGE_{name.upper()}", str(value))
    Console().print(table)


def _run_stages(
    dataset: Path,
    run: Path,
    stages: tuple[str, ...],
    preset: str,
    config: Path | None,
    assignments: list[str] | None,
    as_json: bool,
    runners: dict[str, Runner] | None = None,
) -> None:
    from offline.config import load_config
    from offline.run_folder import RunFolder
    from offline.stages import run_stages

    settings = load_config(preset, config, assignments or ())
    seconds = run_stages(
        dataset,
        RunFolder(run),
        settings,
        stages=stages,
        runners=runners,
        progress=partial(show_progress, as_json=as_json),
    )
    if not seconds:
        _say({"run": str(run), "state": "nothing to do: all stages are done and unchanged"}, as_json)


def _runners(engine: str, master: str | None) -> dict[str, Runner] | None:
    """Who runs the stages, where it is not this machine."""
    from offline.stages import on_spark

    if master is not None and engine == "local":
        raise UserError("--master is for --engine spark")
    return on_spark(master) if engine == "spark" else None


def _rerun(run: Path, stage: str, as_json: bool, runners: dict[str, Runner] | None = None) -> None:
    from offline.run_folder import RunFolder
    from offline.stages import read_config, read_dataset_path, run_stages

    folder = RunFolder(run)
    dataset, config = read_dataset_path(folder), read_config(folder)
    run_stages(
        dataset, folder, config, stages=(stage,), runners=runners, progress=partial(show_progress, as_json=as_json)
    )


def _say(fields: dict[str, object], as_json: bool) -> None:
    print(json.dumps(fields) if as_json else ", ".join(f"{name} {value}" for name, value in fields.items()))


def _flat(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in tree.items():
        rows += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]
    return rows

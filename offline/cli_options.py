"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

DatasetPath = Annotated[Path, typer.Argument(help="data set folder", show_default=False)]
RunPath = Annotated[Path, typer.Argument(help="run folder", show_default=False)]
RunOption = Annotated[Path, typer.Option("--run", help="run folder; made where there is none", show_default=False)]
HomeOption = Annotated[
    Path, typer.Option("--home", envvar="PINSAGE_HOME", help="where releases, the private Redis's data and logs live")
]
HostOption = Annotated[str | None, typer.Option(help="address to listen at; 127.0.0.1 if nothing else is set")]
PortOption = Annotated[int | None, typer.Option(help="port to listen at; 8000 if none is set", min=0, max=65535)]
PresetOption = Annotated[str, typer.Option("--preset", help="default, or paper: as the paper states it")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="TOML file of settings")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="section.key=value, as often as wanted")]
JsonOption = Annotated[bool, typer.Option("--json", help="for machines: one JSON object a line")]
EngineOption = Annotated[Literal["local", "spark"], typer.Option(help="this machine, or Apache Spark")]
MasterOption = Annotated[str | None, typer.Option(help="Spark's master, such as local[4] or yarn")]
DEFAULT_HOME = Path("~/.pinsage")

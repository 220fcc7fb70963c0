"""Commands about the releases of a home: which there are, and going back to an earlier one."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from model.errors import UserError
from offline.cli_options import DEFAULT_HOME, HomeOption, JsonOption

release_app = typer.Typer()


@release_app.command()
def releases(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """The releases of a home; the current one is marked."""
    from model.release import current, list_releases

    root = home.expanduser() / "releases"
    live = current(root)
    table = Table("release", "made", "pins", "boards", "dims", "recall@50", "")
    for manifest in list_releases(root):
        if as_json:
            print(json.dumps({"release": manifest.id, "current": manifest.id == live, "pins": manifest.num_pins}))
            continue
        recall = manifest.quality.get("index_recall")
        table.add_row(
            manifest.id,
            manifest.created_at,
            f"{manifest.num_pins:,}",
            f"{manifest.num_boards:,}",
            str(manifest.embed_dim),
            "-" if recall is None else f"{recall:.3f}",
            "current" if manifest.id == live else "",
        )
    if not as_json:
        Console().print(table)


@release_app.command()
def rollback(
    release: Annotated[str | None, typer.Argument(help="release to go back to; the one before, if left out")] = None,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Make an earlier release the current one; a running service switches by itself."""
    from model.release import current, list_releases, set_current

    root = home.expanduser() / "releases"
    known = [manifest.id for manifest in list_releases(root)]
    live = current(root)
    earlier = [name for name in known if live is not None and name < live]
    target = release or (max(earlier) if earlier else None)
    if target is None:
        raise UserError(f"{root}: there is no release before {live}")
    if target not in known:
        raise UserError(f"{root}: no release {target}; there are: {', '.join(known) or 'none'}")
    set_current(root, target)
    print(f"current release: {target}")

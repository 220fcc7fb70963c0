"""Writes configuration.md from the settings themselves: `make docs`. A test says when it is out of date."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from offline.config import PRESETS, RunConfig
from service.settings import Settings

SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}

INTRO = """\
# Every setting

Written by `make docs` from the program itself. A name that is not here is refused, with the nearest one that is.
`pinsage config show` prints the values in force.

## Offline: runs

From `--preset`, then `--config FILE.toml`, then `--set section.key=value`; the later one wins. A file looks like

```toml
seed = 7

[train]
epochs = 20
```
"""

SERVICE = """
## Online: the service

Environment variables, read once at the start. A faulty value ends the start with a message that names the variable.
"""

PRESET = """
## Presets

`default` is the tables above. The others change:
"""


def page() -> str:
    """The whole page as Markdown."""
    sections = {name: f.annotation for name, f in RunConfig.model_fields.items() if is_section(f)}
    plain = {name: f for name, f in RunConfig.model_fields.items() if name not in sections}
    parts = [INTRO, *table("setting", plain)]
    for name, section in sections.items():
        assert isinstance(section, type)
        assert issubclass(section, BaseModel)
        parts += [
            f"\n### {name}\n",
            f"{(section.__doc__ or '').splitlines()[0]}\n",
            *table("setting", section.model_fields, f"{name}."),
        ]
    parts += [PRESET, *presets(), SERVICE, *table("variable", variables())]
    return "\n".join(parts) + "\n"


def is_section(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def variables() -> dict[str, FieldInfo]:
    return {f"PINSAGE_{name.upper()}": field for name, field in Settings.model_fields.items()}


def table(heading: str, fields: dict[str, FieldInfo], prefix: str = "") -> Iterator[str]:
    yield f"| {heading} | default | values | what |\n| --- | --- | --- | --- |"
    for name, field in fields.items():
        yield f"| `{prefix}{name}` | {default(field)} | {values(field)} | {field.description} |"


def default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "by the machine"
    value = field.default
    return "none" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def values(field: FieldInfo) -> str:
    """What is allowed: the choices, or the kind and its bounds."""
    kinds = [kind for kind in get_args(field.annotation) or (field.annotation,) if kind is not type(None)]
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in kinds)
    words: dict[type, str] = {int: "whole number", float: "number", bool: "`true`, `false`", Path: "path"}
    limits = [(sign, getattr(rule, name, None)) for name, sign in SIGNS.items() for rule in field.metadata]
    bounds = [f"{sign} {limit:,}" for sign, limit in limits if limit is not None]
    return ", ".join([words.get(kinds[0], "text"), *bounds])


def presets() -> Iterator[str]:
    yield "| preset | setting | value |\n| --- | --- | --- |"
    for preset, sections in PRESETS.items():
        for section, changes in sections.items():
            yield from (
                f"| `{preset}` | `{section}.{key}` | `{str(value).lower() if isinstance(value, bool) else value}` |"
                for key, value in changes.items()
            )


if __name__ == "__main__":
    Path(__file__).with_name("configuration.md").write_text(page(), encoding="utf-8")

"""What README and docs/ tell people to type exists: commands and their options, make targets, routes, files, links."""

from __future__ import annotations

import ast
import json
import re
import runpy
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

from offline.cli import app
from offline.config import parse_config
from offline.data.tables import COLUMNS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), ROOT / "bench/README.md", ROOT / "deploy/README.md"]
SHELL = {"bash", "sh", "shell", "console"}


class Block(NamedTuple):
    """A fenced block: its page, the line it starts at, its language and text."""

    page: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: str, text: str) -> Iterator[Block]:
    for match in re.finditer(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", text, re.DOTALL | re.MULTILINE):
        yield Block(page, text.count("\n", 0, match.start()) + 1, match[2].lower(), match[3])


def commands_of(block: Block) -> Iterator[list[str]]:
    """The words of every simple command of a shell block: lines joined, pipes and && cut, variables dropped."""
    for line in block.text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line.strip().removeprefix("$ "), posix=True, punctuation_chars="|&;")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("|&;"):
                yield from [words] if words else []
                words = []
            elif words or not re.fullmatch(r"[A-Z_]+=.*", word, re.DOTALL):
                words.append(word)


BLOCKS = [b for p in PAGES if p.exists() for b in blocks_of(p.relative_to(ROOT).as_posix(), p.read_text())]
COMMANDS = [(b.place, words) for b in BLOCKS if b.language in SHELL for words in commands_of(b)]


def commands_named(program: str) -> list[Any]:
    """Test parameters: (place, arguments) of every documented call of a program."""
    return [pytest.param(words[1:], id=place) for place, words in COMMANDS if Path(words[0]).name == program]


def fault_of(arguments: list[str]) -> str | None:
    """What the command line of pinsage would say about these arguments without running anything, or None."""
    command: Any = typer.main.get_command(app)
    path = ["pinsage"]
    while hasattr(command, "commands") and arguments and not arguments[0].startswith("-"):
        if arguments[0] not in command.commands:
            return f"{' '.join(path)} has no command {arguments[0]}"
        path.append(arguments[0])
        command, arguments = command.commands[arguments[0]], arguments[1:]
    context = type(command).context_class(command, info_name=" ".join(path))
    try:
        values, left, _ = command.make_parser(context).parse_args(list(arguments))
    except Exception as error:  # the class of usage errors is private to typer's copy of click
        return f"{' '.join(path)}: {error}"
    if {"--help", "--version"} & set(arguments):
        return None
    missing = [p.name for p in command.params if p.required and values.get(p.name) in (None, ())]
    return f"{' '.join(path)}: needs {missing}, cannot use {left}" if missing or left else None


def test_every_page_is_there() -> None:
    assert [page.name for page in PAGES if not page.exists()] == []
    assert COMMANDS, "no documented command was found"


@pytest.mark.parametrize("arguments", commands_named("pinsage"))
def test_documented_commands_parse(arguments: list[str]) -> None:
    assert fault_of(arguments) is None


@pytest.mark.parametrize("arguments", commands_named("docker"))
def test_documented_commands_in_containers_parse(arguments: list[str]) -> None:
    """`docker compose … run … worker ARGUMENTS` passes the arguments to pinsage."""
    if "run" in arguments and "worker" in arguments:
        assert fault_of(arguments[arguments.index("worker") + 1 :]) is None
    else:
        assert {"up", "build", "logs", "down", "exec"} & set(arguments)


@pytest.mark.parametrize("arguments", [["servve"], ["serve", "--no-such-option"], ["config", "no-such"], ["run"]])
def test_the_check_of_commands_finds_faults(arguments: list[str]) -> None:
    assert fault_of(arguments) is not None


@pytest.mark.parametrize("arguments", commands_named("make"))
def test_documented_make_targets_exist(arguments: list[str]) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {word for word in arguments if "=" not in word} <= targets


def test_documented_scripts_exist() -> None:
    scripts = [(place, word) for place, words in COMMANDS for word in words if word.endswith(".py")]
    assert [script for script in scripts if not (ROOT / script[1]).is_file()] == []


@pytest.mark.parametrize("arguments", commands_named("curl"))
def test_documented_calls_have_a_route(arguments: list[str]) -> None:
    from service.app import create_app
    from service.settings import load_settings

    address = next(word for word in arguments if re.search(r"://|:8000", word))
    path = re.sub(r"^(\w+://)?[^/]+|[?#].*$", "", address)
    method = re.search(r"(?:-X|--request)[ =](\w+)", " ".join(arguments))
    sends = any(word.startswith(("-d", "--data", "--json")) for word in arguments)
    routes = create_app(load_settings()).openapi()["paths"]
    templates = [t for t in routes if re.fullmatch(re.sub(r"{\w+}", "[^/]+", t), path)]
    assert templates, f"no route answers {path}"
    assert any((method[1] if method else "POST" if sends else "GET").lower() in routes[t] for t in templates)


def test_documented_code_parses() -> None:
    parsers = {"python": ast.parse, "json": json.loads}
    parsed = [parsers[block.language](block.text) for block in BLOCKS if block.language in parsers]
    assert None not in parsed


@pytest.mark.parametrize("block", [pytest.param(b, id=b.place) for b in BLOCKS if b.language == "toml"])
def test_documented_settings_files_are_accepted(block: Block) -> None:
    assert parse_config(tomllib.loads(block.text)) != parse_config({})


def test_the_page_of_settings_is_up_to_date() -> None:
    written = runpy.run_path(str(ROOT / "docs/write_configuration.py"))["page"]()
    assert (ROOT / "docs/configuration.md").read_text() == written, "run: make docs"


def test_the_page_of_data_sets_names_every_table_and_column() -> None:
    """A row of its table names tables, then columns; those in bold must be there."""
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| (.*?) \|", (ROOT / "docs/datasets.md").read_text(), re.MULTILINE)
    described = {table: columns for tables, columns in rows for table in re.findall(r"\w+", tables) if table in COLUMNS}
    wanted = {
        table: ", ".join(f"**`{c.name}`**" if c.required else f"`{c.name}`" for c in columns)
        for table, columns in COLUMNS.items()
    }
    assert described == wanted


@pytest.mark.parametrize("page", [pytest.param(p, id=p.relative_to(ROOT).as_posix()) for p in PAGES if p.exists()])
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!\w+:)([^)#\s]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def mapped_files(tree: str) -> set[str]:
    """Paths in a file map: a line that starts with `folder/` opens it, its files follow, `a_{b,c}.py` is two."""
    named: set[str] = set()
    folder = ""
    for line in tree.splitlines():
        opened = re.match(r"[\w/]+/(?=\s|$)", line)
        folder = opened[0] if opened else folder
        named |= {folder + one for name in re.findall(r"[\w/{},]+\.py\b", line) for one in spread(name)}
    return named


def spread(name: str) -> list[str]:
    """`a_{b,c}.py` as a_b.py and a_c.py."""
    braces = re.search(r"{([\w,]+)}", name)
    return [name.replace(braces[0], part) for part in braces[1].split(",")] if braces else [name]


def test_reading_of_a_file_map() -> None:
    tree = "model/   what both mean\n  graph.py   the graph\n  deep/a_{b,c}.py   two\nservice/\n  app.py\n"
    assert mapped_files(tree) == {"model/graph.py", "model/deep/a_b.py", "model/deep/a_c.py", "service/app.py"}


def test_the_file_map_is_complete_and_true() -> None:
    """Every module has its clause in README, and README names no module that is gone."""
    fences = [b.text for b in BLOCKS if b.page == "README.md" and re.search(r"^model/", b.text, re.MULTILINE)]
    named = set().union(*map(mapped_files, fences))
    files = {
        path.relative_to(ROOT).as_posix()
        for package in ("model", "offline", "service")
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py"
    }
    gone = sorted(name for name in named if not (ROOT / name).exists())
    assert {"missing": sorted(files - named), "gone": gone} == {"missing": [], "gone": []}

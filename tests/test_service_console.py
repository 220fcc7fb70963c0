"""The console's files against the service: all local, nothing inline, and every address that they call exists."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx
import pytest

from service.app import create_app
from service.http.routes_system import CONSOLE
from service.settings import Settings

FILES = {path.name: path.read_text(encoding="utf-8") for path in sorted(CONSOLE.iterdir())}
SCRIPTS = "\n".join(text for name, text in FILES.items() if name.endswith(".js"))
PAGES = {"/": "index.html", "/docs": "docs.html"}


def get(path: str) -> httpx.Response:
    async def call() -> httpx.Response:
        app = create_app(Settings(home=Path("unused"), worker="none"))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as http:
            return await http.get(path)

    return asyncio.run(call())


@pytest.mark.parametrize("path", PAGES)
def test_pages_are_served_with_a_policy_that_lets_nothing_foreign_run(path: str) -> None:
    answer = get(path)
    assert (answer.status_code, answer.text) == (200, FILES[PAGES[path]])
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert "script-src" not in policy  # so that default-src holds for scripts
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", FILES)
def test_nothing_comes_from_elsewhere(name: str) -> None:
    addresses = re.findall(r"https?://[\w./]+", FILES[name])
    assert set(addresses) <= {"http://www.w3.org/2000/svg"}, "only the name of a format"


@pytest.mark.parametrize("page", PAGES.values())
def test_pages_have_no_inline_scripts_styles_or_handlers(page: str) -> None:
    text = FILES[page]
    assert re.findall(r"<script(?![^>]*\bsrc=)", text) == []
    assert re.findall(r"<style|\bstyle=|\son\w+=|javascript:", text) == []


@pytest.mark.parametrize("page", PAGES.values())
def test_files_of_a_page_are_there(page: str) -> None:
    names = {name for name in re.findall(r'(?:href|src)="([^"#:]+)"', FILES[page]) if name.startswith("console/")}
    assert names
    assert {name.removeprefix("console/") for name in names} <= FILES.keys()
    modules = re.findall(r'from "\./([\w.]+)"', SCRIPTS)
    assert set(modules) <= FILES.keys()


def test_scripts_only_look_for_elements_that_are_there() -> None:
    wanted = set(re.findall(r'getElementById\("([\w-]+)"\)', SCRIPTS))
    there = set(re.findall(r'\bid="([\w-]+)"', FILES["index.html"] + FILES["docs.html"]))
    assert wanted <= there


def test_scripts_call_what_the_service_has() -> None:
    templates = [re.sub(r"{\w+}", "[^/]+", path) for path in get("/openapi.json").json()["paths"]]
    called = {f"/{'/'.join(parts)}" for parts in map(path_parts, re.findall(r'path\(("v1".*?)\)', SCRIPTS))}
    called |= set(re.findall(r'"(/v1/[\w/]+)"', SCRIPTS))
    assert len(called) >= 8
    assert [path for path in called if not any(re.fullmatch(template, path) for template in templates)] == []


def path_parts(arguments: str) -> list[str]:
    """`"v1", "pins", id` as v1, pins, *."""
    return [part.strip('" ') if '"' in part else "*" for part in arguments.split(",")]


def test_no_script_writes_markup() -> None:
    """Text of pins goes into text nodes, never into HTML."""
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", SCRIPTS) == []


def test_the_key_is_kept_in_memory_only() -> None:
    assert re.findall(r"localStorage|sessionStorage|document\.cookie|indexedDB", SCRIPTS) == []

"""Keys, scopes and who may bind where; the matrix of routes × keys is made from the app's own description."""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from server_process import serving
from service_fixtures import make_release, make_world

from model.errors import UserError
from service.app import ROUTERS, create_app
from service.http.errors import Problem
from service.http.routing import ScopedRoute
from service.http.security import Gate, Scope, check_binding, parse_keys
from service.settings import Settings

KEYS = "reader:read:r-secret,writer:write:w-secret,boss:admin:a-secret"
SECRETS = {Scope.READ: "r-secret", Scope.WRITE: "w-secret", Scope.ADMIN: "a-secret"}
PUBLIC = {"/livez", "/readyz"}


def make_app(home: Path, keys: str | None = KEYS) -> FastAPI:
    return create_app(Settings(home=home, keys=keys, worker="none"))


def client(app: FastAPI, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8000", **options)


def operations(app: FastAPI) -> list[tuple[str, str, str | None]]:
    """(method, path, scope) of every call that the app describes."""
    paths = app.openapi()["paths"]
    return [(method, path, call.get("x-scope")) for path, calls in paths.items() for method, call in calls.items()]


# --- reading keys ---


def test_keys_from_text() -> None:
    keys = parse_keys("a:read:one, b:ADMIN:two:with:colons")
    assert [(key.name, key.scope) for key in keys] == [("a", Scope.READ), ("b", Scope.ADMIN)]
    Gate(keys).check({"x-api-key": "two:with:colons"}, Scope.ADMIN)


def test_keys_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# ours\na:read:one\n\nb:write:two,c:admin:three\n")
    assert [key.name for key in parse_keys(str(tmp_path / "keys"))] == ["a", "b", "c"]


@pytest.mark.parametrize("given", [None, "", "  "])
def test_no_keys(given: str | None) -> None:
    assert parse_keys(given) == []


@pytest.mark.parametrize(
    "given", ["a:root:hunter2", "a:hunter2", ":read:hunter2", "a:read:", "ok:read:fine,a:hunter2", ","]
)
def test_malformed_keys_are_refused_without_showing_them(given: str) -> None:
    with pytest.raises(UserError, match="PINSAGE_KEYS") as caught:
        parse_keys(given)
    assert "hunter2" not in str(caught.value)


def test_missing_key_file_is_refused_without_showing_the_value() -> None:
    with pytest.raises(UserError, match="neither") as caught:
        parse_keys("hunter2")
    assert "hunter2" not in str(caught.value)


def test_keys_keep_no_secret() -> None:
    assert "r-secret" not in repr(parse_keys(KEYS))


# --- binding ---


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_open_service_may_bind_to_loopback(host: str) -> None:
    check_binding(host, [])


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])
def test_open_service_may_bind_nowhere_else(host: str) -> None:
    with pytest.raises(UserError, match="PINSAGE_KEYS"):
        check_binding(host, [])
    check_binding(host, parse_keys(KEYS))


# --- routes ---


def test_every_route_chose_a_scope_or_is_known_to_be_public() -> None:
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    without = {r.path for r in routes if not isinstance(r, ScopedRoute) and r.include_in_schema}
    assert without == PUBLIC
    assert {r.path for r in routes if not r.include_in_schema} == {"/", "/docs", "/healthz"}


def test_scopes_of_routes(tmp_path: Path) -> None:
    by_scope: dict[str | None, set[str]] = {}
    for method, path, scope in operations(make_app(tmp_path)):
        by_scope.setdefault(scope, set()).add(f"{method} {path}")
    assert {call for call in by_scope["read"] if not call.startswith("get ")} == {"post /v1/related"}
    assert {path.split()[1].split("/")[2] for path in by_scope["admin"]} == {"admin"}
    assert all("/admin" not in call for scope in (None, "read", "write") for call in by_scope[scope])


def test_auth_matrix(tmp_path: Path) -> None:
    """Every call × no key, a wrong key, and a key of each scope: what is refused is refused before anything is read."""

    async def check() -> None:
        app = make_app(tmp_path)
        async with client(app) as http:
            for method, path, scope in operations(app):
                if scope is None:
                    continue
                address = re.sub(r"{\w+}", "x", path)
                for headers in (
                    {},
                    {"x-api-key": "wrong"},
                    {"authorization": "Bearer "},
                    {"authorization": "Basic r-secret"},
                ):
                    answer = await http.request(method, address, headers=headers, content=b"{not json")
                    assert (answer.status_code, answer.json()["type"]) == (401, "urn:pinsage:problem:unauthorized"), (
                        path
                    )
                    assert answer.headers["www-authenticate"].startswith("Bearer")
                for lower in Scope:
                    if lower < Scope[scope.upper()]:
                        answer = await http.request(method, address, headers={"x-api-key": SECRETS[lower]})
                        assert (answer.status_code, answer.json()["type"]) == (403, "urn:pinsage:problem:forbidden"), (
                            path
                        )

    asyncio.run(check())


@pytest.mark.parametrize(
    "presented",
    [{"x-api-key": "w-secret"}, {"authorization": "bearer w-secret"}, {"authorization": "Bearer  w-secret"}],
)
def test_key_opens_its_scope_and_those_below(presented: dict[str, str]) -> None:
    gate = Gate(parse_keys(KEYS))
    gate.check(presented, Scope.READ)
    gate.check(presented, Scope.WRITE)


def test_a_wrong_key_is_not_made_good_by_a_right_one() -> None:
    gate = Gate(parse_keys(KEYS))
    gate.check({"x-api-key": "r-secret", "authorization": "Bearer a-secret"}, Scope.ADMIN)
    for wrong in ({"authorization": "Bearer wrong"}, {"authorization": "Basic abc"}, {"authorization": ""}):
        with pytest.raises(Problem, match="unauthorized"):
            gate.check({"x-api-key": "a-secret", **wrong}, Scope.READ)


def test_the_same_secret_under_two_names_has_the_higher_scope() -> None:
    Gate(parse_keys("a:read:same,b:admin:same")).check({"x-api-key": "same"}, Scope.ADMIN)


@pytest.mark.parametrize(
    "path",
    [
        "/docs%2f..%2fv1/admin/jobs", "/docs/../v1/admin/jobs", "//v1/admin/jobs", "/V1/admin/jobs", "/v1/admin/jobs.",
        "/v1/admin/jobs/", "/livez/../v1/admin/jobs", "/console/..%2f..%2fv1/admin/jobs", "/v1//admin/jobs",
        "/v1/admin/jobs%00",
    ],
)  # fmt: skip
def test_no_spelling_of_a_path_gets_around_the_keys(tmp_path: Path, path: str) -> None:
    async def check() -> None:
        async with client(make_app(tmp_path)) as http:
            request = httpx.Request("GET", httpx.URL("http://127.0.0.1:8000", raw_path=path.encode()))
            assert (await http.send(request)).status_code in (401, 404)

    asyncio.run(check())


def test_public_pages_need_no_key(tmp_path: Path) -> None:
    async def check() -> None:
        async with client(make_app(tmp_path)) as http:
            for path in ("/livez", "/", "/docs", "/openapi.json", "/console/console.js", "/console/console.css"):
                assert (await http.get(path)).status_code == 200, path

    asyncio.run(check())


def test_keys_are_never_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def check() -> None:
        async with client(make_app(tmp_path)) as http:
            for secret in ("r-secret", "hunter2"):
                for path in ("/v1/status", "/v1/admin/jobs", "/v1/pins/a"):
                    await http.get(path, headers={"authorization": f"Bearer {secret}", "x-api-key": secret})

    with caplog.at_level(logging.DEBUG):
        asyncio.run(check())
    assert "secret" not in caplog.text.replace("/v1/", "")
    assert "hunter2" not in caplog.text


# --- open service and browsers ---


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site"},
        {"host": "evil.example"},
        {"host": "evil.example:8000", "origin": "http://evil.example:8000"},
        {"host": "[::1", "origin": "http://[::1"},
    ],
)
def test_open_service_turns_other_sites_away(tmp_path: Path, headers: dict[str, str]) -> None:
    async def check() -> None:
        async with client(make_app(tmp_path, keys=None)) as http:
            answer = await http.post("/v1/users/u/events", headers=headers, json={"type": "save", "pin_id": "a"})
        assert (answer.status_code, answer.json()["type"]) == (403, "urn:pinsage:problem:cross-site")

    asyncio.run(check())


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"},
        {"host": "localhost:8000"},
        {"host": "[::1]:8000"},
    ],
)
def test_open_service_takes_its_own_pages_and_programs(headers: dict[str, str]) -> None:
    Gate([]).check({"host": "127.0.0.1:8000", **headers}, Scope.ADMIN)


def test_with_keys_any_name_and_origin_will_do() -> None:
    Gate(parse_keys(KEYS)).check(
        {"host": "pins.example", "origin": "https://shop.example", "x-api-key": "r-secret"}, Scope.READ
    )


# --- how keys are compared, and where they must never be ---


def test_a_key_is_compared_with_every_known_one_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the place of a key in the list nor how much of it is right may show in the time that it takes."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr("service.http.security.hmac", SimpleNamespace(compare_digest=compare))
    gate = Gate(parse_keys(KEYS))
    for secret in SECRETS.values():
        compared.clear()
        gate.check({"x-api-key": secret}, Scope.READ)
        assert len(compared) == 3
        assert {len(digest) for pair in compared for digest in pair} == {32}
    compared.clear()
    with pytest.raises(Problem, match="unauthorized"):
        gate.check({"x-api-key": "r-secre"}, Scope.READ)
    assert len(compared) == 3


def test_no_comparison_but_that_one_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.http.security.hmac", SimpleNamespace(compare_digest=lambda one, other: False))
    with pytest.raises(Problem, match="unauthorized"):
        Gate(parse_keys(KEYS)).check({"x-api-key": "a-secret"}, Scope.READ)


def test_a_server_process_writes_no_key_anywhere(tmp_path: Path) -> None:
    """Right, wrong and misplaced keys, through the whole process: nothing it prints, logs or stores has one."""
    make_release(tmp_path / "releases", make_world(60))
    printed = tmp_path / "printed.log"
    with (
        printed.open("wb") as log,
        serving(tmp_path, stderr=log.fileno(), drain_seconds=0, keys=KEYS, rate_limit="5/minute") as server,
        httpx.Client(base_url=server.url, timeout=60) as http,
    ):
        for secret in (*SECRETS.values(), "hunter2-secret"):
            for headers in ({"authorization": f"Bearer {secret}"}, {"x-api-key": secret}):
                http.get("/v1/status", headers=headers)
                http.post("/v1/admin/reindex", headers=headers, json={"mode": secret})
                http.put("/v1/pins/a", headers=headers, content=b"{")
            http.get(f"/v1/pins/{secret}", headers={"authorization": secret})
        with server.connect() as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nx-api-key: r-secret\r\nx-api-key r-secret\r\n\r\n")
            assert b"r-secret" not in connection.recv(65536)
        server.stop(signal.SIGTERM)
    assert b"Invalid HTTP request" in printed.read_bytes(), "the control: this log is the one that is written"
    written = [
        path for path in tmp_path.rglob("*") if path.is_file() and not path.is_relative_to(tmp_path / "releases")
    ]
    assert len(written) > 1, "the private Redis writes too"
    assert [path for path in written if re.search(rb"[rwa]-secret|hunter2", path.read_bytes())] == []


def test_the_command_does_not_serve_everybody_without_keys(tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PINSAGE_")}
    start = [sys.executable, "-c", "from offline.cli import main; main()"]
    command = [*start, "serve", "--home", str(tmp_path), "--host", "0.0.0.0", "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, env=clean, timeout=120, check=False)
    assert done.returncode == 2
    assert "PINSAGE_KEYS" in done.stdout + done.stderr
    assert "serves at" not in done.stdout
    assert not (tmp_path / "redis").exists(), "it was refused before anything started"

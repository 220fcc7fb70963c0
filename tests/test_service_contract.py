"""The API's own description against the running service, by schemathesis: calls that it makes up from the description,
good and bad, one after the other and along the links; never a 5xx, never an answer that is not as described."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from server_process import Server, serving
from service_fixtures import VISUAL_DIM, make_release

from service.http.answers import BatchOut, PageOut

KEY = "contract-secret"
# What a description cannot say: a cursor belongs to one list, and an idempotency key to one request.
CONFIG = """
[[operations]]
include-operation-id = ["related_pins", "homefeed"]
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "404"]

[[operations]]
include-operation-id = "start_reindex"
checks.positive_data_acceptance.expected-statuses = ["2xx", "401", "409", "422"]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("home")
    make_release(home / "releases")
    with serving(home, drain_seconds=0, keys=f"all:admin:{KEY}") as server:
        yield server


def described(server: Server) -> dict[str, Any]:
    """The description, with what depends on the release and on the time."""
    document: dict[str, Any] = httpx.get(f"{server.url}/openapi.json").json()
    schemas = document["components"]["schemas"]
    for name in ("PinIn", "Content"):
        numbers = next(kind for kind in schemas[name]["properties"]["visual"]["anyOf"] if kind["type"] == "array")
        numbers |= {"minItems": VISUAL_DIM, "maxItems": VISUAL_DIM}
        numbers["items"] |= {"minimum": -1e6, "maximum": 1e6}
    times = next(kind for kind in schemas["EventIn"]["properties"]["timestamp"]["anyOf"] if kind["type"] == "integer")
    times["maximum"] = int(time.time())
    return document


def check(server: Server, document: dict[str, Any], folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "openapi.json").write_text(json.dumps(document))
    (folder / "config.toml").write_text(CONFIG)
    program = [Path(sys.executable).with_name("schemathesis"), "--config-file", "config.toml", "run", "openapi.json"]
    fixed = ["--url", server.url, "-H", f"Authorization: Bearer {KEY}", "--checks", "all", "--no-color"]
    fixed += ["--generation-database", "none", "--max-response-time", "20"]
    return subprocess.run([*program, *fixed, *options], cwd=folder, capture_output=True, text=True, check=False)


def passes(server: Server, folder: Path, *options: str) -> None:
    document = described(server)
    num_calls = sum(len(calls) for calls in document["paths"].values())
    done = check(server, document, folder, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Tested: {num_calls}" in done.stdout
    assert httpx.get(f"{server.url}/readyz").status_code == 200


def test_the_service_is_as_its_description_says(server: Server, tmp_path: Path) -> None:
    passes(server, tmp_path, "--max-examples", "8", "--seed", "1")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", ["2", "3"])
def test_the_service_is_as_its_description_says_at_length(server: Server, tmp_path: Path, seed: str) -> None:
    passes(server, tmp_path, "--max-examples", "300", "--seed", seed)


def test_an_answer_that_is_not_as_described_is_found(server: Server, tmp_path: Path) -> None:
    """The control: the same check fails where the description promises more than comes."""
    document = described(server)
    document["components"]["schemas"]["Health"]["required"].append("uptime")
    document["components"]["schemas"]["Health"]["properties"]["uptime"] = {"type": "integer"}
    done = check(server, document, tmp_path, "--include-operation-id", "livez", "--max-examples", "1")
    assert done.returncode == 1, done.stdout
    assert "uptime" in done.stdout


def test_every_link_leads_to_a_call_and_fills_its_path(server: Server) -> None:
    document = described(server)
    calls = {call["operationId"]: (path, call) for path, some in document["paths"].items() for call in some.values()}
    links = [
        link for _, call in calls.values() for a in call["responses"].values() for link in a.get("links", {}).values()
    ]
    assert len(links) > 15
    for link in links:
        path, call = calls[link["operationId"]]
        wanted = {parameter["name"] for parameter in call.get("parameters", []) if parameter["in"] == "path"}
        given = set(link.get("parameters", {}))
        assert given <= wanted
        assert given or link.get("requestBody"), path


def test_lists_that_are_written_by_hand_have_the_described_shape(server: Server) -> None:
    with httpx.Client(base_url=server.url, headers={"x-api-key": KEY}) as http:
        http.post("/v1/users/u9/events", json={"type": "save", "pin_id": "p1"})
        pages = [
            http.get(path).content for path in ("/v1/pins/p1/related", "/v1/users/u9/homefeed", "/v1/search?q=word1")
        ]
        batch = http.post("/v1/related", json={"queries": ["p1", "nobody", {"title": "word1"}]}).content
    related, feed, found = (PageOut.model_validate_json(page, strict=True) for page in pages)
    assert related.items
    assert related.next
    assert found.items
    assert any(item.source_pin_id == "p1" for item in feed.items)
    assert b"source_pin_id" not in pages[0]
    assert [result.error for result in BatchOut.model_validate_json(batch, strict=True).results] == [
        None,
        "unknown-pin",
        None,
    ]

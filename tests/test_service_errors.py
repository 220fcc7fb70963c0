"""Problems: their one shape, what they keep to themselves, and that the API's description has them all."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from model.errors import ReleaseError
from service.app import create_app
from service.http.errors import FAILURES, KINDS, MAX_FAULTS, Problem, problem_of_failure, problem_of_faults
from service.live.failures import DeltaFull, InvalidContent, NotReady, StoreUnavailable, UnknownPin, UnknownRelease
from service.settings import Settings


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    return create_app(Settings(home=tmp_path, worker="none"))


def ask(app: FastAPI, method: str, path: str, **options: Any) -> httpx.Response:
    async def call() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            return await http.request(method, path, **options)

    return asyncio.run(call())


def test_a_problem_has_type_title_status_detail_and_request_id() -> None:
    answer = Problem("unknown-pin", "no pin p1").response("id-1")
    assert (answer.status_code, answer.media_type) == (404, "application/problem+json")
    assert json.loads(bytes(answer.body)) == {
        "type": "urn:pinsage:problem:unknown-pin",
        "title": "There is no such pin",
        "status": 404,
        "detail": "no pin p1",
        "request_id": "id-1",
    }


@pytest.mark.parametrize("kind", [kind for kind, (status, _) in KINDS.items() if status == 503])
def test_what_passes_says_when_to_come_back(kind: str) -> None:
    assert int(Problem(kind).response(None).headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("failure", "status", "kind"),
    [
        (UnknownPin("p1"), 404, "unknown-pin"),
        (UnknownRelease("r1"), 404, "unknown-release"),
        (ReleaseError("r1: index is damaged"), 409, "release-refused"),
        (InvalidContent("visual", "12 values are needed"), 422, "invalid-request"),
        (DeltaFull("full"), 503, "live-full"),
        (NotReady("none"), 503, "not-ready"),
        (StoreUnavailable("timeout at 10.0.0.5"), 503, "store-unavailable"),
    ],
)
def test_failures_of_the_data_side(failure: Exception, status: int, kind: str) -> None:
    problem = problem_of_failure(failure)
    assert (problem.status, problem.kind) == (status, kind)
    assert "10.0.0.5" not in json.dumps(problem.document(None))
    assert type(failure) in FAILURES


def test_content_that_does_not_fit_names_its_field() -> None:
    problem = problem_of_failure(InvalidContent("visual", "12 values are needed"))
    assert problem.errors == [{"in": "body", "pointer": "/visual", "message": "12 values are needed"}]


def test_faults_point_into_the_body_by_json_pointer() -> None:
    fault = {"type": "x", "loc": ("body", "events", 3, "a/b~c"), "msg": "Value error, too much"}
    assert problem_of_faults([fault]).errors == [{"in": "body", "pointer": "/events/3/a~1b~0c", "message": "too much"}]


def test_names_of_branches_are_no_part_of_a_pointer() -> None:
    fault = {"type": "x", "loc": ("body", "branch:batch", "events", 0, "type"), "msg": "no"}
    assert problem_of_faults([fault]).errors[0]["pointer"] == "/events/0/type"


def test_long_lists_of_faults_and_long_names_are_cut() -> None:
    faults = [{"type": "x", "loc": ("body", "n" * 100_000), "msg": "no"}] * 500
    document = json.dumps(problem_of_faults(faults).document(None))
    assert len(problem_of_faults(faults).errors) == MAX_FAULTS
    assert "500 faults" in document
    assert len(document) < 20_000


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/nothing", 404, "not-found"),
        ("GET", "/v1/pins/", 404, "not-found"),
        ("PATCH", "/v1/pins/p1", 405, "method-not-allowed"),
        ("POST", "/", 405, "method-not-allowed"),
        ("PUT", "/console/console.js", 405, "method-not-allowed"),
        ("GET", "/console/nothing.js", 404, "not-found"),
        ("GET", "/console/%00", 404, "not-found"),
        ("GET", "/console/" + "a" * 5000, 404, "not-found"),
        ("GET", "/console/..%2f..%2fsettings.py", 404, "not-found"),
    ],
)
def test_the_frameworks_own_errors_are_problems(app: FastAPI, method: str, path: str, status: int, kind: str) -> None:
    answer = ask(app, method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json()["type"] == f"urn:pinsage:problem:{kind}"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_wrong_method_says_which_are_right(app: FastAPI) -> None:
    assert ask(app, "PATCH", "/livez").headers["allow"] == "GET"
    assert ask(app, "OPTIONS", "/v1/pins/p1").headers["allow"] == "DELETE, GET, PUT"
    assert ask(app, "POST", "/console/console.js").headers["allow"] == "GET, HEAD"


# --- the API's description ---


def operations(app: FastAPI) -> dict[str, dict[str, Any]]:
    return {f"{m} {p}": call for p, calls in app.openapi()["paths"].items() for m, call in calls.items()}


def test_every_call_has_an_id_a_summary_a_text_and_a_tag(app: FastAPI) -> None:
    calls = operations(app)
    ids = [call["operationId"] for call in calls.values()]
    assert len(set(ids)) == len(ids)
    assert all(name.isidentifier() for name in ids)
    assert [
        name for name, call in calls.items() if not (call["summary"] and call["description"] and call["tags"])
    ] == []


def test_every_call_with_a_scope_describes_its_problems(app: FastAPI) -> None:
    for name, call in operations(app).items():
        if "x-scope" not in call:
            continue
        problems = {s: a for s, a in call["responses"].items() if "application/problem+json" in a.get("content", {})}
        assert {"401", "403", "422", "500", "503"} <= problems.keys(), name
        assert ("requestBody" not in call) or {"400", "413"} <= problems.keys(), name
        for status, answer in problems.items():
            examples = answer["content"]["application/problem+json"]["examples"]
            assert {example["value"]["status"] for example in examples.values()} == {int(status)}, name


def test_every_body_and_every_list_has_an_example(app: FastAPI) -> None:
    schemas = app.openapi()["components"]["schemas"]
    for name, call in operations(app).items():
        if "requestBody" in call:
            media = call["requestBody"]["content"]["application/json"]
            assert "examples" in media or "examples" in schemas[referred(media["schema"])], name


def referred(schema: dict[str, Any]) -> str:
    """The name of the model that a schema is, or may be besides null."""
    options = schema.get("anyOf", [schema])
    return str(options[0]["$ref"]).rpartition("/")[2]


def test_every_reference_of_the_description_leads_somewhere(app: FastAPI) -> None:
    document = app.openapi()
    text = json.dumps(document)
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names <= document["components"]["schemas"].keys()

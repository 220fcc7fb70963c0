"""The API's description at /openapi.json: the framework's, with our keys, our one shape of errors, and with links: what
may be asked next with an answer in hand."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.http.answers import ProblemOut

TAGS = [
    {"name": "pins", "description": "Related pins, search, and the pins themselves."},
    {"name": "users", "description": "Home feeds and what users do."},
    {"name": "boards", "description": "Which pins are on which boards."},
    {"name": "admin", "description": "Reindexing and releases."},
    {"name": "system", "description": "Probes and numbers."},
]
KEYS = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "Authorization: Bearer KEY"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
THIS_PIN, THIS_USER = {"pin_id": "$request.path.pin_id"}, {"user_id": "$request.path.user_id"}
THIS_JOB = {"job_id": "$response.body#/id"}
FIRST_ITEM = {"pin_id": "$response.body#/items/0/pin_id"}
LINKS: dict[str, dict[str, dict[str, str]]] = {  # operation -> one that may follow -> where its parameters come from
    "put_pin": dict.fromkeys(("related_pins", "get_pin", "put_pin", "delete_pin"), THIS_PIN),
    "delete_pin": {"put_pin": THIS_PIN},
    "related_pins": {"related_pins": FIRST_ITEM, "get_pin": FIRST_ITEM},
    "homefeed": {"record_events": THIS_USER},
    "record_events": {"homefeed": THIS_USER},
    "add_board_pins": {
        "remove_board_pin": {"board_id": "$request.path.board_id", "pin_id": "$response.body#/pin_ids/0"}
    },
    "start_reindex": dict.fromkeys(("get_job", "cancel_job"), THIS_JOB),
    "list_jobs": {"get_job": {"job_id": "$response.body#/jobs/0/id"}},
    "list_releases": {"activate_release": {"release_id": "$response.body#/releases/0/id"}},
}


def describe_api(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of an app, made once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes, tags=TAGS
        )
        components = document.setdefault("components", {})
        components["securitySchemes"] = KEYS
        problem = ProblemOut.model_json_schema(by_alias=True, ref_template="#/components/schemas/{model}")
        components.setdefault("schemas", {}).update({**problem.pop("$defs", {}), "ProblemOut": problem})
        _add_links(document)
        app.openapi_schema = document
    return app.openapi_schema


def _add_links(document: dict[str, Any]) -> None:
    """LINKS at every answer that is a success."""
    for call in (call for calls in document["paths"].values() for call in calls.values()):
        links: dict[str, dict[str, Any]] = {
            following: {"operationId": following, "parameters": parameters}
            for following, parameters in LINKS.get(call["operationId"], {}).items()
        }
        if call["operationId"] == "put_pin":  # the one whose parameter goes into a body
            links["add_board_pins"] = {"operationId": "add_board_pins", "requestBody": THIS_PIN}
        for status, answer in call["responses"].items():
            if links and status.startswith("2"):
                answer["links"] = links

"""The API's description at /openapi.json: the framework's, with our keys and our one shape of errors."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.answers import ProblemOut

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
        app.openapi_schema = document
    return app.openapi_schema

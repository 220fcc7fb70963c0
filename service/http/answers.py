"""The shapes of answers, with the examples that the API's description shows."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from model.jobs import Mode, State


class Out(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(extra="forbid")


class ItemOut(Out):
    """A pin in a list: score is higher where it fits better, reason says why it is there."""

    pin_id: str
    score: float
    title: str | None = None
    image_url: str | None = None
    reason: str
    source_pin_id: str | None = Field(
        None,
        exclude_if=lambda pin_id: pin_id is None,
        description="the user's pin behind the reason, where there is one",
    )


class PageOut(Out):
    """A list of pins; all from one release. `next` is the cursor of the following page."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "release": "20260131T120000-3f2a",
                    "items": [
                        {"pin_id": "p-2", "score": 0.91, "title": "Oak lamp", "image_url": None, "reason": "related"}
                    ],
                    "next": None,
                }
            ]
        }
    )

    release: str
    items: list[ItemOut]
    next: str | None = None


class BatchOut(Out):
    """One list for each query, in the order of the queries."""

    release: str
    results: list[BatchResult]


class BatchResult(Out):
    """The answer to one query; a pin that is not there has no items and an error."""

    items: list[ItemOut]
    error: str | None = None


class NeighborOut(Out):
    """A pin that a new pin's vector was pooled from; weights add up to 1."""

    pin_id: str
    weight: float


class PutOut(Out):
    """The answer to PUT: the pin can be found from now on."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "pin_id": "p-9",
                    "release": "20260131T120000-3f2a",
                    "neighbors": [{"pin_id": "p-2", "weight": 0.4}],
                    "timings": {"walk": 0.001, "embed": 0.002, "total": 0.006},
                }
            ]
        }
    )

    pin_id: str
    release: str
    neighbors: list[NeighborOut]
    timings: dict[str, float] = Field(description="seconds by step")


class PinOut(Out):
    """A pin as it is stored."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {"pin_id": "p-1", "title": "Oak lamp", "annotations": ["lamp"], "category": "home", "boards": ["b-12"]}
            ]
        },
    )

    pin_id: str
    title: str | None = None
    annotations: list[str] = []
    description: str | None = None
    image_url: str | None = None
    category: str | None = None
    language: str | None = None
    boards: list[str] = []


class AcceptedOut(Out):
    """How many events were new; those sent before count once."""

    accepted: int


class BoardOut(Out):
    """The pins that were put on a board."""

    board_id: str
    pin_ids: list[str]


class JobOut(Out):
    """A reindex: `progress` runs from 0 to 1, `release` is what it published."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "5f0c",
                    "state": "running",
                    "phase": "embed",
                    "progress": 0.4,
                    "eta_seconds": 12.5,
                    "release": None,
                    "error": None,
                    "mode": "embed",
                    "created_at": 1767225600.0,
                    "started_at": 1767225601.0,
                    "finished_at": None,
                }
            ]
        }
    )

    id: str
    state: State
    phase: str | None = None
    progress: float = Field(ge=0, le=1)
    eta_seconds: float | None = None
    release: str | None = None
    error: str | None = None
    mode: Mode
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None


class JobsOut(Out):
    """Jobs, the newest first."""

    jobs: list[JobOut]


class ReleaseOut(Out):
    """A release on disk; `live` is the one being served."""

    id: str
    live: bool
    created_at: str | float
    num_pins: int
    num_boards: int
    num_edges: int
    embed_dim: int
    mode: str
    parent: str | None = None
    quality: dict[str, Any] = {}


class ReleasesOut(Out):
    """Releases, the newest first."""

    releases: list[ReleaseOut]


class ActivatedOut(Out):
    """The release that is served from now on."""

    release: str


class Health(Out):
    """Whether this process lives, or is ready and why not."""

    status: Literal["ok", "unavailable"]
    reasons: list[str] = []


class FaultOut(Out):
    """One fault of a request: where, and a JSON pointer to it."""

    where: str = Field(alias="in")
    pointer: str
    message: str


class ProblemOut(Out):
    """RFC 9457 problem+json."""

    type: str
    title: str
    status: int
    detail: str | None = None
    request_id: str
    errors: list[FaultOut] | None = None

"""The shapes of requests. They are taken literally: unknown fields, numbers written as text, NaN and control characters
are refused, and every text and list has a longest length."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    FiniteFloat,
    StringConstraints,
    Tag,
    model_validator,
)

from model.jobs import Mode
from service.http.errors import BRANCH

ID_PATTERN = r"^[A-Za-z0-9_.:-]{1,128}$"
MAX_EXCLUDE, MAX_EVENTS, MAX_QUERIES, MAX_BOARDS, MAX_VISUAL = 500, 1000, 100, 1000, 8192
DAY = 86_400
PLAIN: dict[str, Any] = {"pattern": r"^[^\x00-\x08\x0b\x0c\x0e-\x1f]*$"}  # `_plain` in the API's description


def _plain(text: str) -> str:
    if any(ord(character) < 32 and character not in "\t\n\r" for character in text):
        raise ValueError("control characters are not allowed")
    return text


def _split_commas(given: Any) -> Any:
    """`?exclude=a,b&exclude=c` and `?exclude=a&exclude=b&exclude=c` are the same."""
    if isinstance(given, list):
        return [part for text in given for part in str(text).split(",") if part]
    return given


def _seconds(given: Any) -> Any:
    """Clocks often give fractions of a second; we keep whole ones."""
    return int(given) if isinstance(given, float) else given


def _whole(given: Any) -> Any:
    """In JSON, 5.0 is an integer too."""
    return int(given) if isinstance(given, float) and given.is_integer() else given


def _not_ahead(timestamp: int) -> int:
    if timestamp > time.time() + DAY:
        raise ValueError("more than a day ahead; timestamps are seconds since 1970")
    return timestamp


Id = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
Text = AfterValidator(_plain)
Label = Annotated[str, Field(min_length=1, max_length=128, json_schema_extra=PLAIN), Text]
Timestamp = Annotated[int, Field(ge=0), BeforeValidator(_seconds), AfterValidator(_not_ahead)]
Limit = Annotated[int, Field(ge=1, le=500), BeforeValidator(_whole)]


class In(BaseModel):
    """Base of what clients send as JSON."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ListQuery(BaseModel):
    """Parameters of a list of pins."""

    model_config = ConfigDict(extra="forbid")

    limit: Limit = Field(20, description="most items in the answer")
    cursor: Annotated[str, StringConstraints(max_length=400)] | None = Field(
        None, description="`next` of the page before"
    )
    exclude: Annotated[list[Id], Field(max_length=MAX_EXCLUDE, fail_fast=True), BeforeValidator(_split_commas)] = Field(
        default_factory=list, description="pin ids to leave out; repeat the parameter or separate by commas"
    )
    category: Label | None = Field(None, description="only pins of this category")
    language: Label | None = Field(None, description="only pins in this language")


class SearchQuery(BaseModel):
    """Parameters of the search by words."""

    model_config = ConfigDict(extra="forbid")

    q: Annotated[str, Field(min_length=1, max_length=200, json_schema_extra=PLAIN), Text] = Field(
        description="words, or the start of one"
    )
    limit: Limit = Field(20, description="most items in the answer")


Annotation = Annotated[str, Field(max_length=200, json_schema_extra=PLAIN), Text]
WORD: dict[str, Any] = {"type": "string", "pattern": r"\S"}
ENOUGH: dict[str, Any] = {  # what each field must hold to make a pin alone, for the API's description
    "title": WORD,
    "annotations": {"type": "array", "contains": WORD},
    "description": WORD,
    "visual": {"type": "array", "minItems": 1},
    "boards": {"type": "array", "minItems": 1},
}


class Content(In):
    """What a pin shows, and the boards it is on."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": [name], "properties": {name: ENOUGH[name]}} for name in ENOUGH]}
    )

    title: Annotated[str, Field(max_length=1000, json_schema_extra=PLAIN), Text] | None = None
    annotations: Annotated[list[Annotation], Field(max_length=200, fail_fast=True)] | None = None
    description: Annotated[str, Field(max_length=20_000, json_schema_extra=PLAIN), Text] | None = None
    image_url: Annotated[str, Field(max_length=2000, json_schema_extra=PLAIN), Text] | None = None
    visual: Annotated[list[FiniteFloat], Field(min_length=1, max_length=MAX_VISUAL, fail_fast=True)] | None = None
    category: Label | None = None
    language: Label | None = None
    boards: Annotated[list[Id], Field(max_length=MAX_BOARDS, fail_fast=True)] | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> Content:
        texts = (self.title, self.description, *(self.annotations or ()))
        if not (any(text and text.strip() for text in texts) or self.visual or self.boards):
            raise ValueError(f"give at least one of {', '.join(ENOUGH)}")
        return self


class PinIn(Content):
    """The body of PUT /v1/pins/{pin_id}."""


class StoredQuery(In):
    """A query by a pin that is there."""

    pin_id: Id


def _kind_of_query(given: Any) -> str:
    if isinstance(given, str):
        return BRANCH + "id"
    return BRANCH + ("stored" if isinstance(given, dict) and "pin_id" in given else "content")


Query = Annotated[
    Annotated[Id, Tag(BRANCH + "id")]
    | Annotated[StoredQuery, Tag(BRANCH + "stored")]
    | Annotated[Content, Tag(BRANCH + "content")],
    Discriminator(_kind_of_query),
]


class RelatedBatchIn(In):
    """The body of POST /v1/related: a query is a pin id, {"pin_id": …}, or content that is not stored."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"queries": ["p-1", {"title": "Walnut desk lamp", "boards": ["b-12"]}], "limit": 10}]
        }
    )

    queries: Annotated[list[Query], Field(min_length=1, max_length=MAX_QUERIES, fail_fast=True)]
    limit: Limit = 20


class EventIn(In):
    """What a user did with a pin."""

    type: Literal["save", "click", "hide", "impression"]
    pin_id: Id
    timestamp: Timestamp | None = Field(None, description="seconds since 1970; now when absent")
    board_id: Id | None = None
    event_id: Id | None = Field(None, description="the same id within a day counts once")


class EventBatch(In):
    """Several events, counted all or none."""

    events: Annotated[list[EventIn], Field(min_length=1, max_length=MAX_EVENTS, fail_fast=True)]


def _kind_of_events(given: Any) -> str:
    return BRANCH + ("batch" if isinstance(given, dict) and "events" in given else "event")


EventsIn = Annotated[
    Annotated[EventBatch, Tag(BRANCH + "batch")] | Annotated[EventIn, Tag(BRANCH + "event")],
    Discriminator(_kind_of_events),
]


class BoardPinIn(In):
    """One pin for a board."""

    pin_id: Id


class BoardPinsIn(In):
    """Several pins for a board: all or none are put on it."""

    pin_ids: Annotated[list[Id], Field(min_length=1, max_length=MAX_BOARDS, fail_fast=True)]


def _kind_of_pins(given: Any) -> str:
    return BRANCH + ("several" if isinstance(given, dict) and "pin_ids" in given else "one")


BoardPins = Annotated[
    Annotated[BoardPinsIn, Tag(BRANCH + "several")] | Annotated[BoardPinIn, Tag(BRANCH + "one")],
    Discriminator(_kind_of_pins),
]


class ReindexIn(In):
    """The body of POST /v1/admin/reindex; none at all means the default mode."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"mode": "index"}]})

    mode: Mode = Field(
        "index",
        description=(
            "index: vectors of new and changed pins as the live service embeds them, all others kept (quickest); "
            "embed: every vector anew with the model there is; train: the model too"
        ),
    )

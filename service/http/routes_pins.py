"""Related pins, search by words, and the pins themselves."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Response

from model.changes import PinRecord
from service.http.answers import BatchOut, PageOut, PinOut, PutOut
from service.http.dependencies import LiveDep, MetricsDep, PinId
from service.http.errors import invalid
from service.http.lists import list_arguments, send_batch, send_page, send_put
from service.http.routing import WITH_BODY, ListRoute, ReadRoute, WriteRoute, problems
from service.http.schemas import Content, ListQuery, PinIn, RelatedBatchIn, SearchQuery, StoredQuery
from service.live.failures import InvalidContent
from service.live.views import Page, PinContentIn

lists = APIRouter(prefix="/v1", tags=["pins"], route_class=ListRoute)
reads = APIRouter(prefix="/v1", tags=["pins"], route_class=ReadRoute)
writes = APIRouter(prefix="/v1", tags=["pins"], route_class=WriteRoute)

EXAMPLES: Any = {
    "full": {
        "value": {
            "title": "Walnut desk lamp",
            "annotations": ["lamp", "walnut"],
            "category": "home",
            "boards": ["b-12", "b-77"],
        }
    },
    "boards only": {"value": {"boards": ["b-12"]}},
}


@lists.get(
    "/pins/{pin_id}/related",
    summary="Pins that are like a pin",
    response_model=PageOut,
    responses=problems("unknown-pin", "malformed-cursor", "not-ready"),
)
async def related_pins(pin_id: PinId, query: Annotated[ListQuery, Query()], live: LiveDep) -> Response:
    """The pins nearest to a pin, best first, the pin itself left out."""
    wanted = ("related", pin_id, query.category, query.language, *query.exclude)
    found = await live.related(pin_id, **list_arguments(query, wanted))
    return send_page(found, wanted)


@reads.post(
    "/related",
    summary="Pins that are like each of several pins or contents",
    response_model=BatchOut,
    responses=problems(*WITH_BODY, "not-ready"),
)
async def related_batch(body: RelatedBatchIn, live: LiveDep) -> Response:
    """Many queries at once. Content is embedded as a new pin's would be, and not stored."""
    try:
        batch = await live.related_batch([_batch_query(query) for query in body.queries], limit=body.limit)
    except InvalidContent as error:
        raise invalid("body", "queries", str(error)) from None
    return send_batch(batch)


@reads.get("/search", summary="Pins by words", response_model=PageOut, responses=problems("not-ready"))
async def search_pins(query: Annotated[SearchQuery, Query()], live: LiveDep) -> Response:
    """Pins whose title or annotations hold the words, or begin with them."""
    found = await live.search_text(query.q, query.limit)
    return send_page(Page(live.release_id, found, None), ())


@reads.get("/pins/{pin_id}", summary="A pin", responses=problems("unknown-pin", "not-ready"))
async def get_pin(pin_id: PinId, live: LiveDep) -> PinOut:
    """What is stored of a pin."""
    return PinOut.model_validate(await live.get_pin(pin_id))


@writes.put(
    "/pins/{pin_id}",
    summary="Put a pin in, or replace it",
    status_code=201,
    response_model=PutOut,
    responses={
        200: {"model": PutOut, "description": "Replaced"},
        201: {"description": "New"},
        **problems(*WITH_BODY, "not-ready", "store-unavailable", "live-full"),
    },
)
async def put_pin(
    pin_id: PinId,
    body: Annotated[PinIn, Body(openapi_examples=EXAMPLES)],
    live: LiveDep,
    metrics: MetricsDep,
) -> Response:
    """Embeds the pin from its content and its boards, stores it, and answers when it can be found.

    A pin is replaced whole: what the body leaves out is gone afterwards.
    """
    result = await live.put_pin(_record(pin_id, body))
    metrics.observe_embedding(result.timings)
    return send_put(pin_id, result)


@writes.delete(
    "/pins/{pin_id}",
    summary="Take a pin out",
    status_code=204,
    responses=problems("unknown-pin", "not-ready", "store-unavailable"),
)
async def delete_pin(pin_id: PinId, live: LiveDep) -> None:
    """The pin is found no more; putting it again brings it back."""
    await live.delete_pin(pin_id)


def _batch_query(query: str | StoredQuery | Content) -> str | PinContentIn:
    if isinstance(query, str):
        return query
    if isinstance(query, StoredQuery):
        return query.pin_id
    return PinContentIn(
        title=query.title,
        annotations=tuple(query.annotations or ()),
        description=query.description,
        visual=None if query.visual is None else tuple(query.visual),
        boards=tuple(query.boards or ()),
    )


def _record(pin_id: str, body: PinIn) -> PinRecord:
    return PinRecord(
        pin_id=pin_id,
        title=body.title,
        annotations=tuple(body.annotations or ()),
        description=body.description,
        image_url=body.image_url,
        visual=None if body.visual is None else tuple(body.visual),
        category=body.category,
        language=body.language,
        boards=tuple(dict.fromkeys(body.boards or ())),
        created_at=int(time.time()),
    )

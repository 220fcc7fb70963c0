"""A user's feed, and what users do."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Query, Response

from service.http.answers import AcceptedOut, PageOut
from service.http.dependencies import LiveDep, UserId
from service.http.lists import list_arguments, send_page
from service.http.routing import WITH_BODY, ListRoute, WriteRoute, problems
from service.http.schemas import EventBatch, EventsIn, ListQuery
from service.live.views import Event

lists = APIRouter(prefix="/v1", tags=["users"], route_class=ListRoute)
writes = APIRouter(prefix="/v1", tags=["users"], route_class=WriteRoute)

EVENT_EXAMPLES = {
    "one": {"value": {"type": "save", "pin_id": "p-1"}},
    "batch": {
        "value": {"events": [{"type": "save", "pin_id": "p-1", "event_id": "e-1"}, {"type": "hide", "pin_id": "p-2"}]}
    },
}


@lists.get(
    "/users/{user_id}/homefeed",
    summary="A user's feed",
    response_model=PageOut,
    responses=problems("malformed-cursor", "not-ready"),
)
async def homefeed(user_id: UserId, query: Annotated[ListQuery, Query()], live: LiveDep) -> Response:
    """Pins for a user: like those saved and clicked, popular ones and new ones; each says which in its reason.

    A user that nobody heard of gets a feed as well.
    """
    wanted = ("homefeed", user_id, query.category, query.language, *query.exclude)
    found = await live.homefeed(user_id, **list_arguments(query, wanted))
    return send_page(found, wanted)


@writes.post(
    "/users/{user_id}/events",
    summary="What a user did",
    status_code=202,
    responses=problems(*WITH_BODY, "store-unavailable", "live-full"),
)
async def record_events(
    user_id: UserId, body: Annotated[EventsIn, Body(openapi_examples=EVENT_EXAMPLES)], live: LiveDep
) -> AcceptedOut:
    """One event or a batch; once the answer is here they are stored, and the next feed takes them into account.

    An event with an `event_id` counts once however often it is sent.
    """
    sent = body.events if isinstance(body, EventBatch) else [body]
    events = [Event(event.type, event.pin_id, event.timestamp, event.board_id, event.event_id) for event in sent]
    return AcceptedOut(accepted=await live.record_events(user_id, events))

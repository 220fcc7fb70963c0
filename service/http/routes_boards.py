"""Boards: which pins are on them. A board exists as soon as a pin is put on it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body

from service.http.answers import BoardOut
from service.http.dependencies import BoardId, LiveDep, PinId
from service.http.routing import WITH_BODY, WriteRoute, problems
from service.http.schemas import BoardPins, BoardPinsIn

writes = APIRouter(prefix="/v1/boards", tags=["boards"], route_class=WriteRoute)

EXAMPLES: Any = {"one": {"value": {"pin_id": "p-1"}}, "several": {"value": {"pin_ids": ["p-1", "p-2"]}}}


@writes.post(
    "/{board_id}/pins",
    summary="Put pins on a board",
    responses=problems("unknown-pin", *WITH_BODY, "not-ready", "store-unavailable", "live-full"),
)
async def add_board_pins(
    board_id: BoardId, body: Annotated[BoardPins, Body(openapi_examples=EXAMPLES)], live: LiveDep
) -> BoardOut:
    """The pins' vectors take the board into account from now on. One unknown pin refuses them all."""
    given = body.pin_ids if isinstance(body, BoardPinsIn) else [body.pin_id]
    pin_ids = list(dict.fromkeys(given))
    await live.set_edges(board_id, pin_ids, present=True)
    return BoardOut(board_id=board_id, pin_ids=pin_ids)


@writes.delete(
    "/{board_id}/pins/{pin_id}",
    summary="Take a pin off a board",
    status_code=204,
    responses=problems("unknown-pin", "not-ready", "store-unavailable"),
)
async def remove_board_pin(board_id: BoardId, pin_id: PinId, live: LiveDep) -> None:
    """Taking off a pin that is not on the board changes nothing."""
    await live.set_edge(board_id, pin_id, False)

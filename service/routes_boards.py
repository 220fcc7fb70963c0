"""Boards: which pins are on them. A board exists as soon as a pin is put on it."""

from __future__ import annotations

from fastapi import APIRouter

from service.answers import BoardOut
from service.dependencies import BoardId, LiveDep, PinId
from service.routing import WITH_BODY, WriteRoute, problems
from service.schemas import BoardPinsIn

writes = APIRouter(prefix="/v1/boards", tags=["boards"], route_class=WriteRoute)


@writes.post(
    "/{board_id}/pins",
    summary="Put pins on a board",
    responses=problems("unknown-pin", *WITH_BODY, "not-ready", "store-unavailable"),
)
async def add_board_pins(board_id: BoardId, body: BoardPinsIn, live: LiveDep) -> BoardOut:
    """The pins' vectors take the board into account from now on. One unknown pin refuses them all."""
    await live.set_edges(board_id, body.all_ids, present=True)
    return BoardOut(board_id=board_id, pin_ids=body.all_ids)


@writes.delete(
    "/{board_id}/pins/{pin_id}",
    summary="Take a pin off a board",
    status_code=204,
    responses=problems("unknown-pin", "not-ready", "store-unavailable"),
)
async def remove_board_pin(board_id: BoardId, pin_id: PinId, live: LiveDep) -> None:
    """Taking off a pin that is not on the board changes nothing."""
    await live.set_edge(board_id, pin_id, False)

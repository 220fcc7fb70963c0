"""Answers with many pins, written straight from what they hold: a batch of thirty thousand must not hold up the others.

The shapes are those of service.answers, which the API's description shows; a test holds the two together.
"""

from __future__ import annotations

from typing import Any

import orjson
from starlette.responses import Response

from service.http.cursor import MAX_OFFSET, Cursor, decode_cursor, encode_cursor
from service.http.schemas import ListQuery
from service.live.views import Batch, Item, Page, PutResult

UNKNOWN = {"items": [], "error": "unknown-pin"}


def list_arguments(query: ListQuery, wanted: tuple[Any, ...]) -> dict[str, Any]:
    """The arguments of a list that `wanted` describes; raises Problem for a cursor of another list."""
    offset = decode_cursor(query.cursor, wanted).offset if query.cursor else 0
    return {
        "limit": query.limit,
        "offset": offset,
        "exclude": query.exclude,
        "category": query.category,
        "language": query.language,
    }


def send_page(page: Page, wanted: tuple[Any, ...]) -> Response:
    """A page with the cursor of the next one."""
    following = page.next_offset
    ends = following is None or following >= MAX_OFFSET
    cursor = None if ends or following is None else encode_cursor(Cursor(page.release, following), wanted)
    return _send({"release": page.release, "items": list(map(_item, page.items)), "next": cursor})


def send_batch(batch: Batch) -> Response:
    """One list for each query."""
    results = [
        UNKNOWN if items is None else {"items": list(map(_item, items)), "error": None} for items in batch.results
    ]
    return _send({"release": batch.release, "results": results})


def send_put(pin_id: str, result: PutResult) -> Response:
    """The answer to a PUT."""
    neighbors = [{"pin_id": neighbor, "weight": weight} for neighbor, weight in result.neighbors]
    answer = {"pin_id": pin_id, "release": result.release, "neighbors": neighbors, "timings": result.timings}
    return _send(answer, 201 if result.created else 200)


def _item(item: Item) -> dict[str, Any]:
    sent = {
        "pin_id": item.pin_id,
        "score": item.score,
        "title": item.title,
        "image_url": item.image_url,
        "reason": item.reason,
    }
    if item.source_pin_id is not None:
        sent["source_pin_id"] = item.source_pin_id
    return sent


def _send(document: dict[str, Any], status: int = 200) -> Response:
    return Response(orjson.dumps(document), status, media_type="application/json")

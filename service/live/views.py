"""What goes in and out of the data side of the service: plain values, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

EventType = Literal["save", "click", "hide", "impression"]


class Item(NamedTuple):
    """One pin of a list.

    score          cosine to what the list was asked for (homefeed: to the pin it is there for); 0 where none applies
    reason         why it is there: see service.related and service.homefeed
    source_pin_id  the user's pin behind `because_you_saved` and `because_you_clicked`
    """

    pin_id: str
    score: float
    title: str | None
    image_url: str | None
    reason: str
    source_pin_id: str | None = None


@dataclass(frozen=True)
class Page:
    """Some items of a list, all from one release; `next_offset` is None at its end."""

    release: str
    items: list[Item]
    next_offset: int | None


@dataclass(frozen=True)
class Batch:
    """One list per query, all from one release; None where the query named a pin that is not there."""

    release: str
    results: list[list[Item] | None]


@dataclass(frozen=True)
class PinContentIn:
    """Content of a pin that is asked about and not stored; fields as in model.changes.PinRecord."""

    title: str | None = None
    annotations: tuple[str, ...] = ()
    description: str | None = None
    visual: tuple[float, ...] | None = None
    boards: tuple[str, ...] = ()


@dataclass(frozen=True)
class PutResult:
    """What became of a pin that was put.

    created    False where it replaced a pin
    neighbors  (pin_id, weight) that its vector was pooled from, heaviest first
    timings    seconds by step: encode, walk, embed, store, total
    """

    created: bool
    release: str
    neighbors: list[tuple[str, float]]
    timings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """Something a user did; `timestamp` in seconds, None for now."""

    type: EventType
    pin_id: str
    timestamp: int | None = None
    board_id: str | None = None
    event_id: str | None = None


@dataclass(frozen=True)
class Action:
    """A save or click that is remembered of a user."""

    type: str
    pin_id: str
    timestamp: float


@dataclass(frozen=True)
class UserState:
    """What is remembered of a user: `recent` saves and clicks, hidden and shown pins, the newest first."""

    recent: tuple[Action, ...] = ()
    hides: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()

"""What can go wrong behind the HTTP layer, each with one meaning for clients.

    UnknownPin        there is no such pin, or it was deleted                        404
    UnknownRelease    there is no such release                                       404
    InvalidContent    a pin's content does not fit the release that is served        422
    DeltaFull         no room for more live pins before the next reindex             503
    Overloaded        its turn did not come in time; nothing was done                503
    NotReady          no release is served yet                                       503
    StoreUnavailable  Redis does not answer; no write was confirmed                  503
A release that cannot be served raises model.errors.ReleaseError.
"""

from __future__ import annotations

from model.errors import PinsageError


class UnknownPin(PinsageError):
    """There is no such pin, or it was deleted."""

    def __init__(self, pin_id: str) -> None:
        super().__init__(f"no pin {pin_id}")
        self.pin_id = pin_id


class UnknownRelease(PinsageError):
    """There is no such release."""


class InvalidContent(PinsageError):
    """A pin's content does not fit the release that is served; `field` names the culprit."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field, self.message = field, message


class DeltaFull(PinsageError):
    """No room for more live pins before the next reindex."""


class Overloaded(PinsageError):
    """More is asked than can be done in time."""


class NotReady(PinsageError):
    """No release is served yet."""


class StoreUnavailable(PinsageError):
    """Redis does not answer in time, or not at all."""

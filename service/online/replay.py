"""Changes go into a catalogue so that it ends as if all had come in the order of their numbers.

A process applies its own writes at once, ahead of what others wrote just before and the follower has not brought yet.
When such an older change comes, it is applied, and our newer ones about the same pin once more; it is left out where we
replaced or deleted the whole pin since.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from model.changes import Change, PinRecord
from service.live.catalogue import Catalogue
from service.live.wave import Applied

logger = logging.getLogger(__name__)


class Replay:
    """Applies changes to one catalogue; one caller at a time.

    seq              every change up to this number is in the catalogue
    num_quarantined  changes that could not be applied, and were left out
    """

    def __init__(self, catalogue: Catalogue, seq: int) -> None:
        self.catalogue = catalogue
        self.seq = seq
        self.num_quarantined = 0
        self._ahead: dict[str, list[Change]] = {}

    def own(self, record: Change) -> Applied | None:
        """Apply a change that we just wrote; None where it has no effect, or was brought already.

        Raises ValueError when it cannot be applied.
        """
        if record.seq <= self.seq:
            return None
        try:
            applied = self.catalogue.apply(record)
        except ValueError:
            self._is_in(record)
            raise
        self._is_in(record)
        return applied

    def follow(self, records: Iterable[Change]) -> None:
        """Apply changes from the log, ascending by number; those that are in already are left out."""
        due: list[Change] = []
        last = self.seq
        for record in records:
            if record.seq > last:
                due += self._with_newer(record)
                last = record.seq
        self.catalogue.apply_all(due, lambda record, error: self.quarantine(record.key, error))
        self.seq = last  # not before: others look at it without waiting for us

    def reached(self, seq: int) -> None:
        """The log holds nothing more up to this number."""
        self.seq = max(self.seq, seq)
        self._ahead = {
            pin_id: newer
            for pin_id, records in self._ahead.items()
            if (newer := [record for record in records if record.seq > self.seq])
        }

    def quarantine(self, what: str, why: object) -> None:
        """Something in the log cannot be used."""
        self.num_quarantined += 1
        logger.warning("change of %s left out: %s", what, why)

    def _is_in(self, record: Change) -> None:
        if record.seq == self.seq + 1:
            self.seq = record.seq
        else:
            self._ahead.setdefault(record.pin_id, []).append(record)

    def _with_newer(self, record: Change) -> list[Change]:
        """What a change from the log means here: nothing, itself, or itself and our newer ones about the same pin."""
        ahead = self._ahead.pop(record.pin_id, [])
        newer = [own for own in ahead if own.seq > record.seq]
        if newer:
            self._ahead[record.pin_id] = newer
        if any(own.seq == record.seq for own in ahead) or any(isinstance(own, PinRecord) for own in newer):
            return []
        return [record, *newer]

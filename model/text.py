"""Words of a pin: one rule for fitting, for bulk encoding and for a pin posted a second ago."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

WORD = re.compile(r"[^\W_]+")  # letters and digits of any script


def tokenize(title: str | None, description: str | None, annotations: Iterable[str]) -> list[str]:
    """The tokens of a pin's texts, with repeats.

    An annotation gives itself, whole, as "#annotation", and its words; so a tag is known both as the tag that other
    pins carry and as the words that others have in their titles.
    """
    tokens = words(title or "") + words(description or "")
    for annotation in annotations:
        inner = words(annotation)
        if inner:
            tokens.append("#" + " ".join(inner))
            tokens += inner
    return tokens


def words(text: str) -> list[str]:
    """Lower-cased runs of letters and digits; compatibility forms and split accents count as one letter."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return WORD.findall(text.lower())

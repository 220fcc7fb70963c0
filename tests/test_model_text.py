"""Words of a pin."""

from __future__ import annotations

import pytest

from model.text import tokenize, words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("Hello, World! 2nd try", ["hello", "world", "2nd", "try"]),
        ("snake_case and semi-detached", ["snake", "case", "and", "semi", "detached"]),
        ("Ärger über Łódź", ["ärger", "über", "łódź"]),
        ("кофе 咖啡", ["кофе", "咖啡"]),
        ("cafe\u0301", ["café"]),  # an accent of its own joins its letter
        ("\ufb01lm", ["film"]),  # a ligature is two letters
        ("--- ... ___", []),
    ],
)
def test_words_are_lower_case_runs_of_letters_and_digits_of_any_script(text: str, found: list[str]) -> None:
    assert words(text) == found


def test_an_annotation_gives_itself_whole_and_its_words() -> None:
    assert tokenize("Red chair", None, ["Living Room", "RED"]) == [
        *("red", "chair"),
        *("#living room", "living", "room"),
        *("#red", "red"),
    ]


def test_annotations_that_differ_in_case_and_punctuation_are_one_tag() -> None:
    assert tokenize(None, None, ["machine-learning"]) == tokenize(None, None, [" Machine  learning "])


def test_nothing_known_gives_no_tokens() -> None:
    assert tokenize(None, None, []) == tokenize("", "", ["", "--"]) == []

"""``widen``: a window with the sentences around it, by hand first, then what must hold for any text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colbert_core import widen

TEXT = "Dogs bark. Cats purr. Hens cluck. Fish are silent."
CATS = (11, 21)


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (1, "Cats purr."),
        (10, "Cats purr."),
        (20, "Cats purr."),
        (21, "Dogs bark. Cats purr."),
        (32, "Dogs bark. Cats purr."),
        (33, "Dogs bark. Cats purr. Hens cluck."),
        (49, "Dogs bark. Cats purr. Hens cluck."),
        (50, TEXT),
        (2000, TEXT),
    ],
)
def test_whole_sentences_are_added_on_both_sides_as_long_as_they_fit(most, expected):
    start, end = widen(TEXT, CATS, most)
    assert TEXT[start:end] == expected


def test_a_sentence_that_the_window_cuts_is_completed():
    start, end = widen(TEXT, (16, 27), 24)  # "purr. Hens "
    assert TEXT[start:end] == "Cats purr. Hens cluck."


def test_one_long_side_does_not_keep_the_other_from_growing():
    text = f"{'x' * 500}. Cats purr. Hens cluck. Ducks quack."
    start = text.index("Cats")
    assert widen(text, (start, start + 10), 60) == (start, len(text))


def test_where_no_sentence_ends_words_are_added():
    assert widen("word " * 1000, (2000, 2199), 900) == (1650, 2549)
    assert widen("x" * 5000, (2000, 2200), 900) == (2000, 2200)


def test_a_budget_without_sense_is_refused():
    with pytest.raises(ValueError, match="max_characters must be at least 1, got 0"):
        widen(TEXT, CATS, 0)
    with pytest.raises(TypeError, match=r"max_characters must be a whole number of characters, got 1\.5"):
        widen(TEXT, CATS, 1.5)


@given(st.text(alphabet="ab. \n`#", max_size=80), st.integers(0, 80), st.integers(0, 80), st.integers(1, 100))
def test_the_window_is_in_it_and_only_a_long_window_is_above_the_budget(text, one, other, most):
    window = tuple(sorted((min(one, len(text)), min(other, len(text)))))
    start, end = widen(text, window, most)
    assert 0 <= start <= window[0] <= window[1] <= end <= len(text)
    assert end - start <= most or (start, end) == window

"""Which texts have something to read."""

from __future__ import annotations

import pytest

from colbert_core.text.blank import check_queries, has_no_words, is_blank

INVISIBLE = [
    "",
    " \n\t",
    "\u200b",
    "\ufeff",
    "\u00ad",
    "\u2060",
    "\x00",
    "\ue000",
    "\u3164",
    "\ufe0f",
    "\u2800",
    "\uffff",
    "\u180e",
]
VISIBLE = ["a", "7", ".", "\u00e9", "\u4e2d", "\N{CAT FACE}", "\u200bcat\u200b", "\ufffd", "\u0627", "\u0301", "\uac00"]


@pytest.mark.parametrize("text", INVISIBLE, ids=ascii)
def test_what_shows_nothing_is_blank(text):
    assert is_blank(text)
    assert has_no_words(text)
    with pytest.raises(ValueError, match="^The query is empty"):
        check_queries([text])


@pytest.mark.parametrize("text", VISIBLE, ids=ascii)
def test_what_shows_something_is_not(text):
    assert not is_blank(text)
    check_queries([text])


def test_punctuation_is_seen_but_has_no_words():
    assert [has_no_words(text) for text in ("----", "...!?", "- a", "3.")] == [True, True, False, False]


def test_the_error_names_the_query_and_what_is_in_it():
    with pytest.raises(ValueError, match=r"^Query 2 \(of 3, counted from 0\) is empty: '\\u200b' has no character"):
        check_queries(["a", "b", "\u200b"])


def test_a_megabyte_of_blanks_is_looked_at_at_once():
    assert is_blank(" " * 10**7)

"""Texts become terms: stems, identifiers whole and by their parts, pairs of letters where words have no blanks between them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colbert_core.text.words import ANALYSERS, JOINTS, analyser

ENGLISH = analyser("english")


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("Cats were purring.", "cat were pur"),
        ("the of and", ""),
        ("the cat's own, cats' and don't", "cat own cat dont"),
        ("numpy.einsum_path", "numpy.einsum_path numpi einsum path"),
        ("ECONNRESET", "econnreset"),
        ("CVE-2023-1234", "cve-2023-1234 cve 2023 1234"),
        ("A-12/b", "a-12/b 12"),
        ("C++ and C# or .NET 8", "c++ c# net 8"),
        ("state-of-the-art TCP/IP and/or", "state art tcp ip"),
        ("parseQuery", "parsequeri"),
        ("naïve ﬁnale Ｆｕｌｌ", "naiv final full"),
        ("北京大学 在", "北京 京大 大学 在"),
        ("हिन्दी", "हिन्दी"),
        ("vitamin D", "vitamin d"),
        ("me@example.org", "me@example.org me exampl org"),
        ("x" * 100, "x" * 64),
        ("⑴", "1"),
        ("o'brien@example.org", "obrien@example.org obrien exampl org"),
        ("!?... -- *", ""),
    ],
)
def test_english_terms(text, terms):
    assert ENGLISH.terms(text) == terms.split()


def test_a_query_has_each_term_once():
    assert ENGLISH.query_terms("cats and dogs and a cat") == ["cat", "dog"]


def test_words_are_neither_stemmed_nor_left_out():
    assert analyser("words").terms("The Cats were") == ["the", "cats", "were"]


def test_trigrams_find_parts_of_words():
    terms = {*analyser("trigrams").terms("ECONNRESET")}
    assert {*analyser("trigrams").query_terms("connreset")} <= terms
    assert analyser("trigrams").terms("ab") == ["ab"]


def test_an_unknown_analyser_is_refused():
    with pytest.raises(ValueError, match=r"words must be one of english, words, trigrams, or None .* got 'french'"):
        analyser("french")


@pytest.mark.parametrize("name", ANALYSERS)
@given(st.text(max_size=60))
def test_terms_of_any_text_hold_nothing_that_would_divide_them(name, text):
    text = text.encode("utf-8", "replace").decode()
    for term in analyser(name).terms(text):
        assert 0 < len(term) <= 64
        assert all(letter in JOINTS or not letter.isascii() or letter.isalnum() for letter in term)
    assert {*analyser(name).query_terms(text)} <= {*analyser(name).terms(text)}


@pytest.mark.parametrize("name", ANALYSERS)
@given(st.text(max_size=60))
def test_pieces_are_the_terms_with_their_characters(name, text):
    text = text.encode("utf-8", "replace").decode()
    pieces = list(analyser(name).pieces(text))
    assert [piece.term for piece in pieces] == analyser(name).terms(text)
    assert all(0 <= start < end <= len(text) for start, end in (piece.span for piece in pieces))


def test_characters_of_an_identifiers_parts():
    assert [(piece.term, "numpy.einsum_path"[slice(*piece.span)]) for piece in ENGLISH.pieces("numpy.einsum_path")] == [
        ("numpy.einsum_path", "numpy.einsum_path"),
        ("numpi", "numpy"),
        ("einsum", "einsum"),
        ("path", "path"),
    ]

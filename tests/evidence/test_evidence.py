"""Evidence: what matched, by hand first, then on real models and any script, and how it is shown."""

from __future__ import annotations

import json

import numpy as np
import pytest
from builders.encoders import SpanEncoder
from builders.evidence import Shown, evidence
from hypothesis import given, settings
from hypothesis import strategies as st

from colbert_core import Passage, Reranker

# By hand
from colbert_core.text.blank import has_no_words


def test_each_query_token_points_to_its_best_passage_token():
    encoder = SpanEncoder()
    found = Reranker(encoder).explain("dogs bark", Passage("x", "all dogs and cats bark"))
    assert found.similarities.shape == (3, 5)
    assert [match.query_span for match in found.matches] == [(0, 0), (0, 4), (5, 9)]
    assert found.matches[1].span == (4, 8)
    assert found.matches[2].span == (18, 22)
    assert found.matches[1].similarity == pytest.approx(1, abs=1e-5)
    assert found.score == pytest.approx(float(found.similarities.max(axis=1).sum()), abs=1e-5)
    assert [(one.start, one.end, one.terms) for one in found.highlights] == [(4, 8, ("dogs",)), (18, 22, ("bark",))]
    assert found.unmatched == ()


def test_words_that_nothing_matches_are_named_in_their_order():
    found = Reranker(SpanEncoder()).explain("zebras and dogs yodel", Passage("x", "dogs and cats"))
    assert found.unmatched == ("zebras", "yodel")


def test_a_match_weighs_by_how_far_it_stands_out():
    # The first term is as similar to everything; the second has one token to itself.
    rows = [[0.8, 0.6, 0.6, 0.6], [0.1, 0.9, 0.1, 0.1]]
    found = evidence("the fox", "a fox is here", [((0, 3), (0, 1), 0.8), ((4, 7), (2, 5), 0.9)], n=4, rows=rows)
    (both,) = found.highlights  # neighbours are one
    assert (both.start, both.end) == (0, 5)
    assert both.weight == 1
    assert both.similarity == pytest.approx(0.9)
    assert both.terms == ("the", "fox")
    apart = evidence("the fox", "a red fox is", [((0, 3), (0, 1), 0.8), ((4, 7), (6, 9), 0.9)], n=4, rows=rows)
    assert [one.weight for one in apart.highlights] == pytest.approx([(0.8 - 0.65) / (0.9 - 0.3), 1])


def test_a_piece_of_a_word_marks_the_whole_word_on_both_sides():
    matches = [((0, 3), (4, 8), 0.9), ((3, 7), (8, 12), 0.2)]  # "run|ning" of "out|runn|ings"
    found = evidence("running", "big outrunnings", matches, rows=[[0.9, 0], [0.2, 0]], n=2)
    (only,) = found.highlights
    assert (only.start, only.end, only.terms) == (4, 15, ("running",))
    assert found.unmatched == ()  # one of its pieces was found


def test_the_models_own_tokens_and_punctuation_are_no_evidence():
    matches = [((0, 0), (0, 3), 1.0), ((0, 3), (5, 5), 1.0), ((3, 4), (3, 4), 1.0)]
    found = evidence("cat?", "cat?!", matches, rows=np.eye(3), n=3)
    assert found.highlights == ()


def test_matches_below_the_threshold_do_not_count():
    encoder = SpanEncoder()
    reranker, passage = Reranker(encoder), Passage("x", "dogs bark")
    assert reranker.explain("dogs yodel", passage, min_similarity=-1).unmatched == ()
    strict = reranker.explain("dogs yodel", passage, min_similarity=1)
    assert strict.min_similarity == 1
    assert "yodel" in strict.unmatched


@pytest.mark.parametrize(
    ("text", "piece", "word"),
    [
        ("日本の首都は東京です", "東", "東"),  # no blanks between words: the piece stays
        ("한국어 단어", "국", "국"),
        ("ภาษาไทย", "ษา", "ษา"),
        ("cafe\u0301s here", "caf", "cafe\u0301s"),  # a combining accent belongs to its letter
        ("a 👩\u200d🔬 works", "👩", "👩\u200d🔬"),  # one emoji of three characters
        ("Straßenbahn!", "bahn", "Straßenbahn"),
        ("naïve", "ve", "naïve"),
    ],
)
def test_words_are_whole_in_any_script(text, piece, word):
    start = text.index(piece)
    found = evidence("x", text, [((0, 1), (start, start + len(piece)), 0.9)], rows=[[0.9, 0]], n=2)
    (only,) = found.highlights
    assert text[only.start : only.end] == word


@settings(max_examples=40)
@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(lambda query: not has_no_words(query)),
)
def test_spans_are_inside_any_text_and_the_marked_text_is_the_text(stanford, text, query):
    found = Reranker(stanford).explain(query, Passage("x", text), min_similarity=0.1)
    places = [place for one in found.highlights for place in (one.start, one.end)]
    assert places == sorted(places)
    assert all(0 <= one.start < one.end <= len(text) and 0 < one.weight <= 1 for one in found.highlights)
    assert all(0 <= start <= end <= len(query) for start, end in (match.query_span for match in found.matches))
    assert all(word in query for word in found.unmatched)
    json.dumps(found.to_dict())
    start, end = found.window
    assert Shown.of(found.to_html()).passage == "… " * (start > 0) + text[start:end] + " …" * (end < len(text))
    assert Shown.of(found.to_html()).query == query
    assert "\n" not in found.to_terminal()


# Shown


def test_the_heat_map_has_a_row_for_each_query_vector_and_frames_the_best(stanford):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    from matplotlib import pyplot

    found = Reranker(stanford).explain("cat $mat$", Passage("x$", "the cat sat on a mat $5"))
    ax = found.plot()
    assert ax.get_images()[0].get_array().shape == found.similarities.shape
    assert len(ax.patches) == len(found.matches)
    assert [label.get_text() for label in ax.get_yticklabels()][2] == "cat"
    ax.figure.canvas.draw()  # a "$" starts no formula
    pyplot.close(ax.figure)
    figure, mine = pyplot.subplots()
    assert found.plot(mine) is mine
    pyplot.close(figure)


def test_the_heat_map_without_matplotlib_names_the_pip_line(monkeypatch):
    import sys

    from colbert_core import MissingExtraError

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match="pip install matplotlib"):
        evidence("x", "x", [((0, 1), (0, 1), 0.9)], rows=[[0.9, 0]], n=2).plot()

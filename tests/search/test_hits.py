"""Ranked passages as hits, by hand."""

from __future__ import annotations

from colbert_core import Hit, Passage
from colbert_core.search.hits import Ranked, relevance_of, to_hits

PASSAGES = [Passage("a", "cats"), Passage("b", "dogs")]
RANKING = Ranked([7, 3], [3.0, 1.0], [(0, 4), (1, 2)])


def test_a_relevance_is_the_score_per_query_vector_from_0_to_1():
    assert relevance_of(3.0, 4) == 0.75
    assert (relevance_of(-0.5, 4), relevance_of(4.2, 4)) == (0, 1)


def test_hits_have_ranks_relevances_and_spans():
    assert to_hits(PASSAGES, RANKING, 4, None) == [
        Hit(PASSAGES[0], 3.0, 0.75, 1, (0, 4)),
        Hit(PASSAGES[1], 1.0, 0.25, 2, (1, 2)),
    ]


def test_a_threshold_keeps_what_reaches_it():
    assert [hit.passage.id for hit in to_hits(PASSAGES, RANKING, 4, 0.75)] == ["a"]
    assert [hit.passage.id for hit in to_hits(PASSAGES, RANKING, 4, 0.25)] == ["a", "b"]

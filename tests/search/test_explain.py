"""Evidence of what was found: of which window, by which vectors, with which encoder."""

from __future__ import annotations

import numpy as np
import pytest
from builders.encoders import SpanEncoder
from hypothesis import given, settings
from hypothesis import strategies as st

from colbert_core import Index, Passage, Reranker, TokenEmbeddings
from colbert_core.text.blank import has_no_words


@pytest.mark.parametrize("nbits", [None, 4, 2])
def test_an_index_explains_with_the_vectors_that_it_scored(stanford, nbits):
    index = Index.create(None, stanford, nbits=nbits)
    index.add([Passage(str(number), f"the cat sat on a mat and dogs bark {number}") for number in range(300)])
    index.compact()
    for hit in index.search("what sound does a cat make", 5, evidence=True):
        assert hit.evidence.score == pytest.approx(hit.score, abs=2e-4)
        assert hit.evidence.relevance == pytest.approx(hit.relevance, abs=2e-4)
        assert hit.evidence.window == hit.span
        again = index.explain("what sound does a cat make", hit)
        assert again.to_dict() == hit.evidence.to_dict()
        assert again.to_dict() == index.explain("what sound does a cat make", hit.passage.id).to_dict()


def test_evidence_is_of_the_window_that_won():
    encoder = SpanEncoder()
    text = "rust is a language of systems and more " * 3 + "what sound does a cat make at night " + "a b c d e f g h " * 3
    index = Index.create(None, encoder)
    index.add([Passage("long", text)])
    (hit,) = index.search("cat sound", evidence=True)
    assert hit.text == "what sound does a cat make at night"
    assert [text[one.start : one.end] for one in hit.evidence.highlights] == ["sound", "cat"]
    assert hit.evidence.window == hit.span
    assert Reranker(encoder).rank("cat sound", [hit.passage], evidence=True)[0].evidence.window == hit.span


def test_no_model_runs_to_explain_what_was_found(stanford, monkeypatch):
    index = Index.create(None, stanford)
    index.add([Passage("a", "the cat sat on a mat")])

    def refuse(*_, **__):
        raise AssertionError("it was encoded again")

    monkeypatch.setattr(type(stanford), "encode_passages", refuse)
    assert index.search("cat", evidence=True)[0].evidence.matches


def test_pooled_vectors_are_explained_by_all_tokens_of_the_passage(stanford):
    index = Index.create(None, stanford)
    index.add([Passage("a", "the cat sat on a mat and dogs bark and purr")], pool_factor=2)
    found = index.search("cat mat", evidence=True)[0].evidence
    assert len(found.token_spans) > index.stats().tokens
    assert len(found.token_spans) == found.similarities.shape[1]


def test_embeddings_without_spans_still_have_matches(words):
    index = Index.create(None, words)
    text = "all dogs bark"
    vectors = words.encode_passages([text]).vectors
    index.add([Passage("x", text)], embeddings=[vectors])
    found = index.explain("dogs", "x")
    assert found.matches[0].span == (4, 8)  # encoded again, since nobody said where its vectors are from
    assert isinstance(words.encode_passages([text]), TokenEmbeddings)


def test_an_encoder_of_the_users_own_needs_nothing_more(words):
    found = Reranker(words).explain("dogs bark", Passage("x", "all dogs bark"))
    assert [match.span for match in found.matches] == [(4, 8), (9, 13)]
    assert found.highlights == ()  # it cannot say which words asked
    index = Index.create(None, words)
    index.add([Passage("x", "all dogs bark")])
    assert index.explain("dogs bark", "x").score == pytest.approx(2, abs=1e-5)


def test_bad_arguments_are_refused(stanford):
    index = Index.create(None, stanford)
    index.add([Passage("a", "the cat")])
    with pytest.raises(ValueError, match="no passage with the id 'b'"):
        index.explain("cat", "b")
    with pytest.raises(ValueError, match="The query is empty"):
        index.explain("  ", "a")
    with pytest.raises(TypeError, match="the words of the query"):
        index.explain(np.ones((1, 16), np.float32), "a")
    with pytest.raises(TypeError, match="an id, a Passage or a Hit, got 3"):
        index.explain("cat", 3)
    with pytest.raises(ValueError, match="from -1 to 1, got 2"):
        index.explain("cat", "a", min_similarity=2)
    with pytest.raises(TypeError, match="from -1 to 1, got 'high'"):
        Reranker(stanford).explain("cat", Passage("a", "the cat"), min_similarity="high")
    with pytest.raises(TypeError, match="evidence needs the words of each query, got a ndarray"):
        index.search(np.ones((1, 16), np.float32), evidence=True)
    with pytest.raises(TypeError, match="not a Passage"):
        Reranker(stanford).explain("cat", "the cat")


def test_a_threshold_drops_hits_and_their_evidence_together(stanford):
    index = Index.create(None, stanford)
    index.add([Passage("a", "what sound does a cat make"), Passage("b", "rust is a language")])
    best = index.search("what sound does a cat make", 1)[0].relevance
    (hit,) = index.search("what sound does a cat make", min_relevance=best - 1e-4, evidence=True)
    assert hit.evidence.passage_id == "a"
    (ranked,) = Reranker(stanford).rank(
        "what sound does a cat make", index.get(["a", "b"]), min_relevance=best - 1e-3, evidence=True
    )
    assert ranked.evidence.passage_id == "a"


def test_white_space_around_the_query_shifts_its_spans(stanford):
    passage = Passage("a", "the cat")
    plain, padded = (Reranker(stanford).explain(query, passage) for query in ("cat dogs", " \n cat dogs\t"))
    assert [match.similarity for match in padded.matches] == pytest.approx([match.similarity for match in plain.matches])
    assert [padded.query[slice(*match.query_span)] for match in padded.matches] == [
        plain.query[slice(*match.query_span)] for match in plain.matches
    ]
    assert padded.unmatched == plain.unmatched


@settings(max_examples=40)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
def test_the_spans_of_tokens_are_those_of_encoding(stanford, text):
    embeddings = stanford.encode_passages([text])
    windows = stanford.passage_spans(text)
    assert [span for span, _ in windows] == [tuple(span) for span in embeddings.window_spans.tolist()]
    np.testing.assert_array_equal(np.concatenate([spans for _, spans in windows]), embeddings.token_spans)
    if not has_no_words(text):
        assert len(stanford.query_spans(text)) == len(stanford.encode_queries([text])[0])

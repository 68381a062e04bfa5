"""Excerpts: which sentences stay, by hand first, then what must hold for any text and budget."""

from __future__ import annotations

import pytest
from builders.encoders import WordEncoder
from hypothesis import given, settings
from hypothesis import strategies as st

from colbert_core import Passage, Reranker
from colbert_core.search.excerpts import score_sentences
from colbert_core.text.splitter import sentences

CATS = Passage("cats", "Cats are mammals. They purr when content. Some live indoors.", {"page": 1})
DOGS = Passage("dogs", "Dogs bark at night. They purr never. Some bark by day.")


def count(text: str) -> int:
    return len(text.split())


def kept(query, passages, **budget):
    return {one.passage.id: one.text for one in Reranker(WordEncoder()).excerpts(query, passages, count_tokens=count, **budget)}


# Sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("  One.\n\n  Two  ", ["One.", "Two"]),
        ("Dr. Smith met J. K. Rowling. They spoke.", ["Dr. Smith met J. K. Rowling.", "They spoke."]),
        ("猫は鳴く。犬は吠える。", ["猫は鳴く。", "犬は吠える。"]),
        ("Read this:\n```\na = 1.\nb = 2.\n```\nDone.", ["Read this:", "```\na = 1.\nb = 2.\n```", "Done."]),
        ("- one\n- two", ["- one", "- two"]),
        (" \n ", []),
        ("", []),
    ],
)
def test_texts_are_cut_into_sentences(text, expected):
    assert [text[start:end] for start, end in sentences(text)] == expected


@given(st.text(alphabet="ab.!?\n `#。 ", max_size=80))
def test_sentences_cover_all_but_blanks_in_order(text):
    spans = sentences(text)
    assert [place for span in spans for place in span] == sorted(place for span in spans for place in span)
    assert "".join("".join(text[start:end] for start, end in spans).split()) == "".join(text.split())
    assert all(text[start:end] == text[start:end].strip() != "" for start, end in spans)


# By hand


def test_a_sentence_scores_by_maxsim_over_its_own_tokens():
    encoder = WordEncoder(window=4)  # windows end inside sentences
    text = "cats purr here . dogs bark there . ?"
    (query,) = encoder.encode_queries(["cats bark"])
    (scores,) = score_sentences(query, encoder.encode_passages([text]), [[(0, 16), (17, 34), (35, 36)]])
    vector = encoder.vector
    for place, words in enumerate(("cats purr here .", "dogs bark there .", "?")):
        expected = sum(max(float(vector(asked) @ vector(word)) for word in words.split()) for asked in ("cats", "bark"))
        assert scores[place] == pytest.approx(expected, abs=1e-5)


def test_a_sentence_without_tokens_scores_lowest():
    encoder = WordEncoder()
    (query,) = encoder.encode_queries(["cats bark"])
    (scores,) = score_sentences(query, encoder.encode_passages(["cats"]), [[(0, 4), (4, 4)]])
    assert scores[1] == -2


def test_the_best_sentences_of_all_passages_share_one_budget():
    assert kept("purr when content", [CATS, DOGS], max_tokens=4) == {"cats": "They purr when content."}
    assert kept("purr when content", [CATS, DOGS], max_tokens=7) == {
        "cats": "They purr when content.",
        "dogs": "They purr never.",
    }


def test_neighbours_stay_as_they_are_and_gaps_show():
    (only,) = Reranker(WordEncoder()).excerpts("Cats are Some live", [CATS], count_tokens=count, max_tokens=7)
    assert only.text == "Cats are mammals. … Some live indoors."  # the sign counts as well: 3 + 1 + 3
    assert only.spans == ((0, 17), (42, 60))
    assert (only.n_tokens, only.n_tokens_before) == (7, 10)
    (only,) = Reranker(WordEncoder()).excerpts("Cats purr when content", [CATS], count_tokens=count, max_tokens=7)
    assert only.text == CATS.text[:41]
    assert only.spans == ((0, 41),)


def test_the_order_of_passages_and_the_passages_themselves_stay():
    found = Reranker(WordEncoder()).excerpts("bark purr", [CATS, DOGS], count_tokens=count, keep_ratio=1)
    assert [one.passage for one in found] == [CATS, DOGS]
    assert found[0].passage is CATS
    assert [one.text for one in found] == [CATS.text, DOGS.text]


def test_a_ratio_is_of_all_tokens_together():
    assert kept("purr when content", [CATS, DOGS], keep_ratio=0.2) == {"cats": "They purr when content."}  # 4 of 21


def test_a_third_of_the_tokens_is_kept_where_nothing_else_is_said():
    assert kept("Some live indoors", [CATS, DOGS]) == kept("Some live indoors", [CATS, DOGS], keep_ratio=0.35) != {}
    assert kept("Some live indoors", [CATS, DOGS]) != kept("Some live indoors", [CATS, DOGS], keep_ratio=0.6)


def test_passages_with_nothing_left_are_left_out():
    assert list(kept("bark", [CATS, DOGS], max_tokens=4)) == ["dogs"]
    assert kept("bark", [], max_tokens=5) == {}
    assert kept("bark", [Passage("blank", " \n ")], max_tokens=5) == {}
    assert kept("bark", [Passage("blank", " \n "), DOGS], max_tokens=100) == {"dogs": DOGS.text}


def test_the_best_sentence_stays_where_it_alone_is_above_the_budget_and_no_worse_one_takes_its_place():
    assert kept("Dogs bark at", [CATS, DOGS], max_tokens=1) == {"dogs": "Dogs bark at night."}
    assert kept("Dogs bark at", [CATS, DOGS], max_tokens=3) == {"dogs": "Dogs bark at night."}  # "They purr never." would fit
    assert kept("cats", [Passage("one", "Cats are mammals.")]) == {"one": "Cats are mammals."}  # 0.35 of 3 is 1
    assert kept("Dogs bark at", [DOGS, CATS], keep_ratio=0.01) == {"dogs": "Dogs bark at night."}
    (only,) = Reranker(WordEncoder()).excerpts("Dogs bark at", [CATS, DOGS], count_tokens=count, max_tokens=1)
    assert (only.n_tokens, only.n_tokens_before) == (4, 11)


def test_the_models_own_tokenizer_counts_where_nothing_else_does(stanford):
    text = "The cat sat on a mat. Dogs bark. Rust is a language."
    (only,) = Reranker(stanford).excerpts("cat", [Passage("x", text)], keep_ratio=0.7)
    assert only.n_tokens == stanford.count_tokens(only.text)
    assert only.n_tokens_before == stanford.count_tokens(text) == 15
    assert only.n_tokens <= 10.5


@settings(max_examples=50)
@given(
    st.lists(st.text(alphabet="abc de.!\n", max_size=60), max_size=4),
    st.one_of(st.integers(1, 40), st.floats(0.05, 1)),
)
def test_any_budget_is_kept_but_for_the_best_sentence_and_every_span_is_text_of_its_passage(texts, budget):
    passages = [Passage(str(number), text) for number, text in enumerate(texts)]
    given_budget = {"max_tokens": budget} if isinstance(budget, int) else {"keep_ratio": budget}
    found = Reranker(WordEncoder()).excerpts("a b", passages, count_tokens=count, **given_budget)
    most = budget if isinstance(budget, int) else budget * sum(count(text) for text in texts)
    is_one_sentence = len(found) == 1 and len(sentences(found[0].text)) == 1
    assert sum(one.n_tokens for one in found) <= most or is_one_sentence
    assert bool(found) == any(text.strip() for text in texts)
    assert [one.passage.id for one in found] == sorted(one.passage.id for one in found)
    for one in found:
        assert one.n_tokens == count(one.text)
        assert one.text == " … ".join(one.passage.text[start:end] for start, end in one.spans)
        assert all(before[1] < behind[0] for before, behind in zip(one.spans, one.spans[1:], strict=False))


def test_bad_arguments_are_refused():
    reranker = Reranker(WordEncoder())
    with pytest.raises(ValueError, match="max_tokens or keep_ratio, one of them; got 5 and 0.5"):
        reranker.excerpts("cat", [CATS], max_tokens=5, keep_ratio=0.5)
    with pytest.raises(ValueError, match="max_tokens must be at least 1, got 0"):
        reranker.excerpts("cat", [CATS], max_tokens=0)
    with pytest.raises(ValueError, match=r"keep_ratio is a number from 0 to 1, got 1\.5"):
        reranker.excerpts("cat", [CATS], keep_ratio=1.5)
    with pytest.raises(ValueError, match="keep_ratio must be above 0"):
        reranker.excerpts("cat", [CATS], keep_ratio=0)
    with pytest.raises(ValueError, match="has no count_tokens"):
        reranker.excerpts("cat", [CATS], max_tokens=5)
    with pytest.raises(ValueError, match="is empty"):
        reranker.excerpts(" ", [CATS], max_tokens=5, count_tokens=count)
    with pytest.raises(TypeError, match="not a Passage"):
        reranker.excerpts("cat", ["text"], max_tokens=5, count_tokens=count)

"""Lift: what a word of a passage has to exceed to be evidence. By hand, for any numbers, and on the model in the box."""

from __future__ import annotations

import json
import pickle
import re
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from builders.encoders import SpanEncoder
from builders.evidence import evidence
from hypothesis import given
from hypothesis import strategies as st

from colbert_core import Evidence, Index, Passage, Reranker
from colbert_core.evidence.evidence import Match
from colbert_core.search.explain import cosines_of_subject, evidence_of
from colbert_core.vectors.background import Background

PAIRS = Path(__file__).parents[2] / "benchmarks" / "evidence_pairs.jsonl"
# Words that say nothing in the quickstart; "because" answers "why", and "no" answers "stop".
EMPTY = {
    "in",
    "it",
    "its",
    "by",
    "for",
    "from",
    "which",
    "a",
    "an",
    "and",
    "at",
    "he",
    "her",
    "him",
    "his",
    "is",
    "of",
    "on",
    "or",
    "that",
    "the",
    "their",
    "to",
    "was",
    "who",
    "with",
}


def lifted(query, text, similarities, expected, background, **options):
    """Evidence of a query and a text of one vector for each word."""
    similarities = np.array(similarities, np.float32)
    spans = [[match.span() for match in re.finditer(r"\S+", each)] for each in (query, text)]
    best = similarities.argmax(axis=1).tolist()
    matches = tuple(
        Match(span, spans[1][place], float(row[place])) for span, row, place in zip(spans[0], similarities, best, strict=True)
    )
    return Evidence(
        query,
        "p",
        text,
        (0, len(text)),
        matches,
        np.array(spans[1], np.int32),
        similarities,
        background=np.array(background, np.float32),
        expected=np.array(expected, np.float32),
        **options,
    )


# By hand


def test_every_word_above_what_was_expected_is_marked_and_not_the_best_alone():
    found = lifted(
        "the bread",
        "the loaf of bread",
        [[0.75, 0.2, 0.7, 0.2], [0.5, 0.75, 0.5, 1.0]],
        [[0.8, 0.6, 0.8, 0.6], [0.6, 0.5, 0.6, 0.5]],
        [0.6, 0.4],
    )
    assert [(found.text[mark.start : mark.end], mark.terms) for mark in found.highlights] == [
        ("loaf", ("bread",)),
        ("bread", ("bread",)),
    ]
    assert [mark.weight for mark in found.highlights] == pytest.approx([0.25 / 0.5, 1])
    the, bread = found.words
    assert (the.text, the.found, the.answers) == ("the", True, ())  # as similar as few words are, and nothing of its own
    assert [(found.text[answer.start : answer.end], answer.strength) for answer in bread.answers] == [
        ("bread", 1),
        ("loaf", pytest.approx(0.5)),
    ]
    assert found.lifts == pytest.approx(found.similarities - found.expected)


def test_only_a_word_without_any_lift_that_stays_in_the_background_is_crossed_out():
    found = lifted(
        "old did yodel",
        "cats purr",
        [[0.45, 0.1], [0.7, 0.2], [0.3, 0.2]],
        [[0.4, 0.4], [0.8, 0.8], [0.4, 0.4]],
        [0.5, 0.6, 0.4],
    )
    assert [(word.text, word.found, len(word.answers)) for word in found.words] == [
        ("old", True, 1),  # below the background, but with a lift
        ("did", True, 0),  # above the background, without one
        ("yodel", False, 0),
    ]
    assert found.unmatched == ("yodel",)


def test_a_least_cosine_decides_what_is_found_and_what_may_be_marked():
    values = ("old cats", "cats purr", [[0.45, 0.1], [0.7, 0.48]], [[0.4, 0.4], [0.3, 0.4]], [0.4, 0.4])
    assert [len(word.answers) for word in lifted(*values).words] == [1, 2]
    strict = lifted(*values, min_similarity=0.5)
    assert [len(word.answers) for word in strict.words] == [0, 1]
    assert strict.unmatched == ("old",)
    assert lifted(*values, min_similarity=-1.0).unmatched == ()
    assert lifted(*values, min_similarity=0.9).highlights == ()


def test_the_faintest_answers_are_left_out_but_not_the_best_of_a_word():
    found = lifted("one two", "a b c", [[0.9, 0.41, 0.1], [0.1, 0.1, 0.41]], np.full((2, 3), 0.4), [0.4, 0.4])
    assert [[(answer.start, answer.end) for answer in word.answers] for word in found.words] == [[(0, 1)], [(4, 5)]]


def test_neighbours_that_answer_the_same_word_about_as_well_are_one_mark():
    alike = lifted("american", "United States film", [[0.8, 0.7, 0.2]], [[0.3, 0.3, 0.3]], [0.3])
    assert [alike.text[mark.start : mark.end] for mark in alike.highlights] == ["United States"]
    unlike = lifted("american", "United States film", [[0.9, 0.5, 0.2]], [[0.3, 0.3, 0.3]], [0.3])
    assert [(unlike.text[mark.start : mark.end], round(mark.weight, 2)) for mark in unlike.highlights] == [
        ("United", 1),
        ("States", 0.33),
    ]


def test_the_subject_of_a_window_is_what_its_other_words_have_in_common():
    # Two words point along x, one along y. For each of x the others are x and y; y has weight 0 after rounds of the fourth power.
    x, y = [1.0, 0.0], [0.0, 1.0]
    vectors, queries = np.array([x, x, x, y], np.float32), np.array([[0.6, 0.8]], np.float32)
    found = cosines_of_subject(queries, vectors)
    assert found == pytest.approx(np.array([[0.6, 0.6, 0.6, 0.0]]), abs=2e-3)
    assert cosines_of_subject(queries, vectors[:1]) == pytest.approx(np.zeros((1, 1)))  # there is no other word


def test_what_is_expected_is_the_subject_and_the_spread_or_the_background_if_that_is_more(monkeypatch):
    spread = np.float32(0.1)
    around = Background(np.array([0.2, 0.0], np.float32), np.eye(2, dtype=np.float32) * spread**2)
    vectors = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], np.float32)
    query = np.array([[0.6, 0.8]], np.float32)
    spans, text = np.array([[0, 1], [2, 3], [4, 5], [6, 7]], np.int32), "a b c d"
    found = evidence_of("q", query, np.array([[0, 1]], np.int32), Passage("p", text), (0, 7), vectors, spans, None, around)
    assert found.background == pytest.approx([0.6 * 0.2 + 2.5 * 0.1])
    assert found.expected == pytest.approx(np.array([[0.6 + 0.215, 0.6 + 0.215, 0.6 + 0.215, 0.12 + 0.25]]), abs=2e-3)
    assert [text[mark.start : mark.end] for mark in found.highlights] == ["d"]  # 0.8 - 0.37; of the others 0.6 - 0.815


# For any numbers

NUMBERS = st.floats(-1, 1, width=32)


@given(st.data(), st.integers(1, 4), st.integers(1, 6), st.none() | NUMBERS)
def test_marks_are_words_of_the_window_with_a_lift_and_scores_are_those_of_the_cosines(data, n_q, n, least):
    rows = [data.draw(st.lists(NUMBERS, min_size=n, max_size=n)) for _ in range(n_q)]
    expected = [data.draw(st.lists(NUMBERS, min_size=n, max_size=n)) for _ in range(n_q)]
    query, text = " ".join(f"q{row}" for row in range(n_q)), " ".join(f"w{column}" for column in range(n))
    found = lifted(query, text, rows, expected, data.draw(st.lists(NUMBERS, min_size=n_q, max_size=n_q)), min_similarity=least)
    assert found.score == pytest.approx(float(found.similarities.max(axis=1).sum()), abs=1e-5)
    with_lift = {(3 * column, 3 * column + 2) for column in range(n) if (found.lifts[:, column] > 0).any()}
    for word in found.words:
        for answer in word.answers:
            assert (answer.start, answer.end) in with_lift
            assert 0 < answer.strength <= 1
            assert answer.similarity >= (-1 if least is None else least)
        assert word.found or not (word.answers and least is None)
    assert all(0 <= mark.start < mark.end <= len(text) for mark in found.highlights)
    assert {word.text for word in found.words if not word.found} == set(found.unmatched)
    again = Evidence.from_dict(json.loads(json.dumps(found.to_dict(full=True))))
    assert again == found
    assert hash(again) == hash(found)
    assert again.to_dict() == found.to_dict()


# To JSON and back


def test_evidence_of_an_index_is_the_same_again_by_way_of_json(stanford):
    index = Index.create(None, stanford)
    index.add([Passage("a", "the cat sat on a mat"), Passage("b", "dogs bark")])
    for mode in ("maxsim", "hybrid"):
        for least in (None, 0.3):
            found = index.explain("what cat", "a", mode=mode, min_similarity=least)
            again = Evidence.from_dict(json.loads(json.dumps(found.to_dict(full=True))))
            assert again == found
            assert (again.highlights, again.words, again.unmatched) == (found.highlights, found.words, found.unmatched)
            assert again.to_html() == found.to_html()
            assert pickle.loads(pickle.dumps(found)) == found
    assert found != index.explain("what cat", "b")
    assert found != "evidence"


def test_evidence_from_before_there_were_lifts_is_the_same_again():
    found = evidence("x", "before dogs after", [((0, 1), (7, 11), 0.9)], rows=[[0.9, 0]], n=2)
    assert Evidence.from_dict(json.loads(json.dumps(found.to_dict(full=True)))) == found
    assert [word["answers"][0]["text"] for word in found.to_dict()["words"]] == ["dogs"]


def test_the_words_of_the_query_are_told_with_their_answers():
    found = lifted("cats yodel", "cats purr", [[1.0, 0.2], [0.1, 0.2]], np.full((2, 2), 0.5), [0.4, 0.4])
    answer = {"start": 0, "end": 4, "text": "cats", "strength": 1.0, "similarity": 1.0}
    assert found.to_dict()["words"] == [
        {"word": "cats", "start": 0, "end": 4, "found": True, "answers": [answer]},
        {"word": "yodel", "start": 5, "end": 10, "found": False, "answers": []},
    ]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"similarities": [[1.0]]}, r"similarities are not finite numbers of shape \(2, 2\), but \(1, 1\)"),
        ({"background": [float("nan"), 0]}, "background are not finite numbers"),
        ({"window": [0, 99]}, r"the characters \(0, 99\) of a text that has 9"),
        ({"token_spans": [[0, "4"], [5, 9]]}, "token_spans cannot be read"),
        ({"matches": []}, "has no matches"),
        ({"query": 7}, "query cannot be read .no text, but 7"),
    ],
)
def test_a_dict_that_is_no_evidence_is_refused_by_name(changed, says):
    found = lifted("cats yodel", "cats purr", [[1.0, 0.2], [0.1, 0.2]], np.full((2, 2), 0.5), [0.4, 0.4])
    with pytest.raises(ValueError, match=says):
        Evidence.from_dict(found.to_dict(full=True) | changed)


def test_a_dict_without_all_values_and_what_is_none_are_refused():
    found = lifted("cats", "cats purr", [[1.0, 0.2]], [[0.5, 0.5]], [0.4])
    with pytest.raises(ValueError, match="lacks query, passage_id, text, matches"):
        Evidence.from_dict(found.to_dict())
    with pytest.raises(TypeError, match="got list"):
        Evidence.from_dict([found])


# Where the background is from


def test_a_reranker_with_an_index_takes_its_background_and_one_without_the_passage_itself():
    encoder = SpanEncoder()
    index = Index.create(None, encoder)
    index.add([Passage("a", "dogs bark"), Passage("b", "cats purr and sleep")])
    other = Passage("new", "all dogs bark")
    (query,) = encoder.encode_queries(["dogs"])
    means, spreads = index.background().cosines(query)
    with_index = Reranker(index=index).explain("dogs", other)
    assert with_index.background == pytest.approx(np.minimum(means + 2.5 * spreads, 0.5))
    alone = Reranker(encoder).explain("dogs", other)
    means, spreads = Background.of_vectors(encoder.encode_passages([other.text]).vectors).cosines(query)
    assert alone.background == pytest.approx(np.minimum(means + 2.5 * spreads, 0.5))
    assert Reranker(encoder).against(index.background()).explain("dogs", other) == with_index
    assert alone.similarities == pytest.approx(with_index.similarities)  # and so are scores


# The model in the box


@pytest.fixture(scope="module")
def quickstart(default_encoder):
    lines = files("colbert_core").joinpath("quickstart", "passages.jsonl").read_text(encoding="utf-8").splitlines()
    index = Index.create(None, default_encoder)
    index.add([Passage(line["id"], line["text"]) for line in map(json.loads, lines)])
    return index


def test_most_pairs_of_words_that_mean_the_same_are_found(quickstart):
    pairs = [json.loads(line) for line in PAIRS.read_text(encoding="utf-8").splitlines()]
    found = 0
    for pair in pairs:
        evidence = quickstart.explain(pair["question"], pair["id"])
        answers = [answer for word in evidence.words if word.text.startswith(pair["word"]) for answer in word.answers]
        found += any(pair["answer"] in evidence.text[answer.start : answer.end] for answer in answers)
    assert len(pairs) == 60
    assert found >= 48  # 55 when this was written


def test_words_that_say_nothing_are_not_marked_in_the_quickstart(quickstart):
    lines = files("colbert_core").joinpath("quickstart", "questions.jsonl").read_text(encoding="utf-8").splitlines()
    for question in map(json.loads, lines):
        found = quickstart.explain(question["question"], question["answer_id"])
        marked = {word.lower() for mark in found.highlights for word in found.text[mark.start : mark.end].split()}
        assert not EMPTY & marked
        assert len(found.highlights) >= 3
        assert found.unmatched == ()


def test_found_is_answered_by_established(quickstart):
    found = quickstart.explain("What animation studio did Miyazaki found?", "ghibli-founding")
    answers = {word.text: [found.text[answer.start : answer.end] for answer in word.answers] for word in found.words}
    assert answers["found"][0] == "established"
    assert {"animated", "cartoon"} <= {*answers["animation"]}
    assert answers["did"] == []
    assert "found" not in found.unmatched


def test_happy_pets_are_more_than_dogs(default_encoder):
    index = Index.create(None, default_encoder)
    index.add(
        [Passage("pets", "Dogs wag their tails when they are happy, and cats purr."), Passage("rust", "Rust is a language.")]
    )
    found = index.explain("happy pets", "pets")
    assert {found.text[mark.start : mark.end] for mark in found.highlights} >= {"Dogs", "happy", "cats"}
    assert index.explain("happy pets", "rust").unmatched == ("happy", "pets")
    alone = Reranker(default_encoder).explain("happy pets", Passage("pets", found.text))
    assert {"Dogs", "happy"} <= {alone.text[mark.start : mark.end] for mark in alone.highlights}


def test_a_word_with_an_apostrophe_is_the_words_that_it_is_made_of(default_encoder):
    index = Index.create(None, default_encoder)
    index.add([Passage("a", "Spirited Away is Miyazaki's best film."), Passage("b", "Rust is a systems language.")])
    (hit, _) = index.search("Which is Miyazaki's best film?", 2, mode="hybrid", evidence=True)
    words = [word.text for word in hit.evidence.words]
    assert words == ["Which", "is", "Miyazaki", "s", "best", "film"]
    (answers,) = (word.answers for word in hit.evidence.words if word.text == "Miyazaki")
    assert "Miyazaki" in hit.evidence.text[slice(answers[0].start, answers[0].end)]
    assert "Miyazaki" not in hit.evidence.unmatched


def test_a_shared_word_is_marked_as_strongly_as_it_stands_out(quickstart):
    hit = quickstart.search("Who writes the music of Miyazaki movies?", 1, mode="hybrid", evidence=True)[0]
    weights = {hit.evidence.text[mark.start : mark.end]: mark.weight for mark in hit.evidence.highlights}
    assert weights["who"] < 0.1 < 0.9 < weights["Miyazaki"]


def test_a_shared_identifier_of_several_pieces_is_marked_whole_and_strongly(default_encoder):
    index = Index.create(None, default_encoder)
    index.add([Passage("a", "Ticket ZX-4711 is about the heating."), Passage("b", "Rust is a systems language.")])
    hit = index.search("who wrote ZX-4711", 1, mode="hybrid", evidence=True)[0]
    assert [(hit.evidence.text[mark.start : mark.end], mark.weight) for mark in hit.evidence.highlights] == [("ZX-4711", 1.0)]

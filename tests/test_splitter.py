"""Where long texts are cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colbert_core import splitter


def test_what_fits_is_one_window():
    assert splitter.windows([True] * 5, size=5, overlap=2) == [(0, 5)]
    assert splitter.windows([], size=5, overlap=2) == [(0, 0)]


def test_windows_overlap_by_what_was_asked():
    assert splitter.windows([True] * 10, size=6, overlap=2) == [(0, 6), (4, 10)]


def test_windows_begin_and_end_with_whole_words():
    # words of two tokens: a cut at 5 moves to 4, and the next window begins at 2
    assert splitter.windows([True, False] * 4, size=5, overlap=1)[:2] == [(0, 4), (2, 6)]


def test_a_word_longer_than_a_window_is_cut_inside():
    assert splitter.windows([True] + [False] * 9, size=4, overlap=1) == [(0, 4), (3, 7), (6, 10)]


def test_a_window_never_lies_inside_the_one_before():
    # words begin at 0, 1 and 3: cutting at whole words alone would give (0, 3), (1, 3)
    assert splitter.windows([True, True, False, True, False], size=3, overlap=1) == [(0, 3), (1, 4), (3, 5)]


@given(
    word_starts=st.lists(st.booleans(), max_size=200),
    size=st.integers(1, 30),
    data=st.data(),
)
def test_windows_cover_every_token_and_are_never_too_long(word_starts, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    cuts = splitter.windows(word_starts, size, overlap)
    assert cuts[0][0] == 0
    assert cuts[-1][1] == len(word_starts)
    assert all(0 < end - start <= size for start, end in cuts) or not word_starts
    assert all(a_start < b_start <= a_end < b_end for (a_start, a_end), (b_start, b_end) in pairwise(cuts))


def test_an_overlap_as_large_as_the_window_is_refused():
    with pytest.raises(ValueError, match="overlap 5 must be from 0 to the window size 5"):
        splitter.windows([True] * 9, size=5, overlap=5)


def token_starts(text):
    """One token per word."""
    return [at for at in range(len(text)) if not text[at].isspace() and (at == 0 or text[at - 1].isspace())]


def parts(text, size):
    return [text[start:end] for start, end in splitter.passages(text, token_starts(text), size)]


def test_a_document_is_cut_at_paragraphs_and_short_ones_are_joined():
    assert parts("one two\n\nthree four\n\nfive six seven", 4) == ["one two\n\nthree four", "five six seven"]


def test_a_long_paragraph_is_cut_at_sentences():
    assert parts("One two three. Four five! Six seven eight nine.", 5) == [
        "One two three. Four five!",
        "Six seven eight nine.",
    ]


def test_a_long_sentence_is_cut_at_tokens():
    assert parts("a b c d e f g", 3) == ["a b c", "d e f", "g"]


def test_chinese_sentences_end_without_a_blank():
    text = "你好世界。再见世界！"
    starts = list(range(len(text)))
    assert [text[a:b] for a, b in splitter.passages(text, starts, 6)] == ["你好世界。", "再见世界！"]


@pytest.mark.parametrize("run", [".", "!)", "。", "\n", " ", "\n "])
def test_a_long_run_of_boundaries_takes_no_quadratic_time(run):
    splitter.passages(run * 200_000, range(200_000), 100)  # hours, if every character were tried as a beginning


@pytest.mark.parametrize("blank", ["", "  \n\n\t "])
def test_a_blank_document_has_no_passages(blank):
    assert parts(blank, 5) == []


@given(text=st.text(alphabet="ab .!\n", max_size=200), size=st.integers(1, 10))
def test_every_token_of_a_document_is_in_exactly_one_passage(text, size):
    cuts = splitter.passages(text, token_starts(text), size)
    counts = [sum(start <= at < end for start, end in cuts) for at in token_starts(text)]
    assert set(counts) <= {1}
    assert all(sum(start <= at < end for at in token_starts(text)) <= size for start, end in cuts)
    assert all(text[start:end] == text[start:end].strip() for start, end in cuts)

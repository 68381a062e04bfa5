"""Where long texts are cut."""

import re
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colbert_core.text import splitter


def row(word_starts):
    """A text of one letter for each token, words parted by nothing: only word starts matter."""
    n = len(word_starts)
    spans = np.stack([np.arange(n), np.arange(n) + 1], axis=1).astype(np.int32)
    return "a" * n, spans, np.array(word_starts, bool)


def cut(word_starts, size, overlap):
    return splitter.windows(*row(word_starts), size=size, overlap=overlap)


def words(text):
    """One token per word or punctuation mark; a word starts behind a blank."""
    spans = [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]
    starts = [start == 0 or text[start - 1].isspace() for start, _ in spans]
    return np.array(spans, np.int32).reshape(-1, 2), np.array(starts, bool)


def byte_tokens(text):
    """One token per byte of UTF-8, as byte-level tokenizers may have it: several for one emoji, all with its span."""
    spans = [(at, at + 1) for at, character in enumerate(text) for _ in character.encode("utf-8", "replace")]
    return np.array(spans, np.int32).reshape(-1, 2), np.array([True] * len(spans), bool)


def parts(text, size, overlap=0):
    return [text[start:end] for start, end in splitter.passages(text, *words(text), size, overlap)]


# Windows


def test_what_fits_is_one_window():
    assert cut([True] * 5, size=5, overlap=2) == [(0, 5)]
    assert cut([], size=5, overlap=2) == [(0, 0)]


def test_windows_overlap_by_what_was_asked():
    assert cut([True] * 10, size=6, overlap=2) == [(0, 6), (4, 10)]


def test_windows_begin_and_end_with_whole_words():
    # words of two tokens: a cut at 5 moves to 4, and the next window begins at 2
    assert cut([True, False] * 4, size=5, overlap=1)[:2] == [(0, 4), (2, 6)]


def test_a_word_longer_than_a_window_is_cut_inside():
    assert cut([True] + [False] * 9, size=4, overlap=1) == [(0, 4), (3, 7), (6, 10)]


def test_a_window_never_lies_inside_the_one_before():
    # words begin at 0, 1 and 3: cutting at whole words alone would give (0, 3), (1, 3)
    assert cut([True, True, False, True, False], size=3, overlap=1) == [(0, 3), (1, 4), (3, 5)]


def test_without_overlap_windows_follow_each_other():
    assert cut([True] * 7, size=3, overlap=0) == [(0, 3), (3, 6), (6, 7)]


def test_a_window_ends_with_a_sentence_in_its_last_half():
    text = "One two three. Four five six seven eight nine ten."
    assert parts(text, 7) == ["One two three.", "Four five six seven eight nine", "ten."]
    assert parts(text, 9) == ["One two three. Four five six seven eight", "nine ten."]  # three is in the first half


def test_the_next_window_begins_with_a_word_that_is_longer_than_the_overlap():
    # words of five tokens: the cut is at 10, two tokens back is inside the word that begins at 5
    assert cut([True, False, False, False, False] * 4, size=11, overlap=2)[:2] == [(0, 10), (5, 15)]


def test_the_next_window_begins_with_a_sentence_where_one_is_near():
    text = "One two three four. Five six. Seven eight nine ten."
    spans, starts = words(text)
    # cut behind "six." (8 tokens); two tokens back is "six", four back is "Five"
    assert splitter.windows(text, spans, starts, size=9, overlap=2) == [(0, 8), (5, 13)]
    # one token back is ".", at most two back is "six", where a word begins: "Five" is too far
    assert splitter.windows(text, spans, starts, size=9, overlap=1) == [(0, 8), (6, 13)]


@given(word_starts=st.lists(st.booleans(), max_size=200), size=st.integers(1, 30), data=st.data())
def test_windows_cover_every_token_and_are_never_too_long(word_starts, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    cuts = cut(word_starts, size, overlap)
    assert cuts[0][0] == 0
    assert cuts[-1][1] == len(word_starts)
    assert all(0 < end - start <= size for start, end in cuts) or not word_starts
    assert all(a_start < b_start <= a_end < b_end for (a_start, a_end), (b_start, b_end) in pairwise(cuts))


MARKDOWN = st.lists(
    st.sampled_from(
        ["# ", "## A\n", "```\n", "~~~~\n", "\n", "\n\n", "word ", "One. ", "e.g. ", "猫。", "🐈", "é", "x = 1\n", " "]
    ),
    max_size=60,
).map("".join)


@given(text=st.one_of(st.text(max_size=200), MARKDOWN), size=st.integers(1, 20), data=st.data())
@pytest.mark.parametrize("tokenize", [words, byte_tokens])
def test_windows_of_any_text_cover_it_in_order(tokenize, text, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    spans, starts = tokenize(text)
    cuts = splitter.windows(text, spans, starts, size, overlap)
    assert (cuts[0][0], cuts[-1][1]) == (0, len(spans))
    assert all(0 < end - start <= size for start, end in cuts) or not len(spans)
    assert all(a_start < b_start <= a_end < b_end for (a_start, a_end), (b_start, b_end) in pairwise(cuts))
    if not re.search("[#`~]", text):  # nothing is kept whole, so every neighbour shares what was asked
        assert all(a_end - b_start >= min(overlap, a_end - a_start - 1) for (a_start, a_end), (b_start, _) in pairwise(cuts))


@pytest.mark.parametrize(("overlap", "size"), [(5, 5), (6, 5), (-1, 5), (0, 0)])
def test_an_overlap_as_large_as_the_window_is_refused(overlap, size):
    with pytest.raises(ValueError, match=f"overlap {overlap} must be from 0 to the window size {size} minus 1"):
        cut([True] * 9, size=size, overlap=overlap)


# Passages


def test_a_document_is_cut_at_paragraphs_and_short_ones_are_joined():
    assert parts("one two\n\nthree four\n\nfive six seven", 4) == ["one two\n\nthree four", "five six seven"]


def test_a_long_paragraph_is_cut_at_sentences():
    assert parts("One two three. Four five! Six seven eight nine.", 7) == [
        "One two three. Four five!",
        "Six seven eight nine.",
    ]


def test_a_long_sentence_is_cut_at_words():
    assert parts("a b c d e f g", 3) == ["a b c", "d e f", "g"]


def test_a_paragraph_end_goes_before_a_later_sentence_end():
    assert parts("a b c d\n\nE f. G h", 7) == ["a b c d", "E f. G h"]
    assert parts("a b c d\nE f. G h", 7) == ["a b c d\nE f.", "G h"]  # a line end is no stronger than a sentence


def test_lines_may_end_as_on_windows():
    assert parts("a b c d\r\n\r\nE f. G h", 7) == ["a b c d", "E f. G h"]
    assert parts("a b c d\r\n#\r\nE. F g", 7) == ["a b c d", "#\r\nE. F g"]
    assert parts("a b.\r\n\r\n```\r\nx\r\n\r\ny\r\n```\r\nc", 8) == ["a b.", "```\r\nx\r\n\r\ny\r\n```", "c"]


def test_lines_of_a_list_are_not_cut():
    assert parts("* one two\n* three four\n* five six", 7) == ["* one two\n* three four", "* five six"]


def test_chinese_sentences_end_without_a_blank():
    text = "你好世界。再见世界！"
    spans = np.array([(at, at + 1) for at in range(len(text))], np.int32)
    cuts = splitter.passages(text, spans, np.ones(len(text), bool), 6)
    assert [text[a:b] for a, b in cuts] == ["你好世界。", "再见世界！"]


@pytest.mark.parametrize(
    "sentence",
    [
        "Then Dr. Smith saw it.",
        "So J. K. Rowling wrote it.",
        "So É. Zola and А. С. Пушкин wrote.",
        "See Fig. 3 for it all.",
        "Some pets, e.g. cats, purr.",
        "The pets (i.e. Cats) purr.",
        "It is 3.5 km away.",
        "He asked why? but left.",
    ],
)
def test_a_dot_that_ends_no_sentence_is_no_place_to_cut(sentence):
    first = "One two three four five six."
    text = f"{first} {sentence} Seven eight nine ten eleven twelve thirteen fourteen."
    n_first, n_sentence = len(words(first)[0]), len(words(sentence)[0])
    for size in range(n_first + 1, min(n_first + n_sentence, 2 * n_first)):
        assert parts(text, size)[0] == first
    assert parts(text, n_first + n_sentence)[0] == f"{first} {sentence}"


def test_a_heading_stays_with_what_follows_it():
    text = "one two three four five\n\n# Head line\n\nsix seven eight nine"
    assert parts(text, 8) == ["one two three four five", "# Head line\n\nsix seven eight nine"]  # 8 reaches behind the heading


def test_headings_under_headings_stay_together():
    text = "one two three four five\n\n# Head\n\n## Under\n\nsix seven eight"
    assert parts(text, 9) == ["one two three four five", "# Head\n\n## Under\n\nsix seven eight"]


def test_a_heading_that_ends_the_text_stays_whole():
    assert parts("a b c d\n# Head line", 3) == ["a b c", "d", "# Head line"]


def test_a_cut_goes_before_a_heading_rather_than_behind_a_later_paragraph():
    text = "one two three four\n\n# Head\n\nfive\n\nsix seven eight"
    assert parts(text, 7) == ["one two three four", "# Head\n\nfive\n\nsix seven eight"]


def test_an_indented_heading_and_one_without_words_are_headings():
    assert parts("a b c d\n  # H\ne f g", 6) == ["a b c d", "# H\ne f g"]
    assert parts("a b c d\n#\ne f g", 5) == ["a b c d", "#\ne f g"]
    assert parts("a b c d\n#no e f g", 6) == ["a b c d", "#no e f g"]  # a line end, not a heading


CODE = "```py\n# no heading\n\nx = 1.\n\ny = 2\n```"  # 17 tokens


@pytest.mark.parametrize("fence", ["```", "~~~~"])
def test_code_is_kept_whole_where_it_fits_even_in_the_first_half_of_a_window(fence):
    code = CODE.replace("```", fence)
    text = f"one two.\n\n{code}\n\nthree four five"
    n_code = len(words(code)[0])
    assert parts(text, n_code) == ["one two.", code, "three four five"]
    assert parts(text, n_code + 2) == ["one two.", f"{code}", "three four five"]
    assert parts(text, n_code + 3) == [f"one two.\n\n{code}", "three four five"]


def test_a_heading_over_code_stays_with_it():
    assert parts(f"one two three.\n\n# Head\n\n{CODE}", 19) == ["one two three.", f"# Head\n\n{CODE}"]


def test_code_that_does_not_fit_is_cut_at_lines():
    code = "```\n" + "\n".join(f"x{n} = {n}" for n in range(10)) + "\n```"
    for part in parts(code, 12):
        assert re.fullmatch(r"(```|x\d = \d)(\n(```|x\d = \d))*", part)


def test_a_comment_in_code_that_does_not_fit_is_no_heading():
    # eight tokens end behind "y = 1"; a heading would be cut before, and be kept with what follows it
    assert parts("```\nx\n# a b\ny\nz = 1\nw\n```", 8) == ["```\nx\n# a b\ny", "z = 1\nw\n```"]
    assert parts("```\nx y z\n# a\n# b\nw\n```", 8) == ["```\nx y z\n# a", "# b\nw\n```"]


def test_code_that_is_not_closed_reaches_to_the_end():
    text = "one two three.\n\n```\n# a\n\nb c d"
    assert parts(text, 9) == ["one two three.", "```\n# a\n\nb c d"]


def test_code_is_closed_by_its_own_kind_of_fence_at_least_as_long():
    text = "one two.\n\n~~~~\n```\n~~~\n\nx y\n~~~~\n\nthree four"
    n_code = len(words("~~~~\n```\n~~~\n\nx y\n~~~~")[0])
    assert parts(text, n_code) == ["one two.", "~~~~\n```\n~~~\n\nx y\n~~~~", "three four"]


@pytest.mark.parametrize("inside", ["~~~", "```py", "``", "    ```"])
def test_what_does_not_close_code_is_kept_in_it(inside):
    code = f"```\nx\n{inside}\n\ny\n```"
    assert parts(f"one two.\n\n{code}\n\nthree four", len(words(code)[0])) == ["one two.", code, "three four"]


def test_inline_code_of_three_backticks_opens_no_block():
    # were it one, it would reach to the end, be 11 tokens long and stay whole: the cut would go before it
    assert parts("a b c.\n``` x```\n\nd. E f", 12) == ["a b c.\n``` x```", "d. E f"]


def test_what_is_kept_whole_goes_before_the_overlap():
    text = f"one two three.\n\n{CODE}\n\nfour five"
    n_code = len(words(CODE)[0])
    assert CODE in parts(text, n_code, overlap=3)


@pytest.mark.parametrize("mark", ["”", "»", ")", '"', "]", "’”"])
def test_a_closing_mark_belongs_to_the_sentence_before_it(mark):
    assert parts(f"One two three four.{mark} Five six seven", 8)[0] == f"One two three four.{mark}"


@pytest.mark.parametrize("mark", ["」", "》", "】", "”"])
def test_a_closing_mark_belongs_to_the_chinese_sentence_before_it(mark):
    text = f"你好世界。{mark}再见世界"
    cuts = splitter.passages(text, *byte_tokens(text), 24)  # each character is three bytes
    assert [text[a:b] for a, b in cuts] == [f"你好世界。{mark}", "再见世界"]


PARAGRAPHS = st.lists(st.sampled_from(["One two. Three.", "a b c d e f", "```\nx\n\n# y\n```", "~~~\nz. Z\n\n~~~"]), max_size=9)


@given(pieces=PARAGRAPHS, size=st.integers(1, 20), data=st.data())
def test_any_code_that_fits_is_whole_in_a_passage(pieces, size, data):
    found = parts("\n\n".join(pieces), size, overlap=data.draw(st.integers(0, size - 1)))
    fitting = [piece for piece in pieces if piece[0] in "`~" and len(words(piece)[0]) <= size]
    assert all(any(piece in part for part in found) for piece in fitting)


@given(n_words=st.lists(st.integers(1, 9), max_size=9), size=st.integers(3, 12), data=st.data())
def test_no_passage_ends_with_a_heading(n_words, size, data):
    text = "\n".join("# H\n\n" + "a " * n for n in n_words)
    found = parts(text, size, overlap=data.draw(st.integers(0, size - 1)))
    assert not any(part.endswith(("#", "H")) for part in found)


RUNS_OF_BOUNDARIES = [".", "!)", "。", "\n", " ", "\n ", "# \n", "#\n", "```\n", "~~~\n", "a", "e.g. ", "J. ", "# a\n```\n"]


def cut_run(run, n_characters):
    """Seconds of the processor, and what is cut of a run that is so long."""
    text = run * (n_characters // len(run))
    n_tokens = len(text) // 4
    spans = np.stack([np.arange(n_tokens) * 4, np.arange(n_tokens) * 4 + 4], axis=1).astype(np.int32)
    starts = np.arange(n_tokens) % 3 == 0
    began = time.process_time()
    windows = splitter.windows(text, spans, starts, 200, 25)
    passages = splitter.passages(text, spans, starts, 100)
    return time.process_time() - began, text, n_tokens, windows, passages


def check_cuts(text, n_tokens, windows, passages):
    assert (windows[0][0], windows[-1][1]) == (0, n_tokens)
    assert all(0 < end - start <= 200 for start, end in windows)
    assert all(a_start < b_start <= a_end < b_end for (a_start, a_end), (b_start, b_end) in pairwise(windows))
    assert sum(len("".join(text[start:end].split())) for start, end in passages) == len("".join(text.split()))
    assert all(0 < end - start <= 400 for start, end in passages)


@pytest.mark.parametrize("run", RUNS_OF_BOUNDARIES)
def test_a_long_run_of_boundaries_takes_no_quadratic_time(run):
    # 8 times the characters take 8 times as long, and 64 times if every character is tried as a beginning.
    short, long = (min(cut_run(run, n_characters)[0] for _ in range(2)) for n_characters in (5_000, 40_000))
    assert long < 24 * max(short, 0.01)  # some clocks tick no faster
    check_cuts(*cut_run(run, 40_000)[1:])


@pytest.mark.slow  # a minute for all of them; the growth is measured above
@pytest.mark.parametrize("run", RUNS_OF_BOUNDARIES)
def test_a_million_boundaries_are_cut(run):
    check_cuts(*cut_run(run, 1_000_000)[1:])  # hours, if it were quadratic


@pytest.mark.parametrize("blank", ["", "  \n\n\t "])
def test_a_blank_document_has_no_passages(blank):
    assert parts(blank, 5) == []


@given(text=st.one_of(st.text(max_size=100), st.text(alphabet="ab .!\n#`", max_size=200), MARKDOWN), size=st.integers(1, 10))
def test_every_token_of_a_document_is_in_exactly_one_passage(text, size):
    spans, starts = words(text)
    cuts = splitter.passages(text, spans, starts, size)
    counts = [sum(start <= first and last <= end for start, end in cuts) for first, last in spans]
    assert set(counts) <= {1}
    assert all(a_end <= b_start for (_, a_end), (b_start, _) in pairwise(cuts))
    assert all(sum(start <= first < end for first, _ in spans) <= size for start, end in cuts)
    assert all(text[start:end] == text[start:end].strip() != "" for start, end in cuts)


@given(text=st.one_of(st.text(max_size=100), MARKDOWN), size=st.integers(1, 10), data=st.data())
@pytest.mark.parametrize("tokenize", [words, byte_tokens])
def test_passages_cover_every_character_of_a_token(tokenize, text, size, data):
    spans, starts = tokenize(text)
    cuts = splitter.passages(text, spans, starts, size, data.draw(st.integers(0, size - 1)))
    covered = {at for start, end in cuts for at in range(start, end)}
    assert all(at in covered for start, end in spans for at in range(start, end) if not text[at].isspace())
    assert all(text[start:end] == text[start:end].strip() != "" for start, end in cuts)


def test_a_token_that_reaches_over_the_next_one_is_covered():
    spans = np.array([(0, 5), (2, 3), (6, 7), (8, 9)], np.int32)
    assert splitter.passages("abcde f g", spans, np.ones(4, bool), 2) == [(0, 5), (6, 9)]


@pytest.mark.parametrize("overlap", [0, 3])
def test_no_cut_goes_through_a_character_of_several_tokens(overlap):
    text = "\N{CAT FACE}" * 40
    spans, _ = byte_tokens(text)
    starts = np.arange(len(spans)) == 0  # one word
    cuts = splitter.windows(text, spans, starts, 10, overlap)
    assert all(first % 4 == 0 and last % 4 == 0 for first, last in cuts)
    assert {last - first for first, last in cuts[:-1]} == {8}
    whole = splitter.passages(text, spans, starts, 10)
    assert "".join(text[start:end] for start, end in whole) == text

"""Checks of what users give: what makes sense comes back, and what does not is named."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from colbert_core import Passage
from colbert_core.checks import (
    check_count,
    check_ids,
    check_passages,
    check_relevance,
    check_share,
    check_similarity,
    id_list,
)


def test_what_makes_sense_comes_back():
    passage = Passage("a", "x")
    assert check_passages(iter([passage])) == [passage]
    assert check_count(np.int64(3), "k") == 3
    assert (check_relevance(None, "r"), check_relevance(1, "r")) == (None, 1.0)
    assert check_share(np.float32(0.5), "s") == 0.5
    assert check_similarity(-1) == -1.0
    assert id_list(name for name in "ab") == ["a", "b"]
    check_ids(Counter(["a", "b"]), {"c"})


@pytest.mark.parametrize(
    ("check", "error", "message"),
    [
        (lambda: check_count(0, "k"), ValueError, "k must be at least 1, got 0"),
        (lambda: check_count(True, "k"), TypeError, "k must be a whole number of passages, got True"),
        (lambda: check_count(1.0, "m", "parts"), TypeError, "m must be a whole number of parts, got 1.0"),
        (lambda: check_relevance(1.5, "r"), ValueError, "r is a relevance from 0 to 1, got 1.5; raw MaxSim scores are not"),
        (lambda: check_share("x", "s"), TypeError, "s is a number from 0 to 1, got 'x'"),
        (lambda: check_share(float("nan"), "s"), ValueError, "s is a number from 0 to 1, got nan"),
        (lambda: check_similarity(1.1), ValueError, "min_similarity is a cosine from -1 to 1, got 1.1"),
        (lambda: check_similarity("1"), TypeError, "min_similarity is a cosine from -1 to 1, got '1'"),
        (lambda: check_passages(Passage("a", "x")), TypeError, r"got one Passage; write \[passage\] \('a'\)"),
        (lambda: check_passages(["x"]), TypeError, "Item 0 is a str, not a Passage"),
        (lambda: id_list("a"), TypeError, r"got one str; write \['a'\]"),
        (lambda: id_list(3), TypeError, "ids must be a list of strings, got int: 3"),
        (lambda: id_list(["a", 1]), TypeError, "Id 1 must be a str, got int"),
        (lambda: check_ids(Counter(["a", "b", "a"])), ValueError, "1 ids stand more than once in this call, among them 'a'"),
        (lambda: check_ids(Counter(["a"]), {"a"}), ValueError, "among them 'a'"),
    ],
)
def test_what_does_not_is_named_with_its_value(check, error, message):
    with pytest.raises(error, match=message):
        check()

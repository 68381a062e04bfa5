"""The values that cross the boundaries of the package check themselves."""

from __future__ import annotations

import pytest

from colbert_core import Passage


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((3, "text"), TypeError, "Passage id must be a str, got int"),
        (("", "text"), ValueError, "Passage id is empty"),
        (("a", None), TypeError, "Text of passage 'a' must be a str, got NoneType"),
        (("a", "x\ud800"), ValueError, "Text of passage 'a' has a lone surrogate"),
        (("a\ud800", "x"), ValueError, "Passage id has a lone surrogate"),
        (("a", "x", [1]), TypeError, "Metadata of passage 'a' must be a dict, got list"),
    ],
)
def test_a_passage_checks_itself(arguments, error, message):
    with pytest.raises(error, match=message):
        Passage(*arguments)

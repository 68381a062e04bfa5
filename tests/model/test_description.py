"""The recipe made visible."""

from __future__ import annotations

import json

from builders import checkpoints
from builders.checkpoints import LAYERS
from builders.parity import load

from colbert_core.model.checkpoint import DEFAULT_MODEL


def test_the_recipe_is_printed_with_ids_and_an_example(tmp_path):
    text = repr(load(checkpoints.stanford(tmp_path / "model", query_maxlen=50)))
    for part in (
        "stanford)",
        "bert, 0.0 million parameters, hidden size 32",
        "32 -> 16",
        "16 dimensions, float32 on cpu, trained with cosine",
        "at most 50 tokens: '[CLS]'=4 '[unused0]'=1 query '[SEP]'=5; filled up to 50 with '[MASK]'=6, not attended to",
        "at most 60 tokens: '[CLS]'=4 '[unused1]'=2 passage '[SEP]'=5",
        '! " # $ %',
        "What animation studio did Miyazaki found?",
        "[CLS] [unused0] what",
        "1 1 1 1 1",
        "0 0",
    ):
        assert part in text, part


def test_a_description_is_plain_values(tmp_path):
    for folder in (
        checkpoints.stanford(tmp_path / "a"),
        checkpoints.pylate(tmp_path / "b", layers=LAYERS["two layers"]),
        DEFAULT_MODEL,
    ):
        about = load(folder).describe()
        assert json.loads(json.dumps(about)) == about

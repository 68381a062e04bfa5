"""nanoColBERT's folders, encoded by its rules."""

from __future__ import annotations

import json

import pytest
from builders import checkpoints
from builders.checkpoints import edit_json
from builders.parity import assert_parity, first_pieces, load, published_rule_rows, rows_of
from safetensors.torch import load_file

from colbert_core import (
    CheckpointError,
)


def test_a_nanocolbert_folder_without_its_projection_is_not_read_as_untrained(untrained_copy):
    edit_json(untrained_copy / "config.json", architectures=["ColBERT"])
    with pytest.raises(CheckpointError, match="config.json says that linear.weight has the shape .* the weights hold none"):
        load(untrained_copy)


@pytest.mark.parametrize("similarity", ["l2", "cosine"])
def test_nanocolbert_checkpoints_encode_by_nanocolberts_rules(tmp_path, similarity):
    folder = checkpoints.nanocolbert(tmp_path / "model", similarity=similarity)
    weight = load_file(folder / "model.safetensors")["linear.weight"]
    encoder = load(folder, passage_length=60)
    expected = published_rule_rows(
        folder,
        weight=weight,
        markers=("[Q]", "[D]"),
        lengths=(32, 60),
        skipped=first_pieces,
        prefix="bert.",
    )
    assert_parity(rows_of(encoder), expected)
    assert (encoder.config.format, encoder.config.similarity) == ("nanocolbert", similarity)


def test_a_nanocolbert_projection_of_another_size_is_refused(tmp_path):
    folder = checkpoints.nanocolbert(tmp_path / "model")
    content = json.loads((folder / "config.json").read_text())
    checkpoints.write_json(folder / "config.json", content | {"dim": 128})
    with pytest.raises(CheckpointError, match=r"linear.weight has the shape \(128, 32\), the weights hold \(16, 32\)"):
        load(folder)

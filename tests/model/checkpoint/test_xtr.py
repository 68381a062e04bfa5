"""XTR: T5's encoder and a projection."""

from __future__ import annotations

import json

import pytest
import torch
from builders import checkpoints
from builders.checkpoints import HIDDEN, edit_json
from builders.parity import assert_parity, assert_same, load, rows_of, sentence_transformers_rows, xtr_rows
from safetensors.torch import load_file, save_file

from colbert_core import CheckpointError, UnsupportedCheckpointError


def test_the_recipe_is_the_papers(tmp_path):
    encoder = load(checkpoints.xtr(tmp_path / "xtr"))
    config = encoder.config
    assert (config.format, config.query_length, config.passage_length, config.lowercase) == ("xtr", 32, 60, True)
    assert (config.query_marker, config.augment_queries, config.skip_punctuation, config.trained) == (None, False, False, True)
    assert encoder.dim == 16
    assert repr(encoder).startswith("Encoder(")
    assert "t5, " in repr(encoder)


@pytest.mark.parametrize(
    ("name", "architectures"),
    [("to_dense.weight", ["XtrModel"]), ("linear.weight", ["T5EncoderModel"]), ("to_dense/kernel:0", None)],
)
def test_the_projection_may_be_among_the_weights(tmp_path, name, architectures):
    folder = checkpoints.xtr(tmp_path / "xtr")
    expected = xtr_rows(folder)
    weights, matrix = (
        load_file(folder / "model.safetensors"),
        load_file(folder / "2_Dense" / "model.safetensors")["linear.weight"],
    )
    weights = {f"t5_encoder.{key}": tensor for key, tensor in weights.items()}
    stored = matrix.T if "kernel" in name else matrix
    save_file(weights | {name: stored.contiguous()}, folder / "model.safetensors")
    (folder / "modules.json").unlink()
    edit_json(folder / "config.json", architectures=architectures)
    assert_parity(rows_of(load(folder)), expected)


def test_a_copy_for_sentence_transformers_is_read_by_it(tmp_path):
    encoder = load(checkpoints.xtr(tmp_path / "xtr"))
    encoder.save(tmp_path / "copy", format="sentence-transformers")
    assert_same(load(tmp_path / "copy"), encoder)
    assert_parity(rows_of(encoder), sentence_transformers_rows(tmp_path / "copy"))


def test_a_t5_for_single_vectors_is_not_taken_for_one(tmp_path):
    folder = checkpoints.xtr(tmp_path / "gtr", n_out=HIDDEN)
    assert load(folder).config.trained is False


def test_what_is_wrong_is_named(tmp_path):
    folder = checkpoints.xtr(tmp_path / "xtr")
    file = folder / "modules.json"
    entries = json.loads(file.read_text())
    file.write_text(json.dumps([*entries, {"path": "3_LSTM", "type": "sentence_transformers.models.LSTM"}]))
    with pytest.raises(UnsupportedCheckpointError, match="has the module LSTM, which no XTR model has"):
        load(folder)
    file.unlink()
    edit_json(folder / "config.json", architectures=["XtrModel"])
    with pytest.raises(CheckpointError, match="is an XTR model but has no projection"):
        load(folder)
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"to_dense.weight": torch.ones(16, 48)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="the projection takes 48 components but is given 32"):
        load(folder)
    (folder / "model.safetensors").rename(folder / "tf_model.h5")
    with pytest.raises(UnsupportedCheckpointError, match=r"weights for TensorFlow \(tf_model.h5\) only"):
        load(folder)

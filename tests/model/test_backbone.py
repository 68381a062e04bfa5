"""The transformers model of a checkpoint: how much it reads, which weights it needs, and whose code runs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers
from builders import checkpoints
from builders.checkpoints import edit_json
from builders.encoders import write_untrained
from builders.parity import assert_same, load
from safetensors.torch import load_file, save_file

from colbert_core import (
    CheckpointError,
    UnsupportedCheckpointError,
)


def test_an_untrained_model_never_gets_more_tokens_than_it_has_positions(tmp_path):
    folder = write_untrained(tmp_path / "model", max_seq_length=512)
    assert load(folder).config.passage_length == 64
    assert load(write_untrained(tmp_path / "bare", max_seq_length=None)).config.passage_length == 64


@pytest.mark.parametrize("kind", ["Roberta", "XLMRoberta", "MPNet", "Electra", "DistilBert"])
def test_other_backbones_read_as_many_tokens_as_they_have_positions_for(untrained_copy, kind):
    sizes = {"vocab_size": 120, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    if kind == "DistilBert":
        sizes = {"vocab_size": 120, "dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 48}
    config = getattr(transformers, f"{kind}Config")(**sizes, max_position_embeddings=34, pad_token_id=1)
    config.save_pretrained(untrained_copy)
    model = getattr(transformers, f"{kind}Model")(config)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, untrained_copy / "model.safetensors")
    edit_json(untrained_copy / "sentence_bert_config.json", max_seq_length=512)
    encoder = load(untrained_copy)
    most = encoder.config.passage_length
    assert most == (32 if kind in ("Roberta", "XLMRoberta", "MPNet") else 34)
    assert encoder.encode_passages(["cat " * 100]).doclens.max() == most
    with pytest.raises(ValueError, match=f"query_length={most + 1} .* to {most}"):
        load(untrained_copy, query_length=most + 1)


def test_an_encoder_with_a_decoder_is_refused(untrained_copy):
    config = transformers.BartConfig(vocab_size=120, d_model=32, encoder_layers=1, decoder_layers=1)
    config.save_pretrained(untrained_copy)
    with pytest.raises(
        UnsupportedCheckpointError, match="bart model, an encoder with a decoder; of these only the encoder of T5"
    ):
        load(untrained_copy)


def test_a_missing_tensor_is_named(stanford_copy):
    weights = load_file(stanford_copy / "model.safetensors")
    del weights["bert.encoder.layer.1.output.dense.bias"]
    save_file(weights, stanford_copy / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"lack 1 of the \d+ tensors .* encoder.layer.1.output.dense.bias"):
        load(stanford_copy)


def test_weights_of_another_size_than_config_json_are_refused(stanford_copy):
    edit_json(stanford_copy / "config.json", intermediate_size=128)
    with pytest.raises(CheckpointError, match=r"shape \(64, 32\) in the weights but \(128, 32\) by config.json"):
        load(stanford_copy)


def test_a_config_of_no_known_model_is_refused(untrained_copy):
    edit_json(untrained_copy / "config.json", model_type="no-such-model")
    with pytest.raises(UnsupportedCheckpointError, match=r"config.json describes no model that loads here"):
        load(untrained_copy)


def test_a_checkpoint_with_its_own_code_needs_trust_and_runs_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = checkpoints.own_code(tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"auto_map: modeling_tiny.TinyModel.* pass trust_remote_code=True"):
        load(folder)
    encoder = load(folder, trust_remote_code=True)
    weights = load_file(folder / "model.safetensors")
    (query,) = encoder.encode_queries(["cat"])
    ids = encoder.describe()["query_prefix"]
    row = weights["tiny.words.weight"][ids["[CLS]"]] @ weights["linear.weight"].T
    np.testing.assert_allclose(query[0], (row / row.norm()).numpy(), atol=1e-6)

    for format in ("stanford", "pylate"):
        encoder.save(tmp_path / format, format=format)  # its code goes with it
        assert_same(encoder, load(tmp_path / format, trust_remote_code=True))


def test_weights_that_only_the_checkpoints_own_code_fits_name_the_switch(tmp_path):
    """Such as jina-colbert-v2: the model type is known to transformers, the weights are of another implementation."""
    folder = checkpoints.stanford(tmp_path / "model")
    content = json.loads((folder / "config.json").read_text())
    checkpoints.write_json(folder / "config.json", content | {"auto_map": {"AutoModel": "someone/else--modeling.Model"}})
    weights = load_file(folder / "model.safetensors")
    checkpoints.save(
        {name.replace("encoder.layer", "encoder.layers"): t for name, t in weights.items()}, folder / "model.safetensors"
    )
    with pytest.raises(CheckpointError, match="someone/else--modeling.Model .* pass trust_remote_code=True"):
        load(folder)


def test_a_move_to_another_precision_keeps_the_frequencies_of_rotary_positions(tmp_path):
    encoder = load(checkpoints.pylate(tmp_path / "model", "modernbert"), dtype="bfloat16")
    assert {parameter.dtype for parameter in encoder._backbone.parameters()} == {torch.bfloat16}
    assert {buffer.dtype for buffer in encoder._backbone.buffers()} == {torch.float32}

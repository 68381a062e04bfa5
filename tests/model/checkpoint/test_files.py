"""JSON and weights of a model folder: shards, int8, old names, and damage that is named."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from builders import checkpoints
from builders.parity import load
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from colbert_core import (
    CheckpointError,
    CheckpointNotFoundError,
)
from colbert_core.model.checkpoint import quantize_weights, read_checkpoint


def test_weights_in_shards_and_in_pytorch_files_read_the_same(stanford_folder, stanford_copy):
    expected = read_checkpoint(stanford_folder).weights
    weights = load_file(stanford_copy / "model.safetensors")
    (stanford_copy / "model.safetensors").unlink()

    torch.save(weights, stanford_copy / "pytorch_model.bin")
    from_torch = read_checkpoint(stanford_copy).weights
    (stanford_copy / "pytorch_model.bin").unlink()

    names = sorted(weights)
    files = {name: f"model-{1 + (i > 5):05}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: weights[name] for name in names if files[name] == file}, stanford_copy / file)
    (stanford_copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    from_shards = read_checkpoint(stanford_copy).weights

    for other in (from_torch, from_shards):
        assert other.keys() == expected.keys()
        assert all(torch.equal(other[name], expected[name]) for name in expected)


@given(rows=st.integers(1, 8), columns=st.integers(1, 100), size=st.floats(1e-6, 1e6), seed=st.integers(0, 2**31))
def test_int8_weights_come_back_within_half_a_step_of_their_32_columns(rows, columns, size, seed):
    torch.manual_seed(seed)
    matrix = torch.randn(rows, columns) * size
    matrix[:, 0] *= 1000  # of its 32 columns alone the others may lose precision
    stored = quantize_weights({"matrix": matrix, "vector": torch.ones(3)})
    assert stored["matrix"].dtype == torch.int8
    for start in range(0, columns, 32):
        group = matrix[:, start : start + 32]
        scale = stored["matrix.scale"][:, start // 32, None]
        restored = stored["matrix"][:, start : start + 32].float() * scale
        step = group.abs().amax(dim=1, keepdim=True) / 127
        assert bool(((restored - group).abs() <= step * 0.51).all())
    assert torch.equal(stored["vector"], torch.ones(3))
    assert stored["matrix.scale"].shape == (rows, math.ceil(columns / 32))


def test_a_checkpoint_stored_as_int8_encodes_nearly_the_same(stanford, stanford_copy):
    weights = load_file(stanford_copy / "model.safetensors")
    save_file(quantize_weights(weights), stanford_copy / "model.safetensors")
    text = ["the cat sat on the mat"]
    cosines = (load(stanford_copy).encode_passages(text).vectors * stanford.encode_passages(text).vectors).sum(axis=1)
    assert cosines.min() > 0.999


def test_int8_weights_without_their_scale_are_refused(stanford_copy):
    weights = quantize_weights(load_file(stanford_copy / "model.safetensors"))
    del weights["linear.weight.scale"]
    save_file(weights, stanford_copy / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"linear.weight of shape \(16, 32\) needs linear.weight.scale"):
        load(stanford_copy)


def test_layer_norms_under_their_old_names_are_read(untrained_copy, untrained):
    """bert-base-uncased is stored so."""
    weights = load_file(untrained_copy / "model.safetensors")
    old = {
        k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
        for k, v in weights.items()
    }
    assert old.keys() != weights.keys()
    save_file(old, untrained_copy / "model.safetensors")
    text = ["the cat sat"]
    np.testing.assert_array_equal(load(untrained_copy).encode_passages(text).vectors, untrained.encode_passages(text).vectors)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(stanford_copy, file):
    (stanford_copy / file).unlink()
    with pytest.raises(CheckpointNotFoundError, match=file):
        load(stanford_copy)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "artifact.metadata", "tokenizer.json"])
@pytest.mark.parametrize("keep", [0.5, 0.0])
def test_a_truncated_file_is_an_error_that_names_it(stanford_copy, file, keep):
    content = (stanford_copy / file).read_bytes()
    (stanford_copy / file).write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(CheckpointError, match=r"tokenizer" if "tokenizer" in file else file) as caught:
        load(stanford_copy)
    assert "again" in str(caught.value)


def test_a_damaged_pytorch_file_is_an_error_and_runs_no_code(stanford_copy):
    import pickle

    class Evil:
        def __reduce__(self):
            return (open, (str(stanford_copy / "ran"), "w"))

    (stanford_copy / "model.safetensors").unlink()
    (stanford_copy / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError, match="pytorch_model.bin"):
        load(stanford_copy)
    assert not (stanford_copy / "ran").exists()


@pytest.mark.parametrize(
    ("file", "content", "error", "message"),
    [
        (
            "artifact.metadata",
            {"query_maxlen": "many"},
            CheckpointError,
            "has query_maxlen='many', which must be a whole number",
        ),
        (
            "artifact.metadata",
            {"config": {"dim": 99}},
            CheckpointError,
            "the recipe says dim 99 but linear.weight projects to 16",
        ),
        ("artifact.metadata", [], CheckpointError, "must hold a JSON object, got list"),
        ("config.json", {}, CheckpointError, "hidden size is None"),
    ],
)
def test_files_with_other_content_are_errors_that_name_them(stanford_copy, file, content, error, message):
    (stanford_copy / file).write_text(json.dumps(content))
    with pytest.raises(error, match=message):
        load(stanford_copy)


def test_a_shard_index_without_files_is_named(stanford_copy):
    (stanford_copy / "model.safetensors").unlink()
    (stanford_copy / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"index\.json names no files"):
        load(stanford_copy)


def test_pytorch_weights_in_shards_are_read(stanford_folder, stanford_copy):
    expected = read_checkpoint(stanford_folder).weights
    weights = load_file(stanford_copy / "model.safetensors")
    (stanford_copy / "model.safetensors").unlink()
    files = {name: f"pytorch_model-{1 + (i > 5):05}-of-00002.bin" for i, name in enumerate(sorted(weights))}
    for file in set(files.values()):
        torch.save({name: tensor for name, tensor in weights.items() if files[name] == file}, stanford_copy / file)
    (stanford_copy / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": files}))
    assert read_checkpoint(stanford_copy).weights.keys() == expected.keys()


def test_pytorch_files_with_more_than_tensors_are_refused(stanford_copy):
    weights = load_file(stanford_copy / "model.safetensors")
    (stanford_copy / "model.safetensors").unlink()
    torch.save({"state_dict": weights}, stanford_copy / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="state_dict among the weights is no tensor"):
        load(stanford_copy)


def test_json_with_a_byte_order_mark_is_read(stanford_copy):
    content = (stanford_copy / "artifact.metadata").read_text()
    (stanford_copy / "artifact.metadata").write_text("\ufeff" + content, encoding="utf-8")
    assert load(stanford_copy).config.query_length == 12


WRONG_KINDS = {
    "config_sentence_transformers.json": [
        *({"prompts": value} for value in ("x", [1], 3.5)),
        *({"query_prefix": value} for value in (0, [1], True)),
        *({"skiplist_words": value} for value in (3.5, True, [1], [None])),
        *({"query_length": value} for value in (24.9, True, "24", 0, -1, float("inf"), float("nan"))),
        *({"do_query_expansion": value} for value in ("False", 0)),
        {"similarity_fn_name": [1]},
    ],
    "1_Dense/config.json": [{"module_input_name": [1]}, {"bias": "no"}, {"out_features": "16"}, {"activation_function": 3}],
    "sentence_bert_config.json": [{"do_lower_case": "yes"}],
}


@pytest.mark.parametrize(
    ("file", "changes"), [(file, changes) for file, many in WRONG_KINDS.items() for changes in many], ids=str
)
def test_an_entry_of_the_wrong_kind_is_named_with_its_file_and_value(tmp_path, file, changes):
    folder = checkpoints.pylate(tmp_path / "model")
    checkpoints.write_json(folder / file, json.loads((folder / file).read_text()) | changes)
    (name,) = changes
    with pytest.raises(CheckpointError, match=rf"{file.split('/')[-1]} has {name}=.*, which must be"):
        load(folder)


def test_nulls_in_any_file_mean_the_defaults(tmp_path):
    folder = checkpoints.multi_vector(tmp_path / "saved", source=checkpoints.pylate(tmp_path / "source"))
    for name in ("2_MultiVectorMask/config.json", "config_sentence_transformers.json"):
        content = json.loads((folder / name).read_text())
        keep = {"model_type": "MultiVectorEncoder"} if "model_type" in content else {}
        checkpoints.write_json(folder / name, dict.fromkeys(content) | keep)
    config = load(folder).config
    assert (config.skip_tokens, config.query_prompt, config.similarity) == ((), "", "maxsim")

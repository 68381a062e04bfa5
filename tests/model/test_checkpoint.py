"""Model folders: both formats that are read, and every way in which a folder can be wrong."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
import torch
import transformers
from builders.encoders import write_stanford, write_untrained
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from colbert_core import (
    CheckpointError,
    CheckpointNotFoundError,
    ColBERTError,
    Encoder,
    EncoderConfig,
    UnsupportedCheckpointError,
)
from colbert_core.model.checkpoint import quantize_weights, read_checkpoint


def load(folder, **options):
    return Encoder.from_pretrained(str(folder), device="cpu", dtype="float32", **options)


def edit_json(path, **changes):
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


@pytest.fixture
def stanford_copy(stanford_folder, tmp_path):
    return shutil.copytree(stanford_folder, tmp_path / "stanford")


@pytest.fixture
def untrained_copy(untrained_folder, tmp_path):
    return shutil.copytree(untrained_folder, tmp_path / "untrained")


def test_a_stanford_recipe_is_read_from_artifact_metadata(stanford):
    assert stanford.dim == 16
    assert stanford.config == EncoderConfig(
        query_length=12,
        passage_length=20,
        query_marker="[unused0]",
        passage_marker="[unused1]",
        augment_queries=True,
        attend_to_augmentation=False,
        skip_punctuation=True,
        trained=True,
    )


def test_a_stanford_recipe_may_be_nested_under_config(stanford_copy):
    metadata = stanford_copy / "artifact.metadata"
    metadata.write_text(json.dumps({"config": json.loads(metadata.read_text())}))
    assert load(stanford_copy).config.query_length == 12


def test_without_artifact_metadata_the_architecture_tells_and_stanfords_defaults_hold(stanford_copy):
    (stanford_copy / "artifact.metadata").unlink()
    recipe = read_checkpoint(stanford_copy).config
    assert (recipe.query_length, recipe.passage_length, recipe.query_marker) == (32, 220, "[unused0]")


def test_a_plain_encoder_folder_is_untrained_late_interaction_over_its_hidden_states(untrained):
    assert untrained.dim == 32
    assert untrained.config == EncoderConfig(
        format="untrained", query_length=24, passage_length=24, skip_punctuation=True, trained=False
    )
    assert "untrained" in repr(untrained)


def test_an_untrained_model_never_gets_more_tokens_than_it_has_positions(tmp_path):
    folder = write_untrained(tmp_path / "model", max_seq_length=512)
    assert load(folder).config.passage_length == 64
    assert load(write_untrained(tmp_path / "bare", max_seq_length=None)).config.passage_length == 64


def test_lengths_can_be_chosen_at_loading(stanford_folder):
    config = load(stanford_folder, query_length=9, passage_length=30).config
    assert (config.query_length, config.passage_length) == (9, 30)


@pytest.mark.parametrize("length", [3, 0, -1, 65])
def test_a_length_without_room_for_text_or_beyond_the_backbone_is_refused(stanford_folder, length):
    with pytest.raises(ValueError, match=rf"query_length={length} .* must be from 4 .* to 64"):
        load(stanford_folder, query_length=length)


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
    config = transformers.T5Config(vocab_size=120, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    config.save_pretrained(untrained_copy)
    with pytest.raises(UnsupportedCheckpointError, match="t5 model, an encoder with a decoder"):
        load(untrained_copy)


# Nothing there


def test_a_missing_folder_is_named_with_its_full_path(tmp_path):
    with pytest.raises(CheckpointNotFoundError, match=f"no checkpoint folder at {tmp_path}/nowhere"):
        load(tmp_path / "nowhere")


def test_a_hub_name_without_a_network_names_the_cache_and_the_fix(tmp_path, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    with pytest.raises(CheckpointNotFoundError, match=r"hub-cache") as caught:
        load("nobody/nothing", local_files_only=True)
    assert "hf download nobody/nothing" in str(caught.value)
    assert isinstance(caught.value, FileNotFoundError)
    assert isinstance(caught.value, ColBERTError)


def test_a_hub_name_that_is_cached_loads_without_a_network(tmp_path, monkeypatch, stanford_folder):
    import huggingface_hub

    cache = tmp_path / "hub"
    commit = "0" * 40
    repository = cache / "models--someone--tiny-colbert"
    shutil.copytree(stanford_folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    download = huggingface_hub.snapshot_download
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, **options: download(name, cache_dir=cache, **options)
    )
    encoder = load("someone/tiny-colbert", local_files_only=True)
    assert (encoder.name, encoder.dim) == ("someone/tiny-colbert", 16)


# Files missing or damaged


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(stanford_copy, file):
    (stanford_copy / file).unlink()
    with pytest.raises(CheckpointNotFoundError, match=file):
        load(stanford_copy)


def test_a_missing_tokenizer_is_named(stanford_copy):
    (stanford_copy / "tokenizer.json").unlink()
    (stanford_copy / "tokenizer_config.json").unlink()
    with pytest.raises(CheckpointNotFoundError, match=r"has no tokenizer \(tokenizer.json, vocab"):
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


def test_nulls_in_a_recipe_mean_the_defaults(stanford_copy):
    edit_json(stanford_copy / "artifact.metadata", query_maxlen=None, doc_maxlen=None)
    edit_json(stanford_copy / "config.json", architectures=None)
    recipe = read_checkpoint(stanford_copy).config
    assert (recipe.query_length, recipe.passage_length) == (32, 220)


@pytest.mark.parametrize("content", ["{", "{}", "[1]"])
def test_a_damaged_modules_json_is_named(untrained_copy, content):
    (untrained_copy / "modules.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"modules\.json"):
        load(untrained_copy)


def test_a_shard_index_without_files_is_named(stanford_copy):
    (stanford_copy / "model.safetensors").unlink()
    (stanford_copy / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"index\.json names no files"):
        load(stanford_copy)


# Parts that do not belong together


def test_a_stanford_folder_without_its_projection_is_refused(stanford_copy):
    weights = load_file(stanford_copy / "model.safetensors")
    del weights["linear.weight"]
    save_file(weights, stanford_copy / "model.safetensors")
    with pytest.raises(CheckpointError, match="no linear.weight, the projection"):
        load(stanford_copy)


def test_a_projection_of_another_backbone_is_refused(stanford_copy):
    weights = load_file(stanford_copy / "model.safetensors")
    save_file(weights | {"linear.weight": torch.ones(16, 48)}, stanford_copy / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"shape \(16, 48\) but the backbone's hidden size is 32"):
        load(stanford_copy)


def test_a_projection_of_another_dim_than_stated_is_refused(stanford_copy):
    edit_json(stanford_copy / "artifact.metadata", dim=128)
    with pytest.raises(CheckpointError, match="the recipe says dim 128 but linear.weight projects to 16"):
        load(stanford_copy)


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


def test_a_tokenizer_with_more_tokens_than_the_backbone_is_refused(stanford_copy):
    weights = load_file(stanford_copy / "model.safetensors")
    name = "bert.embeddings.word_embeddings.weight"
    weights[name] = weights[name][:50].contiguous()
    save_file(weights, stanford_copy / "model.safetensors")
    edit_json(stanford_copy / "config.json", vocab_size=50)
    with pytest.raises(CheckpointError, match=r"tokenizer knows \d+ tokens but the backbone has vectors for 50"):
        load(stanford_copy)


def test_a_marker_that_the_tokenizer_does_not_know_is_refused(stanford_copy):
    edit_json(stanford_copy / "artifact.metadata", query_token_id="[Q]")
    with pytest.raises(CheckpointError, match=r"'\[Q\]', which its tokenizer of \d+ tokens does not know"):
        load(stanford_copy)


def test_a_config_of_no_known_model_is_refused(untrained_copy):
    edit_json(untrained_copy / "config.json", model_type="no-such-model")
    with pytest.raises(UnsupportedCheckpointError, match=r"config.json describes no model that loads here"):
        load(untrained_copy)


# Formats that must not be read as something else: they would work, and be wrong


def test_a_pylate_folder_without_its_projection_is_not_read_as_untrained(untrained_copy):
    entries = [("", "sentence_transformers.models.Transformer"), ("1_Dense", "pylate.models.Dense.Dense")]
    (untrained_copy / "modules.json").write_text(json.dumps([{"path": p, "type": t} for p, t in entries]))
    with pytest.raises(CheckpointNotFoundError, match=r"1_Dense has no config.json; the download or copy is not complete"):
        load(untrained_copy)
    (untrained_copy / "1_Dense").mkdir()
    (untrained_copy / "1_Dense" / "config.json").write_text('{"in_features": 32, "out_features": 16, "bias": false}')
    with pytest.raises(CheckpointNotFoundError, match=r"1_Dense has no model.safetensors or pytorch_model.bin"):
        load(untrained_copy)
    save_file({"linear.weight": torch.ones(16, 48)}, untrained_copy / "1_Dense" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"by config.json the weights are .*\(16, 32\).* but they are .*\(16, 48\)"):
        load(untrained_copy)
    (untrained_copy / "1_Dense" / "config.json").write_text('{"in_features": 48, "out_features": 16, "bias": false}')
    with pytest.raises(CheckpointError, match="Dense layer 1 takes 48 components but is given 32"):
        load(untrained_copy)


def test_a_multi_vector_folder_without_a_transformer_is_not_read_as_untrained(untrained_copy):
    modules = [{"type": "sentence_transformers.multi_vector_encoder.modules.MultiVectorMask"}]
    (untrained_copy / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(CheckpointError, match="lists no Transformer among"):
        load(untrained_copy)


def test_a_nanocolbert_folder_without_its_projection_is_not_read_as_untrained(untrained_copy):
    edit_json(untrained_copy / "config.json", architectures=["ColBERT"])
    with pytest.raises(CheckpointError, match="config.json says that linear.weight has the shape .* the weights hold none"):
        load(untrained_copy)


def test_an_unknown_folder_is_told_which_files_were_looked_for(tmp_path):
    with pytest.raises(
        CheckpointNotFoundError, match=r"looked for config.json, modules.json, artifact.metadata and \*.dnn, and it"
    ):
        load(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(CheckpointNotFoundError, match="it holds only notes.txt"):
        load(tmp_path)


def test_a_file_where_a_folder_is_wanted_and_several_dnn_files_are_told_apart(stanford_folder, tmp_path):
    with pytest.raises(CheckpointNotFoundError, match=r"model.safetensors is a file; pass the folder"):
        load(stanford_folder / "model.safetensors")
    for name in ("a.dnn", "b.dnn"):
        (tmp_path / name).touch()
    with pytest.raises(CheckpointNotFoundError, match="holds several .dnn files, a.dnn, b.dnn; pass one of them"):
        load(tmp_path)


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


def test_prompts_of_an_untrained_model_are_used(untrained_copy):
    prompts = {"query": "what ", "passage": "the "}
    (untrained_copy / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    encoder = load(untrained_copy)
    assert (encoder.config.query_prompt, encoder.config.passage_prompt) == ("what ", "the ")
    assert encoder.encode_passages(["cat"]).token_spans.tolist() == [[0, 0], [0, 0], [0, 3], [3, 3]]


def test_json_with_a_byte_order_mark_is_read(stanford_copy):
    content = (stanford_copy / "artifact.metadata").read_text()
    (stanford_copy / "artifact.metadata").write_text("\ufeff" + content, encoding="utf-8")
    assert load(stanford_copy).config.query_length == 12


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_half_downloaded_hub_folder_names_the_command_that_finishes_it(tmp_path, stanford_folder, missing):
    snapshot = tmp_path / "models--someone--tiny-colbert" / "snapshots" / ("0" * 40)
    shutil.copytree(stanford_folder, snapshot)
    (snapshot / missing).unlink()
    with pytest.raises(CheckpointNotFoundError, match="run `hf download someone/tiny-colbert` to finish it"):
        load(snapshot)


def test_a_projection_in_an_unknown_format_is_not_dropped(untrained_copy):
    weights = load_file(untrained_copy / "model.safetensors")
    save_file(weights | {"linear.weight": torch.ones(16, 32)}, untrained_copy / "model.safetensors")
    with pytest.raises(
        UnsupportedCheckpointError,
        match="has the projection linear.weight but neither artifact.metadata nor the architecture HF_ColBERT nor",
    ):
        load(untrained_copy)


def test_a_pooled_sentence_transformer_is_untrained_late_interaction(untrained_copy):
    types = ["Transformer", "Pooling", "Normalize"]
    (untrained_copy / "modules.json").write_text(json.dumps([{"type": f"sentence_transformers.models.{t}"} for t in types]))
    assert not load(untrained_copy).config.trained


# Arguments


def test_an_unknown_keyword_is_an_error(stanford_folder):
    with pytest.raises(TypeError, match="max_length"):
        Encoder.from_pretrained(str(stanford_folder), max_length=12)


@pytest.mark.parametrize("dtype", ["int8", "half-ish", torch.int32, "float8_e4m3fn"])
def test_a_dtype_that_models_do_not_run_in_is_refused(stanford_folder, dtype):
    with pytest.raises(ValueError, match="dtype must be one of float32, bfloat16"):
        Encoder.from_pretrained(str(stanford_folder), dtype=dtype)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "tpu:0"])
def test_a_device_that_is_not_there_is_refused_and_the_best_named(stanford_folder, device):
    with pytest.raises(ValueError, match=rf"device='{device}' is not to be had .* the best one present is"):
        Encoder.from_pretrained(stanford_folder, device=device)


def test_of_a_long_message_about_a_device_the_first_line_is_told(stanford_folder, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("CUDA error: invalid device ordinal\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\n")

    monkeypatch.setattr(torch, "empty", refuse)
    with pytest.raises(ValueError, match=r"'cuda:1' is not to be had \(CUDA error: invalid device ordinal\); the best one"):
        Encoder.from_pretrained(stanford_folder, device="cuda:1")


@pytest.mark.parametrize("length", ["32", 32.5])
def test_a_length_that_is_no_whole_number_is_refused(stanford_folder, length):
    with pytest.raises(TypeError, match="query_length must be a whole number of tokens"):
        load(stanford_folder, query_length=length)


def test_writing_helpers_make_what_they_say(tmp_path):
    (layer,) = read_checkpoint(write_stanford(tmp_path / "m", dim=8)).head
    assert layer.weight.shape == (8, 32)

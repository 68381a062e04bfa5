"""PyLate, sentence-transformers and plain encoders: encoded as their own libraries do, and every way in which one can be wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from builders import checkpoints
from builders.checkpoints import BACKBONES, HIDDEN, LAYERS
from builders.parity import assert_parity, known_tokens, load, published_rule_rows, rows_of, sentence_transformers_rows
from safetensors.torch import load_file, save_file

from colbert_core import (
    CheckpointError,
    CheckpointNotFoundError,
    EncoderConfig,
    UnsupportedCheckpointError,
)


def test_a_plain_encoder_folder_is_untrained_late_interaction_over_its_hidden_states(untrained):
    assert untrained.dim == 32
    assert untrained.config == EncoderConfig(
        format="untrained", query_length=24, passage_length=24, skip_punctuation=True, trained=False
    )
    assert "untrained" in repr(untrained)


@pytest.mark.parametrize("content", ["{", "{}", "[1]"])
def test_a_damaged_modules_json_is_named(untrained_copy, content):
    (untrained_copy / "modules.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"modules\.json"):
        load(untrained_copy)


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


def test_prompts_of_an_untrained_model_are_used(untrained_copy):
    prompts = {"query": "what ", "passage": "the "}
    (untrained_copy / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    encoder = load(untrained_copy)
    assert (encoder.config.query_prompt, encoder.config.passage_prompt) == ("what ", "the ")
    assert encoder.encode_passages(["cat"]).token_spans.tolist() == [[0, 0], [0, 0], [0, 3], [3, 3]]


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


PYLATE = {
    "as it is": {},
    "attending": {"attend_to_expansion_tokens": True},
    "without expansion": {"do_query_expansion": False},
    "without skipped words": {"skiplist_words": []},
    "with words of its own": {"skiplist_words": ["the", "!", "no-such-token"]},
    "with prompts": {"prompts": {"query": "search: ", "document": "passage: "}},
    "without prefixes": {"query_prefix": "", "document_prefix": ""},
}


def pylate_folder(folder, changes, **options):
    folder = checkpoints.pylate(folder, **options)
    file = folder / "config_sentence_transformers.json"
    settings = json.loads(file.read_text()) | changes
    checkpoints.write_json(file, {name: value for name, value in settings.items() if value is not ...})
    return folder


@pytest.mark.parametrize("kind", BACKBONES)
def test_pylate_checkpoints_encode_by_pylates_rules(tmp_path, kind):
    folder = checkpoints.pylate(tmp_path / "model", kind)
    weight = load_file(folder / "1_Dense" / "model.safetensors")["linear.weight"]
    expected = published_rule_rows(
        folder,
        weight=weight,
        markers=("[Q] ", "[D] "),
        lengths=(24, 60),
        skipped=known_tokens,
    )
    assert_parity(rows_of(load(folder)), expected)


@pytest.mark.parametrize("changes", PYLATE.values(), ids=PYLATE)
def test_pylate_checkpoints_encode_as_in_sentence_transformers(tmp_path, changes):
    folder = pylate_folder(tmp_path / "model", changes)
    assert_parity(rows_of(load(folder)), sentence_transformers_rows(folder))


@pytest.mark.parametrize("kind", [kind for kind in BACKBONES if kind != "bert"])
def test_pylate_checkpoints_of_other_backbones_encode_as_in_sentence_transformers(tmp_path, kind):
    folder = checkpoints.pylate(tmp_path / "model", kind)
    assert_parity(rows_of(load(folder)), sentence_transformers_rows(folder))


def test_what_a_pylate_checkpoint_does_not_state_has_pylates_defaults(tmp_path):
    """sentence-transformers takes a folder that states nothing for one without prefixes and expansion; PyLate does not."""
    names = ["query_prefix", "document_prefix", "query_length", "attend_to_expansion_tokens", "skiplist_words"]
    folder = pylate_folder(tmp_path / "model", dict.fromkeys([*names, "do_query_expansion"], ...))
    weight = load_file(folder / "1_Dense" / "model.safetensors")["linear.weight"]
    expected = published_rule_rows(
        folder,
        weight=weight,
        markers=("[Q] ", "[D] "),
        lengths=(32, 60),
        skipped=known_tokens,
    )
    assert_parity(rows_of(load(folder)), expected)
    (folder / "config_sentence_transformers.json").unlink()
    assert load(folder, passage_length=60).config.query_length == 32
    with pytest.raises(ValueError, match="to 130"):
        load(folder, passage_length=180)


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
def test_heads_of_several_layers_compute_as_in_sentence_transformers(tmp_path, layers):
    folder = checkpoints.pylate(tmp_path / "model", layers=layers)
    encoder = load(folder)
    assert encoder.dim == layers[-1]["n_out"]
    assert_parity(rows_of(encoder), sentence_transformers_rows(folder))


def test_the_blank_behind_a_prefix_is_part_of_the_token(tmp_path):
    encoder = load(checkpoints.pylate(tmp_path / "model"))
    assert encoder.describe()["query_prefix"] == {"[CLS]": 4, "[Q] ": encoder._tokenizer.size - 2}
    assert encoder.describe()["example"]["tokens"][:2] == ["[CLS]", "[Q] "]


MULTI_VECTOR = {
    "as it is": {},
    "without expansion": {"query_expansion": None, "query_length": 15},
    "attending": {"query_expansion": {"strategy": "fixed", "attend": True, "length": 20}},
    "at least so long": {"query_expansion": {"strategy": "min", "attend": False, "length": 12}},
    "at least so long, and at most": {"query_length": 18, "query_expansion": {"strategy": "min", "length": 12}},
    "filled with another token": {"query_expansion": {"strategy": "fixed", "token": "[unused1]", "length": 20}},
    "without lengths": {"query_expansion": None, "document_length": None},
}


@pytest.mark.parametrize("changes", MULTI_VECTOR.values(), ids=MULTI_VECTOR)
def test_multi_vector_checkpoints_encode_as_in_sentence_transformers(tmp_path, changes):
    folder = checkpoints.multi_vector(tmp_path / "saved", source=checkpoints.pylate(tmp_path / "source"), **changes)
    encoder = load(folder)
    assert encoder.config.format == "sentence-transformers"
    assert_parity(rows_of(encoder), sentence_transformers_rows(folder))


@pytest.mark.parametrize("kind", BACKBONES)
def test_multi_vector_checkpoints_of_every_backbone_encode_as_in_sentence_transformers(tmp_path, kind):
    folder = checkpoints.multi_vector(tmp_path / "saved", source=checkpoints.stanford(tmp_path / "source", kind))
    assert_parity(rows_of(load(folder)), sentence_transformers_rows(folder))


def test_the_mask_of_queries_and_pooling_in_the_checkpoint_are_as_in_sentence_transformers(tmp_path):
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling

    model = MultiVectorEncoder(str(checkpoints.pylate(tmp_path / "source")), device="cpu")
    model[2].skiplist_tasks = ["query", "document"]
    model.append(HierarchicalTokenPooling(pool_factor=2))
    model.save(str(tmp_path / "saved"), create_model_card=False)
    encoder = load(tmp_path / "saved")
    assert (encoder.config.skip_in_queries, encoder.config.pool_factor, encoder.config.pool_protected) == (True, 2, 1)
    expected = sentence_transformers_rows(tmp_path / "saved")
    found = rows_of(encoder)
    for mine, its in zip(found, expected, strict=True):
        assert mine.shape == its.shape
        # Clusters come in another order there.
        assert (mine @ its.T).max(axis=1).min() >= 0.99999
        assert (mine @ its.T).max(axis=0).min() >= 0.99999


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (
            "2_MultiVectorMask/config.json",
            {"keep_only_token_ids": [3]},
            "keeps only the tokens .3. of a document, as models of images",
        ),
        ("2_MultiVectorMask/config.json", {"skiplist_tasks": ["query"]}, r"skips tokens in \['query'\] only"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "'fill-mask' model; this version reads text encoders"),
        (
            "1_Dense/config.json",
            {"activation_function": "mypackage.Secret"},
            "activation mypackage.Secret; read are torch.nn's",
        ),
        ("1_Dense/config.json", {"module_input_name": "sentence_embedding"}, "is a layer over 'sentence_embedding'"),
    ],
)
def test_parts_of_other_kinds_of_model_are_refused_by_name(tmp_path, file, changes, message):
    folder = checkpoints.multi_vector(tmp_path / "saved", source=checkpoints.stanford(tmp_path / "source"))
    content = json.loads((folder / file).read_text())
    checkpoints.write_json(folder / file, content | changes)
    with pytest.raises(UnsupportedCheckpointError, match=message):
        load(folder)


def test_an_unknown_module_is_named(tmp_path):
    folder = checkpoints.multi_vector(tmp_path / "saved", source=checkpoints.stanford(tmp_path / "source"))
    entries = json.loads((folder / "modules.json").read_text())
    checkpoints.write_json(folder / "modules.json", [*entries, {"path": "4_Router", "type": "sentence_transformers.Router"}])
    with pytest.raises(
        UnsupportedCheckpointError, match="has the module Router, which is not read; read are Transformer, Dense"
    ):
        load(folder)


@pytest.mark.parametrize("source", [checkpoints.pylate, "saved"], ids=["pylate", "sentence-transformers"])
def test_no_module_is_dropped_and_none_is_read_in_another_order(tmp_path, source):
    folder = checkpoints.pylate(tmp_path / "source")
    if source == "saved":
        folder = checkpoints.multi_vector(tmp_path / "saved", source=folder)
    entries = json.loads((folder / "modules.json").read_text())
    for changed in (
        [entries[0], {"path": "1_Dense", "type": "pylate.models.Projection.Projection"}, *entries[2:]],
        [entries[0], {"path": "5", "type": "sentence_transformers.models.LayerNorm"}, *entries[1:]],
        [entries[1], entries[0], *entries[2:]],
        [*entries, entries[0]],
        *(
            [entries[:3], [*entries[:2], entries[3], entries[2]], [entries[0], *entries[2:], entries[1]]]
            if source == "saved"
            else []
        ),
        *([[*entries[:2], entries[3]]] if source == "saved" else []),
    ):
        checkpoints.write_json(folder / "modules.json", changed)
        with pytest.raises(UnsupportedCheckpointError, match=r"is not read|in the order|no Normalize|no MultiVectorMask"):
            load(folder)


@pytest.mark.parametrize("tasks", [["query"], ["query", "document"]])
def test_pooling_of_queries_is_refused(tmp_path, tasks):
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling

    model = MultiVectorEncoder(str(checkpoints.pylate(tmp_path / "source")), device="cpu")
    model.append(HierarchicalTokenPooling(pool_factor=2, tasks=tasks))
    model.save(str(tmp_path / "saved"), create_model_card=False)
    with pytest.raises(UnsupportedCheckpointError, match="pools the tokens of"):
        load(tmp_path / "saved")


def test_query_expansion_that_contradicts_itself_is_refused(tmp_path):
    folder = checkpoints.multi_vector(tmp_path / "saved", source=checkpoints.pylate(tmp_path / "source"))
    settings = json.loads((folder / "sentence_bert_config.json").read_text())
    for changes, message in (
        ({"query_expansion": {"length": 24}}, "neither fixed nor min with a length"),
        (
            {"query_expansion": {"strategy": "min", "length": 30}, "query_length": 12},
            "query_length=12 but expands queries to 30",
        ),
    ):
        checkpoints.write_json(folder / "sentence_bert_config.json", settings | changes)
        with pytest.raises(CheckpointError, match=message):
            load(folder)
    checkpoints.write_json(
        folder / "sentence_bert_config.json", settings | {"query_expansion": {"strategy": "min", "length": 200}}
    )
    assert load(folder).encode_queries(["cat"])[0].shape == (130, 16)  # all that the backbone reads
    assert load(folder, query_length=10).encode_queries(["cat"])[0].shape == (10, 16)


def test_a_folder_of_sentence_transformers_that_kept_a_prefix_of_pylates_is_still_one(tmp_path):
    folder = checkpoints.multi_vector(tmp_path / "saved", source=checkpoints.pylate(tmp_path / "source"))
    file = folder / "config_sentence_transformers.json"
    checkpoints.write_json(file, json.loads(file.read_text()) | {"query_prefix": "[Q] "})
    assert load(folder).config.format == "sentence-transformers"


def test_an_old_layout_with_the_transformer_in_its_own_folder_is_read(tmp_path):
    folder = checkpoints.pylate(tmp_path / "model")
    expected = rows_of(load(folder))
    (folder / "0_Transformer").mkdir()
    for file in [
        path
        for path in folder.iterdir()
        if path.is_file() and path.name not in ("modules.json", "config_sentence_transformers.json")
    ]:
        file.rename(folder / "0_Transformer" / file.name)
    (folder / "0_Transformer" / "sentence_bert_config.json").rename(folder / "0_Transformer" / "sentence_roberta_config.json")
    entries = json.loads((folder / "modules.json").read_text())
    checkpoints.write_json(folder / "modules.json", [entries[0] | {"path": "0_Transformer"}, *entries[1:]])
    for mine, its in zip(rows_of(load(folder)), expected, strict=True):
        np.testing.assert_array_equal(mine, its)


def test_two_projections_that_differ_are_refused(tmp_path):
    folder = checkpoints.pylate(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    checkpoints.save(weights | {"linear.weight": checkpoints.matrix(16, HIDDEN, seed=99)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="two projections that differ"):
        load(folder)

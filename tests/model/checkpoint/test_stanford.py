"""Stanford ColBERT's folders and .dnn files: encoded by Stanford's rules, and every way in which one can be wrong."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from builders import checkpoints
from builders.checkpoints import BACKBONES, edit_json
from builders.parity import (
    assert_parity,
    assert_same,
    first_pieces,
    load,
    published_rule_rows,
    rows_of,
    sentence_transformers_rows,
)
from safetensors.torch import load_file, save_file

from colbert_core import (
    CheckpointError,
    EncoderConfig,
    UnsupportedCheckpointError,
)
from colbert_core.model.checkpoint import read_checkpoint


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


def test_nulls_in_a_recipe_mean_the_defaults(stanford_copy):
    edit_json(stanford_copy / "artifact.metadata", query_maxlen=None, doc_maxlen=None)
    edit_json(stanford_copy / "config.json", architectures=None)
    recipe = read_checkpoint(stanford_copy).config
    assert (recipe.query_length, recipe.passage_length) == (32, 220)


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


@pytest.mark.parametrize("kind", BACKBONES)
@pytest.mark.parametrize("attend", [False, True])
def test_stanford_checkpoints_encode_by_stanfords_rules(tmp_path, kind, attend):
    folder = checkpoints.stanford(tmp_path / "model", kind, attend_to_mask_tokens=attend)
    weight = load_file(folder / "model.safetensors")["linear.weight"]
    prefix = load(folder)._backbone.base_model_prefix + "."
    expected = published_rule_rows(
        folder,
        weight=weight,
        markers=("[unused0]", "[unused1]"),
        lengths=(24, 60),
        skipped=first_pieces,
        attend=attend,
        prefix=prefix,
    )
    assert_parity(rows_of(load(folder)), expected)


@pytest.mark.parametrize("kind", ["bert", "electra"])  # it puts a blank behind the marker, which other tokenizers see
def test_stanford_checkpoints_encode_as_in_sentence_transformers(tmp_path, kind):
    folder = checkpoints.stanford(tmp_path / "model", kind)
    assert_parity(rows_of(load(folder)), sentence_transformers_rows(folder))


def test_a_legacy_dnn_file_is_read_beside_its_backbone_and_from_the_one_it_names(tmp_path):
    named = checkpoints.dnn(tmp_path / "colbert.dnn", base=tmp_path / "base")
    encoder = load(named)
    assert (encoder.config.format, encoder.config.similarity, encoder.config.query_length) == ("stanford", "l2", 24)
    beside = shutil.copytree(tmp_path / "base", tmp_path / "beside")
    shutil.copyfile(named, beside / "colbert.dnn")
    assert_same(encoder, load(beside))

    weights = torch.load(named, weights_only=True)["model_state_dict"]
    checkpoints.save(weights, tmp_path / "base" / "model.safetensors")
    expected = published_rule_rows(
        tmp_path / "base",
        weight=weights["linear.weight"],
        markers=("[unused0]", "[unused1]"),
        lengths=(24, 60),
        skipped=first_pieces,
        prefix="bert.",
    )
    assert_parity(rows_of(encoder), expected)


def test_a_legacy_dnn_file_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    file = checkpoints.dnn(tmp_path / "colbert.dnn", base=tmp_path / "base")
    torch.save({"model_state_dict": {}, "arguments": Evil()}, file)
    with pytest.raises(CheckpointError, match=r"colbert\.dnn"):
        load(file)
    assert not (tmp_path / "ran").exists()


def test_a_dnn_file_of_something_else_is_refused(tmp_path):
    torch.save({"weights": {}}, tmp_path / "other.dnn")
    with pytest.raises(CheckpointError, match="holds weights; a .dnn file of ColBERT's holds model_state_dict"):
        load(tmp_path / "other.dnn")


def test_flipr_which_adds_up_in_two_parts_is_refused(stanford_copy):
    edit_json(stanford_copy / "artifact.metadata", interaction="flipr")
    with pytest.raises(UnsupportedCheckpointError, match="says interaction='flipr'"):
        load(stanford_copy)

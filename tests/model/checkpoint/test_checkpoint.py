"""Finding a checkpoint: folders, hub names, several recipes in one folder, and what is said where there is none."""

from __future__ import annotations

import shutil

import pytest
from builders import checkpoints
from builders.encoders import write_stanford
from builders.parity import load

from colbert_core import (
    CheckpointError,
    CheckpointNotFoundError,
    ColBERTError,
)
from colbert_core.model.checkpoint import read_checkpoint


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


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_half_downloaded_hub_folder_names_the_command_that_finishes_it(tmp_path, stanford_folder, missing):
    snapshot = tmp_path / "models--someone--tiny-colbert" / "snapshots" / ("0" * 40)
    shutil.copytree(stanford_folder, snapshot)
    (snapshot / missing).unlink()
    with pytest.raises(CheckpointNotFoundError, match="run `hf download someone/tiny-colbert` to finish it"):
        load(snapshot)


def test_writing_helpers_make_what_they_say(tmp_path):
    (layer,) = read_checkpoint(write_stanford(tmp_path / "m", dim=8)).head
    assert layer.weight.shape == (8, 32)


def both_recipes(folder, **metadata):
    """A PyLate folder that kept artifact.metadata, as converted checkpoints do."""
    checkpoints.pylate(folder, query_prefix="[unused0]", document_prefix="[unused1]")
    stated = {"query_maxlen": 24, "doc_maxlen": 60, "query_token_id": "[unused0]", "doc_token_id": "[unused1]"}
    checkpoints.write_json(folder / "artifact.metadata", stated | {"attend_to_mask_tokens": False} | metadata)
    return folder


def test_two_recipes_that_agree_are_one(tmp_path):
    assert load(both_recipes(tmp_path / "model")).config.format == "pylate"


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"query_maxlen": 32}, "disagree about the query_length: artifact.metadata says 32, .* 24; .* or pass query_length"),
        ({"doc_maxlen": 300}, "disagree about the passage_length: artifact.metadata says 300, .* 60"),
        ({"query_token_id": "[Q]"}, r"disagree about the query_marker: artifact.metadata says '\[Q\]', .* '\[unused0\]'"),
        ({"mask_punctuation": False}, "disagree about the skip_punctuation: artifact.metadata says False, .* True"),
        ({"dim": 99}, "disagree about the dim: artifact.metadata says 99, .* 16"),
        ({"attend_to_mask_tokens": True}, "disagree about the attend_to_augmentation: artifact.metadata says True, .* False"),
    ],
)
def test_two_recipes_that_disagree_are_refused_with_both_values(tmp_path, metadata, message):
    folder = both_recipes(tmp_path / "model", **metadata)
    with pytest.raises(CheckpointError, match=message):
        load(folder)


def test_a_length_that_two_recipes_disagree_about_can_be_chosen(tmp_path):
    folder = both_recipes(tmp_path / "model", doc_maxlen=100)
    assert load(folder, passage_length=80).config.passage_length == 80

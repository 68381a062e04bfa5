"""Repositories with weights for other runtimes only: what they hold is named, and what they were made of."""

from __future__ import annotations

import shutil

import pytest
from builders import checkpoints
from builders.checkpoints import edit_json
from builders.parity import load

from colbert_core import CheckpointError, UnsupportedCheckpointError

RUNTIMES = {
    "model.onnx": "ONNX",
    "onnx/model_int8.onnx": "ONNX",
    "model.Q8_0.gguf": r"GGUF \(llama.cpp\)",
    "weights.npz": "MLX",
    "openvino/openvino_model.xml": "OpenVINO",
    "tf_model.h5": "TensorFlow",
}


def converted(folder, file):
    """A model of which only this file holds weights."""
    checkpoints.stanford(folder)
    (folder / "model.safetensors").unlink()
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_bytes(b"weights")
    return folder


@pytest.mark.parametrize("file", RUNTIMES)
def test_the_runtime_the_source_and_the_command_are_named(tmp_path, file):
    folder = converted(tmp_path / "model", file)
    with pytest.raises(UnsupportedCheckpointError, match=rf"{RUNTIMES[file]} \({file}\) only; .* Pass the name of the model"):
        load(folder)
    edit_json(folder / "config.json", _name_or_path="/home/someone/model")
    with pytest.raises(UnsupportedCheckpointError, match="Pass the name of the model"):
        load(folder)
    edit_json(folder / "config.json", _name_or_path="someone/colbert")
    with pytest.raises(UnsupportedCheckpointError, match="made of someone/colbert: pass .* `hf download someone/colbert`"):
        load(folder)


@pytest.mark.parametrize(
    "card",
    ["base_model: someone/the-model", "base_model:\n- someone/the-model\n- another/one", 'base_model: ["someone/the-model"]'],
)
def test_the_model_card_names_the_source_before_config_json(tmp_path, card):
    folder = converted(tmp_path / "model", "model.gguf")
    for file in folder.glob("*.json"):
        file.unlink()  # as repositories of GGUF files are
    (folder / "README.md").write_text(f"---\nlicense: mit\n{card}\nbase_model_relation: quantized\n---\n# A model\n")
    with pytest.raises(UnsupportedCheckpointError, match="made of someone/the-model: pass that name"):
        load(folder)


def test_integers_of_mlx_are_no_weights(tmp_path):
    folder = checkpoints.stanford(tmp_path / "model")
    edit_json(folder / "config.json", quantization={"group_size": 64, "bits": 4}, _name_or_path="someone/colbert")
    with pytest.raises(UnsupportedCheckpointError, match=r"MLX \(model.safetensors\) only; .*someone/colbert"):
        load(folder)


@pytest.mark.parametrize("write", [checkpoints.pylate, checkpoints.stanford])
def test_a_copy_for_another_runtime_beside_the_weights_changes_nothing(tmp_path, write):
    folder = write(tmp_path / "model")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"weights")
    assert load(folder).dim == 16


def test_a_head_without_its_backbone_is_not_enough(tmp_path):
    folder = checkpoints.pylate(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "model.onnx")
    with pytest.raises(UnsupportedCheckpointError, match=r"ONNX \(model.onnx\) only"):
        load(folder)


def test_a_repository_of_the_hub_is_named_though_its_weights_are_not_fetched(tmp_path, monkeypatch):
    import huggingface_hub

    folder = converted(tmp_path / "model", "model.onnx")
    (folder / "model.onnx").unlink()
    edit_json(folder / "config.json", _name_or_path="someone/colbert")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(folder))
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda name: ["config.json", "onnx/model.onnx"])
    with pytest.raises(
        UnsupportedCheckpointError, match=r"someone/onnx-only holds .*\(onnx/model.onnx\) only; .*someone/colbert"
    ):
        load("someone/onnx-only")


def test_two_recipes_of_which_one_has_its_head_among_the_weights_are_compared(tmp_path):
    folder = checkpoints.stanford(tmp_path / "model")
    recipe = {"model_type": "ColBERT", "query_prefix": "[unused0]", "document_prefix": "[unused1]", "query_length": 24}
    checkpoints.write_json(folder / "config_sentence_transformers.json", recipe)
    assert load(folder).config.format == "stanford"
    edit_json(folder / "config_sentence_transformers.json", query_length=48)
    with pytest.raises(CheckpointError, match="disagree about the query_length: artifact.metadata says 24, .* 48"):
        load(folder)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"mask_punctuation": False}, "disagree about the skip_punctuation: artifact.metadata says False, .* True"),
        ({"query_maxlen": 25}, "disagree about the query_length: artifact.metadata says 25, .* 24"),
        ({"query_augmentation": False}, "disagree about the augment_queries: artifact.metadata says False, .* True"),
        ({}, None),
    ],
)
def test_a_recipe_of_sentence_transformers_is_compared_with_one_of_stanfords(tmp_path, metadata, message):
    source = checkpoints.stanford(tmp_path / "source")
    folder = checkpoints.multi_vector(tmp_path / "model", source=source)
    shutil.copyfile(source / "artifact.metadata", folder / "artifact.metadata")
    edit_json(folder / "artifact.metadata", **metadata)
    if message is None:
        assert load(folder).config.format == "sentence-transformers"
        return
    with pytest.raises(CheckpointError, match=message):
        load(folder)

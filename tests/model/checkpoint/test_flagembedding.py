"""BGE-M3 and what is trained from it: the head for late interaction beside the backbone is read, or refused by name."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from builders import checkpoints
from builders.checkpoints import HIDDEN, matrix
from builders.parity import PASSAGES, QUERIES, assert_parity, assert_same, load, rows_of, sentence_transformers_rows

from colbert_core import CheckpointError, UnsupportedCheckpointError
from colbert_core.train import ColBERT, Example, train


@pytest.fixture
def folder(tmp_path):
    return checkpoints.flagembedding(tmp_path / "model")


def test_every_token_but_the_first_has_a_vector_and_nothing_is_added(folder):
    encoder = load(folder)
    config = encoder.config
    assert (config.format, config.trained, config.similarity) == ("flagembedding", True, "meanmaxsim")
    assert (config.query_length, config.passage_length) == (100, 100)
    assert (config.query_marker, config.augment_queries, encoder.dim) == (None, False, HIDDEN)
    found = encoder.encode_passages(["", "cats purr!"])
    n = encoder.count_tokens("cats purr!")
    assert found.doclens.tolist() == [1, n + 1]  # [SEP] counts, [CLS] does not
    assert len(encoder.encode_queries(["cats purr!"])[0]) == n + 1
    np.testing.assert_array_equal(found.vectors[1:], encoder.encode_queries(["cats purr!"])[0])
    assert encoder.describe()["head"] == ["32 -> 32, bias"]
    assert "skipped     the first token" in repr(encoder)


def test_a_length_that_no_file_states_is_what_the_backbone_reads(folder):
    (folder / "sentence_bert_config.json").unlink()
    assert load(folder).config.passage_length == 129  # of 130 positions one is that of padding


@pytest.mark.parametrize("head", ["colbert_linear.safetensors", "colbert_linear.bin"])
def test_the_head_may_be_in_another_kind_of_file(tmp_path, folder, head):
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "colbert_linear.pt").unlink()
    layer = torch.load(folder / "colbert_linear.pt", weights_only=True)
    checkpoints.save(layer, other / head) if head.endswith(".safetensors") else torch.save(layer, other / head)
    assert_same(load(folder), load(other))


def test_the_head_may_project_and_lie_beside_a_backbone_in_a_folder_of_its_own(tmp_path):
    folder = checkpoints.flagembedding(tmp_path / "model", dim=8)
    assert load(folder).dim == 8
    (folder / "0_Transformer").mkdir()
    for file in [*folder.glob("*.json"), *folder.glob("*.pt"), folder / "model.safetensors"]:
        if file.name != "modules.json":
            file.rename(folder / "0_Transformer" / file.name)
    edited = [("0_Transformer", "Transformer"), ("1_Pooling", "Pooling")]
    checkpoints.write_json(
        folder / "modules.json", [{"path": path, "type": f"sentence_transformers.models.{name}"} for path, name in edited]
    )
    assert (load(folder).dim, load(folder).config.format) == (8, "flagembedding")


def test_a_head_of_code_is_not_run_and_one_of_another_shape_is_refused(folder, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"weight": Evil()}, folder / "colbert_linear.pt")
    with pytest.raises(CheckpointError, match=r"colbert_linear\.pt .* cannot be read"):
        load(folder)
    assert not (tmp_path / "ran").exists()
    torch.save({"weight": matrix(16, 48)}, folder / "colbert_linear.pt")
    with pytest.raises(CheckpointError, match=r"colbert_linear\.pt takes 48 components but the backbone's hidden size is 32"):
        load(folder)
    torch.save({"weight": matrix(16, HIDDEN), "bias": matrix(8)}, folder / "colbert_linear.pt")
    with pytest.raises(CheckpointError, match=r"colbert_linear\.pt holds .*'bias': \(8,\)"):
        load(folder)


def test_a_copy_is_read_the_same_by_sentence_transformers(folder, tmp_path):
    encoder = load(folder)
    encoder.save(tmp_path / "copy", format="sentence-transformers")
    assert_parity(rows_of(encoder), sentence_transformers_rows(tmp_path / "copy"))


def test_a_folder_without_modules_has_its_head(folder):
    before = load(folder)
    (folder / "modules.json").unlink()
    assert_same(before, load(folder))


def test_a_folder_from_the_hub_has_its_head(tmp_path, monkeypatch, folder):
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    def download(name, *, allow_patterns, local_files_only):
        names = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
        for file in filter_repo_objects(names, allow_patterns=allow_patterns):
            (tmp_path / "hub" / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / file, tmp_path / "hub" / file)
        return str(tmp_path / "hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx_data").write_bytes(b"large")
    assert_same(load("someone/tiny-m3"), load(folder))
    assert not (tmp_path / "hub" / "onnx").exists()


@pytest.mark.parametrize(
    "name",
    [
        "token_linear.pt",
        "head.safetensors",
        "head.npy",
        "colbert.dnn",
        "projection.bin",
        "model_head.pt",
        "adapter_model.safetensors",
    ],
)
def test_another_head_beside_a_backbone_is_refused_by_name(untrained_copy, name):
    checkpoints.save({"weight": matrix(16, HIDDEN)}, untrained_copy / name)
    with pytest.raises(UnsupportedCheckpointError, match=f"holds {name}"):
        load(untrained_copy)


@pytest.mark.parametrize("name", ["linear.weight", "colbert_linear.weight", "custom_text_proj.weight", "proj.weight"])
def test_another_head_among_the_weights_is_refused_by_name(tmp_path, name):
    for kind in ("bert", "distilbert"):
        folder = tmp_path / kind
        model = checkpoints.write_backbone(folder, kind)
        checkpoints.save(checkpoints.tensors_of(model) | {name: matrix(16, HIDDEN)}, folder / "model.safetensors")
        with pytest.raises(UnsupportedCheckpointError, match=name):
            load(folder)


def test_a_layer_over_tokens_without_a_recipe_is_no_untrained_model(untrained_copy):
    dense = checkpoints.dense(untrained_copy / "1_Dense", HIDDEN, 16)
    types = ["Transformer", "Dense"]
    entries = [
        {"path": path, "type": f"sentence_transformers.models.{t}"} for path, t in zip(("", dense["path"]), types, strict=True)
    ]
    checkpoints.write_json(untrained_copy / "modules.json", entries)
    with pytest.raises(UnsupportedCheckpointError, match="has a Dense layer over token vectors"):
        load(untrained_copy)


def test_what_trainers_leave_and_heads_of_other_tasks_are_no_heads(untrained_copy, untrained):
    for name in ("training_args.bin", "optimizer.pt", "rng_state_0.pth", "sparse_linear.pt", "pytorch_model.fp16.bin"):
        (untrained_copy / name).write_bytes(b"")
    from safetensors.torch import load_file

    weights = load_file(untrained_copy / "model.safetensors")
    others = ("cls.predictions.transform.dense.weight", "classifier.weight", "vocab_projector.weight", "lm_head.dense.weight")
    checkpoints.save(weights | {name: matrix(4, HIDDEN) for name in others}, untrained_copy / "model.safetensors")
    assert_same(load(untrained_copy), untrained)


def test_a_second_head_of_a_model_must_be_the_same(tmp_path):
    folder = checkpoints.pylate(tmp_path / "model")
    before = load(folder)
    torch.save({"weight": before._head.layers[0].weight.detach()}, folder / "colbert_linear.pt")
    assert_same(before, load(folder))
    torch.save({"weight": matrix(16, HIDDEN)}, folder / "colbert_linear.pt")
    with pytest.raises(
        CheckpointError, match=r"two heads that differ: colbert_linear.pt \(32 -> 16\), .* pylate format \(32 -> 16\)"
    ):
        load(folder)


def test_it_is_trained_further_and_reads_as_before(folder, tmp_path):
    examples = [Example(query, passage or "dogs", ("rust",)) for query, passage in zip(QUERIES, PASSAGES, strict=False)]
    result = train(
        examples, folder, out=tmp_path / "run", steps=1, batch_size=2, passage_length=40, preset="colbertv1", progress=False
    )
    trained = load(result.model)
    assert trained.config.format == "sentence-transformers"
    assert (
        trained.encode_passages(["cats purr!"]).doclens.tolist()
        == load(folder).encode_passages(["cats purr!"]).doclens.tolist()
    )


def test_examples_are_prepared_for_its_tokens(folder):
    from colbert_core.train import configured

    model = ColBERT.from_pretrained(folder, configured("colbertv1", {}))
    (built,) = model.inputs.passages(["cats"])
    assert built.windows[0].kept.tolist() == list(range(1, len(built.ids)))

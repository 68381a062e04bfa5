"""The model that is trained: the Encoder's vectors with gradients, and checkpoints that read as what was trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from builders import checkpoints
from builders.encoders import write_stanford, write_untrained

from colbert_core import Encoder
from colbert_core.train import ColBERT, Example, TrainConfig, prepare
from colbert_core.train.batches import Batches

QUERIES = ["what sound does a cat make", "dogs", "is rust a language of systems, or pets"]
PASSAGES = ["the cat sat on a mat, happy.", "purr", "rust is a language of systems; cats and dogs bark!"]
CONFIG = TrainConfig(query_length=12, passage_length=20, dim=16)


@pytest.fixture(scope="module")
def trainable(stanford_folder):
    return ColBERT.from_pretrained(stanford_folder, CONFIG)


def vectors_of(model, tmp_path):
    """Vectors of QUERIES and PASSAGES by the training path: prepared, padded, forward, mask."""
    examples = [Example(query, passage) for query, passage in zip(QUERIES, PASSAGES, strict=True)]
    data = prepare(examples, model, tmp_path / "data")
    pad_id = model.inputs.tokenizer.pad_id
    both = []
    for texts in (data.queries, data.passages):
        padded = texts.padded(np.arange(3), pad_id)
        with torch.no_grad():
            (vectors,) = model((torch.from_numpy(padded.ids), torch.from_numpy(padded.attended)))
        both.append([rows[kept].numpy() for rows, kept in zip(vectors, torch.from_numpy(padded.kept), strict=True)])
    return both


def assert_reads_as(model, encoder, tmp_path):
    queries, passages = vectors_of(model.eval(), tmp_path)
    for expected, matrix in zip(encoder.encode_queries(QUERIES), queries, strict=True):
        np.testing.assert_allclose(matrix, expected, atol=2e-6)
    embeddings = encoder.encode_passages(PASSAGES)
    windows = np.split(embeddings.vectors, np.cumsum(embeddings.doclens)[:-1])
    firsts = np.unique(embeddings.owners, return_index=True)[1]  # training reads the first window
    for number, rows in zip(firsts, passages, strict=True):
        np.testing.assert_allclose(rows, windows[number], atol=2e-6)


def moved(model):
    """The model after something like training: every weight is another one."""
    torch.manual_seed(9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model


def test_vectors_in_training_are_those_of_the_encoder(trainable, stanford, tmp_path):
    assert_reads_as(trainable, stanford, tmp_path)


def test_vectors_are_unit_and_have_gradients(trainable):
    ids = torch.tensor([[4, 1, 40, 5], [4, 1, 5, 0]])
    (vectors,) = trainable((ids, torch.tensor([4, 3])))
    assert vectors.shape == (2, 4, 16)
    assert vectors.requires_grad
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(2, 4))


@pytest.mark.parametrize("kind", checkpoints.BACKBONES)
def test_a_plain_encoder_of_every_backbone_gets_a_recipe_and_comes_back_as_it_was_trained(kind, tmp_path):
    folder = tmp_path / "plain"
    checkpoints.save(checkpoints.tensors_of(checkpoints.write_backbone(folder, kind)), folder / "model.safetensors")
    model = moved(ColBERT.from_pretrained(folder, CONFIG))
    assert model.inputs.config.augment_queries
    format = model.save(tmp_path / "model")
    assert format == ("stanford" if model.inputs.config.query_marker else "sentence-transformers")
    encoder = Encoder.from_pretrained(tmp_path / "model", device="cpu", dtype="float32")
    assert encoder.dim == 16
    assert encoder.config.trained
    assert_reads_as(model, encoder, tmp_path)


def test_a_plain_encoder_gets_stanfords_recipe(untrained_folder):
    model = ColBERT.from_pretrained(untrained_folder, CONFIG)
    recipe = model.inputs.config
    assert (recipe.query_marker, recipe.passage_marker) == ("[unused0]", "[unused1]")
    assert (recipe.query_length, recipe.passage_length, recipe.augment_queries) == (12, 20, True)
    assert model.head.dim == 16


def test_a_new_head_is_decided_by_the_seed(untrained_folder):
    torch.manual_seed(1)
    first = ColBERT.from_pretrained(untrained_folder, CONFIG).head.weights()[0].weight
    torch.manual_seed(2)
    assert torch.equal(first, ColBERT.from_pretrained(untrained_folder, CONFIG).head.weights()[0].weight)
    other = ColBERT.from_pretrained(untrained_folder, TrainConfig(query_length=12, passage_length=20, dim=16, seed=1))
    assert not torch.equal(first, other.head.weights()[0].weight)
    assert first.abs().max() <= 32**-0.5


@pytest.mark.parametrize("format", ["stanford", "pylate", "nanocolbert"])
def test_a_colbert_checkpoint_keeps_its_recipe_and_comes_back_as_it_was_trained(format, tmp_path):
    folder = getattr(checkpoints, format)(tmp_path / "base")
    model = moved(ColBERT.from_pretrained(folder, CONFIG))
    base = Encoder.from_pretrained(folder, device="cpu", dtype="float32")
    assert (model.inputs.config.query_marker, model.inputs.config.query_prompt) == (
        base.config.query_marker,
        base.config.query_prompt,
    )
    model.save(tmp_path / "model")
    assert_reads_as(model, Encoder.from_pretrained(tmp_path / "model", device="cpu", dtype="float32"), tmp_path)


def test_the_model_in_the_box_trains_as_floating_point_and_keeps_reading_long_queries(tmp_path):
    model = ColBERT.from_pretrained(None, TrainConfig())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert (model.inputs.config.query_length, model.inputs.config.passage_length) == (256, 180)
    encoder = Encoder.from_pretrained(device="cpu", dtype="float32")
    assert_reads_as(model, encoder, tmp_path)
    assert moved(model).save(tmp_path / "model") == "sentence-transformers"
    (tmp_path / "again").mkdir()
    trained = Encoder.from_pretrained(tmp_path / "model", device="cpu", dtype="float32")
    assert trained.config.trained
    assert_reads_as(model, trained, tmp_path / "again")


def test_an_encoder_of_it_is_a_copy_that_training_does_not_touch(untrained_folder):
    model = ColBERT.from_pretrained(untrained_folder, CONFIG).train()
    encoder = model.encoder()
    before = encoder.encode_queries(QUERIES)[0]
    moved(model)
    assert np.array_equal(encoder.encode_queries(QUERIES)[0], before)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.backbone.training


def test_a_length_beyond_the_backbone_is_bounded_and_one_without_room_is_an_error(tmp_path):
    folder = write_untrained(tmp_path / "base")
    assert ColBERT.from_pretrained(folder, TrainConfig()).inputs.config.passage_length == 64
    with pytest.raises(ValueError, match="query_length=3 for"):
        ColBERT.from_pretrained(folder, TrainConfig(query_length=3))


@pytest.mark.parametrize("loss", ["pairwise", "in-batch", "distillation", "distillation+in-batch"])
@pytest.mark.parametrize("write", [write_stanford, write_untrained])
def test_gradients_reach_backbone_and_projection_with_every_loss(loss, write, tmp_path):
    model = ColBERT.from_pretrained(write(tmp_path / "base"), CONFIG)
    examples = [Example(query, passage, ("the mat",), (3.0, 1.0)) for query, passage in zip(QUERIES, PASSAGES, strict=True)]
    data = prepare(examples, model, tmp_path / "data")
    batch = Batches(data, most_negatives=1, pad_id=0).batch(np.arange(3))
    batch.loss(*model(*batch.inputs), loss=loss, config=CONFIG).backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    # Keys' bias adds one number to all scores of a softmax, which does not change it.
    assert [name for name in without if not name.endswith("key.bias")] == []
    assert {"head.layers.0.weight", "backbone.embeddings.word_embeddings.weight"} <= dict(model.named_parameters()).keys()

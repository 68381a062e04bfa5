"""The packed forward pass is the ordinary one for plain BERT and its kin, and is used for nothing else."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    CamembertConfig,
    CamembertModel,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from colbert_core import Encoder
from colbert_core.model.packed import bert, pack
from colbert_core.model.sharing import Shared

SIZES = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 1,
}
TEXTS = ["the cat sat on a mat", "dogs bark.", "what sound does a cat make?", "", "cats", "the dog sat on a mat", "pets purr"]
KIN = {
    "bert": (BertConfig, BertModel),
    "roberta": (RobertaConfig, RobertaModel),
    "xlm-roberta": (XLMRobertaConfig, XLMRobertaModel),
    "distilbert": (DistilBertConfig, DistilBertModel),
}


def random_model(kind="bert", *, dtype=torch.bfloat16, seed=0, **settings):
    torch.manual_seed(seed)
    config, model_class = KIN[kind]
    if kind == "distilbert":
        settings = {"hidden_dim": 64} | settings
    model = model_class(config(**(SIZES | {"initializer_range": 0.2} | settings)))
    model.pooler = None
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # they begin as zeros, which would hide one that is left out
            torch.nn.init.normal_(parameter, std=0.2)
    return model.to(dtype).eval().requires_grad_(requires_grad=False)


needs_packing = pytest.mark.skipif(pack(random_model()) is None, reason="this processor or torch has no packed products")


@needs_packing
@pytest.mark.parametrize("written_out", [False, True])
@pytest.mark.parametrize("kind", KIN)
@torch.inference_mode()
def test_packed_states_are_those_of_each_sequence_by_itself(kind, written_out, monkeypatch):
    monkeypatch.setattr(bert, "slow_for_narrow_heads", lambda dtype, width: written_out)
    model = random_model(kind, dtype=torch.float32)
    lengths, attended = [12, 12, 12, 7, 3, 1], [12, 12, 5, 7, 1, 1]
    ids = [np.random.default_rng(length).integers(2, 100, length) for length in lengths]
    ids[0][4] = SIZES["pad_token_id"]  # RoBERTa and XLM-R do not count it
    found = bert.read(model)(ids, attended).split(lengths)
    for one, n, states in zip(ids, attended, found, strict=True):
        mask = (torch.arange(len(one)) < n).long()[None]
        expected = model(input_ids=torch.from_numpy(one)[None], attention_mask=mask).last_hidden_state[0]
        torch.testing.assert_close(states, expected, atol=1e-5, rtol=1e-5)


def test_roberta_counts_positions_from_its_padding():
    ids = [np.array([5, 1, 6]), np.array([7])]
    assert bert._counted_from(1, ids).tolist() == [2, 1, 3, 2]


@needs_packing
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kind", KIN)
def test_plain_models_are_packed_whatever_their_sizes(kind, dtype):
    sizes = ({}, {"num_hidden_layers": 1}, {"num_attention_heads": 1}, {"max_position_embeddings": 2048})
    own = {"distilbert": ({"hidden_dim": 48}, {"sinusoidal_pos_embds": True})}
    for settings in (*sizes, *own.get(kind, ({"intermediate_size": 48, "type_vocab_size": 1},))):
        assert pack(random_model(kind, dtype=dtype, **settings)) is not None, settings


@pytest.mark.parametrize(
    "settings",
    [
        {"dtype": torch.float64},
        {"dtype": torch.float16},
        {"hidden_act": "relu"},
        {"hidden_act": "gelu_new"},
        {"is_decoder": True},
        {"is_decoder": True, "add_cross_attention": True},
        {"kind": "roberta", "hidden_act": "gelu_new"},
        {"kind": "xlm-roberta", "is_decoder": True},
        {"kind": "distilbert", "activation": "relu"},
    ],
    ids=str,
)
def test_another_kind_of_model_is_not_packed(settings):
    assert pack(random_model(**settings)) is None


def test_other_models_are_not_packed():
    class Own(BertModel):
        pass

    torch.manual_seed(0)
    config = BertConfig(**SIZES)
    relative = random_model()
    relative.config.position_embedding_type = "relative_key"
    more = random_model()
    more.encoder.layer[0].output.dense.register_parameter("scale", torch.nn.Parameter(torch.ones(1, dtype=torch.bfloat16)))
    without_bias = random_model()
    without_bias.encoder.layer[0].output.dense.bias = None
    for model in (
        ElectraModel(ElectraConfig(**SIZES)).bfloat16().eval(),
        CamembertModel(CamembertConfig(**SIZES), add_pooling_layer=False).bfloat16().eval(),
        Own(config, add_pooling_layer=False).bfloat16().eval(),
        BertModel(config).bfloat16().eval(),  # with a pooler
        random_model().train(),
        relative,
        more,
        without_bias,
    ):
        assert pack(model) is None, type(model)


def test_a_model_that_computes_something_else_than_it_says_is_not_packed():
    model = random_model()
    model.encoder.layer[1].intermediate.intermediate_act_fn = torch.nn.ReLU()
    assert pack(model) is None
    model = random_model()
    model.embeddings.register_forward_hook(lambda module, inputs, output: output.flip(-1))
    assert pack(model) is None
    model = random_model()
    model.embeddings.word_embeddings.weight[:] = torch.nan
    assert pack(model) is None


@pytest.mark.parametrize("error", [RuntimeError, AttributeError])  # not on this processor, no such operator
def test_without_the_operators_the_ordinary_forward_stays(default_encoder, monkeypatch, error):
    def fail(*arguments):
        raise error

    monkeypatch.setattr("colbert_core.model.packed.bert.PackedBert.__init__", fail)
    monkeypatch.setattr("colbert_core.model.encoder._shared", Shared())
    encoder = Encoder.from_pretrained(device="cpu", dtype="bfloat16")
    assert encoder._runner.packed is None
    assert encoder.encode_passages(["cat"]).vectors.shape == (3, 128)


# In an encoder


@pytest.fixture(scope="module")
def rough(stanford_folder):
    encoder = Encoder.from_pretrained(str(stanford_folder), device="cpu", dtype="bfloat16")
    if encoder._runner.packed is None:
        pytest.skip("this processor or torch has no packed products")
    return encoder


def test_a_packed_encoder_is_as_close_to_float32_as_an_ordinary_one(rough, stanford, monkeypatch):
    exact = np.concatenate([stanford.encode_passages(TEXTS).vectors, *stanford.encode_queries(["cat", "what sound"])])

    def cosines():
        found = np.concatenate([rough.encode_passages(TEXTS).vectors, *rough.encode_queries(["cat", "what sound"])])
        return (found * exact).sum(axis=1)

    packed = cosines()
    monkeypatch.setattr(rough._runner, "packed", None)
    ordinary = cosines()
    assert packed.mean() > 0.995
    assert 1 - packed.mean() < 2 * (1 - ordinary.mean())


def test_packed_batches_give_the_same_as_one_by_one(rough, monkeypatch):
    together = rough.encode_passages(TEXTS).vectors
    alone = np.concatenate([rough.encode_passages([text]).vectors for text in TEXTS])
    assert (together * alone).sum(axis=1).min() > 0.999
    monkeypatch.setattr("colbert_core.model.forward._CPU_BATCH_TOKENS", 16)
    assert (together * rough.encode_passages(TEXTS).vectors).sum(axis=1).min() > 0.999
    queries = ["cat", "what sound does a cat make", "dogs bark"]  # one length, attended to differently
    for vectors, query in zip(rough.encode_queries(queries), queries, strict=True):
        assert (vectors * rough.encode_queries([query])[0]).sum(axis=1).min() > 0.999


def test_a_packed_encoder_describes_saves_and_pickles_as_any_other(rough, tmp_path):
    assert (rough.describe()["dtype"], rough.describe()["device"], rough.dtype) == ("bfloat16", "cpu", torch.bfloat16)
    rough.save(tmp_path / "saved", format="stanford")
    saved = Encoder.from_pretrained(tmp_path / "saved", device="cpu", dtype="bfloat16")
    for again in (saved, pickle.loads(pickle.dumps(rough))):
        assert again._runner.packed is not None
        np.testing.assert_array_equal(again.encode_passages(TEXTS).vectors, rough.encode_passages(TEXTS).vectors)


@needs_packing
def test_the_model_in_the_box_is_packed_in_bfloat16():
    encoder = Encoder.from_pretrained(device="cpu", dtype="bfloat16")
    assert encoder._runner.packed is not None

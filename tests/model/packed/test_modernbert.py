"""The packed forward pass is the ordinary one for ModernBERT, and is used where all its settings are written down."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from builders import checkpoints
from transformers import ModernBertConfig, ModernBertModel

from colbert_core import Encoder
from colbert_core.model.backbone import move
from colbert_core.model.packed import modernbert, pack

SIZES = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 5,  # the first and the fourth see everything
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "local_attention": 8,  # four tokens to each side
    "max_position_embeddings": 512,
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0),
}
ROPE = {"full_attention": {"rope_type": "default", "rope_theta": 1000.0}}
LINEAR = {"full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1000.0}}


def random_model(*, dtype=torch.float32, std=0.3, **settings):
    torch.manual_seed(0)
    model = ModernBertModel(ModernBertConfig(**(SIZES | settings))).requires_grad_(requires_grad=False)
    for name, parameter in model.named_parameters():
        if "norm.weight" in name:
            torch.nn.init.normal_(parameter, mean=1, std=0.2)
        else:  # so large that attention is sharp, and feels each rotation
            torch.nn.init.normal_(parameter, std=std)
    return move(model, torch.device("cpu"), dtype).eval()


def random_ids(*lengths):
    return [np.random.default_rng(number).integers(0, 100, length) for number, length in enumerate(lengths)]


def states_one_by_one(model, ids, attended):
    for one, n in zip(ids, attended, strict=True):
        mask = (torch.arange(len(one)) < n).long()[None]
        yield model(input_ids=torch.from_numpy(one)[None], attention_mask=mask).last_hidden_state[0]


needs_packing = pytest.mark.skipif(pack(random_model()) is None, reason="this processor or torch has no packed products")
needs_bfloat16 = pytest.mark.skipif(
    pack(random_model(dtype=torch.bfloat16)) is None, reason="this processor has no packed products in bfloat16"
)


@needs_packing
@pytest.mark.parametrize("local_attention", [2, 8, 9, 64, 400])
@torch.inference_mode()
def test_packed_states_are_those_of_each_sequence_by_itself(local_attention):
    model = random_model(local_attention=local_attention)
    lengths = [400, 129, 128, 70, 12, 12, 12, 6, 5, 4, 1]
    attended = [400, 129, 128, 20, 12, 12, 3, 6, 5, 4, 1]  # of the 70, some see none within their window
    ids = random_ids(*lengths)
    found = modernbert.read(model)(ids, attended).split(lengths)
    for states, expected in zip(found, states_one_by_one(model, ids, attended), strict=True):
        torch.testing.assert_close(states, expected, atol=1e-4, rtol=1e-4)


@needs_bfloat16
@pytest.mark.parametrize(("std", "most"), [(0.3, 1e-3), (0.1, 3e-5)])  # attention that is sharp, and as it is at first
@torch.inference_mode()
def test_in_bfloat16_it_is_as_close_to_float32_as_transformers(std, most):
    ids, attended = random_ids(300, 40, 40), (300, 40, 7)
    rough = random_model(dtype=torch.bfloat16, std=std)
    exact = torch.cat(list(states_one_by_one(random_model(std=std), ids, attended)))
    ordinary = torch.cat(list(states_one_by_one(rough, ids, attended)))
    packed = pack(rough)(ids, attended)

    def apart(one, other):
        return 1 - torch.nn.functional.cosine_similarity(one.float(), other.float(), dim=-1).mean().item()

    assert apart(packed, ordinary) < most
    assert apart(packed, exact) < 1.2 * apart(ordinary, exact)


@needs_packing
@pytest.mark.parametrize("dtype", [pytest.param(torch.bfloat16, marks=needs_bfloat16), torch.float32])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_hidden_layers": 1},
        {"num_attention_heads": 1},
        {"layer_types": ["sliding_attention"] * 5},
        {"layer_types": ["full_attention"] * 5},
        {"global_attn_every_n_layers": 2},
        {"rope_parameters": ROPE},
        {"global_rope_theta": 50.0, "local_rope_theta": 20.0},
        {"local_attention": 128},
        {"attention_bias": True},
        {"mlp_bias": True},
        {"norm_bias": True},
        {"max_position_embeddings": 8192},
    ],
    ids=str,
)
def test_modernbert_is_packed_with_each_of_its_settings(settings, dtype):
    assert pack(random_model(dtype=dtype, **settings)) is not None


@pytest.mark.parametrize(
    "settings",
    [
        {"dtype": torch.float64},
        {"dtype": torch.float16},
        {"hidden_activation": "relu"},
        {"hidden_activation": "gelu_new"},
        {"rope_parameters": LINEAR},
    ],
    ids=str,
)
def test_modernbert_with_other_settings_is_not_packed(settings):
    assert pack(random_model(**settings)) is None


def test_a_changed_modernbert_is_not_packed():
    class Own(ModernBertModel):
        pass

    more = random_model()
    more.layers[1].mlp.register_parameter("scale", torch.nn.Parameter(torch.ones(1)))
    first_norm = random_model()
    first_norm.layers[0].attn_norm = torch.nn.LayerNorm(32, bias=False)
    for model in (Own(ModernBertConfig(**SIZES)).eval(), random_model().train(), more, first_norm):
        assert pack(model) is None, type(model)


def change_frequencies(model):
    model.rotary_emb.full_attention_inv_freq *= 1.5


def change_gate(model):
    model.layers[2].mlp.act = torch.nn.SiLU()


def change_kind_of_a_layer(model):
    model.layers[1].attention_type = "full_attention"


@pytest.mark.parametrize("change", [change_frequencies, change_gate, change_kind_of_a_layer])
def test_a_model_that_computes_something_else_than_it_says_is_not_packed(change):
    model = random_model()
    change(model)
    assert pack(model) is None


@needs_packing
def test_a_model_whose_window_was_changed_is_packed_with_the_new_one():
    model = random_model()
    model.config.local_attention = 6  # which transformers' masks follow
    assert pack(model)._window.reach == 3


@needs_packing
@torch.inference_mode()
def test_neighbours_in_a_pass_do_not_mix():
    packed = pack(random_model())
    lengths = [200, 200, 33, 33, 1]
    ids = random_ids(*lengths)
    together = packed(ids, lengths).split(lengths)
    for one, length, states in zip(ids, lengths, together, strict=True):
        torch.testing.assert_close(states, packed([one], [length]), atol=1e-5, rtol=1e-5)


@needs_packing
@torch.inference_mode()
def test_several_threads_may_use_it_at_once():
    packed = pack(random_model())
    ids = random_ids(*range(20, 180, 10))

    @torch.inference_mode()
    def states(one):
        return packed([one], [len(one)])

    with ThreadPoolExecutor(4) as threads:
        for found, expected in zip(threads.map(states, ids), map(states, ids), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


# In an encoder


@needs_packing
@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=needs_bfloat16)])
@pytest.mark.parametrize("kind", ["modernbert", "roberta", "xlm-roberta"])
def test_an_encoder_gives_the_same_vectors_with_and_without(tmp_path, monkeypatch, kind, dtype):
    texts = ["the cat sat on a mat", "dogs bark", "", "cats", "dogs bark", "happy pets (and others) purr " * 5]
    encoder = Encoder.from_pretrained(checkpoints.pylate(tmp_path / "model", kind), device="cpu", dtype=dtype)
    assert encoder._runner.packed is not None

    def vectors():
        return np.concatenate([encoder.encode_passages(texts).vectors, *encoder.encode_queries(["cat", "dogs bark"])])

    packed = vectors()
    alone = np.concatenate([encoder.encode_passages([text]).vectors for text in texts])
    assert (packed[: len(alone)] * alone).sum(axis=1).min() > (0.99999 if dtype == "float32" else 0.995)
    queries = encoder.encode_queries(["dogs bark", "cat", "dogs bark"])
    np.testing.assert_array_equal(queries[0], queries[2])
    monkeypatch.setattr(encoder._runner, "packed", None)
    assert (packed * vectors()).sum(axis=1).mean() > (0.99999 if dtype == "float32" else 0.999)

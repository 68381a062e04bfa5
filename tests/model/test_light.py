"""BERT and its tokenizer without transformers are those of transformers, and anything else is left to it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from builders import checkpoints
from builders.checkpoints import edit_json
from builders.parity import assert_same, load
from hypothesis import given
from hypothesis import strategies as st

from colbert_core import CheckpointError, Encoder
from colbert_core.model.backbone import build_backbone
from colbert_core.model.checkpoint import DEFAULT_MODEL, read_checkpoint
from colbert_core.model.light import load_bert
from colbert_core.model.sharing import Shared
from colbert_core.model.tokenizer import Tokenizer, _load, _read_files
from colbert_core.model.wordpiece import WordPiece, read_wordpiece


@pytest.fixture
def folder(tmp_path):
    return checkpoints.stanford(tmp_path / "model")


@pytest.fixture(scope="module")
def both_tokenizers():
    return Tokenizer.from_folder(DEFAULT_MODEL), Tokenizer(_load(DEFAULT_MODEL))


def read_both(folder):
    checkpoint = read_checkpoint(folder)
    return load_bert(checkpoint), build_backbone(checkpoint, trust_remote_code=False)


def has_light_tokenizer(folder):
    return read_wordpiece(folder, _read_files(folder)) is not None


# The backbone


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_hidden_states_are_those_of_transformers_to_the_last_bit(folder, dtype):
    light, full = (backbone.to(dtype).eval() for backbone in read_both(folder))
    ids = torch.randint(0, light.config.vocab_size, (3, 30), generator=torch.Generator().manual_seed(0))
    attended = torch.arange(30) < torch.tensor([[30], [7], [1]])
    expected = full(input_ids=ids, attention_mask=attended.long()).last_hidden_state
    found = light(input_ids=ids, attention_mask=attended.long()).last_hidden_state
    assert torch.equal(found[attended], expected[attended])


def test_tensors_have_the_names_and_values_of_transformers(folder):
    light, full = (backbone.state_dict() for backbone in read_both(folder))
    assert light.keys() == full.keys()
    assert all(torch.equal(light[name], full[name]) for name in full)


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_act": "relu"},
        {"position_embedding_type": "relative_key"},
        {"is_decoder": True},
        {"model_type": "electra"},
        {"auto_map": {"AutoModel": "own.Model"}},
        {"num_attention_heads": -4},
        {"num_attention_heads": 5},
        {"num_hidden_layers": 10**9},
        {"vocab_size": True},
        {"vocab_size": 10**7},
        {"layer_norm_eps": float("nan")},
        {"layer_norm_eps": "small"},
        {"hidden_dropout_prob": 3.0},
    ],
    ids=str,
)
def test_a_model_that_is_no_plain_bert_or_does_not_fit_its_weights_is_left_to_transformers(folder, changes):
    assert load_bert(read_checkpoint(folder)) is not None
    edit_json(folder / "config.json", **changes)
    assert load_bert(read_checkpoint(folder)) is None


def test_weights_do_not_lie_in_the_file(folder):
    light = load_bert(read_checkpoint(folder))
    before = light.embeddings.word_embeddings.weight.sum().item()
    (folder / "model.safetensors").write_bytes(b"")
    assert light.embeddings.word_embeddings.weight.sum().item() == before


# The tokenizer


TEXTS = [
    "Vitamin D",
    "naïve façade",
    "汉字 and かな",
    "a\tb\n  c",
    "[MASK] [CLS]x[SEP]",
    "x" * 300,
    "",
    "é",
    "\u200b zero",
    "🙂!",
]


def assert_equal_tokens(both, texts):
    for one, other in zip(*(tokenizer.encode(texts) for tokenizer in both), strict=True):
        np.testing.assert_array_equal(one.ids, other.ids)
        np.testing.assert_array_equal(one.spans, other.spans)
        np.testing.assert_array_equal(one.word_starts, other.word_starts)


def test_the_tokenizer_in_the_box_is_read_without_transformers_and_is_the_same(both_tokenizers):
    light, full = both_tokenizers
    assert isinstance(light._hf_tokenizer, WordPiece)
    for name in ("prefix_ids", "suffix_ids", "mask_id", "eos_id", "unknown_id", "pad_id", "size", "n_ids"):
        assert getattr(light, name) == getattr(full, name), name
    assert light.pieces() == full.pieces()
    assert_equal_tokens(both_tokenizers, TEXTS)


@given(st.lists(st.text(max_size=40), max_size=3))
def test_any_text_has_the_same_tokens(both_tokenizers, texts):
    assert_equal_tokens(both_tokenizers, [text.encode("utf-8", "replace").decode() for text in texts])


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("tokenizer_config.json", {"do_lower_case": False}),
        ("tokenizer_config.json", {"strip_accents": True}),
        ("tokenizer_config.json", {"tokenizer_class": "XLMRobertaTokenizer"}),
        ("tokenizer_config.json", {"mask_token": "[MAKS]"}),
        ("tokenizer_config.json", {"unheard_of": 1}),
        ("tokenizer_config.json", {"additional_special_tokens": ["[Q]"]}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"1": {"content": "[unused0]", "special": True}}}),
        ("tokenizer.json", {"pre_tokenizer": {"type": "Whitespace"}}),
        ("tokenizer.json", {"normalizer": None}),
        ("tokenizer.json", {"post_processor": None}),
        ("tokenizer.json", {"added_tokens": []}),
    ],
    ids=str,
)
def test_a_tokenizer_whose_files_differ_in_anything_is_left_to_transformers(tmp_path, file, changes):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(DEFAULT_MODEL / name, tmp_path / name)
    assert has_light_tokenizer(tmp_path)
    edit_json(tmp_path / file, **changes)
    assert not has_light_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["added_tokens.json", "special_tokens_map.json"])
def test_files_that_say_more_leave_a_tokenizer_to_transformers(tmp_path, name):
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(DEFAULT_MODEL / file, tmp_path / file)
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"mask_token": {"content": "[MASK]"}, "unk_token": "[UNK]"}))
    assert has_light_tokenizer(tmp_path)
    (tmp_path / name).write_text(json.dumps({"additional_special_tokens": 40} if name.startswith("special") else {"[Q]": 9}))
    assert not has_light_tokenizer(tmp_path)


# Together


def test_the_model_in_the_box_is_searched_with_without_transformers():
    code = (
        "import sys, colbert_core\n"
        "index = colbert_core.Index.create(None, colbert_core.Encoder.from_pretrained())\n"
        "index.add([colbert_core.Passage('a', 'cats purr'), colbert_core.Passage('b', 'dogs bark')])\n"
        "assert index.search('what sound do cats make?')[0].passage.id == 'a'\n"
        "heavy = {'transformers', 'sympy', 'torch._dynamo', 'huggingface_hub', 'pandas', 'sklearn'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("format", ["stanford", "pylate", "sentence-transformers"])
def test_a_light_encoder_is_saved_like_any_other(tmp_path, folder, format):
    encoder = load(folder)
    assert type(encoder._backbone).__module__ == "colbert_core.model.light"
    encoder.save(tmp_path / "copy", format=format)
    config = json.loads((tmp_path / "copy" / "config.json").read_text())
    assert config["architectures"] in (["BertModel"], ["HF_ColBERT"])
    assert_same(encoder, load(tmp_path / "copy"))


def test_an_encoder_of_another_query_length_is_saved_with_its_configuration(tmp_path, folder):
    encoder = load(folder).with_query_length(9)
    encoder.save(tmp_path / "copy", format="stanford")
    assert_same(encoder, load(tmp_path / "copy"))


def test_a_tokenizer_that_is_gone_is_not_looked_for_on_the_hub(tmp_path):
    checkpoints.stanford(tmp_path / "model")
    encoder = load(tmp_path / "model")
    shutil.rmtree(tmp_path / "model")
    with pytest.raises(CheckpointError, match="was loaded from .*, which is gone"):
        encoder.save(tmp_path / "copy", format="sentence-transformers")


def test_an_index_and_an_encoder_asked_for_by_name_share_one_model(folder, monkeypatch):
    monkeypatch.setattr("colbert_core.model.encoder._shared", Shared())
    plain = Encoder.from_pretrained(str(folder))
    again = Encoder.from_pretrained(str(folder), device=str(plain.device), dtype=plain.dtype, local_files_only=True)
    assert again._backbone is plain._backbone
    assert again._pickled_as["local_files_only"]
    assert not plain._pickled_as["local_files_only"]

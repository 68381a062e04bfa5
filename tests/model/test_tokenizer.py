"""The tokenizer of a checkpoint."""

from __future__ import annotations

import pytest
from builders.checkpoints import edit_json
from builders.parity import load
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from colbert_core import (
    CheckpointError,
    CheckpointNotFoundError,
)


def test_the_tokens_are_those_of_the_checkpoints_own_tokenizer(stanford_folder, stanford):
    tokenizer = AutoTokenizer.from_pretrained(stanford_folder)
    text = "The CAT sat; happy zebras purr?"
    assert stanford._tokenizer.encode([text])[0].ids.tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_missing_tokenizer_is_named(stanford_copy):
    (stanford_copy / "tokenizer.json").unlink()
    (stanford_copy / "tokenizer_config.json").unlink()
    with pytest.raises(CheckpointNotFoundError, match=r"has no tokenizer \(tokenizer.json, vocab"):
        load(stanford_copy)


def test_a_tokenizer_with_more_tokens_than_the_backbone_is_refused(stanford_copy):
    weights = load_file(stanford_copy / "model.safetensors")
    name = "bert.embeddings.word_embeddings.weight"
    weights[name] = weights[name][:50].contiguous()
    save_file(weights, stanford_copy / "model.safetensors")
    edit_json(stanford_copy / "config.json", vocab_size=50)
    with pytest.raises(CheckpointError, match=r"tokenizer knows \d+ tokens but the backbone has vectors for 50"):
        load(stanford_copy)

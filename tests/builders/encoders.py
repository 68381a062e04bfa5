"""Checkpoints written to disk, and an encoder whose vectors can be computed by hand."""

from __future__ import annotations

import hashlib
import json
import re
import string
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from colbert_core import TokenEmbeddings

WORDS = [
    "the",
    "cat",
    "cats",
    "dog",
    "dogs",
    "sat",
    "on",
    "a",
    "mat",
    "purr",
    "bark",
    "what",
    "sound",
    "does",
    "make",
    "rust",
    "is",
    "language",
    "of",
    "systems",
    "happy",
    "pets",
    "and",
    "or",
]
SPECIAL = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = [
    *SPECIAL,
    *string.punctuation,
    *WORDS,
    *string.ascii_lowercase,
    *("##" + letter for letter in string.ascii_lowercase),
]


def write_tokenizer(folder: Path) -> None:
    ids = {token: number for number, token in enumerate(dict.fromkeys(VOCABULARY))}
    backend = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])]
    )
    names = {
        "unk_token": "[UNK]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(folder)


def write_backbone(folder: Path, *, max_positions: int = 64) -> dict[str, torch.Tensor]:
    """config.json and a tokenizer in the folder; returns random weights under their names in a Stanford checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder)
    config = BertConfig(
        vocab_size=len(set(VOCABULARY)),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=max_positions,
        initializer_range=0.3,  # large, so that the vectors of different tokens differ well
    )
    torch.manual_seed(0)
    model = BertModel(config, add_pooling_layer=False)
    config.save_pretrained(folder)
    return {f"bert.{name}": tensor.contiguous() for name, tensor in model.state_dict().items()}


def write_stanford(folder: Path, *, dim: int = 16, metadata: dict | None = None, weights: dict | None = None) -> Path:
    tensors = write_backbone(folder)
    torch.manual_seed(1)
    tensors["linear.weight"] = torch.randn(dim, 32)
    tensors |= weights or {}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["HF_ColBERT"]}))
    recipe = {
        "dim": dim,
        "query_maxlen": 12,
        "doc_maxlen": 20,
        "mask_punctuation": True,
        "attend_to_mask_tokens": False,
    }
    (folder / "artifact.metadata").write_text(json.dumps(recipe | (metadata or {})))
    return folder


def write_untrained(folder: Path, *, max_seq_length: int | None = 24) -> Path:
    tensors = {name.removeprefix("bert."): tensor for name, tensor in write_backbone(folder).items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    if max_seq_length is not None:
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": max_seq_length}))
    return folder


class WordEncoder:
    """One vector per word, a random direction fixed by the word: passages match by the words they share, exactly.

    Windows hold ``window`` words and do not overlap.
    """

    name = "words"

    def __init__(self, dim: int = 64, window: int = 8) -> None:
        self.dim = dim
        self.window = window

    def vector(self, word: str) -> np.ndarray:
        seed = int.from_bytes(hashlib.sha256(word.lower().encode()).digest()[:8], "big")
        vector = np.random.default_rng(seed).standard_normal(self.dim).astype(np.float32)
        return vector / np.linalg.norm(vector)

    def encode_queries(self, texts):
        if any(not text.strip() for text in texts):
            raise ValueError("Query 0 is empty; give it at least one word.")
        return [np.stack([self.vector(word) for word in text.split()]) for text in texts]

    def encode_passages(self, texts, *, progress=None):
        vectors, token_spans, doclens, window_spans, owners = [], [], [], [], []
        for owner, text in enumerate(texts):
            position, words = 0, []
            for word in text.split():
                position = text.index(word, position)
                words.append((word, position, position + len(word)))
                position += len(word)
            words = words or [("", 0, 0)]
            for first in range(0, len(words), self.window):
                chosen = words[first : first + self.window]
                vectors += [self.vector(word) for word, _, _ in chosen]
                token_spans += [(start, end) for _, start, end in chosen]
                doclens.append(len(chosen))
                window_spans.append((chosen[0][1], chosen[-1][2]))
                owners.append(owner)
        return TokenEmbeddings(
            vectors=np.array(vectors, np.float32).reshape(-1, self.dim),
            token_spans=np.array(token_spans, np.int32).reshape(-1, 2),
            doclens=np.array(doclens, np.int32),
            window_spans=np.array(window_spans, np.int32).reshape(-1, 2),
            owners=np.array(owners, np.int32),
        )


class SpanEncoder(WordEncoder):
    """Knows the characters of its words, and its first query vector is its own, as [CLS] is."""

    def encode_queries(self, texts):
        return [np.vstack([self.vector("[CLS]"), matrix]) for matrix in super().encode_queries(texts)]

    def query_spans(self, text):
        return np.array([(0, 0), *((match.start(), match.end()) for match in re.finditer(r"\S+", text))], np.int32)


class ReadableEncoder(SpanEncoder):
    """Knows the characters of the words of passages as well, and writes down which passages it encodes."""

    def __init__(self, dim: int = 64, window: int = 8) -> None:
        super().__init__(dim, window)
        self.encoded: list[str] = []

    def encode_passages(self, texts, *, progress=None):
        self.encoded += texts
        return super().encode_passages(texts, progress=progress)

    def passage_spans(self, text):
        embeddings = super().encode_passages([text])
        ends = np.cumsum(embeddings.doclens)
        windows = zip(embeddings.window_spans.tolist(), ends - embeddings.doclens, ends, strict=True)
        return [(tuple(span), embeddings.token_spans[start:end]) for span, start, end in windows]

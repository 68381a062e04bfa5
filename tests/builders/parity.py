"""Vectors of a checkpoint by this package, by sentence-transformers, and by the rules that were published with its format."""

from __future__ import annotations

import json
import string

import numpy as np
import torch
import transformers
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

from builders.encoders import VOCABULARY
from colbert_core import Encoder

IDS = {token: number for number, token in enumerate(dict.fromkeys(VOCABULARY))}

QUERIES = [
    "cat",
    "What animation studio did Miyazaki found?",
    "Ünïcode, 日本語 and 🐈 too",
    "the cat sat on a mat and the dog sat on a mat and what sound does a cat make, or the dogs, or the happy pets and cats?",
]


PASSAGES = ["Cats purr!", "The cat sat on a mat; dogs bark.", "", "Ünïcode, 日本語 (and 🐈) too", "a-b c/d: e.g. [f]"]


def load(folder, **options):
    return Encoder.from_pretrained(folder, device="cpu", **({"dtype": "float32"} | options))


def rows_of(encoder):
    """The vectors of each query and of each passage, none of which is longer than a window."""
    found = encoder.encode_passages(PASSAGES)
    assert found.owners.tolist() == list(range(len(PASSAGES)))
    return [*encoder.encode_queries(QUERIES), *np.split(found.vectors, np.cumsum(found.doclens)[:-1])]


def assert_parity(found, expected):
    for mine, its, text in zip(found, expected, [*QUERIES, *PASSAGES], strict=True):
        assert mine.shape == its.shape, text
        its = its / np.linalg.norm(its, axis=1, keepdims=True)
        assert (mine * its).sum(axis=1).min() >= 0.99999, text


def assert_same(a, b):
    for x, y in zip(rows_of(a), rows_of(b), strict=True):
        np.testing.assert_array_equal(x, y)


def sentence_transformers_rows(folder):
    from sentence_transformers import MultiVectorEncoder

    model = MultiVectorEncoder(str(folder), device="cpu")
    # One by one: its batches are padded, and this compares the recipes, not the rounding.
    queries = [model.encode_query([text], convert_to_numpy=True)[0] for text in QUERIES]
    return [*queries, *(model.encode_document([text], convert_to_numpy=True)[0] for text in PASSAGES)]


def published_rule_rows(
    folder, *, weight, markers, lengths, skipped, attend=False, expand=True, prefix="", bias=0, first=0, language=None
):
    """The rules of Stanford ColBERT, PyLate and nanoColBERT, which agree: cut to one less, put the marker behind [CLS], fill
    queries with the mask token, attend to it or not, project, drop skipped passage tokens, normalize. BGE-M3 adds a bias
    and keeps all tokens but the first."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    config = transformers.AutoConfig.from_pretrained(folder)
    config.default_language = language
    model = transformers.AutoModel.from_config(config).eval()
    weights = {name.removeprefix(prefix): tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    missing = model.load_state_dict(weights, strict=False).missing_keys
    assert all(name.startswith("pooler.") for name in missing)
    found = []
    for side, texts in enumerate([QUERIES, PASSAGES]):
        for text in texts:
            ids = tokenizer(text, truncation=True, max_length=lengths[side] - (markers[side] is not None))["input_ids"]
            if markers[side] is not None:
                ids.insert(1, tokenizer.convert_tokens_to_ids(markers[side]))
            n_masks = lengths[0] - len(ids) if expand and side == 0 else 0
            attention = [1] * len(ids) + [int(attend)] * n_masks
            ids = ids + [tokenizer.mask_token_id] * n_masks
            with torch.inference_mode():
                hidden = model(input_ids=torch.tensor([ids]), attention_mask=torch.tensor([attention])).last_hidden_state[0]
            kept = [i for i, number in enumerate(ids) if i >= first and (side == 0 or number not in skipped(tokenizer))]
            found.append(torch.nn.functional.normalize(hidden @ weight.T + bias, dim=-1)[kept].numpy())
    return found


def pylate_rows(folder):
    """PyLate's rules with all that its files may say: prompts, heads of several layers, tokens of expansion, and the marker at
    the second place, whatever stands at the first."""
    settings = json.loads((folder / "config_sentence_transformers.json").read_text())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_config(transformers.AutoConfig.from_pretrained(folder)).eval()
    missing = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False).missing_keys
    assert all(name.startswith("pooler.") for name in missing)
    layers = [folder / module["path"] for module in json.loads((folder / "modules.json").read_text())[1:]]
    fill = next(each for each in (tokenizer.mask_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) if each is not None)
    skipped = known_tokens(tokenizer)
    found = []
    for side, texts in (("query", QUERIES), ("document", PASSAGES)):
        prefix, length = settings[f"{side}_prefix"], settings[f"{side}_length"]
        for text in texts:
            ids = tokenizer(settings["prompts"][side] + text, truncation=True, max_length=length - bool(prefix))["input_ids"]
            if prefix:
                ids = [*ids[:1], tokenizer.convert_tokens_to_ids(prefix), *ids[1:]]
            n_fill = length - len(ids) if side == "query" and settings["do_query_expansion"] else 0
            attention = [1] * len(ids) + [int(settings["attend_to_expansion_tokens"])] * n_fill
            ids += [fill] * n_fill
            with torch.inference_mode():
                x = model(input_ids=torch.tensor([ids]), attention_mask=torch.tensor([attention])).last_hidden_state[0]
            for layer in layers:
                config, weights = json.loads((layer / "config.json").read_text()), load_file(layer / "model.safetensors")
                before, name = x, config["activation_function"].rpartition(".")[2]
                x = getattr(torch.nn, name)()(x @ weights["linear.weight"].T + weights.get("linear.bias", 0))
                if config["use_residual"]:
                    x = x + (before @ weights["residual.weight"].T if "residual.weight" in weights else before)
            kept = [i for i, number in enumerate(ids) if side == "query" or number not in skipped]
            found.append(torch.nn.functional.normalize(x, dim=-1)[kept].numpy())
    return found


def xtr_rows(folder, lengths=(32, 60)):
    """The rules of google-deepmind/xtr and of WARP: lower-cased, only the tokenizer's own tokens, all of which score."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.T5EncoderModel(transformers.AutoConfig.from_pretrained(folder)).eval()
    missing = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False).missing_keys
    assert missing in ([], ["encoder.embed_tokens.weight"])
    weight = load_file(folder / "2_Dense" / "model.safetensors")["linear.weight"]
    found = []
    for length, texts in zip(lengths, (QUERIES, PASSAGES), strict=True):
        for text in texts:
            inputs = tokenizer(text.lower(), padding="max_length", truncation=True, max_length=length, return_tensors="pt")
            with torch.inference_mode():
                hidden = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state[0]
            rows = torch.nn.functional.normalize(hidden @ weight.T, dim=-1)
            found.append(rows[inputs["attention_mask"][0].bool()].numpy())
    return found


def first_pieces(tokenizer):
    """Stanford's rule, also nanoColBERT's."""
    return {tokenizer.encode(symbol, add_special_tokens=False)[0] for symbol in string.punctuation}


def known_tokens(tokenizer):
    """PyLate's rule, as sentence-transformers has it: without the unknown token for characters that are no token."""
    return {tokenizer.convert_tokens_to_ids(symbol) for symbol in string.punctuation} - {tokenizer.unk_token_id}


def ids_of(tokens):
    return [IDS[token] for token in tokens.split()]


def reference(folder, ids, attention):
    """Unit vectors of one sequence by the plain transformers model and the projection, nothing of ours."""
    weights = load_file(folder / "model.safetensors")
    backbone = BertModel(BertConfig.from_pretrained(folder), add_pooling_layer=False).eval()
    backbone.load_state_dict({k.removeprefix("bert."): v for k, v in weights.items() if k != "linear.weight"})
    with torch.inference_mode():
        hidden = backbone(input_ids=torch.tensor([ids]), attention_mask=torch.tensor([attention])).last_hidden_state[0]
        vectors = hidden @ weights["linear.weight"].T if "linear.weight" in weights else hidden
    return torch.nn.functional.normalize(vectors, dim=-1).numpy()

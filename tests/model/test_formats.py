"""Every checkpoint format, as its own authors encode: token by token against sentence-transformers where it reads the format,
against the published rules written out here where it does not; then that what is written is read the same, by both."""

from __future__ import annotations

import dataclasses
import json
import shutil
import string

import numpy as np
import pytest
import torch
import transformers
from builders import checkpoints
from builders.checkpoints import BACKBONES, HIDDEN
from safetensors.torch import load_file

from colbert_core import CheckpointError, Encoder, UnsupportedCheckpointError
from colbert_core.model.checkpoint import DEFAULT_MODEL

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


def published_rule_rows(folder, *, weight, markers, lengths, skipped, attend=False, expand=True, prefix=""):
    """The rules of Stanford ColBERT, PyLate and nanoColBERT, which agree: cut to one less, put the marker behind [CLS], fill
    queries with the mask token, attend to it or not, project, drop skipped passage tokens, normalize."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    config = transformers.AutoConfig.from_pretrained(folder)
    model = transformers.AutoModel.from_config(config).eval()
    model.pooler = None
    weights = {name.removeprefix(prefix): tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    model.load_state_dict({name: weights[name] for name in model.state_dict()})
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
            kept = [i for i, number in enumerate(ids) if side == 0 or number not in skipped(tokenizer)]
            found.append(torch.nn.functional.normalize(hidden @ weight.T, dim=-1)[kept].numpy())
    return found


def first_pieces(tokenizer):
    """Stanford's rule, also nanoColBERT's."""
    return {tokenizer.encode(symbol, add_special_tokens=False)[0] for symbol in string.punctuation}


def known_tokens(tokenizer):
    """PyLate's rule, as sentence-transformers has it: without the unknown token for characters that are no token."""
    return {tokenizer.convert_tokens_to_ids(symbol) for symbol in string.punctuation} - {tokenizer.unk_token_id}


# Stanford


@pytest.mark.parametrize("kind", BACKBONES)
@pytest.mark.parametrize("attend", [False, True])
def test_stanford_checkpoints_encode_by_stanfords_rules(tmp_path, kind, attend):
    folder = checkpoints.stanford(tmp_path / "model", kind, attend_to_mask_tokens=attend)
    weight = load_file(folder / "model.safetensors")["linear.weight"]
    prefix = load(folder)._backbone.base_model_prefix + "."
    expected = published_rule_rows(
        folder,
        weight=weight,
        markers=("[unused0]", "[unused1]"),
        lengths=(24, 60),
        skipped=first_pieces,
        attend=attend,
        prefix=prefix,
    )
    assert_parity(rows_of(load(folder)), expected)


@pytest.mark.parametrize("kind", ["bert", "electra"])  # it puts a blank behind the marker, which other tokenizers see
def test_stanford_checkpoints_encode_as_in_sentence_transformers(tmp_path, kind):
    folder = checkpoints.stanford(tmp_path / "model", kind)
    assert_parity(rows_of(load(folder)), sentence_transformers_rows(folder))


def test_a_legacy_dnn_file_is_read_beside_its_backbone_and_from_the_one_it_names(tmp_path):
    named = checkpoints.dnn(tmp_path / "colbert.dnn", base=tmp_path / "base")
    encoder = load(named)
    assert (encoder.config.format, encoder.config.similarity, encoder.config.query_length) == ("stanford", "l2", 24)
    beside = shutil.copytree(tmp_path / "base", tmp_path / "beside")
    shutil.copyfile(named, beside / "colbert.dnn")
    assert_same(encoder, load(beside))

    weights = torch.load(named, weights_only=True)["model_state_dict"]
    checkpoints.save(weights, tmp_path / "base" / "model.safetensors")
    expected = published_rule_rows(
        tmp_path / "base",
        weight=weights["linear.weight"],
        markers=("[unused0]", "[unused1]"),
        lengths=(24, 60),
        skipped=first_pieces,
        prefix="bert.",
    )
    assert_parity(rows_of(encoder), expected)


def test_a_legacy_dnn_file_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    file = checkpoints.dnn(tmp_path / "colbert.dnn", base=tmp_path / "base")
    torch.save({"model_state_dict": {}, "arguments": Evil()}, file)
    with pytest.raises(CheckpointError, match=r"colbert\.dnn"):
        load(file)
    assert not (tmp_path / "ran").exists()


def test_a_dnn_file_of_something_else_is_refused(tmp_path):
    torch.save({"weights": {}}, tmp_path / "other.dnn")
    with pytest.raises(CheckpointError, match="holds weights; a .dnn file of ColBERT's holds model_state_dict"):
        load(tmp_path / "other.dnn")


# PyLate

PYLATE = {
    "as it is": {},
    "attending": {"attend_to_expansion_tokens": True},
    "without expansion": {"do_query_expansion": False},
    "without skipped words": {"skiplist_words": []},
    "with words of its own": {"skiplist_words": ["the", "!", "no-such-token"]},
    "with prompts": {"prompts": {"query": "search: ", "document": "passage: "}},
    "without prefixes": {"query_prefix": "", "document_prefix": ""},
}


def pylate_folder(folder, changes, **options):
    folder = checkpoints.pylate(folder, **options)
    file = folder / "config_sentence_transformers.json"
    settings = json.loads(file.read_text()) | changes
    checkpoints.write_json(file, {name: value for name, value in settings.items() if value is not ...})
    return folder


@pytest.mark.parametrize("kind", BACKBONES)
def test_pylate_checkpoints_encode_by_pylates_rules(tmp_path, kind):
    folder = checkpoints.pylate(tmp_path / "model", kind)
    weight = load_file(folder / "1_Dense" / "model.safetensors")["linear.weight"]
    expected = published_rule_rows(
        folder,
        weight=weight,
        markers=("[Q] ", "[D] "),
        lengths=(24, 60),
        skipped=known_tokens,
    )
    assert_parity(rows_of(load(folder)), expected)


@pytest.mark.parametrize("changes", PYLATE.values(), ids=PYLATE)
def test_pylate_checkpoints_encode_as_in_sentence_transformers(tmp_path, changes):
    folder = pylate_folder(tmp_path / "model", changes)
    assert_parity(rows_of(load(folder)), sentence_transformers_rows(folder))


@pytest.mark.parametrize("kind", [kind for kind in BACKBONES if kind != "bert"])
def test_pylate_checkpoints_of_other_backbones_encode_as_in_sentence_transformers(tmp_path, kind):
    folder = checkpoints.pylate(tmp_path / "model", kind)
    assert_parity(rows_of(load(folder)), sentence_transformers_rows(folder))


def test_what_a_pylate_checkpoint_does_not_state_has_pylates_defaults(tmp_path):
    """sentence-transformers takes a folder that states nothing for one without prefixes and expansion; PyLate does not."""
    names = ["query_prefix", "document_prefix", "query_length", "attend_to_expansion_tokens", "skiplist_words"]
    folder = pylate_folder(tmp_path / "model", dict.fromkeys([*names, "do_query_expansion"], ...))
    weight = load_file(folder / "1_Dense" / "model.safetensors")["linear.weight"]
    expected = published_rule_rows(
        folder,
        weight=weight,
        markers=("[Q] ", "[D] "),
        lengths=(32, 60),
        skipped=known_tokens,
    )
    assert_parity(rows_of(load(folder)), expected)
    (folder / "config_sentence_transformers.json").unlink()
    assert load(folder, passage_length=60).config.query_length == 32
    with pytest.raises(ValueError, match="to 130"):
        load(folder, passage_length=180)


LAYERS = {
    "bias": [{"n_in": HIDDEN, "n_out": 16, "bias": True}],
    "two layers": [
        {"n_in": HIDDEN, "n_out": 48, "bias": True, "activation_function": "torch.nn.modules.activation.GELU"},
        {"n_in": 48, "n_out": 8},
    ],
    "residual of the same size": [{"n_in": HIDDEN, "n_out": HIDDEN, "use_residual": True}],
    "residual that is projected": [
        {"n_in": HIDDEN, "n_out": 24, "use_residual": True, "activation_function": "torch.nn.modules.activation.SiLU"},
        {"n_in": 24, "n_out": 12, "bias": True, "activation_function": "torch.nn.modules.activation.Tanh"},
    ],
}


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
def test_heads_of_several_layers_compute_as_in_sentence_transformers(tmp_path, layers):
    folder = checkpoints.pylate(tmp_path / "model", layers=layers)
    encoder = load(folder)
    assert encoder.dim == layers[-1]["n_out"]
    assert_parity(rows_of(encoder), sentence_transformers_rows(folder))


def test_the_blank_behind_a_prefix_is_part_of_the_token(tmp_path):
    encoder = load(checkpoints.pylate(tmp_path / "model"))
    assert encoder.describe()["query_prefix"] == {"[CLS]": 4, "[Q] ": encoder._tokenizer.size - 2}
    assert encoder.describe()["example"]["tokens"][:2] == ["[CLS]", "[Q] "]


# sentence-transformers

MULTI_VECTOR = {
    "as it is": {},
    "without expansion": {"query_expansion": None, "query_length": 15},
    "attending": {"query_expansion": {"strategy": "fixed", "attend": True, "length": 20}},
    "at least so long": {"query_expansion": {"strategy": "min", "attend": False, "length": 12}},
    "at least so long, and at most": {"query_length": 18, "query_expansion": {"strategy": "min", "length": 12}},
    "filled with another token": {"query_expansion": {"strategy": "fixed", "token": "[unused1]", "length": 20}},
    "without lengths": {"query_expansion": None, "document_length": None},
}


@pytest.mark.parametrize("changes", MULTI_VECTOR.values(), ids=MULTI_VECTOR)
def test_multi_vector_checkpoints_encode_as_in_sentence_transformers(tmp_path, changes):
    folder = checkpoints.multi_vector(tmp_path / "saved", source=checkpoints.pylate(tmp_path / "source"), **changes)
    encoder = load(folder)
    assert encoder.config.format == "sentence-transformers"
    assert_parity(rows_of(encoder), sentence_transformers_rows(folder))


@pytest.mark.parametrize("kind", BACKBONES)
def test_multi_vector_checkpoints_of_every_backbone_encode_as_in_sentence_transformers(tmp_path, kind):
    folder = checkpoints.multi_vector(tmp_path / "saved", source=checkpoints.stanford(tmp_path / "source", kind))
    assert_parity(rows_of(load(folder)), sentence_transformers_rows(folder))


def test_the_mask_of_queries_and_pooling_in_the_checkpoint_are_as_in_sentence_transformers(tmp_path):
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling

    model = MultiVectorEncoder(str(checkpoints.pylate(tmp_path / "source")), device="cpu")
    model[2].skiplist_tasks = ["query", "document"]
    model.append(HierarchicalTokenPooling(pool_factor=2))
    model.save(str(tmp_path / "saved"), create_model_card=False)
    encoder = load(tmp_path / "saved")
    assert (encoder.config.skip_in_queries, encoder.config.pool_factor, encoder.config.pool_protected) == (True, 2, 1)
    expected = sentence_transformers_rows(tmp_path / "saved")
    found = rows_of(encoder)
    for mine, its in zip(found, expected, strict=True):
        assert mine.shape == its.shape
        # Clusters come in another order there.
        assert (mine @ its.T).max(axis=1).min() >= 0.99999
        assert (mine @ its.T).max(axis=0).min() >= 0.99999


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (
            "2_MultiVectorMask/config.json",
            {"keep_only_token_ids": [3]},
            "keeps only the tokens .3. of a document, as models of images",
        ),
        ("2_MultiVectorMask/config.json", {"skiplist_tasks": ["query"]}, r"skips tokens in \['query'\] only"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "'fill-mask' model; this version reads text encoders"),
        (
            "1_Dense/config.json",
            {"activation_function": "mypackage.Secret"},
            "activation mypackage.Secret; read are torch.nn's",
        ),
        ("1_Dense/config.json", {"module_input_name": "sentence_embedding"}, "is a layer over 'sentence_embedding'"),
    ],
)
def test_parts_of_other_kinds_of_model_are_refused_by_name(tmp_path, file, changes, message):
    folder = checkpoints.multi_vector(tmp_path / "saved", source=checkpoints.stanford(tmp_path / "source"))
    content = json.loads((folder / file).read_text())
    checkpoints.write_json(folder / file, content | changes)
    with pytest.raises(UnsupportedCheckpointError, match=message):
        load(folder)


def test_an_unknown_module_is_named(tmp_path):
    folder = checkpoints.multi_vector(tmp_path / "saved", source=checkpoints.stanford(tmp_path / "source"))
    entries = json.loads((folder / "modules.json").read_text())
    checkpoints.write_json(folder / "modules.json", [*entries, {"path": "4_Router", "type": "sentence_transformers.Router"}])
    with pytest.raises(
        UnsupportedCheckpointError, match="has the module Router, which is not read; read are Transformer, Dense"
    ):
        load(folder)


@pytest.mark.parametrize("source", [checkpoints.pylate, "saved"], ids=["pylate", "sentence-transformers"])
def test_no_module_is_dropped_and_none_is_read_in_another_order(tmp_path, source):
    folder = checkpoints.pylate(tmp_path / "source")
    if source == "saved":
        folder = checkpoints.multi_vector(tmp_path / "saved", source=folder)
    entries = json.loads((folder / "modules.json").read_text())
    for changed in (
        [entries[0], {"path": "1_Dense", "type": "pylate.models.Projection.Projection"}, *entries[2:]],
        [entries[0], {"path": "5", "type": "sentence_transformers.models.LayerNorm"}, *entries[1:]],
        [entries[1], entries[0], *entries[2:]],
        [*entries, entries[0]],
        *(
            [entries[:3], [*entries[:2], entries[3], entries[2]], [entries[0], *entries[2:], entries[1]]]
            if source == "saved"
            else []
        ),
        *([[*entries[:2], entries[3]]] if source == "saved" else []),
    ):
        checkpoints.write_json(folder / "modules.json", changed)
        with pytest.raises(UnsupportedCheckpointError, match=r"is not read|in the order|no Normalize|no MultiVectorMask"):
            load(folder)


@pytest.mark.parametrize("tasks", [["query"], ["query", "document"]])
def test_pooling_of_queries_is_refused(tmp_path, tasks):
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling

    model = MultiVectorEncoder(str(checkpoints.pylate(tmp_path / "source")), device="cpu")
    model.append(HierarchicalTokenPooling(pool_factor=2, tasks=tasks))
    model.save(str(tmp_path / "saved"), create_model_card=False)
    with pytest.raises(UnsupportedCheckpointError, match="pools the tokens of"):
        load(tmp_path / "saved")


def test_query_expansion_that_contradicts_itself_is_refused(tmp_path):
    folder = checkpoints.multi_vector(tmp_path / "saved", source=checkpoints.pylate(tmp_path / "source"))
    settings = json.loads((folder / "sentence_bert_config.json").read_text())
    for changes, message in (
        ({"query_expansion": {"length": 24}}, "neither fixed nor min with a length"),
        (
            {"query_expansion": {"strategy": "min", "length": 30}, "query_length": 12},
            "query_length=12 but expands queries to 30",
        ),
    ):
        checkpoints.write_json(folder / "sentence_bert_config.json", settings | changes)
        with pytest.raises(CheckpointError, match=message):
            load(folder)
    checkpoints.write_json(
        folder / "sentence_bert_config.json", settings | {"query_expansion": {"strategy": "min", "length": 200}}
    )
    assert load(folder).encode_queries(["cat"])[0].shape == (130, 16)  # all that the backbone reads
    assert load(folder, query_length=10).encode_queries(["cat"])[0].shape == (10, 16)


WRONG_KINDS = {
    "config_sentence_transformers.json": [
        *({"prompts": value} for value in ("x", [1], 3.5)),
        *({"query_prefix": value} for value in (0, [1], True)),
        *({"skiplist_words": value} for value in (3.5, True, [1], [None])),
        *({"query_length": value} for value in (24.9, True, "24", 0, -1, float("inf"), float("nan"))),
        *({"do_query_expansion": value} for value in ("False", 0)),
        {"similarity_fn_name": [1]},
    ],
    "1_Dense/config.json": [{"module_input_name": [1]}, {"bias": "no"}, {"out_features": "16"}, {"activation_function": 3}],
    "sentence_bert_config.json": [{"do_lower_case": "yes"}],
}


@pytest.mark.parametrize(
    ("file", "changes"), [(file, changes) for file, many in WRONG_KINDS.items() for changes in many], ids=str
)
def test_an_entry_of_the_wrong_kind_is_named_with_its_file_and_value(tmp_path, file, changes):
    folder = checkpoints.pylate(tmp_path / "model")
    checkpoints.write_json(folder / file, json.loads((folder / file).read_text()) | changes)
    (name,) = changes
    with pytest.raises(CheckpointError, match=rf"{file.split('/')[-1]} has {name}=.*, which must be"):
        load(folder)


def test_nulls_in_any_file_mean_the_defaults(tmp_path):
    folder = checkpoints.multi_vector(tmp_path / "saved", source=checkpoints.pylate(tmp_path / "source"))
    for name in ("2_MultiVectorMask/config.json", "config_sentence_transformers.json"):
        content = json.loads((folder / name).read_text())
        keep = {"model_type": "MultiVectorEncoder"} if "model_type" in content else {}
        checkpoints.write_json(folder / name, dict.fromkeys(content) | keep)
    config = load(folder).config
    assert (config.skip_tokens, config.query_prompt, config.similarity) == ((), "", "maxsim")


def test_a_folder_of_sentence_transformers_that_kept_a_prefix_of_pylates_is_still_one(tmp_path):
    folder = checkpoints.multi_vector(tmp_path / "saved", source=checkpoints.pylate(tmp_path / "source"))
    file = folder / "config_sentence_transformers.json"
    checkpoints.write_json(file, json.loads(file.read_text()) | {"query_prefix": "[Q] "})
    assert load(folder).config.format == "sentence-transformers"


def test_an_old_layout_with_the_transformer_in_its_own_folder_is_read(tmp_path):
    folder = checkpoints.pylate(tmp_path / "model")
    expected = rows_of(load(folder))
    (folder / "0_Transformer").mkdir()
    for file in [
        path
        for path in folder.iterdir()
        if path.is_file() and path.name not in ("modules.json", "config_sentence_transformers.json")
    ]:
        file.rename(folder / "0_Transformer" / file.name)
    (folder / "0_Transformer" / "sentence_bert_config.json").rename(folder / "0_Transformer" / "sentence_roberta_config.json")
    entries = json.loads((folder / "modules.json").read_text())
    checkpoints.write_json(folder / "modules.json", [entries[0] | {"path": "0_Transformer"}, *entries[1:]])
    for mine, its in zip(rows_of(load(folder)), expected, strict=True):
        np.testing.assert_array_equal(mine, its)


# nanoColBERT


@pytest.mark.parametrize("similarity", ["l2", "cosine"])
def test_nanocolbert_checkpoints_encode_by_nanocolberts_rules(tmp_path, similarity):
    folder = checkpoints.nanocolbert(tmp_path / "model", similarity=similarity)
    weight = load_file(folder / "model.safetensors")["linear.weight"]
    encoder = load(folder, passage_length=60)
    expected = published_rule_rows(
        folder,
        weight=weight,
        markers=("[Q]", "[D]"),
        lengths=(32, 60),
        skipped=first_pieces,
        prefix="bert.",
    )
    assert_parity(rows_of(encoder), expected)
    assert (encoder.config.format, encoder.config.similarity) == ("nanocolbert", similarity)


def test_a_nanocolbert_projection_of_another_size_is_refused(tmp_path):
    folder = checkpoints.nanocolbert(tmp_path / "model")
    content = json.loads((folder / "config.json").read_text())
    checkpoints.write_json(folder / "config.json", content | {"dim": 128})
    with pytest.raises(CheckpointError, match=r"linear.weight has the shape \(128, 32\), the weights hold \(16, 32\)"):
        load(folder)


# bfloat16


def assert_close(exact, rough):
    cosines = (exact * rough).sum(axis=1)
    assert cosines.mean() >= 0.9999
    assert np.percentile(cosines, 1) >= 0.9998


def test_bfloat16_is_as_close_to_float32_as_promised_for_the_model_in_the_box():
    from colbert_core.cli.reading import demo_passages

    texts = [passage.text for passage in demo_passages()]
    exact, rough = (load(DEFAULT_MODEL, dtype=dtype).encode_passages(texts).vectors for dtype in ("float32", "bfloat16"))
    assert_close(exact, rough)


@pytest.mark.parametrize("kind", BACKBONES)
@pytest.mark.parametrize("write", [checkpoints.stanford, checkpoints.pylate], ids=["stanford", "pylate"])
def test_bfloat16_is_as_close_to_float32_for_every_backbone(tmp_path, write, kind):
    folder = write(tmp_path / "model", kind)
    assert_close(*(np.concatenate(rows_of(load(folder, dtype=dtype))) for dtype in ("float32", "bfloat16")))


# Written


SOURCES = {
    "stanford": lambda folder: checkpoints.stanford(folder),
    "stanford, attending, without a skip list": lambda folder: checkpoints.stanford(
        folder, attend_to_mask_tokens=True, mask_punctuation=False, similarity="l2"
    ),
    "stanford, ModernBERT": lambda folder: checkpoints.stanford(folder, "modernbert"),
    "stanford, XLM-R": lambda folder: checkpoints.stanford(folder, "xlm-roberta"),
    "stanford, .dnn": lambda folder: checkpoints.dnn(folder / "colbert.dnn", base=folder),
    "pylate": lambda folder: checkpoints.pylate(folder),
    "pylate, RoBERTa": lambda folder: checkpoints.pylate(folder, "roberta"),
    "pylate, DeBERTa": lambda folder: checkpoints.pylate(folder, "deberta-v2"),
    "pylate, several layers": lambda folder: checkpoints.pylate(folder, layers=LAYERS["residual that is projected"]),
    "pylate, without expansion, with prompts": lambda folder: pylate_folder(
        folder, {"do_query_expansion": False, "prompts": {"query": "search: ", "document": ""}}
    ),
    "sentence-transformers": lambda folder: checkpoints.multi_vector(
        folder, source=checkpoints.stanford(folder.with_name("source"))
    ),
    "sentence-transformers, at least so long": lambda folder: checkpoints.multi_vector(
        folder, source=checkpoints.pylate(folder.with_name("source")), query_expansion={"strategy": "min", "length": 12}
    ),
    "nanocolbert": lambda folder: checkpoints.nanocolbert(folder),
    "the model in the box": lambda folder: DEFAULT_MODEL,
}
WRITTEN = {
    "stanford": {
        *("stanford", "stanford, attending, without a skip list", "stanford, ModernBERT", "stanford, XLM-R", "pylate"),
        *("stanford, .dnn", "pylate, RoBERTa", "sentence-transformers", "nanocolbert"),
    },
    "pylate": set(SOURCES) - {"sentence-transformers, at least so long"},
    "sentence-transformers": set(SOURCES),
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("format", WRITTEN)
def test_what_is_written_is_read_exactly_and_what_cannot_be_written_is_refused(tmp_path, source, format):
    encoder = load(SOURCES[source](tmp_path / "model"), passage_length=60)
    if source not in WRITTEN[format]:
        with pytest.raises(UnsupportedCheckpointError, match=f"The {format} format cannot hold"):
            encoder.save(tmp_path / "copy", format=format)
        assert not (tmp_path / "copy").exists()
        assert not list(tmp_path.glob(".copy-*"))
        return
    encoder.save(tmp_path / "copy", format=format)
    copy = load(tmp_path / "copy")
    assert copy.config.format == format
    assert_same(encoder, copy)
    copy.save(tmp_path / "again", format=format)
    again = load(tmp_path / "again")
    assert_same(encoder, again)
    assert again.config == copy.config


@pytest.mark.parametrize("format", ["pylate", "sentence-transformers"])
@pytest.mark.parametrize("source", ["stanford", "pylate, several layers", "nanocolbert", "the model in the box"])
def test_what_is_written_is_read_the_same_by_sentence_transformers(tmp_path, source, format):
    encoder = load(SOURCES[source](tmp_path / "model"), passage_length=60)
    encoder.save(tmp_path / "copy", format=format)
    assert_parity(rows_of(encoder), sentence_transformers_rows(tmp_path / "copy"))


def test_a_copy_in_stanfords_format_is_read_the_same_by_sentence_transformers(tmp_path):
    encoder = load(checkpoints.pylate(tmp_path / "model"))
    encoder.save(tmp_path / "copy", format="stanford")
    assert_parity(rows_of(encoder), sentence_transformers_rows(tmp_path / "copy"))


def test_a_dense_layer_for_pylate_holds_only_what_its_constructor_takes(tmp_path, stanford):
    stanford.save(tmp_path / "copy", format="pylate")
    settings = json.loads((tmp_path / "copy" / "1_Dense" / "config.json").read_text())
    assert set(settings) == {"in_features", "out_features", "bias", "activation_function", "use_residual"}


def test_tokenizers_are_written_so_that_transformers_4_reads_them(tmp_path, stanford):
    for format in WRITTEN:
        stanford.save(tmp_path / format, format=format)
        settings = json.loads((tmp_path / format / "tokenizer_config.json").read_text())
        assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
        assert "extra_special_tokens" not in settings


def test_config_json_is_kept_as_the_source_has_it(tmp_path, stanford, stanford_folder):
    stanford.save(tmp_path / "copy", format="pylate")
    source, copy = (json.loads((folder / "config.json").read_text()) for folder in (stanford_folder, tmp_path / "copy"))
    assert copy == source | {"architectures": ["BertModel"]}


def test_a_copy_of_an_encoder_in_half_precision_loses_nothing(tmp_path, stanford_folder, stanford):
    load(stanford_folder, dtype="bfloat16").save(tmp_path / "copy", format="pylate")
    np.testing.assert_array_equal(load(tmp_path / "copy").encode_queries(["cat"])[0], stanford.encode_queries(["cat"])[0])


def test_lengths_chosen_at_loading_are_saved(tmp_path, stanford_folder):
    load(stanford_folder, query_length=9, passage_length=30).save(tmp_path / "copy", format="stanford")
    config = load(tmp_path / "copy").config
    assert (config.query_length, config.passage_length) == (9, 30)


def test_an_encoder_built_from_parts_is_saved_as_it_is(tmp_path, stanford):
    parts = Encoder(stanford._backbone, stanford._head, stanford._tokenizer, stanford.config, name="parts")
    parts.save(tmp_path / "copy", format="sentence-transformers")
    np.testing.assert_array_equal(load(tmp_path / "copy").encode_queries(["cat"])[0], stanford.encode_queries(["cat"])[0])


def test_nothing_is_written_over(tmp_path, stanford):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="holds something already; name a folder that is new or empty"):
        stanford.save(tmp_path, format="stanford")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(ValueError, match="format must be one of stanford, pylate, sentence-transformers, got 'onnx'"):
        stanford.save(tmp_path / "new", format="onnx")


def test_what_changed_or_vanished_since_loading_is_not_saved_half(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoints.stanford(tmp_path / "model")
    encoder = load("model")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    encoder.save("copy", format="stanford")
    assert_same(encoder, load(tmp_path / "elsewhere" / "copy"))

    file = tmp_path / "model" / "model.safetensors"
    checkpoints.save({name: tensor * 2 for name, tensor in load_file(file).items()}, file)
    with pytest.raises(CheckpointError, match="has changed since the encoder was loaded from it"):
        encoder.save("other", format="stanford")
    shutil.rmtree(tmp_path / "model")
    with pytest.raises(CheckpointError, match="was loaded from .*, which is gone"):
        encoder.save("other", format="stanford")
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["copy"]


def test_saved_weights_may_be_read_by_whoever_may_read_the_rest(tmp_path, stanford):
    stanford.save(tmp_path / "copy", format="pylate")
    modes = {path.stat().st_mode for path in (tmp_path / "copy").rglob("*") if path.is_file()}
    assert len(modes) == 1


def test_an_empty_folder_is_filled(tmp_path, stanford):
    (tmp_path / "empty").mkdir()
    stanford.save(tmp_path / "empty", format="stanford")
    assert load(tmp_path / "empty").config == stanford.config


def test_a_save_that_fails_leaves_nothing(tmp_path, stanford, monkeypatch):
    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr("colbert_core.model.encoder.write_checkpoint", fail)
    with pytest.raises(OSError, match="disk full"):
        stanford.save(tmp_path / "copy", format="stanford")
    assert list(tmp_path.iterdir()) == []


# Two recipes, no mask token, own code


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


def test_two_projections_that_differ_are_refused(tmp_path):
    folder = checkpoints.pylate(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    checkpoints.save(weights | {"linear.weight": checkpoints.matrix(16, HIDDEN, seed=99)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="two projections that differ"):
        load(folder)


def without_mask_token(folder):
    file = folder / "tokenizer_config.json"
    content = json.loads(file.read_text())
    content.pop("mask_token")
    checkpoints.write_json(file, content | {"eos_token": "[SEP]"})
    special = folder / "special_tokens_map.json"
    if special.is_file():
        special.unlink()
    return folder


def test_a_stanford_tokenizer_without_a_mask_token_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="fills queries with a mask token, and the tokenizer has none"):
        load(without_mask_token(checkpoints.stanford(tmp_path / "model")))


def test_pylate_fills_with_the_end_of_sequence_token_where_there_is_no_mask_token(tmp_path):
    folder = without_mask_token(checkpoints.pylate(tmp_path / "model"))
    encoder = load(folder)
    assert encoder.describe()["augmentation"]["token"] == "[SEP]"
    assert_parity(rows_of(encoder), sentence_transformers_rows(folder))


def test_a_checkpoint_with_its_own_code_needs_trust_and_runs_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = checkpoints.own_code(tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"auto_map: modeling_tiny.TinyModel.* pass trust_remote_code=True"):
        load(folder)
    encoder = load(folder, trust_remote_code=True)
    weights = load_file(folder / "model.safetensors")
    (query,) = encoder.encode_queries(["cat"])
    ids = encoder.describe()["query_prefix"]
    row = weights["tiny.words.weight"][ids["[CLS]"]] @ weights["linear.weight"].T
    np.testing.assert_allclose(query[0], (row / row.norm()).numpy(), atol=1e-6)

    for format in ("stanford", "pylate"):
        encoder.save(tmp_path / format, format=format)  # its code goes with it
        assert_same(encoder, load(tmp_path / format, trust_remote_code=True))


def test_weights_that_only_the_checkpoints_own_code_fits_name_the_switch(tmp_path):
    """Such as jina-colbert-v2: the model type is known to transformers, the weights are of another implementation."""
    folder = checkpoints.stanford(tmp_path / "model")
    content = json.loads((folder / "config.json").read_text())
    checkpoints.write_json(folder / "config.json", content | {"auto_map": {"AutoModel": "someone/else--modeling.Model"}})
    weights = load_file(folder / "model.safetensors")
    checkpoints.save(
        {name.replace("encoder.layer", "encoder.layers"): t for name, t in weights.items()}, folder / "model.safetensors"
    )
    with pytest.raises(CheckpointError, match="someone/else--modeling.Model .* pass trust_remote_code=True"):
        load(folder)


def test_xtr_is_refused_by_name(tmp_path):
    folder = checkpoints.stanford(tmp_path / "model")
    config = transformers.T5Config(vocab_size=200, d_model=HIDDEN, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    config.architectures = ["HF_ColBERT"]
    config.save_pretrained(folder)
    with pytest.raises(UnsupportedCheckpointError, match="is a t5 model, an encoder with a decoder, such as XTR"):
        load(folder)


# The recipe made visible


def test_the_recipe_is_printed_with_ids_and_an_example(tmp_path):
    text = repr(load(checkpoints.stanford(tmp_path / "model", query_maxlen=50)))
    for part in (
        "stanford)",
        "bert, 0.0 million parameters, hidden size 32",
        "32 -> 16",
        "16 dimensions, float32 on cpu, trained with cosine",
        "at most 50 tokens: '[CLS]'=4 '[unused0]'=1 query '[SEP]'=5; filled up to 50 with '[MASK]'=6, not attended to",
        "at most 60 tokens: '[CLS]'=4 '[unused1]'=2 passage '[SEP]'=5",
        '! " # $ %',
        "What animation studio did Miyazaki found?",
        "[CLS] [unused0] what",
        "1 1 1 1 1",
        "0 0",
    ):
        assert part in text, part


def test_a_description_is_plain_values(tmp_path):
    for folder in (
        checkpoints.stanford(tmp_path / "a"),
        checkpoints.pylate(tmp_path / "b", layers=LAYERS["two layers"]),
        DEFAULT_MODEL,
    ):
        about = load(folder).describe()
        assert json.loads(json.dumps(about)) == about


def test_configs_of_copies_differ_in_their_spelling_only(tmp_path):
    encoder = load(checkpoints.stanford(tmp_path / "model"))
    encoder.save(tmp_path / "copy", format="sentence-transformers")
    changed = {
        field.name
        for field in dataclasses.fields(encoder.config)
        if getattr(encoder.config, field.name) != getattr(load(tmp_path / "copy").config, field.name)
    }
    assert changed == {
        *("format", "query_marker", "passage_marker", "query_prompt", "passage_prompt", "skip_punctuation", "skip_tokens"),
        "similarity",
    }

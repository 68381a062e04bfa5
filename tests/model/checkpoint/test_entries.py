"""Whatever the files of PyLate and sentence-transformers say is read, changes no vector, or is refused by name."""

from __future__ import annotations

import json
import re

import pytest
import transformers
from builders import checkpoints
from builders.checkpoints import edit_json
from builders.parity import assert_parity, assert_same, load, pylate_rows, rows_of, sentence_transformers_rows

from colbert_core import CheckpointError, UnsupportedCheckpointError

SETTINGS, TRANSFORMER = "config_sentence_transformers.json", "sentence_bert_config.json"


@pytest.mark.parametrize(
    ("file", "changes", "named"),
    [
        (SETTINGS, {"truncate_dim": 8}, "truncate_dim=8"),
        (SETTINGS, {"query_suffix": "[E]"}, "query_suffix='[E]'"),
        (SETTINGS, {"query_expansion": {"strategy": "min"}}, "query_expansion="),
        (TRANSFORMER, {"query_length": 12}, "query_length=12"),
        (TRANSFORMER, {"tokenizer_name_or_path": "elsewhere"}, "tokenizer_name_or_path='elsewhere'"),
        (TRANSFORMER, {"processing_kwargs": {"text": {"padding": "max_length"}}}, "processing_kwargs.text="),
        (TRANSFORMER, {"model_args": {"is_decoder": True}}, "model_args.is_decoder=True"),
        (TRANSFORMER, {"tokenizer_args": {"do_lower_case": True}}, "tokenizer_args.do_lower_case=True"),
        ("1_Dense/config.json", {"dropout": 0.1}, "dropout=0.1"),
        ("tokenizer_config.json", {"padding_side": "left"}, "padding_side='left', queries are cut and filled up at their end"),
        ("tokenizer_config.json", {"truncation_side": "left"}, "truncation_side='left'"),
    ],
)
def test_an_entry_that_may_change_vectors_is_refused_with_its_file_and_value(tmp_path, file, changes, named):
    folder = checkpoints.pylate(tmp_path / "model")
    edit_json(folder / file, **changes)
    with pytest.raises(UnsupportedCheckpointError, match=re.escape(f"{folder / file} says {named}")):
        load(folder)


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        (SETTINGS, {"__version__": {"pylate": "1.6.0"}, "truncate_dim": None, "default_prompt_name": None}),
        (TRANSFORMER, {"max_seq_length": 12, "unpad_inputs": True, "module_output_name": "token_embeddings"}),
        (TRANSFORMER, {"model_args": {"attn_implementation": "sdpa"}, "tokenizer_args": {"model_max_length": 12}}),
        (TRANSFORMER, {"processing_kwargs": {"text": {}}, "query_expansion": None}),
    ],
)
def test_an_entry_that_changes_no_vector_is_none(tmp_path, file, changes):
    plain, folder = checkpoints.pylate(tmp_path / "plain"), checkpoints.pylate(tmp_path / "model")
    edit_json(folder / file, **changes)
    assert_same(load(folder), load(plain))


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("MultiVectorMask", {"skip_first": 1}, "says skip_first=1"),
        ("Normalize", {"module_output_name": "elsewhere"}, "no Normalize over token_embeddings"),
        ("Normalize", {"p": 1}, "says p=1"),
    ],
)
def test_an_entry_of_a_module_of_sentence_transformers_is_refused(tmp_path, part, changes, message):
    folder = checkpoints.multi_vector(tmp_path / "model", source=checkpoints.pylate(tmp_path / "source"))
    (module,) = folder.glob(f"*_{part}")
    file = module / "config.json"
    checkpoints.write_json(file, (json.loads(file.read_text()) if file.is_file() else {}) | changes)
    with pytest.raises(UnsupportedCheckpointError, match=re.escape(message)):
        load(folder)


def test_a_prefix_that_sentence_transformers_would_put_before_the_prompt_is_refused(tmp_path):
    folder = checkpoints.multi_vector(tmp_path / "model", source=checkpoints.pylate(tmp_path / "source"))
    edit_json(folder / SETTINGS, document_prefix="[Q] ")
    with pytest.raises(UnsupportedCheckpointError, match=r"document_prefix='\[Q\] '"):
        load(folder)


def test_an_entry_of_query_expansion_is_refused(tmp_path):
    folder = checkpoints.multi_vector(tmp_path / "model", source=checkpoints.pylate(tmp_path / "source"))
    expansion = json.loads((folder / TRANSFORMER).read_text())["query_expansion"]
    edit_json(folder / TRANSFORMER, query_expansion=expansion | {"side": "left"})
    with pytest.raises(UnsupportedCheckpointError, match=re.escape("query_expansion.side='left'")):
        load(folder)


def test_a_default_prompt_is_that_of_both_kinds_or_refused(tmp_path):
    prompts = {"query": "the ", "document": "the ", "other": "a "}
    folder = checkpoints.pylate(tmp_path / "model", prompts=prompts, default_prompt_name="query")
    assert_parity(rows_of(load(folder)), pylate_rows(folder))
    edit_json(folder / SETTINGS, default_prompt_name="other")
    with pytest.raises(UnsupportedCheckpointError, match="default_prompt_name='other', 'a ', but the prompts of queries and"):
        load(folder)


def test_a_dense_layer_of_pylates_without_an_activation_has_none(tmp_path):
    plain, folder = checkpoints.pylate(tmp_path / "plain"), checkpoints.pylate(tmp_path / "model")
    edit_json(folder / "1_Dense" / "config.json", activation_function=...)
    assert_same(load(folder), load(plain))


@pytest.mark.parametrize("kind", ["modernbert", "lfm2"])
def test_the_families_encode_as_in_sentence_transformers(tmp_path, kind):
    folder = checkpoints.pylate(tmp_path / "model", kind, prompts={"query": "search_query: ", "document": "search_document: "})
    assert_parity(rows_of(load(folder)), sentence_transformers_rows(folder))


def test_the_marker_is_second_where_nothing_stands_before_a_text(tmp_path):
    folder = checkpoints.with_template(checkpoints.pylate(tmp_path / "model", "modernbert"), "$A [SEP]")
    encoder = load(folder)
    tokens = encoder.describe()["example"]["tokens"]
    assert tokens[1] == "[Q] "
    assert tokens[0] not in ("[Q] ", "[SEP]")
    spans = encoder.query_spans("cats purr")
    assert spans[0].tolist() == [0, spans[0][1]]
    assert spans[1][0] == spans[1][1]
    ((_, spans),) = encoder.passage_spans("cats purr")
    assert spans[0][1] > 0
    assert spans[1][0] == spans[1][1]
    assert "the marker behind the first token" in repr(encoder)
    with pytest.raises(ValueError, match="late_chunking is not possible with"):
        load(folder, late_chunking=True)


def test_every_window_of_a_long_passage_has_the_marker_second(tmp_path):
    encoder = load(checkpoints.with_template(checkpoints.pylate(tmp_path / "model", "modernbert"), "$A [SEP]"))
    windows = encoder.passage_spans("cats purr and dogs bark " * 40)
    assert len(windows) > 2
    for (start, _), spans in windows:
        assert spans[0].tolist()[0] == start < spans[0][1]
        assert spans[1].tolist() == [start, start]


def test_expansion_is_filled_with_the_padding_token_where_there_is_neither_mask_nor_end(tmp_path):
    folder = checkpoints.pylate(tmp_path / "model", "lfm2")
    edit_json(folder / "tokenizer_config.json", eos_token=...)
    assert transformers.AutoTokenizer.from_pretrained(folder).eos_token_id is None
    assert_parity(rows_of(load(folder)), pylate_rows(folder))
    load(folder).save(tmp_path / "copy", format="sentence-transformers")
    assert_same(load(tmp_path / "copy"), load(folder))


@pytest.mark.parametrize(
    ("kind", "entry"),
    [
        ("lfm2", {"auto_map": {"AutoModel": "modeling.Lfm2BidirectionalModel"}}),
        ("lfm2", {"architectures": ["Lfm2BiModel"]}),
        ("bert", {"architectures": ["BertBiModel"]}),
    ],
)
def test_a_class_of_the_checkpoints_own_is_not_replaced_by_one_that_takes_its_weights(tmp_path, kind, entry):
    folder = checkpoints.pylate(tmp_path / "model", kind)
    edit_json(folder / "config.json", **entry)
    with pytest.raises(CheckpointError, match="BidirectionalModel|BiModel"):
        load(folder)

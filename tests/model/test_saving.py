"""Checkpoints that are written: read the same by this package and by the format's own library, all or nothing."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from builders import checkpoints
from builders.checkpoints import LAYERS
from builders.parity import assert_parity, assert_same, load, rows_of, sentence_transformers_rows
from safetensors.torch import load_file

from colbert_core import CheckpointError, Encoder, UnsupportedCheckpointError
from colbert_core.model.checkpoint import DEFAULT_MODEL


def pylate_folder(folder, changes, **options):
    folder = checkpoints.pylate(folder, **options)
    file = folder / "config_sentence_transformers.json"
    settings = json.loads(file.read_text()) | changes
    checkpoints.write_json(file, {name: value for name, value in settings.items() if value is not ...})
    return folder


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

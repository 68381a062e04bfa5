"""What the model reads of a text: markers, masks, windows, passages and late chunking."""

from __future__ import annotations

import dataclasses
import json
import string
from itertools import pairwise

import numpy as np
import pytest
from builders import checkpoints
from builders.checkpoints import edit_json
from builders.encoders import write_stanford
from builders.parity import assert_parity, ids_of, load, reference, rows_of, sentence_transformers_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from colbert_core import (
    CheckpointError,
    Encoder,
)


def test_masks_are_attended_to_where_the_recipe_says_so(tmp_path):
    folder = write_stanford(tmp_path / "attending", metadata={"attend_to_mask_tokens": True})
    (vectors,) = Encoder.from_pretrained(str(folder), device="cpu", dtype="float32").encode_queries(["cat"])
    ids = ids_of("[CLS] [unused0] cat [SEP]" + " [MASK]" * 8)
    np.testing.assert_allclose(vectors, reference(folder, ids, [1] * 12), atol=1e-5)


def test_markers_and_augmentation_can_be_turned_off_by_the_recipe(tmp_path):
    recipe = {"query_token_id": None, "doc_token_id": None, "query_augmentation": False}
    folder = write_stanford(tmp_path / "plain", metadata=recipe)
    encoder = Encoder.from_pretrained(str(folder), device="cpu", dtype="float32")
    (vectors,) = encoder.encode_queries(["cat purr"])
    np.testing.assert_allclose(vectors, reference(folder, ids_of("[CLS] cat purr [SEP]"), [1] * 4), atol=1e-5)


def test_every_ascii_punctuation_character_is_skipped(stanford):
    assert stanford.encode_passages([" ".join(string.punctuation[:15])]).doclens.tolist() == [3]


def test_punctuation_stays_where_the_recipe_says_so(tmp_path):
    folder = write_stanford(tmp_path / "all", metadata={"mask_punctuation": False})
    encoder = Encoder.from_pretrained(str(folder), device="cpu", dtype="float32")
    assert encoder.encode_passages(["Cats, dogs: purr."]).doclens.tolist() == [9]


@settings(max_examples=30)
@given(text=st.text(max_size=120))
def test_token_spans_are_inside_their_window_on_any_unicode(stanford, text):
    found = stanford.encode_passages([text])
    windows = np.repeat(found.window_spans, found.doclens, axis=0)
    assert (windows[:, 0] <= found.token_spans[:, 0]).all()
    assert (found.token_spans[:, 0] <= found.token_spans[:, 1]).all()
    assert (found.token_spans[:, 1] <= windows[:, 1]).all()
    assert found.window_spans[0, 0] == 0
    assert found.window_spans[-1, 1] == len(text)


def test_emoji_and_accents_keep_character_offsets(stanford):
    text = "🐈 cat é purr"
    spans = {text[a:b] for a, b in stanford.encode_passages([text]).token_spans}
    assert {"cat", "purr"} <= spans


def test_a_tokenizer_without_tokens_of_its_own_is_refused(tmp_path):
    folder = write_stanford(tmp_path / "bare")
    content = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(content | {"post_processor": None}))
    with pytest.raises(CheckpointError, match=r"adds no tokens of its own, such as \[CLS\]"):
        Encoder.from_pretrained(folder, device="cpu")


DOCUMENT = (
    "# Pets\n\nThe cat sat on a mat. The dog sat on a mat.\n\n## Sounds\n\nWhat sound does a cat make? Cats purr, dogs bark.\n\n"
    "```\nrust is a\n\nlanguage of\n```\n\n" + "purr " * 30
)


def test_split_cuts_a_document_into_passages_the_model_reads_whole(stanford):
    passages = stanford.split(DOCUMENT, "pets.md", metadata={"lang": "en"})
    assert len(passages) > 2
    assert [passage.id for passage in passages] == [f"pets.md#{number}" for number in range(1, len(passages) + 1)]
    assert len(stanford.encode_passages([passage.text for passage in passages]).owners) == len(passages)
    assert " ".join(passage.text for passage in passages).split() == DOCUMENT.split()
    for passage in passages:
        start, end = passage.metadata["start"], passage.metadata["end"]
        assert passage.text == DOCUMENT[start:end] == DOCUMENT[start:end].strip()
        assert passage.metadata == {"document_id": "pets.md", "start": start, "end": end, "lang": "en"}


def test_split_keeps_headings_with_their_text_and_code_whole(stanford):
    texts = [passage.text for passage in stanford.split(DOCUMENT, "a")]
    assert not any(text.splitlines()[-1].startswith("#") for text in texts)
    assert any("```\nrust is a\n\nlanguage of\n```" in text for text in texts)


def test_split_takes_a_size_and_an_overlap(stanford):
    small = stanford.split("the cat sat on a mat and the dog sat on a mat", "a", size=6, overlap=2)
    assert [passage.text for passage in small] == ["the cat sat on a mat", "a mat and the dog sat", "dog sat on a mat"]
    with pytest.raises(ValueError, match="size=18 must be from 1 to 17 tokens"):
        stanford.split("cat", "a", size=18)
    with pytest.raises(ValueError, match="overlap 6"):
        stanford.split("cat", "a", size=6, overlap=6)
    assert stanford.split(" \n", "a") == []


def test_split_loses_no_character_that_the_tokenizer_drops(default_encoder):
    text = "cafe\u0301 " * 100  # the accent by itself, as macOS writes it
    passages = default_encoder.split(text, "a", size=5)
    assert all(text[a.metadata["end"] : b.metadata["start"]].isspace() for a, b in pairwise(passages))
    assert sum(passage.text.count("\u0301") for passage in passages) == 100


def test_split_names_wrong_arguments(stanford):
    for arguments, error, message in (
        ({"size": 2.5}, TypeError, "size must be a whole number of tokens, got 2.5"),
        ({"size": True}, TypeError, "size must be a whole number"),
        ({"size": 5, "overlap": "3"}, TypeError, "overlap must be a whole number"),
    ):
        with pytest.raises(error, match=message):
            stanford.split("cat", "a", **arguments)
    with pytest.raises(TypeError, match="document_id must be a str"):
        stanford.split("cat", None)
    with pytest.raises(ValueError, match="document_id is empty"):
        stanford.split("cat", "")
    assert stanford.split("cat", "a", metadata={"start": 99})[0].metadata["start"] == 99


@settings(max_examples=30)
@given(text=st.text(max_size=200))
def test_split_slices_any_unicode_back(stanford, text):
    for passage in stanford.split(text, "a", size=5):
        assert passage.text == text[passage.metadata["start"] : passage.metadata["end"]] == passage.text.strip() != ""


@pytest.fixture(scope="module")
def late(stanford_folder):
    return Encoder.from_pretrained(stanford_folder, device="cpu", dtype="float32", late_chunking=True)


def test_late_chunking_cuts_the_vectors_of_one_long_sequence(late, stanford_folder):
    text = "the cat sat on a mat , what sound does it make ; the dog sat on a mat and the cats purr and the dogs bark"
    found = late.encode_passages([text])
    ids = ids_of(f"[CLS] [unused1] {text.replace('it', 'i ##t')} [SEP]")
    whole = reference(stanford_folder, ids, [1] * len(ids))  # all of it fits into the 64 tokens of the backbone
    assert len(found.owners) > 1
    starts = np.cumsum(found.doclens) - found.doclens
    own = {0, 1, len(ids) - 1}
    covered = set()
    for start, length in zip(starts, found.doclens, strict=True):
        rows = found.vectors[start : start + length]
        places = (rows @ whole.T).argmax(axis=1)
        np.testing.assert_allclose(rows, whole[places], atol=1e-5)
        assert own <= set(places.tolist())  # every window has the model's own tokens
        covered |= set(places.tolist())
    assert covered == {i for i, number in enumerate(ids) if number not in ids_of(", ;")}


def test_late_chunking_leaves_short_texts_alone(late, stanford):
    texts = ["the cat sat", "", "dogs bark."]
    np.testing.assert_array_equal(late.encode_passages(texts).vectors, stanford.encode_passages(texts).vectors)


def test_late_chunking_of_more_than_the_backbone_reads_covers_the_text(late, stanford):
    text = " ".join(["the cat sat on a mat."] * 60)
    found = late.encode_passages(["dogs", text, "cats"])
    spans = found.window_spans[found.owners == 1]
    assert (spans[0][0], spans[-1][1]) == (0, len(text))
    assert (spans[1:, 0] <= spans[:-1, 1]).all()
    assert (np.diff(spans, axis=0) > 0).all()
    assert found.doclens.max() <= 20
    assert found.owners.tolist() == sorted(found.owners.tolist())
    plain = stanford.encode_passages(["dogs", text, "cats"])  # the same windows, read with more around them
    np.testing.assert_array_equal(found.window_spans, plain.window_spans)
    np.testing.assert_array_equal(found.token_spans, plain.token_spans)
    assert np.abs(found.vectors - plain.vectors).max() > 0.01


def test_late_chunking_of_a_megabyte_takes_no_quadratic_time(late):
    assert len(list(late._inputs.passages(["the cat sat on a mat.\n\n" * 40_000]))) > 1000  # an hour, if it were


def test_late_chunking_without_more_context_than_a_window_is_refused(stanford_folder):
    with pytest.raises(ValueError, match="it reads 64 tokens and passage_length is 64; pass a smaller passage_length"):
        Encoder.from_pretrained(stanford_folder, device="cpu", passage_length=64, late_chunking=True)


@pytest.mark.parametrize("length", [3, 0, -1, 65])
def test_a_length_without_room_for_text_or_beyond_the_backbone_is_refused(stanford_folder, length):
    with pytest.raises(ValueError, match=rf"query_length={length} .* must be from 4 .* to 64"):
        load(stanford_folder, query_length=length)


def test_a_marker_that_the_tokenizer_does_not_know_is_refused(stanford_copy):
    edit_json(stanford_copy / "artifact.metadata", query_token_id="[Q]")
    with pytest.raises(CheckpointError, match=r"'\[Q\]', which its tokenizer of \d+ tokens does not know"):
        load(stanford_copy)


@pytest.mark.parametrize("length", ["32", 32.5])
def test_a_length_that_is_no_whole_number_is_refused(stanford_folder, length):
    with pytest.raises(TypeError, match="query_length must be a whole number of tokens"):
        load(stanford_folder, query_length=length)


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


def test_metadata_of_the_user_s_own_stay_and_the_place_of_a_piece_has_other_names(stanford):
    (piece,) = stanford.split("the cat sat", "doc", metadata={"start": 12.5, "document_id": "mine"})
    assert piece.metadata == {
        "start": 12.5,
        "document_id": "mine",
        "piece_document_id": "doc",
        "piece_start": 0,
        "piece_end": 11,
    }

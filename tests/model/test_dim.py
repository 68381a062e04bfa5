"""dim=: the first components of every vector."""

from __future__ import annotations

import json
import pickle
import re

import numpy as np
import pytest
from builders import checkpoints
from builders.checkpoints import HIDDEN, LAYERS, edit_json
from builders.parity import assert_parity, assert_same, load, rows_of

from colbert_core import EncoderMismatchError, Index, Passage
from colbert_core.cli.main import main


def cut(rows, dim):
    return [row[:, :dim] / np.linalg.norm(row[:, :dim], axis=1, keepdims=True) for row in rows]


def nested(folder, dims=(4, 8, 16), kind="bert"):
    return checkpoints.stanford(folder, kind, matryoshka_dims=list(dims))


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
def test_the_first_components_are_made_unit_vectors_whatever_the_head(tmp_path, layers):
    folder = checkpoints.pylate(tmp_path / "model", layers=layers)
    encoder = load(folder, dim=5)
    assert encoder.dim == 5
    assert_parity(rows_of(encoder), cut(rows_of(load(folder)), 5))


def test_a_model_without_a_head_is_cut_too(untrained_folder):
    encoder = load(untrained_folder, dim=8)
    whole = load(untrained_folder)
    np.testing.assert_allclose(encoder.encode_queries(["cat"])[0], cut(whole.encode_queries(["cat"]), 8)[0], atol=1e-5)


@pytest.mark.parametrize("format", ["stanford", "pylate", "sentence-transformers"])
def test_a_copy_keeps_the_dimension_and_what_it_may_be_cut_to(tmp_path, format):
    encoder = load(nested(tmp_path / "model"), dim=8)
    encoder.save(tmp_path / "copy", format=format)
    again = load(tmp_path / "copy")
    assert (again.dim, again.config.nested_dims) == (8, (4, 8))
    assert_same(again, encoder)


def test_trained_dimensions_need_no_warning_and_others_get_one(tmp_path, caplog):
    folder = nested(tmp_path / "model")
    load(folder, dim=8)
    load(folder, dim=16)
    assert not caplog.records
    load(folder, dim=7)
    assert f"Vectors of {folder} are cut from 16 components to 7, and it was trained for 4, 8, 16" in caplog.text
    caplog.clear()
    load(checkpoints.stanford(tmp_path / "other"), dim=7)
    assert "its files name no dimensions to cut to" in caplog.text


@pytest.mark.parametrize("file", ["config.json", "artifact.metadata"])
def test_dimensions_are_read_where_files_name_them(tmp_path, file):
    folder = checkpoints.stanford(tmp_path / "model")
    edit_json(folder / file, matryoshka_dimensions=[16, 8, 32])
    assert load(folder).config.nested_dims == (8, 16)  # 32 is more than there are


def test_jina_colbert_v2_is_known_by_its_code(tmp_path):
    folder = checkpoints.stanford(tmp_path / "model", dim=128)
    edit_json(folder / "config.json", auto_map={"AutoConfig": "jinaai/xlm-roberta-flash-implementation--configuration.C"})
    encoder = load(folder)
    assert encoder.config.nested_dims == (64, 96, 128)
    assert "128 dimensions (may be cut to 64, 96)" in repr(encoder)
    assert encoder.describe()["nested_dims"] == [64, 96, 128]


@pytest.mark.parametrize(
    ("dim", "error", "message"),
    [
        (0, ValueError, "dim=0 must be from 1 to 16"),
        (
            17,
            ValueError,
            "dim=17 must be from 1 to 16, the components of the vectors of .*; it was trained to be cut to 4, 8, 16",
        ),
        (8.0, TypeError, "dim must be a whole number of components, got 8.0"),
        (True, TypeError, "dim must be a whole number of components, got True"),
    ],
)
def test_a_dimension_that_cannot_be_is_named(tmp_path, dim, error, message):
    with pytest.raises(error, match=message):
        load(nested(tmp_path / "model"), dim=dim)


def test_an_index_knows_the_dimension_and_refuses_another(tmp_path):
    folder = nested(tmp_path / "model")
    encoder = load(folder, dim=8)
    assert encoder.origin == load(folder).origin | {"dim": 8}
    with Index.create(tmp_path / "idx", encoder) as index:
        index.add([Passage("cats", "cats purr")])
    with Index.open(tmp_path / "idx") as index:
        assert index.search("cats", k=1)[0].passage.id == "cats"
        assert index.dim == 8
    for other in (load(folder), load(folder, dim=4)):
        with pytest.raises(EncoderMismatchError, match=re.escape(f"of dim 8, but what has that name now has dim {other.dim}")):
            Index.open(tmp_path / "idx", other)


def test_a_pickle_and_a_second_request_keep_it(tmp_path):
    folder = nested(tmp_path / "model")
    encoder = load(folder, dim=8)
    assert pickle.loads(pickle.dumps(encoder)).dim == 8
    assert load(folder, dim=8) is encoder
    assert load(folder).dim == 16


def test_the_command_line_takes_it(tmp_path, capsys):
    folder = nested(tmp_path / "model")
    assert main(["inspect", str(folder), "--dim", "8", "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert (about["dim"], about["nested_dims"]) == (8, [4, 8])
    assert main(["inspect", str(folder), "--dim", "99"]) != 0
    assert f"dim=99 must be from 1 to {HIDDEN // 2}" in capsys.readouterr().err

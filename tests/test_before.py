"""What version 0.1.0 wrote before its modules were divided into folders: today's code finds the same in it."""

from __future__ import annotations

import importlib
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from colbert_core import (
    Encoder,
    EncoderMismatchError,
    Hit,
    Index,
    Passage,
    SearchConfig,
    TokenEmbeddings,
    UnsupportedIndexError,
)
from colbert_core.colbertv1.encoded import EncodedCollection
from colbert_core.colbertv1.ivfpq import IVFPQ
from colbert_core.index.reports import IndexStats, Tuning
from colbert_core.model.checkpoint import EncoderConfig
from colbert_core.moved import _MOVED
from colbert_core.search.excerpts import Excerpt
from colbert_core.vectors.codec import ResidualCodec

BEFORE = Path(__file__).parent / "data" / "before"
EXPECTED = json.loads((BEFORE / "expected.json").read_text(encoding="utf-8"))
FORMATS = ["stanford", "pylate", "sentence-transformers"]


@pytest.fixture(scope="module")
def tiny() -> Encoder:
    return Encoder.from_pretrained(BEFORE / "models" / "stanford", device="cpu", dtype="float32")


@pytest.fixture
def copy_of(tmp_path):
    """A copy of a folder: who opens an index may write into it."""
    return lambda name: Path(shutil.copytree(BEFORE / name, tmp_path / name))


def unpickled(name):
    return pickle.loads((BEFORE / "pickles" / f"{name}.pickle").read_bytes())


def check_hits(hits, expected):
    assert [hit.passage.id for hit in hits] == [one["id"] for one in expected]
    assert [hit.score for hit in hits] == pytest.approx([one["score"] for one in expected], abs=1e-5)
    assert [hit.relevance for hit in hits] == pytest.approx([one["relevance"] for one in expected], abs=1e-5)
    assert [list(hit.span) for hit in hits] == [one["span"] for one in expected]
    assert [hit.passage.metadata for hit in hits] == [one["metadata"] for one in expected]


def without_later_fields(text):
    for later in (", word_bytes=0", ", skip_first=False", ", nested_dims=()", ", n_tokens=None"):
        text = text.replace(later, "")
    return text


def check_evidence(evidence, expected):
    told = {**evidence.to_dict(), "matches": [[*match.query_span, *match.span, match.similarity] for match in evidence.matches]}
    assert told.keys() == {*expected.keys(), "words"}  # what later versions tell as well
    for name in ("window", "unmatched"):
        assert told[name] == expected[name]
    assert np.array(told["matches"]) == pytest.approx(np.array(expected["matches"]), abs=1e-5)
    assert [told["score"], told["relevance"]] == pytest.approx([expected["score"], expected["relevance"]], abs=1e-5)
    assert len(told["highlights"]) == len(expected["highlights"])
    for highlight, other in zip(told["highlights"], expected["highlights"], strict=True):
        numbers = {
            "weight": pytest.approx(other["weight"], abs=1e-3),
            "similarity": pytest.approx(other["similarity"], abs=1e-3),
        }
        assert highlight == other | numbers  # both are rounded to 4 digits


# Model folders


@pytest.mark.parametrize("format", FORMATS)
def test_a_model_that_was_saved_gives_the_same_vectors(format):
    encoder = Encoder.from_pretrained(BEFORE / "models" / format, device="cpu", dtype="float32")
    assert encoder.config.format == format
    expected = EXPECTED["vectors"]
    (query,) = encoder.encode_queries(["happy cats"])
    assert query == pytest.approx(np.array(expected["query"]), abs=1e-5)
    assert encoder.encode_passages(["the cat sat on the mat"]).vectors == pytest.approx(np.array(expected["passage"]), abs=1e-5)


# Indexes on disk


@pytest.mark.parametrize("name", ["compressed", "uncompressed"])
def test_an_index_gives_the_same_hits(name, tiny, copy_of):
    expected = EXPECTED[name]
    with Index.open(copy_of(name), tiny) as index:
        assert index.ids() == expected["ids"]
        for query, hits in expected["search"].items():
            check_hits(index.search(query, 5), hits)
            check_hits(index.search(query, 5, exact=True), hits)
        queries = list(expected["search"])
        check_hits(index.search(queries[0], 50, where={"even": True, "year": {"$lt": 2020}}), expected["where"])
        check_hits(index.search_diverse(queries[1], 3), expected["diverse"])
        check_hits(index.search_mean(queries, 3), expected["mean"])
        (replaced,) = index.get(["p03"])
        assert (replaced.text, replaced.metadata) == ("cats", {"year": 1990, "nested": {"languages": ["de", "日本語"]}})
        assert index.get(["p05", "p07"]) == [None, None]
        assert index.verify(progress=False).ok


def test_the_figures_of_an_index_are_the_same(tiny, copy_of):
    with Index.open(copy_of("compressed"), tiny) as index:
        assert without_later_fields(repr(index.stats())) == EXPECTED["values"]["index_stats"]
    assert index.encoder_name == "tiny"


@pytest.mark.parametrize("name", ["compressed", "uncompressed"])
def test_an_index_takes_more_passages_and_forgets_none(name, tiny, copy_of):
    path = copy_of(name)
    with Index.open(path, tiny) as index:
        ids = index.ids()
        index.add([Passage("new", "dogs bark", {"year": 2030})], progress=False)
        index.delete([ids[0]])
        index.compact(progress=False)
    with Index.open(path, tiny) as index:
        assert sorted(index.ids()) == sorted([*ids[1:], "new"])
        assert {hit.passage.id for hit in index.search("dogs bark", 50)} == {*ids[1:], "new"}
        assert index.verify(progress=False).ok


@pytest.mark.parametrize("name", ["compressed", "uncompressed"])
def test_an_index_from_before_there_were_words_says_so_and_has_them_after_compact(name, tiny, copy_of):
    path = copy_of(name)
    with Index.open(path, tiny) as index:
        for mode in ("hybrid", "words"):
            with pytest.raises(UnsupportedIndexError, match="was made before there were any; .* `colbert compact`"):
                index.search("happy cats", mode=mode)
        assert index.stats().word_bytes == 0
        index.compact(progress=False)
        found = {hit.passage.id for hit in index.search("the CAT", 99, mode="words")}
        assert {passage.id for passage in index.get(index.ids()) if "cat" in passage.text} == found != set()
        assert index.search("cats", 1, mode="hybrid", weight=1.0)[0].coverage > 0.5
        assert index.stats().word_bytes > 0
        assert index.verify(progress=False).ok


def test_an_index_knows_its_encoder_from_another(copy_of, untrained, words):
    path = copy_of("compressed")
    for other in (untrained, words):
        with pytest.raises(EncoderMismatchError, match="made with the encoder 'tiny'"):
            Index.open(path, other)


def test_a_persisted_llama_index_gives_the_same_nodes(tiny, copy_of):
    from llama_index_colbert import ColBERTIndex

    index = ColBERTIndex.load(copy_of("llama_index"), model_name=tiny)
    for query, expected in EXPECTED["llama_index"].items():
        nodes = index.query(query, top_k=3)
        assert [scored.score for scored in nodes] == pytest.approx([score for _, score, _, _ in expected], abs=1e-5)
        assert [[scored.node.node_id, scored.node.get_content(), scored.node.metadata] for scored in nodes] == [
            [name, text, metadata] for name, _, text, metadata in expected
        ]


def test_an_encoded_collection_and_its_ivfpq_index_give_the_same_passages(tiny, copy_of):
    copy_of("encoded")
    index = IVFPQ.open(copy_of("ivfpq"), tiny)
    index.encoded.verify()
    check_ivfpq(index, tiny)


def check_ivfpq(index, encoder):
    for queries in (["happy cats"], encoder.encode_queries(["happy cats"])):
        (pairs,), (expected,) = index.search_many(queries, 5), EXPECTED["ivfpq"]
        assert [name for name, _ in pairs] == [name for name, _ in expected]
        assert [score for _, score in pairs] == pytest.approx([score for _, score in expected], abs=1e-5)


# Pickles


def test_a_pickled_encoder_is_the_model_in_the_box(default_encoder):
    encoder = unpickled("default_encoder")
    assert type(encoder) is Encoder
    assert (encoder.name, encoder.config, encoder.origin) == ("default", default_encoder.config, default_encoder.origin)


def test_a_pickled_index_in_memory_gives_the_same_hits(tiny):
    index = unpickled("memory")
    assert type(index) is Index
    for query, hits in EXPECTED["memory"].items():
        check_hits(index.search(tiny.encode_queries([query])[0], 5), hits)
    with pytest.raises(EncoderMismatchError, match="vectors from elsewhere"):
        index.search("text")


def test_a_pickled_hit_has_its_evidence():
    hit = unpickled("hit")
    assert type(hit) is Hit
    check_hits([hit], [EXPECTED["hit"]])
    assert (hit.coverage, hit.hybrid_relevance, hit.value) == (None, None, hit.relevance)
    check_evidence(hit.evidence, EXPECTED["hit"]["evidence"])
    assert hit.evidence.to_html()
    assert pickle.loads(pickle.dumps(hit)) == hit


def test_an_index_still_gives_the_pickled_hit(tiny, copy_of):
    hit = unpickled("hit")
    with Index.open(copy_of("uncompressed"), tiny) as index:
        check_hits(index.search(hit.evidence.query, 1), [EXPECTED["hit"]])
        again = index.explain(hit.evidence.query, hit)
        # Marks are now of words that lift above the collection; cosines, scores and the matches are what they were.
        for match, before in zip(again.matches, hit.evidence.matches, strict=True):
            assert (match.query_span, match.span) == (before.query_span, before.span)
            assert match.similarity == pytest.approx(before.similarity, abs=1e-5)
        assert (again.window, again.score) == (hit.evidence.window, pytest.approx(hit.evidence.score, abs=1e-5))
        assert again.unmatched == hit.evidence.unmatched


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("search_config", SearchConfig),
        ("encoder_config", EncoderConfig),
        ("excerpt", Excerpt),
        ("index_stats", IndexStats),
        ("tuning", Tuning),
    ],
)
def test_a_pickled_value_is_of_todays_class(name, kind):
    value = unpickled(name)
    assert type(value) is kind
    assert without_later_fields(repr(value)) == EXPECTED["values"][name]
    assert pickle.loads(pickle.dumps(value)) == value


def test_pickled_embeddings_hold_the_same_arrays():
    embeddings, expected = unpickled("token_embeddings"), EXPECTED["values"]["token_embeddings"]
    assert type(embeddings) is TokenEmbeddings
    assert expected.keys() == type(embeddings).__dataclass_fields__.keys()
    for name, values in expected.items():
        assert getattr(embeddings, name) == pytest.approx(np.array(values), abs=1e-6)
    embeddings.check(2, 16)


def test_a_pickled_codec_compresses_as_before(tiny):
    codec, expected = unpickled("codec"), EXPECTED["values"]["codec"]
    assert type(codec) is ResidualCodec
    assert codec.centroids == pytest.approx(np.array(expected["centroids"]), abs=1e-6)
    assert codec.levels == pytest.approx(np.array(expected["levels"]), abs=1e-6)
    assert list(codec.layers) == expected["layers"]
    (vectors,) = tiny.encode_queries(["happy cats"])
    assert (codec.decompress(*codec.compress(vectors)) * vectors).sum(axis=1).min() > 0.97  # cosines


@pytest.mark.skipif(sys.platform == "win32", reason="the folder is pickled with it, as a path of the other systems")
def test_a_pickled_ivfpq_index_gives_the_same_passages(tiny):
    index = unpickled("ivfpq")
    assert (type(index), type(index.encoded)) == (IVFPQ, EncodedCollection)
    index.encoded.fingerprint.check(tiny)
    (pairs,), (expected,) = index.search_many(tiny.encode_queries(["happy cats"]), 5), EXPECTED["ivfpq"]
    assert [name for name, _ in pairs] == [name for name, _ in expected]
    assert [score for _, score in pairs] == pytest.approx([score for _, score in expected], abs=1e-5)


# Names


@pytest.mark.parametrize(("old", "new"), _MOVED.items())
def test_an_old_name_is_the_same_module_object(old, new):
    assert importlib.import_module(f"colbert_core.{old}") is importlib.import_module(f"colbert_core.{new}")


@pytest.mark.parametrize("new_first", [True, False])
def test_old_and_new_name_are_one_module_in_either_order(new_first):
    names = [f"colbert_core.{name}" for name in ("model.checkpoint.config", "checkpoint.config")]
    first, second = names if new_first else names[::-1]
    code = f"import importlib as i; assert i.import_module({first!r}) is i.import_module({second!r})"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
    code = f"import {first}, {second}, colbert_core; assert colbert_core.checkpoint is colbert_core.model.checkpoint"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_a_name_that_never_was_is_no_module():
    with pytest.raises(ModuleNotFoundError, match="colbert_core.nothing"):
        importlib.import_module("colbert_core.nothing")

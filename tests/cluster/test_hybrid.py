"""Shards searched by words as well, or by words alone: the same as one index, whatever is rare in which shard."""

from __future__ import annotations

import shutil
import sqlite3

import pytest
from builders.cluster import PASSAGES, QUERIES, one_here, sharded_here
from builders.encoders import WordEncoder

from colbert_core import EncoderMismatchError, Index, Passage, UnsupportedIndexError
from colbert_core.cluster import ShardedIndex, encoding
from colbert_core.cluster.layout import Layout, shard_of
from colbert_core.errors import ClusterError

MODES = [{"mode": "maxsim"}, {"mode": "hybrid"}, {"mode": "hybrid", "weight": 0.9}, {"mode": "words"}]
# Also of stop words alone, of a word that nobody has, and of both kinds with others.
TEXTS = [*QUERIES, "on a", "zebra", "the zebra", "cat zebra-5"]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two shards, which no test changes."""
    return sharded_here(tmp_path_factory.mktemp("hybrid") / "two")


@pytest.fixture(scope="module")
def copied(two, tmp_path_factory):
    """Two shards and one index of the same passages, some of which came later; opened without loading an encoder."""
    folder = tmp_path_factory.mktemp("hybrid")
    shutil.copytree(two, folder / "shards")
    new = [Passage("id5", "zebra-5 naps", {"year": 2003}), Passage("new", "zebra zebra", {"year": 2001}), Passage("blank", " ")]
    with (
        one_here(folder / "one", two) as one,
        ShardedIndex.open(folder / "shards", WordEncoder(), address="local") as index,
    ):
        assert index.add(new) == one.add(new, refit=False)
        assert index.delete(["id1", "id2"]) == one.delete(["id1", "id2"]) == 2
    return folder


@pytest.fixture(scope="module")
def both(copied):
    """The shards and the one index, with an encoder."""
    with (
        ShardedIndex.open(copied / "shards", WordEncoder(), address="local") as index,
        Index.open(copied / "one", WordEncoder()) as one,
    ):
        yield index, one


@pytest.mark.parametrize("by", MODES, ids=str)
def test_shards_find_what_one_index_finds_with_the_same_scores(both, by):
    index, one = both
    for options in (
        {"k": 1},
        {"k": 300},
        {"k": 20, "where": {"year": {"$gte": 2003}}},
        {"k": 20, "where": lambda passage: passage.metadata.get("year") == 2001},
        {"k": 20, "ids": ["id7", "id8", "nobody", "id200", "new"]},
        {"k": 20, "ids": []},
        {"k": 20, "min_relevance": 0.4},
    ):
        found = index.search_many(TEXTS, exact=True, **by, **options)
        assert found == one.search_many(TEXTS, exact=True, **by, **options)  # scores and coverages to the last bit
        ranked = [hit.value for hit in found[0]]
        assert ranked == sorted(ranked, reverse=True)
        assert index.search(TEXTS[0], exact=True, **by, **options) == found[0]
        means = [each.search_mean(TEXTS[:3], exact=True, **by, **options) for each in both]
        assert means[0] == means[1]
    assert index.search_many([], **by) == []


@pytest.mark.parametrize("by", MODES, ids=str)
def test_hits_of_shards_have_evidence_whatever_ranks(both, by):
    index, one = both
    hits = index.search("happy cats purr", 5, evidence=True, exact=True, **by)
    assert hits == one.search("happy cats purr", 5, exact=True, **by)
    assert all(hit.evidence.passage_id == hit.passage.id for hit in hits)
    assert any(hit.evidence.matches for hit in hits)


def test_words_alone_load_no_encoder(copied, both):
    index, one = both
    with ShardedIndex.open(copied / "shards", address="local") as without:  # the encoder "words" could not be loaded
        found = without.search("zebra", mode="words")
        assert found == one.search("zebra", mode="words") == index.search("zebra", mode="words")
        assert {hit.passage.id for hit in found} == {"new", "id5"}
        assert [(hit.score, hit.relevance, hit.hybrid_relevance) for hit in found] == [(hit.coverage,) * 3 for hit in found]
        assert without.search_mean(["zebra", "cats"], mode="words")
        for options in ({"mode": "hybrid"}, {"mode": "words", "evidence": True}):
            with pytest.raises(EncoderMismatchError):
                without.search("zebra", **options)


def test_the_figures_tell_the_bytes_of_all_words(both):
    index, one = both
    assert index.stats().word_bytes > 0.5 * one.stats().word_bytes > 0


# Faults


@pytest.mark.parametrize("allow_partial", [False, True])
def test_shards_without_words_say_so_and_are_not_taken_for_down(two, tmp_path, allow_partial):
    folder = tmp_path / "copy"
    shutil.copytree(two, folder)
    connection = sqlite3.connect(folder / "shard-0001" / "index.sqlite")
    connection.executescript("DROP TABLE words; DROP TABLE lengths; DELETE FROM about WHERE key = 'words'")  # as before
    connection.close()
    with ShardedIndex.open(folder, WordEncoder(), allow_partial=allow_partial, address="local") as index:
        for by in MODES[1:]:
            with pytest.raises(UnsupportedIndexError, match=r"shard-0001 has no words .* `colbert compact`"):
                index.search("cat", **by)
        assert index.search("cat")
        in_1 = next(passage for passage in PASSAGES if shard_of(passage.id, 2) == 1)
        index.delete([in_1.id])  # any change adds them
        assert index.search("cat", mode="words")


@pytest.mark.parametrize(
    ("words", "error", "problem"),
    [
        (False, ValueError, "made without words"),
        ("trigrams", ClusterError, "Shards 0 and 1 of .* cut texts into words in different ways"),
    ],
)
def test_a_shard_that_was_replaced_by_one_of_other_words_is_told(two, tmp_path, words, error, problem):
    folder = tmp_path / "copy"
    shutil.copytree(two, folder)
    shutil.rmtree(folder / "shard-0001")
    codec = encoding.load_codec(Layout(folder))
    Index.create(folder / "shard-0001", WordEncoder(), codec=codec, words=words).close()
    with ShardedIndex.open(folder, WordEncoder(), address="local") as index:
        with pytest.raises(error, match=problem):
            index.search("happy cats", mode="words")
        assert index.search("happy cats")


def test_what_means_nothing_is_refused_before_a_shard_is_asked(both):
    index, _ = both
    vectors = WordEncoder().encode_queries(["cat"])[0]
    for wrong, error, problem in (
        ({"query": "cat", "mode": "bm25"}, ValueError, "mode must be one of maxsim, hybrid, words"),
        ({"query": "cat", "weight": 0.5}, ValueError, "weight is for mode='hybrid'"),
        ({"query": "cat", "mode": "hybrid", "weight": 2}, ValueError, "weight"),
        ({"query": vectors, "mode": "hybrid"}, TypeError, "needs the words of each query"),
        ({"query": vectors, "mode": "words"}, TypeError, "needs the words of each query"),
        ({"query": " ", "mode": "words"}, ValueError, "empty"),
    ):
        with pytest.raises(error, match=problem):
            index.search(**wrong)
    with pytest.raises(ValueError, match="no queries"):
        index.search_mean([], mode="words")

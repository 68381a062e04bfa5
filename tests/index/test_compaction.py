"""What a write does to segments."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest
from builders.encoders import WordEncoder
from builders.vectors import ids

from colbert_core import Index, Passage, UnsupportedIndexError
from colbert_core.index import writing


def test_the_windows_of_a_passage_stay_together_when_segments_are_split(monkeypatch):
    import colbert_core.index.compaction as upkeep_module

    monkeypatch.setattr(writing, "FIRST_FIT", 1000)
    monkeypatch.setattr(upkeep_module, "_PIECE", 50)
    monkeypatch.setattr(upkeep_module, "_LARGEST_MERGE", 3000)
    words = WordEncoder(dim=32, window=8)
    index = Index.create(None, words, nbits=8)
    index.add([Passage(f"{i:02}", " ".join(f"word{i} number{j}" for j in range(30))) for i in range(40)])
    stats = index.stats()
    assert (stats.centroids > 0, stats.segments > 3, stats.windows) == (True, True, 40 * 8)
    assert index.verify().problems == []
    assert [len(vectors) for vectors in index.embeddings([f"{i:02}" for i in range(40)])] == [60] * 40
    assert sorted(ids(index.search("word7 number3", k=99))) == [f"{i:02}" for i in range(40)]


def test_replacing_one_long_passage_among_short_ones_gives_the_memory_back(create, words):
    index = create(words)
    index.add([Passage(str(i), "a note") for i in range(200)])
    for generation in range(50):
        index.add([Passage("long", f"generation {generation} " + "of a long text " * 100)])
    stats = index.stats()
    assert stats.tokens == 200 * 2 + 402
    assert stats.dead_tokens <= stats.tokens
    assert index.search("generation 49", k=1)[0].passage.id == "long"


def test_deleting_gives_the_memory_back(create, words):
    index = create(words)
    index.add([Passage(str(i), "some words " * 30) for i in range(300)])
    index.delete([str(i) for i in range(299)])
    stats = index.stats()
    assert (stats.passages, stats.tokens, stats.dead_tokens) == (1, 60, 0)
    assert stats.vector_bytes < 70 * 64 * 4


def pieces(index):
    return index._versions.read(lambda view: view.reader.words.count_pieces())


def test_compact_puts_words_in_one_piece_and_does_nothing_where_there_is_nothing_to_do(create, words):
    index = create(words)
    index.compact()
    assert index.stats().generation == 0
    for number in range(3):
        index.add([Passage(f"{number}.{i}", f"the happy cat{number} and dog{i}") for i in range(40)])
    index.delete(["0.1"])
    found = index.search("cat2 dog3", mode="words")
    assert pieces(index) > 1
    index.compact()
    assert (pieces(index), index.stats().segments) == (1, 1)
    assert index.search("cat2 dog3", mode="words") == found
    generation = index.stats().generation
    index.compact()
    assert index.stats().generation == generation
    assert index.verify().ok


def test_compact_counts_the_words_of_an_index_in_one_segment_that_was_made_before_there_were_any(words, tmp_path):
    with Index.create(tmp_path / "x.idx", words) as index:
        index.add([Passage("a", "happy cats"), Passage("b", "the zebra-5")])
        found = index.search("zebra", mode="words")
    connection = sqlite3.connect(tmp_path / "x.idx" / "index.sqlite")
    connection.executescript(
        "DROP TABLE words; DROP TABLE lengths; DELETE FROM about WHERE key = 'words'; DROP TABLE checksums; "
        "DELETE FROM about WHERE key = 'checksum'; PRAGMA user_version = 2"
    )
    connection.close()
    with Index.open(tmp_path / "x.idx", words) as index:
        generation = index.stats().generation
        for mode in ("hybrid", "words"):
            with pytest.raises(UnsupportedIndexError, match="has no words to search by: .* or `colbert compact`"):
                index.search("zebra", mode=mode)
        index.compact()
        assert index.stats().generation == generation + 1
        assert index.search("zebra", mode="words") == found
        index.compact()
        assert index.stats().generation == generation + 1
        assert index.verify().ok


def test_compact_leaves_vectors_from_elsewhere_without_words(tmp_path):
    with Index.create(tmp_path / "x.idx", dim=4) as index:
        index.add([Passage("a", "happy cats")], embeddings=[np.eye(4, dtype=np.float32)])
        generation = index.stats().generation
        index.compact()
        assert index.stats().generation == generation

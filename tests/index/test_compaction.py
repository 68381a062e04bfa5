"""What a write does to segments."""

from __future__ import annotations

from builders.encoders import WordEncoder
from builders.vectors import ids

from colbert_core import Index, Passage
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

"""BM25, the lexical baseline."""

from __future__ import annotations

import sys

import pytest

from colbert_core import MissingExtraError, Passage
from colbert_core.evaluation.bm25 import BM25

PETS = [
    Passage("b", "Cats purr when they are happy."),
    Passage("a", "Cats purr when they are happy."),
    Passage("c", "Rust is a systems programming language."),
]


def test_bm25_finds_by_stems_and_ignores_stop_words():
    bm25 = BM25.build(PETS)
    ((best, _), *rest) = bm25.search_many(["the happiness of a purring cat is"], k=1)[0]
    assert best == "a"  # equal to b, and first by id
    assert not rest
    assert bm25.search_many(["is the", "zebra", "languages"]) == [[], [], bm25.search_many(["language"])[0]]


def test_bm25_of_one_word_is_the_formula():
    """idf = ln(1 + (3 - 1 + .5) / (1 + .5)) = .98083; all passages have 4 stems, so the rest is 1 / (1 + .9)."""
    ((_, score),) = BM25.build(PETS).search_many(["rust"])[0]
    assert score == pytest.approx(0.98083 / 1.9, abs=1e-5)


def test_bm25_saved_and_loaded_finds_the_same(tmp_path):
    bm25 = BM25.build(PETS)
    bm25.save(tmp_path / "bm25")
    assert BM25.load(tmp_path / "bm25").search_many(["cats", "rust"]) == bm25.search_many(["cats", "rust"])
    with pytest.raises(FileExistsError, match="already"):
        bm25.save(tmp_path / "bm25")
    with pytest.raises(FileNotFoundError):
        BM25.load(tmp_path / "nowhere")


def test_bm25_refuses_what_it_cannot_count():
    for passages in ([], [Passage("a", "the of")], [Passage("a", "cat"), Passage("a", "dog")]):
        with pytest.raises(ValueError):
            BM25.build(passages)
    with pytest.raises(ValueError, match="k1=-1"):
        BM25.build(PETS, k1=-1)
    with pytest.raises(TypeError, match="list of strings"):
        BM25.build(PETS).search_many("cats")
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        BM25.build(PETS).search_many(["cats"], k=0)


@pytest.mark.parametrize("module", ["bm25s", "Stemmer"])
def test_bm25_without_its_packages_names_the_pip_line(monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match="pip install bm25s PyStemmer"):
        BM25.build(PETS)

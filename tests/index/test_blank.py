"""Passages in which there is nothing to read: kept and given back, and never found by what they lack."""

from __future__ import annotations

import numpy as np
import pytest

from colbert_core import Encoder, Index, Passage, Reranker

BLANK = {"empty": "", "white": " \n", "joiner": "\u200b", "mark": "\ufeff", "rule": "------", "dots": "..."}
REAL = {"bill": "The invoice is due in thirty days.", "dogs": "Dogs wag their tails.", "hours": "Our office opens at nine."}


@pytest.fixture(scope="module")
def box():
    return Encoder.from_pretrained()


def passages(texts, **metadata):
    return [Passage(name, text, metadata) for name, text in texts.items()]


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_a_passage_with_nothing_to_read_is_kept_and_never_found(box, place, tmp_path):
    path = tmp_path / "i.idx" if place == "disk" else None
    with Index.create(path, box) as index:
        index.add(passages(BLANK, page=1))
        assert index.search("pay the bill") == []
        index.add(passages(REAL))
        for query in ("pay the bill", "hotel", "who wrote Hamlet?"):
            # The tokens of "..." and of a rule are the text's own unless the model skips punctuation.
            found = [hit.passage.id for hit in index.search(query, k=20)]
            assert set(found[:3]) == set(REAL) or not set(found) & {"empty", "white", "joiner", "mark"}
            assert set(REAL) <= set(found)
            assert not set(found) & {"empty", "white", "joiner", "mark"}
            assert [hit.passage.id for hit in index.search(query, k=20, exact=True)] == found
        assert len(index) == 9
        assert index.ids({"page": 1}) == list(BLANK)
        assert [passage.text for passage in index.get(["empty", "joiner"])] == ["", "\u200b"]
        assert index.embeddings(["empty"])[0].shape == (0, box.dim)
        assert index.explain("pay the bill", "empty").highlights == ()
        assert index.search("pay", where={"page": 1}, ids=["empty", "white"]) == []
        assert index.verify().ok
        assert index.stats().passages == 9


def test_an_index_of_blank_passages_alone_works(box, tmp_path):
    with Index.create(tmp_path / "i.idx", box) as index:
        index.add(passages({"a": "", "b": " "}))
        assert (len(index), index.search("cat"), index.verify().ok) == (2, [], True)
        assert index.search_many(["cat", "dog"]) == [[], []]
        assert index.search_diverse("cat") == []
        assert index.search_mean(["cat", "dog"]) == []
        with pytest.raises(ValueError, match="nothing to read in its passages"):
            index.tune()
        index.add([Passage("a", "The cat sat.")])
        assert [hit.passage.id for hit in index.search("cat")] == ["a"]
        index.add([Passage("a", "")])
        assert index.search("cat") == []
        index.compact()
        assert index.delete(["a", "b"]) == 2
        assert (len(index), index.verify().problems) == (0, [])
        index.add([Passage("a", "The cat sat.")])
        assert [hit.passage.id for hit in index.search("cat")] == ["a"]
    with Index.open(tmp_path / "i.idx", box) as index:
        assert index.verify().ok


def test_blank_and_other_passages_survive_saving_compacting_and_compressing(box, tmp_path):
    index = Index.create(None, box, nbits=4)
    index.add(passages(BLANK) + [Passage(f"p{n}", f"Sentence {n} about ships, harbours and lighthouses.") for n in range(200)])
    index.delete(["p0", "white"])
    index.compact()
    assert index.verify().ok
    index.save(tmp_path / "i.idx")
    with Index.open(tmp_path / "i.idx", box) as saved:
        assert len(saved) == 204
        assert saved.get(["empty"])[0].text == ""
        assert all(hit.passage.id.startswith("p") for hit in saved.search("ships", k=150))
        assert saved.verify().ok
        assert saved.tune(0.5, k=3).recall >= 0.5


def test_vectors_from_elsewhere_are_found_whatever_the_text(box):
    index = Index.create(None, dim=4)
    index.add([Passage("picture", ""), Passage("other", " ")], embeddings=np.eye(4, dtype=np.float32)[:2, None])
    assert [hit.passage.id for hit in index.search(np.eye(4, dtype=np.float32)[:1], k=1)] == ["picture"]


def test_what_an_encoder_made_of_blank_texts_elsewhere_is_not_found_either(box):
    index = Index.create(None, box)
    index.add(passages(BLANK | REAL), embeddings=box.encode_passages([*BLANK.values(), *REAL.values()]))
    assert "empty" not in [hit.passage.id for hit in index.search("pay the bill", k=20)]
    assert index.verify().ok


def test_a_reranker_puts_them_last(box):
    hits = Reranker(box).rank(
        "who wrote Hamlet?", [*passages({"empty": "", "joiner": "\u200b"}), *passages(REAL)], evidence=True
    )
    assert [hit.passage.id for hit in hits][3:] == ["empty", "joiner"]
    assert [(hit.score, hit.relevance, hit.rank) for hit in hits[3:]] == [(0, 0, 4), (0, 0, 5)]
    assert all(hit.relevance > 0 for hit in hits[:3])
    assert all(not hit.evidence.highlights for hit in hits[3:])
    assert len(Reranker(box).rank("who wrote Hamlet?", passages(BLANK | REAL), min_relevance=0.01)) >= 3
    in_batches = Reranker(box).rank("who wrote Hamlet?", [*passages({"empty": ""}), *passages(REAL)], batch_size=1)
    assert [hit.passage.id for hit in in_batches][3:] == ["empty"]


def test_a_model_that_skips_punctuation_never_finds_a_line_of_it(stanford):
    index = Index.create(None, stanford)
    index.add([Passage("rule", "----"), Passage("cat", "the cat sat")])
    assert [hit.passage.id for hit in index.search("on a mat", k=5)] == ["cat"]
    assert index.verify().ok

"""Any order of calls leaves an index as a dictionary would be, and every search as the formula says: in memory, on disk, compressed."""

from __future__ import annotations

import pickle
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from builders.encoders import WordEncoder
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from colbert_core import Index, Passage
from colbert_core.index import writing

WINDOW = 5


class AgainstADictionary(RuleBasedStateMachine):
    """One contract for every kind of index."""

    on_disk = False
    nbits: int | None = None

    names = st.sampled_from([f"id{i}" for i in range(12)])
    texts = st.lists(
        st.sampled_from(["red", "green", "blue", "one", "two", "three", "cat", "dog", "bird", "fish"]), max_size=20
    ).map(" ".join)
    numbers = st.integers(0, 5)

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.encoder = WordEncoder(dim=16, window=WINDOW)
        self.index = Index.create(self.folder / "x.idx" if self.on_disk else None, self.encoder, nbits=self.nbits)
        self.model: dict[str, tuple[str, int]] = {}
        self.copies = 0

    def teardown(self):
        self.index.close()
        shutil.rmtree(self.folder)

    @rule(passages=st.dictionaries(names, st.tuples(texts, numbers), max_size=6))
    def add(self, passages):
        added = self.index.add([Passage(name, text, {"n": n}) for name, (text, n) in passages.items()])
        assert added == list(passages)
        self.model |= passages

    @rule(some=st.lists(names, max_size=8))
    def delete(self, some):
        assert self.index.delete(some) == len(set(some) & set(self.model))
        for name in some:
            self.model.pop(name, None)

    @rule(n=numbers)
    def delete_where(self, n):
        gone = [name for name, (_, number) in self.model.items() if number > n]
        assert self.index.delete_where({"n": {"$gt": n}}) == len(gone)
        for name in gone:
            del self.model[name]

    @rule(n=numbers, some=st.none() | st.lists(names, max_size=8), new=numbers)
    def update_metadata(self, n, some, new):
        chosen = [name for name, (_, number) in self.model.items() if number > n and (some is None or name in some)]
        changed = self.index.update_metadata({"n": new}, where={"n": {"$gt": n}}, ids=some)
        assert changed == sum(self.model[name][1] != new for name in chosen)
        for name in chosen:
            self.model[name] = (self.model[name][0], new)

    @rule(n=st.none() | numbers, limit=st.integers(1, 5))
    def pages(self, n, limit):
        where = None if n is None else {"n": n}
        pages = [self.index.passages(where, limit=limit)]
        while pages[-1].next is not None:
            pages.append(self.index.passages(where, limit=limit, after=pages[-1].next))
        listed = [passage for page in pages for passage in page]
        assert listed == self.index.get(self.index.ids(where)) == self.index.passages(where)
        assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)
        assert sorted(p.id for p in listed) == sorted(name for name, (_, m) in self.model.items() if n in (None, m))
        assert self.index.count(where) == len(listed)

    @rule()
    def compact(self):
        self.index.compact()
        assert self.index.stats().segments <= 1

    @precondition(lambda self: len(self.model) > 6)
    @rule()
    def clear(self):
        self.index.clear()
        self.model = {}

    @rule()
    def open_again(self):
        if self.on_disk:
            self.index.close()
            self.index = Index.open(self.folder / "x.idx", self.encoder)
        else:
            self.index = pickle.loads(pickle.dumps(self.index))

    @rule()
    def save(self):
        self.copies += 1
        self.index.save(self.folder / f"{self.copies}.idx")
        with Index.open(self.folder / f"{self.copies}.idx", self.encoder) as copy:
            assert len(copy) == len(self.model)
            assert copy.verify().problems == []

    @rule()
    def verify(self):
        assert self.index.verify(n_queries=3).problems == []

    @rule(query=texts.filter(bool), k=st.integers(1, 15), n=st.none() | numbers, exact=st.booleans())
    def search(self, query, k, n, exact):
        matrix = self.encoder.encode_queries([query])[0].astype(np.float64)
        names = [name for name, (text, number) in self.model.items() if text and (n is None or number == n)]
        expected = {
            name: max(float((matrix @ window.T.astype(np.float64)).max(axis=1).sum()) for window in windows)
            for name, windows in ((name, self.windows(name)) for name in names)
        }
        hits = self.index.search(query, k=k, where=None if n is None else {"n": n}, exact=exact)
        found = [hit.passage.id for hit in hits]
        assert len(hits) == min(k, len(names)) == len(set(found))
        assert [hit.score for hit in hits] == pytest.approx(sorted(expected.values(), reverse=True)[:k], abs=1e-4)
        for hit in hits:
            assert (hit.passage.text, hit.passage.metadata["n"]) == self.model[hit.passage.id]
            assert hit.score == pytest.approx(expected[hit.passage.id], abs=1e-4)
            assert len(hit.text.split()) <= WINDOW

    def windows(self, name):
        """The vectors of each window, as the index keeps them."""
        n_words = len(self.model[name][0].split())
        (vectors,) = self.index.embeddings([name])
        assert len(vectors) == n_words
        return np.split(vectors, range(WINDOW, n_words, WINDOW))

    @rule(some=st.lists(names, min_size=1, max_size=3, unique=True))
    def keeps_the_vectors(self, some):
        for name in set(some) & set(self.model):
            (vectors,) = self.index.embeddings([name])
            words = self.model[name][0].split()
            expected = np.array([self.encoder.vector(word) for word in words]).reshape(-1, self.encoder.dim)
            assert vectors.shape == expected.shape
            cosines = np.einsum("nd,nd->n", vectors, expected)
            assert cosines.min(initial=1) > (0.9999 if self.index.stats().centroids == 0 else 0.9)

    @invariant()
    def holds_the_same(self):
        assert len(self.index) == len(self.model)
        assert self.index.get(list(self.model)) == [Passage(name, text, {"n": n}) for name, (text, n) in self.model.items()]


class OnDisk(AgainstADictionary):
    on_disk = True


class Compressed(AgainstADictionary):
    on_disk = True
    nbits = 8

    def __init__(self):
        writing.FIRST_FIT = writing.SMALLEST_FIT = 30
        writing._GROWTH = 2
        super().__init__()

    def teardown(self):
        super().teardown()
        writing.FIRST_FIT, writing.SMALLEST_FIT, writing._GROWTH = DEFAULTS


DEFAULTS = writing.FIRST_FIT, writing.SMALLEST_FIT, writing._GROWTH

TestInMemory = AgainstADictionary.TestCase
TestOnDisk = OnDisk.TestCase
TestCompressed = Compressed.TestCase
for case in (TestInMemory, TestOnDisk, TestCompressed):
    case.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
del case  # pytest would run it once more


def test_a_passage_unlike_those_an_index_was_compressed_with_keeps_its_vectors():
    machine = Compressed()
    machine.add(passages={"id0": ("fish", 0), "id2": ("red " * 5, 0)})
    machine.add(passages={"id0": ("red " * 5, 0), "id1": ("red " * 20, 0)})
    assert machine.index.stats().centroids > 0
    machine.add(passages={"id0": ("fish", 0)})
    machine.keeps_the_vectors(some=["id0"])
    machine.teardown()

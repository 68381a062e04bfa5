"""Passages added as a stream: batches, what is in after an error, progress and memory."""

from __future__ import annotations

import numpy as np
import pytest
from builders.indexes import THREE, in_a_process

from colbert_core import (
    Index,
    PartialAddError,
    Passage,
)
from colbert_core.index import batches


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.idx"


def test_a_stream_is_taken_and_committed_in_batches(path, words, monkeypatch):
    monkeypatch.setattr(batches, "_BATCH_PASSAGES", 10)
    index = Index.create(path, words)
    lead = []

    def stream():
        for i in range(95):
            lead.append(i - len(index))
            yield Passage(str(i), f"text {i}")

    assert index.add(stream()) == [str(i) for i in range(95)]
    assert max(lead) < 25
    assert index.stats().generation == 10


def test_an_error_in_the_middle_says_what_is_in(path, words, monkeypatch):
    monkeypatch.setattr(batches, "_BATCH_PASSAGES", 10)
    index = Index.create(path, words)
    with pytest.raises(
        PartialAddError, match="20 passages of this call are in the index, up to '19'; the next ones are not"
    ) as caught:
        index.add(Passage(str(i), "text") if i < 35 else "nonsense" for i in range(50))
    assert caught.value.added == [str(i) for i in range(20)]
    assert isinstance(caught.value.__cause__, TypeError)
    assert len(index) == 20
    with pytest.raises(PartialAddError, match="stand more than once"):
        index.add(Passage(str(i % 12), "text") for i in range(15))
    with pytest.raises(TypeError, match="Item 3"):  # a list is checked before anything is added
        index.add([*THREE, "nonsense"])
    assert "a" not in index


def test_an_interrupted_stream_says_what_is_in(path, words, monkeypatch, interrupt_at):
    monkeypatch.setattr(batches, "_BATCH_PASSAGES", 10)
    index = Index.create(path, words)

    def stream():
        for i in range(40):
            if i == 35:
                raise KeyboardInterrupt
            yield Passage(str(i), "text")

    with pytest.raises(KeyboardInterrupt) as caught:
        index.add(stream())
    assert caught.value.__notes__ == ["20 passages of this call are in the index, up to '19'."]
    assert len(index) == 20


def test_progress_can_be_shown_and_silenced(path, words, monkeypatch, capsys):
    monkeypatch.setattr(batches, "_BATCH_PASSAGES", 10)
    index = Index.create(path, words)
    index.add([Passage(str(i), "text") for i in range(30)], progress=True)
    assert "Indexing" in capsys.readouterr().err
    index.add([Passage(str(i), "text") for i in range(30)], progress=False)
    index.add([Passage(str(i), "text") for i in range(30)])  # standard error is no terminal here
    assert capsys.readouterr().err == ""


def test_memory_while_adding_is_bounded_by_the_batch_and_not_by_the_collection(path):
    """A stream of 160 MB of vectors, uncompressed; what the process holds must not grow with it."""
    out = in_a_process(
        """
        import resource
        rng = np.random.default_rng(0)
        index = Index.create(sys.argv[1], dim=64, nbits=32)
        peaks = []
        def stream():
            for n in range(32 * 1024):
                if n % 1024 == 0:
                    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
                yield Passage(str(n), "text")
        index.add(stream(), embeddings=(rng.standard_normal((20, 64)).astype(np.float32) for _ in range(32 * 1024)))
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
        print(index.stats().vector_bytes // 2**20, peaks[2], peaks[-1])
        """,
        path,
    )
    size, early, late = map(int, out.split())
    assert size >= 150
    assert late - early < size / 2


def test_an_interrupt_after_the_commit_says_that_the_passages_are_in(path, words, interrupt_at):
    index = Index.create(path, words)
    with interrupt_at("collected"), pytest.raises(KeyboardInterrupt) as caught:
        index.add(THREE)
    assert caught.value.__notes__ == ["3 passages of this call are in the index, up to 'c'."]
    assert len(index) == 3


def test_pooling_works_on_vectors_from_elsewhere():
    index = Index.create(None, dim=8)
    index.add([Passage("x", "x")], embeddings=[np.random.default_rng(0).standard_normal((40, 8))], pool_factor=4)
    assert index.stats().tokens == 10

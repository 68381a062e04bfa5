"""Queries as matrices, and token vectors that users give: by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from colbert_core import Passage
from colbert_core.vectors.embeddings import embeddings_of, encode_queries, of_owner, query_matrices, token_ends, vectors_for

TEXTS = ["the cat sat on the mat and slept all day long", "a dog", "fish swim"]


def never():
    raise AssertionError("no text needs the encoder")


def test_texts_and_matrices_keep_their_order_and_texts_are_encoded_together(words, monkeypatch):
    calls = []
    encode = words.encode_queries
    monkeypatch.setattr(words, "encode_queries", lambda texts: calls.append(texts) or encode(texts))
    matrix = np.eye(2, words.dim, dtype=np.float32) * 3
    first, second, third = query_matrices(["a cat", matrix, "a dog"], words.dim, lambda: words)
    assert calls == [["a cat", "a dog"]]
    np.testing.assert_array_equal(first, encode(["a cat"])[0])
    np.testing.assert_array_equal(second, np.eye(2, words.dim, dtype=np.float32))
    np.testing.assert_array_equal(third, encode(["a dog"])[0])


def test_matrices_alone_need_no_encoder_and_are_checked():
    assert query_matrices([np.array([[0, 2]])], 2, never)[0].tolist() == [[0, 1]]
    with pytest.raises(TypeError, match="Query 1 must be a str, or vectors as a NumPy array or a PyTorch tensor, got list"):
        query_matrices([np.ones((1, 2)), [1, 2]], 2, never)
    with pytest.raises(ValueError, match=r"Query 0 must have the shape \(n, 3\)"):
        query_matrices([np.ones((1, 2))], 3, never)


@pytest.mark.parametrize(
    "query",
    [
        [[0, 2], [3, 0]],
        ((0.0, 2.0), (3.0, 0.0)),
        torch.tensor([[0.0, 2.0], [3.0, 0.0]]),
        torch.tensor([[0, 2], [3, 0]]),
        torch.tensor([[0.0, 2.0], [3.0, 0.0]], requires_grad=True),
        torch.tensor([[0.0, 2.0], [3.0, 0.0]], dtype=torch.bfloat16),
        torch.nn.Parameter(torch.tensor([[0.0, 2.0], [3.0, 0.0]], dtype=torch.float16)),
        [torch.tensor([0.0, 2.0]), np.array([3.0, 0.0])],
    ],
    ids=str,
)
def test_vectors_are_taken_as_arrays_tensors_and_lists(query):
    (matrix,) = query_matrices([query], 2, never)
    assert matrix.tolist() == [[0, 1], [1, 0]]
    (windows,) = [vectors_for([Passage("a", "")], [query], 2)([Passage("a", "")])]
    assert windows.vectors.tolist() == [[0, 1], [1, 0]]


def test_a_tensor_that_is_no_matrix_of_numbers_is_named():
    for tensor in (
        torch.ones(2),
        torch.ones(1, 1, 2),
        torch.ones(1, 2, dtype=torch.complex64),
        torch.ones(1, 2, dtype=torch.bool),
    ):
        with pytest.raises(ValueError, match="^Query 0 must"):
            query_matrices([tensor], 2, never)


def test_an_encoder_that_gives_too_few_matrices_is_named(words, monkeypatch):
    monkeypatch.setattr(words, "encode_queries", lambda texts: [])
    with pytest.raises(ValueError, match="query vectors cannot be used: 2 queries gave 0 matrices"):
        encode_queries(words, ["a", "b"])


def test_the_embeddings_of_some_texts_are_those_of_encoding_them_alone(words):
    embeddings = words.encode_passages(TEXTS)
    assert token_ends(embeddings).tolist() == [0, *np.cumsum(embeddings.doclens).tolist()]
    for owner, text in enumerate(TEXTS):
        own, alone = of_owner(embeddings, owner, token_ends(embeddings)), words.encode_passages([text])
        for name in ("vectors", "token_spans", "doclens", "window_spans", "owners"):
            np.testing.assert_array_equal(getattr(own, name), getattr(alone, name))
    chosen, together = embeddings_of(embeddings, [2, 0]), words.encode_passages([TEXTS[2], TEXTS[0]])
    for name in ("vectors", "token_spans", "doclens", "window_spans", "owners"):
        np.testing.assert_array_equal(getattr(chosen, name), getattr(together, name))
    assert embeddings_of(embeddings, []).vectors.shape == (0, words.dim)


def test_given_vectors_are_taken_batch_by_batch_and_none_may_be_left_over():
    passages = [Passage(name, name) for name in "xyz"]
    take = vectors_for(passages, [np.array([[2.0, 0]]), np.array([[0, 3.0], [1, 0]]), np.array([[0, -1.0]])], 2)
    first, second = take(passages[:2]), take(passages[2:])
    assert (first.vectors.tolist(), first.doclens.tolist(), first.owners.tolist()) == ([[1, 0], [0, 1], [1, 0]], [1, 2], [0, 1])
    assert first.window_spans.tolist() == [[0, 1], [0, 1]]
    assert second.vectors.tolist() == [[0, -1]]
    assert len(take([]).vectors) == 0
    more = vectors_for(iter(passages), iter([np.ones((1, 2))] * 2), 2)
    more(passages[:1])
    with pytest.raises(ValueError, match="more embeddings than passages"):
        more([])

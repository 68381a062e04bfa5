"""Encode queries, and take token vectors that users give in place of an encoder's. Checks both."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.text.blank import check_queries, has_no_words, is_blank
from colbert_core.types import Passage, TokenEmbeddings, TokenEncoder
from colbert_core.vectors.maxsim import unit_vectors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from colbert_core.types import Query


def encode_queries(encoder: TokenEncoder, texts: Sequence[str]) -> list[NDArray[np.float32]]:
    """Encode queries and check the matrices, because an encoder of the user's own may be wrong.

    Returns:
        One matrix for each text, *Shape:* (n_q, dim), float32, unit rows.

    Raises:
        ValueError: a text is blank, a matrix cannot be scored, or their number is not that of the texts.
    """
    if all(isinstance(text, str) for text in texts):  # the encoder says what else one is
        check_queries(texts)
    matrices = list(encoder.encode_queries(texts))
    if len(matrices) != len(texts):
        raise ValueError(f"The encoder's query vectors cannot be used: {len(texts)} queries gave {len(matrices)} matrices.")
    for position, matrix in enumerate(matrices):
        shape = getattr(matrix, "shape", None)
        if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or not len(matrix) or matrix.shape[1] != encoder.dim:
            problem = f"must be an array of shape (n, {encoder.dim}) with n >= 1, got {type(matrix).__name__} {shape}"
        elif matrix.dtype != np.float32 or not np.allclose(np.linalg.norm(matrix, axis=1), 1, atol=1e-2):
            problem = f"must be float32 with rows of length 1, got {matrix.dtype} and lengths {np.linalg.norm(matrix, axis=1)}"
        else:
            continue
        raise ValueError(f"The encoder's query vectors cannot be used: those of query {position} {problem:.200}.")
    return matrices


def query_matrices(queries: list[Query], dim: int, encoder: Callable[[], TokenEncoder]) -> list[NDArray[np.float32]]:
    """Turn queries into matrices, in the order given: encode the texts together, scale the rows of matrices to length 1.

    Args:
        queries: texts, or matrices of *Shape:* (n_q, dim): arrays, tensors or lists of lists.
        dim: components of a vector.
        encoder: returns the encoder; is called only if there is a text.

    Returns:
        One matrix for each query, *Shape:* (n_q, dim), float32, unit rows.

    Raises:
        TypeError: a query is neither a text nor a matrix.
        ValueError: a matrix has another dim, or a row that is zero or not finite.
    """
    for position, query in enumerate(queries):
        if not (isinstance(query, str) or _is_matrix(query)):
            raise TypeError(
                f"Query {position} must be a str, or vectors as a NumPy array or a PyTorch tensor, got {type(query).__name__}: "
                f"{query!r:.40}."
            )
    texts = [query for query in queries if isinstance(query, str)]
    encoded = iter(encode_queries(encoder(), texts) if texts else [])
    return [
        next(encoded) if isinstance(query, str) else unit_vectors(query, dim, f"Query {position}")
        for position, query in enumerate(queries)
    ]


def _is_matrix(query: object) -> bool:
    is_list = isinstance(query, list | tuple) and all(
        isinstance(row, list | tuple) or hasattr(row, "__array__") for row in query
    )
    return is_list or (hasattr(query, "__array__") and hasattr(query, "shape"))


def vectors_for(
    passages: Iterable[Passage], embeddings: Iterable[NDArray[np.float32]] | TokenEmbeddings, dim: int
) -> Callable[[list[Passage]], TokenEmbeddings]:
    """Return a function that gives the vectors of the next passages, batch by batch.

    Call it with an empty batch at the end: it makes sure that no embeddings are left over.

    Args:
        passages: all passages; their number is checked at once if it is known.
        embeddings: an array for each passage, *Shape:* (n, dim); or what an encoder made of them.
        dim: components of a vector.

    Raises:
        ValueError: there are more or fewer embeddings than passages, or an array cannot be scored.
    """
    total = len(passages) if isinstance(passages, (list, tuple)) else None
    if isinstance(embeddings, TokenEmbeddings):
        n_texts = int(embeddings.owners[-1]) + 1 if len(embeddings.owners) else 0
        ends = token_ends(embeddings)
        source: Iterator[Any] = (of_owner(embeddings, owner, ends) for owner in range(n_texts))
        given: int | None = n_texts
    else:
        source = iter(embeddings)
        given = len(embeddings) if isinstance(embeddings, (list, tuple, np.ndarray)) else total
    if total is not None and given != total:
        raise ValueError(f"There are {total} passages but embeddings for {given}; give one array for each passage.")

    def take(batch: list[Passage]) -> TokenEmbeddings:
        arrays = list(islice(source, len(batch) or 1))
        if len(arrays) != len(batch):
            fewer = "fewer" if batch else "more"
            raise ValueError(f"There are {fewer} embeddings than passages; give one array for each passage.")
        return _pack(
            [
                vectors
                if isinstance(vectors, TokenEmbeddings)
                else _one_window(passage, unit_vectors(vectors, dim, f"Embeddings of passage {passage.id!r}"))
                for passage, vectors in zip(batch, arrays, strict=True)
            ],
            dim,
        )

    return take


def token_ends(embeddings: TokenEmbeddings) -> NDArray[np.int64]:
    """Return where the tokens of each window end, with a 0 in front. *Shape:* (n_windows + 1,), int64."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(embeddings.doclens, dtype=np.int64)])


def without_blank(embeddings: TokenEmbeddings, texts: Sequence[str]) -> TokenEmbeddings:
    """Leave out the windows of texts that have nothing to read, which would match every query a little.

    Such a text is blank, or of signs that the model has dropped all, such as "----". Its vectors are those of the model's own
    tokens: [CLS] and [SEP] alone had a relevance of .43 to "pay the bill", and four of five sentences about other things less.

    Args:
        embeddings: what an encoder made of the texts.
        texts: one for each owner.
    """
    ends = token_ends(embeddings)
    dropped = [
        owner
        for owner, text in enumerate(texts)
        if has_no_words(text) and (is_blank(text) or not has_text(of_owner(embeddings, owner, ends).token_spans))
    ]
    if not dropped:
        return embeddings
    kept = ~np.isin(embeddings.owners, dropped)
    tokens = np.repeat(kept, embeddings.doclens)
    return TokenEmbeddings(
        embeddings.vectors[tokens],
        embeddings.token_spans[tokens],
        embeddings.doclens[kept],
        embeddings.window_spans[kept],
        embeddings.owners[kept],
    )


def has_text(token_spans: NDArray[np.int32]) -> bool:
    """Whether a vector stands for characters of a text; those of the model's own tokens stand for none.

    Args:
        token_spans: *Shape:* (n_tokens, 2), int32, half-open.
    """
    return bool((token_spans[:, 1] > token_spans[:, 0]).any())


def embeddings_of(embeddings: TokenEmbeddings, owners: Sequence[int]) -> TokenEmbeddings:
    """Return the embeddings of the texts with these numbers, one after the other in the order given."""
    ends = token_ends(embeddings)
    return _pack([of_owner(embeddings, owner, ends) for owner in owners], embeddings.vectors.shape[1])


def of_owner(embeddings: TokenEmbeddings, owner: int, ends: NDArray[np.int64]) -> TokenEmbeddings:
    """Return the embeddings of one text.

    Args:
        embeddings: those of all texts.
        owner: number of the text.
        ends: ``token_ends`` of all embeddings.
    """
    first, last = np.searchsorted(embeddings.owners, [owner, owner + 1]).tolist()
    windows, tokens = slice(first, last), slice(int(ends[first]), int(ends[last]))
    return TokenEmbeddings(
        embeddings.vectors[tokens],
        embeddings.token_spans[tokens],
        embeddings.doclens[windows],
        embeddings.window_spans[windows],
        np.zeros(last - first, np.int32),
    )


def _one_window(passage: Passage, vectors: NDArray[np.float32]) -> TokenEmbeddings:
    spans = np.zeros((len(vectors), 2), np.int32)
    window = np.array([[0, len(passage.text)]], np.int32)
    return TokenEmbeddings(vectors, spans, np.array([len(vectors)], np.int32), window, np.zeros(1, np.int32))


def _pack(texts: list[TokenEmbeddings], dim: int) -> TokenEmbeddings:
    """Put the embeddings of several texts one after the other."""
    if not texts:
        empty, counts = np.empty((0, 2), np.int32), np.empty(0, np.int32)
        return TokenEmbeddings(np.empty((0, dim), np.float32), empty, counts, empty, counts)
    owners = np.repeat(np.arange(len(texts), dtype=np.int32), [len(text.doclens) for text in texts])
    columns = ("vectors", "token_spans", "doclens", "window_spans")
    packed = {name: np.concatenate([getattr(text, name) for text in texts]) for name in columns}
    return TokenEmbeddings(**packed, owners=owners).check(len(texts), dim)

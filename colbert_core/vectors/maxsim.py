"""MaxSim, the score of late interaction, defined once. Tests hold every faster way to compute it equal to this one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

# So many token vectors are scored at a time: 32 query vectors x 32768 of float32 are 4 MB, which fit the second-level cache.
_ROWS_AT_A_TIME = 32768
# With more than a thousand query vectors fewer, so that their cosines take 128 MB at most, where a window has not more itself.
_COSINES_AT_A_TIME = 2**25


def maxsim(
    query: NDArray[np.floating[Any]], vectors: NDArray[np.floating[Any]], doclens: NDArray[np.integer[Any]]
) -> NDArray[np.float32]:
    """Score windows against a query: ``sum_i max_j (query_i . window_j)``.

    ColBERT (Khattab and Zaharia, SIGIR 2020), section 3.3, equation 3. The vectors have length 1, so every term is a cosine.
    The maximum is taken over a window's own vectors only; there is no padding that could win it.

    Args:
        query: *Shape:* (n_q, dim), float32 or float64, unit rows.
        vectors: *Shape:* (n_tokens, dim), the same dtype, unit rows; the windows' vectors one after the other.
        doclens: *Shape:* (n_windows,), the number of vectors of each window, at least 1; they add up to n_tokens.

    Returns:
        *Shape:* (n_windows,), float32, from -n_q to n_q.

    Raises:
        ValueError: the shapes do not fit together, or a window has no vectors.

    Example:
        >>> query = np.array([[1, 0], [0, 1]], np.float32)
        >>> vectors = np.array([[1, 0], [0.6, 0.8], [-1, 0]], np.float32)
        >>> maxsim(query, vectors, np.array([2, 1]))  # 1 + 0.8, -1 + 0
        array([ 1.8, -1. ], dtype=float32)
    """
    if query.ndim != 2 or vectors.ndim != 2 or query.shape[1] != vectors.shape[1]:
        raise ValueError(
            f"Query and passage vectors must be matrices of one dim, got shapes {query.shape} and {vectors.shape}; "
            "encode both with the same model."
        )
    if doclens.ndim != 1 or int(doclens.sum()) != len(vectors):
        raise ValueError(f"doclens {doclens.shape} must add up to the {len(vectors)} vectors, but add up to {doclens.sum()}.")
    if len(doclens) and doclens.min() < 1:
        raise ValueError(f"Window {int(doclens.argmin())} has {doclens.min()} vectors; a window needs at least one.")

    ends = np.cumsum(doclens)  # (n_windows,)
    starts = ends - doclens
    scores = np.empty(len(doclens), np.float32)
    first, n_rows = 0, min(_ROWS_AT_A_TIME, _COSINES_AT_A_TIME // max(len(query), 1))
    while first < len(doclens):
        last = max(first + 1, int(np.searchsorted(ends, starts[first] + n_rows, side="right")))
        similarities = query @ vectors[starts[first] : ends[last - 1]].T  # (n_q, rows)
        best = np.maximum.reduceat(similarities, starts[first:last] - starts[first], axis=1)  # (n_q, windows)
        scores[first:last] = best.sum(axis=0, dtype=np.float32)
        first = last
    return scores


def unit_vectors(values: ArrayLike, dim: int, subject: str) -> NDArray[np.float32]:
    """Check a matrix of vectors that a user gave, and scale its rows to length 1.

    Args:
        values: anything that NumPy reads as an (n, dim) matrix with n >= 1, or a PyTorch tensor, wherever it is, of any
            precision, with a gradient or without.
        dim: components that a row must have.
        subject: what to call the matrix in an error.

    Returns:
        *Shape:* (n, dim), float32, unit rows.

    Raises:
        ValueError: the matrix has another shape, a NaN, an infinity or a row of zeros.
    """
    try:
        given = np.asarray(_at_hand(values))
        if given.dtype.kind not in "fiu":
            raise ValueError(f"their type is {given.dtype}")
        with np.errstate(over="ignore"):
            matrix = given.astype(np.float32)
    except (ValueError, TypeError) as error:  # ragged lists, strings, objects, complex numbers
        raise ValueError(f"{subject} must be real numbers of shape (n, {dim}): {error}.") from None
    if matrix.ndim != 2 or len(matrix) == 0 or matrix.shape[1] != dim:
        raise ValueError(f"{subject} must have the shape (n, {dim}) with n >= 1, got {matrix.shape}; use one row per token.")
    # Divide by the largest component first: the squares of tiny or huge numbers would underflow or overflow.
    largest = np.abs(matrix).max(axis=1, keepdims=True)
    if not np.isfinite(largest).all():
        raise ValueError(f"{subject} has a NaN or infinite component in row {int(np.argmin(np.isfinite(largest)))}.")
    if not largest.all():
        raise ValueError(
            f"{subject} has only zeros in row {int(np.argmin(largest))}; a vector without direction has no cosine."
        )
    matrix = matrix / largest
    unit: NDArray[np.float32] = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    return unit


def _at_hand(values: Any) -> Any:
    """What NumPy can read of a PyTorch tensor; anything else as it is."""
    if not (hasattr(values, "detach") and hasattr(values, "is_floating_point")):
        return values
    tensor = values.detach().cpu()
    return tensor.float() if tensor.is_floating_point() else tensor  # NumPy has no bfloat16

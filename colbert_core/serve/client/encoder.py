"""The encoder of an index that is served, as a ``TokenEncoder`` of this process: texts go out and vectors come back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from colbert_core.progress import progress_bar
from colbert_core.serve.client import calls
from colbert_core.types import TokenEmbeddings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from colbert_core.serve.client.connection import Connection

# Texts of one request; a passage of 200 tokens is half a megabyte of JSON.
_TEXTS = 16


class RemoteEncoder:
    """Encodes by a service, with the characters of every vector.

    Attributes:
        name: of the encoder there.
        dim: components of every vector.
    """

    def __init__(self, connection: Connection, index: str, name: str | None, dim: int) -> None:
        """Use ``Client.encoder``."""
        self._connection, self._index, self.name, self.dim = connection, index, name, dim

    def encode_queries(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """One (n_q, dim) float32 matrix of unit rows for each text."""
        return [
            matrix
            for start in range(0, len(texts), _TEXTS)
            for matrix in self._connection.send(calls.encode_queries(texts[start : start + _TEXTS], self._index))
        ]

    def query_spans(self, text: str) -> NDArray[np.int32]:
        """The characters of each vector of a query. *Shape:* (n_q, 2), int32, half-open."""
        return self._connection.send(calls.query_spans(text, self._index))

    def encode_passages(self, texts: Sequence[str], *, progress: bool | None = None) -> TokenEmbeddings:
        """The packed token vectors of all texts."""
        parts = []
        with progress_bar("Encoding", len(texts), "text", progress) as bar:
            for start in range(0, len(texts), _TEXTS):
                part = texts[start : start + _TEXTS]
                parts.append((start, self._connection.send(calls.encode_passages(part, self._index, self.dim))))
                bar.update(len(part))
        if not parts:
            spans, counts = np.empty((0, 2), np.int32), np.empty(0, np.int32)
            return TokenEmbeddings(np.empty((0, self.dim), np.float32), spans, counts, spans, counts)
        return TokenEmbeddings(
            np.concatenate([each.vectors for _, each in parts]),
            np.concatenate([each.token_spans for _, each in parts]),
            np.concatenate([each.doclens for _, each in parts]),
            np.concatenate([each.window_spans for _, each in parts]),
            np.concatenate([each.owners + np.int32(start) for start, each in parts]),
        )

    def __repr__(self) -> str:
        return f"RemoteEncoder({self.name!r} at {self._connection.address})"

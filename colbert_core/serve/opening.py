"""Open an index wherever it is: in a folder, in one piece or in shards, or at a service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from colbert_core.cluster.layout import is_cluster
from colbert_core.index import opening
from colbert_core.index.index import Index
from colbert_core.paths import as_path

if TYPE_CHECKING:
    from os import PathLike
    from pathlib import Path

    from colbert_core.cluster import ShardedIndex
    from colbert_core.serve.client.sync import Client
    from colbert_core.types import TokenEncoder


def open_index(
    path_or_url: str | PathLike[str], encoder: str | PathLike[str] | TokenEncoder | None = None
) -> Index | ShardedIndex | Client:
    """Open the index in a folder, the one published at an address, or the one at the URL of a service.

    Args:
        path_or_url: a folder, or an address such as "s3://bucket/wiki", as for ``Index.open`` and ``ShardedIndex.open``; or a
            URL, as for ``colbert_core.serve.Client``: "http://127.0.0.1:8080/v1/indexes/wiki". Where the service wants a token,
            make the client yourself.
        encoder: as in ``Index.open``; a service has its own.

    Raises:
        ValueError: there is an encoder for a service, or the URL names no index and several are served.
        ServiceError: the service does not answer as one does.
        StorageError, EncoderMismatchError: as ``Index.open``.
        ClusterError: shards cannot be reached or do not fit together, as ``ShardedIndex.open``.
    """
    if not (isinstance(path_or_url, str) and "://" in path_or_url):
        folder = as_path(path_or_url)
        return _open_shards(folder, encoder) if is_cluster(folder) else Index.open(folder, encoder)
    if not path_or_url.lower().startswith(("http://", "https://")):
        return _open_shards(path_or_url, encoder)
    if encoder is not None:
        raise ValueError(f"The service at {path_or_url} has its own model, so {encoder!r:.80} would not be used; leave it out.")
    from colbert_core.serve.client.sync import Client  # here, because who opens a folder needs none of it

    return Client(path_or_url)


def open_or_create(
    path: str | PathLike[str] | None, encoder: str | PathLike[str] | TokenEncoder | None = None
) -> Index | ShardedIndex:
    """Open the index in a folder, or make an empty one where there is none. Whoever is second opens what the first one made.

    Args:
        path: the folder, of an ``Index`` or a ``ShardedIndex``; None makes an index in memory.
        encoder: as in ``Index.open`` and ``Index.create``.

    Raises:
        IndexExistsError: the path is taken by something else.
        StorageError, EncoderMismatchError, ClusterError: as ``open_index``.
    """
    if path is not None and is_cluster(folder := as_path(path)):
        return _open_shards(folder, encoder)
    return opening.open_or_create(path, encoder)


def _open_shards(place: Path | str, encoder: str | PathLike[str] | TokenEncoder | None) -> ShardedIndex:
    from colbert_core.cluster import ShardedIndex

    return ShardedIndex.open(place, encoder)

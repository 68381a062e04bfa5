"""Open an index wherever it is: in a folder of this machine, or at a service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from colbert_core.index.index import Index

if TYPE_CHECKING:
    from os import PathLike

    from colbert_core.serve.client.sync import Client
    from colbert_core.types import TokenEncoder


def open_index(path_or_url: str | PathLike[str], encoder: str | PathLike[str] | TokenEncoder | None = None) -> Index | Client:
    """Open the index in a folder, or the one at the URL of a service.

    Args:
        path_or_url: a folder, as for ``Index.open``, or a URL, as for ``colbert_core.serve.Client``:
            "http://127.0.0.1:8080/v1/indexes/wiki". Where the service wants a token, make the client yourself.
        encoder: as in ``Index.open``; a service has its own.

    Raises:
        ValueError: there is an encoder for a service, or the URL names no index and several are served.
        ServiceError: the service does not answer as one does.
        StorageError, EncoderMismatchError: as ``Index.open``.
    """
    if not (isinstance(path_or_url, str) and "://" in path_or_url):
        return Index.open(path_or_url, encoder)
    if encoder is not None:
        raise ValueError(f"The service at {path_or_url} has its own model, so {encoder!r:.80} would not be used; leave it out.")
    from colbert_core.serve.client.sync import Client  # here, because who opens a folder needs none of it

    return Client(path_or_url)

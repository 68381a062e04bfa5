"""Give a codec that the parts of one collection share more centroids: a file says what each part is to take."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from colbert_core.errors import ClusterError, DamagedIndexError
from colbert_core.index.compaction import plan_extension, sample_vectors
from colbert_core.index.state import damage_named
from colbert_core.storage.arrays import dump_arrays, load_arrays
from colbert_core.storage.durable import write_bytes
from colbert_core.storage.incoming import check_regular
from colbert_core.vectors.codec import ResidualCodec

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from colbert_core.index.versions import Versions
    from colbert_core.storage.store import Store


@dataclass(frozen=True, eq=False)
class Extension:
    """A codec that takes the place of one with fewer centroids.

    Attributes:
        codec: what ``ResidualCodec.extended`` gave.
        extends: id of the codec whose place it takes, as ``Index.codec_id``.
        tokens: number of vectors of the collection that it was fitted to.
    """

    codec: ResidualCodec
    extends: str
    tokens: int

    @cached_property
    def id(self) -> str:
        """The ``Index.codec_id`` of those that have taken it."""
        return hashlib.sha256(codec_bytes(self.codec)).hexdigest()

    @property
    def added(self) -> int:
        """How many centroids it has more."""
        return len(self.codec.centroids) - self.codec.layers[-1]

    def write(self, path: Path) -> None:
        """Keep it in a file, which is there durably once it is whole."""
        arrays = self.codec.to_arrays()
        arrays["extends"] = np.frombuffer(bytes.fromhex(self.extends), np.uint8)
        arrays["tokens"] = np.array([self.tokens], np.int64)
        write_bytes(path, b"".join(dump_arrays({name: [array] for name, array in arrays.items()})), shared=True)

    @classmethod
    def read(cls, path: Path) -> Extension:
        """Read what ``write`` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            DamagedIndexError: it cannot be understood.
        """
        try:
            check_regular(path)
            arrays = load_arrays(np.frombuffer(path.read_bytes(), np.uint8))
            codec = ResidualCodec.from_arrays(arrays)
            extends, tokens = arrays.get("extends"), arrays.get("tokens")
            if extends is None or extends.dtype != np.uint8 or extends.shape != (32,) or len(codec.layers) < 2:
                raise ValueError("it does not say which codec it extends")
            if tokens is None or tokens.dtype != np.int64 or tokens.shape != (1,) or tokens[0] < 0:
                raise ValueError("it does not say what it was fitted to")
        except ValueError as error:
            raise DamagedIndexError(f"{path} is damaged: {error}; restore the index from a copy.") from None
        return cls(codec, extends.tobytes().hex(), int(tokens[0]))


def codec_bytes(codec: ResidualCodec) -> bytes:
    """The content of a codec's file; its SHA-256 is the codec's id."""
    return b"".join(dump_arrays({name: [array] for name, array in codec.to_arrays().items()}))


def extend_codec(store: Store, versions: Versions, extension: Extension) -> None:
    """Put a codec with more centroids in the place of the one that it extends; nothing to do where that is done.

    Codes and residuals stay as they are, and mean what they meant.

    Raises:
        ClusterError: the index has a third codec.
        IndexLockedError: another writer was busy for long.
    """
    with damage_named(versions.name), store.write() as writer:
        versions.check_identity(writer)
        state = versions.state(writer)
        has = None if state.codec_file is None else state.codec_file.name
        if has == extension.id:
            return
        if has != extension.extends:
            raise ClusterError(
                f"{versions.name} has the codec {'none' if has is None else has[:8]}, and the refit extends "
                f"{extension.extends[:8]}; it is no part of the same collection. Restore it from a copy."
            )
        writer.commit(plan_extension(writer, state, extension.codec))


def sample_of(versions: Versions, n: int) -> NDArray[np.float32]:
    """Vectors of ``n`` live tokens, or of all if there are fewer. *Shape:* (n, dim), float32; (0, 0) if nothing was added."""
    snapshot = versions.read(lambda view: view.state).snapshot
    if not snapshot.parts:
        return np.empty((0, 0), np.float32)
    with damage_named(versions.name):
        return sample_vectors(snapshot, n)

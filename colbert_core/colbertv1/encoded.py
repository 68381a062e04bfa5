"""Encode a collection into token vectors on disk, shard by shard, and score passages over them. Nothing is compressed."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sized
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.checks import check_count, check_passages
from colbert_core.colbertv1.shards import (
    FORMAT,
    MANIFEST,
    PARTS,
    find_missing,
    map_shard,
    name_of,
    read_manifest,
    write_manifest,
)
from colbert_core.errors import (
    DamagedIndexError,
    EncoderMismatchError,
    IndexExistsError,
    IndexNotFoundError,
)
from colbert_core.index.batches import batched
from colbert_core.model.fingerprint import EncoderFingerprint, about_encoder
from colbert_core.paths import as_path
from colbert_core.progress import progress_bar
from colbert_core.storage.aside import is_free
from colbert_core.storage.durable import disk_errors, sha256_of, write_npy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from os import PathLike
    from pathlib import Path

    from numpy.typing import NDArray

    from colbert_core.types import Passage, TokenEncoder

# Passages in a shard, the most that an interruption costs: 350 shards of 450 MB for MS MARCO's passages at dim 128.
_SHARD_PASSAGES = 25_000
# Rounding unit vectors to float16 makes some a thousandth longer; what scores more than this was never one.
_HIGHEST_COSINE = 1.05
# Vectors that are scored at a time.
_SCORED_AT_A_TIME = 2**16


@dataclass(frozen=True, eq=False)
class EncodedCollection:
    """The token vectors of a collection, on disk and mapped into memory. ``encode_collection`` makes it.

    Passages are numbered from 0 in the order in which they were encoded; the number is called row.

    Attributes:
        folder: the folder on disk.
        dim: number of components of a vector.
        encoder_name: name of the encoder that made the vectors.
        shards: the vectors of each shard, in the order they were written. *Shape:* (n_tokens, dim) each, float16, unit rows,
            memory-mapped.
        doclens: number of vectors in each window, at least 1. *Shape:* (n_windows,), int32.
        owners: row of each window's passage, ascending. *Shape:* (n_windows,), int64.
        fingerprint: tells which encoder made the vectors, and loads it.
    """

    folder: Path
    dim: int
    encoder_name: str
    shards: tuple[NDArray[np.float16], ...]
    doclens: NDArray[np.int32]
    owners: NDArray[np.int64]
    fingerprint: EncoderFingerprint
    _ids: NDArray[np.uint8]
    _id_ends: NDArray[np.int64]
    _shard_rows: NDArray[np.int64]  # first row of each shard, then the number of rows
    _window_starts: NDArray[np.int64]  # first token of each window, then the number of tokens
    _row_starts: NDArray[np.int64]  # first window of each row, then the number of windows

    @classmethod
    def open(cls, folder: str | PathLike[str]) -> EncodedCollection:
        """Open a collection that ``encode_collection`` has finished.

        Raises:
            IndexNotFoundError: the folder holds no encoded passages, or encoding has not finished.
            DamagedIndexError: a file is missing, or has not the size that was written.
            UnsupportedIndexError: a newer version of this package wrote them.
        """
        folder = as_path(folder)
        manifest = read_manifest(folder, "encoded collection", "encode_collection")
        if not manifest["complete"]:
            raise IndexNotFoundError(
                f"The encoding of {folder} was interrupted after {len(manifest['shards'])} shards; "
                "call encode_collection with the same passages and encoder to go on."
            )
        return cls._from_manifest(folder, manifest)

    @classmethod
    def _from_manifest(cls, folder: Path, manifest: dict[str, Any]) -> EncodedCollection:
        arrays: dict[str, list[NDArray[Any]]] = {part: [] for part in PARTS}
        for number, shard in enumerate(manifest["shards"]):
            if problem := find_missing(folder, shard):
                raise DamagedIndexError(f"{problem}; restore it from a copy, or call encode_collection again.")
            try:
                of_shard = map_shard(folder, shard, manifest["dim"])
            except (ValueError, OSError) as error:
                raise DamagedIndexError(
                    f"Shard {number} of {folder} is damaged: {error}; restore it from a copy, or call encode_collection again."
                ) from None
            for part, array in of_shard.items():
                arrays[part].append(array)
        n_rows = [shard["passages"] for shard in manifest["shards"]]
        shard_rows = np.concatenate([[0], np.cumsum(n_rows, dtype=np.int64)])
        id_bytes = np.concatenate([[0], np.cumsum([len(part) for part in arrays["ids"]], dtype=np.int64)])
        doclens: NDArray[np.int32] = np.concatenate(arrays["doclens"])
        owners = np.concatenate([part + first for part, first in zip(arrays["owners"], shard_rows[:-1], strict=True)])
        return cls(
            folder,
            manifest["dim"],
            manifest["encoder"]["name"],
            tuple(arrays["vectors"]),
            doclens,
            owners,
            _fingerprint(folder, manifest),
            np.concatenate(arrays["ids"]),
            np.concatenate([part + first for part, first in zip(arrays["id_ends"], id_bytes[:-1], strict=True)]),
            shard_rows,
            np.concatenate([[0], np.cumsum(doclens, dtype=np.int64)]),
            np.searchsorted(owners, np.arange(shard_rows[-1] + 1)),
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Version 0.1.0 pickled the fingerprint as ``provenance``."""
        self.__dict__.update({"fingerprint" if name == "provenance" else name: value for name, value in state.items()})

    def __len__(self) -> int:
        """The number of passages."""
        return int(self._shard_rows[-1])

    @property
    def n_tokens(self) -> int:
        """The number of vectors."""
        return int(self._window_starts[-1])

    def ids_of(self, rows: Iterable[int]) -> list[str]:
        """Return the ids of the passages in these rows."""
        ends = self._id_ends
        try:
            return [self._ids[(ends[row - 1] if row else 0) : ends[row]].tobytes().decode() for row in rows]
        except UnicodeDecodeError as error:
            raise DamagedIndexError(f"{self.folder} is damaged: an id is no UTF-8 ({error}); restore it from a copy.") from None

    def windows_of(self, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the window of each token. *Shape:* (n,) to (n,), int64."""
        return np.searchsorted(self._window_starts, tokens, side="right") - 1

    def score(self, query: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Compute the MaxSim of passages over their own vectors, in float32. A passage has the score of its best window.

        Args:
            query: *Shape:* (n_q, dim), float32, unit rows.
            rows: rows of the passages, ascending. *Shape:* (n,), int64.

        Returns:
            *Shape:* (n,), float32.
        """
        scores: NDArray[np.float32] = self.score_many([query], rows)[0]
        return scores

    def score_many(self, queries: Sequence[NDArray[np.float32]], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Score passages for several queries, reading every vector once. *Shape:* (n_queries, n), float32."""
        scores = np.empty((len(queries), len(rows)), np.float32)
        sizes = self._token_starts(rows + 1) - self._token_starts(rows)
        chunks = (np.cumsum(sizes) - sizes) // _SCORED_AT_A_TIME  # (n,), the chunk that each passage belongs to
        edges = [0, *(np.flatnonzero(np.diff(chunks)) + 1).tolist(), len(rows)]
        for first, last in pairwise(edges):
            scores[:, first:last] = self._score_chunk(queries, rows[first:last])
        return scores

    def verify(self, *, progress: bool | None = None) -> list[str]:
        """Read every file, and describe each that differs from what was written. An empty list means that all is well."""
        manifest = read_manifest(self.folder, "encoded collection", "encode_collection")
        problems = []
        with progress_bar("Verifying", len(manifest["shards"]), "shard", progress) as bar:
            for shard in manifest["shards"]:
                for name, written in shard["files"].items():
                    path = self.folder / name
                    if not path.is_file() or sha256_of(path) != written["sha256"]:
                        problems.append(f"{path} is missing or not what was written")
                bar.update()
        return problems

    def _token_starts(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the first token of each row."""
        return self._window_starts[self._row_starts[rows]]

    def _score_chunk(self, queries: Sequence[NDArray[np.float32]], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Score passages whose vectors fit into memory together."""
        from colbert_core.kernels import float_blocks, instruction_set, scoring  # here, because they compile code

        if not len(rows):
            return np.empty((len(queries), 0), np.float32)
        shards = np.searchsorted(self._shard_rows, rows, side="right") - 1
        shard_starts = self._token_starts(self._shard_rows[shards])
        starts, ends = self._token_starts(rows) - shard_starts, self._token_starts(rows + 1) - shard_starts
        spans = zip(shards.tolist(), starts.tolist(), ends.tolist(), strict=True)
        vectors = np.concatenate([self.shards[number][start:end] for number, start, end in spans]).astype(np.float32)
        n_windows = self._row_starts[rows + 1] - self._row_starts[rows]
        windows = _ranges(self._row_starts[rows], n_windows)
        offsets = np.concatenate([[0], np.cumsum(self.doclens[windows], dtype=np.int64)])
        first_windows = np.cumsum(n_windows) - n_windows  # (n,), of each row, among those scored
        scores = np.empty(len(windows), np.float32)
        best = np.empty((len(queries), len(rows)), np.float32)
        # In the compiled loop a score does not depend on what is scored beside it, so that equal passages tie.
        numbers = np.arange(len(windows), dtype=np.int32)
        for place, query in enumerate(queries):
            scoring.score_floats(instruction_set(), vectors, offsets, numbers, float_blocks(query), scores)
            best[place] = np.maximum.reduceat(scores, first_windows)
            if not (np.abs(best[place]) <= _HIGHEST_COSINE * len(query)).all():  # a NaN is not, either
                raise DamagedIndexError(
                    f"{self.folder} is damaged: a vector is not finite or not of length 1; restore it from a copy."
                )
        return best


def encode_collection(
    passages: Iterable[Passage],
    encoder: TokenEncoder,
    folder: str | PathLike[str],
    *,
    shard_passages: int = _SHARD_PASSAGES,
    n_passages: int | None = None,
    progress: bool | None = None,
) -> EncodedCollection:
    """Write the vectors of passages as float16, shard by shard, in bounded memory.

    After an interruption, call it again with the same passages, encoder and ``shard_passages``: finished shards are kept. The
    files of a shard are plain NumPy files, named ``00000.vectors.npy`` and so on; ``manifest.json`` lists the shards in order,
    with the size and SHA-256 of each file. Texts are not kept. Only one process at a time may write to a folder.

    Args:
        passages: read once, as a stream; their ids must differ.
        encoder: makes the vectors.
        folder: a folder that is new, empty, or that of an earlier call.
        shard_passages: number of passages in a shard, at least 1.
        n_passages: number of passages, for the bar; None if it is not known, or if they are a list.
        progress: show a bar; None shows it on a terminal or in a notebook once a second has passed.

    Raises:
        ValueError: there are no passages, an id comes twice, or the folder holds other passages or shards of another size.
        EncoderMismatchError: the folder holds vectors of another encoder.
        IndexExistsError: the folder holds something else.
        IndexWriteError: the disk is full or failed.
    """
    folder = as_path(folder)
    check_count(shard_passages, "shard_passages")
    manifest = _begin(folder, encoder, shard_passages)
    known: list[dict[str, Any]] = manifest["shards"]
    total = len(passages) if n_passages is None and isinstance(passages, Sized) else n_passages
    source, id_hashes, number = iter(passages), np.empty(0, np.uint64), 0
    with progress_bar("Encoding", total, "passage", progress) as bar:
        while shard := check_passages(islice(source, shard_passages)):
            id_hashes = _add_ids(id_hashes, shard)
            content = _hash_content(shard)
            if number < len(known) and known[number]["content"] != content:
                raise ValueError(
                    f"Shard {number} of {folder} holds other passages than passages {number * shard_passages} and following "
                    "that were given; encode these into another folder, or give the passages that are there."
                )
            if number < len(known) and find_missing(folder, known[number]) is None:
                bar.update(len(shard))
            else:
                if manifest["complete"]:  # it is not, until all shards are there again
                    manifest["complete"] = False
                    write_manifest(folder, manifest)
                about = {**_write_shard(folder, number, shard, encoder, bar.update), "content": content}
                known[number : number + 1] = [about]
                write_manifest(folder, manifest)
            number += 1
    if not number:
        raise ValueError(f"There are no passages to encode into {folder}; give at least one.")
    if number < len(known):
        raise ValueError(
            f"{folder} holds {len(known)} shards, but the passages given end after {number}; "
            "encode these into another folder, or give all passages that are there."
        )
    if not manifest["complete"]:
        manifest["complete"] = True
        write_manifest(folder, manifest)
    return EncodedCollection._from_manifest(folder, manifest)


def _ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Concatenate ``range(start, start + length)`` of each start and length."""
    before = np.cumsum(lengths) - lengths
    ranges: NDArray[np.int64] = np.arange(int(lengths.sum())) + np.repeat(starts - before, lengths)
    return ranges


# Shards


def _begin(folder: Path, encoder: TokenEncoder, shard_passages: int) -> dict[str, Any]:
    """Read the manifest that an earlier call left, or write a new one."""
    if (folder / MANIFEST).exists():
        manifest = read_manifest(folder, "encoded collection", "encode_collection")
        _fingerprint(folder, manifest).check(encoder)
        name = _encoder_name(encoder)
        if manifest["encoder"]["name"] != name:
            raise EncoderMismatchError(
                f"{folder} holds vectors of the encoder {manifest['encoder']['name']!r}, not of {name!r}; "
                "choose another folder, or go on with the one it was begun with."
            )
        if manifest["shard_passages"] != shard_passages:
            raise ValueError(
                f"{folder} has shards of {manifest['shard_passages']} passages, not of {shard_passages}; "
                f"go on with shard_passages={manifest['shard_passages']}, or choose another folder."
            )
        return manifest
    if not is_free(folder):
        raise IndexExistsError(f"There is something else at {folder} already; choose a folder that is new or empty.")
    about = about_encoder(encoder)
    manifest = {
        "format": FORMAT,
        "encoder": json.loads(about["encoder"]),
        "probe": base64.b64encode(about["probe"]).decode(),
        "dim": int(encoder.dim),
        "shard_passages": shard_passages,
        "complete": False,
        "shards": [],
    }
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_manifest(folder, manifest)
    return manifest


def _encoder_name(encoder: TokenEncoder) -> str:
    return str(getattr(encoder, "name", type(encoder).__name__))


def _fingerprint(folder: Path, manifest: dict[str, Any]) -> EncoderFingerprint:
    try:
        probe = base64.b64decode(manifest["probe"])
    except ValueError as error:
        raise DamagedIndexError(f"{folder / MANIFEST} is damaged: its probe is {error}; restore it from a copy.") from None
    about = {"encoder": json.dumps(manifest["encoder"]), "dim": manifest["dim"], "probe": probe}
    return EncoderFingerprint.from_about(about, f"The encoded collection {folder}")


def _add_ids(id_hashes: NDArray[np.uint64], shard: list[Passage]) -> NDArray[np.uint64]:
    """Add the hashes of the ids of a shard to those so far. 8 bytes are kept for each id, and not the id.

    Raises:
        ValueError: an id comes twice.
    """
    hashes = np.array([int.from_bytes(hashlib.sha256(p.id.encode()).digest()[:8]) for p in shard], np.uint64)
    _, firsts = np.unique(hashes, return_index=True)
    repeated = np.isin(hashes, id_hashes)
    if len(firsts) < len(hashes):
        repeated[np.setdiff1d(np.arange(len(hashes)), firsts)] = True
    if repeated.any():
        raise ValueError(f"The id {shard[int(repeated.argmax())].id!r} comes twice among the passages; give each its own.")
    return np.concatenate([id_hashes, hashes])


def _hash_content(shard: list[Passage]) -> str:
    """Hash the ids and texts of a shard."""
    hasher = hashlib.sha256()
    for passage in shard:
        for part in (passage.id.encode(), passage.text.encode()):
            hasher.update(len(part).to_bytes(8, "little") + part)
    return hasher.hexdigest()


def _write_shard(
    folder: Path, number: int, shard: list[Passage], encoder: TokenEncoder, report: Callable[[int], object]
) -> dict[str, Any]:
    """Encode passages and write their files, each whole or not at all.

    Args:
        folder: where to write.
        number: number of the shard.
        shard: its passages.
        encoder: makes the vectors.
        report: is told how many more passages have been encoded.

    Returns:
        The entry of the shard in the manifest.
    """
    doclens, owners, first = [], [], 0

    def encode() -> Iterator[NDArray[np.float16]]:
        nonlocal first
        for batch in batched(shard):
            embeddings = encoder.encode_passages([passage.text for passage in batch], progress=False)
            embeddings.check(len(batch), encoder.dim)
            doclens.append(embeddings.doclens)
            owners.append(embeddings.owners + np.int32(first))
            first += len(batch)
            yield embeddings.vectors.astype(np.float16)
            report(len(batch))

    with disk_errors(folder):
        write_npy(folder / name_of(number, "vectors"), encode(), (encoder.dim,), np.float16)
        ids = [passage.id.encode() for passage in shard]
        arrays = {
            "doclens": np.concatenate(doclens),
            "owners": np.concatenate(owners),
            "ids": np.frombuffer(b"".join(ids), np.uint8),
            "id_ends": np.cumsum([len(name) for name in ids], dtype=np.int64),
        }
        for part, array in arrays.items():
            write_npy(folder / name_of(number, part), [array], (), array.dtype)
        paths = {name: folder / name for name in (name_of(number, part) for part in PARTS)}
        files = {name: {"size": path.stat().st_size, "sha256": sha256_of(path)} for name, path in paths.items()}
    return {
        "number": number,
        "passages": len(shard),
        "windows": len(arrays["doclens"]),
        "tokens": int(arrays["doclens"].sum()),
        "files": files,
    }

"""Retrieval as ColBERTv1 does it: vectors on disk, FAISS to find a query's neighbours, exact scores of what they belong to.

Khattab and Zaharia, "ColBERT" (SIGIR 2020), section 3.5. ``encode_collection`` makes the vectors, ``IVFPQ.build`` puts them
into an IndexIVFPQ, ``IVFPQ.search_many`` asks it for passages and scores these over their own vectors. For everyday
collections ``Index`` is smaller and faster; this is for those who compare with the paper, or have FAISS elsewhere.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import math
import os
import shutil
from collections.abc import Sized
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.connections import disk_errors
from colbert_core.embeddings import query_matrices
from colbert_core.errors import (
    DamagedIndexError,
    EncoderMismatchError,
    IndexExistsError,
    IndexNotFoundError,
    StorageError,
    UnsupportedIndexError,
)
from colbert_core.progress import progress_bar
from colbert_core.provenance import Provenance, about_encoder
from colbert_core.search import best_windows, check_count, check_passages
from colbert_core.threads import get_num_threads, spread

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from os import PathLike

    from numpy.typing import NDArray

    from colbert_core.types import Passage, TokenEncoder

_FORMAT = 1
_MANIFEST = "manifest.json"
_INDEX = "index.faiss"
_TRAINED = "trained.faiss"
# What a shard's files hold; each is a plain .npy.
_PARTS = ("vectors", "doclens", "owners", "ids", "id_ends")

# Passages in a shard, which is what an interruption costs at most: 350 shards of 450 MB for MS MARCO's passages at dim 128.
_SHARD_PASSAGES = 25_000
# Characters that the encoder is given at a time: about 60,000 tokens, 30 MB of float32 at dim 128.
_BATCH_CHARACTERS = 2**18

# nanoColBERT's number of lists for MS MARCO's 600 million tokens.
_MOST_LISTS = 2**15
# FAISS's k-means warns of fewer points for each centroid, and does not look at more.
_LEAST_PER_CENTROID, _MOST_PER_CENTROID = 39, 256
# Vectors that FAISS is given at a time: 134 MB of float32 at dim 128.
_ADDED_AT_A_TIME = 2**18
# nanoColBERT's neighbours of a query vector. Fewer find less also where the collection is small.
_NEIGHBOURS = 1024
# So many passages are scored exactly however small the share.
_LEAST_EXACT = 100
# Vectors scored at a time.
_SCORED_AT_A_TIME = 2**16


@dataclass(frozen=True, eq=False)
class EncodedCollection:
    """The token vectors of a collection, on disk and mapped into memory as they are needed. ``encode_collection`` makes it.

    Attributes:
        folder: where it is.
        dim: components of a vector.
        encoder_name: of the encoder that made the vectors.
        shards: for each shard *Shape:* (n_tokens, dim), float16, memory-mapped, unit rows, in the order they were written.
        doclens: *Shape:* (n_windows,), int32, vectors in each window, at least 1.
        owners: *Shape:* (n_windows,), int64, ascending, the row of each window's passage; rows count from 0.
        provenance: which encoder made them, and how to load it.
    """

    folder: Path
    dim: int
    encoder_name: str
    shards: tuple[NDArray[np.float16], ...]
    doclens: NDArray[np.int32]
    owners: NDArray[np.int64]
    provenance: Provenance
    _ids: NDArray[np.uint8]
    _id_ends: NDArray[np.int64]
    _shard_rows: NDArray[np.int64]  # the first row of each shard, and the number of rows behind
    _window_starts: NDArray[np.int64]  # the first token of each window, and the number of tokens behind
    _row_starts: NDArray[np.int64]  # the first window of each row, and the number of windows behind

    @classmethod
    def open(cls, folder: str | PathLike[str]) -> EncodedCollection:
        """Open what ``encode_collection`` has finished.

        Raises:
            IndexNotFoundError: there are no encoded passages in the folder, or not all of them.
            DamagedIndexError: a file is missing or of another size than was written.
            UnsupportedIndexError: a newer version of this package wrote them.
        """
        folder = Path(folder)
        manifest = _read_manifest(folder, "encoded collection", "encode_collection")
        if not manifest["complete"]:
            raise IndexNotFoundError(
                f"The encoding of {folder} was interrupted after {len(manifest['shards'])} shards; "
                "call encode_collection with the same passages and encoder to go on."
            )
        return cls._from_manifest(folder, manifest)

    @classmethod
    def _from_manifest(cls, folder: Path, manifest: dict[str, Any]) -> EncodedCollection:
        dim, shards = manifest["dim"], manifest["shards"]
        arrays: dict[str, list[NDArray[Any]]] = {part: [] for part in _PARTS}
        for shard in shards:
            if problem := _missing(folder, shard):
                raise DamagedIndexError(f"{problem}; restore it from a copy, or call encode_collection again.")
            for part in _PARTS:
                loaded = np.load(folder / _name(shard["number"], part), mmap_mode="r" if part == "vectors" else None)
                arrays[part].append(np.asarray(loaded))
        n_rows = [shard["passages"] for shard in shards]
        shard_rows = np.concatenate([[0], np.cumsum(n_rows, dtype=np.int64)])
        id_bytes = np.concatenate([[0], np.cumsum([len(part) for part in arrays["ids"]], dtype=np.int64)])
        doclens: NDArray[np.int32] = np.concatenate(arrays["doclens"])
        owners = np.concatenate([part + first for part, first in zip(arrays["owners"], shard_rows[:-1], strict=True)])
        return cls(
            folder,
            dim,
            manifest["encoder"]["name"],
            tuple(arrays["vectors"]),
            doclens,
            owners,
            _provenance(folder, manifest),
            np.concatenate(arrays["ids"]),
            np.concatenate([part + first for part, first in zip(arrays["id_ends"], id_bytes[:-1], strict=True)]),
            shard_rows,
            np.concatenate([[0], np.cumsum(doclens, dtype=np.int64)]),
            np.searchsorted(owners, np.arange(shard_rows[-1] + 1)),
        )

    def __len__(self) -> int:
        """Passages."""
        return int(self._shard_rows[-1])

    @property
    def n_tokens(self) -> int:
        """Vectors."""
        return int(self._window_starts[-1])

    def ids_of(self, rows: Iterable[int]) -> list[str]:
        """The ids of the passages of these rows."""
        ends = self._id_ends
        return [self._ids[(ends[row - 1] if row else 0) : ends[row]].tobytes().decode() for row in rows]

    def windows_of(self, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """The window of each token. *Shape:* (n,) to (n,), int64."""
        return np.searchsorted(self._window_starts, tokens, side="right") - 1

    def score(self, query: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """MaxSim of passages over their own vectors, in float32; of a passage with several windows that of the best.

        Args:
            query: *Shape:* (n_q, dim), float32, unit rows.
            rows: *Shape:* (n,), int64, ascending, which passages.

        Returns:
            *Shape:* (n,), float32.
        """
        scores: NDArray[np.float32] = self.score_many([query], rows)[0]
        return scores

    def score_many(self, queries: Sequence[NDArray[np.float32]], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """``score`` for several queries, for which every vector is read once. *Shape:* (n_queries, n), float32."""
        scores = np.empty((len(queries), len(rows)), np.float32)
        sizes = self._token_starts(rows + 1) - self._token_starts(rows)
        at_a_time = (np.cumsum(sizes) - sizes) // _SCORED_AT_A_TIME
        edges = [0, *(np.flatnonzero(np.diff(at_a_time)) + 1).tolist(), len(rows)]
        for first, last in pairwise(edges):
            scores[:, first:last] = self._scored(queries, rows[first:last])
        return scores

    def verify(self, *, progress: bool | None = None) -> list[str]:
        """Read every file; what differs from what was written, in words. None if all is well."""
        manifest = _read_manifest(self.folder, "encoded collection", "encode_collection")
        problems = []
        with progress_bar("Verifying", len(manifest["shards"]), "shard", progress) as bar:
            for shard in manifest["shards"]:
                for name, known in shard["files"].items():
                    path = self.folder / name
                    if not path.is_file() or _checksum(path) != known["sha256"]:
                        problems.append(f"{path} is missing or not what was written")
                bar.update()
        return problems

    def _token_starts(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._window_starts[self._row_starts[rows]]

    def _scored(self, queries: Sequence[NDArray[np.float32]], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        from colbert_core.kernels import float_blocks, instruction_set, scoring

        if not len(rows):
            return np.empty((len(queries), 0), np.float32)
        numbers = np.searchsorted(self._shard_rows, rows, side="right") - 1
        firsts = self._token_starts(self._shard_rows[numbers])
        starts, ends = self._token_starts(rows) - firsts, self._token_starts(rows + 1) - firsts
        spans = zip(numbers.tolist(), starts.tolist(), ends.tolist(), strict=True)
        vectors = np.concatenate([self.shards[number][start:end] for number, start, end in spans]).astype(np.float32)
        n_windows = self._row_starts[rows + 1] - self._row_starts[rows]
        windows = _ranges(self._row_starts[rows], n_windows)
        offsets = np.concatenate([[0], np.cumsum(self.doclens[windows], dtype=np.int64)])
        firsts_of = np.cumsum(n_windows) - n_windows
        scores = np.empty(len(windows), np.float32)
        best = np.empty((len(queries), len(rows)), np.float32)
        # By the compiled loop, in which a score does not depend on what is scored beside it: equal passages tie.
        numbers = np.arange(len(windows), dtype=np.int32)
        for place, query in enumerate(queries):
            scoring.score_floats(instruction_set(), vectors, offsets, numbers, float_blocks(query), scores)
            best[place] = np.maximum.reduceat(scores, firsts_of)
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
    """Write the vectors of passages as float16, a shard at a time, in bounded memory.

    What is interrupted goes on where it was when it is called again with the same passages, encoder and ``shard_passages``:
    a finished shard is kept. A shard is ``00000.vectors.npy`` and so on, plain NumPy files; ``manifest.json`` says in which
    order they belong together, with sizes and SHA-256. Texts are not kept. One process at a time may write to a folder.

    Args:
        passages: read once, as a stream; their ids must differ.
        encoder: makes the vectors.
        folder: new, empty, or the one of an earlier call.
        shard_passages: passages in a shard, at least 1.
        n_passages: how many there are, for the bar; None where it is not known, or they are a list.
        progress: show a bar; None shows it on a terminal once a second has passed.

    Raises:
        ValueError: there are no passages, an id comes twice, or the folder has other passages or shards of another size.
        EncoderMismatchError: the folder has the vectors of another encoder.
        IndexExistsError: there is something else in the folder.
        IndexWriteError: the disk is full or failed.
    """
    folder = Path(folder)
    check_count(shard_passages, "shard_passages")
    manifest = _begun(folder, encoder, shard_passages)
    known: list[dict[str, Any]] = manifest["shards"]
    total = len(passages) if n_passages is None and isinstance(passages, Sized) else n_passages
    source, seen, number = iter(passages), np.empty(0, np.uint64), 0
    with progress_bar("Encoding", total, "passage", progress) as bar:
        while shard := check_passages(islice(source, shard_passages)):
            seen = _with_ids(seen, shard)
            content = _content(shard)
            if number < len(known) and known[number]["content"] != content:
                raise ValueError(
                    f"Shard {number} of {folder} holds other passages than passages {number * shard_passages} and following "
                    "that were given; encode these into another folder, or give the passages that are there."
                )
            if number < len(known) and _missing(folder, known[number]) is None:
                bar.update(len(shard))
            else:
                if manifest["complete"]:  # no longer, until all shards are there
                    manifest["complete"] = False
                    _write_json(folder / _MANIFEST, manifest)
                about = {**_write_shard(folder, number, shard, encoder, bar.update), "content": content}
                known[number : number + 1] = [about]
                _write_json(folder / _MANIFEST, manifest)
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
        _write_json(folder / _MANIFEST, manifest)
    return EncodedCollection._from_manifest(folder, manifest)


class IVFPQ:
    """An IndexIVFPQ over the vectors of an encoded collection.

    Example:
        >>> encoded = encode_collection(passages, Encoder.from_pretrained(), "vectors")
        >>> index = IVFPQ.build("vectors", "ivfpq")
        >>> index.search_many(["What animation studio did Miyazaki found?"], k=10)[0][0]
        ('7186', 27.4)
    """

    def __init__(self, index: Any, encoded: EncodedCollection, encoder: TokenEncoder | None) -> None:
        """``build`` and ``open`` are the doors."""
        self._index = index
        self._encoder = encoder
        self.encoded = encoded
        if encoder is not None:
            encoded.provenance.check(encoder)

    @classmethod
    def build(
        cls,
        embeddings: str | PathLike[str],
        folder: str | PathLike[str],
        *,
        nlist: int | None = None,
        m: int = 16,
        nbits: int = 8,
        sample: float = 0.3,
        seed: int = 12345,
        progress: bool | None = None,
    ) -> IVFPQ:
        """Train an IndexIVFPQ on a sample of the vectors, and add all of them, shard by shard.

        The sample is drawn without replacement, and is never more than the 256 vectors for each list that FAISS would look at.
        When the call is interrupted and made again with the same settings, the training is kept.

        Args:
            embeddings: the folder of an encoded collection. The index refers to it, and searches need it.
            folder: the folder to make; it is there only once everything is in.
            nlist: inverted lists; None for ``count_lists``, which is 32,768 for MS MARCO.
            m: bytes of a vector at 8 bits: the parts it is cut into. They divide dim.
            nbits: of a part's code, 1 to 8.
            sample: share of the vectors to train on, above 0, at most 1; more if FAISS needs more.
            seed: of the sample and of k-means.
            progress: show a bar; None shows it on a terminal once a second has passed.

        Raises:
            ValueError: a setting is out of range, or there are too few vectors for it.
            IndexNotFoundError: there is no encoded collection, or it is not finished.
            IndexExistsError: there is something at the folder.
            IndexWriteError: the disk is full or failed.
        """
        import faiss  # here, so that importing the package does not wait for it

        folder, encoded = Path(folder), EncodedCollection.open(embeddings)
        if folder.exists():
            raise IndexExistsError(f"There is something at {folder} already; choose another path, or remove it.")
        nlist = count_lists(encoded.n_tokens) if nlist is None else nlist
        _check_settings(encoded, nlist, m, nbits, sample)
        manifest = {
            "format": _FORMAT,
            "embeddings": os.path.relpath(encoded.folder.resolve(), folder.resolve()),  # ".." of a link is its target's
            "embeddings_sha256": _checksum(encoded.folder / _MANIFEST),
            "settings": {"nlist": nlist, "m": m, "nbits": nbits, "sample": sample, "seed": seed},
        }
        work = folder.absolute().with_name(f".{folder.name}.unfinished")
        with disk_errors(folder), _faiss_threads(get_num_threads()):
            index = _trained(work, manifest, encoded)
            with progress_bar("Adding", encoded.n_tokens, "vector", progress) as bar:
                for vectors in encoded.shards:
                    for start in range(0, len(vectors), _ADDED_AT_A_TIME):
                        some = vectors[start : start + _ADDED_AT_A_TIME].astype(np.float32)
                        index.add(some)
                        bar.update(len(some))
            faiss.write_index(index, str(work / _INDEX))
            _sync_file(work / _INDEX)
            size, sha256 = (work / _INDEX).stat().st_size, _checksum(work / _INDEX)
            _write_json(work / _MANIFEST, {**manifest, "size": size, "sha256": sha256})
            (work / _TRAINED).unlink()
            work.rename(folder)
        return cls(index, encoded, None)

    @classmethod
    def open(
        cls,
        folder: str | PathLike[str],
        encoder: str | PathLike[str] | TokenEncoder | None = None,
        *,
        embeddings: str | PathLike[str] | None = None,
    ) -> IVFPQ:
        """Open an index that ``build`` made.

        Args:
            folder: of the index.
            encoder: a checkpoint's name or folder, or a loaded encoder; None for the one that made the vectors, which is
                then loaded when it is first needed.
            embeddings: the folder of the vectors, if it is no longer where it was, seen from the index's folder.

        Raises:
            IndexNotFoundError: there is no index, or its vectors are not where they were.
            DamagedIndexError: a file is cut short or damaged, or the vectors are others.
            UnsupportedIndexError: a newer version of this package wrote it.
            EncoderMismatchError: the encoder is not the one that made the vectors.
        """
        import faiss

        folder = Path(folder)
        manifest = _read_manifest(folder, "IVFPQ index", "IVFPQ.build")
        encoded = EncodedCollection.open(folder / manifest["embeddings"] if embeddings is None else embeddings)
        if _checksum(encoded.folder / _MANIFEST) != manifest["embeddings_sha256"]:
            raise DamagedIndexError(
                f"{encoded.folder} holds other vectors than the index {folder} was built of; build it again, or name the "
                "folder of its vectors (embeddings=)."
            )
        path = folder / _INDEX
        if not path.is_file() or path.stat().st_size != manifest["size"]:
            raise DamagedIndexError(f"{path} is missing or cut short, {manifest['size']} bytes were written; build it again.")
        if encoder is not None:
            from colbert_core.encoder import as_encoder  # here, because it imports torch

            encoder = as_encoder(encoder)
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise DamagedIndexError(f"{path} cannot be read ({error}); build it again.") from error
        return cls(index, encoded, encoder)

    @property
    def encoder(self) -> TokenEncoder:
        """What encodes queries, loaded now if it has not been.

        Raises:
            EncoderMismatchError: it cannot be loaded, or is another one now.
        """
        if self._encoder is None:
            self._encoder = self.encoded.provenance.load()
        return self._encoder

    def __len__(self) -> int:
        return len(self.encoded)

    def search_many(
        self,
        queries: Sequence[str | NDArray[np.float32]],
        k: int = 10,
        *,
        nprobe: int = 32,
        n_neighbours: int = _NEIGHBOURS,
        max_share: float = 0.1,
    ) -> list[list[tuple[str, float]]]:
        """The best passages for each query, in ColBERT's two stages (SIGIR 2020, section 3.5). One thread searches one query.

        The nearest vectors of each query vector are looked up, approximately; the passages they belong to are scored exactly
        over all their float16 vectors, in float32. When the neighbours belong to more passages than may be scored, those with
        the best approximate scores are: the sum over query vectors of the best cosine that was found for the passage, or the
        worst that was found at all.

        Args:
            queries: texts, or for each query *Shape:* (n_q, dim), real numbers. A text longer than the model reads is cut.
            k: most passages for each query, at least 1.
            nprobe: lists that are read for each query vector, at least 1.
            n_neighbours: vectors that are looked up for each query vector, at least 1.
            max_share: at most this part of all passages is scored exactly for each query, but k and 100 may be in any case;
                above 0, at most 1.

        Returns:
            For each query (id, score), best first; equal scores by id. Fewer than k if the neighbours belong to fewer.

        Raises:
            TypeError: queries is no list, or a query is neither a text nor an array.
            ValueError: a number is out of range, or a query is blank or of another dim.
            EncoderMismatchError: there are texts, and the encoder cannot be loaded.
        """
        k, nprobe = check_count(k, "k"), check_count(nprobe, "nprobe", "lists")
        n_neighbours = min(check_count(n_neighbours, "n_neighbours", "vectors"), self.encoded.n_tokens)
        n_exact = max(k, _LEAST_EXACT, int(_share(max_share, "max_share") * len(self.encoded)))
        matrices = self._matrices(queries)

        def ranked(query: NDArray[np.float32]) -> list[tuple[str, float]]:
            distances, tokens = self._neighbours(query, nprobe, n_neighbours)
            rows = _candidates(self.encoded, distances, tokens, n_exact)
            return _best(self.encoded, rows, self.encoded.score(query, rows), k)

        return spread(ranked, matrices)

    def _neighbours(self, vectors: NDArray[np.float32], nprobe: int, n: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Squared distances and tokens, *Shape:* (n_q, n) each; -1 where there are no more."""
        import faiss

        settings: Any = faiss.SearchParametersIVF
        with _faiss_threads(1):  # of its own for each query; so little work would be mostly waiting for each other
            distances, tokens = self._index.search(vectors, n, params=settings(nprobe=nprobe))
        return distances, tokens

    def _matrices(self, queries: Sequence[str | NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        if isinstance(queries, str | np.ndarray):
            raise TypeError(f"queries must be a list, got one {type(queries).__name__}; write [query].")
        return query_matrices(list(queries), self.encoded.dim, lambda: self.encoder)

    def __repr__(self) -> str:
        return f"IVFPQ({str(self.encoded.folder)!r}, {len(self)} passages, {self._index.nlist} lists)"


def count_lists(n_tokens: int) -> int:
    """How many inverted lists suit a collection: ``4 sqrt(n_tokens)``, with at least 39 vectors for each, at most 32,768.

    32,768 is what nanoColBERT gives MS MARCO's 600 million tokens.
    """
    return max(1, min(_MOST_LISTS, int(4 * math.sqrt(n_tokens)), n_tokens // _LEAST_PER_CENTROID))


def sample_size(n_tokens: int, n_centroids: int, share: float) -> int:
    """How many vectors to train on: a share of them, but no fewer than FAISS asks for, and no more than it looks at.

    Args:
        n_tokens: vectors that there are.
        n_centroids: of the largest k-means.
        share: above 0, at most 1.
    """
    least, most = _LEAST_PER_CENTROID * n_centroids, _MOST_PER_CENTROID * n_centroids
    return min(n_tokens, most, max(math.ceil(share * n_tokens), least))


def is_built(folder: str | PathLike[str], embeddings: str | PathLike[str]) -> bool:
    """Whether a folder holds a whole IVFPQ index of these vectors as they are now."""
    folder = Path(folder)
    try:
        manifest = _read_manifest(folder, "IVFPQ index", "IVFPQ.build")
        is_whole = (folder / _INDEX).stat().st_size == manifest["size"]
        return is_whole and bool(manifest["embeddings_sha256"] == _checksum(Path(embeddings) / _MANIFEST))
    except (StorageError, OSError):
        return False


# Search


def _candidates(
    encoded: EncodedCollection, distances: NDArray[np.float32], tokens: NDArray[np.int64], n: int
) -> NDArray[np.int64]:
    """The rows of the passages that the neighbours belong to, the ``n`` best by what is known of them. Ascending.

    Args:
        encoded: whose tokens they are.
        distances: *Shape:* (n_q, n_neighbours), float32, squared.
        tokens: *Shape:* (n_q, n_neighbours), int64; -1 for none.
        n: most passages.
    """
    query_rows, places = np.nonzero(tokens >= 0)
    if not len(query_rows):
        return np.empty(0, np.int64)
    cosines = 1 - distances[query_rows, places] / 2  # |a - b|^2 = 2 - 2 cos of unit vectors
    windows, columns = np.unique(encoded.windows_of(tokens[query_rows, places]), return_inverse=True)
    rows = encoded.owners[windows]
    if np.count_nonzero(np.diff(rows)) >= n:
        # What a window lacks counts as the worst that its query vector found, so only what is better than that adds up.
        worst = np.full(len(tokens), np.inf, np.float32)
        np.minimum.at(worst, query_rows, cosines)
        gains = np.zeros((len(tokens), len(windows)), np.float32)  # (n_q, n_windows)
        np.maximum.at(gains, (query_rows, columns), cosines - worst[query_rows])
        rows, approximate, _ = best_windows(gains.sum(axis=0), rows)
        rows = np.sort(rows[np.argsort(-approximate, kind="stable")[:n]])
    found: NDArray[np.int64] = np.unique(rows)
    return found


def _best(encoded: EncodedCollection, rows: NDArray[np.int64], scores: NDArray[np.float32], k: int) -> list[tuple[str, float]]:
    """The ids and scores of the k best, equal ones by id."""
    if len(rows) > k:
        kept = scores >= np.partition(scores, len(scores) - k)[len(scores) - k]  # all that tie with the k-th as well
        rows, scores = rows[kept], scores[kept]
    pairs = zip(encoded.ids_of(rows.tolist()), scores.tolist(), strict=True)
    return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))[:k]


def _ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """``range(start, start + length)`` of each, one after the other."""
    before = np.cumsum(lengths) - lengths
    found: NDArray[np.int64] = np.arange(int(lengths.sum())) + np.repeat(starts - before, lengths)
    return found


@contextlib.contextmanager
def _faiss_threads(n: int) -> Iterator[None]:
    """FAISS uses so many threads when this one calls it; as many as before when the block ends."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(n)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


# Building


def _check_settings(encoded: EncodedCollection, nlist: int, m: int, nbits: int, sample: float) -> None:
    check_count(nlist, "nlist", "lists")
    check_count(m, "m", "parts")
    _share(sample, "sample")
    if encoded.dim % m:
        divisors = [n for n in range(1, encoded.dim + 1) if encoded.dim % n == 0]
        raise ValueError(f"m must divide dim, got m={m} and dim {encoded.dim}; use one of {', '.join(map(str, divisors))}.")
    if check_count(nbits, "nbits", "bits") > 8:
        raise ValueError(f"nbits must be from 1 to 8, got {nbits}.")
    if encoded.n_tokens < max(nlist, 2**nbits):
        raise ValueError(
            f"{encoded.folder} holds {encoded.n_tokens} vectors, too few for nlist={nlist} lists and the {2**nbits} codes of "
            f"nbits={nbits}; use at most {encoded.n_tokens} lists and nbits={int(math.log2(encoded.n_tokens)) or 1}, "
            "or an Index, which scores few vectors exactly."
        )


def _trained(work: Path, manifest: dict[str, Any], encoded: EncodedCollection) -> Any:
    """A trained index without vectors, kept in ``work`` until the index is finished."""
    import faiss

    with contextlib.suppress(OSError, ValueError, RuntimeError):  # FAISS's errors of a file cut short are RuntimeErrors
        if json.loads((work / _MANIFEST).read_text(encoding="utf-8")) == manifest:
            return faiss.read_index(str(work / _TRAINED))
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    settings = manifest["settings"]
    index = faiss.IndexIVFPQ(faiss.IndexFlatL2(encoded.dim), encoded.dim, settings["nlist"], settings["m"], settings["nbits"])
    n = sample_size(encoded.n_tokens, max(settings["nlist"], 2 ** settings["nbits"]), settings["sample"])
    for clustering in (index.cp, index.pq.cp):
        clustering.seed = settings["seed"]
        clustering.min_points_per_centroid = 1  # a small collection has no more, and FAISS writes to standard error of it
    index.train(_sampled(encoded, n, settings["seed"]))
    faiss.write_index(index, str(work / _TRAINED))
    _sync_file(work / _TRAINED)
    _write_json(work / _MANIFEST, manifest)
    return index


def _sampled(encoded: EncodedCollection, n: int, seed: int) -> NDArray[np.float32]:
    """So many different vectors of the collection, *Shape:* (n, dim), float32, read shard by shard in their order."""
    random = np.random.default_rng(seed)
    counts = random.multivariate_hypergeometric([len(vectors) for vectors in encoded.shards], n, method="marginals")
    sample = np.empty((n, encoded.dim), np.float32)
    at = 0
    for vectors, count in zip(encoded.shards, counts.tolist(), strict=True):
        chosen = np.sort(random.choice(len(vectors), count, replace=False, shuffle=False))
        sample[at : at + count] = vectors[chosen]
        at += count
    return sample


def _share(value: float, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise ValueError(f"{name} must be above 0 and at most 1, got {value!r}.")
    return value


# Shards


def _begun(folder: Path, encoder: TokenEncoder, shard_passages: int) -> dict[str, Any]:
    """The manifest of the folder as an earlier call left it, or a new one."""
    if (folder / _MANIFEST).exists():
        manifest = _read_manifest(folder, "encoded collection", "encode_collection")
        _provenance(folder, manifest).check(encoder)
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
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise IndexExistsError(f"There is something else at {folder} already; choose a folder that is new or empty.")
    about = about_encoder(encoder)
    manifest = {
        "format": _FORMAT,
        "encoder": json.loads(about["encoder"]),
        "probe": base64.b64encode(about["probe"]).decode(),
        "dim": int(encoder.dim),
        "shard_passages": shard_passages,
        "complete": False,
        "shards": [],
    }
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / _MANIFEST, manifest)
    return manifest


def _encoder_name(encoder: TokenEncoder) -> str:
    return str(getattr(encoder, "name", type(encoder).__name__))


def _provenance(folder: Path, manifest: dict[str, Any]) -> Provenance:
    about = {"encoder": json.dumps(manifest["encoder"]), "dim": manifest["dim"], "probe": base64.b64decode(manifest["probe"])}
    return Provenance.from_about(about, f"The encoded collection {folder}")


def _with_ids(seen: NDArray[np.uint64], shard: list[Passage]) -> NDArray[np.uint64]:
    """The hashes of the ids so far and of these, none of which may have been there: 8 bytes for each id, not the id."""
    hashes = np.array([int.from_bytes(hashlib.sha256(p.id.encode()).digest()[:8]) for p in shard], np.uint64)
    _, firsts = np.unique(hashes, return_index=True)
    again = np.isin(hashes, seen)
    if len(firsts) < len(hashes):
        again[np.setdiff1d(np.arange(len(hashes)), firsts)] = True
    if again.any():
        raise ValueError(f"The id {shard[int(again.argmax())].id!r} comes twice among the passages; give each its own.")
    return np.concatenate([seen, hashes])


def _content(shard: list[Passage]) -> str:
    hasher = hashlib.sha256()
    for passage in shard:
        for part in (passage.id.encode(), passage.text.encode()):
            hasher.update(len(part).to_bytes(8, "little") + part)
    return hasher.hexdigest()


def _write_shard(folder: Path, number: int, shard: list[Passage], encoder: TokenEncoder, encoded: Any) -> dict[str, Any]:
    """Encode passages and write their files, each whole or not at all; what the manifest says of them."""
    doclens, owners, first = [], [], 0

    def batches() -> Iterator[NDArray[np.float16]]:
        nonlocal first
        for batch in _batches(shard):
            embeddings = encoder.encode_passages([passage.text for passage in batch], progress=False)
            embeddings.check(len(batch), encoder.dim)
            doclens.append(embeddings.doclens)
            owners.append(embeddings.owners + np.int32(first))
            first += len(batch)
            yield embeddings.vectors.astype(np.float16)
            encoded(len(batch))

    with disk_errors(folder):
        _write_npy(folder / _name(number, "vectors"), batches(), (encoder.dim,), np.float16)
        ids = [passage.id.encode() for passage in shard]
        small = {
            "doclens": np.concatenate(doclens),
            "owners": np.concatenate(owners),
            "ids": np.frombuffer(b"".join(ids), np.uint8),
            "id_ends": np.cumsum([len(name) for name in ids], dtype=np.int64),
        }
        for part, array in small.items():
            _write_npy(folder / _name(number, part), [array], (), array.dtype)
        paths = {name: folder / name for name in (_name(number, part) for part in _PARTS)}
        files = {name: {"size": path.stat().st_size, "sha256": _checksum(path)} for name, path in paths.items()}
    return {
        "number": number,
        "passages": len(shard),
        "windows": len(small["doclens"]),
        "tokens": int(small["doclens"].sum()),
        "files": files,
    }


def _batches(shard: list[Passage]) -> Iterator[list[Passage]]:
    batch: list[Passage] = []
    characters = 0
    for passage in shard:
        batch.append(passage)
        characters += len(passage.text)
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _name(number: int, part: str) -> str:
    return f"{number:05d}.{part}.npy"


def _missing(folder: Path, shard: dict[str, Any]) -> str | None:
    """Which file of a shard is not there in its full size, in words."""
    for name, known in shard["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != known["size"]:
            return f"{path} is missing or cut short, {known['size']} bytes were written"
    return None


# Files


def _write_npy(path: Path, parts: Iterable[NDArray[Any]], row: tuple[int, ...], dtype: Any) -> None:
    """One array in parts that are never in memory together. NumPy leaves room in the header for the number of rows."""

    def header(n: int) -> dict[str, Any]:
        return {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": (n, *row)}

    with _replaced(path) as unfinished, unfinished.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header(0))
        start, n = file.tell(), 0
        for part in parts:
            file.write(np.ascontiguousarray(part).data.cast("B") if part.size else b"")
            n += len(part)
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, header(n))
        assert file.tell() == start


def _write_json(path: Path, value: dict[str, Any]) -> None:
    with disk_errors(path), _replaced(path) as unfinished:
        unfinished.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


@contextlib.contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of ``path`` when the block ends, and is removed if it fails.

    Always the same, so that what a killed process has left there is written over.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        yield unfinished
        _sync_file(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_manifest(folder: Path, what: str, maker: str) -> dict[str, Any]:
    """What the folder says of itself.

    Raises:
        IndexNotFoundError: it says nothing.
        UnsupportedIndexError: it says so in another way.
        DamagedIndexError: it cannot be read.
    """
    path = folder / _MANIFEST
    if not path.is_file():
        raise IndexNotFoundError(f"There is no {what} in {folder}: {_MANIFEST} is missing; make one with {maker}.")
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        number = manifest["format"]
    except (ValueError, TypeError, KeyError) as error:
        raise DamagedIndexError(f"{path} is damaged ({error!r}); restore it from a copy.") from None
    wanted = "shards" if what == "encoded collection" else "embeddings"
    if number != _FORMAT or wanted not in manifest:
        raise UnsupportedIndexError(f"{path} is of no {what} that this version reads (format {number!r}, not {_FORMAT}).")
    return manifest

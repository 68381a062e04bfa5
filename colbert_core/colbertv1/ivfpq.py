"""Retrieval as ColBERTv1 does it: FAISS finds neighbours of the query's vectors, whose passages are scored exactly.

Khattab and Zaharia, "ColBERT" (SIGIR 2020), section 3.5. ``encode_collection`` writes vectors to disk, ``IVFPQ.build`` puts
them into an IndexIVFPQ, and ``IVFPQ.search_many`` asks it for passages and scores these over their own vectors. Use this to
compare with the paper, or if you use FAISS elsewhere; for everyday collections ``Index`` is smaller and faster.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.checks import check_count
from colbert_core.colbertv1.encoded import EncodedCollection
from colbert_core.colbertv1.faiss_file import check_faiss_file
from colbert_core.colbertv1.shards import FORMAT, MANIFEST, read_manifest, write_manifest
from colbert_core.errors import DamagedIndexError, IndexExistsError, StorageError
from colbert_core.model.fingerprint import LazyEncoder
from colbert_core.paths import as_path
from colbert_core.progress import progress_bar
from colbert_core.search.ranking import best_windows
from colbert_core.storage.aside import folder_begun, is_free
from colbert_core.storage.durable import disk_errors, put_in_place, sha256_of, sync_file
from colbert_core.threads import get_num_threads, openmp_threads, spread
from colbert_core.vectors.embeddings import query_matrices

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from os import PathLike
    from pathlib import Path

    from numpy.typing import NDArray

    from colbert_core.types import TokenEncoder

_INDEX = "index.faiss"
_TRAINED = "trained.faiss"

# nanoColBERT's number of lists for MS MARCO's 600 million tokens.
_MOST_LISTS = 2**15
# FAISS's k-means warns of fewer vectors for each centroid than the first, and looks at no more than the second.
_LEAST_PER_CENTROID, _MOST_PER_CENTROID = 39, 256
# Vectors that FAISS is given at a time: 134 MB of float32 at dim 128.
_ADDED_AT_A_TIME = 2**18
# nanoColBERT's number of neighbours of a query vector. With fewer, less is found even in a small collection.
_NEIGHBOURS = 1024
# At least so many passages are scored exactly, however small the share.
_LEAST_EXACT = 100


class IVFPQ:
    """An IndexIVFPQ over the vectors of an encoded collection.

    Example:
        >>> encoded = encode_collection(passages, Encoder.from_pretrained(), "vectors")
        >>> index = IVFPQ.build("vectors", "ivfpq")
        >>> index.search_many(["What animation studio did Miyazaki found?"], k=10)[0][0]
        ('7186', 27.4)
    """

    def __init__(self, index: Any, encoded: EncodedCollection, encoder: TokenEncoder | None) -> None:
        """Use ``build`` or ``open``."""
        self._index = index
        self.encoded = encoded
        self._encoder = LazyEncoder(encoded.fingerprint, encoder)

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
        """Train an IndexIVFPQ on a sample of the vectors, and add all vectors, shard by shard.

        The sample is drawn without replacement. It has at most 256 vectors for each list, since FAISS looks at no more. When
        the call is interrupted and made again with the same settings, the training is kept.

        Args:
            embeddings: the folder of an encoded collection. The index refers to it, and searches need it.
            folder: the folder to make. It appears when the index is complete.
            nlist: number of inverted lists; None for ``count_lists``, which is 32,768 for MS MARCO.
            m: number of parts that a vector is cut into, which are its bytes at 8 bits. It must divide dim.
            nbits: number of bits of a part's code, 1 to 8.
            sample: share of the vectors to train on, above 0, at most 1. More are taken if FAISS needs more.
            seed: seed of the sample and of k-means.
            progress: show a bar; None shows it on a terminal or in a notebook once a second has passed.

        Raises:
            TypeError: a number of lists, parts or bits is no whole number.
            ValueError: a setting is out of range, or there are too few vectors for it.
            IndexNotFoundError: there is no encoded collection, or its encoding has not finished.
            IndexExistsError: there is something at the folder.
            IndexWriteError: the disk is full or failed.
        """
        import faiss  # here, so that importing the package does not wait for it

        folder, encoded = as_path(folder), EncodedCollection.open(embeddings)
        if not is_free(folder):
            raise IndexExistsError(f"There is something at {folder} already; choose another path, or remove it.")
        nlist = count_lists(encoded.n_tokens) if nlist is None else nlist
        _check_settings(encoded, nlist, m, nbits, sample)
        manifest = {
            "format": FORMAT,
            "embeddings": os.path.relpath(encoded.folder.resolve(), folder.resolve()),  # ".." of a link is its target's
            "embeddings_sha256": sha256_of(encoded.folder / MANIFEST),
            "settings": {"nlist": nlist, "m": m, "nbits": nbits, "sample": sample, "seed": seed},
        }
        with disk_errors(folder), _faiss_threads(openmp_threads(get_num_threads())):
            work = folder_begun(folder)
            index = _train(work, manifest, encoded)
            with progress_bar("Adding", encoded.n_tokens, "vector", progress) as bar:
                for vectors in encoded.shards:
                    for start in range(0, len(vectors), _ADDED_AT_A_TIME):
                        chunk = vectors[start : start + _ADDED_AT_A_TIME].astype(np.float32)
                        index.add(chunk)
                        bar.update(len(chunk))
            faiss.write_index(index, str(work / _INDEX))
            size, sha256 = (work / _INDEX).stat().st_size, sha256_of(work / _INDEX)
            write_manifest(work, {**manifest, "size": size, "sha256": sha256})
            (work / _TRAINED).unlink()
            put_in_place(work, folder)
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
            folder: folder of the index.
            encoder: a checkpoint's name or folder, or a loaded encoder; None for the one that made the vectors, which is
                then loaded when it is first needed.
            embeddings: folder of the vectors, if its path relative to the index's folder has changed.

        Raises:
            IndexNotFoundError: there is no index, or its vectors are not where they were.
            DamagedIndexError: a file is cut short or damaged, or the folder holds other vectors.
            UnsupportedIndexError: a newer version of this package wrote it.
            EncoderMismatchError: the encoder is not the one that made the vectors.
        """
        import faiss  # here, so that importing the package does not wait for it

        folder = as_path(folder)
        manifest = read_manifest(folder, "IVFPQ index", "IVFPQ.build")
        encoded = EncodedCollection.open(folder / manifest["embeddings"] if embeddings is None else embeddings)
        if sha256_of(encoded.folder / MANIFEST) != manifest["embeddings_sha256"]:
            raise DamagedIndexError(
                f"{encoded.folder} holds other vectors than the index {folder} was built of; build it again, or name the "
                "folder of its vectors (embeddings=)."
            )
        path = folder / _INDEX
        if not path.is_file() or path.stat().st_size != manifest["size"]:
            raise DamagedIndexError(f"{path} is missing or cut short, {manifest['size']} bytes were written; build it again.")
        if encoder is not None:
            from colbert_core.model.encoder import as_encoder  # here, because it imports torch

            encoder = as_encoder(encoder)
        try:
            settings = {name: manifest["settings"][name] for name in ("nlist", "m", "nbits")}
            check_faiss_file(path, dim=encoded.dim, n_tokens=encoded.n_tokens, **settings)
            index = faiss.read_index(str(path))
        except (RuntimeError, ValueError) as error:
            raise DamagedIndexError(f"{path} cannot be read ({error}); build it again.") from error
        return cls(index, encoded, encoder)

    @property
    def encoder(self) -> TokenEncoder:
        """What encodes queries; loaded at first use where the index was opened without one.

        Raises:
            EncoderMismatchError: it cannot be loaded, or is another one now.
        """
        return self._encoder.get()

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
        """Find the best passages for each query, in ColBERT's two stages (SIGIR 2020, section 3.5).

        First FAISS looks up approximate neighbours of each query vector. Then the passages of these neighbours are scored
        exactly, over all their float16 vectors, in float32. If these are more passages than may be scored, those with the best
        approximate scores are taken. An approximate score is a sum over query vectors: the best cosine that was found in the
        passage, or, if none was, the worst cosine that was found at all. Each query is searched by one thread.

        Args:
            queries: texts, or for each query *Shape:* (n_q, dim), real numbers. A text longer than the model reads is cut.
            k: most passages for each query, at least 1.
            nprobe: number of lists that are read for each query vector, at least 1.
            n_neighbours: number of neighbours that are looked up for each query vector, at least 1.
            max_share: share of all passages that may be scored exactly for each query, above 0, at most 1. At least k and at
                least 100 passages may be scored, however small the share.

        Returns:
            For each query pairs of id and score, best first; equal scores by id. Fewer than k if the neighbours belong to
            fewer passages.

        Raises:
            TypeError: queries is no list, a query is neither a text nor an array, or a count is no whole number.
            ValueError: a number is out of range, or a query is blank or of another dim.
            EncoderMismatchError: there are texts, and the encoder cannot be loaded.
        """
        k, nprobe = check_count(k, "k"), check_count(nprobe, "nprobe", "lists")
        n_neighbours = min(check_count(n_neighbours, "n_neighbours", "vectors"), self.encoded.n_tokens)
        n_exact = max(k, _LEAST_EXACT, int(_check_share(max_share, "max_share") * len(self.encoded)))
        matrices = self._matrices(queries)

        def search(query: NDArray[np.float32]) -> list[tuple[str, float]]:
            distances, tokens = self._neighbours(query, nprobe, n_neighbours)
            rows = _candidates(self.encoded, distances, tokens, n_exact)
            return _best(self.encoded, rows, self.encoded.score(query, rows), k)

        return spread(search, matrices)

    def _neighbours(self, vectors: NDArray[np.float32], nprobe: int, n: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Look up squared distances and tokens, *Shape:* (n_q, n) each; token -1 where FAISS found no more."""
        import faiss  # here, so that importing the package does not wait for it

        settings: Any = faiss.SearchParametersIVF
        with _faiss_threads(1):  # several threads would mostly wait for each other over so little work
            distances, tokens = self._index.search(vectors, n, params=settings(nprobe=nprobe))
        return distances, tokens

    def _matrices(self, queries: Sequence[str | NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        if isinstance(queries, str | np.ndarray):
            raise TypeError(f"queries must be a list, got one {type(queries).__name__}; write [query].")
        return query_matrices(list(queries), self.encoded.dim, lambda: self.encoder)

    def __getstate__(self) -> dict[str, Any]:
        """Pickled with the encoder, if there is one, and without the lock beside it."""
        return {**self.__dict__, "_encoder": self._encoder.loaded}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = {**state, "_encoder": LazyEncoder(state["encoded"].fingerprint, state["_encoder"])}

    def __repr__(self) -> str:
        return f"IVFPQ({str(self.encoded.folder)!r}, {len(self)} passages, {self._index.nlist} lists)"


def count_lists(n_tokens: int) -> int:
    """Choose the number of inverted lists: ``4 sqrt(n_tokens)``, at most one for 39 vectors, and at most 32,768.

    32,768 is what nanoColBERT gives MS MARCO's 600 million tokens.
    """
    return max(1, min(_MOST_LISTS, int(4 * math.sqrt(n_tokens)), n_tokens // _LEAST_PER_CENTROID))


def sample_size(n_tokens: int, n_centroids: int, share: float) -> int:
    """Choose the number of vectors to train on: a share, but no fewer than FAISS asks for, and no more than it looks at.

    Args:
        n_tokens: number of vectors in the collection.
        n_centroids: number of centroids of the largest k-means.
        share: share of the vectors, above 0, at most 1.
    """
    least, most = _LEAST_PER_CENTROID * n_centroids, _MOST_PER_CENTROID * n_centroids
    return min(n_tokens, most, max(math.ceil(share * n_tokens), least))


def is_built(folder: str | PathLike[str], embeddings: str | PathLike[str]) -> bool:
    """Tell whether a folder holds a whole IVFPQ index of these vectors as they are now."""
    folder = as_path(folder)
    try:
        manifest = read_manifest(folder, "IVFPQ index", "IVFPQ.build")
        is_whole = (folder / _INDEX).stat().st_size == manifest["size"]
        return is_whole and bool(manifest["embeddings_sha256"] == sha256_of(as_path(embeddings) / MANIFEST))
    except (StorageError, OSError):
        return False


# Search


def _candidates(
    encoded: EncodedCollection, distances: NDArray[np.float32], tokens: NDArray[np.int64], n: int
) -> NDArray[np.int64]:
    """Return the rows of the passages that the neighbours belong to, ascending; of more than ``n``, the best by the neighbours.

    Args:
        encoded: collection of the tokens.
        distances: squared distances. *Shape:* (n_q, n_neighbours), float32.
        tokens: neighbours; -1 for none. *Shape:* (n_q, n_neighbours), int64.
        n: most passages.
    """
    query_rows, places = np.nonzero(tokens >= 0)
    if not len(query_rows):
        return np.empty(0, np.int64)
    cosines = 1 - distances[query_rows, places] / 2  # |a - b|^2 = 2 - 2 cos of unit vectors
    windows, columns = np.unique(encoded.windows_of(tokens[query_rows, places]), return_inverse=True)
    rows = encoded.owners[windows]
    if np.count_nonzero(np.diff(rows)) >= n:
        # A window without a neighbour of a query vector counts as the vector's worst one, so only what is better adds up.
        worst = np.full(len(tokens), np.inf, np.float32)
        np.minimum.at(worst, query_rows, cosines)
        gains = np.zeros((len(tokens), len(windows)), np.float32)  # (n_q, n_windows)
        np.maximum.at(gains, (query_rows, columns), cosines - worst[query_rows])
        rows, approximate, _ = best_windows(gains.sum(axis=0), rows)
        rows = np.sort(rows[np.argsort(-approximate, kind="stable")[:n]])
    candidates: NDArray[np.int64] = np.unique(rows)
    return candidates


def _best(encoded: EncodedCollection, rows: NDArray[np.int64], scores: NDArray[np.float32], k: int) -> list[tuple[str, float]]:
    """Return ids and scores of the k best passages, equal scores by id."""
    if len(rows) > k:
        kept = scores >= np.partition(scores, len(scores) - k)[len(scores) - k]  # all that tie with the k-th as well
        rows, scores = rows[kept], scores[kept]
    pairs = zip(encoded.ids_of(rows.tolist()), scores.tolist(), strict=True)
    return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))[:k]


@contextlib.contextmanager
def _faiss_threads(n: int) -> Iterator[None]:
    """Let FAISS use ``n`` threads when this thread calls it, until the block ends."""
    import faiss  # here, so that importing the package does not wait for it

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
    _check_share(sample, "sample")
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


def _train(work: Path, manifest: dict[str, Any], encoded: EncodedCollection) -> Any:
    """Train an index without vectors, and keep it in ``work``; or read the one that an interrupted call kept there."""
    import faiss  # here, so that importing the package does not wait for it

    with contextlib.suppress(OSError, ValueError, RuntimeError):  # FAISS's errors of a file cut short are RuntimeErrors
        if json.loads((work / MANIFEST).read_text(encoding="utf-8")) == manifest:
            return faiss.read_index(str(work / _TRAINED))
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(exist_ok=True)
    settings = manifest["settings"]
    index = faiss.IndexIVFPQ(faiss.IndexFlatL2(encoded.dim), encoded.dim, settings["nlist"], settings["m"], settings["nbits"])
    n_sampled = sample_size(encoded.n_tokens, max(settings["nlist"], 2 ** settings["nbits"]), settings["sample"])
    for clustering in (index.cp, index.pq.cp):
        clustering.seed = settings["seed"]
        clustering.min_points_per_centroid = 1  # else FAISS complains of small collections on standard error
    index.train(_sample(encoded, n_sampled, settings["seed"]))
    faiss.write_index(index, str(work / _TRAINED))
    sync_file(work / _TRAINED)
    write_manifest(work, manifest)
    return index


def _sample(encoded: EncodedCollection, n: int, seed: int) -> NDArray[np.float32]:
    """Draw different vectors of the collection, in their order. *Shape:* (n, dim), float32."""
    random = np.random.default_rng(seed)
    counts = random.multivariate_hypergeometric([len(vectors) for vectors in encoded.shards], n, method="marginals")
    sample = np.empty((n, encoded.dim), np.float32)
    at = 0
    for vectors, count in zip(encoded.shards, counts.tolist(), strict=True):
        chosen = np.sort(random.choice(len(vectors), count, replace=False, shuffle=False))
        sample[at : at + count] = vectors[chosen]
        at += count
    return sample


def _check_share(value: float, name: str) -> float:
    """Return a share that is above 0 and at most 1.

    Raises:
        ValueError: it is no such number.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise ValueError(f"{name} must be above 0 and at most 1, got {value!r}.")
    return value

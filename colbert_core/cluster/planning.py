"""What a collection will need: bytes, hours and milliseconds, on one machine or several. Needs neither Ray nor a collection."""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from colbert_core.checks import check_count
from colbert_core.index.index import Index
from colbert_core.threads import get_num_threads, set_num_threads
from colbert_core.types import Passage
from colbert_core.vectors.codec import NBITS, ResidualCodec, count_centroids, row_bytes, sample_size
from colbert_core.vectors.pooling import check_factor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from colbert_core.types import TokenEncoder

# Bytes of a compressed token beside its residual: its code and its length 2 each, and 2.7 in the inverted lists. With a codec
# of 8,192 centroids, 2.7 million tokens of 26,000 passages took 71.5 bytes each at 4 bits and dim 128.
_CODE_AND_LENGTH = 4
_LISTS = 2.7
# Bytes of a window's row, span and length, and of a passage in SQLite beside its text.
_WINDOW = 20
_PASSAGE = 150
_TEXT = 5.0  # bytes of a token's text; MS MARCO's passages have 4.9
# Memory of a process: Python, NumPy, Numba's kernels and Ray's worker. Measured were 350 to 380 MB beside the vectors.
_PROCESS = 350e6
_QUERY_VECTORS = 32
_LARGEST_SHARD = 1e6  # passages, from where on a search takes longer than is pleasant
# A vector is compressed by looking at groups of centroids first, which k-means does not do: with 400,000 vectors and 16,384
# centroids it took 7.7 s.
_K_MEANS_PASSES = 24
# What ``measured_rates`` does, and the seconds that it takes on the machines of ``Rates``.
_DIM, _RANDOM_PASSAGES = 128, 2**14
_COMPRESSION, _SEARCH = 6.2e-6, 0.73e-3


@dataclass(frozen=True)
class Rates:
    """How fast one core of a machine is.

    The defaults were measured on an x86-64 with AVX-512 VNNI, the model in the box in float32, dim 128, 4 bits: building 26,000
    and 104,000 Wikipedia passages of 104 tokens, searching those and copies of them up to a million (``benchmarks/encode.py``,
    ``benchmarks/build.py`` and ``benchmarks/scale.py``). Compressing is of an Intel Xeon with AMX, measured later, and so
    is ``scatter``, Ray's calls to one or two shards on two cores: 3 to 4 ms.

    Attributes:
        encode: tokens of passages that the model encodes in a second.
        compress: seconds to compress and write a token, whatever the number of centroids.
        per_centroid: seconds for each centroid that a token is compared with.
        search: milliseconds that every search takes, whatever the size of the collection.
        per_million: milliseconds more for each million passages.
        scatter: milliseconds to ask several shards and to merge what they found.
    """

    encode: float = 4350
    compress: float = 6.2e-6
    per_centroid: float = 0.05e-9
    search: float = 3.0
    per_million: float = 18.0
    scatter: float = 3.0


@dataclass(frozen=True)
class Plan:
    """What a collection needs.

    Attributes:
        passages: number of passages.
        tokens: number of tokens of all passages, which are encoded.
        vectors: number of vectors that are kept of them.
        nbits: bits per component of a vector.
        nodes: number of machines.
        cores: number of cores of each machine.
        shards: number of shards, the same on each machine.
        centroids: number of centroids of the codec that the shards share; 0 for vectors that are kept as they are.
        vector_bytes: size of codec, codes, residuals and lists, or of the vectors themselves; searches want them in memory.
        disk_bytes: the same, with texts.
        memory_bytes: ``vector_bytes`` and a process for each shard, or for each core where there are fewer.
        build_hours: time to encode, compress and write everything with all cores.
        latency_ms: time of one query of 32 vectors, its encoding included, on idle machines.
    """

    passages: int
    tokens: int
    vectors: int
    nbits: int
    nodes: int
    cores: int
    shards: int
    centroids: int
    vector_bytes: float
    disk_bytes: float
    memory_bytes: float
    build_hours: float
    latency_ms: float

    def shares(self, memory: float, hours: float = 24, latency: float = 200) -> dict[str, float]:
        """What share the plan takes of what there is, the largest first: what is above 1 is what breaks first.

        Args:
            memory: bytes of each machine.
            hours: how long a build may take.
            latency: milliseconds that a query may take.

        Raises:
            ValueError: one of them is not above 0.
        """
        for name, value in (("memory", memory), ("hours", hours), ("latency", latency)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be a number above 0, got {value:g}.")
        shares = {
            "memory": self.memory_bytes / self.nodes / memory,
            "build": self.build_hours / hours,
            "search": self.latency_ms / latency,
        }
        return dict(sorted(shares.items(), key=lambda item: -item[1]))


def plan(
    passages: float,
    tokens_per_passage: float,
    *,
    dim: int = 128,
    nbits: int = 4,
    pool_factor: float = 1,
    nodes: int = 1,
    cores: int = 8,
    shards: int | None = None,
    rates: Rates | None = None,
) -> Plan:
    """Estimate what a collection will need.

    Args:
        passages: number of passages, at least 1; may be a float such as 8.8e6.
        tokens_per_passage: vectors that the model makes of a passage, at least 1; MS MARCO's have 68.
        dim: components of a vector.
        nbits: bits per component, 1, 2, 4, 8, or 32 for vectors that are kept as they are.
        pool_factor: about 1 / pool_factor of the vectors of a passage are kept.
        nodes: number of machines.
        cores: number of cores of each machine.
        shards: number of shards; None for as many as keep each at a million passages, if there are cores for them, the same on
            every node.
        rates: how fast a core is; None for the machine that this was measured on.

    Raises:
        ValueError: a number is out of range.
    """
    if not 1 <= passages <= 1e12 or not 1 <= tokens_per_passage <= 1e6:
        raise ValueError(f"A plan is for 1 to 1e12 passages of 1 to 1e6 tokens, got {passages:g} of {tokens_per_passage:g}.")
    if nbits not in (*NBITS, 32):
        raise ValueError(f"nbits must be 1, 2, 4, 8, or 32 for uncompressed vectors, got {nbits!r}.")
    for name, value in {"dim": dim, "nodes": nodes, "cores": cores, "shards": 1 if shards is None else shards}.items():
        check_count(value, name, name)
    rates = rates or Rates()
    n_passages, tokens = round(passages), round(passages * tokens_per_passage)
    if shards is None:
        shards = nodes * min(cores, math.ceil(n_passages / nodes / _LARGEST_SHARD))
    vectors = round(tokens / check_factor(pool_factor))
    if nbits == 32:
        centroids, vector_bytes = 0, float(vectors * dim * 4)
    else:
        centroids = count_centroids(vectors)
        per_token = row_bytes(dim, nbits) + _CODE_AND_LENGTH + _LISTS
        vector_bytes = vectors * per_token + shards * centroids * dim * 2 + n_passages * dim  # a byte a component for its shift
    vector_bytes += n_passages * _WINDOW
    seconds = tokens / rates.encode + vectors * (rates.compress + rates.per_centroid * centroids)
    k_means = _K_MEANS_PASSES * sample_size(centroids) * centroids * rates.per_centroid  # by one machine
    in_turn = math.ceil(shards / nodes / cores)
    search = in_turn * (rates.search + rates.per_million * n_passages / shards / 1e6)
    return Plan(
        passages=n_passages,
        tokens=tokens,
        vectors=vectors,
        nbits=nbits,
        nodes=nodes,
        cores=cores,
        shards=shards,
        centroids=centroids,
        vector_bytes=vector_bytes,
        disk_bytes=vector_bytes + n_passages * _PASSAGE + tokens * _TEXT,
        memory_bytes=vector_bytes + min(shards, nodes * cores) * _PROCESS,
        build_hours=(seconds / nodes + k_means) / cores / 3600,
        latency_ms=1000 * _QUERY_VECTORS / rates.encode + search + (rates.scatter if shards > 1 else 0),
    )


def measured_rates(encoder: TokenEncoder, texts: Sequence[str]) -> Rates:
    """Measure the rates of one core of this machine, by its processor time; it takes some ten seconds.

    Encoding is measured as it is. Compressing and searching would need the collection, so the same work on random vectors is
    timed, and compared with the machine that the defaults come from.

    Args:
        encoder: the model that will encode.
        texts: passages such as those to come, a hundred or so.
    """
    threads = get_num_threads()
    set_num_threads(1)
    try:
        encoder.encode_passages(texts[:4], progress=False)  # what happens once should not count
        seconds = _seconds(lambda: encoder.encode_passages(texts, progress=False))
        encode = len(encoder.encode_passages(texts, progress=False).vectors) / seconds
        slower, searching = _compression() / _COMPRESSION, _search() / _SEARCH
    finally:
        set_num_threads(threads)
    usual = Rates()
    return replace(
        usual,
        encode=encode,
        compress=usual.compress * slower,
        per_centroid=usual.per_centroid * slower,
        search=usual.search * searching,
        per_million=usual.per_million * searching,
    )


def _compression() -> float:
    """Seconds to compress a random vector with a codec of 8,192 centroids."""
    vectors = _random(2**13, seed=0)
    codec = ResidualCodec(_random(2**13, seed=1), np.linspace(-0.2, 0.2, 16, dtype=np.float32))
    codec.compress(vectors[:64])  # compiles what it needs
    return float(np.median([_seconds(lambda: codec.compress(vectors)) for _ in range(5)])) / len(vectors)


def _search() -> float:
    """Seconds of a search for 10 of 16,384 passages of 24 random vectors."""
    per_passage, n_passages = 24, _RANDOM_PASSAGES
    vectors = _random(n_passages * per_passage, seed=2).reshape(n_passages, per_passage, -1)
    with tempfile.TemporaryDirectory(prefix="colbert-") as folder, Index.create(Path(folder) / "index", dim=_DIM) as index:
        passages = [Passage(str(number), "") for number in range(n_passages)]
        index.add(passages, embeddings=list(vectors), progress=False)
        index.compact(progress=False)
        queries = [np.resize(vectors[number], (_QUERY_VECTORS, _DIM)) for number in range(51)]
        index.search(queries.pop())
        return float(np.median([_seconds(partial(index.search, query)) for query in queries]))


def _random(n: int, seed: int) -> NDArray[np.float32]:
    """Random directions. *Shape:* (n, 128), float32."""
    vectors = np.random.default_rng(seed).standard_normal((n, _DIM), np.float32)
    unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _seconds(work: Callable[[], object]) -> float:
    """Processor time, which does not grow with what else the machine does."""
    start = time.process_time()
    work()
    return time.process_time() - start

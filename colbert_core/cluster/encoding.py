"""What each machine of a cluster does to build shards: encode batches of passages, and put those of a shard into an index.

A batch is compressed where it is encoded, and kept as the arrays of a segment. So a shard is written without the model being
asked again, and holds the same whoever encoded what, and in which order.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections import Counter, deque
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.checks import check_ids
from colbert_core.cluster.layout import Layout
from colbert_core.cluster.nodes import Work, check_version, load_ray, share, version
from colbert_core.cluster.staging import read_batch, read_sample
from colbert_core.errors import DamagedIndexError, IndexExistsError
from colbert_core.index.batches import batched
from colbert_core.index.compaction import compress
from colbert_core.index.extension import codec_bytes
from colbert_core.index.index import Index
from colbert_core.model.fingerprint import loaded_encoder
from colbert_core.storage.arrays import dump_arrays, load_arrays
from colbert_core.storage.durable import write_bytes, written_aside
from colbert_core.storage.incoming import check_regular
from colbert_core.storage.store import made_aside
from colbert_core.threads import set_num_threads
from colbert_core.vectors.codec import ResidualCodec, count_centroids, sample_size
from colbert_core.vectors.embeddings import without_blank
from colbert_core.vectors.pooling import pool_embeddings
from colbert_core.vectors.segment import Segment, as_segment, merged_arrays

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import Literal

    from numpy.typing import NDArray

    from colbert_core.cluster.staging import Batch, Model
    from colbert_core.types import Passage, TokenEmbeddings, TokenEncoder

    Words = str | Literal[False] | None
    Give = Callable[..., Iterator[tuple[Work, Any]]]

# The first of the sampled passages tell how long passages are.
_FIRST_SAMPLED = 2**10
# Sampled passages that a worker encodes at a time.
_PIECE = 2**8
_SEED = 12345


class Worker:
    """Encodes passages with a model of its own, and writes shards; a Ray actor."""

    def __init__(
        self, folder: Path, nbits: int, words: Words, pool_factor: float, encoder: Model, of_driver: str, num_cpus: float
    ) -> None:
        self._layout, self._nbits, self._of_driver, self._num_cpus = Layout(folder), nbits, of_driver, num_cpus
        self._words, self._pool_factor = words, pool_factor
        self._given = encoder
        self._loaded: TokenEncoder | None = None
        self._read: ResidualCodec | None = None

    @property
    def _encoder(self) -> TokenEncoder:
        """The model. It is not loaded with the actor: an error would come out as the actor's death."""
        if self._loaded is None:
            check_version(self._of_driver, version(), load_ray().util.get_node_ip_address())
            set_num_threads(max(1, int(self._num_cpus)))
            self._loaded = loaded_encoder(self._given)
        return self._loaded

    @property
    def _codec(self) -> ResidualCodec | None:
        """The codec of all shards, None where vectors are kept as they are; it is there before the first batch."""
        if self._read is None and self._nbits != 32:
            self._read = load_codec(self._layout)
        return self._read

    def about(self) -> str:
        """Load the model, and say where it is: the node's address and the number of the process."""
        _ = self._encoder
        return f"{load_ray().util.get_node_ip_address()}, process {os.getpid()}"

    def check(self, batches: Sequence[Batch]) -> None:
        """Check that every id of a shard stands once; two that are equal have the same shard.

        Raises:
            ValueError: one stands twice.
        """
        check_ids(Counter(passage.id for batch in batches for passage in read_batch(self._layout, batch)))

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        """Encode some texts, and pool their vectors. *Shape:* (n_tokens, dim), float32."""
        return self._encoded(texts).vectors

    def _encoded(self, texts: list[str]) -> TokenEmbeddings:
        encoded = self._encoder.encode_passages(texts, progress=False).check(len(texts), self._encoder.dim)
        return pool_embeddings(encoded, self._pool_factor)

    def encode_batch(self, batch: Batch) -> int:
        """Encode and compress a batch; its file is there once it is whole.

        Returns:
            How many tokens it has.
        """
        parts, first = [], 0
        for passages in batched(read_batch(self._layout, batch)):  # so that few vectors are in memory as they are
            parts.append(self._segment(passages, first))
            first += len(passages)
        arrays = merged_arrays([(part, np.ones(len(part.pids), np.bool_)) for part in parts])
        with (
            written_aside(self._layout.batch(batch.shard, batch.number), shared=True) as unfinished,
            unfinished.open("wb") as file,
        ):
            file.writelines(dump_arrays(arrays))
        return sum(part.n_tokens for part in parts)

    def _segment(self, passages: list[Passage], first: int) -> Segment:
        texts = [passage.text for passage in passages]
        segment = as_segment(without_blank(self._encoded(texts), texts))
        return compress(replace(segment, pids=segment.pids + first), self._codec)

    def write(self, shard: int, batches: Sequence[Batch]) -> None:
        """Write the index of a shard, whose batches are all encoded; its folder is there once it is whole."""
        layout, codec = self._layout, self._codec
        with (
            contextlib.suppress(IndexExistsError),  # somebody who was taken for dead has finished it
            made_aside(layout.shard(shard)) as aside,
            Index.create(aside, self._encoder, nbits=self._nbits, codec=codec, words=self._words) as index,
        ):
            for batch in batches:
                windows = load_batch(layout, batch, self._encoder.dim, codec)
                index._put_windows(list(read_batch(layout, batch)), windows)


@contextlib.contextmanager
def use_workers(ray: Any, n: int, arguments: tuple[Any, ...], *, timeout: float, **resources: float) -> Iterator[Give]:
    """Start so many actors, and end them with the block. Ray starts one again that dies; ``share`` hands its work on.

    Args:
        ray: connected.
        n: how many.
        arguments: of each ``Worker``.
        timeout: seconds to wait when there is no worker at all.
        resources: that each of them takes.

    Yields:
        ``share`` among these workers.
    """
    remote = ray.remote(Worker).options(max_restarts=-1, max_task_retries=0, scheduling_strategy="SPREAD", **resources)
    workers = [remote.remote(*arguments) for _ in range(n)]
    try:
        yield partial(share, ray, workers, timeout=timeout)
    finally:
        for worker in workers:
            ray.kill(worker)


def load_batch(layout: Layout, batch: Batch, dim: int, codec: ResidualCodec | None) -> Segment:
    """Read what ``Worker.encode_batch`` wrote.

    Args:
        layout: of the folder.
        batch: is encoded.
        dim: components of a vector.
        codec: that compressed it; None for vectors that are kept as they are.

    Raises:
        DamagedIndexError: the file is damaged, or of other passages.
    """
    path = layout.batch(batch.shard, batch.number)
    try:
        check_regular(path)
        segment = Segment.from_arrays(load_arrays(np.frombuffer(path.read_bytes(), np.uint8)), dim, codec)
        segment.check(0 if codec is None else len(codec.centroids))
        if len(segment.pids) and segment.pids[-1] >= batch.passages:
            raise ValueError(f"it has a passage {segment.pids[-1]} of {batch.passages}")
    except (ValueError, IndexError) as error:
        raise DamagedIndexError(f"{path} is damaged ({error}); remove it and build again.") from None
    return segment


# The codec


def fit_codec(give: Give, layout: Layout, n_passages: int, nbits: int) -> ResidualCodec:
    """Fit a codec to the collection, by a sample that is the same whatever the number of workers."""
    texts = read_sample(layout)

    def encode(chosen: list[str]) -> list[NDArray[np.float32]]:
        pieces = [Work("encode", (chosen[start : start + _PIECE],)) for start in range(0, len(chosen), _PIECE)]
        vectors = dict(give(deque(pieces)))
        return [vectors[piece] for piece in pieces]

    vectors = encode(texts[:_FIRST_SAMPLED])
    n_tokens = sum(map(len, vectors))
    per_passage = n_tokens / min(len(texts), _FIRST_SAMPLED)
    n_centroids = count_centroids(round(per_passage * n_passages))
    more = math.ceil(sample_size(n_centroids) / per_passage) - _FIRST_SAMPLED
    if more > 0:
        vectors += encode(texts[_FIRST_SAMPLED : _FIRST_SAMPLED + more])
    sample = np.concatenate(vectors)
    wanted = min(sample_size(n_centroids), len(sample))
    chosen = np.sort(np.random.default_rng(_SEED).choice(len(sample), wanted, replace=False))
    return ResidualCodec.fit(sample[chosen], min(n_centroids, len(chosen)), nbits)


def write_codec(layout: Layout, codec: ResidualCodec) -> None:
    """Keep the codec of all shards."""
    write_bytes(layout.codec, codec_bytes(codec), shared=True)


def load_codec(layout: Layout) -> ResidualCodec:
    """Read the codec of all shards.

    Raises:
        DamagedIndexError: its file is damaged.
    """
    try:
        check_regular(layout.codec)
        return ResidualCodec.from_arrays(load_arrays(np.frombuffer(layout.codec.read_bytes(), np.uint8)))
    except ValueError as error:
        raise DamagedIndexError(f"{layout.codec} is damaged: {error}; restore it from a copy.") from None

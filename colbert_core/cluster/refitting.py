"""Give the codec of a sharded index that has grown more centroids, shard by shard, while others search and write.

The new codec is written down before the first shard takes it, and every code that there is keeps its meaning. So a passage has
the same score whether its shard has the old codec or the new one, and whoever goes on after an interruption takes the codec
that is written down.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from colbert_core.cluster.layout import Layout
from colbert_core.cluster.locks import alone
from colbert_core.errors import ClusterError
from colbert_core.index.extension import Extension, codec_bytes
from colbert_core.index.writing import refit_due
from colbert_core.progress import progress_bar
from colbert_core.storage.durable import disk_errors, step, sync_folder, write_bytes
from colbert_core.vectors.codec import ResidualCodec, sample_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from colbert_core.cluster.calls import Calls, Replicas
    from colbert_core.cluster.fetching import Publication
    from colbert_core.index.reports import IndexStats


@dataclass(frozen=True)
class Refit:
    """What ``ShardedIndex.refit`` did.

    Attributes:
        added: number of centroids that the codec got; 0 where it was not time, or it can have no more.
        centroids: number of centroids that it has now; 0 where vectors are kept as they are.
        tokens: number of vectors that can be found.
        fitted_on: number of vectors of the collection when the codec was fitted; None where vectors are kept as they are.
    """

    added: int
    centroids: int
    tokens: int
    fitted_on: int | None


def refit(replicas: Replicas, *, progress: bool | None) -> Refit:
    """See ``ShardedIndex.refit``."""
    replicas.check_writable()
    layout = replicas.layout
    assert isinstance(layout, Layout)
    with contextlib.ExitStack() as stack:
        with disk_errors(layout.folder, f"Somebody else is refitting {layout.folder}; try again once that is done."):
            stack.enter_context(alone(layout.refit_lock, replicas.timeout))
        extension = extension_of(layout)
        each: list[IndexStats] = replicas.ask_all("stats")
        n_tokens, centroids = sum(stats.tokens for stats in each), each[0].centroids
        if each[0].nbits is None:
            return Refit(0, 0, n_tokens, None)
        fitted_on = layout.read().fitted_on(n_tokens, sum(stats.passages for stats in each))
        wanted = refit_due(n_tokens, centroids, fitted_on, is_given=False, first=0)
        if extension is None and wanted is None:
            return Refit(0, centroids, n_tokens, fitted_on)
        with progress_bar("Refitting", len(replicas), "shard", progress) as bar:
            if extension is None and wanted is not None:
                extension = _extended(replicas, layout, each, wanted)
            if extension is None:
                return Refit(0, centroids, n_tokens, fitted_on)
            replicas.ask_all("_extend_codec", layout.refit, patiently=True)
            bar.update(len(replicas))
        step("codec taken")
        _finish(layout, extension)
    return Refit(extension.added, len(extension.codec.centroids), n_tokens, extension.tokens)


def _extended(replicas: Replicas, layout: Layout, each: Sequence[IndexStats], wanted: int) -> Extension | None:
    """Fit so many more centroids to vectors of all shards, in proportion to what they hold, and write the codec down.

    Returns:
        None if all passages have been deleted meanwhile.

    Raises:
        ClusterError: shards have different codecs.
    """
    codecs = {about.codec for about in replicas.ask_all("about")}
    if len(codecs) > 1 or None in codecs:
        raise ClusterError(f"The shards of {layout.folder} have different codecs; restore the index from a copy.")
    (extends,) = codecs
    n_tokens = sum(stats.tokens for stats in each)
    shares = {shard: round(sample_size(wanted) * stats.tokens / n_tokens) for shard, stats in enumerate(each)}
    calls: Calls = {shard: ("_sample", (share,), {}) for shard, share in shares.items() if share}
    vectors = [of_shard for _, of_shard in sorted(replicas.ask(calls, patiently=True).items()) if len(of_shard)]
    if not vectors:
        return None
    sample = np.concatenate(vectors)
    codec = ResidualCodec.from_arrays(replicas.ask({0: ("_codec_arrays", (), {})})[0])
    extension = Extension(codec.extended(sample, min(wanted, len(sample))), str(extends), n_tokens)
    with disk_errors(layout.refit):
        extension.write(layout.refit)
    step("codec fitted")
    return extension


def _finish(layout: Layout, extension: Extension) -> None:
    """Make the codec that all shards have taken that of the folder, too."""
    layout.write(replace(layout.read(), codec_tokens=extension.tokens))
    with disk_errors(layout.codec):
        write_bytes(layout.codec, codec_bytes(extension.codec), shared=True)
        step("codec replaced")
        layout.refit.unlink(missing_ok=True)
        sync_folder(layout.folder)


def extension_of(layout: Layout | Publication) -> Extension | None:
    """What a refit that is not done yet has written down; None if there is none.

    Raises:
        DamagedIndexError: its file is damaged.
    """
    if not isinstance(layout, Layout):
        return None
    with contextlib.suppress(FileNotFoundError):
        return Extension.read(layout.refit)
    return None


def take_extension(replicas: Replicas) -> None:
    """Have all shards take the codec of a refit that was interrupted, if one was: codes go from each of them to any other.

    Asked after those codes were read, this leaves no shard with fewer centroids than they need: the new codec is written down
    before a shard takes it, and its file goes when all have it.
    """
    layout = replicas.layout
    if isinstance(layout, Layout) and layout.refit.is_file():
        with contextlib.suppress(FileNotFoundError):  # somebody has just finished it
            replicas.ask_all("_extend_codec", layout.refit)

"""The shards of an index in this process, in the place of Ray's actors: one after the other, and quick to open."""

from __future__ import annotations

import contextlib
from pathlib import Path

from builders.encoders import WordEncoder
from colbert_core import Index
from colbert_core.cluster import ShardedIndex
from colbert_core.cluster.calls import About, Replicas
from colbert_core.cluster.layout import Layout
from colbert_core.cluster.nodes import version


class ReplicasHere(Replicas):
    """Calls each shard in turn, in the order of their numbers."""

    def __init__(self, folder, timeout=10.0):
        layout = Layout(Path(folder))
        n_shards = layout.read().shards
        super().__init__(None, layout, [[None]] * n_shards, timeout, allow_partial=False)
        self.indexes = [Index.open(layout.shard(number), timeout=timeout) for number in range(n_shards)]

    def attempt(self, calls, *, wait, patiently=False):
        return {shard: self.call(shard, *call) for shard, call in sorted(calls.items())}, {}

    def call(self, shard, method, arguments, options):
        index = self.indexes[shard]
        if method == "about":
            stats = index.stats()
            return About(version(), "here", index.made_with, stats.nbits, index.codec_id, stats.generation)
        return getattr(index, method)(*arguments, **options)

    def close(self):
        self.closed = True
        for index in self.indexes:
            index.close()


@contextlib.contextmanager
def opened_here(folder, encoder=None, **options):
    """The sharded index in a folder, without Ray."""
    replicas = ReplicasHere(folder, **options)
    try:
        yield ShardedIndex(replicas, encoder or WordEncoder(), {})
    finally:
        replicas.close()

"""The shards of an index in this process, called in turn: a test may stop between two of them. And one that has grown."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

from builders.cluster import QUERIES, passages_of, sharded_here
from builders.encoders import WordEncoder
from colbert_core import Index
from colbert_core.cluster import ShardedIndex
from colbert_core.cluster.here import Here
from colbert_core.cluster.layout import Layout

FEW = passages_of(50)
MORE = [dataclasses.replace(passage, id=f"more{passage.id}") for passage in passages_of(190, seed=1)]


class InTurn(Here):
    """Calls one shard after the other, in the order of their numbers."""

    def _attempt(self, calls, *, wait, patiently):
        return {shard: self.call(shard, *call) for shard, call in sorted(calls.items())}, {}

    def call(self, shard, method, arguments, options):
        result, _ = self._shards.call(shard, method, arguments, options)
        return result


@contextlib.contextmanager
def opened_here(folder, encoder=None, timeout=10.0):
    """The sharded index in a folder, without Ray."""
    layout = Layout(Path(folder))
    replicas = InTurn(layout, shards=layout.read().shards, timeout=timeout, allow_partial=False)
    try:
        yield ShardedIndex(replicas, encoder or WordEncoder(), {})
    finally:
        replicas.close()


def grown(folder, shards=3, **options):
    """A sharded index that has several times the vectors that its codec was fitted to."""
    sharded_here(folder, FEW, shards=shards, seed_passages=FEW, **options)
    with opened_here(folder) as index:
        index.add(MORE, progress=False)
        index.delete([passage.id for passage in FEW[:3]])
    return folder


def scores(index):
    return [[(hit.passage.id, hit.score) for hit in hits] for hits in index.search_many(QUERIES, 300, exact=True)]


def codecs(folder):
    """The id of each shard's codec."""
    layout, found = Layout(folder), []
    for number in range(layout.read().shards):
        with Index.open(layout.shard(number)) as index:
            found.append(index.codec_id)
    return found

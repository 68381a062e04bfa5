"""How search time grows: collections of several sizes, and larger ones made by repeating with noise.

    python benchmarks/scale.py FOLDER [--sizes 26000 52000 104000] [--repeat 2 10] [--queries 100] [--json OUT]

FOLDER is what benchmarks/embed.py wrote. CPU time of one thread with default settings, median and 95th percentile; recall is of
what scoring every passage with the same codes finds, over 20 queries. A repeated collection is the largest one several times
over, a third of its codes and of its residual bytes changed at random; it keeps the centroids of the largest, so its lists are
longer than those of a collection of its own.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from embed import SHARD, as_float32, load_shard, shards

from colbert_core import Index, Passage, set_num_threads
from colbert_core.search.ranking import search
from colbert_core.vectors.inverted_lists import InvertedLists
from colbert_core.vectors.segment import Segment
from colbert_core.vectors.snapshot import Part, Snapshot


def measured(snapshot, queries, k):
    """Median and 95th percentile of the milliseconds, and the recall of what scoring everything finds."""
    for query in queries:
        search(snapshot, query, k, sort_keys=list)  # maps the pages
    milliseconds = []
    for query in queries:
        start = time.thread_time()
        search(snapshot, query, k, sort_keys=list)
        milliseconds.append(1000 * (time.thread_time() - start))
    shares = []
    for query in queries[:20]:
        every = set(search(snapshot, query, k, sort_keys=list, exact=True).pids)
        shares.append(len(every & set(search(snapshot, query, k, sort_keys=list).pids)) / k)
    return float(np.median(milliseconds)), float(np.percentile(milliseconds, 95)), float(np.mean(shares))


def repeated(snapshot, times):
    """The only segment of a snapshot several times over, the copies with noise."""
    (part,), codec, random = snapshot.parts, snapshot.codec, np.random.default_rng(0)
    one = part.segment
    n = len(one.codes)
    codes = np.empty(times * n, one.codes.dtype)
    residuals = np.empty((times * n, one.residuals.shape[1]), np.uint8)
    for start in range(0, times * n, 2**20):
        some = np.arange(start, min(start + 2**20, times * n))
        moved, changed = (
            random.random(shape, np.float32) < 1 / 3 for shape in (len(some), residuals[some[0] : some[-1] + 1].shape)
        )
        moved[some < n], changed[some < n] = False, False  # the first copy is as it was
        codes[some] = np.where(moved, one.codes[random.integers(n, size=len(some))], one.codes[some % n])
        residuals[some] = np.where(changed, one.residuals[(some + 1) % n], one.residuals[some % n])
    doclens = np.tile(one.doclens, times)
    rows = np.concatenate([one.pids + number * (int(one.pids[-1]) + 1) for number in range(times)])
    lists = InvertedLists.build(codes, doclens)
    lengths = np.concatenate(
        [codec.inverse_lengths(codes[i : i + 2**22], residuals[i : i + 2**22]) for i in range(0, len(codes), 2**22)]
    )
    segment = Segment(
        rows, np.tile(one.spans, (times, 1)), doclens, codes=codes, residuals=residuals, lengths=lengths, lists=lists
    )
    return Snapshot((Part(segment, np.ones(len(rows), np.bool_)),), codec)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[26000, 52000, 104000])
    parser.add_argument("--repeat", type=int, nargs="*", default=[2, 10])
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    queries = np.load(options.folder / "queries.npy")[: options.queries]
    results = []

    def report(n_passages, snapshot, **more):
        set_num_threads(1)
        for k in (10, 100):
            p50, p95, recall = measured(snapshot, queries, k)
            n_tokens = sum(part.segment.n_tokens for part in snapshot.parts)
            row = {"passages": n_passages, "tokens": n_tokens, "k": k, "p50_ms": p50, "p95_ms": p95, "recall": recall, **more}
            results.append(row)
            print(
                f"{n_passages:8} passages, {n_tokens / 1e6:6.1f} M tokens, {len(snapshot.codec.centroids)} centroids, k {k:3}: "
                f"{p50:6.2f} ms (p95 {p95:6.2f}), recall of the same codes {recall:.3f} {more or ''}",
                flush=True,
            )

    with tempfile.TemporaryDirectory() as name:
        for size in options.sizes:
            index = Index.create(Path(name) / str(size), dim=queries.shape[2])
            wall, start = time.perf_counter(), time.process_time()
            count = 0
            for path in shards(options.folder)[: -(-size // SHARD)]:
                some = as_float32(load_shard(path))
                n = int(some.owners[-1]) + 1
                passages = [Passage(str(number), f"passage {number}") for number in range(count, count + n)]
                index.add(passages, embeddings=some, refit=False, progress=False)
                count += n
            index.compact()
            more = {
                "build_cpu_s": round(time.process_time() - start, 1),
                "build_wall_s": round(time.perf_counter() - wall, 1),
                "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            }
            snapshot = index._versions.read(lambda view: view.state).snapshot
            report(count, snapshot, **more)
            if size == options.sizes[-1]:
                for times in options.repeat:
                    report(count * times, repeated(snapshot, times))
            index.close()
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

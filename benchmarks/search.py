"""How fast a search is, and what it finds: brute force, the whole recall-latency curve, all settings in turn in one process.

    python benchmarks/search.py FOLDER [--first 26000] [--queries 200] [--nbits 4] [--json OUT] [--plot OUT.png]

FOLDER is what benchmarks/embed.py wrote. Times are CPU times of one thread, medians and 95th percentiles in milliseconds over
the queries; for each query all settings run one after the other, brute force (a float32 matrix product and the maximum of each
window, by PyTorch) every fifth time. Recall is against exact scores of the uncompressed vectors, and against scoring every
passage with the same codes.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from embed import as_float32, load

from colbert_core import Index, Passage, SearchConfig, set_num_threads
from colbert_core.search.ranking import search

# nprobe, n_candidates, n_exact
GRID = {
    10: [
        *((4, 128, 32), (4, 256, 48), (8, 256, 48), (8, 256, 56), (8, 256, 64), (8, 512, 96), (16, 512, 128), (16, 1024, 256)),
        *((16, 2048, 512), (1, None, 48), (2, None, 64), (4, None, 128), (4, None, 256), (8, None, 512)),
    ],
    100: [
        *((8, 1024, 256), (8, 2048, 384), (12, 2048, 448), (16, 2048, 512), (16, 4096, 1024), (32, 8192, 2048)),
        *((2, None, 384), (4, None, 512), (8, None, 1024)),
    ],
}


def brute_force(embeddings):
    """A search by PyTorch: the product with every vector and the maximum of each window, in float32."""
    vectors = torch.from_numpy(embeddings.vectors)
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    lengths = torch.from_numpy(embeddings.doclens.astype(np.int64))

    def scores(query):
        best = torch.segment_reduce(vectors @ query.T, "max", lengths=lengths, axis=0, unsafe=True)
        return best.sum(1)

    return scores


def timed(work, *arguments):
    start = time.thread_time()
    result = work(*arguments)
    return 1000 * (time.thread_time() - start), result


def share(found, best, k):
    return len(set(found[:k]) & set(best[:k])) / k


def measured(engines, queries, brute):
    """For each engine its milliseconds and what it found; and the milliseconds of brute force."""
    times, found, brute_times = {name: [] for name in engines}, {name: [] for name in engines}, []
    for engine in engines.values():
        engine(queries[0])
    brute(torch.from_numpy(queries[0]))
    for number, query in enumerate(queries):
        if number % 5 == 0:
            brute_times.append(timed(brute, torch.from_numpy(query))[0])
        for name, engine in engines.items():
            milliseconds, result = timed(engine, query)
            times[name].append(milliseconds)
            found[name].append(result)
    return times, found, float(np.median(brute_times))


def batches(index, queries):
    """Queries per second of searches for 64 at once."""
    results = []
    for values in ((4, 256, 48), (8, 256, 64), (8, 512, 128), None):
        config, runs = None if values is None else SearchConfig(*values), []
        for _ in range(7):
            runs += [timed(lambda config=config: index.search_many(list(queries[:64]), 10, config=config))[0]]
        rate = 64000 / float(np.median(runs))
        results.append({"config": values, "queries_per_s": rate})
        print(f"batch of 64, {'default' if values is None else values}: {rate:.0f} queries/s by one thread", flush=True)
    return results


def snapshot_of(index):
    """What an index searches, without its texts: brute force and the peers return none either."""
    return index._versions.read(lambda view: view.state).snapshot


def rows(snapshot, query, k, **how):
    return search(snapshot, query, k, sort_keys=list, **how).pids


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--first", type=int, default=26000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--nbits", type=int, default=4)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    embeddings, queries = load(options.folder, options.first)
    queries, embeddings = queries[: options.queries], as_float32(embeddings)
    passages = [Passage(str(number), f"passage {number}") for number in range(options.first)]
    results = {"passages": options.first, "tokens": len(embeddings.vectors), "nbits": options.nbits, "rows": []}
    with tempfile.TemporaryDirectory() as folder:
        index = Index.create(Path(folder) / "compressed", dim=embeddings.vectors.shape[1], nbits=options.nbits)
        index.add(passages, embeddings=embeddings)
        index.compact()
        plain = Index.create(None, dim=embeddings.vectors.shape[1])
        plain.add(passages, embeddings=embeddings)
        print(index.stats(), flush=True)
        vectors, codes = snapshot_of(plain), snapshot_of(index)
        exact = [rows(vectors, query, 100, exact=True) for query in queries]
        same_codes = [rows(codes, query, 100, exact=True) for query in queries]
        set_num_threads(1)
        first_row = int(codes.parts[0].segment.pids[0])
        engines = {("exhaustive int8", k): (lambda query, k=k: rows(vectors, query, k)) for k in (10, 100)}
        for k, grid in GRID.items():
            engines["default", k] = lambda query, k=k: rows(codes, query, k)
            engines["default, Index.search with texts", k] = lambda query, k=k: [
                int(hit.passage.id) + first_row for hit in index.search(query, k)
            ]
            for values in grid:
                config = SearchConfig(*values)
                name = "nprobe {} n_candidates {} n_exact {}".format(*values)
                engines[name, k] = lambda query, k=k, config=config: rows(codes, query, k, config=config)
        times, found, base = measured(engines, queries, brute_force(embeddings))
        results["brute_force_ms"] = base
        print(f"brute force {base:.1f} ms")
        for (name, k), some in times.items():
            row = {
                "engine": name,
                "k": k,
                "p50_ms": float(np.median(some)),
                "p95_ms": float(np.percentile(some, 95)),
                "ratio": base / float(np.median(some)),
                "recall": float(np.mean([share(a, b, k) for a, b in zip(found[name, k], exact, strict=True)])),
                "recall_same_codes": float(np.mean([share(a, b, k) for a, b in zip(found[name, k], same_codes, strict=True)])),
            }
            results["rows"].append(row)
            print(
                f"k {k:3} {name:44} {row['p50_ms']:7.2f} ms (p95 {row['p95_ms']:7.2f})  {row['ratio']:6.0f}x brute force  "
                f"recall {row['recall']:.3f}, of the same codes {row['recall_same_codes']:.3f}",
                flush=True,
            )
        results["batch"] = batches(index, queries)
        index.close()
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    if options.plot:
        plot(results, options.plot)


def plot(results, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    for k in (10, 100):
        rows = [row for row in results["rows"] if row["k"] == k and row["engine"] != "exhaustive int8"]
        pyplot.plot([row["recall"] for row in rows], [row["p50_ms"] for row in rows], ".", label=f"recall@{k}")
    pyplot.yscale("log")
    pyplot.xlabel("recall against exact scores")
    pyplot.ylabel("CPU milliseconds of one thread")
    pyplot.legend()
    pyplot.savefig(path, dpi=150)


if __name__ == "__main__":
    main()

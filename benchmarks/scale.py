"""How search time grows: collections of several sizes, and larger ones made by repeating with noise.

    python benchmarks/scale.py FOLDER [--sizes 26000 104000] [--times 10] [--queries 100] [--kept KEPT] [--json OUT]

FOLDER is what benchmarks/embed.py wrote. CPU time of one thread with default settings, median and 95th percentile; recall is of
what scoring every passage with the same codes finds, over 20 queries. A repeated collection is the largest one several times
over, compressed with a codec that has as many centroids as one of its size gets and was fitted to vectors with noise. In its
copies a third of the tokens are at one of the eight centroids nearest to their own, and a third of the residual bytes are those
of another token. Arrays lie in files below KEPT, are mapped, and serve again. The first search of a new process is timed from
after the imports, with the files out of the system's cache where that is allowed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from embed import SHARD, load_shard, shards

from colbert_core import set_num_threads
from colbert_core.search import kernel_scorer
from colbert_core.search.ranking import config_for, search
from colbert_core.vectors.codec import ResidualCodec, count_centroids, sample_size
from colbert_core.vectors.inverted_lists import InvertedLists
from colbert_core.vectors.segment import Segment
from colbert_core.vectors.snapshot import Part, Snapshot

AT_A_TIME = 2**20
NBITS = 4


def doclens_of(path):
    with np.load(path) as arrays:
        return arrays["doclens"]


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def fitted(paths, n_tokens, times):
    """A codec for the passages in these files, repeated so many times."""
    n_centroids = count_centroids(n_tokens * times)
    share, random, sample = sample_size(n_centroids) / n_tokens, np.random.default_rng(0), []
    for path in paths:
        vectors = load_shard(path).vectors
        some = vectors[np.sort(random.choice(len(vectors), int(share * len(vectors)) + 1, replace=False))].astype(np.float32)
        if times > 1:  # a third as in the first copy
            noise = some[random.permutation(len(some))]
            some = unit(np.where(random.random((len(some), 1)) < 1 / 3, some, some + np.float32(0.3) * noise))
        sample.append(some)
    sample = np.concatenate(sample)[: sample_size(n_centroids)]
    start = time.process_time()
    codec = ResidualCodec.fit(sample, n_centroids, NBITS)
    print(f"{n_centroids} centroids from {len(sample)} vectors: {time.process_time() - start:.1f} CPU seconds", flush=True)
    return codec


def make(folder, paths, times):
    """Write the arrays of a collection."""
    doclens = np.concatenate([doclens_of(path) for path in paths])
    n = int(doclens.sum())
    codec = fitted(paths, n, times)
    folder.mkdir(parents=True)

    def room(name, shape, dtype):
        return np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, shape)

    codes, residuals = room("codes", (times * n,), np.uint16), room("residuals", (times * n, codec.dim * NBITS // 8), np.uint8)
    lengths = room("lengths", (times * n,), np.uint16)
    end, start = 0, time.process_time()
    for path in paths:
        vectors = load_shard(path).vectors.astype(np.float32)
        here = slice(end, end + len(vectors))
        codes[here], residuals[here] = codec.compress(vectors)
        lengths[here] = codec.inverse_lengths(codes[here], residuals[here])
        end = here.stop
    print(f"{n} vectors compressed: {time.process_time() - start:.1f} CPU seconds with reading them", flush=True)
    if times > 1:
        near = neighbours(codec.centroids)
    random = np.random.default_rng(1)
    replaced = random.integers(0, 3, (AT_A_TIME, residuals.shape[1]), np.uint8) == 0
    for first in range(n, times * n, AT_A_TIME):
        here = np.arange(first, min(first + AT_A_TIME, times * n))
        own, other = slice(first % n, first % n + len(here)), random.integers(n)
        if own.stop > n:
            own = here % n
        at = codes[own]
        draws = random.integers(0, 24, len(here), np.uint8)  # below 8: at that neighbour
        codes[here[0] : here[-1] + 1] = np.where(draws < 8, near[at, draws % 8], at)
        from_other = residuals[np.arange(other, other + len(here)) % n]
        mixed = np.where(replaced[: len(here)], from_other, residuals[own])
        residuals[here[0] : here[-1] + 1] = mixed
        lengths[here[0] : here[-1] + 1] = codec.inverse_lengths(codes[here[0] : here[-1] + 1], mixed)
    doclens = np.tile(doclens, times)
    start = time.process_time()
    lists = InvertedLists.build(codes, doclens)
    print(f"{len(lists.windows)} listed windows: {time.process_time() - start:.1f} CPU seconds", flush=True)
    start, ends = time.process_time(), np.cumsum(doclens, dtype=np.int64)
    shifts = room("shifts", (len(doclens), codec.dim), np.uint8)
    for first in range(0, len(doclens), AT_A_TIME // 64):
        some = slice(first, first + AT_A_TIME // 64)
        of_some = slice(int(ends[first] - doclens[first]), int(ends[some][-1]))
        shifts[some] = codec.shifts(codes[of_some], residuals[of_some], doclens[some])
    print(f"shifts of {len(doclens)} windows: {time.process_time() - start:.1f} CPU seconds", flush=True)
    arrays = {"doclens": doclens, "list_centroids": lists.centroids, "list_offsets": lists.offsets}
    for name, array in {**arrays, "list_windows": lists.windows, **codec.to_arrays()}.items():
        np.save(folder / f"{name}.npy", array)
    (folder / "whole").touch()


def neighbours(centroids):
    """The eight centroids nearest to each. *Shape:* (n_centroids, 8), uint16."""
    near = np.empty((len(centroids), 8), np.uint16)
    for start in range(0, len(centroids), 1024):
        cosines = centroids[start : start + 1024] @ centroids.T
        cosines[np.arange(len(cosines)), start + np.arange(len(cosines))] = -2
        near[start : start + 1024] = np.argpartition(cosines, -8, axis=1)[:, -8:]
    return near


def mapped(folder):
    """The snapshot of a collection that ``make`` wrote."""
    files = {path.stem: np.load(path, mmap_mode="r") for path in folder.glob("*.npy")}
    codec = ResidualCodec.from_arrays({name: np.array(files[name]) for name in ("centroids", "levels", "layers")})
    n = len(files["doclens"])
    arrays = {name: files[name] for name in ("codes", "residuals", "lengths", "shifts", "doclens") if name in files}
    lists = {name: files[f"list_{name}"] for name in ("centroids", "offsets", "windows")}
    arrays |= {f"list_{name}": array for name, array in lists.items()}
    arrays |= {"rows": np.arange(n), "spans": np.zeros((n, 2), np.int32)}
    return Snapshot((Part.whole(Segment.from_arrays(arrays, codec.dim, codec)),), codec)


def measured(snapshot, queries, k, best):
    """Median and 95th percentile of the milliseconds, and the recall of the best passages that scoring everything finds."""
    for query in queries:
        search(snapshot, query, k, sort_keys=list)  # maps the pages
    milliseconds = []
    for query in queries:
        start = time.thread_time()
        search(snapshot, query, k, sort_keys=list)
        milliseconds.append(1000 * (time.thread_time() - start))
    shares = [
        len({*every[:k]} & {*search(snapshot, query, k, sort_keys=list).pids}) / k
        for query, every in zip(queries, best, strict=False)
    ]
    return float(np.median(milliseconds)), float(np.percentile(milliseconds, 95)), float(np.mean(shares))


def stages(snapshot, queries, k):
    """Mean milliseconds of each kernel."""
    kernels, spent = kernel_scorer.scoring, {}

    def timed(name, kernel):
        def call(*arguments):
            start = time.thread_time()
            result = kernel(*arguments)
            spent[name] = spent.get(name, 0) + 1000 * (time.thread_time() - start) / len(queries)
            return result

        return call

    originals = {name: kernel for name, kernel in vars(kernels).items() if hasattr(kernel, "py_func")}
    try:
        for name, kernel in originals.items():
            setattr(kernels, name, timed(name, kernel))
        for query in queries:
            search(snapshot, query, k, sort_keys=list)
    finally:
        for name, kernel in originals.items():
            setattr(kernels, name, kernel)
    return {name: round(value, 3) for name, value in sorted(spent.items(), key=lambda item: -item[1]) if value >= 0.005}


def kilobytes_read(snapshot, queries, k):
    """The mean of what a query reads of the files: lists, and codes, residuals and lengths of what is scored."""
    (part,), codec, reads = snapshot.parts, snapshot.codec, []
    segment, allowed = part.segment, [part.live]
    for query in queries:
        config = config_for(snapshot, k, len(query))
        scorer = kernel_scorer.KernelScorer([segment], codec, query)
        cells, _ = kernel_scorer._nearest(scorer._tables[0], 0, 0, len(codec.centroids), len(query), config.nprobe)
        offsets, _ = segment.lists.by_centroid(len(codec.centroids), len(segment.pids), checked=False)
        listed = 4 * int((offsets[cells + 1] - offsets[cells])[cells >= 0].sum())
        (candidates,) = scorer.candidates(allowed, config.nprobe, config.n_candidates, None)
        (best,) = scorer.shortlist(allowed, config.nprobe, config.n_candidates, config.n_exact, k, None)
        tokens = int(segment.doclens[best].sum())
        reads.append((listed, 2 * int(segment.doclens[candidates].sum()), tokens * (2 + segment.residuals.shape[1])))
    return dict(zip(("lists", "codes", "residuals"), np.round(np.mean(reads, axis=0) / 1000).tolist(), strict=True))


def first_search(folder, queries):
    """Seconds that a new process takes from after its imports to its first hits, opening included; kernels are compiled."""
    for path in folder.glob("*.npy"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    run = subprocess.run(
        [sys.executable, __file__, queries, "--first-search", folder], capture_output=True, text=True, check=True
    )
    return json.loads(run.stdout)


def report_first_search(folder, queries):
    query = np.load(queries / "queries.npy")[0]
    set_num_threads(1)
    wall, cpu = time.perf_counter(), time.process_time()
    search(mapped(folder), query, 10, sort_keys=list)
    print(json.dumps({"first_wall_s": time.perf_counter() - wall, "first_cpu_s": time.process_time() - cpu}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", type=int, nargs="*", default=[26000, 104000])
    parser.add_argument("--times", type=int, nargs="*", default=[10], help="the largest size repeated so many times")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--k", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--kept", type=Path, help="keep the collections here; default: they are removed at the end")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--first-search", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.first_search:
        report_first_search(options.first_search, options.folder)
        return
    set_num_threads(1)
    queries, results = np.load(options.folder / "queries.npy")[: options.queries], []
    with tempfile.TemporaryDirectory() as name:
        kept = options.kept or Path(name)
        largest = max(options.sizes, default=104000)
        for size, times in [(size, 1) for size in options.sizes] + [(largest, times) for times in options.times]:
            paths = shards(options.folder)[: -(-size // SHARD)]
            folder = kept / f"{size}x{times}"
            if not (folder / "whole").exists():
                make(folder, paths, times)
            first_search(folder, options.folder)  # compiles
            cold = first_search(folder, options.folder)
            snapshot = mapped(folder)
            n_tokens = snapshot.parts[0].segment.n_tokens
            print(f"{size * times} passages, {n_tokens / 1e6:.1f} M tokens, {len(snapshot.codec.centroids)} centroids: {cold}")
            best = [search(snapshot, query, max(options.k), sort_keys=list, exact=True).pids for query in queries[:20]]
            for k in options.k:
                p50, p95, recall = measured(snapshot, queries, k, best)
                row = {"passages": size * times, "tokens": n_tokens, "k": k, "p50_ms": p50, "p95_ms": p95, "recall": recall}
                row |= {"stages_ms": stages(snapshot, queries, k), "kilobytes": kilobytes_read(snapshot, queries, k), **cold}
                results.append(row)
                print(f"  k {k:3}: {p50:6.2f} ms (p95 {p95:6.2f}), recall of the same codes {recall:.3f}", flush=True)
                print(f"         {row['stages_ms']} {row['kilobytes']} kB", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

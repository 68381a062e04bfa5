"""What an index costs to build: everything, k-means, and the nearest of many centroids, by one thread.

    python benchmarks/build.py FOLDER [--first 26000] [--centroids 16384] [--json OUT] [--peer PYTHON --peer-first 2000]

FOLDER is what benchmarks/embed.py wrote. The whole index is built of
vectors as they come from the files. Assignment is in turn with PyTorch's float32 product and maximum in one process.
PYTHON is an interpreter that has fast-plaid, whose build of the first passages is timed with one thread beside ours.
"""

import argparse
import itertools
import json
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from embed import SHARD, as_float32, load, load_shard, shards

from colbert_core import Index, Passage, set_num_threads
from colbert_core.kernels import building, instruction_set
from colbert_core.vectors.centroids import NearestCentroids, quantized
from colbert_core.vectors.codec import ResidualCodec, sample_size
from colbert_core.vectors.embeddings import of_owner, token_ends


def cpu(work):
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def by_torch(vectors, centroids, highest):
    nearest = np.empty(len(vectors), np.int64)
    for start in range(0, len(vectors), 1024):
        products = torch.from_numpy(vectors[start : start + 1024]) @ torch.from_numpy(centroids.T)
        nearest[start : start + 1024] = highest(products).numpy()
    return nearest


def by_bytes(nearest, vectors):
    found, (words, _) = np.empty(len(vectors), np.int32), quantized(vectors, nearest.rows)
    building.nearest_rows(instruction_set(), words, nearest.rows.rows, found)
    return found


def build(embeddings, n_passages):
    with tempfile.TemporaryDirectory() as name:
        index = Index.create(Path(name) / "index", dim=embeddings.vectors.shape[1])
        passages = [Passage(str(number), f"passage {number}") for number in range(n_passages)]
        index.add(passages, embeddings=embeddings)
        index.compact()
        stats = index.stats()
        index.close()
    return stats


class Memory(threading.Thread):
    """Looks twenty times a second at how much memory of its own this process takes, files that it maps left out."""

    def __init__(self):
        super().__init__(daemon=True)
        self.start_mb = self.peak_mb = self.now()
        self.start()

    def now(self):
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
        return int(line.split()[1]) / 1024

    def run(self):
        while True:
            self.peak_mb = max(self.peak_mb, self.now())
            time.sleep(0.05)


def build_from_files(folder, first, kept):
    """Build an index of vectors as they come from files; CPU seconds for that and for reading alone, and megabytes."""

    def vectors():
        for path in shards(folder)[: -(-first // SHARD)]:
            some = load_shard(path)
            ends = token_ends(some)
            for passage in range(SHARD):
                yield of_owner(some, passage, ends).vectors.astype(np.float32)

    reading, n = cpu(lambda: sum(len(matrix) > 0 for matrix in itertools.islice(vectors(), first)))
    with tempfile.TemporaryDirectory() as name:
        index = Index.create((kept or Path(name)) / f"index-{first}", dim=next(vectors()).shape[1], overwrite=True)
        passages = (Passage(str(number), f"passage {number}") for number in range(n))
        filled = (matrix for matrix in itertools.islice(vectors(), first) if len(matrix))
        memory = Memory()
        seconds, _ = cpu(lambda: index.add(passages, embeddings=filled, progress=False))
        compacting, _ = cpu(lambda: index.compact(progress=False))
        stats = index.stats()
        index.close()
    return {
        "build_cpu_s": seconds + compacting - reading,
        "reading_cpu_s": reading,
        "compact_cpu_s": compacting,
        "start_mb": memory.start_mb,
        "peak_mb": memory.peak_mb,
    }, stats


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--first", type=int, default=26000)
    parser.add_argument("--centroids", type=int, default=16384)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only-whole", action="store_true", help="build the whole index and nothing else")
    parser.add_argument("--kept", type=Path, help="keep the index in this folder")
    parser.add_argument("--peer", type=Path, help="an interpreter that has fast-plaid")
    parser.add_argument("--peer-first", type=int, default=2000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    set_num_threads(1)
    results, stats = build_from_files(options.folder, options.first, options.kept)
    print(
        f"whole index: {results['build_cpu_s']:.1f} CPU seconds beside {results['reading_cpu_s']:.1f} to read the vectors, of "
        f"these {results['compact_cpu_s']:.1f} to compact; memory of its own {results['start_mb']:.0f} MB before and at most "
        f"{results['peak_mb']:.0f}; {stats}",
        flush=True,
    )
    if options.only_whole:
        return
    embeddings, queries = load(options.folder, min(options.first, 26000))
    embeddings = as_float32(embeddings)
    vectors = embeddings.vectors
    some = vectors[:: max(1, len(vectors) // sample_size(options.centroids))][: sample_size(options.centroids)]
    seconds, codec = cpu(lambda: ResidualCodec.fit(some, options.centroids, 4))
    results |= {"k_means_cpu_s": seconds, "centroids": options.centroids, "sample": len(some)}
    print(f"codec of {options.centroids} centroids from {len(some)} vectors: {seconds:.1f} CPU seconds", flush=True)
    nearest = NearestCentroids(codec.centroids)
    engines = {
        "torch float32, argmax": lambda: by_torch(piece, codec.centroids, lambda products: products.argmax(1)),
        "torch float32, max": lambda: by_torch(piece, codec.centroids, lambda products: products.max(1).indices),
        "every centroid by bytes": lambda: by_bytes(nearest, piece),
        "kernel": lambda: nearest.find(piece),
    }
    rates, piece = {name: [] for name in engines}, vectors[:: len(vectors) // 16384][:16384]
    for _ in range(3):
        for name, work in engines.items():
            seconds, nearest = cpu(work)
            rates[name].append(len(piece) / seconds)
            results[f"mean_cosine_{name}"] = float(np.einsum("nd,nd->n", piece, codec.centroids[nearest]).mean())
    for name, rate in rates.items():
        results[f"assign_{name}"] = float(np.median(rate))
        cosine = results[f"mean_cosine_{name}"]
        print(f"assignment by {name:22} {np.median(rate):9.0f} vectors/s of one thread, mean cosine {cosine:.5f}")
    for name in list(engines)[:3]:
        print(f"{results['assign_kernel'] / results[f'assign_{name}']:.1f}x {name}", flush=True)
    if options.peer:
        from peers import run_peer

        few = as_float32(load(options.folder, options.peer_first)[0])
        seconds, _ = cpu(lambda: build(few, options.peer_first))
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "vectors.npz"
            np.savez(path, vectors=few.vectors.astype(np.float16), doclens=few.doclens, queries=queries[:5])
            peer = run_peer(options.peer, "fast-plaid", path, 1, 3000)
        results |= {"first": options.peer_first, "build_few_cpu_s": seconds, "peer": peer}
        if "error" in peer:
            print(f"fast-plaid: {peer['error']}")
        else:
            ratio = peer["build_cpu_s"] / seconds
            print(f"first {options.peer_first}: {seconds:.2f} CPU seconds, fast-plaid {peer['build_cpu_s']:.1f}: {ratio:.1f}x")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

"""What an index costs to build: the nearest of many centroids, k-means, and everything, by one thread.

    python benchmarks/build.py FOLDER [--first 26000] [--centroids 16384] [--json OUT] [--peer PYTHON --peer-first 2000]

FOLDER is what benchmarks/embed.py wrote. Assignment is in turn with PyTorch's float32 product and maximum in one process.
PYTHON is an interpreter that has fast-plaid, whose build of the first passages is timed with one thread beside ours.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from embed import as_float32, load

from colbert_core import Index, Passage, set_num_threads
from colbert_core.vectors.codec import ResidualCodec, nearest_centroids, sample_size


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


def build(embeddings, n_passages):
    with tempfile.TemporaryDirectory() as name:
        index = Index.create(Path(name) / "index", dim=embeddings.vectors.shape[1])
        passages = [Passage(str(number), f"passage {number}") for number in range(n_passages)]
        index.add(passages, embeddings=embeddings)
        index.compact()
        stats = index.stats()
        index.close()
    return stats


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--first", type=int, default=26000)
    parser.add_argument("--centroids", type=int, default=16384)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peer", type=Path, help="an interpreter that has fast-plaid")
    parser.add_argument("--peer-first", type=int, default=2000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    set_num_threads(1)
    embeddings, queries = load(options.folder, options.first)
    embeddings = as_float32(embeddings)
    vectors = embeddings.vectors
    some = vectors[:: max(1, len(vectors) // sample_size(options.centroids))][: sample_size(options.centroids)]
    seconds, codec = cpu(lambda: ResidualCodec.fit(some, options.centroids, 4))
    results = {"k_means_cpu_s": seconds, "centroids": options.centroids, "sample": len(some)}
    print(f"codec of {options.centroids} centroids from {len(some)} vectors: {seconds:.1f} CPU seconds", flush=True)
    engines = {
        "torch float32, argmax": lambda: by_torch(piece, codec.centroids, lambda products: products.argmax(1)),
        "torch float32, max": lambda: by_torch(piece, codec.centroids, lambda products: products.max(1).indices),
        "kernel": lambda: nearest_centroids(piece, codec.centroids, codec.rows),
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
    for name in list(engines)[:2]:
        print(f"{results['assign_kernel'] / results[f'assign_{name}']:.1f}x {name}", flush=True)
    seconds, stats = cpu(lambda: build(embeddings, options.first))
    results |= {"build_cpu_s": seconds, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    print(f"whole index: {seconds:.1f} CPU seconds, peak {results['peak_mb']:.0f} MB with the vectors, {stats}", flush=True)
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

"""Compares XTR's score, by the nearest tokens alone, with MaxSim over all vectors, on a test set.

    python benchmarks/imputed.py DATA/scifact --kept FOLDER
    python benchmarks/imputed.py DATA/scifact --kept OTHER --model google/xtr-base-en

DATA/scifact has corpus.jsonl, queries.jsonl and qrels/test.tsv. FOLDER keeps the vectors, so that a collection is encoded once.
Each rule is measured over uncompressed vectors, and over those of a compressed index: all of them, or those that lists lead to.
"""

import argparse
import time
from pathlib import Path

import ir_measures
import numpy as np
from bytes import Collection

from colbert_core import Encoder, Index, SearchConfig, set_num_threads


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="test set with corpus.jsonl, queries.jsonl and qrels/test.tsv")
    parser.add_argument("--kept", type=Path, required=True, help="folder for the vectors, used again if they are there")
    parser.add_argument("--model", help="checkpoint (default: the model in the box)")
    parser.add_argument("--queries", type=int, default=300, help="the first so many queries that have judgements")
    parser.add_argument("--tokens", type=int, nargs="+", default=[500, 2000, 8000, 40000], help="tokens found (k')")
    parser.add_argument("--nprobe", type=int, default=32, help="centroids probed in the compressed index")
    options = parser.parse_args()
    collection = Collection(options.folder, options.kept, Encoder.from_pretrained(options.model), options.queries, None)
    set_num_threads(1)
    best = None
    for bits in (32, 4):
        with Index.create(None, dim=collection.embeddings.vectors.shape[1], nbits=bits, words=False) as index:
            index.add(collection.passages, embeddings=collection.embeddings, progress=False)
            index.compact(progress=False)
            ways = [("all", True)] if bits == 32 else [("all", True), (f"{options.nprobe} probes", False)]
            for looked_at, exact in ways:
                for n_tokens in (None, *options.tokens):
                    config = None if n_tokens is None else SearchConfig(options.nprobe, n_tokens=n_tokens)
                    index.search_vectors(collection.matrices[:1], 10, config=config, exact=exact)  # compiles what it needs
                    start = time.process_time()
                    all_hits = index.search_vectors(collection.matrices, 10, config=config, exact=exact)
                    took = 1000 * (time.process_time() - start) / len(all_hits)
                    run = {
                        name: {hit.passage.id: hit.score for hit in hits}
                        for name, hits in zip(collection.names, all_hits, strict=True)
                    }
                    best = best or run
                    shared = np.mean([len(run[name].keys() & best[name].keys()) / len(best[name]) for name in run])
                    ndcg = ir_measures.calc_aggregate([ir_measures.nDCG @ 10], collection.judged, run)[ir_measures.nDCG @ 10]
                    rule = "MaxSim" if n_tokens is None else f"k' = {n_tokens:,}"
                    print(
                        f"{bits:>2} bits, {looked_at:<10} {rule:<12} nDCG@10 {ndcg:.4f}  of MaxSim's ten {shared:.3f}  "
                        f"{took:.0f} ms",
                        flush=True,
                    )


if __name__ == "__main__":
    main()

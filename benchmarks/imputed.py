"""Compares XTR's score, by the nearest tokens alone, with MaxSim over all vectors, on a test set.

    python benchmarks/imputed.py /data/scifact --kept /data/kept
    python benchmarks/imputed.py /data/scifact --model google/xtr-base-en

The folder is of BEIR's kind: corpus.jsonl, queries.jsonl and qrels/test.tsv. With --kept the passages are encoded once, into an
index of uncompressed vectors that is kept there. Each rule is measured over all vectors, and over those of a compressed index.
"""

import argparse
import tempfile
import time
from pathlib import Path

import ir_measures
import numpy as np
from evaluate import read_jsonl, read_qrels

from colbert_core import Encoder, Index, Passage, SearchConfig


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="test set with corpus.jsonl, queries.jsonl and qrels/test.tsv")
    parser.add_argument("--model", help="checkpoint (default: the model in the box)")
    parser.add_argument("--kept", type=Path, help="folder for the uncompressed index, used again if it is there")
    parser.add_argument("--queries", type=int, help="the first so many queries (default: all)")
    parser.add_argument("--tokens", type=int, nargs="+", default=[500, 2000, 8000, 40000], help="tokens found (k')")
    parser.add_argument("--nprobe", type=int, default=32, help="centroids probed in the compressed index")
    options = parser.parse_args()

    qrels = read_qrels(options.folder / "qrels" / "test.tsv")
    lines = [line for line in read_jsonl(options.folder / "queries.jsonl") if any(qrels.get(line["_id"], {}).values())]
    names = [line["_id"] for line in lines[: options.queries]]
    encoder = Encoder.from_pretrained(options.model)
    matrices = encoder.encode_queries([line["text"] for line in lines[: options.queries]])

    with tempfile.TemporaryDirectory() as folder:
        plain = options.kept or Path(folder) / "plain"
        if not plain.exists():
            corpus = read_jsonl(options.folder / "corpus.jsonl")
            with Index.create(plain, encoder, nbits=32, words=False) as index:
                index.add(
                    [Passage(line["_id"], f"{line.get('title', '')} {line['text']}".strip()) for line in corpus], progress=True
                )
        with Index.open(plain) as index, Index.create(None, dim=index.dim, words=False) as packed:
            ids = index.ids()
            packed.add([Passage(name, "") for name in ids], embeddings=index.embeddings(ids), progress=True)
            print(f"{len(ids):,} passages, {index.stats().tokens:,} vectors, {len(names)} queries")
            best = {}
            for title, searched, how in (
                ("all vectors", index, {"exact": True}),
                ("4 bits, all", packed, {"exact": True}),
                (f"4 bits, {options.nprobe} probes", packed, {}),
            ):
                for n_tokens in (None, *options.tokens):
                    config = None if n_tokens is None else SearchConfig(options.nprobe, n_tokens=n_tokens)
                    searched.search_vectors(matrices[:1], 10, config=config, **how)
                    start = time.process_time()
                    all_hits = searched.search_vectors(matrices, 10, config=config, **how)
                    took = 1000 * (time.process_time() - start) / len(matrices)
                    run = {
                        name: {hit.passage.id: hit.score for hit in hits} for name, hits in zip(names, all_hits, strict=True)
                    }
                    best = best or run
                    shared = np.mean([len(run[name].keys() & best[name].keys()) / len(best[name]) for name in names])
                    ndcg = ir_measures.calc_aggregate([ir_measures.nDCG @ 10], {name: qrels[name] for name in names}, run)
                    rule = "MaxSim" if n_tokens is None else f"k' = {n_tokens:,}"
                    print(
                        f"{title:<18} {rule:<12} nDCG@10 {ndcg[ir_measures.nDCG @ 10]:.4f}  of MaxSim's ten {shared:.3f}  "
                        f"{took:.0f} ms of processor time"
                    )


if __name__ == "__main__":
    main()

"""nDCG@10 of a model on test collections in BEIR layout, by exact search, and by plain search of compressed indexes.

    python benchmarks/evaluate.py DATA/scifact DATA/cranfield [--model NAME] [--first 300] [--pool-factor 2] [--late-chunking]
        [--nbits 4 2]

A collection is a folder with corpus.jsonl (_id, title, text), queries.jsonl (_id, text) and qrels/test.tsv. A passage is
the title and the text with a blank between them.
"""

import argparse
import csv
import json
import time
from pathlib import Path

import ir_measures
import torch

from colbert_core import Encoder, Index, Passage, set_num_threads


def read_jsonl(path):
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def read_qrels(path):
    with path.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.reader(lines, delimiter="\t"))[1:]
    qrels: dict[str, dict[str, int]] = {}
    for query_id, passage_id, grade in rows:
        qrels.setdefault(query_id, {})[passage_id] = int(grade)
    return qrels


def evaluate(folder, encoder, first, pool_factor, all_nbits):
    qrels = read_qrels(folder / "qrels" / "test.tsv")
    queries = [line for line in read_jsonl(folder / "queries.jsonl") if any(qrels.get(line["_id"], {}).values())][:first]
    corpus = read_jsonl(folder / "corpus.jsonl")
    start = time.perf_counter()
    passages = [Passage(line["_id"], f"{line.get('title', '')} {line['text']}".strip()) for line in corpus]
    embeddings = encoder.encode_passages([passage.text for passage in passages], progress=True)
    encoded = time.perf_counter() - start
    matrices = encoder.encode_queries([line["text"] for line in queries])
    judged = {line["_id"]: qrels[line["_id"]] for line in queries}
    for nbits in (None, *all_nbits):
        index = Index.create(None, dim=encoder.dim, nbits=nbits)
        index.add(passages, embeddings=embeddings, pool_factor=pool_factor)
        index.compact()
        stats = index.stats()
        start = time.perf_counter()
        found = index.search_many(matrices, k=10)
        searched = time.perf_counter() - start
        run = {line["_id"]: {hit.passage.id: hit.score for hit in hits} for line, hits in zip(queries, found, strict=True)}
        ndcg = ir_measures.calc_aggregate([ir_measures.nDCG @ 10], judged, run)[ir_measures.nDCG @ 10]
        print(
            f"{folder.name:16} {len(corpus):>7} passages {len(queries):>5} queries  "
            f"{'exact' if nbits is None else f'{nbits} bits'}: nDCG@10 {ndcg:.4f}  "
            f"{stats.tokens:>9} vectors of {stats.bytes_per_token:5.1f} bytes in {stats.windows:>7} windows  "
            f"encoding {encoded:6.1f} s  search {1000 * searched / len(queries):6.1f} ms/query",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--model", help="default: the model in the box")
    parser.add_argument("--dtype", help="of the backbone, such as float32")
    parser.add_argument("--first", type=int, help="only so many queries of each collection")
    parser.add_argument("--pool-factor", type=float, default=1, help="keep about 1 / FACTOR of the vectors (default: all)")
    parser.add_argument("--passage-length", type=int, help="most tokens of a window, in place of the model's")
    parser.add_argument("--late-chunking", action="store_true", help="cut the vectors of long passages, not their text")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--nbits", type=int, nargs="*", default=[], help="of compressed indexes to search as well; one window each"
    )
    options = parser.parse_args()
    set_num_threads(options.threads)
    encoder = Encoder.from_pretrained(
        options.model, dtype=options.dtype, passage_length=options.passage_length, late_chunking=options.late_chunking
    )
    print(f"{encoder.name}, {encoder.dtype}, {options.threads} threads", flush=True)
    for folder in options.folders:
        evaluate(folder, encoder, options.first, options.pool_factor, options.nbits)


if __name__ == "__main__":
    main()

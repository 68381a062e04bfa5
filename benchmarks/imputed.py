"""Compares XTR's score, by the nearest tokens alone, with MaxSim over all vectors, on a test set.

    python benchmarks/imputed.py /data/scifact --queries 300
    python benchmarks/imputed.py /data/scifact --model google/xtr-base-en

The folder is of BEIR's kind: corpus.jsonl, queries.jsonl and qrels/test.tsv. Every vector is compared, none is compressed, so
the difference is the rule's.
"""

import argparse
import csv
import json
from pathlib import Path

import numpy as np

from colbert_core import Encoder
from colbert_core.search.imputed import imputed_scores


def lines_of(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]


def ndcg(ranked, relevant, k=10):
    """nDCG@k with the gains of the qrels, as in trec_eval."""
    discounts = 1 / np.log2(np.arange(2, k + 2))
    gains = np.array([relevant.get(each, 0) for each in ranked[:k]], float)
    ideal = np.array(sorted(relevant.values(), reverse=True)[:k], float)
    return float(gains @ discounts[: len(gains)] / (ideal @ discounts[: len(ideal)]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="test set with corpus.jsonl, queries.jsonl and qrels/test.tsv")
    parser.add_argument("--model", help="checkpoint (default: the model in the box)")
    parser.add_argument("--queries", type=int, default=300, help="the first so many queries that have judgements")
    parser.add_argument("--others", type=int, help="passages beside those that are judged relevant (default: all)")
    parser.add_argument("--tokens", type=int, nargs="+", default=[100, 1000, 4000, 10000, 40000], help="tokens found (k')")
    options = parser.parse_args()

    qrels = {}
    with (options.folder / "qrels" / "test.tsv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if int(row["score"]) > 0:
                qrels.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
    queries = [each for each in lines_of(options.folder / "queries.jsonl") if each["_id"] in qrels][: options.queries]
    corpus = lines_of(options.folder / "corpus.jsonl")
    judged = {passage_id for each in queries for passage_id in qrels[each["_id"]]}
    others = [each for each in corpus if each["_id"] not in judged][: options.others]
    corpus = [each for each in corpus if each["_id"] in judged] + others

    encoder = Encoder.from_pretrained(options.model)
    passages = encoder.encode_passages([f"{each.get('title', '')} {each['text']}".strip() for each in corpus])
    owners = np.repeat(passages.owners, passages.doclens)
    ids = [each["_id"] for each in corpus]
    matrices = encoder.encode_queries([each["text"] for each in queries])
    print(f"{len(ids):,} passages, {len(owners):,} vectors, {len(queries)} queries")

    whole = None
    for n_tokens in [len(owners), *options.tokens]:
        tops, measured, found = [], [], []
        for query, matrix in zip(queries, matrices, strict=True):
            scores = imputed_scores(matrix, passages.vectors, owners, n_tokens, len(ids))
            best = np.argsort(-scores, kind="stable")[:10]
            tops.append({int(pid) for pid in best if np.isfinite(scores[pid])})
            found.append(np.isfinite(scores).sum())
            measured.append(ndcg([ids[pid] for pid in best if np.isfinite(scores[pid])], qrels[query["_id"]]))
        whole = whole or tops
        shared = np.mean([len(top & other) / max(len(other), 1) for top, other in zip(tops, whole, strict=True)])
        name = "MaxSim, all" if n_tokens == len(owners) else f"k'={n_tokens:,}"
        print(
            f"{name:<14} nDCG@10 {np.mean(measured):.4f}  of MaxSim's ten {shared:.3f}  passages scored {np.mean(found):,.0f}"
        )


if __name__ == "__main__":
    main()

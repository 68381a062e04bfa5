"""What words add to vectors: nDCG@10 of MaxSim, BM25, words alone, and hybrid search by several weights, through a 4-bit index.

    python benchmarks/hybrid.py DATA/scifact DATA/cranfield [--first 300] [--weights .1 .15 .2] [--work DIR] [--json OUT]

A collection is a folder with corpus.jsonl (_id, title, text), queries.jsonl (_id, text) and qrels/test.tsv. A passage is the
title and the text with a blank between them. Indexes are kept in DIR and used again. BM25 is bm25s with k1 .9, b .4, English
stems and stop words.
"""

import argparse
import json
import tempfile
from pathlib import Path

import ir_measures
from evaluate import read_jsonl, read_qrels

from colbert_core import Encoder, Index, Passage
from colbert_core.evaluation import BM25

MEASURE = ir_measures.nDCG @ 10


def open_index(folder, work, passages, encoder):
    """The 4-bit index of a collection, made if it is not there; all of its passages are compressed."""
    path = work / f"{folder.name}.idx"
    if path.exists():
        return Index.open(path, encoder)
    index = Index.create(path, encoder, nbits=4)
    index.add(passages, progress=False)
    index.compact(progress=False)
    return index


def ndcg(qrels, queries, found):
    """The measure of ranked pairs of id and score, one list for each query."""
    run = {query: {name: -rank for rank, (name, _) in enumerate(pairs)} for query, pairs in zip(queries, found, strict=True)}
    return ir_measures.calc_aggregate([MEASURE], {query: qrels[query] for query in queries}, run)[MEASURE]


def evaluate(folder, work, encoder, first, weights):
    """The figures of a collection by name."""
    qrels = read_qrels(folder / "qrels" / "test.tsv")
    judged = [line for line in read_jsonl(folder / "queries.jsonl") if any(qrels.get(line["_id"], {}).values())][:first]
    corpus = read_jsonl(folder / "corpus.jsonl")
    passages = [Passage(line["_id"], f"{line.get('title', '')} {line['text']}".strip()) for line in corpus]
    queries, texts = [line["_id"] for line in judged], [line["text"] for line in judged]
    figures = {"bm25": ndcg(qrels, queries, BM25.build(passages, progress=False).search_many(texts, 10))}
    with open_index(folder, work, passages, encoder) as index:
        settings = {"maxsim": {}, "words": {"mode": "words"}, "hybrid": {"mode": "hybrid"}}
        settings |= {f"{weight:g}": {"mode": "hybrid", "weight": weight} for weight in weights}
        for name, options in settings.items():
            hits = index.search_many(texts, 10, **options)
            figures[name] = ndcg(qrels, queries, [[(hit.passage.id, hit.score) for hit in found] for found in hits])
        stats = index.stats()
        text_bytes = sum(len(passage.text.encode()) for passage in passages)
    return figures | {"word bytes": stats.word_bytes / (stats.vector_bytes + text_bytes)}


def print_row(name, figures):
    print(f"{name:16}" + "".join(f"  {column} {value:.4f}" for column, value in figures.items()), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--first", type=int, default=300, help="only so many queries of each collection")
    parser.add_argument("--weights", type=float, nargs="+", default=[0.1, 0.15, 0.2, 0.25, 0.3])
    parser.add_argument("--work", type=Path, help="keep the indexes there")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    encoder, rows = Encoder.from_pretrained(), {}
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        for folder in options.folders:
            rows[folder.name] = evaluate(folder, work, encoder, options.first, options.weights)
            print(
                f"{folder.name:16}" + "".join(f"  {name} {value:.4f}" for name, value in rows[folder.name].items()), flush=True
            )
    columns = next(iter(rows.values())).keys()
    means = {column: sum(row[column] for row in rows.values()) / len(rows) for column in columns}
    print_row("mean", means)
    if options.json:
        options.json.write_text(json.dumps(rows | {"mean": means}, indent=2))


if __name__ == "__main__":
    main()

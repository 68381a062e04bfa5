"""What a compressed index costs and finds: build at once and in a thousand steps, size, recall, changes, opening.

    python benchmarks/index_lifecycle.py passages.jsonl queries.jsonl [--first 20000] [--first-queries 100] [--cache FOLDER]

Passages are JSON lines with _id, title and text, queries with text. Recall@10 is against exact search over the uncompressed
vectors, and against scoring every passage with the same codes. Vectors are encoded once and kept in the folder of --cache.
"""

import argparse
import itertools
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from colbert_core import Encoder, Index, Passage, TokenEmbeddings

FIELDS = ("vectors", "token_spans", "doclens", "window_spans", "owners")

FRESH = """
import sys, time
import numpy as np
from colbert_core import Index
import sqlite3, colbert_core.index.index
query = np.load(sys.argv[2])
start = time.perf_counter()
index = Index.open(sys.argv[1])
opened = time.perf_counter()
index.search(query)
print(1000 * (opened - start), 1000 * (time.perf_counter() - opened))
"""


def read_jsonl(path, first=None):
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in itertools.islice(lines, first)]


def encoded(passages, queries, model, cache):
    """Token embeddings of the passages and matrices of the queries."""
    if cache and (cache / "queries.npz").exists():
        kept = np.load(cache / "queries.npz")
        embeddings = TokenEmbeddings(**{name: np.load(cache / f"{name}.npy", mmap_mode="r") for name in FIELDS})
        return embeddings, [kept[f"arr_{i}"] for i in range(len(queries))]
    encoder = Encoder.from_pretrained(model)
    matrices = encoder.encode_queries(queries)
    embeddings = encoder.encode_passages([passage.text for passage in passages], progress=True)
    if cache:
        cache.mkdir(parents=True, exist_ok=True)
        for name in FIELDS:
            np.save(cache / f"{name}.npy", getattr(embeddings, name))
        np.savez(cache / "queries.npz", *matrices)
    return embeddings, matrices


def part(embeddings, first, last):
    """The embeddings of the passages from ``first`` to ``last``."""
    windows = slice(*np.searchsorted(embeddings.owners, [first, last]).tolist())
    ends = np.cumsum(embeddings.doclens, dtype=np.int64)
    tokens = slice(int(ends[windows.start - 1]) if windows.start else 0, int(ends[windows.stop - 1]))
    return TokenEmbeddings(
        np.array(embeddings.vectors[tokens]),
        embeddings.token_spans[tokens],
        embeddings.doclens[windows],
        embeddings.window_spans[windows],
        embeddings.owners[windows] - np.int32(first),
    )


def build(path, passages, embeddings, step):
    index = Index.create(path, dim=embeddings.vectors.shape[1])
    start = time.perf_counter()
    longest = 0.0
    for first in range(0, len(passages), step):
        last = min(first + step, len(passages))
        some = part(embeddings, first, last)
        before = time.perf_counter()
        index.add(passages[first:last], embeddings=some)
        longest = max(longest, time.perf_counter() - before)
    return index, time.perf_counter() - start, longest


def found(index, queries, **options):
    milliseconds, hits = [], []
    for query in queries:
        start = time.perf_counter()
        hits.append({hit.passage.id for hit in index.search(query, 10, **options)})
        milliseconds.append(1000 * (time.perf_counter() - start))
    return hits, statistics.median(milliseconds)


def recall(some, best):
    return statistics.mean(len(one & other) / len(other) for one, other in zip(some, best, strict=True))


def report(name, index, seconds, longest, queries, exact):
    stats = index.stats()
    every, _ = found(index, queries, exact=True)
    plain, milliseconds = found(index, queries)
    budget = 1.15 * (4 + stats.dim * stats.nbits / 8) + 2
    print(
        f"{name:16} {seconds:6.1f} s (longest call {longest:5.1f} s)  {stats.tokens} tokens  {stats.centroids} centroids  "
        f"{stats.segments} segments  {stats.bytes_per_token:.1f} bytes/token (budget {budget:.1f})\n"
        f"{'':16} recall@10 {recall(plain, exact):.4f} against exact, {recall(plain, every):.4f} against the same codes "
        f"(these: {recall(every, exact):.4f})  {milliseconds:.1f} ms a query",
        flush=True,
    )


def changes(index, passages, embeddings):
    """Median milliseconds of adding and of deleting one passage, 50 each."""
    added, deleted = [], []
    for number in range(50):
        passage, some = Passage(f"new {number}", passages[number].text), part(embeddings, number, number + 1)
        start = time.perf_counter()
        index.add([passage], embeddings=some)
        middle = time.perf_counter()
        index.delete([passages[number].id])
        added.append(1000 * (middle - start))
        deleted.append(1000 * (time.perf_counter() - middle))
    return statistics.median(added), statistics.median(deleted)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("passages", type=Path)
    parser.add_argument("queries", type=Path)
    parser.add_argument("--first", type=int, help="only so many passages")
    parser.add_argument("--first-queries", type=int, help="only so many queries; scoring everything takes a second for each")
    parser.add_argument("--model", help="default: the model in the box")
    parser.add_argument("--cache", type=Path, help="folder for the vectors")
    options = parser.parse_args()
    lines = read_jsonl(options.passages, options.first)
    passages = [Passage(line["_id"], f"{line.get('title', '')} {line['text']}".strip()) for line in lines]
    embeddings, queries = encoded(
        passages, [line["text"] for line in read_jsonl(options.queries, options.first_queries)], options.model, options.cache
    )

    uncompressed = Index.create(None, dim=embeddings.vectors.shape[1])
    uncompressed.add(passages, embeddings=embeddings)
    exact, milliseconds = found(uncompressed, queries)
    print(f"{'uncompressed':16} {milliseconds:.1f} ms a query", flush=True)
    uncompressed.close()

    folder = Path(tempfile.mkdtemp())
    try:
        for name, step in (("at once", len(passages)), ("in 1000 steps", -(-len(passages) // 1000))):
            path = folder / f"{step}.idx"
            index, seconds, longest = build(path, passages, embeddings, step)
            report(name, index, seconds, longest, queries, exact)
            print(f"{'':16} one passage: added in %.1f ms, deleted in %.1f ms" % changes(index, passages, embeddings))
            print(f"{'':16} {index.verify()}")
            index.close()
            np.save(folder / "query.npy", queries[0])
            fresh = [sys.executable, "-c", FRESH, str(path), str(folder / "query.npy")]
            times = [subprocess.run(fresh, capture_output=True, text=True, check=True).stdout.split() for _ in range(5)]
            opened, first = (statistics.median(float(time_[column]) for time_ in times) for column in (0, 1))
            print(
                f"{'':16} a new process opens it in {opened:.1f} ms, and answers its first query in {first:.1f} ms", flush=True
            )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()

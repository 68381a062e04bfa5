"""Encode texts once into a folder that the other benchmarks read: passages, and sentences held aside from them as queries.

    python benchmarks/embed.py FOLDER passages.jsonl [more.jsonl.xz ...] [--first 26000] [--queries 1000] [--model NAME]

Texts are JSON lines with _id, title and text, plain or compressed with xz. Of some of the first --from-first passages one
sentence is taken out and becomes a query; the passage is encoded without it. Stopped and started again, it goes on where it
was.
"""

import argparse
import itertools
import json
import lzma
import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from colbert_core import Encoder, TokenEmbeddings

FIELDS = ("vectors", "token_spans", "doclens", "window_spans", "owners")
SHARD = 2000  # passages


def read_jsonl(path, first=None):
    """The first lines of a file of JSON lines, or all."""
    open_text = lzma.open if path.suffix == ".xz" else open
    with open_text(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in itertools.islice(lines, first)]


def held_aside(texts, n, seed=0):
    """``n`` sentences of 30 to 60 words, and the texts without them; cut, each makes a query of 32 vectors."""
    texts, numbers, queries = list(texts), list(range(len(texts))), {}
    random.Random(seed).shuffle(numbers)
    for number in numbers:
        if len(queries) == n:
            break
        sentences = re.split(r"(?<=[.!?]) +", texts[number])
        inner = [sentence for sentence in sentences[1:] if 30 <= len(sentence.split()) <= 60]
        if len(sentences) >= 2 and inner:
            queries[number] = inner[len(inner) // 2]
            texts[number] = " ".join(sentence for sentence in sentences if sentence != queries[number])
    return queries, texts


def shards(folder):
    """The files of passages in a folder, in order."""
    return sorted(folder.glob("passages-?????.npz"))


def load_shard(path):
    """The embeddings in one file, vectors as float16."""
    with np.load(path) as arrays:
        return TokenEmbeddings(**{name: arrays[name] for name in FIELDS})


def as_float32(embeddings):
    """The same with vectors as float32."""
    return replace(embeddings, vectors=embeddings.vectors.astype(np.float32))


def load(folder, first=None):
    """The embeddings of the first passages of a folder, vectors as float16, and the queries, *Shape:* (n, n_q, dim)."""
    kept, count = {name: [] for name in FIELDS}, 0
    for path in shards(folder):
        if first is not None and count >= first:
            break
        with np.load(path) as arrays:
            owners, doclens = arrays["owners"], arrays["doclens"]
            windows = int(np.searchsorted(owners, SHARD if first is None else first - count))
            tokens = int(doclens[:windows].sum())
            for name in FIELDS:
                values = arrays[name][: tokens if name in ("vectors", "token_spans") else windows]
                kept[name].append(values + np.int32(count) if name == "owners" else values)
        count += SHARD
    if not kept["vectors"] or (first is not None and int(kept["owners"][-1][-1]) + 1 < first):
        raise SystemExit(f"{folder} holds fewer than {first} passages; run benchmarks/embed.py with a larger --first.")
    return TokenEmbeddings(**{name: np.concatenate(values) for name, values in kept.items()}), np.load(folder / "queries.npy")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("passages", type=Path, nargs="+")
    parser.add_argument("--first", type=int, help="only so many passages")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--from-first", type=int, default=26000, help="queries come from among so many passages")
    parser.add_argument("--model", help="default: the model in the box")
    options = parser.parse_args()
    lines = itertools.chain.from_iterable(read_jsonl(path, options.first) for path in options.passages)
    texts = [f"{line.get('title', '')} {line['text']}".strip() for line in itertools.islice(lines, options.first)]
    queries, head = held_aside(texts[: options.from_first], options.queries)
    texts[: options.from_first] = head
    encoder = Encoder.from_pretrained(options.model)
    options.folder.mkdir(parents=True, exist_ok=True)
    if not (options.folder / "queries.npy").exists():
        short = Encoder.from_pretrained(options.model, query_length=32)
        np.save(options.folder / "queries.npy", np.stack(short.encode_queries(list(queries.values()))))
        (options.folder / "queries.json").write_text(json.dumps(queries), encoding="utf-8")
    for start in range(0, len(texts), SHARD):
        path = options.folder / f"passages-{start // SHARD:05}.npz"
        if not path.exists():
            embeddings = encoder.encode_passages(texts[start : start + SHARD], progress=True)
            arrays = {name: getattr(embeddings, name) for name in FIELDS}
            arrays["vectors"] = arrays["vectors"].astype(np.float16)
            aside = path.with_suffix(".tmp.npz")
            np.savez(aside, **arrays)
            aside.rename(path)


if __name__ == "__main__":
    main()

"""Small collections for ColBERTv1's pipeline."""

from __future__ import annotations

import json
import random

import numpy as np

from builders.encoders import WORDS
from colbert_core import Passage, maxsim


def passages_of(n, seed=0, longest=20):
    dice = random.Random(seed)
    return [Passage(f"p{number}", " ".join(dice.choices(WORDS, k=dice.randint(1, longest)))) for number in range(n)]


def brute_force(passages, encoder, query, k):
    """Scores over the float16 vectors, the best window's for each passage; equal ones by id."""
    scores = []
    for passage in passages:
        embeddings = encoder.encode_passages([passage.text])
        vectors = embeddings.vectors.astype(np.float16).astype(np.float32)
        scores.append((passage.id, float(maxsim(query, vectors, embeddings.doclens).max())))
    return sorted(scores, key=lambda pair: (-round(pair[1], 4), pair[0]))[:k]


NAMES = [word for word in WORDS if word.isalpha()][:24]


def write_collection(folder, *, train=False):
    """Passages of eight words; a query is four words of one."""
    (folder / "qrels").mkdir(parents=True)
    random = np.random.default_rng(0)
    texts = {f"p{n}": " ".join(random.choice(NAMES, 8, replace=False)) for n in range(60)}
    queries = {f"q{n}": " ".join(texts[f"p{n}"].split()[::2]) for n in range(20)}
    (folder / "corpus.jsonl").write_text("".join(json.dumps({"_id": i, "text": t}) + "\n" for i, t in texts.items()))
    (folder / "queries.jsonl").write_text("".join(json.dumps({"_id": i, "text": t}) + "\n" for i, t in queries.items()))

    def write(split, numbers):
        (folder / "qrels" / f"{split}.tsv").write_text(
            "query-id\tcorpus-id\tscore\n" + "".join(f"q{n}\tp{n}\t1\n" for n in numbers)
        )

    write("test", range(8) if train else range(20))
    if train:
        write("train", range(8, 20))
    return folder


TINY = {"batch_size": 4, "steps": 3, "query_length": 12, "passage_length": 20}


def append(file, line):
    with file.open("a") as lines:
        lines.write(line)

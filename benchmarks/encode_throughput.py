"""Tokens encoded per second beside sentence-transformers on the same model and the same texts, in one process.

    python benchmarks/encode_throughput.py MODEL DATA/scifact/corpus.jsonl [--passages 256] [--rounds 5]

MODEL is a folder or hub name that both read: a plain sentence-transformers model. The ways to encode take turns, and the
medians of their rounds are printed, each also as a ratio to sentence-transformers. Passages are cut to what the model
reads beforehand, so that all encode the same tokens; tokenization is part of the time.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from colbert_core import Encoder


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("corpus", type=Path, help="JSON lines with text")
    parser.add_argument("--passages", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    encoders = {
        dtype: Encoder.from_pretrained(options.model, device=options.device, dtype=dtype) for dtype in ("float32", "bfloat16")
    }
    default = Encoder.from_pretrained(options.model, device=options.device)
    peer = SentenceTransformer(options.model, device=options.device)
    with options.corpus.open(encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line, _ in zip(lines, range(options.passages), strict=False)]
    texts = [text[slice(*default.split(text)[0])] for text in texts if text.strip()]
    n_tokens = sum(len(peer.tokenizer(text)["input_ids"]) for text in texts)

    ways = {
        "sentence-transformers, float32": lambda: peer.encode(
            texts, output_value="token_embeddings", show_progress_bar=False, convert_to_numpy=False
        ),
        **{
            f"colbert_core, {dtype}": (lambda encoder=encoder: encoder.encode_passages(texts, progress=False))
            for dtype, encoder in encoders.items()
        },
    }
    seconds = {name: [] for name in ways}
    for round_ in range(options.rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if round_:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)

    expected, found = (
        encoders["float32"].encode_passages(texts).vectors,
        encoders["bfloat16"].encode_passages(texts).vectors,
    )
    cosines = (expected * found).sum(axis=1)
    print(
        f"{len(texts)} passages, {n_tokens} tokens, {options.threads} threads, {options.device}; default dtype {default.dtype}"
    )
    print(f"bfloat16 against float32: mean cosine {cosines.mean():.5f}, 1st percentile {np.percentile(cosines, 1):.5f}")
    base = seconds["sentence-transformers, float32"]
    for name, values in seconds.items():
        ratio = statistics.median(b / v for b, v in zip(base, values, strict=True))
        print(f"{name:32} {n_tokens / statistics.median(values):9.0f} tokens/s  {ratio:5.2f} x")


if __name__ == "__main__":
    main()

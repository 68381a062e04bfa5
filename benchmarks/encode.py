"""Speed and faithfulness of encoding, beside sentence-transformers on the same backbone and the same texts, in one process.

    python benchmarks/encode.py passages.jsonl[.xz] [--first 128] [--model NAME] [--threads 1] [--rounds 5] [--json OUT]

The ways to encode take turns, and the medians of their CPU time are printed, each also as a ratio to sentence-transformers
(``encode(output_value="token_embeddings")``, float32) of the same round. Passages are cut to what the model reads beforehand,
so that all encode the same tokens; tokenization, and for ours the head, is part of the time. Cosines are to our float32.
"""

import argparse
import itertools
import json
import lzma
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from colbert_core import Encoder

PEER = "sentence-transformers, float32"


def read_texts(path, first):
    """The texts of the first lines of a file of JSON lines."""
    open_ = lzma.open if path.suffix == ".xz" else open
    with open_(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in itertools.islice(lines, first)]


def build_peer(encoder):
    """sentence-transformers over the backbone and the tokenizer of an encoder, as a function of texts."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Transformer

    with tempfile.TemporaryDirectory() as folder:
        encoder.save(folder, format="sentence-transformers")  # only its first module, the plain backbone, is loaded
        transformer = Transformer(folder, max_seq_length=encoder.config.passage_length)
    model = SentenceTransformer(modules=[transformer], device=str(encoder.device)).float()
    return lambda texts: model.encode(texts, output_value="token_embeddings", show_progress_bar=False, convert_to_numpy=False)


def build_ways(model, device):
    """Every way to encode by its name, each a function of texts; sentence-transformers first, if it is to be had."""
    exact, default = (
        Encoder.from_pretrained(model, device=device, dtype="float32"),
        Encoder.from_pretrained(model, device=device),
    )
    ways = {}
    try:
        ways[PEER] = build_peer(exact)
    except Exception as error:
        print(f"without sentence-transformers: {error}")
    ways["colbert_core, float32"] = exact.encode_passages
    ways[f"colbert_core, {default.describe()['dtype']} (default)"] = default.encode_passages
    return exact, default, ways


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("passages", type=Path, help="JSON lines with text, plain or compressed with xz")
    parser.add_argument("--first", type=int, default=128, help="only so many passages")
    parser.add_argument("--model", help="default: the model in the box")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="on another than cpu, the time on the wall counts")
    parser.add_argument("--json", type=Path, help="where to write the figures too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.device == "cpu" else time.perf_counter

    exact, default, ways = build_ways(options.model, options.device)
    texts = [exact.split(text, "text")[0].text for text in read_texts(options.passages, options.first) if text.strip()]
    seconds = {name: [] for name in ways}
    for round_ in range(options.rounds + 1):
        for name, way in ways.items():
            start = clock()
            way(texts)
            if round_:  # the first round warms up
                seconds[name].append(clock() - start)

    expected, found = exact.encode_passages(texts).vectors, default.encode_passages(texts).vectors
    cosines = (expected * found).sum(axis=1)
    n_tokens = sum(len(one.ids) for one in exact._inputs.passages(texts))
    figures = {
        "passages": len(texts),
        "tokens": n_tokens,
        "threads": options.threads,
        "device": options.device,
        "cosine": {"mean": cosines.mean(), "p1": np.percentile(cosines, 1), "min": cosines.min()},
        "ways": {
            name: {
                "tokens_per_second": n_tokens / statistics.median(values),
                "ratio": statistics.median(base / value for base, value in zip(seconds[PEER], values, strict=True))
                if PEER in seconds
                else None,
            }
            for name, values in seconds.items()
        },
    }
    print(f"{len(texts)} passages, {n_tokens} tokens, {options.threads} threads, {options.device}")
    for name, way in figures["ways"].items():
        ratio = "" if way["ratio"] is None else f"  {way['ratio']:5.2f} x"
        print(f"{name:34} {way['tokens_per_second']:9.0f} tokens/s{ratio}")
    print("default to float32: " + ", ".join(f"{name} cosine {value:.5f}" for name, value in figures["cosine"].items()))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2, default=float) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Make what the model in the box starts from: all-MiniLM-L6-v2, a seventh layer, a projection by PCA, stored as int8.

    python benchmarks/make_default_model.py SOURCE TRAIN OUT [--dim 128] [--passages 10000]

SOURCE is a folder with the original all-MiniLM-L6-v2 (its sha256 is checked), TRAIN a folder of *.jsonl.xz with "positive" (or
"text"), OUT a folder that will hold a checkpoint in the Stanford ColBERT layout, in OUT/wide the same without the projection,
and in OUT/rounded the same with weights rounded to 255 steps a row. The result depends on nothing else: the sample is the same
for the same texts, and the encoder runs in float32.

The source was trained for the mean of its token vectors, of which its single tokens know little. The seventh layer gives them a
share of it: its attention is uniform (queries and keys are small random numbers, so that training can make it something
else), its values are the tokens themselves, its feed-forward part returns 0. So each token vector t of a text becomes
t + SHARE m, m the mean of all, and MaxSim compares the texts as wholes beside their words. To any loader it is a BERT of
seven layers.

PCA without centring: cosines are about the origin, so the directions to keep are those of the second moment, not of the
variance. The moment of the texts' means is added, centred and weighted by POOLED, because what tells one text from another is
a small part of what tells tokens apart. The model card lists what other variants measured.
"""

import argparse
import hashlib
import json
import lzma
import random
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from colbert_core import Encoder
from colbert_core.model.checkpoint import quantize_weights

SOURCE_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
SHARE = 0.6  # of 0, 0.3, 0.6, 1, 1.5 and 2.5 the best over SciFact, Cranfield and CosQA
POOLED = 2.0
RECIPE = {
    "query_maxlen": 256,
    "doc_maxlen": 128,
    "mask_punctuation": True,
    "query_augmentation": False,
    "query_token_id": None,
    "doc_token_id": None,
    "trained": False,
    "similarity": "cosine",
}


def sample_texts(folder, n_passages, seed=0):
    """The same number of passages from each file, or all it has, drawn with a fixed seed."""
    files = sorted(folder.glob("*.jsonl.xz"))
    rng = random.Random(seed)
    for file in files:
        with lzma.open(file, "rt", encoding="utf-8") as lines:
            all_lines = list(lines)
            for line in rng.sample(all_lines, min(n_passages // len(files), len(all_lines))):
                record = json.loads(line)
                yield f"{record.get('title') or ''} {record.get('positive') or record['text']}".strip()


def with_seventh_layer(source, out, seed=0):
    """Write ``source`` with one more layer, which mixes the mean of all token vectors into each."""
    shutil.copytree(source, out)
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    size, inner, layer = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    (out / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layer + 1}, indent=2) + "\n", encoding="utf-8")
    weights = {
        name: tensor
        for name, tensor in load_file(source / "model.safetensors").items()
        if not name.startswith("pooler.") and not name.endswith("position_ids")
    }
    generator = torch.Generator().manual_seed(seed)

    def small(*shape):
        return 0.02 * torch.randn(*shape, generator=generator)

    added = {
        "attention.self.query": (small(size, size), size),
        "attention.self.key": (small(size, size), size),
        "attention.self.value": (torch.eye(size), size),
        "attention.output.dense": (SHARE * torch.eye(size), size),
        "attention.output.LayerNorm": (torch.ones(size), size),
        "intermediate.dense": (small(inner, size), inner),
        "output.dense": (torch.zeros(size, inner), size),
        "output.LayerNorm": (torch.ones(size), size),
    }
    for name, (weight, n_biases) in added.items():
        weights[f"encoder.layer.{layer}.{name}.weight"] = weight
        weights[f"encoder.layer.{layer}.{name}.bias"] = torch.zeros(n_biases)
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})


def second_moment(encoder, texts, at_a_time=500):
    """Mean outer products of token vectors and, weighted by POOLED, of texts' centred unit means: (dim, dim) float64."""
    total, count, means = np.zeros((encoder.dim, encoder.dim)), 0, []
    for first in range(0, len(texts), at_a_time):
        embeddings = encoder.encode_passages(texts[first : first + at_a_time], progress=False)
        vectors = embeddings.vectors
        total += (vectors.T @ vectors).astype(np.float64)
        count += len(vectors)
        starts = np.cumsum(embeddings.doclens) - embeddings.doclens
        means.append(np.add.reduceat(vectors, starts, axis=0))
        print(f"\r{first + at_a_time} of {len(texts)} passages, {count} token vectors", end="", flush=True)
    print()
    pooled = np.concatenate(means)
    pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
    pooled -= pooled.mean(axis=0)
    of_tokens, of_texts = total / count, (pooled.T @ pooled).astype(np.float64) / len(pooled)
    return of_tokens / np.trace(of_tokens) + POOLED * of_texts / np.trace(of_texts)


def fitted_projection(moment, dim):
    """The ``dim`` eigenvectors of largest eigenvalue as rows, signs fixed: their largest component is positive."""
    values, vectors = np.linalg.eigh(moment)
    values, rows = values[::-1][:dim], vectors[:, ::-1][:, :dim].T  # eigh sorts ascending
    rows = rows * np.sign(rows[np.arange(dim), np.abs(rows).argmax(axis=1)])[:, None]
    print(f"{dim} of {len(moment)} dimensions keep {values.sum() / np.trace(moment):.4f} of the squared length")
    return torch.from_numpy(rows.astype(np.float32))


def rounded_rows(matrix):
    """``matrix`` in 255 steps, the same for a whole row: BERT has a few columns of large weights, so small ones move far."""
    scale = matrix.float().abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
    return ((matrix.float() / scale).round() * scale).contiguous()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("train", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--passages", type=int, default=10_000)
    options = parser.parse_args()

    digest = hashlib.sha256((options.source / "model.safetensors").read_bytes()).hexdigest()
    if digest != SOURCE_SHA256:
        raise SystemExit(f"{options.source}/model.safetensors has the sha256 {digest}, expected {SOURCE_SHA256}.")
    options.out.mkdir(parents=True)
    with_seventh_layer(options.source, options.out / "wide")
    encoder = Encoder.from_pretrained(str(options.out / "wide"), dtype="float32", passage_length=RECIPE["doc_maxlen"])
    moment = second_moment(encoder, list(sample_texts(options.train, options.passages)))
    projection = fitted_projection(moment, options.dim)

    weights = {f"bert.{name}": tensor for name, tensor in load_file(options.out / "wide" / "model.safetensors").items()}
    weights["linear.weight"] = projection
    save_file(quantize_weights(weights), options.out / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((options.out / "wide" / "config.json").read_text(encoding="utf-8"))
    config = {key: value for key, value in config.items() if not key.startswith("_")} | {"architectures": ["HF_ColBERT"]}
    (options.out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    recipe = {"dim": options.dim, **RECIPE}
    (options.out / "artifact.metadata").write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(options.source / name, options.out / name)
    rounded = options.out / "rounded"
    shutil.copytree(options.out, rounded, ignore=shutil.ignore_patterns("wide", "model.safetensors"))
    stored = {name: rounded_rows(tensor) if tensor.ndim == 2 else tensor.float() for name, tensor in weights.items()}
    save_file(stored, rounded / "model.safetensors", metadata={"format": "pt"})
    size = sum(file.stat().st_size for file in options.out.iterdir() if file.is_file())
    print(f"{options.out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

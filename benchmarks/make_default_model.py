"""Make what the model in the box starts from: all-MiniLM-L6-v2, a projection of its token vectors by PCA, stored as int8.

    python benchmarks/make_default_model.py SOURCE TEXTS OUT [--dim 128] [--passages 10000]

SOURCE is a folder with the original all-MiniLM-L6-v2 (its sha256 is checked), TEXTS a folder of *.jsonl.xz with "title" and
"text", OUT a folder that will hold a checkpoint in the Stanford ColBERT layout. The result depends on nothing else: the
sample is the same for the same texts, and the encoder runs in float32.

PCA without centring: cosines are about the origin, so the directions to keep are those of the second moment, not of the
variance. Each kept direction is then scaled by its eigenvalue to the power -1/4, half way to whitening, so that the few
directions which all tokens share weigh less. The model card lists what other variants measured.
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
from colbert_core.checkpoint import quantize_rows

SOURCE_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
RECIPE = {
    "query_maxlen": 256,
    "doc_maxlen": 256,
    "mask_punctuation": True,
    "query_augmentation": False,
    "query_token_id": None,
    "doc_token_id": None,
    "trained": False,
    "similarity": "cosine",
}


def sample_texts(folder, n_passages, seed=0):
    """The same number of passages from each file, drawn with a fixed seed."""
    files = sorted(folder.glob("*.jsonl.xz"))
    rng = random.Random(seed)
    for file in files:
        with lzma.open(file, "rt", encoding="utf-8") as lines:
            for line in rng.sample(list(lines), n_passages // len(files)):
                record = json.loads(line)
                yield f"{record.get('title') or ''} {record['text']}".strip()


def second_moment(encoder, texts, at_a_time=500):
    """The mean outer product of all token vectors, (hidden, hidden) float64."""
    total, count = np.zeros((encoder.dim, encoder.dim)), 0
    for first in range(0, len(texts), at_a_time):
        vectors = encoder.encode_passages(texts[first : first + at_a_time], progress=False).vectors
        total += (vectors.T @ vectors).astype(np.float64)
        count += len(vectors)
        print(f"\r{first + at_a_time} of {len(texts)} passages, {count} token vectors", end="", flush=True)
    print()
    return total / count


def fitted_projection(moment, dim):
    """The ``dim`` eigenvectors of largest eigenvalue as scaled rows, signs fixed: their largest component is positive."""
    values, vectors = np.linalg.eigh(moment)
    values, rows = values[::-1][:dim], vectors[:, ::-1][:, :dim].T  # eigh sorts ascending
    rows = rows * np.sign(rows[np.arange(dim), np.abs(rows).argmax(axis=1)])[:, None]
    print(f"{dim} of {len(moment)} dimensions keep {values.sum() / np.trace(moment):.4f} of the squared length")
    return torch.from_numpy((rows * (values / values[0])[:, None] ** -0.25).astype(np.float32))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--passages", type=int, default=10_000)
    options = parser.parse_args()

    digest = hashlib.sha256((options.source / "model.safetensors").read_bytes()).hexdigest()
    if digest != SOURCE_SHA256:
        raise SystemExit(f"{options.source}/model.safetensors has the sha256 {digest}, expected {SOURCE_SHA256}.")
    encoder = Encoder.from_pretrained(str(options.source), dtype="float32")
    projection = fitted_projection(second_moment(encoder, list(sample_texts(options.texts, options.passages))), options.dim)

    options.out.mkdir(parents=True, exist_ok=True)
    weights = {
        f"bert.{name}": tensor
        for name, tensor in load_file(options.source / "model.safetensors").items()
        if not name.startswith("pooler.") and not name.endswith("position_ids")
    }
    stored = quantize_rows(weights | {"linear.weight": projection})
    save_file(stored, options.out / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((options.source / "config.json").read_text(encoding="utf-8"))
    config = {key: value for key, value in config.items() if not key.startswith("_")} | {"architectures": ["HF_ColBERT"]}
    (options.out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    recipe = {"dim": options.dim, **RECIPE}
    (options.out / "artifact.metadata").write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(options.source / name, options.out / name)
    size = sum(file.stat().st_size for file in options.out.iterdir())
    print(f"{options.out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

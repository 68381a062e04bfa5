"""Examples that a tiny model learns from in seconds, and what its runs write. Run as a script, it is one training run."""

from __future__ import annotations

import gzip
import json
import lzma
import sys

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from builders.encoders import write_untrained
from colbert_core import Reranker
from colbert_core.train import Example
from colbert_core.types import Passage

CAT = Example("what sound does a cat make", "cats purr", ("dogs bark", "rust is a language"))
DOG = Example("what sound does a dog make", "dogs bark", ("cats purr",))

SOUNDS = {"cat": "purr", "dog": "bark", "rust": "language", "mat": "sat"}
ENDS = ("and", "or", "of")


def others(sound, first):
    """The other sounds, another one first for each number."""
    sounds = [other for other in SOUNDS.values() if other != sound]
    return sounds[first:] + sounds[:first]


EXAMPLES = [
    Example(
        f"what sound does {article} {animal} {verb}", f"{sound} {end}", tuple(f"{other} {end}" for other in others(sound, i))
    )
    for animal, sound in SOUNDS.items()
    for article in ("a", "the")
    for verb in ("make", "happy")
    for i, end in enumerate(ENDS)
]
TINY = {"query_length": 10, "passage_length": 12, "dim": 16, "batch_size": 8, "epochs": 100, "learning_rate": 3e-3}


def write(path, text):
    """Write a text file, compressed if its name says so."""
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    with opener(path, "wt", encoding="utf-8") as file:
        file.write(text)
    return path


def write_base(folder, *, dropout=0.1):
    """A random encoder, its weights small enough to learn from."""
    write_untrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    tensors = {name: tensor / 3 if tensor.ndim == 2 else tensor for name, tensor in tensors.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def entries(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def losses(run):
    return [entry["loss"] for entry in entries(run) if "loss" in entry]


def weights(model):
    return load_file(model / "model.safetensors")


def assert_same_weights(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def accuracy(encoder):
    """How often the right sound is first."""
    reranker = Reranker(encoder)
    passages = [Passage(sound, f"{sound} and") for sound in SOUNDS.values()]
    firsts = {animal: reranker.rank(f"what sound does a {animal} make", passages, top_n=1) for animal in SOUNDS}
    return float(np.mean([hits[0].passage.id == SOUNDS[animal] for animal, hits in firsts.items()]))


def command(base, out, **settings):
    """The arguments of a process that runs ``main``, behind those that start Python."""
    return ["-m", "builders.training", str(base), str(out), json.dumps(settings)]


def main(base, out, settings):
    """Train once, with a quick evaluation."""
    from colbert_core.train import train

    train(EXAMPLES, base, out=out, evaluate=accuracy, **TINY | json.loads(settings))


if __name__ == "__main__":
    main(*sys.argv[1:])

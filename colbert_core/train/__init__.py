"""Training of ColBERT models: examples, losses, and a loop that can be killed at any time.

    >>> from colbert_core.train import read_examples, train
    >>> result = train(read_examples("triples.train.small.tsv"), "bert-base-uncased", out="runs/first", preset="colbertv1")
    >>> Encoder.from_pretrained(result.model)

In reading order: presets (settings), examples (files), alike, data (token ids on disk), model, batches, checking (what data
cannot teach), losses, gradients, folder, loop.
"""

from colbert_core.train.data import Examples, prepare
from colbert_core.train.examples import Example, read_examples, read_id_triples, read_texts, write_examples
from colbert_core.train.folder import TrainResult
from colbert_core.train.loop import train
from colbert_core.train.model import ColBERT
from colbert_core.train.presets import PRESETS, TrainConfig, configured

__all__ = [
    "PRESETS",
    "ColBERT",
    "Example",
    "Examples",
    "TrainConfig",
    "TrainResult",
    "configured",
    "prepare",
    "read_examples",
    "read_id_triples",
    "read_texts",
    "train",
    "write_examples",
]

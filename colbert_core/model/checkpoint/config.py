"""A checkpoint once it is read, whatever its format: a recipe, the backbone's weights and a head."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import torch

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EncoderConfig:
    """The recipe of a checkpoint: how text becomes the vectors it was trained for. Read from the checkpoint, not chosen.

    A sequence is ``[CLS] marker prompt text [SEP]``: a marker is one token, put there by its id; a prompt is text, tokenized
    together with what follows it.

    Attributes:
        format: format that the recipe was read in: "stanford", "pylate", "sentence-transformers", "nanocolbert",
            "flagembedding", "xtr" or "untrained".
        query_length: tokens of a query, the model's own included; longer queries are cut (with a logged warning).
        passage_length: tokens of a passage window, the model's own included.
        query_marker: token put after [CLS] in a query, None for none.
        passage_marker: the same in a passage.
        query_prompt: text put before every query.
        passage_prompt: text put before every passage window.
        augment_queries: fill queries up with a mask token; the masks' vectors score like any other (query augmentation,
            ColBERT, SIGIR 2020, section 3.2; query expansion in other libraries).
        augmentation_token: the token that fills, None for the tokenizer's mask token.
        augmentation_length: fill up to so many tokens, None for query_length.
        attend_to_augmentation: let the other tokens attend to those masks.
        skip_punctuation: drop the vectors of passage tokens that are ASCII punctuation, by Stanford's rule: the first piece
            that the tokenizer makes of each character.
        skip_tokens: drop the vectors of these tokens of the vocabulary as well.
        skip_in_queries: drop both kinds in queries too.
        skip_first: drop the vector of the first token, [CLS], of queries and passages.
        lowercase: lower-case texts before the tokenizer sees them.
        similarity: the model was trained with it: "cosine", "l2", "maxsim" or "meanmaxsim". Over unit vectors all four rank
            alike, so the engine always scores cosine; this is for the record.
        pool_factor: token pooling of the checkpoint: about 1 / pool_factor of a passage's vectors stay; 1 for no pooling.
        pool_protected: number of leading vectors of a passage that pooling leaves alone.
        trained: False for a model that never learned late interaction.
        nested_dims: numbers of leading components that the model was trained to be cut to, ascending (Matryoshka
            representation learning, Kusupati et al., NeurIPS 2022); empty where its files name none.
    """

    format: str = "stanford"
    query_length: int = 32
    passage_length: int = 220
    query_marker: str | None = None
    passage_marker: str | None = None
    query_prompt: str = ""
    passage_prompt: str = ""
    augment_queries: bool = False
    augmentation_token: str | None = None
    augmentation_length: int | None = None
    attend_to_augmentation: bool = False
    skip_punctuation: bool = False
    skip_tokens: tuple[str, ...] = ()
    skip_in_queries: bool = False
    skip_first: bool = False
    lowercase: bool = False
    similarity: str = "cosine"
    pool_factor: float = 1.0
    pool_protected: int = 1
    trained: bool = True
    nested_dims: tuple[int, ...] = ()


@dataclass(frozen=True)
class Dense:
    """One layer of a head: ``activation(x W' + b)``, plus x or a projection of it where there is a residual.

    Attributes:
        weight: *Shape:* (out, in), floating point.
        bias: *Shape:* (out,), or None.
        activation: name of a module of ``torch.nn`` that takes no arguments, such as "Identity" or "GELU".
        residual: add the layer's input to its output.
        residual_weight: *Shape:* (out, in), what the input is projected with first; None adds it as it is.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    activation: str = "Identity"
    residual: bool = False
    residual_weight: torch.Tensor | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the layer is a matrix and nothing else, like ColBERT's projection."""
        return self.bias is None and self.activation == "Identity" and not self.residual

    def describe(self) -> str:
        """Describe the layer, such as "384 -> 128, bias, GELU"."""
        parts = {"bias": self.bias is not None, self.activation: self.activation != "Identity", "residual": self.residual}
        sizes = f"{self.weight.shape[1]} -> {self.weight.shape[0]}"
        return ", ".join([sizes, *(name for name, holds in parts.items() if holds)])


@dataclass(frozen=True)
class Checkpoint:
    """A model as it was read.

    Attributes:
        folder: folder of its config.json and tokenizer.
        config: its recipe.
        weights: the backbone's tensors by name, restored to floating point.
        head: the layers between hidden states and vectors, in order; none where the hidden states are the vectors.
    """

    folder: Path
    config: EncoderConfig
    weights: dict[str, torch.Tensor]
    head: tuple[Dense, ...] = ()

    def cut_to(self, dim: int | None, hidden: int) -> Checkpoint:
        """Keep the first ``dim`` components of every vector, which is made a unit vector after that.

        Args:
            dim: components that stay; None for all.
            hidden: components of a hidden state.

        Raises:
            TypeError: dim is no whole number.
            ValueError: the vectors have fewer components.
        """
        full = self.head[-1].weight.shape[0] if self.head else hidden
        if dim is None:
            return self
        if not isinstance(dim, int) or isinstance(dim, bool):
            raise TypeError(f"dim must be a whole number of components, got {dim!r}.")
        nested = self.config.nested_dims
        if not 1 <= dim <= full:
            known = f"; it was trained to be cut to {', '.join(map(str, nested))}" if nested else ""
            raise ValueError(f"dim={dim} must be from 1 to {full}, the components of the vectors of {self.folder}{known}.")
        if dim == full:
            return self
        if dim not in nested:
            trained = (
                f"it was trained for {', '.join(map(str, nested))}" if nested else "its files name no dimensions to cut to"
            )
            logger.warning(
                "Vectors of %s are cut from %d components to %d, and %s: what they find may be much worse; measure it.",
                self.folder, full, dim, trained,
            )  # fmt: skip
        config = replace(self.config, nested_dims=tuple(known for known in nested if known <= dim))
        return replace(self, config=config, head=_first_components(self.head, dim, full))


def _first_components(head: tuple[Dense, ...], dim: int, full: int) -> tuple[Dense, ...]:
    """Cut the last layer where it is linear, so that a head of one matrix stays one; else put a layer behind it."""
    import torch

    last = head[-1] if head else None
    if last is None or last.activation != "Identity" or last.residual:
        return (*head, Dense(torch.eye(full)[:dim].clone()))
    bias = None if last.bias is None else last.bias[:dim].clone()
    return (*head[:-1], replace(last, weight=last.weight[:dim].clone(), bias=bias))

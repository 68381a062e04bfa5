"""A ColBERT model as it is trained: backbone, head and recipe, with gradients. Encoding texts for search is the Encoder's."""

from __future__ import annotations

import copy
from dataclasses import replace
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

import torch

from colbert_core.errors import UnsupportedCheckpointError
from colbert_core.model.backbone import Head, build_backbone, build_head, most_tokens
from colbert_core.model.checkpoint import DEFAULT_MODEL, Dense, download_named, find_checkpoint, read_checkpoint
from colbert_core.model.encoder import Encoder
from colbert_core.model.inputs import InputBuilder
from colbert_core.model.tokenizer import Tokenizer

if TYPE_CHECKING:
    from colbert_core.model.checkpoint import EncoderConfig
    from colbert_core.train.presets import TrainConfig

# The markers of Stanford's checkpoints, and what is put before texts where a vocabulary has no such tokens.
_MARKERS = ("[unused0]", "[unused1]")
_PROMPTS = ("query: ", "passage: ")


class ColBERT(torch.nn.Module):
    """Backbone, head and recipe of a model that learns; float32.

    Attributes:
        name: of the checkpoint it started from.
        recipe: how it reads texts.
        backbone: a transformers encoder.
        head: hidden states to vectors.
    """

    def __init__(
        self, backbone: torch.nn.Module, head: Head | None, tokenizer: Tokenizer, config: EncoderConfig, *, name: str
    ) -> None:
        """Take finished parts, which are trained in place; ``from_pretrained`` is the usual door.

        Raises:
            CheckpointError: the tokenizer lacks a token that the recipe needs.
            ValueError: a length leaves no room for text, or is more than the backbone reads.
        """
        super().__init__()
        self.name = name
        self.inputs = InputBuilder(config, tokenizer, most_tokens=most_tokens(backbone), name=name)
        self.backbone: Any = backbone  # transformers' models have no annotations
        self.head = head

    @classmethod
    def from_pretrained(
        cls,
        name: str | PathLike[str] | None,
        config: TrainConfig,
        *,
        trust_remote_code: bool = False,
        local_files_only: bool = False,
    ) -> ColBERT:
        """Load a checkpoint to train further, by its own recipe and at the lengths of a configuration.

        A model that never learned late interaction, and has no recipe of its own, gets one: Stanford's markers (or prompts
        where its vocabulary has none), queries filled up with mask tokens, punctuation skipped, and a new random projection
        to ``config.dim`` components. Weights stored as int8 are restored to float32 and trained as such.

        Args:
            name: as for ``Encoder.from_pretrained``; None for the model in the box.
            config: of the training.
            trust_remote_code: run code that comes with the checkpoint.
            local_files_only: use the hub's cache and no network.

        Raises:
            CheckpointError: as for ``Encoder.from_pretrained``.
            ValueError: a length that the model cannot have.
        """
        name = None if name is None else fspath(name)
        source = DEFAULT_MODEL if name is None else find_checkpoint(name, local_files_only=local_files_only)
        with download_named(source):
            checkpoint = read_checkpoint(source, chosen=("query_length", "passage_length"), local_files_only=local_files_only)
            tokenizer = Tokenizer.from_folder(
                checkpoint.folder, lowercase=checkpoint.config.lowercase, trust_remote_code=trust_remote_code
            )
        backbone: Any = build_backbone(checkpoint, trust_remote_code=trust_remote_code)
        layers = checkpoint.head
        recipe = checkpoint.config
        if recipe.format == "untrained":
            recipe = _new_recipe(recipe, tokenizer)
            layers = (_random_layer(backbone.config.hidden_size, config.dim, config.seed),)
        recipe = _at_lengths(recipe, config, most_tokens(backbone))
        return cls(backbone, build_head(layers), tokenizer, recipe, name="default" if name is None else name)

    def forward(self, *inputs: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Unit vectors of each input's tokens, padding included.

        Several inputs in one call, queries and passages, are one forward pass to what wraps this for several devices.

        Args:
            inputs: ids *Shape:* (n, length), int64, and attended *Shape:* (n,), int64, the number of leading tokens that
                may be attended to.

        Returns:
            For each input *Shape:* (n, length, dim), float32.
        """
        return tuple(self._vectors(ids, attended) for ids, attended in inputs)

    def _vectors(self, ids: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        attention = torch.arange(ids.shape[1], device=ids.device) < attended[:, None]  # (n, length)
        hidden: torch.Tensor = self.backbone(input_ids=ids, attention_mask=attention.long()).last_hidden_state
        with torch.autocast(hidden.device.type, enabled=False):  # head and length are float32, as the Encoder has them
            vectors = hidden.float() if self.head is None else self.head(hidden.float())  # (n, length, dim)
            return torch.nn.functional.normalize(vectors, dim=-1)

    def encoder(self) -> Encoder:
        """A copy of the model as it is now, to encode with; training goes on without touching it."""
        backbone = copy.deepcopy(self.backbone).eval().requires_grad_(requires_grad=False)
        head = None if self.head is None else copy.deepcopy(self.head).eval().requires_grad_(requires_grad=False)
        backbone.config.architectures = [type(backbone).__name__]
        return Encoder(backbone, head, self.inputs.tokenizer, self.inputs.config, name=f"{self.name} in training")

    def save(self, path: str | PathLike[str]) -> str:
        """Write the model as a checkpoint, in Stanford's format if that can hold its recipe, else sentence-transformers'.

        Returns:
            The format.

        Raises:
            FileExistsError: the folder holds something.
            UnsupportedCheckpointError: neither format can hold it.
        """
        encoder = self.encoder()
        try:
            encoder.save(path, format="stanford")
        except UnsupportedCheckpointError:
            encoder.save(path, format="sentence-transformers")
            return "sentence-transformers"
        return "stanford"


def _new_recipe(recipe: EncoderConfig, tokenizer: Tokenizer) -> EncoderConfig:
    """Stanford's recipe for a model without one of its own."""
    has_markers = len(tokenizer.known_ids(_MARKERS)) == len(_MARKERS)
    markers = _MARKERS if has_markers else (None, None)
    prompts = ("", "") if has_markers else _PROMPTS
    return replace(
        recipe,
        format="stanford",
        query_marker=markers[0],
        passage_marker=markers[1],
        query_prompt=prompts[0],
        passage_prompt=prompts[1],
        augment_queries=tokenizer.mask_id is not None,
        skip_punctuation=True,
    )


def _at_lengths(recipe: EncoderConfig, config: TrainConfig, most: int) -> EncoderConfig:
    """The recipe that training ends with.

    Where queries are filled up, their length is how many vectors they have, and part of what is learned; elsewhere it only
    says what is cut, and the model goes on reading all it read.
    """
    query_length = config.query_length if recipe.augment_queries else max(config.query_length, recipe.query_length)
    query_length = min(query_length, most)
    fill = recipe.augmentation_length
    return replace(
        recipe,
        query_length=query_length,
        passage_length=min(config.passage_length, most),
        augmentation_length=None if fill is None else min(fill, query_length),
        similarity=config.similarity,
        trained=True,
    )


def _random_layer(hidden: int, dim: int, seed: int) -> Dense:
    """A projection as ``torch.nn.Linear`` begins with, by its own generator, so that nothing else moves it."""
    generator = torch.Generator().manual_seed(seed)
    return Dense((2 * torch.rand(dim, hidden, generator=generator) - 1) / hidden**0.5)

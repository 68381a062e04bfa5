"""A ColBERT model in training, with gradients. ``Encoder`` encodes texts for search."""

from __future__ import annotations

import copy
from dataclasses import replace
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

import torch

from colbert_core.errors import UnsupportedCheckpointError
from colbert_core.model.backbone import Head, build_backbone, build_head, hidden_size, most_tokens
from colbert_core.model.checkpoint import DEFAULT_MODEL, Dense, download_named, find_checkpoint, read_checkpoint
from colbert_core.model.encoder import Encoder
from colbert_core.model.inputs import InputBuilder
from colbert_core.model.tokenizer import Tokenizer

if TYPE_CHECKING:
    from colbert_core.model.checkpoint import EncoderConfig
    from colbert_core.train.presets import TrainConfig

# The markers of Stanford's checkpoints, and prompts that take their place where a vocabulary lacks these tokens.
_MARKERS = ("[unused0]", "[unused1]")
_PROMPTS = ("query: ", "passage: ")


class ColBERT(torch.nn.Module):
    """Backbone and head of a model that is trained, in float32, and how it reads texts.

    Attributes:
        name: name of the checkpoint it started from.
        inputs: turns texts into token ids; has the tokenizer and the configuration.
        backbone: a transformers encoder.
        head: turns hidden states into vectors.
    """

    def __init__(
        self, backbone: torch.nn.Module, head: Head | None, tokenizer: Tokenizer, config: EncoderConfig, *, name: str
    ) -> None:
        """Take finished parts, which are trained in place. Use ``from_pretrained`` to load them.

        Raises:
            CheckpointError: the tokenizer lacks a token that the configuration names.
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
        language: str | None = None,
        trust_remote_code: bool = False,
        local_files_only: bool = False,
    ) -> ColBERT:
        """Load a checkpoint to train further. It goes on reading texts as before, at the lengths of the training's settings.

        A model that never learned late interaction gets Stanford's configuration: markers (or prompts if its vocabulary has no
        such tokens), queries filled up with mask tokens, punctuation skipped, and a new random projection to ``config.dim``
        components. Weights stored as int8 are restored to float32 and trained as such.

        Args:
            name: as for ``Encoder.from_pretrained``; None for the model in the box.
            config: settings of the training.
            language: as for ``Encoder.from_pretrained``.
            trust_remote_code: run code that comes with the checkpoint.
            local_files_only: use the hub's cache and no network.

        Raises:
            CheckpointError: as for ``Encoder.from_pretrained``.
            ValueError: the model cannot have a length of the settings, or the language.
        """
        name = None if name is None else fspath(name)
        source = DEFAULT_MODEL if name is None else find_checkpoint(name, local_files_only=local_files_only)
        with download_named(source):
            checkpoint = read_checkpoint(source, chosen=("query_length", "passage_length"), local_files_only=local_files_only)
            tokenizer = Tokenizer.from_folder(
                checkpoint.folder, lowercase=checkpoint.config.lowercase, trust_remote_code=trust_remote_code
            )
        backbone: Any = build_backbone(checkpoint, trust_remote_code=trust_remote_code, language=language)
        layers = checkpoint.head
        encoder_config = checkpoint.config
        if encoder_config.format == "untrained":
            encoder_config = _stanford_config(encoder_config, tokenizer)
            layers = (_random_layer(hidden_size(backbone), config.dim, config.seed),)
        encoder_config = _with_lengths(encoder_config, config, most_tokens(backbone))
        return cls(backbone, build_head(layers), tokenizer, encoder_config, name="default" if name is None else name)

    def forward(self, *inputs: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Compute unit vectors of the tokens of each input, padding included.

        Queries and passages are given in one call, since a wrapper for several devices expects one forward pass for each step.

        Args:
            inputs: pairs of token ids, *Shape:* (n, length), int64, and of the number of leading tokens that may be attended
                to, *Shape:* (n,), int64.

        Returns:
            For each input unit vectors, *Shape:* (n, length, dim), float32.
        """
        return tuple(self._vectors(ids, attended) for ids, attended in inputs)

    def _vectors(self, ids: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        attention = torch.arange(ids.shape[1], device=ids.device) < attended[:, None]  # (n, length)
        hidden: torch.Tensor = self.backbone(input_ids=ids, attention_mask=attention.long()).last_hidden_state
        with torch.autocast(hidden.device.type, enabled=False):  # float32 from the head on, as in the Encoder
            vectors = hidden.float() if self.head is None else self.head(hidden.float())  # (n, length, dim)
            return torch.nn.functional.normalize(vectors, dim=-1)

    def encoder(self) -> Encoder:
        """Copy the model as it is now into an encoder, which training does not change."""
        backbone = copy.deepcopy(self.backbone).eval().requires_grad_(requires_grad=False)
        head = None if self.head is None else copy.deepcopy(self.head).eval().requires_grad_(requires_grad=False)
        backbone.config.architectures = [type(backbone).__name__]
        return Encoder(backbone, head, self.inputs.tokenizer, self.inputs.config, name=f"{self.name} in training")

    def save(self, path: str | PathLike[str]) -> str:
        """Write the model as a checkpoint, in Stanford's format if that can hold it, else in sentence-transformers'.

        Returns:
            The name of the format.

        Raises:
            FileExistsError: the folder holds something.
            UnsupportedCheckpointError: neither format can hold the model.
        """
        encoder = self.encoder()
        try:
            encoder.save(path, format="stanford")
        except UnsupportedCheckpointError:
            encoder.save(path, format="sentence-transformers")
            return "sentence-transformers"
        return "stanford"


def _stanford_config(encoder_config: EncoderConfig, tokenizer: Tokenizer) -> EncoderConfig:
    """Return Stanford's configuration, for a model that never learned late interaction."""
    has_markers = len(tokenizer.known_ids(_MARKERS)) == len(_MARKERS)
    markers = _MARKERS if has_markers else (None, None)
    prompts = ("", "") if has_markers else _PROMPTS
    return replace(
        encoder_config,
        format="stanford",
        query_marker=markers[0],
        passage_marker=markers[1],
        query_prompt=prompts[0],
        passage_prompt=prompts[1],
        augment_queries=tokenizer.mask_id is not None,
        skip_punctuation=True,
    )


def _with_lengths(encoder_config: EncoderConfig, config: TrainConfig, most_tokens: int) -> EncoderConfig:
    """Set the lengths of a training.

    If queries are filled up, their length is their number of vectors, and is part of what is learned. Otherwise the length
    only says where a query is cut, and is not made shorter than it was.
    """
    is_filled_up = encoder_config.augment_queries
    query_length = config.query_length if is_filled_up else max(config.query_length, encoder_config.query_length)
    query_length = min(query_length, most_tokens)
    fill = encoder_config.augmentation_length
    return replace(
        encoder_config,
        query_length=query_length,
        passage_length=min(config.passage_length, most_tokens),
        augmentation_length=None if fill is None else min(fill, query_length),
        similarity=config.similarity,
        trained=True,
    )


def _random_layer(hidden: int, dim: int, seed: int) -> Dense:
    """Draw a projection as ``torch.nn.Linear`` does, from a generator of its own, so that nothing else changes it."""
    generator = torch.Generator().manual_seed(seed)
    return Dense((2 * torch.rand(dim, hidden, generator=generator) - 1) / hidden**0.5)

"""Build the torch modules of a checkpoint: the transformers model with its weights, and the head behind it."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch

from colbert_core.errors import CheckpointError, CheckpointNotFoundError, UnsupportedCheckpointError
from colbert_core.model.checkpoint import read_checkpoint
from colbert_core.model.checkpoint.files import Fields, read_json
from colbert_core.model.checkpoint.strangers import check_tensors
from colbert_core.model.checkpoint.xtr import T5

if TYPE_CHECKING:
    from pathlib import Path

    from colbert_core.model.checkpoint import Checkpoint, Dense


logger = logging.getLogger(__name__)

# Settings that no tensor has the size of, such as the length up to which positions are counted, are below this.
_LARGEST_SETTING = 2**24

# A text alone and the same beside a longer one differ by rounding, 1e-6; models that look at the padding by far more.
_SAME_ALONE = 0.99999


class Tried(NamedTuple):
    """What a trial of a backbone found; ``build_backbone`` keeps it as the attribute ``tried`` of the model.

    Attributes:
        hidden: components of a hidden state.
        sees_padding: whether the hidden states of a text depend on how long the texts of its batch are, as where ConvBERT's
            convolutions read the padding behind it. Such models read batches of one length.
    """

    hidden: int
    sees_padding: bool


class Head(torch.nn.Module):
    """Turns hidden states into vectors: the layers of a checkpoint, one after the other."""

    def __init__(self, layers: tuple[Dense, ...]) -> None:
        """Take the layers as read, at least one."""
        super().__init__()
        self.layers = torch.nn.Sequential(*map(_Layer, layers))
        self.dim = layers[-1].weight.shape[0]

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Apply the layers. *Shape:* (…, hidden) to (…, dim)."""
        return cast("torch.Tensor", self.layers(hidden))

    def weights(self) -> tuple[Dense, ...]:
        """Copy the layers as they are now, float32 on the CPU."""
        return tuple(cast("_Layer", layer).as_dense() for layer in self.layers)


class _Layer(torch.nn.Module):
    def __init__(self, dense: Dense) -> None:
        super().__init__()
        self.dense = dense
        self.weight = torch.nn.Parameter(dense.weight.float())
        self.bias = None if dense.bias is None else torch.nn.Parameter(dense.bias.float())
        self.residual_weight = None if dense.residual_weight is None else torch.nn.Parameter(dense.residual_weight.float())
        self.activation = getattr(torch.nn, dense.activation)()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.activation(torch.nn.functional.linear(x, self.weight, self.bias))
        if self.dense.residual:
            out = out + (x if self.residual_weight is None else torch.nn.functional.linear(x, self.residual_weight))
        return cast("torch.Tensor", out)

    def as_dense(self) -> Dense:
        def plain(parameter: torch.nn.Parameter | None) -> torch.Tensor | None:
            return None if parameter is None else parameter.detach().float().cpu()

        return replace(
            self.dense,
            weight=cast("torch.Tensor", plain(self.weight)),
            bias=plain(self.bias),
            residual_weight=plain(self.residual_weight),
        )


def build_backbone(checkpoint: Checkpoint, *, trust_remote_code: bool, language: str | None = None) -> torch.nn.Module:
    """Build the transformers model of a checkpoint with its weights, on the CPU and in float32, and try it once.

    Args:
        checkpoint: as read.
        trust_remote_code: run code that comes with the checkpoint.
        language: the language whose layers run, for a model that has some for each.

    Raises:
        ValueError: the model has no layers for the language.
        CheckpointError: weights are missing or have other shapes than config.json says, the checkpoint's own code is
            needed and ``trust_remote_code`` is off, or the model needs a language.
        UnsupportedCheckpointError: config.json describes no encoder that loads here.
    """
    import transformers

    auto_model: Any = transformers.AutoModel  # its methods have no annotations
    folder = checkpoint.folder
    config: Any = None
    try:
        config = transformers.AutoConfig.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
        if config.is_encoder_decoder or config.model_type in T5:
            _check_kind(checkpoint, config)
            auto_model = transformers.AutoModelForTextEncoding  # the encoder by itself
        config.dtype = torch.float32
        config.use_cache = False  # a decoder would keep keys and values for words to come
        choose_language(checkpoint, config, language)
        if not (trust_remote_code and _own_code(checkpoint)):  # whose code may not know a device without memory
            _check_sizes(checkpoint)
            with torch.device("meta"):
                empty = auto_model.from_config(config)
            _check_class(checkpoint, type(empty).__name__)
            _weights_for(empty, checkpoint)
        backbone: Any = auto_model.from_config(config, trust_remote_code=trust_remote_code)
        backbone.load_state_dict(_weights_for(backbone, checkpoint))
        backbone.tried = _try(backbone)
        _check_head(checkpoint, backbone)
        return cast("torch.nn.Module", backbone)
    except (UnsupportedCheckpointError, _LanguageError):
        raise
    except Exception as error:  # transformers raises a dozen kinds
        own_code = _own_code(checkpoint)
        if own_code and not trust_remote_code:
            raise CheckpointError(
                f"{folder} needs code that comes with the checkpoint ({own_code} in config.json), and nothing that comes with "
                "transformers fits its weights; read that code, and if you trust it pass trust_remote_code=True."
            ) from error
        if isinstance(error, CheckpointError):
            raise
        raise UnsupportedCheckpointError(f"{folder}/config.json describes no model that loads here: {error}") from error


def move(backbone: torch.nn.Module, device: torch.device, dtype: torch.dtype) -> torch.nn.Module:
    """Move a model to a device and a precision; the frequencies of rotary positions stay as they are, as in transformers.

    Rounded to bfloat16 they are wrong by up to .2 percent, and ModernBERT's angles between tokens 300 apart by half a radian.
    """
    frequencies = {name: buffer for name, buffer in backbone.named_buffers() if name.endswith("inv_freq")}
    backbone.to(device=device, dtype=dtype)
    for name, buffer in frequencies.items():
        owner, _, own_name = name.rpartition(".")
        setattr(backbone.get_submodule(owner), own_name, buffer.to(device))
    return backbone


def build_head(layers: tuple[Dense, ...]) -> Head | None:
    """Build the head of a checkpoint in float32; None if the hidden states are the vectors."""
    return Head(layers) if layers else None


def hidden_size(backbone: Any) -> int:
    """Tell how many components a hidden state has."""
    tried: Tried | None = getattr(backbone, "tried", None)
    return cast("int", text_config(backbone).hidden_size) if tried is None else tried.hidden


def text_config(backbone: Any) -> Any:
    """The settings of a backbone; of one that reads images as well, those of its part for text."""
    config = backbone.config
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def sees_padding(backbone: Any) -> bool:
    """Tell whether the hidden states of a text depend on how long the other texts of its batch are."""
    tried: Tried | None = getattr(backbone, "tried", None)
    return tried is not None and tried.sees_padding


def most_tokens(backbone: torch.nn.Module) -> int:
    """Tell the longest sequence that a backbone reads: by its learned positions, or else by its configuration.

    RoBERTa and its kin number positions from their padding index + 1, so they read that many fewer tokens than positions.
    """
    for name, module in backbone.named_modules():
        if name.rpartition(".")[2] == "position_embeddings" and isinstance(module, torch.nn.Embedding):
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    stated: int | None = getattr(text_config(backbone), "max_position_embeddings", None)
    return stated if stated and stated > 0 else sys.maxsize  # XLNet, which has no limit, says -1


def write_backbone(folder: Path, backbone: Any, source: Path | None, name: str) -> dict[str, torch.Tensor]:
    """Write config.json and the checkpoint's own code, if it has any, and return the backbone's tensors by name.

    config.json and tensors are copied from the checkpoint that was loaded: the backbone may run in half precision, and
    this version of transformers may write other names into config.json than the one that made the checkpoint.

    Args:
        folder: for the copy.
        backbone: as it is now.
        source: the checkpoint that it was loaded from; None if it was made of parts.
        name: of the encoder, for messages.

    Raises:
        CheckpointNotFoundError: that is gone.
        CheckpointError: it has changed since.
    """
    current = backbone.state_dict()
    if source is None:
        backbone.config.save_pretrained(folder)
        return {key: tensor.float().cpu() for key, tensor in current.items()}
    if not source.exists():
        raise CheckpointNotFoundError(f"The encoder {name!r} was loaded from {source}, which is gone; put it back.")
    stored = read_checkpoint(source, chosen=("query_length", "passage_length"), local_files_only=True)
    config = json.loads((stored.folder / "config.json").read_text(encoding="utf-8"))
    config["architectures"] = [type(backbone).__name__]
    if language := getattr(backbone.config, "default_language", None):
        config["default_language"] = language  # chosen at loading
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for code in stored.folder.glob("*.py"):
        shutil.copyfile(code, folder / code.name)
    prefix = f"{backbone.base_model_prefix}."
    weights = {tensor_name.removeprefix(prefix): tensor for tensor_name, tensor in stored.weights.items()}
    for key, tensor in current.items():
        if key not in weights or not torch.equal(weights[key].to(tensor.dtype), tensor.cpu()):
            raise CheckpointError(f"{source} has changed since the encoder was loaded from it ({key} differs); load it again.")
    return {key: weights[key] for key in current}


def _try(backbone: Any) -> Tried:
    """Read a few tokens alone and beside a longer text.

    So a model that cannot run fails now, such as one of -1 heads, and not at the first text.
    """
    config, lengths, random = text_config(backbone), (3, 7), torch.Generator().manual_seed(0)
    ids = torch.randint(config.vocab_size - 1, (2, lengths[1]), generator=random)
    ids += ids >= (getattr(config, "pad_token_id", None) or 0)  # any other token, since that of padding often is all zeros
    mask = (torch.arange(lengths[1]) < torch.tensor(lengths)[:, None]).long()  # (2, 7)
    backbone.eval()
    with torch.inference_mode():
        try:
            beside = backbone(input_ids=ids, attention_mask=mask).last_hidden_state
        except TypeError:  # SqueezeBERT and CANINE call their pooler without asking whether there is one
            if getattr(backbone, "pooler", ()) is not None:
                raise
            backbone.pooler = torch.nn.Identity()
            beside = backbone(input_ids=ids, attention_mask=mask).last_hidden_state
        alone = backbone(input_ids=ids[:1, : lengths[0]], attention_mask=mask[:1, : lengths[0]]).last_hidden_state[0]
    cosines = torch.nn.functional.cosine_similarity(alone, beside[0, : lengths[0]], dim=-1)
    return Tried(alone.shape[-1], bool((cosines < _SAME_ALONE).any()) or _counts_by_longest(config))


def _counts_by_longest(config: Any) -> bool:
    """Whether a model computes otherwise from some length on, which a short trial cannot show.

    BigBird attends in blocks only where a batch is long enough; some rotary positions turn by the longest text of a batch.
    """
    rotary = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    nested = [value for value in rotary.values() if isinstance(value, dict)]  # of each kind of layer
    kinds = {part.get("rope_type", part.get("type")) for part in [rotary, *nested]}
    return bool(kinds & {"dynamic", "longrope"}) or getattr(config, "attention_type", None) == "block_sparse"


class _LanguageError(ValueError):
    """A language that a model does not have; a ValueError for callers, apart from those of transformers."""


def choose_language(checkpoint: Checkpoint, config: Any, language: str | None) -> None:
    """Choose the layers of a model that has some for each language (X-MOD, Pfeiffer et al., 2022).

    Raises:
        ValueError: it has none for this language.
        CheckpointError: it has some for several, and nobody says which.
    """
    languages = list(getattr(config, "languages", None) or [])
    if language is not None and language not in languages:
        has = f"has layers for {', '.join(map(str, languages))}" if languages else "has no layers of its own for a language"
        raise _LanguageError(
            f"language={language!r}: {checkpoint.folder} {has}; {'pass one of these' if languages else 'leave it out'}."
        )
    if not languages:
        return
    stated = config.default_language
    config.default_language = language or stated or (languages[0] if len(languages) == 1 else None)
    if config.default_language not in languages:
        said = "names no default_language" if stated is None else f"names the default_language {stated!r}"
        raise CheckpointError(
            f"{checkpoint.folder} has layers for {', '.join(map(str, languages))}, and its config.json {said}; "
            "pass language= with one of them."
        )
    if language is None and len(languages) > 1:
        logger.warning(
            "%s reads texts of every language with its layers for %s, the default_language of its config.json; "
            "pass language= for this or another of %s.",
            checkpoint.folder, config.default_language, ", ".join(map(str, languages)),
        )  # fmt: skip


def _check_head(checkpoint: Checkpoint, backbone: Any) -> None:
    """Make sure that the head takes what the backbone gives.

    Raises:
        CheckpointError: it does not.
    """
    hidden = hidden_size(backbone)
    if checkpoint.head and (taken := checkpoint.head[0].weight.shape[1]) != hidden:
        raise CheckpointError(
            f"{checkpoint.folder}: the head takes {taken} components but the backbone's hidden size is {hidden}; "
            "they belong to different checkpoints."
        )


def _check_kind(checkpoint: Checkpoint, config: Any) -> None:
    """Make sure that the encoder of an encoder with a decoder is a model by itself, as T5's is."""
    from transformers import MODEL_FOR_TEXT_ENCODING_MAPPING

    if type(config) not in MODEL_FOR_TEXT_ENCODING_MAPPING:
        raise UnsupportedCheckpointError(
            f"{checkpoint.folder} is a {config.model_type} model, an encoder with a decoder; of "
            "these only the encoder of T5 is read."
        )


def _own_code(checkpoint: Checkpoint) -> str | None:
    """Tell which code config.json names, if it comes with the checkpoint."""
    auto_map = read_json(checkpoint.folder / "config.json").get("auto_map")
    code = (auto_map.get("AutoModel") or auto_map.get("AutoConfig")) if isinstance(auto_map, dict) else None
    return None if code is None else f"auto_map: {code}"


def _check_class(checkpoint: Checkpoint, name: str) -> None:
    """Make sure that the model of transformers is the one that the checkpoint was made with.

    Its own class may have the same weights and compute something else: LFM2.5-ColBERT's looks both ways, Lfm2Model does not.

    Raises:
        CheckpointError: config.json names another class, which transformers does not have.
    """
    import transformers

    if checkpoint.config.format == "xtr":  # whose own class is T5's encoder and the projection
        return
    config = read_json(checkpoint.folder / "config.json")
    auto_map = config.get("auto_map")
    own = str(auto_map.get("AutoModel") or "").rpartition(".")[2] if isinstance(auto_map, dict) else ""
    stated = Fields(config, checkpoint.folder / "config.json").words("architectures", ())
    for each in [own] if own else [each for each in stated if "colbert" not in each.lower()]:
        if each != name and not hasattr(transformers, each):
            raise CheckpointError(
                f"{checkpoint.folder} was made with the class {each}, which transformers does not have; its {name} takes the "
                f"same weights, and may compute something else. If it does not, name {name} under architectures in config.json."
            )


def _check_sizes(checkpoint: Checkpoint) -> None:
    """Make sure that config.json describes nothing that has more layers than there are tensors, or is longer than all of them.

    Raises:
        CheckpointError: it does.
    """
    n_tensors = len(checkpoint.weights)
    n_numbers = sum(tensor.numel() for tensor in checkpoint.weights.values())
    waiting: list[tuple[str, Any]] = list(read_json(checkpoint.folder / "config.json").items())
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.items()
        elif isinstance(value, list):
            waiting += [(name, inner) for inner in value]
        elif isinstance(value, int | float):
            if value != value or ("dropout" in name and not 0 <= value <= 1):
                raise CheckpointError(f"{checkpoint.folder}/config.json says {name}={value}; correct it or copy it again.")
            most = n_tensors if "layers" in name and name.startswith(("num_", "n_")) else max(n_numbers, _LARGEST_SETTING)
            if value > most and value != float("inf"):
                raise CheckpointError(
                    f"{checkpoint.folder}/config.json says {name}={value:g}, but there are {n_tensors} tensors of "
                    f"{n_numbers:,} numbers; the weights and config.json belong to different checkpoints."
                )


def _weights_for(backbone: Any, checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """Choose the weights of a model, whose pooler is taken away.

    Raises:
        CheckpointError: one is missing, or has another shape.
    """
    folder = checkpoint.folder
    if getattr(backbone, "pooler", None) is not None:
        backbone.pooler = None  # it serves sentence vectors, and ColBERT checkpoints do not store it
    prefix = f"{backbone.base_model_prefix}."
    weights = {name.removeprefix(prefix): tensor for name, tensor in checkpoint.weights.items()}
    wanted = backbone.state_dict()
    check_tensors(weights.keys() - wanted.keys(), folder)
    missing = [name for name in wanted if name not in weights]
    if missing:
        raise CheckpointError(
            f"The weights in {folder} lack {len(missing)} of the {len(wanted)} tensors of its config.json, among them "
            f"{missing[0]}; the weights and config.json belong to different checkpoints, or a file is missing."
        )
    for name, tensor in wanted.items():
        if tensor.shape != weights[name].shape:
            raise CheckpointError(
                f"{folder}: {name} has the shape {tuple(weights[name].shape)} in the weights but {tuple(tensor.shape)} "
                "by config.json; they belong to different checkpoints."
            )
    return {name: weights[name] for name in wanted}

"""Text to unit token vectors, by the recipe of a ColBERT checkpoint."""

from __future__ import annotations

import logging
import sys
import threading
from dataclasses import dataclass, replace
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from tqdm import tqdm

from colbert_core import splitter
from colbert_core.checkpoint import (
    DEFAULT_MODEL,
    Checkpoint,
    EncoderConfig,
    find_checkpoint,
    read_checkpoint,
)
from colbert_core.errors import CheckpointError, UnsupportedCheckpointError
from colbert_core.tokenizer import Tokenizer
from colbert_core.types import TokenEmbeddings, TokenEncoder, check_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

# Padded tokens in one forward pass. On two CPU cores the model in the box is fastest from 1,000 to 4,000; 200 abstracts took
# 4.0 s at 2,048 and 5.3 s at 16,384. A GPU needs more to be busy.
_CPU_BATCH_TOKENS = 2048
_GPU_BATCH_TOKENS = 32768

# Texts tokenized at a time: enough for the tokenizer's threads, few enough to keep a long list's token objects small.
_TOKENIZE_AT_A_TIME = 1024

# Part of a window that its neighbour repeats, so that an answer on a cut is whole in one of them.
_WINDOW_OVERLAP = 1 / 8


@dataclass(frozen=True, slots=True)
class _Window:
    """One sequence that encodes a passage or a part of it."""

    ids: NDArray[np.int64]
    kept: NDArray[np.intp]  # positions in ids whose vectors stay
    token_spans: NDArray[np.int32]  # characters of those
    span: tuple[int, int]
    owner: int


class Encoder:
    """A ColBERT checkpoint that turns queries and passages into one unit vector per token.

    Safe to share between threads: calls run the model one after the other, since each already uses every core.

    Attributes:
        name: what ``from_pretrained`` was given; "default" for the model in the box.
        config: the recipe.
    """

    def __init__(
        self,
        backbone: torch.nn.Module,
        projection: torch.Tensor | None,
        tokenizer: Tokenizer,
        config: EncoderConfig,
        *,
        name: str,
    ) -> None:
        """Take finished parts; ``from_pretrained`` is the usual door.

        Args:
            backbone: a transformers encoder, in evaluation mode and on its device.
            projection: *Shape:* (dim, hidden), or None to use the hidden states.
            tokenizer: the checkpoint's.
            config: the checkpoint's recipe.
            name: for messages.

        Raises:
            CheckpointError: the tokenizer knows more tokens than the backbone, lacks one the recipe needs, or adds none.
            ValueError: a length of the recipe leaves no room for text, or is more than the backbone reads.
        """
        self.name = name
        self.config = config
        self._tokenizer = tokenizer
        self._backbone = backbone
        self._projection = projection
        self._lock = threading.Lock()
        self._pickled_as: dict[str, Any] | None = None

        model_config: Any = backbone.config
        if tokenizer.size > model_config.vocab_size:
            raise CheckpointError(
                f"{name}: the tokenizer knows {tokenizer.size} tokens but the backbone has vectors for "
                f"{model_config.vocab_size}; the tokenizer files belong to another checkpoint."
            )
        if config.augment_queries and tokenizer.mask_id is None:
            raise CheckpointError(f"{name}: the recipe fills queries with a mask token, and the tokenizer has none.")
        if not tokenizer.prefix_ids and not tokenizer.suffix_ids:
            raise CheckpointError(
                f"{name}: the tokenizer adds no tokens of its own, such as [CLS] and [SEP], so an empty text would have no "
                "vector; save it with its post-processor."
            )
        self._hidden: int = model_config.hidden_size
        self._query_prefix = self._with_marker(config.query_marker)
        self._passage_prefix = self._with_marker(config.passage_marker)
        self._skipped = tokenizer.punctuation_ids() if config.skip_punctuation else np.empty(0, np.int64)
        self._query_room = self._room("query_length", config.query_length, self._query_prefix)
        self._passage_room = self._room("passage_length", config.passage_length, self._passage_prefix)

    @classmethod
    def from_pretrained(
        cls,
        name: str | PathLike[str] | None = None,
        *,
        device: str | None = None,
        dtype: torch.dtype | str | None = None,
        query_length: int | None = None,
        passage_length: int | None = None,
        trust_remote_code: bool = False,
        local_files_only: bool = False,
    ) -> Encoder:
        """Load a checkpoint: the one in the box, a folder, or a name on the Hugging Face hub.

        Args:
            name: None for the model that ships with this package; a folder; or "organisation/model".
            device: "cpu", "cuda", "cuda:1", "mps"; None for the best one present.
            dtype: of the backbone, such as "float32" or "bfloat16"; None for bfloat16 where the device computes with
                it (3 times as fast on such a CPU, at a mean cosine of .9999 to float32), float16 on an older CUDA GPU,
                else float32.
            query_length: most tokens of a query, in place of the checkpoint's.
            passage_length: most tokens of a passage window, in place of the checkpoint's.
            trust_remote_code: run code that comes with the checkpoint.
            local_files_only: use the hub's cache and no network.

        Raises:
            CheckpointNotFoundError: there is no such folder, or the hub's files are neither cached nor to be had.
            CheckpointError: the folder is damaged, its parts do not fit, or its format is not read here.
            ValueError: a length, device or dtype that the model cannot have.
        """
        name = None if name is None else fspath(name)
        checkpoint = read_checkpoint(
            DEFAULT_MODEL if name is None else find_checkpoint(name, local_files_only=local_files_only)
        )
        chosen_device = _as_device(device)
        chosen_dtype = _as_dtype(dtype) if dtype is not None else _best_dtype(chosen_device)
        backbone = _build_backbone(checkpoint, trust_remote_code=trust_remote_code)
        most, recipe = _most_tokens(backbone), checkpoint.recipe
        encoder = cls(
            backbone.to(device=chosen_device, dtype=chosen_dtype).eval().requires_grad_(requires_grad=False),
            None if checkpoint.projection is None else checkpoint.projection.to(chosen_device, torch.float32),
            Tokenizer.from_folder(checkpoint.folder, trust_remote_code=trust_remote_code),
            replace(
                recipe,
                query_length=min(recipe.query_length, most) if query_length is None else query_length,
                passage_length=min(recipe.passage_length, most) if passage_length is None else passage_length,
            ),
            name="default" if name is None else name,
        )
        encoder._pickled_as = {
            "name": name,
            "device": device,
            "dtype": dtype,
            "query_length": query_length,
            "passage_length": passage_length,
            "trust_remote_code": trust_remote_code,
            "local_files_only": local_files_only,
        }
        return encoder

    @property
    def dim(self) -> int:
        """Components of every vector."""
        return self._hidden if self._projection is None else int(self._projection.shape[0])

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return next(self._backbone.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the backbone computes with."""
        return next(self._backbone.parameters()).dtype

    def encode_queries(self, texts: Iterable[str]) -> list[NDArray[np.float32]]:
        """Encode queries; white space around them does not count.

        ColBERT (SIGIR 2020), section 3.2: ``[CLS] [Q] text [SEP]``, then ``[MASK]`` up to ``query_length`` if the recipe
        augments queries. Every vector scores, the model's own tokens included.

        Args:
            texts: one string per query.

        Returns:
            For each query *Shape:* (n_q, dim), float32, unit rows.

        Raises:
            TypeError: a query is not a string.
            ValueError: a query is empty or blank, or holds a lone surrogate.
        """
        stripped = [check_text(text, f"Query {position}").strip() for position, text in enumerate(_as_list(texts))]
        for position, text in enumerate(stripped):
            if not text:
                raise ValueError(f"Query {position} is empty; give it at least one word.")

        sequences, attended = [], []
        n_cut = 0
        for tokens in self._tokenizer.encode(stripped):
            n_cut += len(tokens.ids) > self._query_room
            sequence = [*self._query_prefix, *tokens.ids[: self._query_room], *self._tokenizer.suffix_ids]
            n_masks = self.config.query_length - len(sequence) if self.config.augment_queries else 0
            sequences.append(np.array([*sequence, *[self._tokenizer.mask_id] * n_masks], np.int64))
            attended.append(len(sequences[-1]) if self.config.attend_to_augmentation else len(sequence))
        if n_cut:
            logger.warning(
                "%d of %d queries are longer than query_length=%d tokens and were cut; "
                "load the encoder with a larger query_length to read all of them.",
                n_cut, len(stripped), self.config.query_length,
            )  # fmt: skip

        found: list[NDArray[np.float32]] = [np.empty((0, self.dim), np.float32)] * len(sequences)
        for i, rows in self._vectors(sequences, attended):
            found[i] = rows.copy()
        return found

    def encode_passages(self, texts: Iterable[str], *, progress: bool | None = None) -> TokenEmbeddings:
        """Encode passages of any length; what the model cannot read at once becomes overlapping windows.

        ``[CLS] [D] window [SEP]``, less the vectors of punctuation if the recipe skips them.

        Args:
            texts: one string per passage; an empty one has the vectors of the model's own tokens.
            progress: show a bar; None shows it on a terminal once a second has passed.

        Returns:
            The packed vectors; ``owners`` says which text each window belongs to.

        Raises:
            TypeError: a text is not a string.
            ValueError: a text holds a lone surrogate.
        """
        texts = _as_list(texts)
        for position, text in enumerate(texts):
            check_text(text, f"Passage {position}")

        windows = list(self._windows(texts))
        doclens = np.array([len(window.kept) for window in windows], np.int32)
        starts = np.cumsum(doclens) - doclens
        vectors = np.empty((int(doclens.sum()), self.dim), np.float32)
        with _progress_bar(len(windows), progress) as bar:
            for i, rows in self._vectors([window.ids for window in windows], [len(window.ids) for window in windows]):
                vectors[starts[i] : starts[i] + doclens[i]] = rows[windows[i].kept]
                bar.update()
        return TokenEmbeddings(
            vectors=vectors,
            token_spans=np.concatenate([np.empty((0, 2), np.int32), *(window.token_spans for window in windows)]),
            doclens=doclens,
            window_spans=np.array([window.span for window in windows], np.int32).reshape(-1, 2),
            owners=np.array([window.owner for window in windows], np.int32),
        )

    def split(self, text: str) -> list[tuple[int, int]]:
        """Cut a document into passages that this model reads whole: at paragraphs, else sentences, else tokens.

        Returns:
            Half-open (start, end) character ranges, in order, without blank ends.

        Raises:
            TypeError: text is not a string.
            ValueError: text holds a lone surrogate.
        """
        (tokens,) = self._tokenizer.encode([check_text(text, "text")])
        return splitter.passages(text, tokens.spans[:, 0].tolist(), self._passage_room)

    def _windows(self, texts: list[str]) -> Iterator[_Window]:
        """The sequences that encode the texts, in their order."""
        n_prefix, n_suffix = len(self._passage_prefix), len(self._tokenizer.suffix_ids)
        overlap = int(self._passage_room * _WINDOW_OVERLAP)
        for first in range(0, len(texts), _TOKENIZE_AT_A_TIME):
            for owner, tokens in enumerate(self._tokenizer.encode(texts[first : first + _TOKENIZE_AT_A_TIME]), first):
                for start, end in splitter.windows(tokens.word_starts.tolist(), self._passage_room, overlap):
                    # The first window begins and the last one ends with the text, blanks and all.
                    char_start = 0 if start == 0 else int(tokens.spans[start, 0])
                    char_end = len(texts[owner]) if end == len(tokens.ids) else int(tokens.spans[end - 1, 1])
                    ids = np.array([*self._passage_prefix, *tokens.ids[start:end], *self._tokenizer.suffix_ids], np.int64)
                    kept = np.flatnonzero(~np.isin(ids, self._skipped))
                    own_before = np.full((n_prefix, 2), char_start, np.int32)
                    own_after = np.full((n_suffix, 2), char_end, np.int32)
                    spans = np.concatenate([own_before, tokens.spans[start:end], own_after])
                    yield _Window(ids, kept, spans[kept], (char_start, char_end), owner)

    def _with_marker(self, marker: str | None) -> list[int]:
        """Ids before the text: the model's own, and the marker behind the first of them."""
        prefix = self._tokenizer.prefix_ids
        return prefix if marker is None else [*prefix[:1], self._tokenizer.token_id(marker), *prefix[1:]]

    def _room(self, setting: str, length: int, prefix: list[int]) -> int:
        """Tokens of text that fit into a sequence."""
        if not isinstance(length, int):
            raise TypeError(f"{setting} must be a whole number of tokens, got {length!r}.")
        own, most = len(prefix) + len(self._tokenizer.suffix_ids), _most_tokens(self._backbone)
        if not own < length <= most:
            raise ValueError(
                f"{setting}={length} for {self.name} must be from {own + 1} (its own {own} tokens and one of text) to "
                f"{most} (what its backbone reads)."
            )
        return length - own

    def _vectors(self, sequences: list[NDArray[np.int64]], attended: list[int]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Position and unit vectors, (length, dim) float32, of each sequence, in the order that suits the batches.

        Equal sequences are encoded once: their vectors are then equal to the last bit, so that equal passages tie, which
        rounding would not grant them in batches of different shapes.
        """
        equal: dict[tuple[bytes, int], list[int]] = {}
        for i, (sequence, n_attended) in enumerate(zip(sequences, attended, strict=True)):
            equal.setdefault((sequence.tobytes(), n_attended), []).append(i)
        groups = list(equal.values())
        for batch in self._batches([len(sequences[group[0]]) for group in groups]):
            firsts = [groups[i][0] for i in batch]
            rows = self._forward([sequences[i] for i in firsts], [attended[i] for i in firsts])
            for i, vectors in zip(batch, rows, strict=True):
                for position in groups[i]:
                    yield position, vectors[: len(sequences[position])]

    def _batches(self, lengths: list[int]) -> Iterator[list[int]]:
        """Positions in batches of similar length, longest first, each within the budget of padded tokens.

        Longest first, so that a batch too large for the device's memory shows at once and the bar's estimate is a ceiling.
        """
        budget = _CPU_BATCH_TOKENS if self.device.type == "cpu" else _GPU_BATCH_TOKENS
        batch: list[int] = []
        for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
            if batch and (len(batch) + 1) * lengths[batch[0]] > budget:
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch

    def _forward(self, sequences: list[NDArray[np.int64]], attended: list[int]) -> NDArray[np.float32]:
        """Unit vectors of a batch.

        Args:
            sequences: token ids, longest first.
            attended: how many leading tokens of each sequence may be attended to.

        Returns:
            *Shape:* (batch, longest, dim), float32; rows behind a sequence's end mean nothing.
        """
        longest = len(sequences[0])
        ids = np.full((len(sequences), longest), self._tokenizer.pad_id, np.int64)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = sequence
        attention = (np.arange(longest) < np.array(attended)[:, None]).astype(np.int64)  # (batch, longest)
        with self._lock, torch.inference_mode():
            hidden = self._backbone(
                input_ids=torch.from_numpy(ids).to(self.device),
                attention_mask=torch.from_numpy(attention).to(self.device),
            ).last_hidden_state.float()  # (batch, longest, hidden)
            vectors = hidden if self._projection is None else hidden @ self._projection.T  # (batch, longest, dim)
            rows: NDArray[np.float32] = torch.nn.functional.normalize(vectors, dim=-1).cpu().numpy()
        return rows

    def __repr__(self) -> str:
        kind = "" if self.config.trained else ", untrained"
        return f"Encoder({self.name!r}, dim={self.dim}, device={str(self.device)!r}, dtype={str(self.dtype)[6:]!r}{kind})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Encoder:
        """A copy shares the model: an encoder never changes."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as what it was loaded from, not as its weights."""
        if self._pickled_as is None:
            raise TypeError(f"{self!r} was built from parts, so it cannot be pickled; load it with from_pretrained.")
        return _unpickle, (self._pickled_as,)


def as_encoder(encoder: str | PathLike[str] | TokenEncoder | None, *, device: str | None = None) -> TokenEncoder:
    """Load an encoder by name, or the one in the box for None; one that is loaded already is returned as it is."""
    if encoder is None or isinstance(encoder, (str, PathLike)):
        return Encoder.from_pretrained(encoder, device=device)
    if not isinstance(encoder, TokenEncoder):
        raise TypeError(f"An encoder is a checkpoint's name or folder, an Encoder or a TokenEncoder, got {encoder!r:.80}.")
    return encoder


def _unpickle(arguments: dict[str, Any]) -> Encoder:
    return Encoder.from_pretrained(**arguments)


def _build_backbone(checkpoint: Checkpoint, *, trust_remote_code: bool) -> torch.nn.Module:
    """The transformers model of a checkpoint with its weights in it, on the CPU and in float32.

    Raises:
        CheckpointError: config.json describes no encoder, or weights are missing or have other shapes than it says.
    """
    import transformers

    auto_model: Any = transformers.AutoModel  # its methods have no annotations
    folder = checkpoint.folder
    try:
        config = transformers.AutoConfig.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
        config.dtype = torch.float32
        backbone: Any = auto_model.from_config(config, trust_remote_code=trust_remote_code)
    except (ValueError, KeyError, TypeError, OSError, ImportError) as error:
        raise UnsupportedCheckpointError(f"{folder}/config.json describes no model that loads here: {error}") from error
    if config.is_encoder_decoder:
        raise UnsupportedCheckpointError(
            f"{folder} is a {config.model_type} model, an encoder with a decoder; this version reads encoders only."
        )
    if getattr(backbone, "pooler", None) is not None:
        backbone.pooler = None  # it serves sentence vectors, and ColBERT checkpoints do not store it

    prefix = getattr(backbone, "base_model_prefix", "") + "."
    weights = {name.removeprefix(prefix): tensor for name, tensor in checkpoint.weights.items()}
    wanted = backbone.state_dict()
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
    backbone.load_state_dict({name: weights[name] for name in wanted})
    return cast("torch.nn.Module", backbone)


def _most_tokens(backbone: torch.nn.Module) -> int:
    """The longest sequence a backbone has positions for; without learned positions, what its configuration states.

    RoBERTa and its kin number positions from their padding index + 1, so they read that many fewer tokens than positions.
    """
    for name, module in backbone.named_modules():
        if name.rpartition(".")[2] == "position_embeddings" and isinstance(module, torch.nn.Embedding):
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    stated: int | None = getattr(backbone.config, "max_position_embeddings", None)
    return stated or sys.maxsize


def _as_device(device: str | None) -> torch.device:
    if device is None:
        return torch.device(_best_device())
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    # torch reports an unknown kind as RuntimeError and one it was not built for as AssertionError.
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(f"device={device!r} is not to be had ({error}); the best one present is {_best_device()!r}.") from None
    return found


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _best_dtype(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    # Without these instructions bfloat16 is emulated and slower than float32. Older torch does not say: float32.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if device.type == "cpu" and (capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")):
        return torch.bfloat16
    return torch.float32


def _as_dtype(dtype: torch.dtype | str) -> torch.dtype:
    known = {
        str(known).removeprefix("torch."): known for known in (torch.float32, torch.bfloat16, torch.float16, torch.float64)
    }
    found = known.get(str(dtype).removeprefix("torch."))
    if found is None:
        raise ValueError(f"dtype must be one of {', '.join(known)}, got {dtype!r}.")
    return found


def _progress_bar(total: int, progress: bool | None) -> tqdm[Any]:
    """True shows it, False does not, None shows it on a terminal once a second has passed."""
    unasked = progress is None
    disable = None if unasked else not progress  # tqdm's None: unless standard error is a terminal
    return tqdm(total=total, desc="Encoding", unit="window", delay=1 if unasked else 0, disable=disable)


def _as_list(texts: Iterable[str]) -> list[str]:
    if isinstance(texts, str):
        raise TypeError(f"texts must be a list of strings, got one str; write [{texts!r:.40}].")
    return list(texts)

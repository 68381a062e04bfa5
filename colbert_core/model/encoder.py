"""Text to unit token vectors, by the recipe of a ColBERT checkpoint."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import threading
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from colbert_core.devices import as_device, as_dtype
from colbert_core.errors import CheckpointError, CheckpointNotFoundError
from colbert_core.model.backbone import Head, build_backbone, build_head, most_tokens
from colbert_core.model.checkpoint import (
    DEFAULT_MODEL,
    WRITABLE,
    Checkpoint,
    EncoderConfig,
    download_named,
    find_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from colbert_core.model.inputs import InputBuilder, ModelInput, respelled
from colbert_core.model.packed_bert import pack
from colbert_core.model.tokenizer import Tokenizer
from colbert_core.progress import progress_bar
from colbert_core.storage.durable import sync_folder, sync_tree
from colbert_core.threads import apply_to_torch
from colbert_core.types import Passage, TokenEmbeddings, TokenEncoder, check_text
from colbert_core.vectors.pooling import pool_embeddings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

# Padded tokens in one forward pass. Smaller batches are padded less: on one CPU core the model in the box encoded 64 Wikipedia
# passages in 1.6 s at 1,024 tokens and 1.8 s at 2,048, and without padding the two are equal. A GPU needs more to be busy.
_CPU_BATCH_TOKENS = 1024
_GPU_BATCH_TOKENS = 32768

# What repr() shows the tokens of.
_EXAMPLE = "What animation studio did Miyazaki found?"


class Encoder:
    """A ColBERT checkpoint that turns queries and passages into one unit vector per token.

    Safe to share between threads: calls run the model one after the other, since each already uses every core.
    ``print(encoder)`` shows the whole recipe and an example.

    Attributes:
        name: what ``from_pretrained`` was given; "default" for the model in the box.
        config: the recipe.
    """

    def __init__(
        self,
        backbone: torch.nn.Module,
        head: Head | None,
        tokenizer: Tokenizer,
        config: EncoderConfig,
        *,
        name: str,
        late_chunking: bool = False,
    ) -> None:
        """Take finished parts; ``from_pretrained`` is the usual door.

        Args:
            backbone: a transformers encoder, in evaluation mode and on its device.
            head: what makes vectors of its hidden states, or None to use them as they are.
            tokenizer: the checkpoint's.
            config: the checkpoint's recipe.
            name: for messages.
            late_chunking: see ``from_pretrained``.

        Raises:
            CheckpointError: the tokenizer knows more tokens than the backbone, lacks one the recipe needs, or adds none.
            ValueError: a length of the recipe leaves no room for text, or is more than the backbone reads.
        """
        apply_to_torch()
        self.name = name
        self.config = config
        self._backbone: Any = backbone  # transformers' models have no annotations
        self._packed = pack(backbone)
        self._head = head
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._source: Path | None = None
        self._pickled_as: dict[str, Any] | None = None

        model_config: Any = backbone.config
        if tokenizer.size > model_config.vocab_size:
            raise CheckpointError(
                f"{name}: the tokenizer knows {tokenizer.size} tokens but the backbone has vectors for "
                f"{model_config.vocab_size}; the tokenizer files belong to another checkpoint."
            )
        self._hidden: int = model_config.hidden_size
        self._recipe = InputBuilder(
            config, tokenizer, most_tokens=most_tokens(backbone), name=name, late_chunking=late_chunking
        )

    @classmethod
    def from_pretrained(
        cls,
        name: str | PathLike[str] | None = None,
        *,
        device: str | None = None,
        dtype: torch.dtype | str | None = None,
        query_length: int | None = None,
        passage_length: int | None = None,
        late_chunking: bool = False,
        trust_remote_code: bool = False,
        local_files_only: bool = False,
    ) -> Encoder:
        """Load a checkpoint: the one in the box, a folder, or a name on the Hugging Face hub.

        Stanford ColBERT (folders and .dnn files), PyLate, sentence-transformers multi-vector and nanoColBERT checkpoints
        are read by their own recipe; any other encoder as untrained late interaction over its hidden states.

        Args:
            name: None for the model that ships with this package; a folder or .dnn file; or "organisation/model".
            device: "cpu", "cuda", "cuda:1", "mps"; None for the best one present.
            dtype: of the backbone, such as "float32" or "bfloat16"; None for bfloat16 where that is faster (on a CPU with
                matrix instructions or AMD's: 3 times, at a mean cosine of .9999 to float32), float16 on an older CUDA GPU,
                else float32.
            query_length: most tokens of a query, in place of the checkpoint's.
            passage_length: most tokens of a passage window, in place of the checkpoint's.
            late_chunking: read a long passage with as much context as the backbone takes at once, and cut its vectors
                into windows instead of its text (Günther et al., 2024, arXiv 2409.04701).
            trust_remote_code: run code that comes with the checkpoint.
            local_files_only: use the hub's cache and no network.

        Raises:
            CheckpointNotFoundError: there is no such folder, or the hub's files are neither cached nor to be had.
            CheckpointError: the folder is damaged, its parts do not fit, its recipes disagree, its format is not read here,
                or it needs ``trust_remote_code``.
            ValueError: a length, device or dtype that the model cannot have, or late chunking where one window is all that
                the backbone reads.
        """
        name = None if name is None else fspath(name)
        source = DEFAULT_MODEL if name is None else find_checkpoint(name, local_files_only=local_files_only)
        lengths = {"query_length": query_length, "passage_length": passage_length}
        chosen = {setting: length for setting, length in lengths.items() if length is not None}
        with download_named(source):
            checkpoint = read_checkpoint(source, chosen=chosen, local_files_only=local_files_only)
            tokenizer = Tokenizer.from_folder(
                checkpoint.folder, lowercase=checkpoint.config.lowercase, trust_remote_code=trust_remote_code
            )
        chosen_device = as_device(device)
        chosen_dtype = as_dtype(dtype, chosen_device)
        backbone = build_backbone(checkpoint, trust_remote_code=trust_remote_code)
        head = build_head(checkpoint.head)
        recipe, most = checkpoint.config, most_tokens(backbone)
        settled = {setting: min(getattr(recipe, setting), most) for setting in lengths} | chosen
        if recipe.augmentation_length is not None:
            settled["augmentation_length"] = min(recipe.augmentation_length, settled["query_length"])
        encoder = cls(
            backbone.to(device=chosen_device, dtype=chosen_dtype).eval().requires_grad_(requires_grad=False),
            None if head is None else head.to(chosen_device).eval().requires_grad_(requires_grad=False),
            tokenizer,
            replace(recipe, **settled),
            name="default" if name is None else name,
            late_chunking=late_chunking,
        )
        encoder._source = source.absolute()
        encoder._pickled_as = {
            "name": name,
            "device": device,
            "dtype": dtype,
            **lengths,
            "late_chunking": late_chunking,
            "trust_remote_code": trust_remote_code,
            "local_files_only": local_files_only,
        }
        return encoder

    @property
    def dim(self) -> int:
        """Components of every vector."""
        return self._hidden if self._head is None else self._head.dim

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        device: torch.device = next(self._backbone.parameters()).device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """What the backbone computes with."""
        dtype: torch.dtype = next(self._backbone.parameters()).dtype
        return dtype

    @property
    def origin(self) -> dict[str, Any] | None:
        """What ``from_pretrained`` needs to load the same encoder on any device; None if it was built from parts."""
        if self._pickled_as is None:
            return None
        kept = {key: self._pickled_as[key] for key in ("name", "query_length", "passage_length", "late_chunking")}
        if kept["name"] is not None and Path(kept["name"]).exists():
            kept["name"] = str(Path(kept["name"]).absolute())
        return kept

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
        inputs = list(self._recipe.queries(stripped))
        if n_cut := sum(one.n_cut > 0 for one in inputs):
            logger.warning(
                "%d of %d queries are longer than query_length=%d tokens and were cut; "
                "load the encoder with a larger query_length to read all of them.",
                n_cut, len(inputs), self.config.query_length,
            )  # fmt: skip
        found: list[NDArray[np.float32]] = [np.empty((0, self.dim), np.float32)] * len(inputs)
        for i, rows in self._vectors(inputs):
            found[i] = rows[inputs[i].windows[0].kept]
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

        inputs = list(self._recipe.passages(texts))
        windows = [window for one in inputs for window in one.windows]
        firsts = np.cumsum([0, *(len(one.windows) for one in inputs)])  # the first window of each input
        doclens = np.array([len(window.kept) for window in windows], np.int32)
        starts = np.cumsum(doclens) - doclens
        vectors = np.empty((int(doclens.sum()), self.dim), np.float32)
        with progress_bar("Encoding", len(windows), "window", progress) as bar:
            for i, rows in self._vectors(inputs):
                for number, window in enumerate(inputs[i].windows, firsts[i]):
                    vectors[starts[number] : starts[number] + doclens[number]] = rows[window.kept]
                    bar.update()
        embeddings = TokenEmbeddings(
            vectors=vectors,
            token_spans=np.concatenate([np.empty((0, 2), np.int32), *(window.token_spans for window in windows)]),
            doclens=doclens,
            window_spans=np.array([window.span for window in windows], np.int32).reshape(-1, 2),
            owners=np.array([window.owner for window in windows], np.int32),
        )
        return pool_embeddings(embeddings, self.config.pool_factor, self.config.pool_protected)

    def query_spans(self, text: str) -> NDArray[np.int32]:
        """The characters of each vector that ``encode_queries`` makes of a query; no model runs.

        Returns:
            *Shape:* (n_q, 2), int32, half-open; empty for the model's own tokens.

        Raises:
            TypeError: the query is not a string.
            ValueError: it is empty or blank, or holds a lone surrogate.
        """
        stripped = check_text(text, "Query").strip()
        if not stripped:
            raise ValueError("The query is empty; give it at least one word.")
        (read,) = self._recipe.queries([stripped])
        return read.windows[0].token_spans + np.int32(len(text) - len(text.lstrip()))

    def passage_spans(self, text: str) -> list[tuple[tuple[int, int], NDArray[np.int32]]]:
        """The windows that ``encode_passages`` makes of a text, before pooling, and the characters of their vectors.

        No model runs, so it takes a hundredth of the time that encoding takes.

        Returns:
            For each window its span, half-open, and *Shape:* (n, 2), int32; empty for the model's own tokens.
        """
        inputs = self._recipe.passages([check_text(text, "Passage")])
        return [(window.span, window.token_spans) for one in inputs for window in one.windows]

    def count_tokens(self, text: str) -> int:
        """How many tokens of the model's vocabulary a text has, without those the model adds."""
        (tokens,) = self._recipe.tokenizer.encode([check_text(text, "Text")])
        return len(tokens.ids)

    def split(
        self, text: str, document_id: str, *, size: int | None = None, overlap: int = 0, metadata: dict[str, Any] | None = None
    ) -> list[Passage]:
        """Cut a document into passages that this model reads whole, at headings, paragraphs, sentences or words.

        Long passages need no cutting, ``Index.add`` does it by the same rules; this is for those who want to see and name
        the pieces. A Markdown heading stays with what follows it, and code between fences is kept whole where it fits.

        Args:
            text: the document.
            document_id: its name; the passages are called ``document_id#1`` and so on.
            size: most tokens of a passage, of the text alone; None for what the model reads at once.
            overlap: least tokens that neighbours share, less than size.
            metadata: given to every passage, beside "document_id", "start" and "end": the passage is ``text[start:end]``.

        Returns:
            The passages in order, without blank ends; none of a blank text.

        Raises:
            TypeError: text is not a string.
            ValueError: text holds a lone surrogate, or size or overlap is out of range.
        """
        return self._recipe.split(check_text(text, "text"), document_id, size=size, overlap=overlap, metadata=metadata)

    def save(self, path: str | PathLike[str], *, format: str) -> None:
        """Write the checkpoint so that this and other libraries read it, all of it or nothing.

        What is written is read again before it counts: it must make the same tokens of some texts as this encoder. The
        backbone's weights are copied from where the encoder was loaded, so that must still be there and unchanged.

        Args:
            path: a folder that does not exist yet, or is empty.
            format: "stanford" for Stanford ColBERT and RAGatouille, "pylate" for PyLate, "sentence-transformers" for its
                version 6. All three are read by this package, and an encoder loaded again gives the same vectors; except
                that in sentence-transformers' format a marker such as "[unused0]" is found in users' texts as well.

        Raises:
            ValueError: another format.
            FileExistsError: the folder holds something.
            CheckpointError: what the encoder was loaded from is gone, or has changed since.
            UnsupportedCheckpointError: the format cannot hold this model so that its own library reads it as it is meant.
        """
        if format not in WRITABLE:
            raise ValueError(f"format must be one of {', '.join(WRITABLE)}, got {format!r}.")
        target = Path(path).expanduser().resolve()
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise FileExistsError(f"{target} holds something already; name a folder that is new or empty.")
        target.parent.mkdir(parents=True, exist_ok=True)
        config, tokenizer = respelled(self.config, self._tokenizer, format)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as name:
            folder = Path(name) / target.name
            folder.mkdir()
            weights = self._write_backbone(folder)
            tokenizer.save(folder)
            head = () if self._head is None else self._head.weights()
            write_checkpoint(
                folder,
                Checkpoint(folder, config, weights, head),
                prefix=self._backbone.base_model_prefix,
                dim=self.dim,
            )
            self._check_copy(folder)
            for file in folder.rglob("*.safetensors"):
                file.chmod((folder / "config.json").stat().st_mode)  # safetensors writes for its owner only
            sync_tree(folder)
            try:
                if target.exists():
                    target.rmdir()
                folder.rename(target)
            except OSError as error:  # another thread or process was faster
                raise FileExistsError(f"{target} holds something by now ({error}); name a folder that is new.") from error
        sync_folder(target.parent)

    def describe(self) -> dict[str, Any]:
        """The recipe in plain values, as ``print(encoder)`` shows it: backbone, lengths, markers with ids, and the rest."""
        config, recipe, tokens_of = self.config, self._recipe, self._tokenizer.tokens_of
        (example,) = recipe.queries([_EXAMPLE])
        mask = None if recipe.augmentation_id is None else tokens_of([recipe.augmentation_id])[0]
        return {
            "name": self.name,
            "format": config.format,
            "trained": config.trained,
            "backbone": self._backbone.config.model_type,
            "parameters": sum(parameter.numel() for parameter in self._backbone.parameters()),
            "hidden": self._hidden,
            "head": [] if self._head is None else [layer.describe() for layer in self._head.weights()],
            "dim": self.dim,
            "device": str(self.device),
            "dtype": str(self.dtype).removeprefix("torch."),
            "query_length": config.query_length,
            "passage_length": config.passage_length,
            "query_prefix": dict(zip(tokens_of(recipe.query_prefix), recipe.query_prefix, strict=True)),
            "passage_prefix": dict(zip(tokens_of(recipe.passage_prefix), recipe.passage_prefix, strict=True)),
            "suffix": dict(zip(tokens_of(self._tokenizer.suffix_ids), self._tokenizer.suffix_ids, strict=True)),
            "query_prompt": config.query_prompt,
            "passage_prompt": config.passage_prompt,
            "augmentation": mask
            and {
                "token": mask,
                "id": recipe.augmentation_id,
                "up_to": config.augmentation_length or config.query_length,
                "attended": config.attend_to_augmentation,
            },
            "skipped": tokens_of(recipe.skipped.tolist()),
            "similarity": config.similarity,
            "pool_factor": config.pool_factor,
            "example": {
                "query": _EXAMPLE,
                "ids": example.ids.tolist(),
                "tokens": tokens_of(example.ids.tolist()),
                "attention": [int(i < example.attended) for i in range(len(example.ids))],
            },
        }

    def _write_backbone(self, folder: Path) -> dict[str, torch.Tensor]:
        """Write config.json and the checkpoint's own code, if it has any, and return the backbone's tensors by name.

        Both are taken as the source has them: the backbone may run in half precision, and another version of transformers
        than the source's may have renamed what config.json says.
        """
        current = self._backbone.state_dict()
        if self._source is None:
            self._backbone.config.save_pretrained(folder)
            return {name: tensor.float().cpu() for name, tensor in current.items()}
        if not self._source.exists():
            raise CheckpointNotFoundError(
                f"The encoder {self.name!r} was loaded from {self._source}, which is gone; put it back."
            )
        stored = read_checkpoint(self._source, chosen=("query_length", "passage_length"), local_files_only=True)
        config = json.loads((stored.folder / "config.json").read_text(encoding="utf-8"))
        config["architectures"] = [type(self._backbone).__name__]
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        for code in stored.folder.glob("*.py"):
            shutil.copyfile(code, folder / code.name)
        prefix = f"{self._backbone.base_model_prefix}."
        by_name = {name.removeprefix(prefix): tensor for name, tensor in stored.weights.items()}
        for name, tensor in current.items():
            if name not in by_name or not torch.equal(by_name[name].to(tensor.dtype), tensor.cpu()):
                raise CheckpointError(
                    f"{self._source} has changed since the encoder was loaded from it ({name} differs); load it again."
                )
        return {name: by_name[name] for name in current}

    def _check_copy(self, folder: Path) -> None:
        """A copy of the checkpoint must make the same inputs of texts as this encoder does.

        Raises:
            UnsupportedCheckpointError: it does not, so another library would not either.
        """
        recipe = read_checkpoint(folder).config
        copied = InputBuilder(
            recipe,
            Tokenizer.from_folder(folder, lowercase=recipe.lowercase),
            most_tokens=most_tokens(self._backbone),
            name=str(folder),
        )
        plain = InputBuilder(self.config, self._tokenizer, most_tokens=most_tokens(self._backbone), name=self.name)
        plain.check_equal(copied, recipe.format)

    def _vectors(self, inputs: list[ModelInput]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Position and unit vectors, (length, dim) float32, of each input, in the order that suits the batches.

        Equal sequences are encoded once: their vectors are then equal to the last bit, so that equal passages tie, which
        rounding would not grant them in batches of different shapes.
        """
        equal: dict[tuple[bytes, int], list[int]] = {}
        for i, one in enumerate(inputs):
            equal.setdefault((one.ids.tobytes(), one.attended), []).append(i)
        groups = list(equal.values())
        begun: list[tuple[list[int], _Result]] = []
        for batch in self._batches([inputs[group[0]] for group in groups]):
            begun.append((batch, self._forward([inputs[groups[i][0]] for i in batch])))
            if len(begun) == 2:  # a GPU computes the new batch while the rows of the one before are put in their places
                yield from _placed(groups, *begun.pop(0))
        for batch, result in begun:
            yield from _placed(groups, batch, result)

    def _batches(self, inputs: list[ModelInput]) -> Iterator[list[int]]:
        """Positions in batches of similar length, longest first, each within the budget of padded tokens.

        Longest first, so that a batch too large for the device's memory shows at once and the bar's estimate is a ceiling.
        Of equal length those that attend to as many tokens are neighbours, which packed attention computes together.
        """
        budget = _CPU_BATCH_TOKENS if self.device.type == "cpu" else _GPU_BATCH_TOKENS
        batch: list[int] = []
        for i in sorted(range(len(inputs)), key=lambda i: (-len(inputs[i].ids), -inputs[i].attended)):
            if batch and (len(batch) + 1) * len(inputs[batch[0]].ids) > budget:
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch

    def _forward(self, inputs: list[ModelInput]) -> _Result:
        """Begin to compute the unit vectors of a batch, longest input first; on a GPU this returns before they are there."""
        with self._lock, torch.inference_mode():
            hidden, starts = self._packed_states(inputs) if self._packed else self._padded_states(inputs)
            vectors = hidden.float() if self._head is None else self._head(hidden.float())  # (n_rows, dim)
            return _Result(torch.nn.functional.normalize(vectors, dim=-1), starts, [len(one.ids) for one in inputs])

    def _packed_states(self, inputs: list[ModelInput]) -> tuple[torch.Tensor, list[int]]:
        """Hidden states, *Shape:* (n_tokens, hidden), and the first row of each input."""
        assert self._packed is not None
        starts = np.cumsum([0, *(len(one.ids) for one in inputs[:-1])]).tolist()
        return self._packed([one.ids for one in inputs], [one.attended for one in inputs]), starts

    def _padded_states(self, inputs: list[ModelInput]) -> tuple[torch.Tensor, list[int]]:
        """Hidden states, *Shape:* (batch * longest, hidden), and the first row of each input; none counts behind its end."""
        longest = len(inputs[0].ids)
        ids = np.full((len(inputs), longest), self._tokenizer.pad_id, np.int64)
        for row, one in enumerate(inputs):
            ids[row, : len(one.ids)] = one.ids
        attended = np.array([one.attended for one in inputs])
        attention = (np.arange(longest) < attended[:, None]).astype(np.int64)  # (batch, longest)
        hidden: torch.Tensor = self._backbone(
            input_ids=_to_device(ids, self.device), attention_mask=_to_device(attention, self.device)
        ).last_hidden_state  # (batch, longest, hidden)
        return hidden.flatten(0, 1), list(range(0, len(inputs) * longest, longest))

    def __repr__(self) -> str:
        return _as_text(self.describe())

    def __deepcopy__(self, memo: dict[int, Any]) -> Encoder:
        """A copy shares the model: an encoder never changes."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as what it was loaded from, not as its weights."""
        if self._pickled_as is None:
            raise TypeError(
                f"The encoder {self.name!r} was built from parts, so it cannot be pickled; load it with from_pretrained."
            )
        return _unpickle, (self._pickled_as,)


def as_encoder(encoder: str | PathLike[str] | TokenEncoder | None, *, device: str | None = None) -> TokenEncoder:
    """Load an encoder by name, or the one in the box for None; one that is loaded already is returned as it is."""
    if encoder is None or isinstance(encoder, (str, PathLike)):
        return Encoder.from_pretrained(encoder, device=device)
    if not isinstance(encoder, TokenEncoder):
        raise TypeError(f"An encoder is a checkpoint's name or folder, an Encoder or a TokenEncoder, got {encoder!r:.80}.")
    return encoder


class _Result:
    """The vectors of a batch on their way from the device.

    A GPU's copy into pinned memory runs beside what Python does meanwhile, and ``rows`` waits for it.
    """

    def __init__(self, vectors: torch.Tensor, starts: list[int], lengths: list[int]) -> None:
        self._starts, self._lengths = starts, lengths
        self._copied: Any = None  # an event; torch has no annotations for it
        if vectors.device.type == "cuda":
            self._vectors = torch.empty_like(vectors, device="cpu", pin_memory=True).copy_(vectors, non_blocking=True)
            event: Any = torch.cuda.Event
            self._copied = event()
            self._copied.record(torch.cuda.current_stream(vectors.device))
        else:
            self._vectors = vectors.cpu()

    def rows(self) -> Iterator[NDArray[np.float32]]:
        """Of each input *Shape:* (length, dim), float32."""
        if self._copied is not None:
            self._copied.synchronize()
        vectors = self._vectors.numpy()
        for start, length in zip(self._starts, self._lengths, strict=True):
            yield vectors[start : start + length]


def _placed(groups: list[list[int]], batch: list[int], result: _Result) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """The rows of a batch for every position that shares them."""
    for i, rows in zip(batch, result.rows(), strict=True):
        for position in groups[i]:
            yield position, rows


def _to_device(array: NDArray[np.int64], device: torch.device) -> torch.Tensor:
    """A copy on the device, which a GPU makes while Python goes on."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _unpickle(arguments: dict[str, Any]) -> Encoder:
    return Encoder.from_pretrained(**arguments)


def _as_text(about: dict[str, Any]) -> str:
    """A recipe for a reader, a line for each part."""

    def sequence(side: str) -> str:
        before, after = (
            [f"{token!r}={number}" for token, number in about[part].items()] for part in (f"{side}_prefix", "suffix")
        )
        prompt = [repr(about[f"{side}_prompt"])] if about[f"{side}_prompt"] else []
        return f"at most {about[f'{side}_length']} tokens: {' '.join([*before, *prompt, side, *after])}"

    mask, example = about["augmentation"], about["example"]
    filled = "not filled up"
    if mask:
        attended = "attended to" if mask["attended"] else "not attended to"
        filled = f"filled up to {mask['up_to']} with {mask['token']!r}={mask['id']}, {attended}"
    lines = {
        "backbone": f"{about['backbone']}, {about['parameters'] / 1e6:.1f} million parameters, hidden size {about['hidden']}",
        "head": "; ".join(about["head"]) or "none, the hidden states are the vectors",
        "vectors": f"{about['dim']} dimensions, {about['dtype']} on {about['device']}, trained with {about['similarity']}",
        "query": f"{sequence('query')}; {filled}",
        "passage": sequence("passage"),
        "skipped": " ".join(about["skipped"]) or "nothing",
        **({"pooling": f"about 1 vector of {about['pool_factor']:g} stays"} if about["pool_factor"] != 1 else {}),
        "example": example["query"],
        "  tokens": " ".join(example["tokens"]),
        "  ids": " ".join(map(str, example["ids"])),
        "  attention": " ".join(map(str, example["attention"])),
    }
    kind = about["format"] if about["trained"] else f"{about['format']}, untrained"
    return f"Encoder({about['name']!r}, {kind})\n" + "\n".join(f"  {name:<11} {value}" for name, value in lines.items())


def _as_list(texts: Iterable[str]) -> list[str]:
    if isinstance(texts, str):
        raise TypeError(f"texts must be a list of strings, got one str; write [{texts!r:.40}].")
    return list(texts)

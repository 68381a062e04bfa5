"""Encode texts as unit token vectors, by the recipe of a ColBERT checkpoint."""

from __future__ import annotations

import logging
from dataclasses import replace
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.devices import as_device, as_dtype
from colbert_core.errors import CheckpointError, UnsupportedCheckpointError
from colbert_core.memory import give_back
from colbert_core.model.backbone import (
    Head,
    build_backbone,
    build_head,
    hidden_size,
    most_tokens,
    move,
    text_config,
    write_backbone,
)
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
from colbert_core.model.description import about, as_text
from colbert_core.model.forward import Runner
from colbert_core.model.gathering import MOST, GatheringRunner
from colbert_core.model.inputs import InputBuilder, as_list, respelled
from colbert_core.model.light import load_bert
from colbert_core.model.scripts import Scripts
from colbert_core.model.sharing import Shared, state_of
from colbert_core.model.tokenizer import Tokenizer
from colbert_core.paths import as_path
from colbert_core.progress import progress_bar
from colbert_core.storage.aside import folder_aside, is_free
from colbert_core.storage.durable import put_in_place
from colbert_core.text.blank import check_queries, empty_query
from colbert_core.threads import new_lock, one_torch_thread
from colbert_core.types import Passage, TokenEmbeddings, TokenEncoder, check_text, is_encoder
from colbert_core.vectors.embeddings import has_text
from colbert_core.vectors.pooling import pool_embeddings

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import torch
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

_shared: Shared[Encoder] = Shared()


class Encoder:
    """A ColBERT checkpoint that turns queries and passages into one unit vector per token.

    Safe to share between threads. On a CPU a call encodes batches of its texts at once, each by one thread, on as many cores
    as ``get_num_threads`` allows; its vectors depend on the texts alone, to the last bit.
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
        """Build an encoder of finished parts. Most callers use ``from_pretrained``.

        Args:
            backbone: a transformers encoder, in evaluation mode and on its device.
            head: makes vectors of the hidden states; None uses them as they are.
            tokenizer: the checkpoint's.
            config: the checkpoint's recipe.
            name: for messages.
            late_chunking: see ``from_pretrained``.

        Raises:
            CheckpointError: the tokenizer knows more tokens than the backbone, lacks one that the recipe needs, or adds none.
            ValueError: a length of the recipe leaves no room for text, or is more than the backbone reads.
        """
        self.name = name
        self.config = config
        self._backbone: Any = backbone  # transformers' models have no annotations
        self._head = head
        self._tokenizer = tokenizer
        self._scripts = Scripts(tokenizer, name)
        self._runner = GatheringRunner(Runner(backbone, head, tokenizer.pad_id))
        self._source: Path | None = None
        self._pickled_as: dict[str, Any] | None = None

        n_known: int = text_config(backbone).vocab_size
        if tokenizer.n_ids > n_known:
            raise CheckpointError(
                f"{name}: the tokenizer knows {tokenizer.n_ids} tokens but the backbone has vectors for "
                f"{n_known}; the tokenizer files belong to another checkpoint."
            )
        self._hidden = hidden_size(backbone)
        self._inputs = InputBuilder(
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
        dim: int | None = None,
        late_chunking: bool = False,
        language: str | None = None,
        trust_remote_code: bool = False,
        local_files_only: bool = False,
    ) -> Encoder:
        """Load a checkpoint: the one in the box, a folder, or a name on the Hugging Face hub.

        Checkpoints of Stanford ColBERT (folders and .dnn files), PyLate, sentence-transformers (multi-vector) and
        nanoColBERT have a recipe of their own; other encoders become untrained late interaction over hidden states.

        Equal requests get the same encoder for as long as somebody has it and its files are what they were, so that any number
        of indexes, retrievers and rerankers share one model.

        Args:
            name: None for the model that ships with this package; a folder or .dnn file; or "organisation/model".
            device: "cpu", "cuda", "cuda:1", "mps"; None for the best one present.
            dtype: of the backbone, such as "float32" or "bfloat16"; None for bfloat16 where that is faster (on a CPU with
                matrix instructions or AMD's: 3 times, at a mean cosine of .9999 to float32), float16 on an older CUDA GPU,
                else float32.
            query_length: most tokens of a query, in place of the checkpoint's.
            passage_length: most tokens of a passage window, in place of the checkpoint's.
            dim: keep so many leading components of every vector, for a model that was trained for that (its
                ``config.nested_dims``: 64, 96 and 128 of jina-colbert-v2); of another model, with a logged warning.
            late_chunking: read a long passage with as much context as the backbone takes at once, and cut its vectors
                into windows instead of its text (Günther et al., 2024, arXiv 2409.04701).
            language: the language whose layers run, for a model that has some for each, such as "fr_XX" for an X-MOD
                (colbert-xm); None for the one that config.json names.
            trust_remote_code: run code that comes with the checkpoint.
            local_files_only: use the hub's cache and no network.

        Raises:
            CheckpointNotFoundError: there is no such folder, or the hub's files are not cached and cannot be fetched.
            CheckpointError: the folder is damaged, its parts do not fit, its recipes disagree, its format is not supported,
                or it needs ``trust_remote_code`` or a ``language``.
            ValueError: the model cannot have this length, dim, device, dtype or language, or late chunking makes no
                difference, since the backbone reads no more than one window.
        """
        name = None if name is None else fspath(name)
        source = DEFAULT_MODEL if name is None else find_checkpoint(name, local_files_only=local_files_only)
        arguments = {
            "name": name,
            "device": device,
            "dtype": dtype,
            "query_length": query_length,
            "passage_length": passage_length,
            "dim": dim,
            "late_chunking": late_chunking,
            "language": language,
            "trust_remote_code": trust_remote_code,
            "local_files_only": local_files_only,
        }
        placed = as_device(device)
        meant = {**arguments, "device": str(placed), "dtype": as_dtype(dtype, placed), "local_files_only": None}
        asked = (cls, source.absolute(), state_of(source), *meant.values())
        encoder = _shared.get(asked, lambda: cls._load(source, arguments))
        if encoder._pickled_as == arguments:
            return encoder
        return _shared.get((*asked, *arguments.values()), lambda: encoder._with(_pickled_as=arguments))

    @classmethod
    @one_torch_thread()  # or those of each small operation wait for each other: 5 s where another process has one of two cores
    def _load(cls, source: Path, arguments: dict[str, Any]) -> Encoder:
        """Load what ``from_pretrained`` was asked for."""
        name, trust_remote_code = arguments["name"], arguments["trust_remote_code"]
        lengths = {setting: arguments[setting] for setting in ("query_length", "passage_length")}
        chosen = {setting: length for setting, length in lengths.items() if length is not None}
        with download_named(source):
            checkpoint = read_checkpoint(source, chosen=chosen, local_files_only=arguments["local_files_only"])
            tokenizer = Tokenizer.from_folder(
                checkpoint.folder, lowercase=checkpoint.config.lowercase, trust_remote_code=trust_remote_code
            )
        device = as_device(arguments["device"])
        backbone = (load_bert(checkpoint) if arguments["language"] is None else None) or build_backbone(
            checkpoint, trust_remote_code=trust_remote_code, language=arguments["language"]
        )
        checkpoint = checkpoint.cut_to(arguments["dim"], hidden_size(backbone))
        head = build_head(checkpoint.head)
        config, limit = checkpoint.config, most_tokens(backbone)
        settled = {setting: min(getattr(config, setting), limit) for setting in lengths} | chosen
        if config.augmentation_length is not None:
            settled["augmentation_length"] = min(config.augmentation_length, settled["query_length"])
        encoder = cls(
            move(backbone, device, as_dtype(arguments["dtype"], device)).eval().requires_grad_(requires_grad=False),
            None if head is None else head.to(device).eval().requires_grad_(requires_grad=False),
            tokenizer,
            replace(config, **settled),
            name="default" if name is None else name,
            late_chunking=arguments["late_chunking"],
        )
        encoder._source, encoder._pickled_as = source.absolute(), arguments
        del checkpoint, backbone  # the tensors as they were stored
        give_back()
        return encoder

    @property
    def dim(self) -> int:
        """Components of every vector."""
        return self._hidden if self._head is None else self._head.dim

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self._runner.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision in which the backbone computes."""
        return next(self._backbone.parameters()).dtype  # type: ignore[no-any-return]

    @property
    def origin(self) -> dict[str, Any] | None:
        """Arguments of ``from_pretrained`` that load the same encoder on any device; None if it was built from parts."""
        if self._pickled_as is None:
            return None
        arguments = {key: self._pickled_as[key] for key in ("name", "query_length", "passage_length", "late_chunking")}
        for key in ("dim", "language"):
            if self._pickled_as[key] is not None:
                arguments[key] = self._pickled_as[key]  # else left out, so that older versions open the index
        if arguments["name"] is not None and as_path(arguments["name"]).exists():
            arguments["name"] = str(as_path(arguments["name"]).absolute())
        return arguments

    def with_query_length(self, length: int) -> Encoder:
        """Return an encoder of the same weights that reads queries of ``length`` tokens, or as many as the backbone reads."""
        limit = most_tokens(self._backbone)
        config = replace(self.config, query_length=min(length, limit))
        inputs = InputBuilder(config, self._tokenizer, most_tokens=limit, name=self.name)
        return self._with(config=config, _inputs=inputs, _source=None, _pickled_as=None)

    def for_many_callers(self) -> Encoder:
        """Return an encoder of the same weights that reads questions of threads that ask at once in one pass, on a CPU.

        Sixteen callers get several times as many answers, and nobody waits for others to come. In return the vectors of a
        question depend on who else asks, by as much as rounding does: .003 in bfloat16. A pickle of it loads a plain encoder.
        """
        return self._with(_runner=GatheringRunner(self._runner, MOST))

    def _with(self, **changes: Any) -> Encoder:
        other = object.__new__(Encoder)
        other.__dict__ = {**self.__dict__, **changes}
        return other

    def encode_queries(self, texts: Iterable[str]) -> list[NDArray[np.float32]]:
        """Encode queries; white space around them does not count.

        ColBERT (SIGIR 2020), section 3.2: ``[CLS] [Q] text [SEP]``, then ``[MASK]`` up to ``query_length`` if the recipe
        augments queries. Every vector scores, those of the model's own tokens included.

        Args:
            texts: one string per query.

        Returns:
            For each query *Shape:* (n_q, dim), float32, unit rows.

        Raises:
            TypeError: a query is not a string.
            ValueError: a query is blank or has no token of its own, or holds a lone surrogate.
        """
        stripped = [check_text(text, f"Query {position}").strip() for position, text in enumerate(as_list(texts))]
        check_queries(stripped)
        self._scripts.warn(stripped, "queries")
        inputs = list(self._inputs.queries(stripped))
        for position, model_input in enumerate(inputs):
            if not has_text(model_input.windows[0].token_spans):
                raise empty_query(stripped[position], position, len(stripped))
        if n_cut := sum(model_input.n_cut > 0 for model_input in inputs):
            logger.warning(
                "%d of %d queries are longer than query_length=%d tokens and were cut; "
                "load the encoder with a larger query_length to read all of them.",
                n_cut, len(inputs), self.config.query_length,
            )  # fmt: skip
        matrices: list[NDArray[np.float32]] = [np.empty((0, self.dim), np.float32)] * len(inputs)

        def put(i: int, rows: NDArray[np.float32]) -> None:
            matrices[i] = rows[inputs[i].windows[0].kept]

        self._runner.run(inputs, put)
        return matrices

    def encode_passages(self, texts: Iterable[str], *, progress: bool | None = None) -> TokenEmbeddings:
        """Encode passages of any length; a text that the model cannot read at once becomes overlapping windows.

        ``[CLS] [D] window [SEP]``, without the vectors of punctuation if the recipe skips them.

        Args:
            texts: one string per passage; an empty one has the vectors of the model's own tokens.
            progress: show a bar; None shows it on a terminal or in a notebook once a second has passed.

        Returns:
            The packed vectors; ``owners`` says which text each window belongs to.

        Raises:
            TypeError: a text is not a string.
            ValueError: a text holds a lone surrogate.
        """
        texts = [check_text(text, f"Passage {position}") for position, text in enumerate(as_list(texts))]
        self._scripts.warn(texts, "passages")
        inputs = list(self._inputs.passages(texts))
        windows = [window for model_input in inputs for window in model_input.windows]
        first_windows = np.cumsum([0, *(len(model_input.windows) for model_input in inputs)])  # of each input
        doclens = np.array([len(window.kept) for window in windows], np.int32)
        starts = np.cumsum(doclens) - doclens
        vectors = np.empty((int(doclens.sum()), self.dim), np.float32)
        counting = new_lock()
        with progress_bar("Encoding", len(windows), "window", progress) as bar:

            def put(i: int, rows: NDArray[np.float32]) -> None:
                for number, window in enumerate(inputs[i].windows, first_windows[i]):
                    vectors[starts[number] : starts[number] + doclens[number]] = rows[window.kept]
                with counting:
                    bar.update(len(inputs[i].windows))

            self._runner.run(inputs, put)
        embeddings = TokenEmbeddings(
            vectors=vectors,
            token_spans=np.concatenate([np.empty((0, 2), np.int32), *(window.token_spans for window in windows)]),
            doclens=doclens,
            window_spans=np.array([window.span for window in windows], np.int32).reshape(-1, 2),
            owners=np.array([window.owner for window in windows], np.int32),
        )
        return pool_embeddings(embeddings, self.config.pool_factor, self.config.pool_protected)

    def query_spans(self, text: str) -> NDArray[np.int32]:
        """Tell which characters each vector of a query stands for, as ``encode_queries`` makes them. No model runs.

        Returns:
            *Shape:* (n_q, 2), int32, half-open; empty for the model's own tokens.

        Raises:
            TypeError, ValueError: the query is no string, is blank, or holds a lone surrogate.
        """
        check_queries([stripped := check_text(text, "Query").strip()])
        (model_input,) = self._inputs.queries([stripped])
        return model_input.windows[0].token_spans + np.int32(len(text) - len(text.lstrip()))

    def passage_spans(self, text: str) -> list[tuple[tuple[int, int], NDArray[np.int32]]]:
        """Tell which windows ``encode_passages`` makes of a text, before pooling, and which characters each vector stands for.

        No model runs, so it takes a hundredth of the time that encoding takes.

        Returns:
            For each window its span, half-open, and the spans of its vectors, *Shape:* (n, 2), int32, half-open; empty for
            the model's own tokens.
        """
        inputs = self._inputs.passages([check_text(text, "Passage")])
        return [(window.span, window.token_spans) for model_input in inputs for window in model_input.windows]

    def count_tokens(self, text: str) -> int:
        """Count the tokens of a text, without those that the model adds."""
        return len(self._inputs.tokenizer.encode([check_text(text, "Text")])[0].ids)

    @property
    def piece_tokens(self) -> int:
        """Most tokens of a piece that ``split`` makes: what this model reads of a passage at once."""
        return self._inputs.piece_tokens

    def split(
        self, text: str, document_id: str, *, size: int | None = None, overlap: int = 0, metadata: dict[str, Any] | None = None
    ) -> list[Passage]:
        """Cut a document into passages that this model reads whole, at headings, paragraphs, sentences or words.

        ``Index.add`` cuts by the same rules. A Markdown heading stays with its text, and fenced code whole where it fits.

        Args:
            text: the document.
            document_id: its name; the passages are called ``document_id#1`` and so on.
            size: most tokens of a passage, those that the model adds not counted; None for ``piece_tokens``.
            overlap: least tokens that neighbours share, less than size.
            metadata: given to every passage, beside "document_id", "start" and "end": the passage is ``text[start:end]``.
                If one of these is a key of yours, it stays, and the others are called "piece_document_id" and so on.

        Returns:
            The passages in order, without blank ends; no passages for a blank text.

        Raises:
            TypeError, ValueError: text is no string or holds a lone surrogate, or size or overlap is out of range.
        """
        return self._inputs.split(check_text(text, "text"), document_id, size=size, overlap=overlap, metadata=metadata)

    def save(self, path: str | PathLike[str], *, format: str) -> None:
        """Write the checkpoint so that this and other libraries read it: the whole folder, or nothing if something fails.

        The copy is read again before the folder appears: it must make the same tokens of some texts as this encoder. The
        backbone's weights are copied from the checkpoint that was loaded, so that must still be there and unchanged.

        Args:
            path: a folder that does not exist yet, or is empty.
            format: "stanford" for Stanford ColBERT and RAGatouille, "pylate" for PyLate, "sentence-transformers" for its
                version 6. This package reads all three, and an encoder loaded again gives the same vectors, with one
                exception: in sentence-transformers' format a marker such as "[unused0]" is found in users' texts as well.

        Raises:
            ValueError: there is no such format.
            FileExistsError: the folder holds something.
            CheckpointError: the checkpoint that was loaded is gone, or has changed since.
            UnsupportedCheckpointError: the format cannot hold this model so that its own library reads it as it is meant.
        """
        if format not in WRITABLE:
            raise ValueError(f"format must be one of {', '.join(WRITABLE)}, got {format!r}.")
        target = as_path(path).resolve()
        if not is_free(target):
            raise FileExistsError(f"{target} holds something already; name a folder that is new or empty.")
        config, tokenizer = respelled(self.config, self._tokenizer, format)
        with folder_aside(target) as aside:
            folder = aside / target.name
            folder.mkdir()
            weights = write_backbone(folder, self._backbone, self._source, self.name)
            tokenizer.save(folder)
            head = () if self._head is None else self._head.weights()
            checkpoint = Checkpoint(folder, config, weights, head)
            write_checkpoint(folder, checkpoint, prefix=self._backbone.base_model_prefix, dim=self.dim)
            self._check_copy(folder)
            for file in folder.rglob("*.safetensors"):
                file.chmod((folder / "config.json").stat().st_mode)  # safetensors writes for its owner only
            try:
                put_in_place(folder, target)
            except OSError as error:  # another thread or process was faster
                raise FileExistsError(f"{target} holds something by now ({error}); name a folder that is new.") from error

    def describe(self) -> dict[str, Any]:
        """Return the recipe in plain values: backbone, lengths, markers with their ids, and the rest of ``print(encoder)``."""
        return about(self.name, self._backbone, self._head, self._inputs, self._scripts.read)

    def _check_copy(self, folder: Path) -> None:
        """Make sure that a copy of the checkpoint makes the same inputs of texts as this encoder.

        Raises:
            UnsupportedCheckpointError: it does not, so another library would not either.
        """
        config, limit = read_checkpoint(folder).config, most_tokens(self._backbone)
        tokenizer = Tokenizer.from_folder(folder, lowercase=config.lowercase)
        try:
            copied = InputBuilder(config, tokenizer, most_tokens=limit, name=str(folder))
        except CheckpointError as error:
            raise UnsupportedCheckpointError(f"The {config.format} format cannot hold {self.name}: {error}") from error
        plain = InputBuilder(self.config, self._tokenizer, most_tokens=limit, name=self.name)  # without late chunking
        plain.check_equal(copied, config.format)

    def __repr__(self) -> str:
        return as_text(self.describe())

    def __deepcopy__(self, memo: dict[int, Any]) -> Encoder:
        """Return the encoder itself: it never changes, so copies may share it."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the arguments it was loaded with, not its weights."""
        if self._pickled_as is None:
            raise TypeError(f"The encoder {self.name!r} was built from parts, so it cannot be pickled; use from_pretrained.")
        return _unpickle, (self._pickled_as,)


def as_encoder(encoder: str | PathLike[str] | TokenEncoder | None, *, device: str | None = None) -> TokenEncoder:
    """Load an encoder by name, or the one in the box for None; one that is loaded already is returned as it is."""
    if encoder is None or isinstance(encoder, (str, PathLike)):
        return Encoder.from_pretrained(encoder, device=device)
    if not is_encoder(encoder):
        raise TypeError(f"An encoder is a checkpoint's name or folder, an Encoder or a TokenEncoder, got {encoder!r:.80}.")
    return encoder


def _unpickle(arguments: dict[str, Any]) -> Encoder:
    return Encoder.from_pretrained(**arguments)

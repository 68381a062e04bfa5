"""Training examples prepared as token ids on disk, which a training run maps into memory.

No model runs here. Tokenizing once, before training, keeps the accelerator busy later, and lets a run read examples of any
number in any order.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Sized
from dataclasses import asdict, dataclass
from os import PathLike
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from colbert_core.paths import as_path
from colbert_core.progress import progress_bar
from colbert_core.storage.aside import folder_begun, is_free
from colbert_core.storage.durable import put_in_place, sha256_of, write_json
from colbert_core.storage.incoming import check_regular, read_json_file
from colbert_core.train.alike import first_alike
from colbert_core.train.examples import add_place, place_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from colbert_core.model.inputs import InputBuilder, ModelInput
    from colbert_core.train.examples import Example, Runs
    from colbert_core.train.model import ColBERT

_VERSION = 1
_MANIFEST = "manifest.json"

# The arrays, and the types that each may have.
_TYPES: dict[str, tuple[str, ...]] = {
    **{f"{side}_ids": ("<u2", "<i4") for side in ("query", "passage")},
    **{f"{side}_kept": ("|b1",) for side in ("query", "passage")},
    **{f"{side}_offsets": ("<i8",) for side in ("query", "passage")},
    **{f"{side}_attended": ("<i4",) for side in ("query", "passage")},
    "example_queries": ("<i4",),
    "example_passages": ("<i4",),
    "example_offsets": ("<i8",),
    "example_scores": ("<f4",),
}

# Texts that are tokenized together.
_AT_A_TIME = 1024

# Settings of an encoder that decide which token ids a text becomes, and which of their vectors count.
_TOKEN_SETTINGS = (
    *("query_length", "passage_length", "query_marker", "passage_marker", "query_prompt", "passage_prompt"),
    *("augment_queries", "augmentation_token", "augmentation_length", "attend_to_augmentation"),
    *("skip_punctuation", "skip_tokens", "skip_in_queries", "lowercase"),
)


@dataclass(frozen=True, slots=True)
class Padded:
    """Sequences of token ids, padded to the longest of them.

    Attributes:
        ids: token ids. *Shape:* (n, length), int64.
        attended: number of leading tokens that may be attended to. *Shape:* (n,), int64.
        kept: True for tokens whose vectors count, which are neither padding nor skipped. *Shape:* (n, length), bool.
    """

    ids: NDArray[np.int64]
    attended: NDArray[np.int64]
    kept: NDArray[np.bool_]


class Texts:
    """Tokenized texts of one kind, queries or passages, mapped from disk."""

    def __init__(
        self, ids: NDArray[Any], kept: NDArray[np.bool_], offsets: NDArray[np.int64], attended: NDArray[np.int32]
    ) -> None:
        """Take arrays of *Shape:* (n_tokens,), uint16 or int32; (n_tokens,), bool; (n_texts + 1,); and (n_texts,).

        Raises:
            ValueError: they do not fit together.
        """
        check_offsets(offsets, len(attended), len(ids))
        lengths = np.diff(offsets)
        if len(kept) != len(ids) or (lengths < 1).any() or (attended < 0).any() or (attended > lengths).any():
            raise ValueError(f"the {len(attended)} texts do not have {len(ids)} tokens")
        if len(kept) and int(kept.view(np.uint8).max()) > 1:
            raise ValueError("what says which tokens are kept is neither true nor false")
        self._ids, self._kept, self._offsets, self._attended = ids, kept, offsets, attended

    def __len__(self) -> int:
        return len(self._attended)

    def ids(self, number: int) -> NDArray[np.int64]:
        """Return the token ids of a text. *Shape:* (length,), int64."""
        return self._ids[self._offsets[number] : self._offsets[number + 1]].astype(np.int64)

    def first_alike(self) -> NDArray[np.int64]:
        """Return for each text the number of the first that the model reads alike. *Shape:* (n_texts,), int64."""
        return first_alike(self._ids, self._offsets)

    def equal(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell for each text whether these are its tokens. *Shape:* (n_texts,), bool."""
        are_so: NDArray[np.bool_] = np.diff(self._offsets) == len(ids)
        numbers = np.flatnonzero(are_so)
        are_so[numbers] = (self._ids[self._offsets[numbers, None] + np.arange(len(ids))] == ids).all(axis=1)
        return are_so

    def check_ids(self, vocabulary: int, side: str) -> None:
        """Make sure that every token is one of the vocabulary.

        Raises:
            ValueError: one is not.
        """
        if len(self._ids) and not 0 <= int(self._ids.min()) <= int(self._ids.max()) < vocabulary:
            raise ValueError(f"a {side} has the token {int(self._ids.max())}, where there are {vocabulary}")

    def padded(self, numbers: NDArray[np.integer[Any]], pad_id: int) -> Padded:
        """Return the texts with these numbers as a batch."""
        lengths = self._offsets[numbers + 1] - self._offsets[numbers]
        ids = np.full((len(numbers), int(lengths.max())), pad_id, np.int64)
        kept = np.zeros(ids.shape, np.bool_)
        for row, (start, length) in enumerate(zip(self._offsets[numbers], lengths, strict=True)):
            ids[row, :length] = self._ids[start : start + length]
            kept[row, :length] = self._kept[start : start + length]
        return Padded(ids, self._attended[numbers].astype(np.int64), kept)


class Examples:
    """Prepared examples, mapped from disk: every text once as token ids, and examples as numbers of texts.

    Attributes:
        folder: the folder on disk.
        manifest: how they were made: tokenizer, settings that decide tokens, counts, digests of arrays and of source files.
        queries: tokens of the queries.
        passages: tokens of the passages.
        query_numbers: query of each example. *Shape:* (n_examples,), int32.
        passage_numbers: positive and then negatives of each example. *Shape:* (n_numbers,), int32.
        offsets: where the passages of each example begin in ``passage_numbers``. *Shape:* (n_examples + 1,), int64.
        scores: the teacher's score of each passage; None unless every example has them. *Shape:* (n_numbers,), float32.
        unscored: numbers of the examples without a teacher's scores. *Shape:* (n,), int64.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
        """Take what ``open`` has mapped; use ``open`` or ``prepare``.

        Raises:
            ValueError: the arrays do not fit together.
        """
        self.folder = folder
        self.manifest = manifest
        self.queries, self.passages = (
            Texts(*(arrays[f"{side}_{part}"] for part in ("ids", "kept", "offsets", "attended")))
            for side in ("query", "passage")
        )
        self.query_numbers = arrays["example_queries"]
        self.passage_numbers = arrays["example_passages"]
        self.offsets = arrays["example_offsets"]
        self.scores = arrays["example_scores"] if manifest["scored"] else None
        check_offsets(self.offsets, len(self.query_numbers), len(self.passage_numbers))
        for numbers, texts in ((self.query_numbers, self.queries), (self.passage_numbers, self.passages)):
            if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < len(texts):
                raise ValueError(f"an example names text {int(numbers.max())} of {len(texts)}")
        if (np.diff(self.offsets) < 1).any():
            raise ValueError("an example has no passage")
        if len(arrays["example_scores"]) != len(self.passage_numbers):
            raise ValueError("a score is missing")
        self.unscored = np.flatnonzero(np.isnan(arrays["example_scores"][self.offsets[:-1]]))
        if self.scores is not None and not np.isfinite(self.scores).all():
            raise ValueError("a score is missing or no finite number")
        for side, texts in (("query", self.queries), ("passage", self.passages)):
            texts.check_ids(manifest["tokens"]["vocabulary"], side)

    @classmethod
    def open(cls, folder: str | PathLike[str]) -> Examples:
        """Map the arrays of a folder that ``prepare`` made.

        Raises:
            FileNotFoundError: the folder holds no prepared examples.
            ValueError: another version made them, or a file has another size than the manifest says.
        """
        folder = as_path(folder)
        if not (folder / _MANIFEST).is_file():
            raise FileNotFoundError(f"{folder} holds no prepared examples, there is no {_MANIFEST}; make it with prepare.")
        try:
            manifest: dict[str, Any] = read_json_file(folder / _MANIFEST)
            if not isinstance(manifest, dict):
                raise TypeError(f"its manifest is a {type(manifest).__name__}")
            if manifest.get("version") != _VERSION:
                raise _OtherVersionError(
                    f"{folder} has examples of version {manifest.get('version')!r:.40}, this one reads {_VERSION}; "
                    "prepare again."
                )
            _check_manifest(manifest)
            return cls(folder, manifest, {name: _map_array(folder / name, manifest["arrays"][name]) for name in _TYPES})
        except (_OtherVersionError, _SizeError):
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{folder} is damaged: {error!s:.300}; remove the folder and prepare it again.") from None

    def __len__(self) -> int:
        return len(self.query_numbers)

    def place(self, number: int) -> str:
        """Say where an example was read: by file and line, or by its number from 0 where nobody knows."""
        return place_of(self.manifest.get("places", []), number)

    @property
    def digest(self) -> str:
        """SHA-256 of all arrays together."""
        return _digest(*(about["sha256"] for _, about in sorted(self.manifest["arrays"].items())))

    def check_model(self, model: ColBERT) -> None:
        """Check that the examples were tokenized as this model reads texts.

        Raises:
            ValueError: they were not.
        """
        there, here = self.manifest["tokens"], _token_settings(model.inputs)
        differing = [name for name in here if there.get(name) != here[name]]
        if differing:
            told = "; ".join(f"{name}: {there.get(name)!r:.40} there, {here[name]!r:.40} here" for name in differing)
            raise ValueError(
                f"{self.folder} was prepared for {self.manifest['name']}, which reads texts otherwise than {model.name} "
                f"({told}); prepare the examples again with the model and the settings they are to train."
            )


def prepare(
    examples: Iterable[Example],
    model: ColBERT,
    folder: str | PathLike[str],
    *,
    sources: Iterable[str | PathLike[str]] | str | PathLike[str] = (),
    progress: bool | None = None,
) -> Examples:
    """Tokenize examples into a folder, which appears when it is whole. Only one process at a time may write it.

    Every text is tokenized and stored once, however often it comes. A passage longer than the model reads at once is cut to
    its first window.

    Args:
        examples: examples to train on.
        model: model to train, which decides how texts become tokens.
        folder: folder to make. If it holds examples of the same sources and for the same settings, it is kept as it is, and
            the examples are not read.
        sources: file or files that the examples come from, whose digests go into the manifest. Without them, a folder that is
            there is kept if the examples turn out the same.
        progress: show a bar; None shows it on a terminal or in a notebook once a second has passed.

    Raises:
        FileExistsError: the folder holds something else, or other examples.
        ValueError: there are no examples.
        OSError: the disk is full or failed; nothing is left behind.
    """
    folder = as_path(folder).absolute()
    settings = _token_settings(model.inputs)
    listed = [sources] if isinstance(sources, str | PathLike) else sources
    files = {str(source): sha256_of(as_path(source)) for source in listed}
    there = _present(folder)
    if there is not None and files and (there.manifest["sources"], there.manifest["tokens"]) == (files, settings):
        return there
    work = folder_begun(folder)  # always the same, so that what a killed process left is removed
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(exist_ok=True)
    try:
        places: Runs = []
        arrays, counts = _write(examples, model.inputs, work, places, progress)
        if not counts["examples"]:
            raise ValueError(f"There are no examples to prepare for {folder}; give at least one.")
        manifest = {
            "version": _VERSION,
            "name": model.name,
            "tokens": settings,
            "sources": files,
            "scored": counts["scored"] == counts["examples"],
            "counts": counts,
            "places": places,
            "arrays": arrays,
        }
        write_json(work / _MANIFEST, manifest)
        if there is not None:
            if (there.manifest["arrays"], there.manifest["tokens"]) == (arrays, settings):
                return there
            raise FileExistsError(
                f"{folder} holds other examples, or the same for another model ({there.manifest['counts']['examples']} for "
                f"{there.manifest['name']}, not {counts['examples']} for {model.name}); remove it or name another folder."
            )
        put_in_place(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Examples.open(folder)


class _Writer:
    """Writes an array piece by piece."""

    def __init__(self, stack: contextlib.ExitStack, file: Path, dtype: type[np.generic]) -> None:
        self._file: IO[bytes] = stack.enter_context(file.open("wb"))
        self._dtype = np.dtype(dtype)
        self._sha256, self._length = hashlib.sha256(), 0

    def write(self, values: Any) -> None:
        """Append values."""
        array = np.ascontiguousarray(values, dtype=self._dtype)
        data = array.tobytes()
        self._file.write(data)
        self._sha256.update(data)
        self._length += array.size

    def about(self) -> dict[str, Any]:
        """Describe the array for the manifest."""
        return {"dtype": self._dtype.str, "length": self._length, "sha256": self._sha256.hexdigest()}


class _TextsWriter:
    """Writes the different texts of one kind, numbered in the order they come and tokenized many at a time."""

    def __init__(self, writers: dict[str, _Writer], side: str, inputs: Callable[[list[str]], Iterator[ModelInput]]) -> None:
        self._parts = [writers[f"{side}_{part}"] for part in ("ids", "kept", "offsets", "attended")]
        self._parts[2].write([0])
        self._inputs = inputs
        self._numbers: dict[bytes, int] = {}  # by digest, about a hundred bytes for a text of any length
        self._waiting: list[str] = []
        self._cut: set[int] = set()
        self._end = self.n_cut = 0

    def number(self, text: str) -> int:
        """Return the number of a text, a new one if it comes for the first time."""
        key = hashlib.blake2b(text.encode(), digest_size=16).digest()
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._numbers)
            self._waiting.append(text)
            if len(self._waiting) == _AT_A_TIME:
                self.flush()
        return number

    def flush(self) -> None:
        """Tokenize and write the texts that wait."""
        ids, kept, offsets, attended = self._parts
        owner = -1
        for model_input in self._inputs(self._waiting):
            window = model_input.windows[0]
            self._cut.update([window.owner] if window.owner == owner or model_input.n_cut else [])
            if window.owner == owner:
                continue  # a later window of a long passage
            owner = window.owner
            is_kept = np.zeros(len(model_input.ids), np.bool_)
            is_kept[window.kept] = True
            self._end += len(model_input.ids)
            ids.write(model_input.ids)
            kept.write(is_kept)
            offsets.write([self._end])
            attended.write([model_input.attended])
        self.n_cut += len(self._cut)
        self._cut.clear()
        self._waiting.clear()

    def __len__(self) -> int:
        return len(self._numbers)


def _write(
    examples: Iterable[Example], inputs: InputBuilder, folder: Path, places: Runs, progress: bool | None
) -> tuple[dict[str, Any], dict[str, int]]:
    """Write the arrays, note the places, and return what the manifest says of each array, and the counts."""
    ids_type: type[np.generic] = np.uint16 if inputs.tokenizer.size <= 2**16 else np.int32
    types: dict[str, type[np.generic]] = {
        **{f"{side}_ids": ids_type for side in ("query", "passage")},
        **{f"{side}_kept": np.bool_ for side in ("query", "passage")},
        **{f"{side}_offsets": np.int64 for side in ("query", "passage")},
        **{f"{side}_attended": np.int32 for side in ("query", "passage")},
        "example_queries": np.int32,
        "example_passages": np.int32,
        "example_offsets": np.int64,
        "example_scores": np.float32,
    }
    total = len(examples) if isinstance(examples, Sized) else None
    counts = {"examples": 0, "scored": 0}
    with contextlib.ExitStack() as stack:
        writers = {name: _Writer(stack, folder / name, dtype) for name, dtype in types.items()}
        queries = _TextsWriter(writers, "query", inputs.queries)
        passages = _TextsWriter(writers, "passage", inputs.passages)
        writers["example_offsets"].write([0])
        end = 0
        with progress_bar("Preparing", total, "example", progress) as bar:
            for example in examples:
                writers["example_queries"].write([queries.number(example.query.strip())])
                numbers = [passages.number(text) for text in (example.positive, *example.negatives)]
                end += len(numbers)
                writers["example_passages"].write(numbers)
                writers["example_offsets"].write([end])
                writers["example_scores"].write([np.nan] * len(numbers) if example.scores is None else example.scores)
                add_place(places, counts["examples"], example.place)
                counts["examples"] += 1
                counts["scored"] += example.scores is not None
                bar.update()
        queries.flush()
        passages.flush()
        counts |= {"queries": len(queries), "cut_queries": queries.n_cut}
        counts |= {"passages": len(passages), "cut_passages": passages.n_cut}
    return {name: writer.about() for name, writer in writers.items()}, counts


def _present(folder: Path) -> Examples | None:
    """Open the examples in a folder; None if there is no folder, or an empty one.

    Raises:
        FileExistsError: it holds something else.
    """
    if (folder / _MANIFEST).is_file():
        return Examples.open(folder)
    if not is_free(folder):
        raise FileExistsError(f"{folder} holds something else than prepared examples; name a folder that is new or empty.")
    return None


def _token_settings(inputs: InputBuilder) -> dict[str, Any]:
    """Return what decides the token ids, as values of JSON: the vocabulary and settings of the encoder."""
    tokenizer = inputs.tokenizer
    settings = {name: value for name, value in asdict(inputs.config).items() if name in _TOKEN_SETTINGS}
    if inputs.config.skip_first:  # else left out, so that examples prepared before there was this setting fit
        settings["skip_first"] = True
    vocabulary = _digest(*tokenizer.tokens_of(range(tokenizer.size)))
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return {"vocabulary": tokenizer.size, "vocabulary_sha256": vocabulary, **plain}


def check_offsets(offsets: NDArray[np.int64], n: int, end: int) -> None:
    """Make sure that offsets lead through an array of length ``end`` in ``n`` steps.

    Raises:
        ValueError: they do not.
    """
    if len(offsets) != n + 1 or int(offsets[0]) != 0 or int(offsets[-1]) != end or (offsets[1:] < offsets[:-1]).any():
        raise ValueError(f"{len(offsets)} offsets do not lead through {end} entries in {n} steps")


class _OtherVersionError(ValueError):
    """Another version of this package made the examples."""


class _SizeError(ValueError):
    """A file is missing, or has not the size that the manifest says."""


def _check_manifest(manifest: dict[str, Any]) -> None:
    """Make sure that a manifest has the entries that ``prepare`` writes.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it has not.
    """
    if not isinstance(manifest["name"], str) or not isinstance(manifest["scored"], bool):
        raise TypeError(f"its name is {manifest['name']!r:.40}, and scored is {manifest['scored']!r:.40}")
    if not isinstance(manifest["sources"], dict) or not isinstance(manifest["tokens"]["vocabulary"], int):
        raise TypeError("it does not say of which files and tokens it is")
    if not isinstance(manifest["counts"]["examples"], int):
        raise TypeError(f"it has {manifest['counts']['examples']!r:.40} examples")
    for first, file, line in manifest.get("places", []):  # folders made before have none
        if not (isinstance(first, int) and isinstance(file, str) and isinstance(line, int)):
            raise TypeError("it does not say from which lines it is")
    for name, types in _TYPES.items():
        about = manifest["arrays"][name]
        length = about["length"]
        if about["dtype"] not in types or isinstance(length, bool) or not isinstance(length, int) or not 0 <= length < 2**48:
            raise ValueError(f"its array {name} is {about!r:.200}")
        if not isinstance(about["sha256"], str):
            raise TypeError(f"its array {name} has no checksum")


def _map_array(file: Path, about: dict[str, Any]) -> NDArray[Any]:
    """Map an array that the manifest describes.

    Raises:
        _SizeError: the file is missing, or has another size.
    """
    dtype, length = np.dtype(about["dtype"]), about["length"]
    size = check_regular(file) if file.is_file() else -1
    if size != dtype.itemsize * length:
        problem = "is missing" if size < 0 else f"has {size} bytes"
        raise _SizeError(f"{file} {problem} where {dtype.itemsize * length} belong; remove the folder and prepare it again.")
    return np.memmap(file, dtype, "r", shape=(length,)) if length else np.empty(0, dtype)


def _digest(*parts: str) -> str:
    """Hash several strings together."""
    sha256 = hashlib.sha256()
    for part in parts:
        sha256.update(part.encode() + b"\0")
    return sha256.hexdigest()

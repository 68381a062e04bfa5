"""Read indexes that other libraries built: Stanford ColBERT's, RAGatouille's and fast-plaid's.

Both keep a codec, and for each chunk of passages the codes, the packed residuals and the number of tokens of each passage.
Only plain tensors, arrays and JSON are read; a file that would run code is refused.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.errors import DamagedIndexError, IndexNotFoundError, UnsupportedIndexError
from colbert_core.paths import as_path
from colbert_core.storage.incoming import check_tensor, load_torch, map_npy, read_json_file
from colbert_core.text.metadata import beside_own
from colbert_core.types import Passage
from colbert_core.vectors.codec import NBITS, ResidualCodec, pack, row_bytes
from colbert_core.vectors.segment import Segment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from os import PathLike
    from pathlib import Path

    from numpy.typing import NDArray

_ALL_TEXTS = (
    "Give all texts that were ever indexed, by number (--collection; their numbers are the ids then), or make the index anew."
)

# Passages in one commit of the new index.
_BATCH = 4096


@dataclass(frozen=True)
class Batch:
    """Some passages and their compressed windows, one window for each passage; pids count from 0."""

    passages: list[Passage]
    windows: Segment


@dataclass(frozen=True)
class ForeignIndex:
    """An index of another library.

    Attributes:
        kind: "Stanford ColBERT", "RAGatouille" or "fast-plaid".
        codec: its centroids and levels.
        encoder: name of the checkpoint that it was made with; None where it names none.
        n_tokens: number of its vectors.
    """

    kind: str
    codec: ResidualCodec
    encoder: str | None
    n_tokens: int
    _passages: Sequence[Passage]
    _doclens: tuple[NDArray[np.int32], ...]
    _chunk: Callable[[int], tuple[NDArray[Any], NDArray[np.uint8]]]

    def __len__(self) -> int:
        return len(self._passages)

    def batches(self) -> Iterator[Batch]:
        """Read everything, a few thousand passages at a time, but no passages without tokens: other libraries delete that way.

        Raises:
            DamagedIndexError: a file does not hold what it should.
        """
        first = 0
        for number, doclens in enumerate(self._doclens):
            codes, residuals = self._chunk(number)
            width = row_bytes(self.codec.dim, self.codec.nbits)
            if (
                codes.ndim != 1
                or codes.dtype.kind not in "iu"
                or residuals.dtype != np.uint8
                or residuals.shape[1:] != (width,)
            ):
                raise DamagedIndexError(
                    f"Chunk {number} has codes of {codes.dtype} {codes.shape} and residuals of {residuals.dtype} "
                    f"{residuals.shape}, where whole numbers and rows of {width} bytes belong."
                )
            n_tokens = int(doclens.sum(dtype=np.int64))
            if len(codes) < n_tokens or len(residuals) < n_tokens:
                raise DamagedIndexError(
                    f"Chunk {number} has {n_tokens} tokens but {len(codes)} codes and {len(residuals)} residuals."
                )
            ends = np.cumsum(doclens, dtype=np.int64)
            for start in range(0, len(doclens), _BATCH):
                places = np.arange(start, min(start + _BATCH, len(doclens)))
                places = places[doclens[places] > 0]
                if not len(places):
                    continue
                tokens = slice(int(ends[places[0]] - doclens[places[0]]), int(ends[places[-1]]))
                passages = [self._passages[first + place] for place in places.tolist()]
                if int(codes[tokens].max()) >= len(self.codec.centroids) or int(codes[tokens].min()) < 0:
                    raise DamagedIndexError(f"Chunk {number} names a centroid that there is not ({codes[tokens].max()}).")
                own_codes, own_residuals = codes[tokens].astype(self.codec.code_type), _repack(residuals[tokens], self.codec)
                windows = Segment(
                    pids=np.arange(len(places), dtype=np.int64),
                    spans=np.array([(0, len(passage.text)) for passage in passages], np.int32),
                    doclens=doclens[places],
                    codes=own_codes,
                    residuals=own_residuals,
                    lengths=self.codec.inverse_lengths(own_codes, own_residuals),
                    shifts=self.codec.shifts(own_codes, own_residuals, doclens[places]),
                )
                yield Batch(passages, windows)
            first += len(doclens)


def read_foreign_index(folder: str | PathLike[str], texts: Sequence[str] | None = None) -> ForeignIndex:
    """Read the index that another library wrote to a folder.

    Args:
        folder: holds ``metadata.json``, and ``centroids.pt`` (Stanford ColBERT, RAGatouille) or ``centroids.npy`` (fast-plaid).
        texts: texts of all passages that were ever indexed, in the order of their numbers, for an index that does not hold them
            or mixed them up; None leaves them empty, or takes RAGatouille's.

    Returns:
        What ``Index.convert`` takes. RAGatouille's passages have the ids and metadata of their documents, with "#1", "#2"
        behind the id where a document has several; after a deletion those are left that its map of ids names. Other passages,
        and those of given texts, are named by their number, from 0.

    Raises:
        IndexNotFoundError: there is no such index.
        UnsupportedIndexError: it is of another kind, or a file in it would run code.
        DamagedIndexError: a file is missing, or does not hold what it should; or nobody can tell which passage has which id or
            text, since RAGatouille deleted some and its files no longer agree.
        TypeError: ``texts`` is a string.
        ValueError: there are more or fewer texts than passages.
    """
    folder = as_path(folder)
    if not (folder / "metadata.json").is_file():
        raise IndexNotFoundError(f"{folder} holds no index of Stanford ColBERT, RAGatouille or fast-plaid: no metadata.json.")
    about = _json(folder / "metadata.json", dict)
    if (folder / "centroids.pt").is_file():
        return _read_stanford(folder, about, texts)
    if (folder / "centroids.npy").is_file():
        return _read_fast_plaid(folder, about, texts)
    raise UnsupportedIndexError(f"{folder} has neither centroids.pt (Stanford ColBERT) nor centroids.npy (fast-plaid).")


def _read_stanford(folder: Path, about: dict[str, Any], texts: Sequence[str] | None) -> ForeignIndex:
    config = about.get("config")
    buckets = _torch(folder / "buckets.pt")
    if not isinstance(buckets, (tuple, list)) or len(buckets) != 2:
        raise DamagedIndexError(f"{folder / 'buckets.pt'} holds no cutoffs and weights.")
    codec = _codec(folder, _tensor(folder / "centroids.pt"), _array(folder / "buckets.pt", buckets[1]), about)
    doclens = _doclens(folder, about)
    is_ragatouille = (folder / "pid_docid_map.json").is_file()
    counts = np.concatenate([*doclens, np.empty(0, np.int32)])
    passages = _ragatouille_passages(folder, counts) if is_ragatouille and texts is None else None
    kind = "RAGatouille" if is_ragatouille else "Stanford ColBERT"

    def chunk(number: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        return _tensor(folder / f"{number}.codes.pt"), _tensor(folder / f"{number}.residuals.pt")

    checkpoint = config.get("checkpoint") if isinstance(config, dict) else None
    encoder = checkpoint if isinstance(checkpoint, str) else None
    return _assemble(kind, folder, codec, encoder, doclens, chunk, passages, texts)


def _read_fast_plaid(folder: Path, about: dict[str, Any], texts: Sequence[str] | None) -> ForeignIndex:
    codec = _codec(folder, _npy(folder / "centroids.npy"), _npy(folder / "bucket_weights.npy"), about)
    doclens = _doclens(folder, about)
    starts = np.cumsum([0, *(int(chunk.sum()) for chunk in doclens)])

    def part(number: int, name: str) -> NDArray[Any]:
        single = folder / f"{number}.{name}.npy"
        if single.is_file():
            return _npy(single)
        merged = folder / f"merged_{name}.npy"  # since 1.7 the chunks lie in one file, with room behind them
        if not merged.is_file():
            raise DamagedIndexError(f"{single} is missing.")
        whole = _npy(merged)
        return whole[starts[number] : starts[number + 1]] if whole.ndim else whole

    return _assemble(
        "fast-plaid",
        folder,
        codec,
        None,
        doclens,
        lambda number: (part(number, "codes"), part(number, "residuals")),
        None,
        texts,
    )


def _assemble(
    kind: str,
    folder: Path,
    codec: ResidualCodec,
    encoder: str | None,
    doclens: tuple[NDArray[np.int32], ...],
    chunk: Callable[[int], tuple[NDArray[Any], NDArray[np.uint8]]],
    passages: list[Passage] | None,
    texts: Sequence[str] | None,
) -> ForeignIndex:
    if passages is None:
        n_passages = sum(map(len, doclens))
        given = [""] * n_passages if texts is None else _given_texts(folder, texts, n_passages)
        passages = [Passage(str(number), text) for number, text in enumerate(given)]
    n_tokens = sum(int(chunk_doclens.sum(dtype=np.int64)) for chunk_doclens in doclens)
    return ForeignIndex(kind, codec, encoder, n_tokens, passages, doclens, chunk)


def _given_texts(folder: Path, texts: Sequence[str], n_passages: int) -> list[str]:
    if isinstance(texts, str):
        raise TypeError(f"texts must be a list of strings, got one str; write [{texts!r:.40}].")
    if len(texts) != n_passages:
        raise ValueError(
            f"The index {folder} has {n_passages} passages, but there are {len(texts)} texts; give those it was made of."
        )
    return list(texts)


def _ragatouille_passages(folder: Path, doclens: NDArray[np.int32]) -> list[Passage]:
    """Read RAGatouille's passages: it keeps texts by number, the document of each number, and metadata by document.

    Args:
        folder: the index.
        doclens: number of tokens of each passage, 0 for a deleted one. *Shape:* (n_passages,).

    Returns:
        A passage for each number. A deleted one has its number as id and no text, and is never read.
    """
    metadata_file = folder / "docid_metadata_map.json"
    has_metadata = metadata_file.is_file() and metadata_file.read_bytes().strip() != b"null"
    metadata = _json(metadata_file, dict) if has_metadata else {}
    if not all(isinstance(known, dict) for known in metadata.values()):
        raise DamagedIndexError(f"{folder}: the metadata of a document are no object.")
    documents = _documents_by_number(folder, doclens)
    texts = _ragatouille_texts(folder, doclens, [*documents])
    counts, seen = Counter(documents.values()), Counter[str]()
    passages = []
    for number, text in enumerate(texts):
        name = documents.get(number)
        if name is None:
            passages.append(Passage(str(number), ""))
            continue
        known = metadata.get(name, {})
        if counts[name] == 1:
            passages.append(Passage(name, text, known))
            continue
        seen[name] += 1
        piece = f"{name}#{seen[name]}"
        while piece in counts:  # the name of another document
            piece += "#"
        passages.append(Passage(piece, text, beside_own(known, {"document_id": name})))
    return passages


def _documents_by_number(folder: Path, doclens: NDArray[np.int32]) -> dict[int, str]:
    """Read the document of each passage that is left, by its number, ascending.

    RAGatouille's add_to_index numbers passages anew when it builds a small index again, and goes on counting in this map, so
    that after a deletion the map means other passages.

    Raises:
        DamagedIndexError: the map names a passage that there is not, or none for one that has tokens.
    """
    path = folder / "pid_docid_map.json"
    fix = (
        "RAGatouille left its files so after delete_from_index and add_to_index, and ids would go to other passages; make the "
        "index anew from your documents."
    )
    documents: dict[int, str] = {}
    for key, name in _json(path, dict).items():
        if not (key.isascii() and key.isdecimal() and int(key) < len(doclens)):
            raise DamagedIndexError(f"{path} names a passage {key:.40}, but there are {len(doclens)} passages from 0. {fix}")
        documents[int(key)] = str(name)
    for number in np.flatnonzero(doclens).tolist():
        if number not in documents:
            raise DamagedIndexError(f"{path} names no document for passage {number}, which has {doclens[number]} tokens. {fix}")
    return dict(sorted(documents.items()))


def _ragatouille_texts(folder: Path, doclens: NDArray[np.int32], left: list[int]) -> list[str]:
    """Read the text of each passage; deleted ones have none.

    RAGatouille's delete_from_index takes texts out of its list by the passages' numbers, which are no longer their places after
    another deletion. It takes out the right texts when all that are gone are the last ones, and one before those: of the last
    ones it takes none if the numbers are too large, and the counts show that.

    Raises:
        DamagedIndexError: the number of texts is that of neither all passages nor those that are left, or they may be others.
    """
    path = folder / "collection.json"
    collection: list[str] = _json(path, list)
    if not all(isinstance(text, str) for text in collection):
        raise DamagedIndexError(f"{path} holds something that is no text.")
    if len(collection) == len(doclens):
        return collection
    if len(collection) != len(left):
        remain = "" if len(left) == len(doclens) else f", {len(left)} of them left after deletions"
        raise DamagedIndexError(
            f"The index {folder} has {len(doclens)} passages{remain}, but its collection has {len(collection)}. {_ALL_TEXTS}"
        )
    gone = sorted({*range(len(doclens))} - {*left})
    last = len(doclens) - 1
    while gone and gone[-1] == last:
        gone.pop()
        last -= 1
    if len(gone) > 1:
        raise DamagedIndexError(
            f"{path} may lack the texts of other passages than the {len(doclens) - len(left)} that were deleted, such as "
            f"{gone[0]} and {gone[1]}: RAGatouille's delete_from_index takes out wrong ones when it is called more than once. "
            f"{_ALL_TEXTS}"
        )
    by_number = dict(zip(left, collection, strict=True))
    return [by_number.get(number, "") for number in range(len(doclens))]


def _codec(folder: Path, centroids: NDArray[Any], levels: NDArray[Any], about: dict[str, Any]) -> ResidualCodec:
    try:
        codec = ResidualCodec.from_arrays({"centroids": _floats(centroids, np.float16), "levels": _floats(levels, np.float32)})
    except ValueError as error:
        raise DamagedIndexError(f"The codec of {folder} cannot be used: {error}; residuals have {NBITS} bits.") from None
    config = about["config"] if isinstance(about.get("config"), dict) else about
    for name, actual in (("nbits", codec.nbits), ("dim", codec.dim)):
        if config.get(name, actual) != actual:
            raise DamagedIndexError(f"The index {folder} says that its {name} is {config[name]!r}, but its codec has {actual}.")
    return codec


def _floats(array: NDArray[Any], kind: Any) -> NDArray[Any]:
    if array.dtype.kind != "f":
        raise ValueError(f"it holds {array.dtype} where floating numbers belong")
    with np.errstate(over="ignore"):  # what is infinite then is refused by the codec
        return array.astype(kind)


def _repack(residuals: NDArray[np.uint8], codec: ResidualCodec) -> NDArray[np.uint8]:
    """Pack residuals our way; theirs have the bits of each component, lowest first, in bytes from the top down."""
    nbits, dim = codec.nbits, codec.dim
    packed = np.empty((len(residuals), row_bytes(dim, nbits)), np.uint8)
    for start in range(0, len(residuals), 2**16):
        bits = np.unpackbits(residuals[start : start + 2**16], axis=1)[:, : dim * nbits].reshape(-1, dim, nbits)
        numbers = (bits << np.arange(nbits, dtype=np.uint8)).sum(axis=2, dtype=np.uint8)
        packed[start : start + 2**16] = pack(numbers, nbits)
    return packed


def _doclens(folder: Path, about: dict[str, Any]) -> tuple[NDArray[np.int32], ...]:
    n_chunks = about.get("num_chunks")
    if not isinstance(n_chunks, int) or n_chunks < 0:
        raise DamagedIndexError(f"{folder / 'metadata.json'} names no number of chunks (num_chunks is {n_chunks!r}).")
    doclens = []
    for number in range(n_chunks):
        path = folder / f"doclens.{number}.json"
        counts = _json(path, list)
        if not all(isinstance(count, int) and 0 <= count < 2**31 for count in counts):
            raise DamagedIndexError(f"{path} holds something that is no number of tokens.")
        doclens.append(np.array(counts, np.int32))
    return tuple(doclens)


def _json(path: Path, kind: type) -> Any:
    try:
        value = read_json_file(path, math.inf)  # a collection of texts may have any size
    except FileNotFoundError:
        raise DamagedIndexError(f"{path} is missing.") from None
    except ValueError as error:
        raise DamagedIndexError(f"{path} is no JSON: {error}") from None
    if not isinstance(value, kind):
        raise DamagedIndexError(f"{path} holds a {type(value).__name__} where a {kind.__name__} belongs.")
    return value


def _torch(path: Path) -> Any:
    return _read(path, load_torch, "tensors")


def _npy(path: Path) -> NDArray[Any]:
    array: NDArray[Any] = _read(path, map_npy, "numbers")
    return array


def _read(path: Path, read: Callable[[Path], Any], what: str) -> Any:
    try:
        return read(path)
    except FileNotFoundError:
        raise DamagedIndexError(f"{path} is missing.") from None
    except ValueError as error:
        raise UnsupportedIndexError(
            f"{path} is damaged, or holds more than {what} and is not read for safety: {error}"
        ) from None


def _tensor(path: Path) -> NDArray[Any]:
    return _array(path, _torch(path))


def _array(path: Path, tensor: Any) -> NDArray[Any]:
    import torch

    if not isinstance(tensor, torch.Tensor):
        raise DamagedIndexError(f"{path} holds a {type(tensor).__name__} where a tensor belongs.")
    try:
        array: NDArray[Any] = check_tensor(tensor).detach().numpy()
    except (TypeError, RuntimeError, ValueError) as error:  # sparse, bfloat16, one number many times
        raise DamagedIndexError(f"{path} holds a tensor of a kind that was not expected: {error}") from None
    return array

"""Passages from files: text, Markdown, JSON lines, tab-separated values, Parquet. Records are read as a stream."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from colbert_core.extras import import_extra
from colbert_core.metadata import plain_metadata, plain_scalar
from colbert_core.text.lines import check_no_pipe, numbered_lines
from colbert_core.types import Passage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Split = Callable[[str, str], list[Passage]]

TEXTS = (".txt", ".md")
SUFFIXES = (*TEXTS, ".jsonl", ".tsv", ".parquet")

# Keys of a record.
_ID, _TEXT, _TITLE, _METADATA = ("id", "_id"), "text", "title", "metadata"


def find_files(path: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
    """Find the files below a folder that can be read; of a file, the file itself. Hidden files and folders are passed over.

    Raises:
        ValueError: there is nothing there, or nothing that can be read.
    """
    if path.is_file():
        if path.suffix.lower() not in suffixes:
            raise ValueError(f"{path} is none of {', '.join(suffixes)}.")
        return [path]
    check_no_pipe(path)
    if not path.is_dir():
        raise ValueError(f"There is no file or folder {path}.")
    files = sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in suffixes
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)  # .venv, .git
    )
    if not files:
        raise ValueError(f"{path} holds no {', '.join(suffixes)} file.")
    return files


def read_file(path: Path, name: str, split: Split) -> Iterator[Passage]:
    """Read the passages of one file.

    Text and Markdown are cut into pieces, named ``name#1`` and so on, with ``source`` and ``piece`` in their metadata. A
    record of the other formats is a passage. It has the record's own id, else the name of the file and the number of its
    line. A record longer than a window is cut into ``id#1``, ``id#2`` and so on. All pieces have ``document_id``, ``start``
    and ``end`` in their metadata, or ``piece_document_id`` and so on where the record has one of these itself. A record's
    ``title`` is put before its text; what else the record holds is metadata.

    Args:
        path: the file.
        name: name of the file in ids and metadata.
        split: cuts a text, given with its name, into passages.

    Raises:
        ValueError: the file is not what its suffix says; the message has the number of the line.
        MissingExtraError: the file is Parquet, and pyarrow is not installed.
    """
    suffix = path.suffix.lower()
    if suffix in TEXTS:
        for number, piece in enumerate(split(read_text(path), name), 1):
            yield Passage(piece.id, piece.text, {**piece.metadata, "source": name, "piece": number})
        return
    reader = {".jsonl": _json_lines, ".tsv": _tab_separated, ".parquet": _parquet}[suffix]
    for place, record in reader(path):
        passage = _to_passage(record, place, f"{name}#{place.split()[-1]}", name)
        pieces = split(passage.text, passage.id)
        if len(pieces) < 2:
            yield passage
            continue
        for piece in pieces:
            yield Passage(piece.id, piece.text, beside_own(passage.metadata, piece.metadata))


def read_text(path: Path) -> str:
    """Read the text of a file, in UTF-8 with or without a byte order mark.

    Raises:
        ValueError: it is in another encoding, or is no file.
    """
    check_no_pipe(path)
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}); convert it first.") from None


def read_collection(path: Path) -> list[str]:
    """Read the texts of a collection as Stanford ColBERT reads them: number, text, perhaps title; or JSON lines.

    A first line that begins with "id" counts as number 0, as it does there; a title goes before the text with a bar between.

    Returns:
        The texts, by number.

    Raises:
        ValueError: the numbers are not 0, 1, 2 and so on.
    """
    if path.suffix.lower() == ".jsonl":
        return [_to_passage(record, place, str(number), "").text for number, (place, record) in enumerate(_json_lines(path))]
    texts = []
    for number, (place, line) in enumerate(numbered_lines(path)):
        name, *columns = line.split("\t")
        if not columns:
            raise ValueError(f"{place} has 1 column where a number and a text belong.")
        if name != str(number) and not (number == 0 and name == "id"):
            raise ValueError(f"{place} has the number {name!r:.80} where {number} belongs.")
        texts.append(f"{columns[1]} | {columns[0]}" if len(columns) > 1 and columns[1] else columns[0])
    return texts


def beside_own(own: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """Put metadata of this package beside a user's own, which stay as they are.

    Args:
        own: the user's.
        ours: where a piece comes from, such as ``document_id``, ``start`` and ``end``. If the user has a key of one of these
            names, all of them are called ``piece_document_id`` and so on.
    """
    if own.keys() & ours.keys():
        ours = {f"piece_{key}": value for key, value in ours.items()}
    return {**ours, **own}


def _to_passage(record: dict[str, Any], place: str, default_id: str, source: str) -> Passage:
    """Make a passage of a record.

    Args:
        record: its values by key.
        place: file and line, for errors.
        default_id: id of a record without one.
        source: ``source`` in the metadata; nothing if it is empty.
    """
    if _TEXT not in record:
        raise ValueError(f'{place} has no "{_TEXT}"; its keys are {", ".join(record) or "none"}.')
    name = next((record[key] for key in _ID if record.get(key) is not None), default_id)
    title, text = record.get(_TITLE), record[_TEXT]
    own = record.get(_METADATA)
    others = {key: value for key, value in record.items() if key not in (*_ID, _TEXT, _METADATA)}
    if own is not None and not isinstance(own, dict):
        raise ValueError(f"{place}: metadata must be an object, got {type(own).__name__}.")
    metadata = {**({"source": source} if source else {}), **others, **(own or {})}
    try:
        metadata = plain_metadata(metadata)
        return Passage(str(name), f"{title} {text}" if title and isinstance(text, str) else text, metadata)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{place}: {error}") from None


# Readers of one format: each gives the place of a record, whose last word is its number, and its values by key.


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for place, line in numbered_lines(path):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{place} is no JSON: {error}") from None
        yield place, record if isinstance(record, dict) else {_TEXT: record}


def _tab_separated(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read lines under a first line of names, one of them "text"; without such a line, id and text, perhaps title."""
    columns: list[str] | None = None
    for place, line in numbered_lines(path):
        values = line.split("\t")
        if columns is None:
            if _TEXT in values and not values[0].isdecimal():
                columns = values
                continue
            columns = {1: [_TEXT], 2: ["id", _TEXT], 3: ["id", _TEXT, _TITLE]}.get(len(values), [])
        if len(values) != len(columns):
            raise ValueError(f"{place} has {len(values)} columns where {len(columns) or '1 to 3'} belong.")
        yield place, dict(zip(columns, values, strict=True))


def _parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    arrow, parquet = (import_extra(module, f"Reading {path}", "pyarrow") for module in ("pyarrow", "pyarrow.parquet"))
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(1024):
                for record in _rows(batch, f"{path}, rows {number + 1} to {number + batch.num_rows}"):
                    number += 1
                    values = {key: plain_scalar(value) for key, value in record.items()}
                    yield f"{path}, row {number}", {key: value for key, value in values.items() if value is not None}
    except (arrow.ArrowException, OSError) as error:  # it has errors of both kinds for a damaged file
        raise ValueError(f"{path} is no Parquet file: {error}") from None


def _rows(batch: Any, place: str) -> list[dict[str, Any]]:
    """Return the rows of a table.

    Raises:
        ValueError: one has a date or a time that Python has not.
    """
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{place}: {error}; keep dates that are not of the years 1 to 9999 as strings.") from error
    return rows

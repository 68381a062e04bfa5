"""Files as passages: text, Markdown, JSON lines, tab-separated values, Parquet. Read as a stream, never whole collections."""

from __future__ import annotations

import datetime
import decimal
import json
import math
from typing import TYPE_CHECKING, Any

from colbert_core.errors import MissingExtraError
from colbert_core.types import Passage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Split = Callable[[str, str], list[Passage]]

TEXTS = (".txt", ".md")
SUFFIXES = (*TEXTS, ".jsonl", ".tsv", ".parquet")

_ID, _TEXT, _TITLE = ("id", "_id"), "text", "title"


def find_files(path: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
    """The files of a folder and those below it that can be read, or the file itself. Hidden ones are passed over.

    Raises:
        ValueError: there is nothing there, or nothing that can be read.
    """
    if path.is_file():
        if path.suffix.lower() not in suffixes:
            raise ValueError(f"{path} is none of {', '.join(suffixes)}.")
        return [path]
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
    """The passages of one file.

    Text and Markdown are cut into pieces, named ``name#1`` and so on, with ``source`` and ``piece`` in their metadata. A
    record of the other formats is a passage with the record's own id, or its place; one that is longer than a window is cut
    into ``id#1``, ``id#2`` and so on. All pieces have ``document_id``, ``start`` and ``end`` in their metadata. A record's
    ``title`` is put before its text; what else it holds is metadata.

    Args:
        path: of the file.
        name: what it is called.
        split: cuts a text, given with its name, into passages.

    Raises:
        ValueError: the file is not what its name says, with the line.
    """
    suffix = path.suffix.lower()
    if suffix in TEXTS:
        for number, piece in enumerate(split(read_text(path), name), 1):
            yield Passage(piece.id, piece.text, {**piece.metadata, "source": name, "piece": number})
        return
    reader = {".jsonl": _json_lines, ".tsv": _tab_separated, ".parquet": _parquet}[suffix]
    for place, record in reader(path):
        passage = _from_record(record, f"{path}, {place}", f"{name}#{place.split()[-1]}", name)
        pieces = split(passage.text, passage.id)
        if len(pieces) < 2:
            yield passage
            continue
        for piece in pieces:
            yield Passage(piece.id, piece.text, {**passage.metadata, **piece.metadata})


def read_text(path: Path) -> str:
    """The text of a file, in UTF-8 with or without a byte order mark.

    Raises:
        ValueError: it is in another encoding.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}); convert it first.") from None


def read_collection(path: Path) -> list[str]:
    """The texts of a collection by number, as Stanford ColBERT reads it: number, text, perhaps title; or JSON lines.

    A first line that begins with "id" counts as number 0, as it does there; a title goes before the text with a bar between.

    Raises:
        ValueError: the numbers are not 0, 1, 2 and so on.
    """
    texts = []
    if path.suffix.lower() == ".jsonl":
        for number, (place, record) in enumerate(_json_lines(path)):
            texts.append(_from_record(record, f"{path}, {place}", str(number), "").text)
        return texts
    for number, (place, line) in enumerate(_lines(path)):
        name, *columns = line.split("\t")
        if not columns:
            raise ValueError(f"{path}, {place} has 1 column where a number and a text belong.")
        if name != str(number) and not (number == 0 and name == "id"):
            raise ValueError(f"{path}, {place} has the number {name!r:.80} where {number} belongs.")
        texts.append(f"{columns[1]} | {columns[0]}" if len(columns) > 1 and columns[1] else columns[0])
    return texts


def _from_record(record: dict[str, Any], where: str, default_id: str, source: str) -> Passage:
    if _TEXT not in record:
        raise ValueError(f'{where} has no "{_TEXT}"; its keys are {", ".join(record) or "none"}.')
    name = next((record[key] for key in _ID if record.get(key) is not None), default_id)
    title, text = record.get(_TITLE), record[_TEXT]
    own = record.get("metadata")
    others = {key: value for key, value in record.items() if key not in (*_ID, _TEXT, "metadata")}
    if own is not None and not isinstance(own, dict):
        raise ValueError(f"{where}: metadata must be an object, got {type(own).__name__}.")
    metadata = {**({"source": source} if source else {}), **others, **(own or {})}
    try:
        return Passage(str(name), f"{title} {text}" if title and isinstance(text, str) else text, metadata)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {error}") from None


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield f"line {number}", line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}); convert it first.") from None


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for place, line in _lines(path):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, {place} is no JSON: {error}") from None
        yield place, record if isinstance(record, dict) else {_TEXT: record}


def _tab_separated(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """With a first line of names, one of them "text", or else as id and text, perhaps with a title behind."""
    columns: list[str] | None = None
    for place, line in _lines(path):
        values = line.split("\t")
        if columns is None:
            if _TEXT in values and not values[0].isdecimal():
                columns = values
                continue
            columns = {1: [_TEXT], 2: ["id", _TEXT], 3: ["id", _TEXT, _TITLE]}.get(len(values), [])
        if len(values) != len(columns):
            raise ValueError(f"{path}, {place} has {len(values)} columns where {len(columns) or '1 to 3'} belong.")
        yield place, dict(zip(columns, values, strict=True))


def _parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingExtraError(f"Reading {path} needs pyarrow ({error}): pip install pyarrow") from error

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(1024):
                for record in batch.to_pylist():
                    number += 1
                    plain = {key: _plain(value) for key, value in record.items()}
                    yield f"row {number}", {key: value for key, value in plain.items() if value is not None}
    except arrow.ArrowInvalid as error:
        raise ValueError(f"{path} is no Parquet file: {error}") from None


def _plain(value: Any) -> Any:
    """A value of a table as metadata can hold it: dates and decimal numbers as strings, NaN as nothing."""
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (decimal.Decimal, datetime.timedelta)):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value

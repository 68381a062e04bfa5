"""Files of records: JSON lines, tab-separated values, Parquet. Each record is a passage, and is read as a stream."""

from __future__ import annotations

import datetime
import decimal
import json
import math
from typing import TYPE_CHECKING, Any

from colbert_core.documents.part import Part
from colbert_core.extras import import_extra
from colbert_core.text.lines import numbered_lines
from colbert_core.types import Passage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Records = Iterator[tuple[str, dict[str, Any]]]

# Keys of a record.
_ID, _TEXT, _TITLE, _METADATA = ("id", "_id"), "text", "title", "metadata"


def read_json_lines(path: Path) -> Iterator[Part]:
    """Read a record from each line: an object with "text", or a string."""
    return _parts(path, _json_lines)


def read_tab_separated(path: Path) -> Iterator[Part]:
    """Read a record from each line, under a first line of names, one of them "text"; or id and text, perhaps title."""
    return _parts(path, _tab_separated)


def read_parquet(path: Path) -> Iterator[Part]:
    """Read a record from each row.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    return _parts(path, _parquet)


def read_collection(path: Path) -> list[str]:
    """Read the texts of a collection as Stanford ColBERT reads them: number, text, perhaps title; or JSON lines.

    A first line that begins with "id" counts as number 0, as it does there; a title goes before the text with a bar between.

    Returns:
        The texts, by number.

    Raises:
        ValueError: the numbers are not 0, 1, 2 and so on.
    """
    if path.suffix.lower() == ".jsonl":
        return [_to_part(record, place).text for place, record in _json_lines(path)]
    texts = []
    for number, (place, line) in enumerate(numbered_lines(path)):
        name, *columns = line.split("\t")
        if not columns:
            raise ValueError(f"{place} has 1 column where a number and a text belong.")
        if name != str(number) and not (number == 0 and name == "id"):
            raise ValueError(f"{place} has the number {name!r:.80} where {number} belongs.")
        texts.append(f"{columns[1]} | {columns[0]}" if len(columns) > 1 and columns[1] else columns[0])
    return texts


def _parts(path: Path, records: Callable[[Path], Records]) -> Iterator[Part]:
    for place, record in records(path):
        yield _to_part(record, place)


def _to_part(record: dict[str, Any], place: str) -> Part:
    """Make a part of a record, whose title goes before its text.

    Args:
        record: its values by key.
        place: file and line.
    """
    if _TEXT not in record:
        raise ValueError(f'{place} has no "{_TEXT}"; its keys are {", ".join(record) or "none"}.')
    name = next((record[key] for key in _ID if record.get(key) is not None), None)
    title, text, line = record.get(_TITLE), record[_TEXT], int(place.split()[-1])
    own = record.get(_METADATA)
    others = {key: value for key, value in record.items() if key not in (*_ID, _TEXT, _METADATA)}
    if own is not None and not isinstance(own, dict):
        raise ValueError(f"{place}: metadata must be an object, got {type(own).__name__}.")
    text = f"{title} {text}" if title and isinstance(text, str) else text
    try:
        passage = Passage(str(line if name is None else name), text, {**others, **(own or {})})
    except (ValueError, TypeError) as error:
        raise ValueError(f"{place}: {error}") from None
    return Part(passage.text, metadata=passage.metadata, line=line, id=None if name is None else passage.id)


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
                    values = {key: _plain(value) for key, value in record.items()}
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


def _plain(value: Any) -> Any:
    """Turn a value of a table into one that metadata can hold: dates and decimal numbers into strings, NaN into None."""
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (decimal.Decimal, datetime.timedelta)):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value

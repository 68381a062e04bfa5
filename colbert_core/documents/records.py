"""Files of records: JSON lines, values separated by tabs or commas, Parquet. Each record is a passage, read as a stream."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from colbert_core.documents.encodings import LARGEST, decode, is_binary
from colbert_core.documents.part import Part, UnreadableFileError
from colbert_core.extras import import_extra
from colbert_core.metadata import plain_metadata, plain_scalar
from colbert_core.text.headers import TEXTS, column_names
from colbert_core.text.lines import check_no_pipe, numbered_lines
from colbert_core.types import Passage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Records = Iterator[tuple[str, dict[str, Any]]]

# Keys of a record.
_ID, _TEXT, _TITLE, _METADATA = ("id", "_id"), "text", "title", "metadata"

# What separates the values of a row, the likeliest first.
_DELIMITERS = ",;\t|"
_NUMBER = re.compile(r"[-+]?[\d.,:/ %€$£-]+")
_LONGEST_NAME = 64


def read_json_lines(path: Path) -> Iterator[Part]:
    """Read a record from each line: an object with "text", or a string."""
    return _parts(path, _json_lines)


def read_tab_separated(path: Path) -> Iterator[Part]:
    """Read a record from each line, under a first line of names in a usual spelling; or id and text, perhaps title."""
    return _parts(path, _tab_separated)


def read_comma_separated(path: Path) -> Iterator[Part]:
    """Read a record from each row; its text is the column "text", else a line "name: value" for each column.

    The values may be separated by semicolons, tabs or bars instead, and the file may be in any encoding. The first row has the
    names of the columns, unless a value of it is a number, is empty, stands twice, or is long; they are "column 1" and so on
    then.

    Raises:
        UnreadableFileError: it is no text, or a quotation mark is never closed.
        ValueError: a record is none; the message has its line.
    """
    return _parts(path, _comma_separated)


def read_parquet(path: Path) -> Iterator[Part]:
    """Read a record from each row.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    return _parts(path, _parquet)


def read_collection(path: Path) -> list[str]:
    """Read the texts of a collection as Stanford ColBERT reads them: number, text, perhaps title; or JSON lines.

    A title goes before the text with a bar between. A first line of names, such as "pid" and "passage", is no passage; but if
    the next one has the number 1, it counts as number 0, as it does there.

    Returns:
        The texts, by number.

    Raises:
        ValueError: the numbers are not 0, 1, 2 and so on.
    """
    if path.suffix.lower() == ".jsonl":
        return [_to_part(record, place).text for place, record in _json_lines(path)]
    texts: list[str] = []
    at = {"id": 0, "text": 1, "title": 2}
    has_names = False
    for number, (place, line) in enumerate(numbered_lines(path)):
        values = line.split("\t")
        if number == 0 and (names := column_names(values, TEXTS)) and "id" in names:
            has_names, at = True, {name: column for column, name in enumerate(names)}
        elif number == 1 and has_names and values[at["id"]] == "0":
            texts.clear()
        if len(values) <= max(at["id"], at["text"]):
            raise ValueError(f"{place} has {len(values)} columns where a number and a text belong.")
        name = values[at["id"]]
        if name != str(len(texts)) and not (number == 0 and (has_names or name == "id")):
            raise ValueError(f"{place} has the number {name!r:.80} where {len(texts)} belongs.")
        title = values[at["title"]] if at.get("title", len(values)) < len(values) else ""
        texts.append(f"{title} | {values[at['text']]}" if title else values[at["text"]])
    return texts[1:] if has_names and len(texts) == 1 else texts


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
        passage = Passage(str(line if name is None else name), text, plain_metadata({**others, **(own or {})}))
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
    """Read lines under a first line of names, in a usual spelling; without such a line, id and text, perhaps title."""
    columns: list[str] | None = None
    for place, line in numbered_lines(path):
        values = line.split("\t")
        if columns is None:
            columns = column_names(values)
            if columns is not None:
                continue
            columns = {1: [_TEXT], 2: ["id", _TEXT], 3: ["id", _TEXT, _TITLE]}.get(len(values), [])
        if len(values) != len(columns):
            raise ValueError(f"{place} has {len(values)} columns where {len(columns) or '1 to 3'} belong.")
        yield place, dict(zip(columns, values, strict=True))


def _comma_separated(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with _opened(path) as lines:
        sample = lines.read(2**16)
        lines.seek(0)
        rows = csv.reader(lines, delimiter=_delimiter(sample), strict=False)
        names: list[str] = []
        line = 1
        try:
            for values in rows:
                place, line = f"{path}, line {line}", rows.line_num + 1
                if not any(value.strip() for value in values):
                    continue
                if not names and _are_names(values):
                    names = [value.strip() for value in values]
                    continue
                names += [f"column {number + 1}" for number in range(len(names), len(values))]
                yield place, _row(dict(zip(names, values, strict=False)))
        except csv.Error as error:
            message = f"{path}, line {line}: {error}; a quotation mark may be missing."
            raise UnreadableFileError(message, "damaged") from None


def _opened(path: Path) -> io.TextIOBase:
    """Open a file as text: as a stream in UTF-8, else whole, in the encoding that it is found to be in."""
    check_no_pipe(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = file.read(2**13)
            while file.read(2**20):
                pass
    except UnicodeDecodeError:
        with path.open("rb") as raw:
            content = raw.read(LARGEST + 1)
        if len(content) > LARGEST:
            message = f"{path} is not UTF-8 text, and larger than {LARGEST >> 20} MiB; convert it first."
            raise UnreadableFileError(message, "too large") from None
        return io.StringIO(decode(content, path), newline="")
    if is_binary(head.encode()):
        raise UnreadableFileError(f"{path} is no text, nor a kind of file that is read.", "binary")
    return path.open(encoding="utf-8-sig", newline="")


def _delimiter(sample: str) -> str:
    """What separates the values: it gives the most rows the same number of columns, more than one.

    The standard library's Sniffer takes any character that comes as often in each row, also a letter.
    """
    best, most = _DELIMITERS[0], 0
    for delimiter in _DELIMITERS:
        try:
            widths = [len(row) for row in csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter) if row]
        except csv.Error:
            continue
        n_alike = max(Counter(width for width in widths[:100] if width > 1).values(), default=0)
        if n_alike > most:
            best, most = delimiter, n_alike
    return best


def _are_names(values: list[str]) -> bool:
    names = [value.strip() for value in values]
    if _TEXT in names:
        return True
    are_short = all(0 < len(name) <= _LONGEST_NAME and not _NUMBER.fullmatch(name) for name in names)
    return are_short and len(set(names)) == len(names)


def _row(row: dict[str, str]) -> dict[str, str]:
    """A row with a text, which is a line for each column that says something if no column is called so."""
    if _TEXT in row:
        return row
    # The title is put before the text in any case.
    text = "\n".join(f"{name}: {value}" for name, value in row.items() if value.strip() and name != _TITLE)
    return {**row, _TEXT: text}


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

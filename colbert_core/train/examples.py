"""Training examples, and the files they come in, which are read as a stream."""

from __future__ import annotations

import gzip
import json
import lzma
import math
import zlib
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, TypeVar, cast

from colbert_core.paths import as_path
from colbert_core.storage.durable import written_aside
from colbert_core.storage.incoming import check_regular
from colbert_core.text.headers import QUERIES, TEXTS, column_names, named_row, spelled_plainly
from colbert_core.types import check_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from os import PathLike
    from pathlib import Path

    Runs = list[tuple[int, str, int]]

T = TypeVar("T")

# What a line of JSON has of an example.
_KEYS = ("query", "positive", "negatives", "scores")

# Bytes. An example has a query and some passages of a few kilobytes.
_LONGEST_LINE = 2**26

# Runs of lines without a gap of which the places are kept. A file of examples is one, or one for each blank line in it.
_MOST_RUNS = 10_000


@dataclass(frozen=True, slots=True)
class Example:
    """A query, a passage that answers it, and passages that do not.

    Attributes:
        query: the question, not blank.
        positive: text of a passage that answers it.
        negatives: texts of passages that do not, the hardest or best ranked first.
        scores: a teacher's scores of the positive and then of each negative, for distillation; None without a teacher.
        place: file and line that it was read from, for messages; None for others. Examples are equal whatever it is.

    Raises:
        TypeError: a text is not a string.
        ValueError: the query is blank, a text holds a lone surrogate, or there is not one finite score for each passage.
    """

    query: str
    positive: str
    negatives: tuple[str, ...] = ()
    scores: tuple[float, ...] | None = None
    place: tuple[str, int] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not check_text(self.query, "The query of an example").strip():
            raise ValueError("The query of an example is blank; give it at least one word.")
        check_text(self.positive, "The positive of an example")
        if isinstance(self.negatives, str):
            raise TypeError(f"The negatives of an example must be several texts, got one str {self.negatives!r:.80}.")
        for negative in self.negatives:
            check_text(negative, "A negative of an example")
        if self.scores is None:
            return
        if len(self.scores) != 1 + len(self.negatives):
            raise ValueError(
                f"An example has {len(self.scores)} scores for its positive and {len(self.negatives)} negatives; "
                f"give {1 + len(self.negatives)}, the positive's first."
            )
        if not all(isinstance(score, int | float) and math.isfinite(score) for score in self.scores):
            raise ValueError(f"The scores of an example must be finite numbers, got {list(self.scores)!r:.80}.")


def read_examples(path: str | PathLike[str]) -> Iterator[Example]:
    """Read examples from a file of JSON lines or of tab-separated texts.

    A line of JSON has "query" and "positive", perhaps "negatives" (a list of texts) and "scores" (a number for the positive
    and each negative). A "title" is put before the positive, and other keys are ignored. A tab-separated line has query,
    positive and negatives, as in MS MARCO's triples.train.small.tsv, perhaps under a line of their names.

    Args:
        path: a .jsonl or .tsv file, perhaps compressed (.gz, .xz).

    Raises:
        ValueError: the file has another suffix, or a line is not as above; the message has file and line.
    """
    path = as_path(path)
    suffix = _suffix(path)
    if suffix not in (".jsonl", ".json", ".tsv"):
        raise ValueError(f"{path} is neither .jsonl nor .tsv (nor that with .gz or .xz); name it by what it holds.")
    order: list[int] | None = None

    def parse(line: str, number: int) -> Example | None:
        nonlocal order
        place = (str(path), number)
        if suffix != ".tsv":
            return _from_json(line, place)
        columns = line.split("\t")
        if number == 1 and (order := _order_of(columns)):
            return None
        return _from_columns([columns[i] for i in order if i < len(columns)] if order else columns, place)

    return _parse_lines(path, parse)


def write_examples(examples: Iterable[Example], path: str | PathLike[str]) -> int:
    """Write examples as JSON lines, which ``read_examples`` reads. The file appears when it is whole.

    Each line has "query", "positive" and "negatives", an empty list where there are none; "scores" if there are some.

    Args:
        examples: the examples, such as mined ones.
        path: a .jsonl file, perhaps compressed (.gz, .xz). A file that is there already is replaced.

    Returns:
        The number of examples.

    Raises:
        ValueError: the file has another suffix.
        OSError: the disk is full or failed; a file that was there already stays.
    """
    path = as_path(path)
    if _suffix(path) != ".jsonl":
        raise ValueError(f"{path} is not .jsonl (nor that with .gz or .xz); name it so.")
    n_written = 0
    open_text = _opener(path)
    with written_aside(path) as unfinished, open_text(unfinished, "wt", encoding="utf-8", newline="\n") as file:
        for example in examples:
            record = {name: value for name in _KEYS if (value := getattr(example, name)) is not None}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            n_written += 1
    return n_written


def read_id_triples(path: str | PathLike[str], queries: Mapping[str, str], passages: Mapping[str, str]) -> Iterator[Example]:
    """Read examples from a file of ids: tab-separated, or JSON lines of lists, as in Stanford ColBERT.

    A line is ``query positive negative …``, perhaps under a line of names, such as ``qid pid …``. In JSON a passage may be a
    pair of id and teacher score, if all passages of the line are.

    Args:
        path: a .tsv, .jsonl or .json file, perhaps compressed.
        queries: texts by id; ``read_texts`` reads them from a file.
        passages: texts by id.

    Raises:
        ValueError: a line is not as above or names an id without a text; the message has file and line.
    """
    path = as_path(path)

    def parse(line: str, number: int) -> Example | None:
        columns = json.loads(line) if line.startswith("[") else line.split("\t")
        if not isinstance(columns, list) or len(columns) < 2:
            raise ValueError("a line needs the ids of a query and of its positive")
        if number == 1 and columns[0] not in queries and spelled_plainly(str(columns[0])) in (*QUERIES["id"], "query"):
            return None
        query, *passage_columns = columns
        pairs = [column if isinstance(column, list) else [column, None] for column in passage_columns]
        if unpaired := [pair for pair in pairs if len(pair) != 2]:
            raise ValueError(f"a passage is an id, or a pair of id and score, not {unpaired[0]!r:.80}")
        texts = [_text_of(pair[0], passages, "passage") for pair in pairs]
        scores: tuple[Any, ...] = tuple(pair[1] for pair in pairs)
        has_score = [score is not None for score in scores]
        if any(has_score) and not all(has_score):
            raise ValueError("some of its passages have a score and some have none")
        known_scores = scores if all(has_score) else None
        return Example(_text_of(query, queries, "query"), texts[0], tuple(texts[1:]), known_scores, (str(path), number))

    return _parse_lines(path, parse)


def read_texts(path: str | PathLike[str]) -> dict[str, str]:
    """Read texts by id from lines of ``id text title``, the title optional, or of JSON with "id" (or "_id") and "text".

    A title is put before the text. A first line of names, such as ``pid passage`` or ``qid query``, says which column is which.

    Raises:
        ValueError: a line is not as above, or an id comes twice; the message has file and line.
    """
    path = as_path(path)
    is_json = _suffix(path) in (".jsonl", ".json")

    names: list[str] | None = None

    def parse(line: str, number: int) -> tuple[str, str] | None:
        nonlocal names
        if is_json:
            record = _parse_record(line)
            name = record.get("id", record.get("_id"))
            if name is None or not isinstance(record.get("text"), str):
                raise ValueError(f'it needs "id" (or "_id") and "text", its keys are {", ".join(record) or "none"}')
            return str(name), _join_title(record.get("title"), record["text"])
        values = line.split("\t")
        if number == 1 and (header := column_names(values, TEXTS)) and "id" in header:
            names = header
            return None
        if names is not None:
            row = named_row(names, values)
            return row["id"], _join_title(row.get("title"), row["text"])
        name, *columns = values
        if len(columns) not in (1, 2):
            raise ValueError(f"it has {1 + len(columns)} columns where id, text and perhaps title belong")
        return name, _join_title(columns[1] if len(columns) == 2 else None, columns[0])

    texts: dict[str, str] = {}
    for number, (name, text) in enumerate(_parse_lines(path, parse), 1):
        if name in texts:
            raise ValueError(f"{path}: the id {name!r} comes a second time as its text {number}; give every text its own.")
        texts[name] = text
    return texts


def add_place(runs: Runs, number: int, place: tuple[str, int] | None) -> None:
    """Note where an example was read, unless that follows from the one before.

    Args:
        runs: number of the first example, file and line of each run of lines without a gap; file "" where nobody knows.
        number: number of the example, from 0, which counts up.
        place: file and line.
    """
    file, line = place or ("", 0)
    if runs and runs[-1][1] == file and (not file or runs[-1][2] - runs[-1][0] == line - number):
        return
    if len(runs) < _MOST_RUNS:
        runs.append((number, file, line))
    elif runs[-1][1]:
        runs.append((number, "", 0))


def place_of(runs: Runs, number: int) -> str:
    """Say where an example was read: by file and line, or by its number where nobody knows."""
    run = bisect_right(runs, number, key=lambda run: run[0]) - 1
    first, file, line = runs[run] if run >= 0 else (0, "", 0)
    return f"{file}, line {line + number - first}" if file else f"number {number}"


def _suffix(path: Path) -> str:
    """Return the suffix of a file, without that of the compression."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return next((suffix for suffix in reversed(suffixes) if suffix not in (".gz", ".xz")), "")


def _opener(path: Path) -> Callable[..., IO[Any]]:
    """Choose what opens a file by its name: ``open``, or the same for a compressed file."""
    opener: Any = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix.lower(), open)
    return cast("Callable[..., IO[Any]]", opener)


def _lines(path: Path) -> Iterator[str]:
    """Read the lines of a file, decoded one by one, so that an error belongs to its line. A byte order mark is passed over."""
    check_regular(path)
    with _opener(path)(path, "rb") as lines:
        # A megabyte of compressed blanks unpacks to one line of a gigabyte.
        for number, line in enumerate(iter(lambda: lines.readline(_LONGEST_LINE), b"")):
            if len(line) == _LONGEST_LINE:
                raise ValueError(f"a line has {_LONGEST_LINE} bytes or more")
            yield line.decode("utf-8" if number else "utf-8-sig").rstrip("\r\n")


def _parse_lines(path: Path, parse: Callable[[str, int], T | None]) -> Iterator[T]:
    """Parse each line that is not blank, with its number; pass over those that give None. Errors get file and line."""
    number = 0
    try:
        for line in _lines(path):
            number += 1
            if line.strip() and (parsed := parse(line, number)) is not None:
                yield parsed
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}, line {number + 1} is not UTF-8 text ({error}); convert the file first.") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}, line {number}: {error}") from None
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is damaged behind line {number}: {error}") from None


def _order_of(names: list[str]) -> list[int] | None:
    """Return the places of query, positive and negatives if a line is their names; None if it is not."""
    plain = [spelled_plainly(name) for name in names]
    query = [place for place, name in enumerate(plain) if name in ("query", "question", "anchor", "query_text")]
    positive = [place for place, name in enumerate(plain) if name.startswith("pos") or name in ("answer", "passage_positive")]
    negatives = [place for place, name in enumerate(plain) if name.startswith("neg") or name == "passage_negative"]
    is_named = len(query) == len(positive) == 1 and len(negatives) == len(names) - 2 and all(len(name) < 32 for name in plain)
    return [*query, *positive, *negatives] if is_named else None


def _from_columns(columns: list[str], place: tuple[str, int]) -> Example:
    if len(columns) < 2:
        raise ValueError("it has 1 column where query, positive and perhaps negatives belong, with tabs between")
    return Example(columns[0], columns[1], tuple(columns[2:]), place=place)


def _from_json(line: str, place: tuple[str, int]) -> Example:
    record = _parse_record(line)
    if "query" not in record or "positive" not in record:
        raise ValueError(f'it needs "query" and "positive", its keys are {", ".join(record) or "none"}')
    negatives, scores = record.get("negatives") or (), record.get("scores")
    if not isinstance(negatives, list | tuple) or not isinstance(scores, list | None):
        raise ValueError('"negatives" and "scores" must be lists')
    positive = record["positive"]
    return Example(
        record["query"],
        _join_title(record.get("title"), positive) if isinstance(positive, str) else positive,
        tuple(negatives),
        None if scores is None else tuple(scores),
        place,
    )


def _parse_record(line: str) -> dict[str, Any]:
    """Parse a JSON object."""
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"it is no JSON ({error})") from None
    if not isinstance(record, dict):
        raise ValueError(f"it is a JSON {type(record).__name__} where an object belongs")
    return record


def _join_title(title: object, text: str) -> str:
    """Put a title before a text, if there is one."""
    return f"{title} {text}" if title else text


def _text_of(name: object, texts: Mapping[str, str], kind: str) -> str:
    text = texts.get(str(name))
    if text is None:
        raise ValueError(f"there is no {kind} {name!r} among the {len(texts)} texts; give the file that the ids belong to")
    return text

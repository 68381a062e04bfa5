"""Training examples, and the files they come in, which are read as a stream."""

from __future__ import annotations

import gzip
import json
import lzma
import math
import zlib
from dataclasses import asdict, dataclass
from typing import IO, TYPE_CHECKING, Any, TypeVar, cast

from colbert_core.paths import as_path
from colbert_core.storage.durable import written_aside
from colbert_core.storage.incoming import check_regular
from colbert_core.types import check_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from os import PathLike
    from pathlib import Path

T = TypeVar("T")

# Bytes. An example has a query and some passages of a few kilobytes.
_LONGEST_LINE = 2**26


@dataclass(frozen=True, slots=True)
class Example:
    """A query, a passage that answers it, and passages that do not.

    Attributes:
        query: the question, not blank.
        positive: text of a passage that answers it.
        negatives: texts of passages that do not, the hardest or best ranked first.
        scores: a teacher's scores of the positive and then of each negative, for distillation; None without a teacher.

    Raises:
        TypeError: a text is not a string.
        ValueError: the query is blank, a text holds a lone surrogate, or there is not one finite score for each passage.
    """

    query: str
    positive: str
    negatives: tuple[str, ...] = ()
    scores: tuple[float, ...] | None = None

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
    positive and negatives, as in MS MARCO's triples.train.small.tsv.

    Args:
        path: a .jsonl or .tsv file, perhaps compressed (.gz, .xz).

    Raises:
        ValueError: the file has another suffix, or a line is not as above; the message has file and line.
    """
    path = as_path(path)
    parse = {".jsonl": _from_json, ".json": _from_json, ".tsv": _from_columns}.get(_suffix(path))
    if parse is None:
        raise ValueError(f"{path} is neither .jsonl nor .tsv (nor that with .gz or .xz); name it by what it holds.")
    return _parse_lines(path, parse)


def write_examples(examples: Iterable[Example], path: str | PathLike[str]) -> int:
    """Write examples as JSON lines, which ``read_examples`` reads. The file appears when it is whole.

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
            record = {name: value for name, value in asdict(example).items() if value not in (None, ())}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            n_written += 1
    return n_written


def read_id_triples(path: str | PathLike[str], queries: Mapping[str, str], passages: Mapping[str, str]) -> Iterator[Example]:
    """Read examples from a file of ids: tab-separated, or JSON lines of lists, as in Stanford ColBERT.

    A line is ``query positive negative …``. In JSON a passage may be a pair of id and teacher score, if all passages of the
    line are.

    Args:
        path: a .tsv, .jsonl or .json file, perhaps compressed.
        queries: texts by id; ``read_texts`` reads them from a file.
        passages: texts by id.

    Raises:
        ValueError: a line is not as above or names an id without a text; the message has file and line.
    """
    path = as_path(path)

    def parse(line: str) -> Example:
        columns = json.loads(line) if line.startswith("[") else line.split("\t")
        if not isinstance(columns, list) or len(columns) < 2:
            raise ValueError("a line needs the ids of a query and of its positive")
        query, *passage_columns = columns
        pairs = [column if isinstance(column, list) else [column, None] for column in passage_columns]
        if unpaired := [pair for pair in pairs if len(pair) != 2]:
            raise ValueError(f"a passage is an id, or a pair of id and score, not {unpaired[0]!r:.80}")
        texts = [_text_of(pair[0], passages, "passage") for pair in pairs]
        scores: tuple[Any, ...] = tuple(pair[1] for pair in pairs)
        has_score = [score is not None for score in scores]
        if any(has_score) and not all(has_score):
            raise ValueError("some of its passages have a score and some have none")
        return Example(_text_of(query, queries, "query"), texts[0], tuple(texts[1:]), scores if all(has_score) else None)

    return _parse_lines(path, parse)


def read_texts(path: str | PathLike[str]) -> dict[str, str]:
    """Read texts by id from lines of ``id text title``, the title optional, or of JSON with "id" (or "_id") and "text".

    A title is put before the text.

    Raises:
        ValueError: a line is not as above, or an id comes twice; the message has file and line.
    """
    path = as_path(path)
    is_json = _suffix(path) in (".jsonl", ".json")

    def parse(line: str) -> tuple[str, str]:
        if is_json:
            record = _parse_record(line)
            name = record.get("id", record.get("_id"))
            if name is None or not isinstance(record.get("text"), str):
                raise ValueError(f'it needs "id" (or "_id") and "text", its keys are {", ".join(record) or "none"}')
            return str(name), _join_title(record.get("title"), record["text"])
        name, *columns = line.split("\t")
        if len(columns) not in (1, 2):
            raise ValueError(f"it has {1 + len(columns)} columns where id, text and perhaps title belong")
        return name, _join_title(columns[1] if len(columns) == 2 else None, columns[0])

    texts: dict[str, str] = {}
    for number, (name, text) in enumerate(_parse_lines(path, parse), 1):
        if name in texts:
            raise ValueError(f"{path}: the id {name!r} comes a second time as its text {number}; give every text its own.")
        texts[name] = text
    return texts


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


def _parse_lines(path: Path, parse: Callable[[str], T]) -> Iterator[T]:
    """Parse each line that is not blank. Errors of ``parse`` get file and line."""
    number = 0
    try:
        for line in _lines(path):
            number += 1
            if line.strip():
                yield parse(line)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}, line {number + 1} is not UTF-8 text ({error}); convert the file first.") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}, line {number}: {error}") from None
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is damaged behind line {number}: {error}") from None


def _from_columns(line: str) -> Example:
    columns = line.split("\t")
    if len(columns) < 2:
        raise ValueError("it has 1 column where query, positive and perhaps negatives belong, with tabs between")
    return Example(columns[0], columns[1], tuple(columns[2:]))


def _from_json(line: str) -> Example:
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

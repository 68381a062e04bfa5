"""Test sets: passages, queries, and judgements that say which passage answers which query.

They come from BEIR folders, MS MARCO folders, or ir-datasets. Texts are read as a stream and are not kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from colbert_core.checks import id_list
from colbert_core.errors import MissingExtraError
from colbert_core.evaluation.trec import Judgement, collect_qrels, read_judgements
from colbert_core.extras import import_extra
from colbert_core.paths import as_path
from colbert_core.storage.durable import Checksum, checksum_files
from colbert_core.text.headers import PASSAGES, QUERIES, column_names, named_row
from colbert_core.text.lines import numbered_lines, read_at
from colbert_core.types import Passage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from os import PathLike

    from colbert_core.evaluation.trec import Qrels
    from colbert_core.text.headers import Spellings

    _Row = tuple[str, list[str] | None]

# What the name of a data set of ir-datasets begins with.
_IRDS = "irds:"


class Dataset:
    """Passages, queries and judgements, read from disk each time they are asked for.

    Example:
        >>> dataset = open_dataset("scifact")
        >>> dataset.splits
        ('test', 'train')
        >>> dataset.queries("test")["1"]
        '0-dimensional biomaterials show inductive properties.'
        >>> dataset.qrels("test")["1"]
        {'31715818': 1}
    """

    def __init__(self, source: _Source) -> None:
        """Use ``open_dataset``."""
        self._source = source

    @property
    def name(self) -> str:
        """The folder or name that ``open_dataset`` was given."""
        return self._source.name

    @property
    def splits(self) -> tuple[str, ...]:
        """The parts with judgements or queries of their own, such as "dev", "test" and "train", in alphabetical order."""
        return tuple(sorted(self._source.splits))

    @property
    def n_passages(self) -> int:
        """The number of passages. They are counted at each call."""
        return self._source.count()

    def passages(self) -> Iterator[Passage]:
        """Read all passages, in the order of the file.

        A title is put before the text, with a blank between; metadata have it as "title".

        Raises:
            ValueError: a line is no passage; the message has the file and the number of the line.
        """
        for _, passage in self._source.passages():
            yield passage

    def get(self, ids: Iterable[str]) -> dict[str, Passage]:
        """Read the passages with these ids.

        Raises:
            ValueError: one is not in the dataset.
        """
        wanted = set(id_list(ids))
        passages_by_id = {passage.id: passage for passage in self.passages() if passage.id in wanted} if wanted else {}
        if missing := wanted - passages_by_id.keys():
            raise ValueError(
                f"{len(missing)} of {len(wanted)} passages are not in {self.name}, among them {min(missing)!r}; "
                "is the run or the file of judgements one of this collection?"
            )
        return passages_by_id

    def queries(self, split: str | None = None) -> dict[str, str]:
        """Read the texts of queries, by id.

        Args:
            split: one of ``splits``, or None for all queries. A split without a file of queries, as in BEIR, has the queries
                with a positive judgement in it.

        Raises:
            ValueError: there is no such split, it is empty, a line is no query, or a judged query has no text.
        """
        if split is None:
            return self._texts(None)
        self._check_split(split)
        if self._source.has_queries(split):
            return self._texts(split)
        judged = self.qrels(split)
        texts = self._texts(None)
        self._check_queries(split, texts)
        positive = {query for query, grades in judged.items() if any(grade > 0 for grade in grades.values())}
        if not positive:
            raise ValueError(f"Split {split!r} of {self.name} has no query with a positive judgement; choose another split.")
        return {query: text for query, text in texts.items() if query in positive}

    def qrels(self, split: str) -> Qrels:
        """Read judgements: for each query the grade of each judged passage, 0 for not relevant.

        Raises:
            ValueError: there is no such split, it has no judgements, or a line is no judgement; the message has the file and
                the number of the line.
        """
        self._check_split(split)
        return collect_qrels(self._source.judgements(split), f"Split {split!r} of {self.name}")

    def missing_passages(self, split: str) -> list[str]:
        """Find judged passages that are not in the dataset, in the order of the judgements; ArguAna as published has one.

        Raises:
            ValueError: as ``qrels`` and ``passages``.
        """
        missing = dict.fromkeys(passage for grades in self.qrels(split).values() for passage in grades)
        for passage in self.passages():
            if not missing:
                break
            missing.pop(passage.id, None)
        return list(missing)

    def check(self, *splits: str) -> None:
        """Read everything once, and check that ids differ and that judgements name passages and queries that are there.

        Only ids are kept in memory.

        Args:
            splits: splits whose judgements are checked; all if none is given.

        Raises:
            ValueError: something is wrong; the message has the file, the number of the line, and the id.
        """
        ids: set[str] = set()
        for place, passage in self._source.passages():
            if passage.id in ids:
                raise ValueError(f"{place} has the id {passage.id!r} a second time; give each passage its own.")
            ids.add(passage.id)
        if not ids:
            raise ValueError(f"{self.name} has no passages; is the file complete?")
        texts = self._texts(None)
        for split in splits or self.splits:
            self._check_split(split)
            if not splits and not self._source.has_qrels(split):
                continue
            self.qrels(split)
            self._check_queries(split, texts)
            for place, judgement in self._source.judgements(split):
                if judgement.passage not in ids:
                    raise ValueError(
                        f"{place} judges the passage {judgement.passage!r}, which is not in {self._source.corpus}; "
                        "complete the passages, or remove the judgement."
                    )

    def checksums(self) -> dict[str, Checksum]:
        """Compute size and SHA-256 of each file, by name; without files, as with ir-datasets, those of the content."""
        return self._source.checksums()

    def _texts(self, split: str | None) -> dict[str, str]:
        texts: dict[str, str] = {}
        for place, query, text in self._source.queries(split):
            if texts.setdefault(query, text) != text:
                raise ValueError(
                    f"{place} has the query {query!r} a second time, with another text; give each query its own id."
                )
        if not texts:
            raise ValueError(f"{self.name if split is None else f'Split {split!r} of {self.name}'} has no queries.")
        return texts

    def _check_split(self, split: str) -> None:
        if split not in self._source.splits:
            raise ValueError(f"{self.name} has no split {split!r}; it has {', '.join(self.splits) or 'none'}.")

    def _check_queries(self, split: str, texts: Mapping[str, str]) -> None:
        """Check that every judged query has a text.

        Raises:
            ValueError: one has none.
        """
        for place, judgement in self._source.judgements(split):
            if judgement.query not in texts:
                raise ValueError(
                    f"{place} judges the query {judgement.query!r}, which has no text in {self.name}; "
                    "complete the queries, or remove the judgement."
                )

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}, splits {', '.join(self.splits) or 'none'})"


def open_dataset(path: str | PathLike[str]) -> Dataset:
    """Open a test set.

    Args:
        path: a BEIR folder (``corpus.jsonl``, ``queries.jsonl``, ``qrels/test.tsv`` and so on, with or without a header); an MS
            MARCO folder (``collection.tsv``, ``queries.train.tsv``, ``qrels.train.tsv`` and so on, of 3 or 4 columns); or the
            name of a data set that ir-datasets knows, as "irds:beir/scifact", which it downloads.

    Raises:
        ValueError: the folder is neither, or ir-datasets does not know the name or cannot get the data.
        MissingExtraError: the name needs ir-datasets, which is not installed.
    """
    if isinstance(path, str) and path.startswith(_IRDS):
        return Dataset(_IrDatasets.load(path))
    folder = as_path(path)
    if (folder / "corpus.jsonl").is_file():
        queries = folder / "queries.jsonl"
        qrels = {file.stem: file for file in sorted((folder / "qrels").glob("*.tsv")) if file.is_file()}
        return Dataset(_Files(folder, folder / "corpus.jsonl", {None: queries}, qrels))
    if (folder / "collection.tsv").is_file():
        by_split: dict[str | None, Path] = {
            file.name[len("queries.") : -4]: file for file in sorted(folder.glob("queries.*.tsv")) if file.is_file()
        }
        if (folder / "queries.tsv").is_file():
            by_split[None] = folder / "queries.tsv"
        qrels = {file.name[len("qrels.") : -4]: file for file in sorted(folder.glob("qrels.*.tsv")) if file.is_file()}
        return Dataset(_Files(folder, folder / "collection.tsv", by_split, qrels))
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}; a name for ir-datasets begins with {_IRDS!r}.")
    raise ValueError(
        f"{folder} is no collection: it holds neither corpus.jsonl (BEIR) nor collection.tsv (MS MARCO), but "
        f"{', '.join(sorted(entry.name for entry in folder.iterdir())[:5]) or 'nothing'}."
    )


def split_by_hash(query_ids: Iterable[str], share: float = 0.2) -> tuple[list[str], list[str]]:
    """Divide queries into a part to train on and a part to hold out, for test sets without judgements to train on.

    The parts depend on nothing but the ids: the same ids in any order are divided alike. The ids with the smallest SHA-256 are
    held out.

    Args:
        query_ids: at least 2 ids, all different.
        share: share of the ids to hold out, above 0 and below 1. Each part has at least one id.

    Returns:
        The ids to train on and those held out, each in the order given.

    Raises:
        ValueError: there are fewer than 2 ids, one comes twice, or the share is out of range.
    """
    ids = list(query_ids)
    if len(set(ids)) != len(ids) or len(ids) < 2:
        raise ValueError(f"At least 2 different ids can be divided, got {len(ids)} of which {len(set(ids))} differ.")
    if not 0 < share < 1:
        raise ValueError(f"share must be above 0 and below 1, got {share}.")
    n_held_out = min(max(round(share * len(ids)), 1), len(ids) - 1)
    held_out = set(sorted(ids, key=lambda name: hashlib.sha256(name.encode()).digest())[:n_held_out])
    return [name for name in ids if name not in held_out], [name for name in ids if name in held_out]


class _Source(Protocol):
    """Where the parts of a dataset come from. Each record comes with its place, which goes into messages of errors."""

    @property
    def name(self) -> str: ...
    @property
    def corpus(self) -> str: ...
    @property
    def splits(self) -> set[str]: ...
    def has_queries(self, split: str) -> bool: ...
    def has_qrels(self, split: str) -> bool: ...
    def count(self) -> int: ...
    def passages(self) -> Iterator[tuple[str, Passage]]: ...
    def queries(self, split: str | None) -> Iterator[tuple[str, str, str]]: ...
    def judgements(self, split: str) -> Iterator[tuple[str, Judgement]]: ...
    def checksums(self) -> dict[str, Checksum]: ...


@dataclass(frozen=True)
class _Files:
    """A folder of BEIR's or MS MARCO's files. The file of all queries has the split None."""

    folder: Path
    corpus_file: Path
    query_files: dict[str | None, Path]
    qrels_files: dict[str, Path]

    @property
    def name(self) -> str:
        return str(self.folder)

    @property
    def corpus(self) -> str:
        return str(self.corpus_file)

    @property
    def splits(self) -> set[str]:
        return {split for split in (*self.query_files, *self.qrels_files) if split is not None}

    def has_queries(self, split: str) -> bool:
        return split in self.query_files

    def has_qrels(self, split: str) -> bool:
        return split in self.qrels_files

    def count(self) -> int:
        return sum(1 for _ in self._rows(self.corpus_file, PASSAGES))

    def passages(self) -> Iterator[tuple[str, Passage]]:
        read = _json_passage if self.corpus_file.suffix == ".jsonl" else _tab_separated_passage
        for place, row in self._rows(self.corpus_file, PASSAGES):
            yield place, read_at(place, read, row)

    def queries(self, split: str | None) -> Iterator[tuple[str, str, str]]:
        for path in self.query_files.values() if split is None else [self.query_files[split]]:
            if not path.is_file():
                raise ValueError(f"There is no {path}, so {self.name} has no queries; put the file there.")
            read = _json_query if path.suffix == ".jsonl" else _tab_separated_query
            for place, row in self._rows(path, QUERIES):
                query, text = read_at(place, read, row)
                if not text.strip():
                    raise ValueError(f"{place} has a query {query!r} without text; remove it, or complete it.")
                yield place, query, text

    def _rows(self, path: Path, spellings: Spellings) -> Iterator[tuple[str, _Row]]:
        """Read the lines of a file, each with the names of its columns if it is tab-separated and the first line has them."""
        names: list[str] | None = None
        for number, (place, line) in enumerate(numbered_lines(path)):
            if number == 0 and path.suffix == ".tsv":
                names = column_names(line.split("\t"), spellings)
                if names and "id" in names:
                    continue
                names = None
            yield place, (line, names)

    def judgements(self, split: str) -> Iterator[tuple[str, Judgement]]:
        if split not in self.qrels_files:
            raise ValueError(
                f"Split {split!r} of {self.name} has queries but no judgements; those with judgements are "
                f"{', '.join(self.qrels_files) or 'none'}."
            )
        return read_judgements(self.qrels_files[split])

    def checksums(self) -> dict[str, Checksum]:
        files = [self.corpus_file, *self.query_files.values(), *self.qrels_files.values()]
        sums = checksum_files(file for file in files if file.is_file())
        return {str(Path(name).relative_to(self.folder)): value for name, value in sums.items()}


@dataclass(frozen=True)
class _IrDatasets:
    """A data set of ir-datasets. Its splits are the data sets below it that have judgements, such as "test"."""

    name: str
    whole: Any
    parts: dict[str, Any]

    @classmethod
    def load(cls, name: str) -> _IrDatasets:
        ir_datasets = import_extra("ir_datasets", f"Opening {name}", "ir-datasets")
        inner = name.removeprefix(_IRDS)
        try:
            whole = ir_datasets.load(inner)
        except KeyError:
            raise ValueError(f"ir-datasets knows no data set {inner!r}; see https://ir-datasets.com for its names.") from None
        if not whole.has_docs():
            raise ValueError(f"The data set {inner!r} has no passages; choose one that has.")
        below = [other for other in ir_datasets.registry if other.startswith(f"{inner}/")]
        parts = {other.removeprefix(f"{inner}/"): ir_datasets.load(other) for other in below}
        if whole.has_qrels():
            parts = {inner.rsplit("/", 1)[-1]: whole}
        return cls(name, whole, {split: part for split, part in parts.items() if part.has_qrels()})

    @property
    def corpus(self) -> str:
        return self.name

    @property
    def splits(self) -> set[str]:
        return set(self.parts)

    def has_queries(self, split: str) -> bool:
        return bool(self.parts[split].has_queries())

    def has_qrels(self, split: str) -> bool:
        return split in self.parts

    def count(self) -> int:
        with self._fetched():
            return int(self.whole.docs_count() or sum(1 for _ in self.whole.docs_iter()))

    def passages(self) -> Iterator[tuple[str, Passage]]:
        for number, doc in enumerate(self._read("docs", self.whole), 1):
            place, title = f"{self.name}, passage {number}", getattr(doc, "title", None)
            text = doc.text if hasattr(doc, "text") else doc.default_text()
            yield place, read_at(place, lambda record: _passage(*record), (doc.doc_id, text, title))

    def queries(self, split: str | None) -> Iterator[tuple[str, str, str]]:
        with_queries = (
            [self.whole] if self.whole.has_queries() else [part for part in self.parts.values() if part.has_queries()]
        )
        for part in with_queries if split is None else [self.parts[split]]:
            for number, query in enumerate(self._read("queries", part), 1):
                yield f"{self.name}, query {number}", query.query_id, getattr(query, "text", None) or query.default_text()

    def judgements(self, split: str) -> Iterator[tuple[str, Judgement]]:
        for number, qrel in enumerate(self._read("qrels", self.parts[split]), 1):
            yield f"{self.name}/{split}, judgement {number}", Judgement(qrel.query_id, qrel.doc_id, int(qrel.relevance))

    def checksums(self) -> dict[str, Checksum]:
        parts: dict[str, Iterable[tuple[Any, ...]]] = {
            "passages": ((passage.id, passage.text) for _, passage in self.passages()),
            "queries": (query[1:] for query in self.queries(None)),
            **{f"qrels/{split}": (judgement for _, judgement in self.judgements(split)) for split in sorted(self.parts)},
        }
        sums = {}
        for part, records in parts.items():
            hasher, size = hashlib.sha256(), 0
            for record in records:
                line = json.dumps(record).encode() + b"\n"
                hasher.update(line)
                size += len(line)
            sums[part] = Checksum(size, hasher.hexdigest())
        return sums

    def _read(self, kind: str, dataset: Any) -> Iterator[Any]:
        with self._fetched():
            yield from getattr(dataset, f"{kind}_iter")()

    @contextlib.contextmanager
    def _fetched(self) -> Iterator[None]:
        """Turn the errors of ir-datasets, which downloads data when they are first read, into those of this package."""
        try:
            yield
        except (OSError, RuntimeError) as error:  # no network, a mirror that is gone, a licence that must be accepted first
            raise ValueError(
                f"ir-datasets cannot get {self.name} ({error}); check the network, or put the files into ir-datasets' folder."
            ) from error
        except ImportError as error:  # some data sets need more packages, which the message names
            raise MissingExtraError(f"Reading {self.name} needs another package: {error}") from error


def _passage(name: str, text: str, title: object) -> Passage:
    if title is None or title == "":
        return Passage(name, text)
    return Passage(name, f"{title} {text}".strip(), {"title": title})


def _json_record(line: str) -> tuple[str, str, object]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no JSON: {error}") from None
    if not isinstance(record, dict) or "text" not in record or "_id" not in record:
        keys = ", ".join(record) if isinstance(record, dict) else type(record).__name__
        raise ValueError(f'it has no "_id" and "text", but {keys or "nothing"}')
    return str(record["_id"]), record["text"], record.get("title")


def _json_passage(row: _Row) -> Passage:
    return _passage(*_json_record(row[0]))


def _json_query(row: _Row) -> tuple[str, str]:
    name, text, _ = _json_record(row[0])
    if not isinstance(text, str):
        raise ValueError(f"its text must be a str, got {type(text).__name__}")
    return name, text


def _tab_separated_passage(row: _Row) -> Passage:
    line, names = row
    if names:
        values = named_row(names, line.split("\t"))
        return _passage(values["id"], values["text"], values.get("title"))
    name, *columns = line.split("\t")
    if not 1 <= len(columns) <= 2:
        raise ValueError(f"it has {1 + len(columns)} columns where id and text, and perhaps title, belong")
    return _passage(name, columns[0], columns[1] if len(columns) > 1 else None)


def _tab_separated_query(row: _Row) -> tuple[str, str]:
    line, names = row
    columns = line.split("\t")
    if names:
        values = named_row(names, columns)
        return values["id"], values["text"]
    if len(columns) != 2:
        raise ValueError(f"it has {len(columns)} columns where id and text belong")
    return columns[0], columns[1]

"""Runs and judgements, and the files in which TREC and BEIR keep them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from colbert_core.paths import as_path
from colbert_core.storage.durable import written_aside
from colbert_core.text.lines import numbered_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from os import PathLike
    from pathlib import Path

    from colbert_core.types import Hit

Run: TypeAlias = dict[str, dict[str, float]]
"""For each query the scores of the passages that a system found, by passage id, best first."""

Qrels: TypeAlias = dict[str, dict[str, int]]
"""For each query the grade of each judged passage, by passage id; 0 is not relevant."""

_RUN_COLUMNS = 6
# A TREC file of judgements has the columns query, iteration, passage, grade; BEIR leaves out the second.
_TREC_COLUMNS, _BEIR_COLUMNS = 4, 3


class Judgement(NamedTuple):
    """A line of a file of judgements.

    Attributes:
        query: id of the query.
        passage: id of the passage.
        grade: how relevant the passage is; 0 is not relevant.
    """

    query: str
    passage: str
    grade: int


# Judgements


def read_qrels(path: str | PathLike[str]) -> Qrels:
    """Read judgements from a file with tabs or blanks between its columns.

    TREC's columns are query, iteration, passage, grade; BEIR's are query, passage, grade, perhaps under a line of names.

    Raises:
        ValueError: a line is no judgement, two contradict each other, or there are none; the message has the number of the
            line.
    """
    return collect_qrels(read_judgements(as_path(path)), str(path))


def read_judgements(path: Path) -> Iterator[tuple[str, Judgement]]:
    """Read the judgements of a file one by one, each with its place.

    Raises:
        ValueError: a line is no judgement.
    """
    for position, (place, line) in enumerate(numbered_lines(path)):
        columns = line.split("\t") if "\t" in line else line.split()
        if len(columns) not in (_BEIR_COLUMNS, _TREC_COLUMNS):
            raise ValueError(
                f"{place} has {len(columns)} columns where query, passage, grade, or query, 0, passage, grade, belong: "
                f"{line!r:.80}"
            )
        try:
            grade = int(columns[-1])
        except ValueError:
            if position == 0:  # names of columns
                continue
            raise ValueError(f"{place} has the grade {columns[-1]!r:.80}, which is no whole number.") from None
        yield place, Judgement(columns[0], columns[-2], grade)


def collect_qrels(judgements: Iterable[tuple[str, Judgement]], subject: str) -> Qrels:
    """Collect judgements by query and passage.

    Args:
        judgements: each with its place, for errors.
        subject: what they belong to, for errors.

    Raises:
        ValueError: two contradict each other, or there are none.
    """
    qrels: Qrels = {}
    for place, (query, passage, grade) in judgements:
        if qrels.setdefault(query, {}).setdefault(passage, grade) != grade:
            raise ValueError(
                f"{place} has the grade {grade} for passage {passage!r} and query {query!r}, which had {qrels[query][passage]} "
                "before; keep one of them."
            )
    if not qrels:
        raise ValueError(f"{subject} has no judgements; is the file complete?")
    return qrels


# Runs


def read_run(path: str | PathLike[str]) -> Run:
    """Read a run from a file in TREC's format: query, Q0, passage, rank, score, tag.

    Passages are ordered by score, as trec_eval does, whatever their rank; equal scores stay in the order of the file.

    Raises:
        ValueError: a line has other columns, a score is no number, a passage comes twice, or the file is empty; the message
            has the number of the line.
    """
    run: Run = {}
    for place, line in numbered_lines(as_path(path)):
        columns = line.split()
        if len(columns) != _RUN_COLUMNS:
            raise ValueError(
                f"{place} has {len(columns)} columns where query, Q0, passage, rank, score, tag belong: {line!r:.80}"
            )
        query, _, passage, _, number, _ = columns
        try:
            score = float(number)
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            raise ValueError(f"{place} has the score {number!r}, which is no number.")
        scores = run.setdefault(query, {})
        if passage in scores:
            raise ValueError(f"{place} has the passage {passage!r} for the query {query!r} a second time; keep one of them.")
        scores[passage] = score
    if not run:
        raise ValueError(f"{path} is empty; a run has a line for each passage that was found.")
    return {query: dict(sorted(scores.items(), key=lambda item: -item[1])) for query, scores in run.items()}


def leave_out_identical_ids(
    run: Mapping[str, Mapping[str, float]], qrels: Mapping[str, Mapping[str, int]], k: int | None = None
) -> tuple[Run, int]:
    """Leave out passages that have the query's own id, as BEIR does (``ignore_identical_ids``).

    The queries of ArguAna and Quora are passages themselves, and would take the first place of every result. A passage that is
    judged relevant stays, since many collections number queries and their answers alike.

    Args:
        run: for each query the scores of its passages by their ids.
        qrels: for each query the grade of each judged passage.
        k: most passages of each query to return, the best ones; None for all.

    Returns:
        The rest of the run, and the number of queries that found their own id.
    """
    kept: Run = {}
    n_identical = 0
    for query, scores in run.items():
        is_own = query in scores and qrels.get(query, {}).get(query, 0) <= 0
        n_identical += is_own
        rest = [(passage, score) for passage, score in scores.items() if not (is_own and passage == query)]
        kept[query] = dict(rest if k is None else sorted(rest, key=lambda pair: -pair[1])[:k])
    return kept, n_identical


def write_run(path: str | PathLike[str], run: Mapping[str, Mapping[str, float]], tag: str) -> None:
    """Write a run in TREC's format, whole or not at all. A run that is there already is replaced.

    Args:
        path: the file.
        run: for each query the scores of its passages by their ids, in any order. Equal scores keep their order.
        tag: name of the system, without blanks.

    Raises:
        ValueError: the format cannot hold an id or the tag, or a score is no finite number.
    """
    _check_column(tag, "The tag")

    def lines() -> Iterator[str]:
        for query, scores in run.items():
            _check_column(query, "The query id")
            for rank, (passage, score) in enumerate(sorted(scores.items(), key=lambda item: -item[1]), 1):
                _check_column(passage, "The passage id")
                if not math.isfinite(score):
                    raise ValueError(f"The score of passage {passage!r} for query {query!r} is {score}; a run needs numbers.")
                yield f"{query} Q0 {passage} {rank} {float(score)!r} {tag}\n"

    path = as_path(path)
    with written_aside(path, shared=True) as unfinished, unfinished.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(lines())


def by_document(hits: Iterable[Hit]) -> list[tuple[str, float]]:
    """Return ids and scores of documents, best first, under the ids that judgements name.

    A document that the command line cut into ``ID#1``, ``ID#2`` and so on has the score of its best piece, as ``ID``. Where
    words ranked as well, the score is ``hybrid_relevance``, so that the order is that of the hits.
    """
    best: dict[str, float] = {}
    for hit in hits:
        passage = hit.passage
        wholes = (str(passage.metadata.get(key)) for key in ("piece_document_id", "document_id"))
        document = next((whole for whole in wholes if passage.id.startswith(f"{whole}#")), passage.id)
        best.setdefault(document, hit.score if hit.hybrid_relevance is None else hit.hybrid_relevance)
    return list(best.items())


def _check_column(text: str, subject: str) -> None:
    if len(text.split()) != 1 or text != text.strip():
        raise ValueError(f"{subject} {text!r} is empty or holds a blank, which a run in TREC's format cannot; rename it.")

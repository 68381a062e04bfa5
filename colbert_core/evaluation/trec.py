"""Runs and judgements as TREC and BEIR write them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from os import PathLike

    from colbert_core.types import Hit
from colbert_core.storage.durable import written_aside
from colbert_core.text.lines import numbered_lines

Run: TypeAlias = dict[str, dict[str, float]]
"""For each query the scores of the passages that were found, by their ids, best first."""

Qrels: TypeAlias = dict[str, dict[str, int]]
"""For each query the grade of each passage that was judged; 0 is not relevant."""
_RUN_COLUMNS = 6
# A TREC file of judgements has the columns query, iteration, passage, grade; BEIR leaves out the second.
_TREC_COLUMNS, _BEIR_COLUMNS = 4, 3


def by_document(hits: Iterable[Hit]) -> list[tuple[str, float]]:
    """Ids and scores of documents, best first, as a collection's judgements name them.

    Of one that was cut into ``ID#1``, ``ID#2`` and so on, as the command line does it, the best piece counts, as ``ID``.
    """
    best: dict[str, float] = {}
    for hit in hits:
        whole = str(hit.passage.metadata.get("document_id"))
        best.setdefault(whole if hit.passage.id.startswith(f"{whole}#") else hit.passage.id, hit.score)
    return list(best.items())


# Runs and judgements in files of their own


def read_qrels(path: str | PathLike[str]) -> Qrels:
    """Judgements from a file with tabs or blanks between its columns.

    TREC's are query, iteration, passage, grade; BEIR's are query, passage, grade, perhaps under a line of names.

    Raises:
        ValueError: a line is no judgement, two contradict each other, or there are none; with the number of the line.
    """
    return collect_qrels(read_judgements(Path(path)), str(path))


def read_run(path: str | PathLike[str]) -> Run:
    """What a system found, from a file in TREC's format: query, Q0, passage, rank, score, tag.

    The score decides, as it does for trec_eval, and the rank is not looked at; equal scores stay in the order of the file.

    Returns:
        For each query the scores of its passages by their ids, best first.

    Raises:
        ValueError: a line has other columns, a score is no number, a passage comes twice, or there is nothing; with the line.
    """
    run: Run = {}
    for place, line in numbered_lines(Path(path)):
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


def write_run(path: str | PathLike[str], run: Mapping[str, Mapping[str, float]], tag: str) -> None:
    """Write a run in TREC's format, whole or not at all; a run that is there already is replaced.

    Args:
        path: of the file.
        run: for each query the scores of its passages by their ids, in any order; equal scores are written in theirs.
        tag: names the system; no blanks.

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

    path = Path(path)
    with written_aside(path, shared=True) as unfinished, unfinished.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(lines())


def _check_column(text: str, subject: str) -> None:
    if len(text.split()) != 1 or text != text.strip():
        raise ValueError(f"{subject} {text!r} is empty or holds a blank, which a run in TREC's format cannot; rename it.")


# Sources


class Judgement(NamedTuple):
    query: str
    passage: str
    grade: int


def read_judgements(path: Path) -> Iterator[tuple[str, Judgement]]:
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

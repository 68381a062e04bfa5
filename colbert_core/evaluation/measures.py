"""How good a run is by judgements, whether one is better than another, and how long it took. Measures are ir-measures'."""

from __future__ import annotations

import math
import re
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from colbert_core.evaluation.trec import by_document
from colbert_core.extras import import_extra
from colbert_core.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from os import PathLike
    from typing import Protocol

    from colbert_core.evaluation.trec import Run
    from colbert_core.index.index import Index
    from colbert_core.rerank import Reranker
    from colbert_core.search.config import SearchConfig
    from colbert_core.types import Passage

    Pairs = list[tuple[str, float]]
    Search = Callable[[list[str]], list[Pairs]]

    class Engine(Protocol):
        """``BM25``, ``IVFPQ``, and whatever else answers several texts with ids and scores."""

        @property
        def search_many(self) -> Callable[..., list[Pairs]]:
            """Takes texts and k."""


DEFAULT_MEASURES = ("nDCG@10", "MRR@10", "Recall@100", "Success@5")
"""What ``evaluate`` computes unless it is told."""

# As users write them and as ir-measures calls them.
_MEASURES = {"ndcg": "nDCG", "mrr": "RR", "rr": "RR", "recall": "R", "r": "R", "success": "Success"}

# Random signs that a randomisation test draws; p-values are known to .005 then, at p = .05.
_RESAMPLES = 9_999
_RESAMPLES_AT_A_TIME = 500
_SEED = 12345

# MRR@10 and Recall@k on MS MARCO's dev queries, in percent: ColBERT (SIGIR 2020), table 2, and nanoColBERT's README.
PUBLISHED = {
    "MRR@10": (36.0, 36.0),
    "Recall@50": (82.9, 83.3),
    "Recall@200": (92.3, 91.9),
    "Recall@1000": (96.8, 96.3),
}


@dataclass(frozen=True)
class Evaluation:
    """The measures of a run.

    Attributes:
        means: of each measure, over all judged queries.
        by_query: for each measure the value of each judged query.
        n_queries: judged queries.
        n_missing: judged queries that the run has nothing for; they count as 0.
        n_unjudged: queries of the run without judgements; they do not count.
    """

    means: dict[str, float]
    by_query: dict[str, dict[str, float]]
    n_queries: int
    n_missing: int
    n_unjudged: int


@dataclass(frozen=True)
class Comparison:
    """Two runs by one measure, query by query.

    Attributes:
        measure: as it was given.
        mean_a: of the first run.
        mean_b: of the second run.
        difference: ``mean_b - mean_a``.
        t_test: two-sided p-value of the paired t test; 1 where no query differs.
        randomisation: two-sided p-value of the paired randomisation test; 1 where no query differs.
        better: queries of which the second run has the higher value.
        worse: queries of which it has the lower value.
        equal: queries of which both have the same.
    """

    measure: str
    mean_a: float
    mean_b: float
    difference: float
    t_test: float
    randomisation: float
    better: int
    worse: int
    equal: int


class TimedRun(NamedTuple):
    """A run and how long its queries took, one at a time.

    Attributes:
        run: for each query the scores of its passages by their ids, best first.
        median_ms: milliseconds of a query, encoding included.
        p95_ms: milliseconds that 95 % of the queries stay within.
    """

    run: Run
    median_ms: float
    p95_ms: float


class Point(NamedTuple):
    """A setting of a search in a plot.

    Attributes:
        label: settings of the same label are joined by a line.
        recall: from 0 to 1.
        milliseconds: of a query.
    """

    label: str
    recall: float
    milliseconds: float


def evaluate(
    run: Mapping[str, Mapping[str, float]], qrels: Mapping[str, Mapping[str, int]], measures: Iterable[str] = DEFAULT_MEASURES
) -> Evaluation:
    """Measure a run by judgements, through ir-measures, so as trec_eval does.

    Means are over all queries that have judgements: one without results counts as 0, where trec_eval by itself leaves it out.
    A grade of 1 or more is relevant; nDCG takes the grades as gains. Equal scores are ranked as trec_eval ranks them, by id
    from the last to the first.

    Args:
        run: for each query the scores of its passages by their ids.
        qrels: for each query the grade of each judged passage.
        measures: "nDCG@10", "MRR@10" (the reciprocal rank of the first relevant passage among 10), "Recall@50",
            "Success@5" (whether one of 5 is relevant), and so on.

    Raises:
        ValueError: a measure is none of these, there are no judgements, the run has no judged query, or a score is not finite.
        MissingExtraError: ir-measures is not installed.
    """
    _check_judged(run, qrels)
    named = _named(measures)
    ir_measures = import_extra("ir_measures", "Evaluation", "ir-measures")
    values: dict[Any, dict[str, float]] = {measure: dict.fromkeys(qrels, 0.0) for measure in named.values()}
    found = {query: _without_ties(query, scores) for query, scores in run.items() if query in qrels and scores}
    judged = {query: dict(grades) for query, grades in qrels.items()}
    for value in ir_measures.iter_calc(list(values), judged, found):
        values[value.measure][value.query_id] = float(value.value)
    by_query = {name: dict(values[measure]) for name, measure in named.items()}
    return Evaluation(
        {name: float(np.mean(list(each.values()))) for name, each in by_query.items()},
        by_query,
        len(qrels),
        len(qrels.keys() - found.keys()),
        len(run.keys() - qrels.keys()),
    )


def check_measures(measures: Iterable[str] = DEFAULT_MEASURES) -> None:
    """Make sure that ``evaluate`` can compute these, before a run is made for it.

    Raises:
        ValueError: a measure is unknown.
        MissingExtraError: ir-measures is not installed.
    """
    _named(measures)


def compare(
    run_a: Mapping[str, Mapping[str, float]],
    run_b: Mapping[str, Mapping[str, float]],
    qrels: Mapping[str, Mapping[str, int]],
    measure: str = "nDCG@10",
) -> Comparison:
    """Whether the second run is better than the first, and how likely so large a difference would be by chance.

    Both tests are paired and two-sided (Smucker, Allan and Carterette, CIKM 2007): Student's t test, and the randomisation
    test, which swaps the two values of each query at random, or in all ways where these are few.

    Args:
        run_a: the first run, such as a baseline.
        run_b: the second run.
        qrels: for each query the grade of each judged passage; at least 2 queries.
        measure: as for ``evaluate``.

    Raises:
        ValueError: there are fewer than 2 judged queries; otherwise as ``evaluate``.
        MissingExtraError: ir-measures is not installed.
    """
    from scipy import stats  # here, because it takes a second to import

    if len(qrels) < 2:
        raise ValueError(f"Runs are compared over at least 2 judged queries, got {len(qrels)}.")
    a, b = (evaluate(run, qrels, [measure]).by_query[measure] for run in (run_a, run_b))
    values_a, values_b = (np.array([values[query] for query in qrels]) for values in (a, b))
    differences = values_b - values_a  # (n_queries,)
    t_test = randomisation = 1.0
    if differences.any():
        # All queries may differ by the same, which leaves nothing to divide by: the t statistic is infinite.
        t_test = float(stats.ttest_rel(values_b, values_a).pvalue) if differences.std() > 1e-12 else 0.0
        randomisation = float(
            stats.permutation_test(
                (differences,),
                np.mean,
                permutation_type="samples",
                vectorized=True,
                n_resamples=_RESAMPLES,
                batch=_RESAMPLES_AT_A_TIME,
                random_state=np.random.default_rng(_SEED),
            ).pvalue
        )
    return Comparison(
        measure,
        float(values_a.mean()),
        float(values_b.mean()),
        float(differences.mean()),
        t_test,
        randomisation,
        int((differences > 0).sum()),
        int((differences < 0).sum()),
        int((differences == 0).sum()),
    )


def nanocolbert_table(scores: Mapping[str, float]) -> str:
    """A table of measures beside those published for ColBERTv1 on MS MARCO's 6,980 dev queries, in percent.

    Args:
        scores: from 0 to 1, such as ``Evaluation.means``; of MRR@10 and Recall@50, @200 and @1000 those that are there.

    Raises:
        ValueError: none of these is there.
    """
    if not scores.keys() & PUBLISHED.keys():
        raise ValueError(f"scores must have one of {', '.join(PUBLISHED)}, got {', '.join(scores) or 'nothing'}.")
    lines = [f"{'measure':<12}{'this run':>10}{'ColBERT (SIGIR 2020)':>22}{'nanoColBERT':>13}"]
    for name, (paper, nano) in PUBLISHED.items():
        own = f"{100 * scores[name]:.1f}" if name in scores else "-"
        lines.append(f"{name:<12}{own:>10}{paper:>22}{nano:>13}")
    return "\n".join(lines)


# Runs


def run_of(search: Search, queries: Mapping[str, str], *, progress: bool | None = None) -> TimedRun:
    """Ask one query after the other, and measure the time of each. The first is asked once before, which does not count.

    Args:
        search: for a list of texts gives a list of (id, score) for each; ``search_index`` and ``search_engine`` make one.
        queries: texts by id.
        progress: show a bar; None shows it on a terminal once a second has passed.

    Raises:
        ValueError: there are no queries, or a search finds a passage twice.
    """
    if not queries:
        raise ValueError("There are no queries to ask; is it the right split?")
    search([next(iter(queries.values()))])  # compiles kernels, loads models, maps files
    run: Run = {}
    times = []
    with progress_bar("Searching", len(queries), "query", progress) as bar:
        for query, text in queries.items():
            start = time.perf_counter()
            (pairs,) = search([text])
            times.append(1000 * (time.perf_counter() - start))
            run[query] = _as_scores(query, pairs)
            bar.update()
    return _timed(run, times)


def search_index(index: Index, k: int, *, exact: bool = False, config: SearchConfig | None = None) -> Search:
    """A search of an ``Index`` for ``run_of``; the arguments are those of ``Index.search_many``.

    Of a document that was cut into ``ID#1``, ``ID#2`` and so on, as the command line does it, the best piece counts, as ``ID``.
    """

    def search(texts: list[str]) -> list[Pairs]:
        return [by_document(hits) for hits in index.search_many(texts, k, exact=exact, config=config)]

    return search


def search_engine(engine: Engine, k: int, **settings: Any) -> Search:
    """A search of ``BM25``, ``IVFPQ`` or the like for ``run_of``; the arguments are those of its ``search_many``."""
    return lambda texts: engine.search_many(texts, k, **settings)


def rerank_run(
    reranker: Reranker,
    run: Mapping[str, Mapping[str, float]],
    queries: Mapping[str, str],
    passages: Mapping[str, Passage],
    *,
    depth: int = 100,
    progress: bool | None = None,
) -> TimedRun:
    """Score what another system found. Passages below ``depth`` are left out.

    Args:
        reranker: scores passages for a query.
        run: for each query the scores of its passages by their ids; in order of score the first ``depth`` are taken.
        queries: texts by id; those of which the run has nothing are left out.
        passages: by id, such as ``Dataset.get`` gives; all that the run has above ``depth``.
        depth: passages for each query, at least 1.
        progress: show a bar; None shows it on a terminal once a second has passed.

    Raises:
        ValueError: depth is below 1, a text is missing, or the run has none of the queries.
    """
    if depth < 1:
        raise ValueError(f"depth must be at least 1, got {depth}.")
    asked = {query: text for query, text in queries.items() if run.get(query)}
    if not asked:
        raise ValueError(f"The run has none of the {len(queries)} queries; is it one of this collection?")
    candidates = {query: _first(run[query], depth) for query in asked}
    for query, ids in candidates.items():
        if missing := [passage for passage in ids if passage not in passages]:
            raise ValueError(
                f"The run has the passage {missing[0]!r} for query {query!r}, which has no text; add it to passages."
            )
    reranked: Run = {}
    times = []
    with progress_bar("Reranking", len(asked), "query", progress) as bar:
        for query, text in asked.items():
            start = time.perf_counter()
            hits = reranker.rank(text, [passages[passage] for passage in candidates[query]], progress=False)
            times.append(1000 * (time.perf_counter() - start))
            reranked[query] = {hit.passage.id: hit.score for hit in hits}
            bar.update()
    return _timed(reranked, times)


def plot_recall_latency(points: Sequence[Point], path: str | PathLike[str]) -> None:
    """Draw how much more time more recall takes, as a PNG, PDF or SVG by the name of the file.

    Raises:
        ValueError: there are no points, or matplotlib does not write such files.
        MissingExtraError: matplotlib is not installed.
    """
    if not points:
        raise ValueError("There are no points to draw; give at least one.")
    import_extra("matplotlib", "A plot", "matplotlib")
    figures = import_extra("matplotlib.figure", "A plot", "matplotlib")
    figure = figures.Figure(figsize=(7, 4.5), layout="constrained")  # no pyplot: nothing global, no window
    axes = figure.subplots()
    for label in dict.fromkeys(point.label for point in points):
        of_label = sorted((point for point in points if point.label == label), key=lambda point: point.milliseconds)
        times, recalls = [point.milliseconds for point in of_label], [point.recall for point in of_label]
        axes.plot(times, recalls, marker="o", label=label)
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds per query")
    axes.set_ylabel("recall")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(Path(path), dpi=150)


# Helpers


def _named(measures: Iterable[str]) -> dict[str, Any]:
    """The measure of each name; several names may be of one."""
    names = list(measures)
    if isinstance(measures, str) or not names:
        raise ValueError(f"measures must be a list of names such as {', '.join(DEFAULT_MEASURES)}, got {measures!r}.")
    ir_measures = import_extra("ir_measures", "Evaluation", "ir-measures")
    return {name: _as_measure(ir_measures, name) for name in names}


def _as_measure(ir_measures: Any, name: str) -> Any:
    match = re.fullmatch(r"([A-Za-z]+)@([1-9]\d*)", name) if isinstance(name, str) else None
    if match is None or match[1].lower() not in _MEASURES:
        raise ValueError(f"There is no measure {name!r}; write nDCG@k, MRR@k, Recall@k or Success@k, such as nDCG@10.")
    return getattr(ir_measures, _MEASURES[match[1].lower()]) @ int(match[2])


def _check_judged(run: Mapping[str, Any], qrels: Mapping[str, Any]) -> None:
    if not qrels:
        raise ValueError("There are no judgements to measure a run by; is it the right split?")
    if not run.keys() & qrels.keys():
        example = f"such as {min(run)!r} where {min(qrels)!r} is judged" if run else "it is empty"
        raise ValueError(f"None of the {len(run)} queries of the run is judged, {example}; is it a run of this split?")


def _as_scores(query: str, pairs: Pairs) -> dict[str, float]:
    scores = {passage: float(score) for passage, score in pairs}
    if len(scores) != len(pairs):
        raise ValueError(f"The search found {len(pairs)} passages for query {query!r}, of which only {len(scores)} differ.")
    return scores


def _without_ties(query: str, scores: Mapping[str, float]) -> dict[str, float]:
    """Numbers in the place of scores, all different: the libraries that ir-measures asks break ties each in its own way."""
    if not all(map(math.isfinite, scores.values())):
        raise ValueError(f"The run has a score for query {query!r} that is no finite number.")
    ascending = sorted(sorted(scores), key=lambda passage: scores[passage])  # stable: of equal scores the last id comes last
    return {passage: float(place) for place, passage in enumerate(ascending)}


def _first(scores: Mapping[str, float], depth: int) -> list[str]:
    return sorted(scores, key=lambda passage: -scores[passage])[:depth]


def _timed(run: Run, times: list[float]) -> TimedRun:
    ordered = sorted(times)
    return TimedRun(run, statistics.median(ordered), ordered[math.ceil(0.95 * len(ordered)) - 1])

"""Measure runs by judgements, compare them, time searches and draw the results. The measures are those of ir-measures."""

from __future__ import annotations

import math
import re
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from colbert_core.checks import check_count
from colbert_core.evaluation.trec import by_document, leave_out_identical_ids
from colbert_core.extras import import_extra
from colbert_core.paths import as_path
from colbert_core.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from os import PathLike
    from typing import Protocol

    from colbert_core.evaluation.trec import Run
    from colbert_core.index.base import IndexBase
    from colbert_core.rerank import Reranker
    from colbert_core.search.config import SearchConfig
    from colbert_core.types import Mode, Passage

    Pairs = list[tuple[str, float]]
    Search = Callable[[list[str]], list[Pairs]]

    class Engine(Protocol):
        """Anything that answers several texts with ids and scores, such as ``BM25`` and ``IVFPQ``."""

        @property
        def search_many(self) -> Callable[..., list[Pairs]]:
            """Takes texts and k."""


DEFAULT_MEASURES = ("nDCG@10", "MRR@10", "Recall@100", "Success@5")
"""The measures that ``evaluate`` computes by default."""

# Names that users write, in lower case, and the names of ir-measures.
_MEASURES = {"ndcg": "nDCG", "mrr": "RR", "rr": "RR", "recall": "R", "r": "R", "success": "Success"}

# Draws of random signs in a randomisation test. They give p-values to .005, at p = .05.
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
        means: mean of each measure over all judged queries.
        by_query: for each measure the value of each judged query.
        n_queries: number of judged queries.
        n_missing: number of judged queries without results in the run; they count as 0.
        n_unjudged: number of queries of the run without judgements; they do not count.
        n_identical: number of judged queries that found a passage with their own id, which was left out.
    """

    means: dict[str, float]
    by_query: dict[str, dict[str, float]]
    n_queries: int
    n_missing: int
    n_unjudged: int
    n_identical: int = 0


@dataclass(frozen=True)
class Comparison:
    """Two runs compared by one measure, query by query.

    Attributes:
        measure: name of the measure, as it was given.
        mean_a: mean of the first run.
        mean_b: mean of the second run.
        difference: ``mean_b - mean_a``.
        t_test: two-sided p-value of the paired t test; 1 where no query differs.
        randomisation: two-sided p-value of the paired randomisation test; 1 where no query differs.
        better: number of queries for which the second run has the higher value.
        worse: number of queries for which the second run has the lower value.
        equal: number of queries for which both runs have the same value.
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
        median_ms: median time of a query in milliseconds, encoding included.
        p95_ms: time in milliseconds within which 95 % of the queries end.
    """

    run: Run
    median_ms: float
    p95_ms: float


class Point(NamedTuple):
    """A setting of a search in a plot.

    Attributes:
        label: name of the line; points with the same label are joined.
        recall: recall of the search, from 0 to 1.
        milliseconds: time of a query.
    """

    label: str
    recall: float
    milliseconds: float


def evaluate(
    run: Mapping[str, Mapping[str, float]],
    qrels: Mapping[str, Mapping[str, int]],
    measures: Iterable[str] = DEFAULT_MEASURES,
    *,
    ignore_identical_ids: bool = True,
) -> Evaluation:
    """Measure a run by judgements with ir-measures, which agrees with trec_eval.

    Means are over all queries that have judgements: a query without results counts as 0, where trec_eval by itself leaves it
    out. A grade of 1 or more is relevant; nDCG takes the grades as gains. Equal scores are ranked as trec_eval ranks them, by
    id from the last to the first.

    Args:
        run: for each query the scores of its passages by their ids.
        qrels: for each query the grade of each judged passage.
        measures: "nDCG@10", "MRR@10" (the reciprocal rank of the first relevant passage among 10), "Recall@50",
            "Success@5" (whether one of 5 is relevant), and so on.
        ignore_identical_ids: leave out a passage with the query's own id, unless it is judged relevant, as BEIR does for test
            sets whose queries are in the corpus (ArguAna, Quora).

    Raises:
        ValueError: a measure is unknown, there are no judgements, the run has no judged query, or a score is not finite.
        MissingExtraError: ir-measures is not installed.
    """
    _check_judged(run, qrels)
    named = _parse_measures(measures)
    judged_run = {query: scores for query, scores in run.items() if query in qrels}
    kept, n_identical = leave_out_identical_ids(judged_run, qrels) if ignore_identical_ids else (judged_run, 0)
    ir_measures = import_extra("ir_measures", "Evaluation", "ir-measures")
    values: dict[Any, dict[str, float]] = {measure: dict.fromkeys(qrels, 0.0) for measure in named.values()}
    results = {query: _break_ties(query, scores) for query, scores in kept.items() if scores}
    judged = {query: dict(grades) for query, grades in qrels.items()}
    for value in ir_measures.iter_calc(list(values), judged, results):
        values[value.measure][value.query_id] = float(value.value)
    by_query = {name: dict(values[measure]) for name, measure in named.items()}
    return Evaluation(
        {name: float(np.mean(list(each.values()))) for name, each in by_query.items()},
        by_query,
        len(qrels),
        len(qrels.keys() - results.keys()),
        len(run.keys() - qrels.keys()),
        n_identical,
    )


def check_measures(measures: Iterable[str] = DEFAULT_MEASURES) -> None:
    """Check that ``evaluate`` can compute these measures, before a run is made for it.

    Raises:
        ValueError: a measure is unknown.
        MissingExtraError: ir-measures is not installed.
    """
    _parse_measures(measures)


def compare(
    run_a: Mapping[str, Mapping[str, float]],
    run_b: Mapping[str, Mapping[str, float]],
    qrels: Mapping[str, Mapping[str, int]],
    measure: str = "nDCG@10",
    *,
    ignore_identical_ids: bool = True,
) -> Comparison:
    """Compare two runs by one measure, and test how likely so large a difference would be by chance.

    Both tests are paired and two-sided (Smucker, Allan and Carterette, CIKM 2007): Student's t test, and the randomisation
    test, which swaps the two values of each query at random, or in all possible ways where these are few.

    Args:
        run_a: the first run, such as a baseline.
        run_b: the second run.
        qrels: for each query the grade of each judged passage; at least 2 queries.
        measure: as for ``evaluate``.
        ignore_identical_ids: as for ``evaluate``.

    Raises:
        ValueError: there are fewer than 2 judged queries; otherwise as ``evaluate``.
        MissingExtraError: ir-measures is not installed.
    """
    from scipy import stats  # here, because it takes a second to import

    if len(qrels) < 2:
        raise ValueError(f"Runs are compared over at least 2 judged queries, got {len(qrels)}.")
    a, b = (
        evaluate(run, qrels, [measure], ignore_identical_ids=ignore_identical_ids).by_query[measure] for run in (run_a, run_b)
    )
    values_a, values_b = (np.array([values[query] for query in qrels]) for values in (a, b))
    differences = values_b - values_a  # (n_queries,)
    t_test = randomisation = 1.0
    if differences.any():
        # Where all queries differ by the same, the deviation is 0 and the t statistic infinite.
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
    """Format measures beside those published for ColBERTv1 on MS MARCO's 6,980 dev queries, in percent.

    Args:
        scores: measures from 0 to 1, such as ``Evaluation.means``. The table has MRR@10, Recall@50, Recall@200 and
            Recall@1000, with a dash for those that are missing.

    Raises:
        ValueError: all of these are missing.
    """
    if not scores.keys() & PUBLISHED.keys():
        raise ValueError(f"scores must have one of {', '.join(PUBLISHED)}, got {', '.join(scores) or 'nothing'}.")
    lines = [f"{'measure':<12}{'this run':>10}{'ColBERT (SIGIR 2020)':>22}{'nanoColBERT':>13}"]
    for name, (paper, nano) in PUBLISHED.items():
        score = f"{100 * scores[name]:.1f}" if name in scores else "-"
        lines.append(f"{name:<12}{score:>10}{paper:>22}{nano:>13}")
    return "\n".join(lines)


# Make a run


def run_of(search: Search, queries: Mapping[str, str], *, progress: bool | None = None) -> TimedRun:
    """Ask one query after the other, and measure the time of each.

    The first query is asked once more at the beginning, which is not timed.

    Args:
        search: returns for each of several texts a list of (id, score); ``search_index`` and ``search_engine`` make one.
        queries: texts by id.
        progress: show a bar; None shows it on a terminal or in a notebook once a second has passed.

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
            run[query] = _to_scores(query, pairs)
            bar.update()
    return _with_times(run, times)


def search_index(
    index: IndexBase,
    k: int,
    *,
    exact: bool = False,
    config: SearchConfig | None = None,
    mode: Mode = "maxsim",
    weight: float | None = None,
) -> Search:
    """Return a search of an ``Index`` or ``ShardedIndex`` for ``run_of``. The arguments are those of ``Index.search_many``.

    A document that the command line cut into ``ID#1``, ``ID#2`` and so on has the score of its best piece, as ``ID``. Where
    words rank as well, scores are ``hybrid_relevance``.
    """

    def search(texts: list[str]) -> list[Pairs]:
        all_hits = index.search_many(texts, k, exact=exact, config=config, mode=mode, weight=weight)
        return [by_document(hits) for hits in all_hits]

    return search


def search_engine(engine: Engine, k: int, **settings: Any) -> Search:
    """Return a search of ``BM25``, ``IVFPQ`` or the like for ``run_of``. The arguments are those of its ``search_many``."""
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
    """Rerank the ``depth`` best passages that another system found for each query, and measure the time of each.

    Args:
        reranker: scores passages for a query.
        run: for each query the scores of its passages by their ids.
        queries: texts by id. Queries without results in the run are left out.
        passages: passages by id, such as ``Dataset.get`` gives; at least the ``depth`` best of each query.
        depth: number of passages to rerank for each query, at least 1.
        progress: show a bar; None shows it on a terminal or in a notebook once a second has passed.

    Raises:
        TypeError: depth is no whole number.
        ValueError: depth is below 1, a text is missing, or the run has none of the queries.
    """
    depth = check_count(depth, "depth")
    with_results = {query: text for query, text in queries.items() if run.get(query)}
    if not with_results:
        raise ValueError(f"The run has none of the {len(queries)} queries; is it one of this collection?")
    candidates = {query: _best_ids(run[query], depth) for query in with_results}
    for query, ids in candidates.items():
        if missing := [passage for passage in ids if passage not in passages]:
            raise ValueError(
                f"The run has the passage {missing[0]!r} for query {query!r}, which has no text; add it to passages."
            )
    reranked: Run = {}
    times = []
    with progress_bar("Reranking", len(with_results), "query", progress) as bar:
        for query, text in with_results.items():
            start = time.perf_counter()
            hits = reranker.rank(text, [passages[passage] for passage in candidates[query]], progress=False)
            times.append(1000 * (time.perf_counter() - start))
            reranked[query] = {hit.passage.id: hit.score for hit in hits}
            bar.update()
    return _with_times(reranked, times)


def plot_recall_latency(points: Sequence[Point], path: str | PathLike[str]) -> None:
    """Draw recall over the time of a query. The name of the file decides between PNG, PDF and SVG.

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
        line = sorted((point for point in points if point.label == label), key=lambda point: point.milliseconds)
        times, recalls = [point.milliseconds for point in line], [point.recall for point in line]
        axes.plot(times, recalls, marker="o", label=label)
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds per query")
    axes.set_ylabel("recall")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(as_path(path), dpi=150)


# Helpers


def _parse_measures(measures: Iterable[str]) -> dict[str, Any]:
    """Return the measure of ir-measures for each name. Several names may mean the same measure."""
    names = list(measures)
    if isinstance(measures, str) or not names:
        raise ValueError(f"measures must be a list of names such as {', '.join(DEFAULT_MEASURES)}, got {measures!r}.")
    ir_measures = import_extra("ir_measures", "Evaluation", "ir-measures")
    return {name: _parse_measure(ir_measures, name) for name in names}


def _parse_measure(ir_measures: Any, name: str) -> Any:
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


def _to_scores(query: str, pairs: Pairs) -> dict[str, float]:
    scores = {passage: float(score) for passage, score in pairs}
    if len(scores) != len(pairs):
        raise ValueError(f"The search found {len(pairs)} passages for query {query!r}, of which only {len(scores)} differ.")
    return scores


def _break_ties(query: str, scores: Mapping[str, float]) -> dict[str, float]:
    """Replace scores by numbers that all differ, since the libraries behind ir-measures break ties each in its own way."""
    if not all(map(math.isfinite, scores.values())):
        raise ValueError(f"The run has a score for query {query!r} that is no finite number.")
    ascending = sorted(sorted(scores), key=lambda passage: scores[passage])  # stable: of equal scores the last id comes last
    return {passage: float(place) for place, passage in enumerate(ascending)}


def _best_ids(scores: Mapping[str, float], depth: int) -> list[str]:
    return sorted(scores, key=lambda passage: -scores[passage])[:depth]


def _with_times(run: Run, times: list[float]) -> TimedRun:
    """Add the median and the 95th percentile of the times, in milliseconds."""
    ordered = sorted(times)
    return TimedRun(run, statistics.median(ordered), ordered[math.ceil(0.95 * len(ordered)) - 1])

"""Commands of training and evaluation. Their options are in ``training_options``, which needs no torch."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from colbert_core.cli.options import load_encoder, wants_progress
from colbert_core.cli.printing import print_lines
from colbert_core.cli.reading import open_index
from colbert_core.colbertv1 import pipeline
from colbert_core.colbertv1.encoded import encode_collection
from colbert_core.colbertv1.ivfpq import IVFPQ
from colbert_core.colbertv1.mining import mine, searcher
from colbert_core.colbertv1.pipeline import TRIPLES, mine_with_bm25, own_triples
from colbert_core.evaluation.bm25 import BM25
from colbert_core.evaluation.datasets import open_dataset
from colbert_core.evaluation.measures import (
    DEFAULT_MEASURES,
    PUBLISHED,
    Point,
    TimedRun,
    check_measures,
    compare,
    evaluate,
    nanocolbert_table,
    plot_recall_latency,
    rerank_run,
    run_of,
    search_engine,
    search_index,
)
from colbert_core.evaluation.trec import leave_out_identical_ids, read_run, write_run
from colbert_core.extras import import_extra
from colbert_core.index.index import Index
from colbert_core.paths import as_path
from colbert_core.rerank import Reranker
from colbert_core.search.config import ladder_of_configs
from colbert_core.search.lexical import by_words
from colbert_core.storage.durable import check_target
from colbert_core.train import ColBERT, Examples, configured, prepare, read_examples, train, write_examples
from colbert_core.train.checking import check_examples

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from colbert_core.colbertv1.mining import SearchMany
    from colbert_core.evaluation.datasets import Dataset
    from colbert_core.evaluation.measures import Evaluation, Search
    from colbert_core.evaluation.trec import Qrels
    from colbert_core.index.base import IndexBase
    from colbert_core.model.encoder import Encoder
    from colbert_core.train import Example, TrainConfig


def run_prepare(options: argparse.Namespace) -> int:
    """``colbert data prepare``."""
    config = configured(options.preset, _settings(options))
    model = ColBERT.from_pretrained(
        options.base, config, language=options.language, trust_remote_code=options.trust_remote_code
    )
    examples, sources = _examples(options.data)
    prepared = prepare(examples, model, options.out, sources=sources, progress=wants_progress(options))
    _say_doubts(prepared, model, config)
    print(f"{len(prepared)} examples of {len(prepared.queries)} queries and {len(prepared.passages)} passages in {options.out}")
    return 0


def _say_doubts(examples: Examples, model: ColBERT, config: TrainConfig) -> None:
    """Say what a training with these settings would warn of or refuse; prepared with others, the examples may serve yet."""
    try:
        _, doubts = check_examples(examples, model, config)
    except ValueError as error:
        doubts = [str(error)]
    for doubt in doubts:
        print(f"colbert: {doubt}", file=sys.stderr)


def run_train(options: argparse.Namespace) -> int:
    """``colbert train``."""
    folder = as_path(options.data)
    examples = Examples.open(folder) if (folder / "manifest.json").is_file() else _examples(options.data)[0]
    judge = None if options.eval is None else _judge(open_dataset(options.eval), options.eval_split)
    result = train(
        examples,
        options.base,
        out=options.out,
        preset=options.preset,
        evaluate=judge,
        progress=wants_progress(options),
        language=options.language,
        trust_remote_code=options.trust_remote_code,
        **_settings(options),
    )
    print(f"{result.last_step} steps, loss {result.loss:.4f}; the model of step {result.step} is {result.model}")
    return 0


def _judge(dataset: Dataset, split: str | None) -> Callable[[Encoder], float]:
    """Return a function that measures an encoder's nDCG@10 on a test set, by exact search."""
    check_measures(["nDCG@10"])
    split = split or ("dev" if "dev" in dataset.splits else "test")
    queries, qrels, passages = dataset.queries(split), dataset.qrels(split), list(dataset.passages())

    def ndcg(encoder: Encoder) -> float:
        index = Index.create(None, encoder)
        index.add(passages, progress=False)
        # One more than is measured, for the query itself where it is in the corpus.
        retrieved = run_of(search_index(index, 10 + 1), queries, progress=False)
        return evaluate(retrieved.run, qrels, ["nDCG@10"]).means["nDCG@10"]

    return ndcg


def run_mine(options: argparse.Namespace) -> int:
    """``colbert mine``."""
    dataset = open_dataset(options.data)
    dataset.check(options.split)
    qrels = dataset.qrels(options.split)
    first, last = options.ranks
    if options.engine == "bm25":
        examples = mine_with_bm25(
            dataset,
            qrels,
            options.negatives,
            triples=options.triples,
            ranks=(first, last),
            margin=options.margin,
            seed=options.seed,
            progress=wants_progress(options),
        )
        n_examples = write_examples(examples, options.out)
    else:
        if options.triples:
            raise ValueError("--triples goes with --with bm25; train --preset colbertv1 takes an example's first negative.")
        with open_index(options.engine) as index:
            texts = {passage.id: passage.text for passage in dataset.passages()}
            examples = mine(
                dataset.queries(options.split),
                qrels,
                _search_checked(index, texts, options),
                lambda ids: [texts[name] for name in ids],
                n_negatives=options.negatives,
                ranks=(first, last),
                margin=options.margin,
                seed=options.seed,
                progress=wants_progress(options),
            )
            n_examples = write_examples(examples, options.out)
    print(f"{n_examples} examples in {options.out}")
    return 0


def _search_checked(index: IndexBase, texts: dict[str, str], options: argparse.Namespace) -> SearchMany:
    """Return a search of an index that raises an error where it finds a passage that has no text here."""
    search = searcher(index)

    def search_many(queries: list[str], k: int) -> list[list[tuple[str, float]]]:
        rankings = search(queries, k)
        if lost := [name for ranked in rankings for name, _ in ranked if name not in texts]:
            raise ValueError(
                f"{options.engine} holds the passage {lost[0]!r}, which is none of {options.data}; mine with an index of that."
            )
        return rankings

    return search_many


def run_encode(options: argparse.Namespace) -> int:
    """``colbert encode``."""
    dataset = open_dataset(options.data)
    encoded = encode_collection(
        dataset.passages(),
        load_encoder(options),
        options.out,
        shard_passages=options.shard_passages,
        n_passages=dataset.n_passages,
        progress=wants_progress(options),
    )
    print(f"{len(encoded)} passages, {encoded.n_tokens} vectors of dim {encoded.dim} in {options.out}")
    return 0


def run_ivfpq_build(options: argparse.Namespace) -> int:
    """``colbert ivfpq build``."""
    index = IVFPQ.build(
        options.vectors, options.out, nlist=options.nlist, m=options.m, sample=options.sample, progress=wants_progress(options)
    )
    print(f"{index!r} in {options.out}")
    return 0


def run_ivfpq_search(options: argparse.Namespace) -> int:
    """``colbert ivfpq search``."""
    check_target(options.out)
    queries = open_dataset(options.data).queries(options.split)
    retrieved = run_of(_search_ivfpq(options, options.index, options.k), queries, progress=wants_progress(options))
    write_run(options.out, retrieved.run, "IVFPQ")
    n, median, p95 = len(retrieved.run), retrieved.median_ms, retrieved.p95_ms
    print(f"{n} queries, median {median:.1f} ms, 95 % within {p95:.1f} ms; {options.out}")
    return 0


def run_evaluate(options: argparse.Namespace) -> int:
    """``colbert evaluate``."""
    measures = options.measures or DEFAULT_MEASURES
    _check_evaluation(options, measures)
    baseline = read_run(options.compare) if options.compare else None
    dataset = open_dataset(options.data)
    split = options.split or pipeline.held_out_split(dataset)
    queries, qrels = dataset.queries(split), dataset.qrels(split)
    keeps_own = options.keep_identical_ids
    if baseline is not None:
        evaluate(baseline, qrels)  # it must have queries of this split
    if len(options.weight or ()) > 1:
        return _evaluate_weights(options, dataset, split, queries, qrels, measures)
    retrieved, n_identical = _retrieve(options, dataset, queries, qrels)
    if options.out:
        write_run(options.out, retrieved.run, "colbert")
    measured = evaluate(retrieved.run, qrels, measures, ignore_identical_ids=not keeps_own)
    about: dict[str, Any] = {"data": dataset.name, "split": split, "queries": measured.n_queries, **measured.means}
    about |= {"identical_ids": n_identical} if n_identical else {}
    if not options.run_file:
        about |= _times(retrieved)
    if folder := options.index or options.ivfpq:
        about["index_bytes"] = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    if baseline is not None:
        about["compared"] = asdict(compare(baseline, retrieved.run, qrels, ignore_identical_ids=not keeps_own))
    if options.plot:
        with open_index(options.index, options.model) as index:
            plot_recall_latency(list(_points(index, queries, qrels, options)), options.plot)
    by_query = measured.by_query if options.per_query else {}
    if options.json:
        print(json.dumps(about | ({"by_query": by_query} if by_query else {})))
    else:
        _print_evaluation(about, by_query)
    _say_missing(options, dataset, split, measured, n_identical)
    return 0


def _evaluate_weights(
    options: argparse.Namespace,
    dataset: Dataset,
    split: str,
    queries: dict[str, str],
    qrels: Qrels,
    measures: Iterable[str],
) -> int:
    """Score an index by several weights of the words, and print a row for each."""
    rows: list[dict[str, Any]] = []
    with open_index(options.index, options.model) as index:
        for weight in options.weight:
            search = search_index(index, _depth(options), exact=options.exact, mode=options.mode, weight=weight)
            found = run_of(search, queries, progress=wants_progress(options))
            retrieved, n_identical = _without_identical(options, found, qrels, options.k)
            measured = evaluate(retrieved.run, qrels, measures, ignore_identical_ids=not options.keep_identical_ids)
            rows.append({"weight": weight, **measured.means, **_times(retrieved)})
    if options.json:
        about = {"data": dataset.name, "split": split, "queries": measured.n_queries}
        about |= {"identical_ids": n_identical} if n_identical else {}
        print(json.dumps({**about, "weights": rows}))
    else:
        print(f"data {dataset.name}, split {split}, {measured.n_queries} queries")
        widths = {name: max(len(name), 6) for name in rows[0]}
        print("  ".join(f"{name.replace('_', ' '):>{width}}" for name, width in widths.items()))
        for row in rows:
            cells = {name: f"{value:.4f}" if name in measured.means else f"{value:g}" for name, value in row.items()}
            print("  ".join(f"{cells[name]:>{width}}" for name, width in widths.items()))
    _say_missing(options, dataset, split, measured, n_identical)
    return 0


def _times(retrieved: TimedRun) -> dict[str, float]:
    return {"median_ms": round(retrieved.median_ms, 2), "p95_ms": round(retrieved.p95_ms, 2)}


def _say_missing(options: argparse.Namespace, dataset: Dataset, split: str, measured: Evaluation, n_identical: int) -> None:
    """Say on standard error what lowers the figures or was left out of them: queries without results, passages not there."""
    lines = []
    if measured.n_missing:
        lines.append(f"{measured.n_missing} judged queries have no results and count as 0")
    if n_identical:
        lines.append(
            f"{n_identical} of {measured.n_queries} queries found the passage with an id identical to their own; it is left "
            "out, as BEIR does. --keep-identical-ids counts it."
        )
    places = {dataset.name: dataset.missing_passages(split)}
    if options.index:
        places[str(options.index)] = _missing_in_index(options, dataset, split, {*places[dataset.name]})
    for place, missing in places.items():
        if missing:
            are = "1 judged passage is" if len(missing) == 1 else f"{len(missing)} judged passages are"
            lines.append(
                f"{are} not in {place}, such as {missing[0]!r}; no search can find it, which lowers the measures if it is "
                "relevant. Complete the passages, or remove the judgement."
            )
    for line in lines:
        print(f"colbert: {line}", file=sys.stderr)


def _missing_in_index(options: argparse.Namespace, dataset: Dataset, split: str, unknown: set[str]) -> list[str]:
    """Find judged passages that an index lacks, in one piece or cut into ``ID#1``, ``ID#2`` and so on."""
    with open_index(options.index, options.model) as index:
        ids = index.ids()
    there = {*ids, *(name.rpartition("#")[0] for name in ids)} | unknown
    judged = dict.fromkeys(passage for grades in dataset.qrels(split).values() for passage in grades)
    return [passage for passage in judged if passage not in there]


def _depth(options: argparse.Namespace) -> int:
    """The number of passages to ask a retriever for: one more for the query itself where it is in the corpus."""
    return int(options.k) + (not options.keep_identical_ids)


def _without_identical(
    options: argparse.Namespace, retrieved: TimedRun, qrels: Qrels, k: int | None = None
) -> tuple[TimedRun, int]:
    """Leave out what has the query's own id, and say how many queries found it."""
    if options.keep_identical_ids:
        return retrieved, 0
    run, n_identical = leave_out_identical_ids(retrieved.run, qrels, k)
    return retrieved._replace(run=run), n_identical


def _check_evaluation(options: argparse.Namespace, measures: Iterable[str]) -> None:
    """Check before the retrieval what would fail after it: measures, matplotlib, and files to write."""
    check_measures(measures)
    if options.mode != "maxsim" and not options.index:
        raise ValueError(f"--mode {options.mode} searches an index; name one with --index.")
    weights = options.weight or [None]
    for weight in weights:
        by_words(options.mode, weight, ())
    if len(weights) > 1:
        for name, given in (("out", options.out), ("plot", options.plot), ("compare", options.compare)):
            if given:
                raise ValueError(f"--{name} takes one run, and several weights give several; name one weight.")
        if options.per_query:
            raise ValueError("--per-query prints one run, and several weights give several; name one weight.")
    if options.plot:
        if not options.index:
            raise ValueError("--plot draws several configs of an index; name one with --index.")
        import_extra("matplotlib", "A plot", "matplotlib")
    for file in filter(None, (options.out, options.plot)):
        check_target(file)


def _print_evaluation(about: dict[str, Any], by_query: dict[str, dict[str, float]]) -> None:
    """Print the values of each query if there are any, the means, and a table beside what was published."""
    for query in next(iter(by_query.values()), {}):
        print(query, *(f"{values[query]:.4f}" for values in by_query.values()), sep="\t")
    for name, value in about.items():
        print(f"{name.replace('_', ' '):14} {f'{value:.4f}' if isinstance(value, float) else value}")
    published = {name: value for name, value in about.items() if name in PUBLISHED}
    if published:
        print_lines(["", *nanocolbert_table(published).split("\n")])


def _retrieve(options: argparse.Namespace, dataset: Dataset, queries: dict[str, str], qrels: Qrels) -> tuple[TimedRun, int]:
    """Ask the retriever that the options name, or read the run that they name.

    Returns:
        The run without what has the query's own id, and the number of queries that found it.
    """
    progress = wants_progress(options)
    if options.run_file:
        return _without_identical(options, TimedRun(read_run(options.run_file), 0.0, 0.0), qrels)
    if options.rerank:
        given = {query: scores for query, scores in read_run(options.rerank).items() if query in queries}
        (run, *_), n_identical = _without_identical(options, TimedRun(given, 0.0, 0.0), qrels)
        passages = dataset.get({name for scores in run.values() for name in scores})
        reranker = Reranker(load_encoder(options))
        return rerank_run(reranker, run, queries, passages, depth=options.depth, progress=progress), n_identical
    if options.index:
        with open_index(options.index, options.model) as index:
            by = {"mode": options.mode, "weight": _weight(options)}
            search = search_index(index, _depth(options), exact=options.exact, **by)
            retrieved = run_of(search, queries, progress=progress)
    elif options.ivfpq:
        retrieved = run_of(_search_ivfpq(options, options.ivfpq, _depth(options)), queries, progress=progress)
    else:
        bm25 = BM25.build(dataset.passages(), progress=progress)
        retrieved = run_of(lambda texts: bm25.search_many(texts, _depth(options)), queries, progress=progress)
    return _without_identical(options, retrieved, qrels, options.k)


def _weight(options: argparse.Namespace) -> float | None:
    """The one weight of ``--weight``; None without it."""
    return options.weight[0] if options.weight else None


def _points(index: IndexBase, queries: dict[str, str], qrels: Qrels, options: argparse.Namespace) -> Iterator[Point]:
    """Measure recall at 100 and time, for configs from a few passages scored up to all of them."""
    stats = index.stats()
    for config in ladder_of_configs(100, stats.windows)[::4]:
        search = search_index(index, 100 + 1, config=config, mode=options.mode, weight=_weight(options))
        retrieved = run_of(search, queries, progress=wants_progress(options))
        measured = evaluate(retrieved.run, qrels, ["Recall@100"], ignore_identical_ids=not options.keep_identical_ids)
        recall = measured.means["Recall@100"]
        yield Point("compressed" if stats.centroids else "exact", recall, retrieved.median_ms)


def run_pipeline(options: argparse.Namespace) -> int:
    """``colbert pipeline``."""
    pipeline.run_pipeline(
        options.data,
        options.out,
        preset=options.preset,
        base=options.base,
        split=options.split,
        n_negatives=options.negatives,
        language=options.language,
        trust_remote_code=options.trust_remote_code,
        say=lambda line: print(line, flush=True),
        progress=wants_progress(options),
        **_settings(options),
    )
    return 0


def _search_ivfpq(options: argparse.Namespace, folder: Path, k: int) -> Search:
    model = getattr(options, "model", None)  # `colbert ivfpq search` has no --model
    return search_engine(
        IVFPQ.open(folder, model),
        k,
        nprobe=options.nprobe,
        n_neighbours=options.neighbours,
        max_share=options.max_share,
    )


def _examples(data: str) -> tuple[Iterator[Example], list[Path]]:
    """Read training examples, and name the files they come from."""
    path = as_path(data)
    if path.is_file():
        return read_examples(path), [path]
    dataset = open_dataset(data)
    if not (path / TRIPLES).is_file():
        raise ValueError(f"{data} has no {TRIPLES}; find negatives for it with `colbert mine`, and train on that file.")
    return own_triples(dataset, path / TRIPLES), [path / TRIPLES]


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that were given in place of the preset's."""
    return {name: value for name in options.settings if (value := getattr(options, name)) is not None}

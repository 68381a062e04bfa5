"""Commands of training and evaluation. Their options are in ``training_options``, which needs no torch."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from colbert_core.cli.options import load_encoder, wants_progress
from colbert_core.cli.printing import print_lines
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
from colbert_core.evaluation.trec import read_run, write_run
from colbert_core.extras import import_extra
from colbert_core.index.index import Index
from colbert_core.paths import as_path
from colbert_core.rerank import Reranker
from colbert_core.search.config import ladder_of_configs
from colbert_core.search.lexical import by_words
from colbert_core.storage.durable import check_target
from colbert_core.train import ColBERT, Examples, configured, prepare, read_examples, train, write_examples

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from colbert_core.colbertv1.mining import SearchMany
    from colbert_core.evaluation.datasets import Dataset
    from colbert_core.evaluation.measures import Search
    from colbert_core.evaluation.trec import Qrels
    from colbert_core.model.encoder import Encoder
    from colbert_core.train import Example


def run_prepare(options: argparse.Namespace) -> int:
    """``colbert data prepare``."""
    config = configured(options.preset, _settings(options))
    model = ColBERT.from_pretrained(
        options.base, config, language=options.language, trust_remote_code=options.trust_remote_code
    )
    examples, sources = _examples(options.data)
    prepared = prepare(examples, model, options.out, sources=sources, progress=wants_progress(options))
    print(f"{len(prepared)} examples of {len(prepared.queries)} queries and {len(prepared.passages)} passages in {options.out}")
    return 0


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
        retrieved = run_of(search_index(index, 10), queries, progress=False)
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
        with Index.open(options.engine) as index:
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


def _search_checked(index: Index, texts: dict[str, str], options: argparse.Namespace) -> SearchMany:
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
    retrieved = run_of(_search_ivfpq(options, options.index), queries, progress=wants_progress(options))
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
    if baseline is not None:
        evaluate(baseline, qrels)  # it must have queries of this split
    if len(options.weight or ()) > 1:
        return _evaluate_weights(options, dataset.name, split, queries, qrels, measures)
    retrieved = _retrieve(options, dataset, queries)
    if options.out:
        write_run(options.out, retrieved.run, "colbert")
    measured = evaluate(retrieved.run, qrels, measures)
    about: dict[str, Any] = {"data": dataset.name, "split": split, "queries": measured.n_queries, **measured.means}
    if not options.run_file:
        about |= _times(retrieved)
    if folder := options.index or options.ivfpq:
        about["index_bytes"] = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    if baseline is not None:
        about["compared"] = asdict(compare(baseline, retrieved.run, qrels))
    if options.plot:
        with Index.open(options.index, options.model) as index:
            plot_recall_latency(list(_points(index, queries, qrels, options)), options.plot)
    by_query = measured.by_query if options.per_query else {}
    if options.json:
        print(json.dumps(about | ({"by_query": by_query} if by_query else {})))
    else:
        _print_evaluation(about, by_query)
    _say_missing(measured.n_missing)
    return 0


def _evaluate_weights(
    options: argparse.Namespace,
    data: str,
    split: str,
    queries: dict[str, str],
    qrels: Qrels,
    measures: Iterable[str],
) -> int:
    """Score an index by several weights of the words, and print a row for each."""
    rows: list[dict[str, Any]] = []
    with Index.open(options.index, options.model) as index:
        for weight in options.weight:
            search = search_index(index, options.k, exact=options.exact, mode=options.mode, weight=weight)
            retrieved = run_of(search, queries, progress=wants_progress(options))
            measured = evaluate(retrieved.run, qrels, measures)
            rows.append({"weight": weight, **measured.means, **_times(retrieved)})
    if options.json:
        print(json.dumps({"data": data, "split": split, "queries": measured.n_queries, "weights": rows}))
    else:
        print(f"data {data}, split {split}, {measured.n_queries} queries")
        widths = {name: max(len(name), 6) for name in rows[0]}
        print("  ".join(f"{name.replace('_', ' '):>{width}}" for name, width in widths.items()))
        for row in rows:
            cells = {name: f"{value:.4f}" if name in measured.means else f"{value:g}" for name, value in row.items()}
            print("  ".join(f"{cells[name]:>{width}}" for name, width in widths.items()))
    _say_missing(measured.n_missing)
    return 0


def _times(retrieved: TimedRun) -> dict[str, float]:
    return {"median_ms": round(retrieved.median_ms, 2), "p95_ms": round(retrieved.p95_ms, 2)}


def _say_missing(n_missing: int) -> None:
    if n_missing:
        print(f"colbert: {n_missing} judged queries have no results and count as 0", file=sys.stderr)


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


def _retrieve(options: argparse.Namespace, dataset: Dataset, queries: dict[str, str]) -> TimedRun:
    """Ask the retriever that the options name, or read the run that they name."""
    progress = wants_progress(options)
    if options.run_file:
        return TimedRun(read_run(options.run_file), 0.0, 0.0)
    if options.rerank:
        run = {query: scores for query, scores in read_run(options.rerank).items() if query in queries}
        passages = dataset.get({name for scores in run.values() for name in scores})
        return rerank_run(Reranker(load_encoder(options)), run, queries, passages, depth=options.depth, progress=progress)
    if options.index:
        with Index.open(options.index, options.model) as index:
            by = {"mode": options.mode, "weight": _weight(options)}
            return run_of(search_index(index, options.k, exact=options.exact, **by), queries, progress=progress)
    if options.ivfpq:
        return run_of(_search_ivfpq(options, options.ivfpq), queries, progress=progress)
    bm25 = BM25.build(dataset.passages(), progress=progress)
    return run_of(lambda texts: bm25.search_many(texts, options.k), queries, progress=progress)


def _weight(options: argparse.Namespace) -> float | None:
    """The one weight of ``--weight``; None without it."""
    return options.weight[0] if options.weight else None


def _points(index: Index, queries: dict[str, str], qrels: Qrels, options: argparse.Namespace) -> Iterator[Point]:
    """Measure recall at 100 and time, for configs from a few passages scored up to all of them."""
    stats = index.stats()
    for config in ladder_of_configs(100, stats.windows)[::4]:
        search = search_index(index, 100, config=config, mode=options.mode, weight=_weight(options))
        retrieved = run_of(search, queries, progress=wants_progress(options))
        recall = evaluate(retrieved.run, qrels, ["Recall@100"]).means["Recall@100"]
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


def _search_ivfpq(options: argparse.Namespace, folder: Path) -> Search:
    model = getattr(options, "model", None)  # `colbert ivfpq search` has no --model
    return search_engine(
        IVFPQ.open(folder, model),
        options.k,
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

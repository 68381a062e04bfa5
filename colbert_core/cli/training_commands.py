"""What the commands of training and evaluation do; ``training_options`` says what they take. They print, as ``cli`` does."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from colbert_core.rerank import Reranker
from colbert_core.search.config import ladder_of_configs
from colbert_core.storage.durable import check_target
from colbert_core.train import ColBERT, Examples, configured, prepare, read_examples, train, write_examples

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator

    from colbert_core.colbertv1.mining import SearchMany
    from colbert_core.evaluation.datasets import Dataset
    from colbert_core.evaluation.measures import Search
    from colbert_core.evaluation.trec import Qrels
    from colbert_core.model.encoder import Encoder
    from colbert_core.train import Example


def run_prepare(options: argparse.Namespace) -> int:
    """``colbert data prepare``."""
    config = configured(options.preset, _settings(options))
    model = ColBERT.from_pretrained(options.base, config, trust_remote_code=options.trust_remote_code)
    examples, sources = _examples(options.data)
    prepared = prepare(examples, model, options.out, sources=sources, progress=_bars(options))
    print(f"{len(prepared)} examples of {len(prepared.queries)} queries and {len(prepared.passages)} passages in {options.out}")
    return 0


def run_train(options: argparse.Namespace) -> int:
    """``colbert train``."""
    folder = Path(options.data)
    examples = Examples.open(folder) if (folder / "manifest.json").is_file() else _examples(options.data)[0]
    judge = None if options.eval is None else _judge(open_dataset(options.eval), options.eval_split)
    result = train(
        examples,
        options.base,
        out=options.out,
        preset=options.preset,
        evaluate=judge,
        progress=_bars(options),
        trust_remote_code=options.trust_remote_code,
        **_settings(options),
    )
    print(f"{result.last_step} steps, loss {result.loss:.4f}; the model of step {result.step} is {result.model}")
    return 0


def _judge(collection: Dataset, split: str | None) -> Callable[[Encoder], float]:
    check_measures(["nDCG@10"])
    split = split or ("dev" if "dev" in collection.splits else "test")
    queries, qrels, passages = collection.queries(split), collection.qrels(split), list(collection.passages())

    def ndcg(encoder: Encoder) -> float:
        index = Index.create(None, encoder)
        index.add(passages, progress=False)
        found = run_of(search_index(index, 10), queries, progress=False)
        return evaluate(found.run, qrels, ["nDCG@10"]).means["nDCG@10"]

    return ndcg


def run_mine(options: argparse.Namespace) -> int:
    """``colbert mine``."""
    collection = open_dataset(options.data)
    collection.check(options.split)
    qrels = collection.qrels(options.split)
    mining = {"ranks": tuple(options.ranks), "margin": options.margin, "seed": options.seed}
    if options.engine == "bm25":
        examples = mine_with_bm25(
            collection, qrels, options.negatives, triples=options.triples, progress=_bars(options), **mining
        )
        n = write_examples(examples, options.out)
    else:
        if options.triples:
            raise ValueError("--triples goes with --with bm25; train --preset colbertv1 takes an example's first negative.")
        with Index.open(options.engine) as index:
            texts = {passage.id: passage.text for passage in collection.passages()}
            n = write_examples(
                mine(
                    collection.queries(options.split),
                    qrels,
                    _searcher_of(index, texts, options),
                    lambda ids: [texts[name] for name in ids],
                    n_negatives=options.negatives,
                    progress=_bars(options),
                    **mining,
                ),
                options.out,
            )
    print(f"{n} examples in {options.out}")
    return 0


def _searcher_of(index: Index, texts: dict[str, str], options: argparse.Namespace) -> SearchMany:
    """How an index is searched that must be one of these passages."""
    search = searcher(index)

    def search_many(queries: list[str], k: int) -> list[list[tuple[str, float]]]:
        found = search(queries, k)
        if lost := [name for ranked in found for name, _ in ranked if name not in texts]:
            raise ValueError(
                f"{options.engine} holds the passage {lost[0]!r}, which is none of {options.data}; mine with an index of that."
            )
        return found

    return search_many


def run_encode(options: argparse.Namespace) -> int:
    """``colbert encode``."""
    collection = open_dataset(options.data)
    encoded = encode_collection(
        collection.passages(),
        _encoder(options),
        options.out,
        shard_passages=options.shard_passages,
        n_passages=collection.n_passages,
        progress=_bars(options),
    )
    print(f"{len(encoded)} passages, {encoded.n_tokens} vectors of dim {encoded.dim} in {options.out}")
    return 0


def run_ivfpq_build(options: argparse.Namespace) -> int:
    """``colbert ivfpq build``."""
    made = IVFPQ.build(
        options.vectors, options.out, nlist=options.nlist, m=options.m, sample=options.sample, progress=_bars(options)
    )
    print(f"{made!r} in {options.out}")
    return 0


def run_ivfpq_search(options: argparse.Namespace) -> int:
    """``colbert ivfpq search``."""
    check_target(options.out)
    queries = open_dataset(options.data).queries(options.split)
    found = run_of(_search_ivfpq(options, options.index), queries, progress=_bars(options))
    write_run(options.out, found.run, "IVFPQ")
    print(f"{len(found.run)} queries, median {found.median_ms:.1f} ms, 95 % within {found.p95_ms:.1f} ms; {options.out}")
    return 0


def run_evaluate(options: argparse.Namespace) -> int:
    """``colbert evaluate``."""
    measures = options.measures or DEFAULT_MEASURES
    _check_evaluation(options, measures)
    baseline = read_run(options.compare) if options.compare else None
    collection = open_dataset(options.data)
    split = options.split or pipeline.held_out_split(collection)
    queries, qrels = collection.queries(split), collection.qrels(split)
    if baseline is not None:
        evaluate(baseline, qrels)  # it must have queries of this split
    found = _found(options, collection, queries)
    if options.out:
        write_run(options.out, found.run, "colbert")
    measured = evaluate(found.run, qrels, measures)
    about: dict[str, Any] = {"data": collection.name, "split": split, "queries": measured.n_queries, **measured.means}
    if not options.run_file:
        about |= {"median_ms": round(found.median_ms, 2), "p95_ms": round(found.p95_ms, 2)}
    if folder := options.index or options.ivfpq:
        about["index_bytes"] = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    if baseline is not None:
        about["compared"] = asdict(compare(baseline, found.run, qrels))
    if options.plot:
        with Index.open(options.index, options.model) as index:
            plot_recall_latency(list(_points(index, queries, qrels, _bars(options))), options.plot)
    by_query = measured.by_query if options.per_query else {}
    if options.json:
        print(json.dumps(about | ({"by_query": by_query} if by_query else {})))
    else:
        _print_evaluation(about, by_query)
    if measured.n_missing:
        print(f"colbert: {measured.n_missing} judged queries have no results and count as 0", file=sys.stderr)
    return 0


def _check_evaluation(options: argparse.Namespace, measures: Iterable[str]) -> None:
    """What could go wrong after the retrieval."""
    check_measures(measures)
    if options.plot:
        if not options.index:
            raise ValueError("--plot draws several configs of an index; name one with --index.")
        import_extra("matplotlib", "A plot", "matplotlib")
    for file in filter(None, (options.out, options.plot)):
        check_target(file)


def _print_evaluation(about: dict[str, Any], by_query: dict[str, dict[str, float]]) -> None:
    for query in next(iter(by_query.values()), {}):
        print(query, *(f"{values[query]:.4f}" for values in by_query.values()), sep="\t")
    for name, value in about.items():
        print(f"{name.replace('_', ' '):14} {f'{value:.4f}' if isinstance(value, float) else value}")
    published = {name: value for name, value in about.items() if name in PUBLISHED}
    if published:
        print(f"\n{nanocolbert_table(published)}")


def _found(options: argparse.Namespace, collection: Dataset, queries: dict[str, str]) -> TimedRun:
    """What the retriever that the options name finds."""
    progress = _bars(options)
    if options.run_file:
        return TimedRun(read_run(options.run_file), 0.0, 0.0)
    if options.rerank:
        run = {query: scores for query, scores in read_run(options.rerank).items() if query in queries}
        passages = collection.get({name for scores in run.values() for name in scores})
        return rerank_run(Reranker(_encoder(options)), run, queries, passages, depth=options.depth, progress=progress)
    if options.index:
        with Index.open(options.index, options.model) as index:
            return run_of(search_index(index, options.k, exact=options.exact), queries, progress=progress)
    if options.ivfpq:
        return run_of(_search_ivfpq(options, options.ivfpq), queries, progress=progress)
    bm25 = BM25.build(collection.passages(), progress=progress)
    return run_of(lambda texts: bm25.search_many(texts, options.k), queries, progress=progress)


def _points(index: Index, queries: dict[str, str], qrels: Qrels, progress: bool | None) -> Iterator[Point]:
    """Judged recall at 100 and time, from a glance to every passage."""
    stats = index.stats()
    for config in ladder_of_configs(100, stats.windows)[::4]:
        found = run_of(search_index(index, 100, config=config), queries, progress=progress)
        recall = evaluate(found.run, qrels, ["Recall@100"]).means["Recall@100"]
        yield Point("compressed" if stats.centroids else "exact", recall, found.median_ms)


def run_pipeline(options: argparse.Namespace) -> int:
    """``colbert pipeline``."""
    pipeline.run_pipeline(
        options.data,
        options.out,
        preset=options.preset,
        base=options.base,
        split=options.split,
        n_negatives=options.negatives,
        trust_remote_code=options.trust_remote_code,
        say=lambda line: print(line, flush=True),
        progress=_bars(options),
        **_settings(options),
    )
    return 0


def _search_ivfpq(options: argparse.Namespace, folder: Path) -> Search:
    model = getattr(options, "model", None)
    return search_engine(
        IVFPQ.open(folder, model),
        options.k,
        nprobe=options.nprobe,
        n_neighbours=options.neighbours,
        max_share=options.max_share,
    )


def _examples(data: str) -> tuple[Iterator[Example], list[Path]]:
    """Training examples and the files they come from."""
    path = Path(data)
    if path.is_file():
        return read_examples(path), [path]
    collection = open_dataset(data)
    if not (path / TRIPLES).is_file():
        raise ValueError(f"{data} has no {TRIPLES}; find negatives for it with `colbert mine`, and train on that file.")
    return own_triples(collection, path / TRIPLES), [path / TRIPLES]


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """What was given in place of the preset's."""
    return {name: value for name in options.settings if (value := getattr(options, name)) is not None}


def _bars(options: argparse.Namespace) -> bool | None:
    return False if options.quiet else None


def _encoder(options: argparse.Namespace) -> Encoder:
    from colbert_core.model.encoder import Encoder

    return Encoder.from_pretrained(options.model, device=options.device, trust_remote_code=options.trust_remote_code)

"""Options of the commands of training and evaluation. ``training_commands`` imports torch, and is imported when one runs."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from colbert_core.cli.options import add_mode, add_model, quiet_option
from colbert_core.paths import as_path
from colbert_core.search.modes import HYBRID_WEIGHT

if TYPE_CHECKING:
    import argparse

    from colbert_core.cli.options import Command, Group, Run

_COLLECTION = """\
DATA is a BEIR folder (corpus.jsonl, queries.jsonl, qrels/*.tsv), an MS MARCO folder (collection.tsv, queries.*.tsv,
qrels.*.tsv, triples.train.small.tsv), or irds:NAME for a data set of ir-datasets, which is downloaded.
"""
_PREPARE = f"""\
Tokenize training examples into memory-mapped arrays, once. {_COLLECTION}It may also be a file of examples: JSON lines with
"query", "positive", "negatives" and "scores", or tab-separated query, positive and negatives; .gz and .xz as well.
"""
_TRAIN = """\
Train a ColBERT model. DATA is what `colbert data prepare` made, a file of examples, or a collection with triples of its own.
Called again after an interruption it goes on. The finished checkpoint is OUT/model. A preset fixes loss, lengths and optimiser:
colbertv1 is that of ColBERT (SIGIR 2020) and nanoColBERT, colbertv2 that of ColBERTv2 (NAACL 2022).
"""
_MINE = f"""\
Write training examples with hard negatives: what BM25 or an index ranks high and nobody judged relevant. {_COLLECTION}"""
_ENCODE = f"""\
Write the token vectors of a collection as float16, a shard at a time. Goes on after an interruption. {_COLLECTION}"""
_EVALUATE = f"""\
Score a retriever on a collection. {_COLLECTION}Without another option BM25 is scored."""
_PIPELINE = f"""\
All of ColBERTv1 in one command: mine triples with BM25, train, encode, build a FAISS IVFPQ index, retrieve, score, with the
time of each step. Finished steps are skipped when it is called again. OUT/training/model is a checkpoint like any other.
{_COLLECTION}Without a split "train" the queries are divided 80 to 20.
"""

# Options that set a field of TrainConfig: name, type, and help; None for "in place of the preset's".
_SETTINGS: tuple[tuple[str, type, str | None], ...] = (
    ("loss", str, "pairwise, in-batch, distillation, distillation+in-batch"),
    ("steps", int, "most steps; one epoch has no more"),
    ("epochs", int, None),
    ("batch-size", int, None),
    ("accumulation", int, "batches for each step"),
    ("chunk-size", int, "texts at a time, with cached gradients: memory no longer limits the batch"),
    ("learning-rate", float, None),
    ("head-learning-rate", float, "of the projection, where it should learn faster than the rest"),
    ("schedule", str, "constant, linear, cosine"),
    ("warmup-steps", int, None),
    ("query-length", int, "tokens"),
    ("passage-length", int, "tokens"),
    ("dim", int, "of the vectors, where the base has no projection"),
    ("vector-noise", float, "added to passage vectors, for indexes of few bits; .02 is as much as 2 bits"),
    ("precision", str, "no, bf16, fp16"),
    ("checkpoint-every", int, "steps"),
    ("patience", int, "evaluations without a better one before training stops"),
    ("seed", int, None),
)


def add_training_commands(command: Command, group: Group) -> None:
    """Add ``colbert data``, ``train``, ``mine``, ``encode``, ``ivfpq``, ``evaluate`` and ``pipeline``."""
    quiet = quiet_option()
    data = group("data", "training data")
    prepare = data("prepare", _later("run_prepare"), "tokenize training examples", quiet, about=_PREPARE)
    prepare.add_argument("data", metavar="DATA")
    prepare.add_argument("--out", required=True, type=as_path, metavar="DIR")
    _add_training_options(prepare)

    train = command("train", _later("run_train"), "train a model", quiet, about=_TRAIN)
    train.add_argument("data", metavar="DATA")
    train.add_argument("--out", required=True, type=as_path, metavar="DIR")
    _add_training_options(train)
    train.add_argument("--eval", metavar="DATA", help="a collection whose nDCG@10 by exact search chooses the best checkpoint")
    train.add_argument("--eval-split", help="of that collection (default: dev, or test)")

    mine = command("mine", _later("run_mine"), "find hard negatives", quiet, about=_MINE)
    mine.add_argument("data", metavar="DATA")
    mine.add_argument("--out", required=True, type=as_path, metavar="FILE", help="a .jsonl file, perhaps .gz or .xz")
    mine.add_argument("--split", default="train", help="whose judgements (default: train)")
    mine.add_argument("--with", dest="engine", default="bm25", metavar="INDEX", help="bm25 (default) or an index folder")
    mine.add_argument("--negatives", type=int, default=10, help="for each judged pair (default: 10)")
    mine.add_argument("--ranks", type=int, nargs=2, default=(10, 100), metavar=("FIRST", "LAST"), help="default: 10 100")
    mine.add_argument("--margin", type=float, help="drop candidates that score above MARGIN times the positive")
    mine.add_argument("--triples", action="store_true", help="an example for each negative")
    mine.add_argument("--seed", type=int, default=12345)

    encode = command("encode", _later("run_encode"), "write a collection's vectors", quiet, about=_ENCODE)
    encode.add_argument("data", metavar="DATA")
    encode.add_argument("--out", required=True, type=as_path, metavar="DIR")
    add_model(encode)
    encode.add_argument("--shard-passages", type=int, default=25_000, help="passages in a file (default: 25000)")

    ivfpq = group("ivfpq", "ColBERTv1's index: FAISS IVFPQ, then exact MaxSim")
    build = ivfpq("build", _later("run_ivfpq_build"), "index vectors that `colbert encode` wrote", quiet)
    build.add_argument("vectors", type=as_path, metavar="VECTORS")
    build.add_argument("--out", required=True, type=as_path, metavar="DIR")
    build.add_argument("--nlist", type=int, help="inverted lists (default: 4 times the root of the number of vectors)")
    build.add_argument("--m", type=int, default=16, help="bytes of a vector (default: 16)")
    build.add_argument("--sample", type=float, default=0.3, help="share of the vectors to train on (default: 0.3)")
    search = ivfpq("search", _later("run_ivfpq_search"), "retrieve for the queries of a collection, into a run file", quiet)
    search.add_argument("index", type=as_path, metavar="INDEX")
    search.add_argument("data", metavar="DATA")
    search.add_argument("--out", required=True, type=as_path, metavar="RUN")
    search.add_argument("--split", help="whose queries (default: all)")
    search.add_argument("-k", type=int, default=1000, help="passages of each query (default: 1000)")
    _add_ivfpq_options(search)

    evaluate = command("evaluate", _later("run_evaluate"), "score a retriever", quiet, about=_EVALUATE)
    evaluate.add_argument("data", metavar="DATA")
    retriever = evaluate.add_mutually_exclusive_group()
    retriever.add_argument("--index", type=as_path, help="of this package")
    retriever.add_argument("--ivfpq", type=as_path, metavar="INDEX")
    retriever.add_argument("--run", type=as_path, dest="run_file", help="a TREC run file of any system")
    retriever.add_argument("--rerank", type=as_path, metavar="RUN", help="a run file whose best passages are reranked")
    retriever.add_argument("--bm25", action="store_true", help="the default")
    add_model(evaluate)
    evaluate.add_argument("--exact", action="store_true", help="with --index: score every passage")
    add_mode(evaluate, "with --index: ")
    evaluate.add_argument(
        "--weight",
        type=float,
        nargs="+",
        metavar="W",
        help=f"of the words in --mode hybrid, 0 to 1 (default: {HYBRID_WEIGHT:g} or more, by the words); several "
        "give a row each",
    )
    evaluate.add_argument("--split", help="default: test, or the first of dev, dev.small, validation")
    evaluate.add_argument("-k", type=int, default=1000, help="passages of each query (default: 1000)")
    evaluate.add_argument("--depth", type=int, default=100, help="with --rerank: passages of each query (default: 100)")
    evaluate.add_argument("--measures", nargs="+", metavar="MEASURE", help="such as nDCG@10, MRR@10, Recall@50, Success@5")
    evaluate.add_argument(
        "--keep-identical-ids",
        action="store_true",
        help="count a passage with the query's own id, which is left out as BEIR does, unless it is judged relevant",
    )
    evaluate.add_argument("--per-query", action="store_true", help="print the values of every query")
    evaluate.add_argument(
        "--compare", type=as_path, metavar="RUN", help="a run file to compare with, by paired tests of nDCG@10"
    )
    evaluate.add_argument("--out", type=as_path, metavar="RUN", help="write what was retrieved")
    evaluate.add_argument(
        "--plot", type=as_path, metavar="FILE", help="with --index: recall and time of several configs, a picture"
    )
    evaluate.add_argument("--json", action="store_true", help="print JSON for programs")
    _add_ivfpq_options(evaluate)

    pipeline = command("pipeline", _later("run_pipeline"), "from raw files to a table of scores", quiet, about=_PIPELINE)
    pipeline.add_argument("data", metavar="DATA")
    pipeline.add_argument("--out", required=True, type=as_path, metavar="DIR")
    _add_training_options(pipeline, preset="colbertv1")
    pipeline.add_argument("--split", help="to score on (default: test, or the first of dev, dev.small, validation)")
    pipeline.add_argument("--negatives", type=int, default=4, help="mined for each judged pair (default: 4)")


def _add_training_options(parser: argparse.ArgumentParser, preset: str = "colbertv2") -> None:
    parser.add_argument("--preset", choices=("colbertv1", "colbertv2"), default=preset, help=f"default: {preset}")
    parser.add_argument("--base", help="checkpoint folder or hub name to begin with (default: the model in the box)")
    parser.add_argument("--language", help="language whose layers are trained, for a base that has some for each")
    parser.add_argument("--trust-remote-code", action="store_true", help="run code that comes with the base")
    for name, kind, text in _SETTINGS:
        names = ("--max-steps", "--steps") if name == "steps" else (f"--{name}",)
        parser.add_argument(*names, dest=_field(name), type=kind, help=text or "in place of the preset's")
    parser.set_defaults(settings=tuple(_field(name) for name, _, _ in _SETTINGS))


def _field(name: str) -> str:
    """Name the field of ``TrainConfig`` that an option sets."""
    return name.replace("-", "_")


def _add_ivfpq_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nprobe", type=int, default=32, help="of IVFPQ: lists read for each query vector (default: 32)")
    parser.add_argument("--neighbours", type=int, default=1024, help="of IVFPQ: vectors for each query vector (default: 1024)")
    parser.add_argument("--max-share", type=float, default=0.1, help="of IVFPQ: most passages scored exactly (default: 0.1)")


def _later(name: str) -> Run:
    """Return a function that imports ``training_commands`` when it is called, and calls the function of this name there."""

    def run(options: argparse.Namespace) -> int:
        code: int = getattr(importlib.import_module("colbert_core.cli.training_commands"), name)(options)
        return code

    return run

"""What the commands of training and evaluation take. ``training_commands``, which needs torch, is imported when one runs."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    Run = Callable[[argparse.Namespace], int]

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


class Command(Protocol):
    """Makes a command of its name, what runs it, help, what it inherits and a description."""

    def __call__(  # noqa: D102
        self, name: str, run: Run, help_: str, *parents: argparse.ArgumentParser, about: str = ""
    ) -> argparse.ArgumentParser: ...


def add_commands(command: Command, group: Callable[[str, str], Command], quiet: argparse.ArgumentParser) -> None:
    """Add the commands to a parser.

    Args:
        command: makes a command.
        group: makes a command that has commands of its own, of its name and help.
        quiet: the option --quiet.
    """
    one = group("data", "training data")("prepare", _later("run_prepare"), "tokenize training examples", quiet, about=_PREPARE)
    one.add_argument("data", metavar="DATA")
    one.add_argument("--out", required=True, type=Path, metavar="DIR")
    _add_training_options(one)

    one = command("train", _later("run_train"), "train a model", quiet, about=_TRAIN)
    one.add_argument("data", metavar="DATA")
    one.add_argument("--out", required=True, type=Path, metavar="DIR")
    _add_training_options(one)
    one.add_argument("--eval", metavar="DATA", help="a collection whose nDCG@10 by exact search chooses the best checkpoint")
    one.add_argument("--eval-split", help="of that collection (default: dev, or test)")

    one = command("mine", _later("run_mine"), "find hard negatives", quiet, about=_MINE)
    one.add_argument("data", metavar="DATA")
    one.add_argument("--out", required=True, type=Path, metavar="FILE", help="a .jsonl file, perhaps .gz or .xz")
    one.add_argument("--split", default="train", help="whose judgements (default: train)")
    one.add_argument("--with", dest="engine", default="bm25", metavar="INDEX", help="bm25 (default) or an index folder")
    one.add_argument("--negatives", type=int, default=10, help="for each judged pair (default: 10)")
    one.add_argument("--ranks", type=int, nargs=2, default=(10, 100), metavar=("FIRST", "LAST"), help="default: 10 100")
    one.add_argument("--margin", type=float, help="drop candidates that score above MARGIN times the positive")
    one.add_argument("--triples", action="store_true", help="an example for each negative")
    one.add_argument("--seed", type=int, default=12345)

    one = command("encode", _later("run_encode"), "write a collection's vectors", quiet, about=_ENCODE)
    one.add_argument("data", metavar="DATA")
    one.add_argument("--out", required=True, type=Path, metavar="DIR")
    _add_model(one)
    one.add_argument("--shard-passages", type=int, default=25_000, help="passages in a file (default: 25000)")

    ivfpq = group("ivfpq", "ColBERTv1's index: FAISS IVFPQ, then exact MaxSim")
    one = ivfpq("build", _later("run_ivfpq_build"), "index vectors that `colbert encode` wrote", quiet)
    one.add_argument("vectors", type=Path, metavar="VECTORS")
    one.add_argument("--out", required=True, type=Path, metavar="DIR")
    one.add_argument("--nlist", type=int, help="inverted lists (default: 4 times the root of the number of vectors)")
    one.add_argument("--m", type=int, default=16, help="bytes of a vector (default: 16)")
    one.add_argument("--sample", type=float, default=0.3, help="share of the vectors to train on (default: 0.3)")
    one = ivfpq("search", _later("run_ivfpq_search"), "retrieve for the queries of a collection, into a run file", quiet)
    one.add_argument("index", type=Path, metavar="INDEX")
    one.add_argument("data", metavar="DATA")
    one.add_argument("--out", required=True, type=Path, metavar="RUN")
    one.add_argument("--split", help="whose queries (default: all)")
    one.add_argument("-k", type=int, default=1000, help="passages of each query (default: 1000)")
    _add_ivfpq_options(one)

    one = command("evaluate", _later("run_evaluate"), "score a retriever", quiet, about=_EVALUATE)
    one.add_argument("data", metavar="DATA")
    what = one.add_mutually_exclusive_group()
    what.add_argument("--index", type=Path, help="of this package")
    what.add_argument("--ivfpq", type=Path, metavar="INDEX")
    what.add_argument("--run", type=Path, dest="run_file", help="a TREC run file of any system")
    what.add_argument("--rerank", type=Path, metavar="RUN", help="a run file whose best passages are reranked")
    what.add_argument("--bm25", action="store_true", help="the default")
    _add_model(one)
    one.add_argument("--exact", action="store_true", help="with --index: score every passage")
    one.add_argument("--split", help="default: test, or the first of dev, dev.small, validation")
    one.add_argument("-k", type=int, default=1000, help="passages of each query (default: 1000)")
    one.add_argument("--depth", type=int, default=100, help="with --rerank: passages of each query (default: 100)")
    one.add_argument("--measures", nargs="+", metavar="MEASURE", help="such as nDCG@10, MRR@10, Recall@50, Success@5")
    one.add_argument("--per-query", action="store_true", help="print the values of every query")
    one.add_argument("--compare", type=Path, metavar="RUN", help="a run file to compare with, by paired tests of nDCG@10")
    one.add_argument("--out", type=Path, metavar="RUN", help="write what was retrieved")
    one.add_argument("--plot", type=Path, metavar="FILE", help="with --index: recall and time of several configs, a picture")
    one.add_argument("--json", action="store_true", help="print JSON for programs")
    _add_ivfpq_options(one)

    one = command("pipeline", _later("run_pipeline"), "from raw files to a table of scores", quiet, about=_PIPELINE)
    one.add_argument("data", metavar="DATA")
    one.add_argument("--out", required=True, type=Path, metavar="DIR")
    _add_training_options(one, preset="colbertv1")
    one.add_argument("--split", help="to score on (default: test, or the first of dev, dev.small, validation)")
    one.add_argument("--negatives", type=int, default=4, help="mined for each judged pair (default: 4)")


def _add_training_options(parser: argparse.ArgumentParser, preset: str = "colbertv2") -> None:
    parser.add_argument("--preset", choices=("colbertv1", "colbertv2"), default=preset, help=f"default: {preset}")
    parser.add_argument("--base", help="checkpoint folder or hub name to begin with (default: the model in the box)")
    parser.add_argument("--trust-remote-code", action="store_true", help="run code that comes with the base")
    for name, kind, text in (
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
    ):
        names = ("--max-steps", "--steps") if name == "steps" else (f"--{name}",)
        parser.add_argument(*names, dest=name.replace("-", "_"), type=kind, help=text or "in place of the preset's")
    parser.set_defaults(settings=("loss", "steps", "epochs", "batch_size", "accumulation", "chunk_size", "learning_rate",
        "head_learning_rate", "schedule", "warmup_steps", "query_length", "passage_length", "dim", "vector_noise",
        "precision", "checkpoint_every", "patience", "seed"))  # fmt: skip


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="checkpoint folder or hub name (default: the model in the box)")
    parser.add_argument("--device", help="cpu, cuda, mps (default: the best one present)")
    parser.add_argument("--trust-remote-code", action="store_true", help="run code that comes with the checkpoint")


def _add_ivfpq_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nprobe", type=int, default=32, help="of IVFPQ: lists read for each query vector (default: 32)")
    parser.add_argument("--neighbours", type=int, default=1024, help="of IVFPQ: vectors for each query vector (default: 1024)")
    parser.add_argument("--max-share", type=float, default=0.1, help="of IVFPQ: most passages scored exactly (default: 0.1)")


def _later(name: str) -> Run:
    def run(options: argparse.Namespace) -> int:
        code: int = getattr(importlib.import_module("colbert_core.cli.training_commands"), name)(options)
        return code

    return run

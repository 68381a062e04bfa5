"""Test sets, measures and the BM25 baseline."""

from colbert_core.evaluation.bm25 import BM25
from colbert_core.evaluation.datasets import Dataset, open_dataset
from colbert_core.evaluation.measures import (
    Comparison,
    Evaluation,
    TimedRun,
    compare,
    evaluate,
    rerank_run,
    run_of,
    search_engine,
    search_index,
)
from colbert_core.evaluation.trec import Qrels, Run, leave_out_identical_ids, read_qrels, read_run, write_run

__all__ = [
    "BM25",
    "Comparison",
    "Dataset",
    "Evaluation",
    "Qrels",
    "Run",
    "TimedRun",
    "compare",
    "evaluate",
    "leave_out_identical_ids",
    "open_dataset",
    "read_qrels",
    "read_run",
    "rerank_run",
    "run_of",
    "search_engine",
    "search_index",
    "write_run",
]

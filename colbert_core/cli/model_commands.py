"""Commands of a model alone, without an index: ``colbert rerank`` and ``colbert inspect``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import colbert_core
from colbert_core.cli.options import add_device, load_encoder, model_options, wants_progress
from colbert_core.cli.printing import as_json, hit_as_line, print_lines
from colbert_core.cli.reading import read_passages
from colbert_core.paths import as_path
from colbert_core.values import hit_as_json

if TYPE_CHECKING:
    import argparse

    from colbert_core.cli.options import Command

_RERANK = """\
Read passages from FILE or standard input, one per line, and print them best first. A line is plain text, or a JSON object
with "text" and optionally "id" and "metadata". Lines without an id are named by their number, from 1.
"""

_INSPECT = """\
Print the recipe of a checkpoint as it was read from its files: backbone, lengths, markers with their ids, augmentation,
skipped tokens, similarity, and the tokens of an example.
"""


def add_rerank_command(command: Command) -> None:
    """Add ``colbert rerank``."""
    rerank = command("rerank", _rerank, "order passages by a query", model_options(), about=_RERANK)
    rerank.add_argument("query")
    rerank.add_argument("file", nargs="?", type=as_path, metavar="FILE", help="- for standard input, which is the default")
    rerank.add_argument("--top-n", type=int, metavar="N", help="print the best N (default: all)")


def add_inspect_command(command: Command) -> None:
    """Add ``colbert inspect``."""
    inspect = command("inspect", _inspect, "show how a model reads texts", about=_INSPECT)
    inspect.add_argument("model", nargs="?", help="checkpoint folder, .dnn file or hub name (default: the model in the box)")
    add_device(inspect)
    inspect.add_argument("--json", action="store_true", help="print a JSON object for programs")


def _rerank(options: argparse.Namespace) -> int:
    from colbert_core.documents.plain import read_text

    if options.file is None or str(options.file) == "-":
        passages = list(read_passages(sys.stdin.readlines(), "standard input"))
    else:
        passages = list(read_passages(read_text(options.file).split("\n"), str(options.file)))
    reranker = colbert_core.Reranker(load_encoder(options))
    for hit in reranker.rank(options.query, passages, options.top_n, progress=wants_progress(options)):
        print(as_json(hit_as_json(hit)) if options.json else hit_as_line(hit))
    return 0


def _inspect(options: argparse.Namespace) -> int:
    encoder = load_encoder(options)
    print_lines([as_json(encoder.describe())] if options.json else repr(encoder).split("\n"))
    return 0

"""Commands that search an index, change it and check it."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import colbert_core
from colbert_core.cli.options import (
    add_mode,
    add_where,
    add_words,
    json_option,
    load_named_encoder,
    model_options,
    quiet_option,
    read_where,
    read_words,
    wants_progress,
)
from colbert_core.cli.printing import (
    as_json,
    evidence_as_lines,
    hit_as_line,
    passage_as_block,
    print_lines,
    stats_as_sentence,
)
from colbert_core.cli.reading import index_place
from colbert_core.cli.reading import open_index as _open
from colbert_core.paths import as_path
from colbert_core.search.modes import HYBRID_WEIGHT
from colbert_core.values import hit_as_json, stats_as_json

if TYPE_CHECKING:
    import argparse

    from colbert_core import Index
    from colbert_core.cli.options import Command
    from colbert_core.cluster import ShardedIndex
    from colbert_core.types import Mode

_SEARCH = """\
Print the passages of an index that match a question best, one a line: rank, score, relevance (the score for each vector of the
question, from 0 to 1), name in brackets, and the beginning of the part that matches. With --json each is an object that has the
whole text and the metadata. With --mode hybrid the coverage stands behind the relevance: how much of the question's words the
passage has, from 0 to 1; relevance + weight * coverage ranks. With --mode words only passages that have a word of the question
are found, and the coverage stands in place of score and relevance.
"""

_EXPLAIN = """\
Show the passages that a search finds with the words that match the query: in colour on a terminal (brackets elsewhere), or as
an HTML page that needs nothing else. With --id it shows those passages, found or not.
"""

_VERIFY = """\
Check every checksum of an index, that its parts fit together, and what part of the 10 best passages a plain search finds.
The exit code is 1 if something is wrong.
"""

_IMPORT = """\
Make an index folder of one that Stanford ColBERT, RAGatouille or fast-plaid built, with its codes and residuals: nothing is
encoded again. RAGatouille keeps the texts; for the others name the collection they were made of.
"""


# Ids that nobody has and that are looked up in the metadata.
_MOST_HINTS = 3


def add_index_commands(command: Command) -> None:
    """Add ``colbert search``, ``explain``, ``delete``, ``stats``, ``verify`` and ``compact``."""
    search = command("search", _search, "search an index", model_options(), about=_SEARCH)
    search.add_argument("index", type=index_place)
    search.add_argument("query")
    search.add_argument("-k", type=int, default=10, help="passages to find (default: 10)")
    add_where(search, """only passages with such metadata: '{"year": {"$gte": 2020}}'""")
    add_mode(search)
    search.add_argument(
        "--weight",
        type=float,
        metavar="W",
        help=f"of the coverage in --mode hybrid, from 0 to 1 (default: {HYBRID_WEIGHT:g} or more, by the words)",
    )
    search.add_argument("--exact", action="store_true", help="score every passage")
    search.add_argument("--explain", action="store_true", help="show which words matched")
    search.add_argument("--full", action="store_true", help="print whole passages with their metadata")

    explain = command("explain", _explain, "show which words of passages match a query", model_options(), about=_EXPLAIN)
    explain.add_argument("index", type=index_place)
    explain.add_argument("query")
    explain.add_argument("-k", type=int, default=3, help="passages to find (default: 3)")
    explain.add_argument("--id", action="append", metavar="ID", help="this passage instead (may be repeated)")
    add_mode(explain)
    explain.add_argument("--html", type=as_path, metavar="FILE", help="write an HTML page")

    delete = command("delete", _delete, "delete passages from an index", json_option())
    delete.add_argument("index", type=index_place)
    delete.add_argument("ids", nargs="*", metavar="ID")
    add_where(delete, """every passage with such metadata: '{"source": "docs/cats.md"}'""")

    stats = command("stats", _stats, "show the figures of an index", json_option())
    stats.add_argument("index", type=index_place)

    verify = command("verify", _verify, "check an index for damage", json_option(), quiet_option(), about=_VERIFY)
    verify.add_argument("index", type=Path)

    compact = command("compact", _compact, "put an index into one piece and give room back", json_option(), quiet_option())
    compact.add_argument("index", type=Path)


def add_import_command(command: Command) -> None:
    """Add ``colbert import``."""
    import_ = command("import", _import, "make an index of another library's", model_options(), about=_IMPORT)
    import_.add_argument("old", type=as_path, metavar="OLD", help="its folder")
    import_.add_argument("--out", required=True, type=as_path, metavar="INDEX", help="the folder to make")
    add_words(import_)
    import_.add_argument("--collection", type=as_path, metavar="FILE", help="its texts by number, .tsv or .jsonl")


# Search it


def _search(options: argparse.Namespace) -> int:
    with _open(options.index, load_named_encoder(options)) as index:
        where = read_where(options)
        hits = index.search(
            options.query,
            options.k,
            where=where,
            exact=options.exact,
            evidence=options.explain,
            mode=options.mode,
            weight=options.weight,
        )
        if not hits:
            _say_nothing_found(index, where, options.mode)
    for hit in hits:
        print(as_json(hit_as_json(hit)) if options.json else hit_as_line(hit, options.mode))
        if options.full and not options.json:
            print_lines(passage_as_block(hit.passage))
    return 0


def _say_nothing_found(index: Index | ShardedIndex, where: dict[str, Any] | None = None, mode: Mode = "maxsim") -> None:
    """Say why a search has no lines, which looks like a command that has done nothing."""
    if not len(index):
        reason = "The index has no passages; `colbert add` adds files."
    elif where is not None and not index.ids(where):
        reason = "No passage matches --where."
    elif mode == "words":
        reason = "No passage has a word of the question; --mode hybrid and maxsim find passages by meaning."
    else:
        reason = "No passage has a text to be found by."
    print(f"colbert: {reason}", file=sys.stderr)


def _explain(options: argparse.Namespace) -> int:
    with _open(options.index, load_named_encoder(options)) as index:
        if options.id:
            explained = [index.explain(options.query, passage_id, mode=options.mode) for passage_id in options.id]
        else:
            hits = index.search(options.query, options.k, evidence=True, mode=options.mode)
            explained = [hit.evidence for hit in hits if hit.evidence is not None]
        if not explained:
            _say_nothing_found(index)
    if options.html is not None:
        from colbert_core.evidence.evidence import as_page

        options.html.write_text(as_page(explained, options.query), encoding="utf-8")
        n = len(explained)
        print(json.dumps({"written": str(options.html)}) if options.json else f"{options.html} has {n} passages.")
        return 0
    for number, evidence in enumerate(explained, 1):
        if options.json:
            print(as_json({"id": evidence.passage_id, **evidence.to_dict()}))
        else:
            print_lines(evidence_as_lines(evidence, number))
    return 0


# Change it


def _delete(options: argparse.Namespace) -> int:
    where = read_where(options)
    if (where is None) == (not options.ids):
        raise ValueError("Name the passages by their ids, or by --where; one of them.")
    if where == {}:
        raise ValueError(
            "--where '{}' means every passage; make the index anew with colbert index --overwrite, or name a field."
        )
    hints = []
    with _open(options.index) as index:
        if where is None:
            known = index.get(options.ids)
            unknown = [passage_id for passage_id, passage in zip(options.ids, known, strict=True) if passage is None]
            hints = _hints_at_where(index, list(dict.fromkeys(unknown)))
        n_deleted = index.delete(options.ids) if where is None else index.delete_where(where)
    for hint in hints:
        print(f"colbert: {hint}", file=sys.stderr)
    print(json.dumps({"deleted": n_deleted}) if options.json else f"{n_deleted} passages deleted.")
    return 0


def _hints_at_where(index: Index | ShardedIndex, unknown: list[str]) -> list[str]:
    """Say how passages are deleted by what their metadata say, where an id that none has is a name such as that of a file."""
    from colbert_core.index.advice import name_in_a_filter

    hints = []
    for passage_id in unknown[:_MOST_HINTS]:
        fields = index._survey([], passage_id).equal
        if not fields:
            continue
        path, n = max(fields.items(), key=lambda entry: entry[1])
        name = name_in_a_filter(path)
        where = shlex.quote(as_json({name: passage_id}))
        have = "1 passage has" if n == 1 else f"{n} passages have"
        hints.append(f"No passage has the id {passage_id!r}; {have} {name} = {passage_id!r}: delete by --where {where}.")
    if unknown and not hints:
        others = f", nor {len(unknown) - 1} others of these ids" if len(unknown) > 1 else ""
        example = """--where '{"source": "docs/cats.md"}'"""
        hints.append(f"No passage has the id {unknown[0]!r}{others}; by metadata they are deleted like this: {example}.")
    return hints


def _compact(options: argparse.Namespace) -> int:
    with _open(options.index) as index:
        index.compact(progress=wants_progress(options))
        stats = index.stats()
    print(json.dumps(stats_as_json(stats)) if options.json else stats_as_sentence(stats))
    return 0


# Describe and check it


def _stats(options: argparse.Namespace) -> int:
    with _open(options.index) as index:
        figures = stats_as_json(index.stats())
    if options.json:
        print(json.dumps(figures))
    else:
        print_lines(f"{name.replace('_', ' '):16} {value}" for name, value in figures.items())
    return 0


def _verify(options: argparse.Namespace) -> int:
    with _open(options.index) as index:
        verified = index.verify(progress=wants_progress(options))
    if options.json:
        print(json.dumps({"ok": verified.ok, **asdict(verified)}))
    elif not verified.ok:
        print_lines(verified.problems)
    else:
        sampled = f"({verified.queries} samples)"
        recall = "" if verified.recall is None else f" A search finds {verified.recall:.1%} of the 10 best {sampled}."
        unchecked = f" {verified.unchecked} texts have no checksums before the next change." if verified.unchecked else ""
        print(f"No damage.{recall}{unchecked}")
    return 0 if verified.ok else 1


# Take over an index of another library


def _import(options: argparse.Namespace) -> int:
    from colbert_core.documents.records import read_collection

    texts = None if options.collection is None else read_collection(options.collection)
    foreign = colbert_core.read_foreign_index(options.old, texts)
    encoder = load_named_encoder(options)
    with colbert_core.Index.convert(
        foreign, options.out, encoder, words=read_words(options), progress=wants_progress(options)
    ) as index:
        stats = index.stats()
    if texts is None and foreign.kind != "RAGatouille":
        print(f"colbert: {foreign.kind} keeps no texts, so the passages have none; --collection names a file.", file=sys.stderr)
    if options.json:
        print(json.dumps({"kind": foreign.kind, **stats_as_json(stats)}))
    else:
        print(f"Imported from {foreign.kind}. {stats_as_sentence(stats)}")
    return 0

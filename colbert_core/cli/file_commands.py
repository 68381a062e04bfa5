"""Commands that put files into an index: index, add and sync."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import colbert_core
from colbert_core.cli.options import (
    add_pool_factor,
    add_words,
    load_encoder,
    load_named_encoder,
    model_options,
    read_words,
    wants_progress,
)
from colbert_core.cli.printing import stats_as_sentence
from colbert_core.cli.reading import need_passages, open_index
from colbert_core.extras import import_extra
from colbert_core.paths import as_path
from colbert_core.values import stats_as_json

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from colbert_core import Index, SyncReport
    from colbert_core.cli.options import Command
    from colbert_core.cluster import ShardedIndex
    from colbert_core.types import TokenEncoder

_INDEX = """\
Make an index folder of files and folders. Documents are cut into passages, which are named FOLDER/FILE#1, FOLDER/FILE#2 and so
on, by the folder's own name and the path from there. Each begins with the name of the file and the headings above it. A JSON
line, a line of tab-separated values (id, text, title; or a first line of names) and a Parquet row is a passage with "text" and
optionally "id" or "_id", "title" and "metadata"; long ones are cut as well. A file that cannot be read is named, and the
others are indexed; the exit code is 1 then. What an interrupted run has read stays, and `colbert sync` goes on.
"""

_ADD = """\
Add files and folders to an index, as `colbert index` does. What a file gave before is replaced, and a file that has not changed
is not read again. Nothing is removed of files that are gone; `colbert sync` does that.
"""

_SYNC = """\
Bring an index in step with folders: read files that are new or have changed, and remove the passages of those that are gone. A
file has changed if its size or its time is another, and then its content. The index is made if it is not there. Each file is in
as a whole or not at all; after an interruption the next run goes on. Hidden files, and what a .gitignore leaves out, are not
read.
"""

# Lines on standard error about files that could not be read.
_MOST_LINES = 20


def add_file_commands(command: Command) -> None:
    """Add ``colbert index``, ``add`` and ``sync``."""
    index = command("index", _index, "make an index of files", model_options(), about=_INDEX)
    index.add_argument("files", nargs="+", type=as_path, metavar="FILES")
    index.add_argument("--out", required=True, type=as_path, metavar="INDEX", help="the folder to make")
    _add_making(index)
    _add_choice_of_files(index)
    index.add_argument("--overwrite", action="store_true", help="take the place of the index that is there already")

    add = command("add", _add, "add files to an index", model_options(), about=_ADD)
    add.add_argument("index", type=Path)
    add.add_argument("files", nargs="+", type=as_path, metavar="FILES")
    _add_choice_of_files(add)

    in_step = command("sync", _sync, "bring an index in step with folders", model_options(), about=_SYNC)
    in_step.add_argument("files", nargs="+", type=as_path, metavar="FOLDER")
    in_step.add_argument("--index", required=True, type=as_path, metavar="INDEX", help="the index, made if it is not there")
    _add_making(in_step)
    _add_choice_of_files(in_step)
    in_step.add_argument("--dry-run", action="store_true", help="say what would be done, and change nothing")
    in_step.add_argument("--watch", action="store_true", help="go on, and do it again whenever files change, until Ctrl-C")


def _add_making(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nbits", type=int, help="bits per component: 1, 2, 4, 8, or 32 for uncompressed (default: 4)")
    add_pool_factor(parser)
    add_words(parser)


def _add_choice_of_files(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which files are read, and how."""
    patterns: dict[str, Any] = {"action": "append", "default": [], "metavar": "PATTERN"}
    parser.add_argument("--include", **patterns, help="read only files that match, such as '*.md' (may be repeated)")
    parser.add_argument("--exclude", **patterns, help="leave out files and folders that match (may be repeated)")
    parser.add_argument("--piece-tokens", type=int, metavar="N", help="most tokens of a passage (default: as many as fit)")
    parser.add_argument("--strict", action="store_true", help="change nothing if a file cannot be read")


# Run them


def _index(options: argparse.Namespace) -> int:
    _check_tokens(options)
    encoder = load_encoder(options)
    with (
        _made(options.out, options.files, overwrite=options.overwrite) as folder,
        _create(folder, encoder, options) as index,
    ):
        report = _synced(index, options)
        need_passages(index, report, options.files)
        stats = stats_as_json(index.stats()), stats_as_sentence(index.stats())
    return _say_synced(report, stats, options)


@contextmanager
def _made(out: Path, files: list[Path], *, overwrite: bool = False) -> Iterator[Path]:
    """Give the folder to make an index in. What is in it when there is an error stays, if there is something."""
    from colbert_core.storage.store import made_aside

    if overwrite:  # the old index stays until the new one is whole
        with made_aside(out, overwrite=True) as aside:
            yield aside
        return
    was_there = out.exists()
    try:
        yield out
    except BaseException:
        n_files = 0 if was_there else _count_files(out)
        if n_files:
            command = shlex.join(["colbert", "sync", *map(str, files), "--index", str(out)])
            print(f"colbert: {n_files} files are in {out}; go on with {command}", file=sys.stderr)
        elif not was_there:
            shutil.rmtree(out, ignore_errors=True)
        raise


def _count_files(folder: Path) -> int:
    try:
        with colbert_core.Index.open(folder) as index:
            return sum(1 for source, _ in index._sources() if source.n_passages)
    except Exception:
        return 0


def _add(options: argparse.Namespace) -> int:
    _check_tokens(options)
    with open_index(options.index, load_named_encoder(options)) as index:
        report = _synced(index, options, remove=False)
        stats = stats_as_json(index.stats()), stats_as_sentence(index.stats())
    return _say_synced(report, stats, options)


def _sync(options: argparse.Namespace) -> int:
    _check_tokens(options)
    with _made(options.index, options.files) as folder, _opened(folder, options) as index:
        code = _sync_once(index, options)
        if options.watch:
            watchfiles = import_extra("watchfiles", "colbert sync --watch", "watchfiles")
            for _ in watchfiles.watch(*options.files):
                code = _sync_once(index, options)
    return code


def _opened(folder: Path, options: argparse.Namespace) -> Index | ShardedIndex:
    """Open the index of a sync, or make it if it is not there."""
    if folder.exists():
        return open_index(folder, load_named_encoder(options))
    if options.dry_run:
        return colbert_core.Index.create(None, dim=1)  # nothing is encoded
    return _create(folder, load_encoder(options), options)


def _create(folder: Path, encoder: TokenEncoder, options: argparse.Namespace) -> Index:
    words = read_words(options)
    return colbert_core.Index.create(folder, encoder, nbits=options.nbits, words=words, pool_factor=options.pool_factor)


def _sync_once(index: Index | ShardedIndex, options: argparse.Namespace) -> int:
    report = _synced(index, options, dry_run=options.dry_run)
    stats = stats_as_json(index.stats()), stats_as_sentence(index.stats())
    code = _say_synced(report, stats, options)
    sys.stdout.flush()
    return code


def _check_tokens(options: argparse.Namespace) -> None:
    if options.piece_tokens is not None:
        from colbert_core.checks import check_count

        check_count(options.piece_tokens, "--piece-tokens", "tokens")


def _synced(index: Index | ShardedIndex, options: argparse.Namespace, **others: bool) -> SyncReport:
    return colbert_core.sync(
        options.files,
        index,
        include=options.include,
        exclude=options.exclude,
        piece_tokens=options.piece_tokens,
        strict=options.strict,
        progress=wants_progress(options),
        **others,
    )


# Say what was done


def _say_synced(report: SyncReport, stats: tuple[dict[str, Any], str], options: argparse.Namespace) -> int:
    figures, sentence = stats
    failures = [problem for problem in report.problems if problem.is_failure]
    for problem in failures[:_MOST_LINES]:
        print(f"colbert: {problem.message}", file=sys.stderr)
    if len(failures) > _MOST_LINES:
        print(f"colbert: {len(failures) - _MOST_LINES} more files could not be read; --json names all.", file=sys.stderr)
    if options.json:
        print(json.dumps({"added": report.n_passages, "files": _report_as_json(report), **figures}))
    elif getattr(options, "dry_run", False):
        for names, verb in ((report.added, "add"), (report.changed, "change"), (report.removed, "remove")):
            for name in names:
                print(f"{verb:7}{name}")
        for old, new in report.moved.items():
            print(f"{'move':7}{old} to {new}")
        print(f"{report.unchanged} files are as they were{_rest(report)}.")
    else:
        print(f"{_done(report)}{_rest(report)}. {sentence}")
    return 0 if report.is_complete else 1


def _done(report: SyncReport) -> str:
    n_read = sum(report.read.values())
    parts = [f"{report.n_passages} passages added from {n_read} file{'s' * (n_read != 1)}{_listed(report.read)}"]
    parts += [f"{len(report.moved)} moved"] * bool(report.moved)
    parts += [f"{len(report.removed)} removed"] * bool(report.removed)
    parts += [f"{report.unchanged} unchanged"] * bool(report.unchanged)
    return ", ".join(parts)


def _rest(report: SyncReport) -> str:
    """Say what was left out, and why."""
    kinds: dict[str, int] = {}
    for problem in report.problems:
        kind = f"{problem.kind} {Path(problem.name).suffix.lower()}".rstrip()
        kinds[kind] = kinds.get(kind, 0) + 1
    skipped = f"; {len(report.problems)} skipped{_listed(kinds)}" if kinds else ""
    ignored = f"; {sum(report.ignored.values())} ignored{_listed(report.ignored)}" if report.ignored else ""
    return skipped + ignored


def _listed(counts: dict[str, int]) -> str:
    """List counts in parentheses, the largest first."""
    entries = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    return f" ({', '.join(f'{name} {count}' for name, count in entries)})" if entries else ""


def _report_as_json(report: SyncReport) -> dict[str, Any]:
    return {
        "read": report.read,
        "added": report.added,
        "changed": report.changed,
        "moved": report.moved,
        "removed": report.removed,
        "unchanged": report.unchanged,
        "skipped": [{"name": each.name, "kind": each.kind, "message": each.message} for each in report.problems],
        "ignored": report.ignored,
    }

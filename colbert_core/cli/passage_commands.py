"""Commands that ask an index for its passages without a query, and change their metadata; none of them loads a model."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from colbert_core.cli.options import add_where, json_option, read_where
from colbert_core.cli.printing import as_json, passage_as_block, passage_as_line, print_lines
from colbert_core.cli.reading import index_place, open_index
from colbert_core.values import passage_as_json

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from colbert_core.cli.options import Command
    from colbert_core.cluster import ShardedIndex
    from colbert_core.index.index import Index
    from colbert_core.index.reports import MetadataField
    from colbert_core.types import Passage

_LIST = """\
Print the passages of an index in the order in which they were added, one a line: its name in brackets, and the beginning of
its text. With --json each is an object that has the whole text and the metadata. With --limit, standard error says how to go
on.
"""

_SHOW = """\
Print passages of an index by their names, whole and with their metadata. The exit code is 1 if there is none of a name.
"""

_FIELDS = """\
Print which fields the metadata of an index have, one a line: its name as --where takes it, how many passages have it with a
value of which type, and some of the values.
"""

_SET = """\
Change metadata of passages that are in an index: write keys, and remove others. Nothing is encoded, and the texts stay. A value
is read as JSON where it is JSON, and as a string where it is not: year=2024 is a number, lang=en a string, and so is
year='"2024"'. A key is written as it is: a dot in it leads nowhere.
"""

# Passages that are read together.
_AT_A_TIME = 1000


def add_passage_commands(command: Command) -> None:
    """Add ``colbert list``, ``show``, ``fields`` and ``set``."""
    list_ = command("list", _list, "list the passages of an index", json_option(), about=_LIST)
    list_.add_argument("index", type=index_place)
    add_where(list_, """only passages with such metadata: '{"year": {"$gte": 2020}}'""")
    list_.add_argument("--limit", type=int, metavar="N", help="most passages to print (default: all)")
    list_.add_argument("--after", metavar="PLACE", help="go on where an earlier list ended; it has said so")
    list_.add_argument("--full", action="store_true", help="print whole passages with their metadata")

    show = command("show", _show, "show whole passages of an index", json_option(), about=_SHOW)
    show.add_argument("index", type=index_place)
    show.add_argument("ids", nargs="+", metavar="ID")

    fields = command("fields", _fields, "show which metadata the passages of an index have", json_option(), about=_FIELDS)
    fields.add_argument("index", type=index_place)

    set_ = command("set", _set, "change metadata of passages of an index", json_option(), about=_SET)
    set_.add_argument("index", type=index_place)
    set_.add_argument("values", nargs="*", metavar="KEY=VALUE", help="metadata to write")
    set_.add_argument("--id", action="append", metavar="ID", help="of this passage (may be repeated)")
    add_where(set_, """of every passage with such metadata: '{"source": "docs/cats.md"}'; '{}' is all""")
    set_.add_argument("--remove", action="append", metavar="KEY", help="metadata to take out (may be repeated)")


# Look at it


def _list(options: argparse.Namespace) -> int:
    where, left, after = read_where(options), options.limit, options.after
    with open_index(options.index) as index:
        while True:
            page = index.passages(where, limit=_AT_A_TIME if left is None else min(left, _AT_A_TIME), after=after)
            _print_passages(page, full=options.full, as_objects=options.json)
            left, after = None if left is None else left - len(page), page.next
            if after is None or left == 0:
                break
    if after is not None:
        print(f"colbert: There are more; --after {after} goes on.", file=sys.stderr)
    return 0


def _show(options: argparse.Namespace) -> int:
    with open_index(options.index) as index:
        passages = index.get(options.ids)
    _print_passages([passage for passage in passages if passage is not None], full=True, as_objects=options.json)
    unknown = [passage_id for passage_id, passage in zip(options.ids, passages, strict=True) if passage is None]
    for passage_id in unknown:
        print(f"colbert: There is no passage with the id {passage_id!r}; colbert list shows those there are.", file=sys.stderr)
    return 1 if unknown else 0


def _print_passages(passages: Sequence[Passage], *, full: bool, as_objects: bool) -> None:
    for passage in passages:
        if as_objects:
            print(as_json(passage_as_json(passage)))
        elif full:
            print_lines([f"[{passage.id}]", *passage_as_block(passage)])
        else:
            print(passage_as_line(passage))


def _fields(options: argparse.Namespace) -> int:
    with open_index(options.index) as index:
        n_fields = 0
        for field in _all_fields(index):
            n_fields += 1
            print(as_json(asdict(field)) if options.json else _field_as_line(field))
        if not n_fields:
            reason = "No passage has any metadata." if index.count() else "The index has no passages; `colbert add` adds files."
            print(f"colbert: {reason}", file=sys.stderr)
    return 0


def _all_fields(index: Index | ShardedIndex) -> Iterator[MetadataField]:
    page = index.fields()
    yield from page
    while page.next is not None:
        page = index.fields(after=page.next)
        yield from page


def _field_as_line(field: MetadataField) -> str:
    types = ", ".join(f"{n} {name}{'' if n == 1 else 's'}" for name, n in field.types.items())
    examples = ", ".join(map(as_json, field.examples))
    return f"{field.path:24}  {types.replace('nulls', 'null')}{f': {examples}' if examples else ''}"


# Change it


def _set(options: argparse.Namespace) -> int:
    where, remove = read_where(options), options.remove or []
    if (where is None) == (not options.id):
        raise ValueError("Name the passages by --id, or by --where; one of them.")
    metadata = _read_metadata(options.values)
    if not metadata and not remove:
        raise ValueError("There is nothing to change; write KEY=VALUE, such as year=2024, or --remove KEY.")
    with open_index(options.index) as index:
        known = index.get(options.id or [])
        n_changed = index.update_metadata(metadata, where=where, ids=options.id, remove=remove)
    for passage_id in [passage_id for passage_id, passage in zip(options.id or [], known, strict=True) if passage is None]:
        print(f"colbert: There is no passage with the id {passage_id!r}; colbert list shows those there are.", file=sys.stderr)
    passages = "1 passage has" if n_changed == 1 else f"{n_changed} passages have"
    print(json.dumps({"changed": n_changed}) if options.json else f"{passages} other metadata now.")
    return 0


def _read_metadata(values: Sequence[str]) -> dict[str, Any]:
    """Read metadata from words such as ``year=2024``.

    Raises:
        ValueError: a word has no equals sign or no key, or a key stands twice.
    """
    metadata: dict[str, Any] = {}
    for word in values:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ValueError(f"Metadata are written as KEY=VALUE, such as year=2024, got {word!r}; passages are named by --id.")
        if key in metadata:
            raise ValueError(f"The key {key!r} stands twice; write it once.")
        try:
            metadata[key] = json.loads(value, parse_constant=_refuse)
        except (ValueError, RecursionError):
            metadata[key] = value
    return metadata


def _refuse(number: str) -> None:
    raise ValueError(f"{number} is no number of JSON")

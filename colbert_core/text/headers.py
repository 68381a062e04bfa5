"""The first line of tab-separated values, where it names the columns, in the spellings that collections have."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Spellings = Mapping[str, tuple[str, ...]]

_ID = ("id", "_id", "pid", "docid", "doc_id", "passage_id", "document_id", "docno", "corpus_id", "text_id")

PASSAGES: Spellings = {
    "id": _ID,
    "text": ("text", "passage", "contents", "content", "document", "body", "passage_text", "doc_text"),
    "title": ("title", "passage_title", "doc_title", "document_title"),
}
"""Columns of a file of passages."""

QUERIES: Spellings = {
    "id": ("id", "_id", "qid", "query_id", "queryid", "topic_id", "question_id"),
    "text": ("text", "query", "question", "query_text", "topic"),
}
"""Columns of a file of queries."""

TEXTS: Spellings = {
    "id": tuple(dict.fromkeys((*PASSAGES["id"], *QUERIES["id"]))),
    "text": tuple(dict.fromkeys((*PASSAGES["text"], *QUERIES["text"]))),
    "title": PASSAGES["title"],
}
"""Columns of a file of passages or queries."""


def spelled_plainly(name: str) -> str:
    """Return the name of a column without capitals, quotation marks and a byte order mark, its words joined by "_"."""
    return "_".join(name.replace("\ufeff", "").strip().strip("\"'").casefold().replace("-", " ").split())


def column_names(values: Sequence[str], spellings: Spellings = PASSAGES) -> list[str] | None:
    """Read the names of columns off the first line of a file; None if it is a row like the others.

    It names columns if one of them is the text and another the id or the title. ``text`` alone is enough, as it stands, unless
    the line begins with a number.

    Args:
        values: values of the line.
        spellings: for each column its names, the likeliest first.

    Returns:
        "id", "text" and "title" in place of their spellings, each once, and the other names as they stand.
    """
    names, plain = [value.strip() for value in values], [spelled_plainly(value) for value in values]
    found: dict[int, str] = {}
    for column, spelled in spellings.items():
        place = next((plain.index(spelling) for spelling in spelled if spelling in plain), None)
        if place is not None and place not in found:
            found[place] = column
    has_text = "text" in found.values()
    is_named = has_text and (len(found) > 1 or ("text" in names and not names[0].isdecimal()))
    return [found.get(place, name) for place, name in enumerate(names)] if is_named else None


def named_row(names: Sequence[str], values: Sequence[str]) -> dict[str, str]:
    """Return the values of a line by the names of their columns.

    Raises:
        ValueError: there are more or fewer values than names.
    """
    if len(values) != len(names):
        raise ValueError(f"it has {len(values)} columns where {len(names)} belong ({', '.join(names)})")
    return dict(zip(names, values, strict=True))

"""Translate LangChain's documents and filters to the engine's passages and conditions, and back."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from langchain_core.documents import Document

from colbert_core import Passage, widen
from langchain_colbert.found import found_in, own_metadata, with_found
from langchain_colbert.options import MAX_CHARACTERS, Text

if TYPE_CHECKING:
    from colbert_core import Hit, PassageIndex

Filter = Mapping[str, Any] | Callable[[Document], bool]
"""``{"year": {"$gte": 2020}}`` by the operators of ``colbert_core.storage.filters``, or a function of a document."""


def to_documents(
    texts: Iterable[str], metadatas: Iterable[dict[str, Any]] | None, ids: Iterable[str | None] | None
) -> Iterable[Document]:
    """Make documents of texts, metadata and ids, as LangChain's ``add_texts`` and ``from_texts`` take them.

    Returns:
        A list for lists; a stream if one of them is a stream.

    Raises:
        TypeError: ``texts`` is one string.
        ValueError: they have different lengths, which a stream says when it is read.
    """
    if isinstance(texts, str):
        raise TypeError("texts must be a list of strings, got one str; write [text].")
    parts = {"texts": texts, "metadatas": metadatas, "ids": ids}
    rows = _side_by_side({name: values for name, values in parts.items() if values is not None})
    documents = (Document(row["texts"], metadata=row.get("metadatas") or {}, id=row.get("ids")) for row in rows)
    return list(documents) if _are_sized(*parts.values()) else documents


def add_documents(
    index: PassageIndex,
    documents: Iterable[Document],
    ids: Iterable[str | None] | None = None,
    show_progress: bool | None = None,
) -> list[str]:
    """Add documents, replacing those whose id is known, and return their ids in order.

    Args:
        index: the index to add them to.
        documents: the documents; the index copies them, without what a search has added to their metadata. A list is checked
            before anything is added, a stream as it comes.
        ids: one id or None for each document, which beats the document's own. A document with neither gets a random id.
        show_progress: show a bar; None leaves that to the index.

    Raises:
        ValueError: there are more or fewer ids than documents, an id stands twice, or a document is a part of the one that is
            stored under its id.
        TypeError: metadata hold what an index cannot keep, such as bytes; ``colbert_core.plain_metadata`` says what it can.
    """
    parts: dict[str, Iterable[Any]] = {"documents": documents} if ids is None else {"documents": documents, "ids": ids}
    stream = _to_passages(index, _side_by_side(parts))
    passages = list(stream) if _are_sized(documents, ids) else stream
    # An index of the user's own may show none.
    return index.add(passages) if show_progress is None else index.add(passages, progress=show_progress)


def delete_documents(index: PassageIndex, ids: Iterable[str] | None, filter: Filter | None) -> None:
    """Delete by ids or by a filter; unknown ids are no error.

    Raises:
        ValueError: neither or both are given.
    """
    if isinstance(ids, Mapping) or callable(ids):
        raise TypeError(f"delete takes ids as a list, got {type(ids).__name__}; a filter is named: delete(filter=...).")
    if (ids is None) == (filter is None):
        given = "neither" if ids is None else "both"
        raise ValueError(f"delete takes ids=[...] or filter={{...}}, got {given}; filter={{}} deletes everything.")
    if filter is None:
        index.delete(ids or [])
    else:
        index.delete_where(to_where(filter))


def to_document(passage: Passage) -> Document:
    """Make a new document, as it was added."""
    return Document(passage.text, metadata=passage.metadata, id=passage.id)


def to_found_document(hit: Hit, text: Text = "passage", max_characters: int = MAX_CHARACTERS, **found: Any) -> Document:
    """Make a new document with the values of this search in its metadata, and with the evidence where the search gave some.

    Args:
        hit: what was found.
        text: "passage" for the whole text; "window" for the window that matched with the sentences around it. Then ``span`` and
            ``window`` among the values are the characters of this text and of the window in the whole.
        max_characters: most characters of the text with "window".
        found: the values.
    """
    evidence = None if hit.evidence is None else hit.evidence.to_dict()
    content = hit.passage.text
    if text == "window":
        start, end = widen(content, hit.span, max_characters)
        content = content[start:end]
        found |= {"span": [start, end], "window": list(hit.span)}
        if evidence is not None:
            answers = [answer for word in evidence["words"] for answer in word["answers"]]
            for place in [*evidence["highlights"], *answers]:
                place["start"], place["end"] = place["start"] - start, place["end"] - start
            evidence["window"] = [place - start for place in evidence["window"]]
    return with_found(Document(content, id=hit.passage.id), hit.passage.metadata, **found, evidence=evidence)


def to_where(filter: Filter | None) -> Any:
    """Translate a filter to what ``Index.search(where=...)`` takes."""
    if not callable(filter):
        return filter
    matches = filter
    return lambda passage: matches(to_document(passage))


def _parts(document: Document) -> list[list[list[int]]]:
    """Return the characters that a window and an excerpt kept of a text, for a document that is one."""
    found = found_in(document.metadata)
    return [spans for spans in ([found["span"]] if "span" in found else [], found.get("excerpt_spans", [])) if spans]


def _to_passages(index: PassageIndex, rows: Iterable[dict[str, Any]]) -> Iterator[Passage]:
    """Make passages of rows with "documents" and perhaps "ids"."""
    for position, row in enumerate(rows):
        document = row["documents"]
        if not isinstance(document, Document):
            raise TypeError(f"Item {position} is a {type(document).__name__}, not a Document; for texts there is add_texts.")
        name = _choose_id(row.get("ids"), document.id)
        if _parts(document):
            _refuse_part(index, name, document)
        yield Passage(name, document.page_content, own_metadata(document.metadata))


def _refuse_part(index: PassageIndex, name: str, document: Document) -> None:
    """Raise an error if a document is a part of the text that is stored under its id, which would be lost."""
    get = getattr(index, "get", None)  # an index of the user's own may have none
    for passage in filter(None, get([name]) if get else []):
        for spans in _parts(document):
            (start, _), (_, end) = spans[0], spans[-1]
            if len(spans) > 1 or passage.text[start:end].strip() != passage.text.strip():
                raise ValueError(
                    f"Document {passage.id!r} has only a part of the text that is stored under this id, so adding it would "
                    "lose the rest; search with text='passage' and without a compressor, or give the part an id of its own."
                )


def _choose_id(*candidates: str | None) -> str:
    """Return the first id that is given, or a random one."""
    return next((candidate for candidate in candidates if candidate is not None), str(uuid.uuid4()))


def _are_sized(*lists: Iterable[Any] | None) -> bool:
    return all(each is None or isinstance(each, Sized) for each in lists)


def _side_by_side(lists: dict[str, Iterable[Any]]) -> Iterator[dict[str, Any]]:
    """Give what belongs together of several lists or streams.

    Args:
        lists: each by its name; the first one says how many there are.

    Raises:
        TypeError: one of them is a string.
        ValueError: they have different lengths, said at once for lists, and when one of them ends for streams.
    """
    for name, values in lists.items():
        if isinstance(values, str):
            raise TypeError(f"{name} must be a list of strings, got one str; write [{values!r:.80}].")
    sizes = {name: len(values) for name, values in lists.items() if isinstance(values, Sized)}
    first, ends = next(iter(lists)), object()
    for name, size in sizes.items():
        if size != sizes.get(first, size):
            raise ValueError(f"There are {sizes[first]} {first} but {size} {name}; give one for each.")

    def rows() -> Iterator[dict[str, Any]]:
        for n, row in enumerate(zip_longest(*lists.values(), fillvalue=ends)):
            ended = [name for name, value in zip(lists, row, strict=True) if value is ends]
            if ended:
                others = " and ".join(name for name in lists if name not in ended)
                raise ValueError(f"There are {n} {' and '.join(ended)} but more {others}; give one for each.")
            yield dict(zip(lists, row, strict=True))

    return rows()

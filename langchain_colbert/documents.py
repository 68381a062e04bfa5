"""Translate LangChain's documents and filters to the engine's passages and conditions, and back."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
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
    texts: Iterable[str], metadatas: Sequence[dict[str, Any]] | None, ids: Sequence[str | None] | None
) -> list[Document]:
    """Make documents of texts, metadata and ids, as LangChain's ``add_texts`` and ``from_texts`` take them.

    Raises:
        TypeError: ``texts`` is one string.
        ValueError: the lists have different lengths.
    """
    if isinstance(texts, str):
        raise TypeError("texts must be a list of strings, got one str; write [text].")
    texts = list(texts)
    metadatas = None if metadatas is None else list(metadatas)
    ids = None if ids is None else list(ids)
    _check_lengths(len(texts), "texts", metadatas=metadatas, ids=ids)
    return [
        Document(text, metadata={} if metadatas is None else metadatas[i] or {}, id=None if ids is None else ids[i])
        for i, text in enumerate(texts)
    ]


def add_documents(
    index: PassageIndex,
    documents: Iterable[Document],
    ids: Sequence[str | None] | None = None,
    show_progress: bool | None = None,
) -> list[str]:
    """Add documents, replacing those whose id is known, and return their ids in order.

    Args:
        index: the index to add them to.
        documents: the documents; the index copies them, without what a search has added to their metadata.
        ids: one id or None for each document, which beats the document's own. A document with neither gets a random id.
        show_progress: show a bar; None leaves that to the index.

    Raises:
        ValueError: there are more or fewer ids than documents, an id stands twice, or a document is a part of the one that is
            stored under its id.
        TypeError: metadata hold what an index cannot keep, such as bytes; ``colbert_core.plain_metadata`` says what it can.
    """
    documents, names = list(documents), None if ids is None else list(ids)
    _check_lengths(len(documents), "documents", ids=names)
    for position, document in enumerate(documents):
        if not isinstance(document, Document):
            raise TypeError(f"Item {position} is a {type(document).__name__}, not a Document; for texts there is add_texts.")
    chosen = [_choose_id(*pair) for pair in zip(names or [None] * len(documents), [one.id for one in documents], strict=True)]
    _refuse_parts(index, {name: document for name, document in zip(chosen, documents, strict=True) if _parts(document)})
    passages = [
        Passage(name, document.page_content, own_metadata(document.metadata))
        for name, document in zip(chosen, documents, strict=True)
    ]
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
        for place in [] if evidence is None else evidence["highlights"]:
            place["start"], place["end"] = place["start"] - start, place["end"] - start
        if evidence is not None:
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


def _refuse_parts(index: PassageIndex, documents: dict[str, Document]) -> None:
    """Raise an error if a document is a part of the text that is stored under its id, which would be lost."""
    get = getattr(index, "get", None)  # an index of the user's own may have none
    if not documents or get is None:
        return
    for passage in filter(None, get(list(documents))):
        for spans in _parts(documents[passage.id]):
            (start, _), (_, end) = spans[0], spans[-1]
            if len(spans) > 1 or passage.text[start:end].strip() != passage.text.strip():
                raise ValueError(
                    f"Document {passage.id!r} has only a part of the text that is stored under this id, so adding it would "
                    "lose the rest; search with text='passage' and without a compressor, or give the part an id of its own."
                )


def _choose_id(*candidates: str | None) -> str:
    """Return the first id that is given, or a random one."""
    return next((candidate for candidate in candidates if candidate is not None), str(uuid.uuid4()))


def _check_lengths(n: int, what: str, **lists: Sequence[Any] | None) -> None:
    for name, values in lists.items():
        if values is not None and len(values) != n:
            raise ValueError(f"There are {n} {what} but {len(values)} {name}; give one for each.")

"""What a search says of a document: how it goes into the metadata, and how it is taken out before anything is indexed.

A document that was found has ``score``, ``relevance_score``, ``rank``, ``coverage``, ``maxsim_relevance``, ``evidence`` or
``excerpt_spans`` in its metadata, where prompts and tracers look for them, and all of them once more under ``colbert``, with
the user's own values of these names. So what a search added is known after any copy, JSON or pickle, and the user's metadata
can be restored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from langchain_core.documents import Document

_KEY = "colbert"
# Values that stand in the metadata themselves as well.
_SHOWN = ("score", "relevance_score", "rank", "coverage", "maxsim_relevance", "evidence", "excerpt_spans")
# The key and value by which metadata[_KEY] is known to be ours; the user may have a key of that name.
_MARK = ("added_by", "langchain_colbert")
# Where the user's own values are, for those of our keys that were taken.
_YOURS = "yours"


class FoundMetadata(dict[str, Any]):
    """Metadata of a document that was found. They equal others if what the user wrote is equal, whatever a search added.

    LangChain's unions of several searches compare documents by ``==``: they keep a document once, whatever its scores are.
    """

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, dict):
            return NotImplemented
        return own_metadata(self) == own_metadata(other) or (_KEY not in other and self._shown() == dict(other))

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None

    def __repr__(self) -> str:
        """Show each value once, because chains write whole documents into prompts."""
        return repr(self._shown())

    def _shown(self) -> dict[str, Any]:
        return {key: value for key, value in self.items() if key != _KEY}


def with_found(document: Document, metadata: dict[str, Any], **found: Any) -> Document:
    """Return a copy of a document with these metadata of the user's own, and what a search says of it.

    Args:
        document: the document; it is not changed.
        metadata: the user's own metadata, which the copy takes over.
        found: values that JSON can hold; None for those that are not known.
    """
    found = {key: value for key, value in found.items() if value is not None}
    shown = {key: found[key] for key in _SHOWN if key in found}
    if yours := {key: metadata[key] for key in (*shown, _KEY) if key in metadata}:
        found[_YOURS] = yours
    # Pydantic copies dicts into plain ones where it makes a document, but not here.
    return document.model_copy(update={"metadata": FoundMetadata(metadata | shown | {_KEY: dict([_MARK]) | found})})


def found_in(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return what searches have added to metadata; nothing if they are all the user's own."""
    added = metadata.get(_KEY)
    if not isinstance(added, dict) or added.get(_MARK[0]) != _MARK[1]:
        return {}
    return {key: value for key, value in added.items() if key not in (_MARK[0], _YOURS)}


def own_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the user's own metadata: without what searches have added, and with what that has hidden.

    A value that differs from what the search said was changed by the user, and stays.
    """
    found = found_in(metadata)
    if not found:
        return dict(metadata)
    own = {
        key: value
        for key, value in metadata.items()
        if key != _KEY and not (key in _SHOWN and key in found and found[key] == value)
    }
    yours: dict[str, Any] = metadata[_KEY].get(_YOURS, {})
    return yours | own


def without_scores(documents: Iterable[Document]) -> list[Document]:
    """Return the documents as they were added: without scores, ranks and evidence.

    The store and the retriever do that by themselves. LangChain's ``index()`` makes its keys of the metadata before they see a
    document, so give it what a search found through this function, or it takes every new score for a new document.

    Example:
        ```python
        from langchain_colbert import ColBERTRetriever, without_scores

        retriever = ColBERTRetriever.from_texts(["Cats purr."], [{"page": 1}])
        (document,) = without_scores(retriever.invoke("happy pets"))
        print(document.metadata)
        ```

        ```text
        {'page': 1}
        ```
    """
    return [document.model_copy(update={"metadata": own_metadata(document.metadata)}) for document in documents]

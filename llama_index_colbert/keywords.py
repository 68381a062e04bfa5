"""Refuse keywords that LlamaIndex's signatures allow and these methods do not have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from llama_index.core.schema import Document

# What LlamaIndex's updates take: the keywords of the steps that an update is made of, as a dict for each step.
_OF_UPDATE = {"insert_kwargs": "insert", "delete_kwargs": "delete_ref_doc"}
_OF_REFRESH = ("insert_kwargs", "update_kwargs")


def refuse_keywords(method: str, keywords: Collection[str], known: Collection[str] = ()) -> None:
    """Refuse keywords.

    Args:
        method: name of the method, for the error.
        keywords: what it was given beyond its own parameters.
        known: those that it takes.

    Raises:
        TypeError: there is another one.
    """
    if unknown := sorted(set(keywords) - set(known)):
        takes = f"; it takes {' and '.join(known)}" if known else ""
        raise TypeError(f"{method} takes no keyword {unknown[0]!r}{takes}.")


class StrictUpdates:
    """An index whose updates refuse keywords that nothing would use, before they delete anything."""

    def update_ref_doc(self, document: Document, **update_kwargs: Any) -> None:
        """Replace the nodes of a document by those of a newer version.

        Args:
            document: the document, known by its id.
            update_kwargs: LlamaIndex's ``insert_kwargs`` and ``delete_kwargs``, which must be empty.

        Raises:
            TypeError: there is another keyword, or one within these.
        """
        _refuse_of_update(update_kwargs)
        super().update_ref_doc(document, **update_kwargs)  # type: ignore[misc]

    async def aupdate_ref_doc(self, document: Document, **update_kwargs: Any) -> None:
        """``update_ref_doc``, off the event loop."""
        _refuse_of_update(update_kwargs)
        await super().aupdate_ref_doc(document, **update_kwargs)  # type: ignore[misc]

    def refresh_ref_docs(self, documents: Sequence[Document], **update_kwargs: Any) -> list[bool]:
        """Insert documents that are new and update those that have changed, and say which.

        Args:
            documents: the documents, known by their ids.
            update_kwargs: LlamaIndex's ``insert_kwargs`` and ``update_kwargs``, which must be empty.

        Raises:
            TypeError: there is another keyword, or one within these.
        """
        _refuse_of_refresh(update_kwargs)
        refreshed: list[bool] = super().refresh_ref_docs(documents, **update_kwargs)  # type: ignore[misc]
        return refreshed

    async def arefresh_ref_docs(self, documents: Sequence[Document], **update_kwargs: Any) -> list[bool]:
        """``refresh_ref_docs``, off the event loop."""
        _refuse_of_refresh(update_kwargs)
        refreshed: list[bool] = await super().arefresh_ref_docs(documents, **update_kwargs)  # type: ignore[misc]
        return refreshed

    def delete(self, doc_id: str, **delete_kwargs: Any) -> None:
        """``delete_ref_doc``, under its old name."""
        refuse_keywords("delete", delete_kwargs)
        super().delete(doc_id)  # type: ignore[misc]


def _refuse_of_update(keywords: Mapping[str, Any]) -> None:
    refuse_keywords("update_ref_doc", keywords, _OF_UPDATE)
    for name, step in _OF_UPDATE.items():
        refuse_keywords(step, keywords.get(name, {}))


def _refuse_of_refresh(keywords: Mapping[str, Any]) -> None:
    refuse_keywords("refresh_ref_docs", keywords, _OF_REFRESH)
    refuse_keywords("insert", keywords.get("insert_kwargs", {}))
    _refuse_of_update(keywords.get("update_kwargs", {}))

"""Rerank requests as clients of Cohere and Jina send them. They hold keys that mean nothing here, which are ignored."""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from colbert_core.serve.requests import Count, Text

if TYPE_CHECKING:
    from collections.abc import Callable

# What a document that is an object is read by, unless a request names others.
_FIELDS = ["text"]
# Characters of a text to look at for each token at first; English has four to five.
_CHARACTERS = 6


class RerankRequest(BaseModel):
    """A question, and documents to order by how well they answer it."""

    model_config = ConfigDict(extra="ignore")

    query: Text
    documents: list[Text | dict[str, Any]] = Field(description='Texts, or objects: {"text": "..."}.')
    top_n: Count | None = Field(None, description="Most results; all where it is left out.")
    model: Text | None = Field(None, description="Any name; it comes back, and chooses nothing.")
    return_documents: bool | None = Field(None, description="Whether each result has its document.")
    rank_fields: list[Text] | None = Field(None, description="Fields of objects to read, in this order; text if left out.")
    max_tokens_per_doc: Count | None = Field(None, description="Read so many tokens of each document; all if left out.")

    def texts(self) -> list[str]:
        """What is read of each document.

        Raises:
            ValueError: there are no documents, ``rank_fields`` is empty, or a document has none of the fields.
            TypeError: one of these fields is no text.
        """
        if not self.documents:
            raise ValueError("documents is empty; give at least one document to rank.")
        if self.rank_fields == []:
            raise ValueError("rank_fields is empty; name at least one field, or leave it out to rank by 'text'.")
        fields = self.rank_fields or _FIELDS
        return [
            document if isinstance(document, str) else _text_of(document, fields, f"documents.{place}")
            for place, document in enumerate(self.documents)
        ]

    def document(self, place: int) -> dict[str, Any]:
        """A document as a result gives it back: an object as it came, a text within one."""
        document = self.documents[place]
        return {"text": document} if isinstance(document, str) else document


def _text_of(document: dict[str, Any], fields: list[str], subject: str) -> str:
    texts = [(field, document[field]) for field in fields if field in document]
    if not texts:
        there = ", ".join(map(repr, document)) or "none"
        raise ValueError(f"{subject} has none of the fields {', '.join(map(repr, fields))}; its fields are {there:.200}.")
    for field, text in texts:
        if not isinstance(text, str):
            raise TypeError(f"{subject}.{field} must be a text, got {type(text).__name__}: {text!r:.80}")
    return "\n".join(text for _, text in texts)


def first_tokens(text: str, n: int, count: Callable[[str], int]) -> str:
    """Return the beginning of a text that has at most so many tokens: all words that fit, and the part of the next that fits.

    No tokens are counted far behind the place where it is cut.

    Args:
        text: any.
        n: most tokens, at least 1.
        count: returns how many tokens a text has.
    """
    end = _CHARACTERS * n
    while count(text[:end]) <= n:
        if end >= len(text):
            return text
        end *= 2
    # Words first: a part of a word can have more tokens than all of it.
    ends = [0, *(match.end() for match in re.finditer(r"\S+", text[:end]))]
    word = bisect_right(ends, n, lo=1, key=lambda place: count(text[:place]))
    start = ends[word - 1]
    stop = ends[word] if word < len(ends) else min(end, len(text))
    return text[: start + bisect_right(range(start + 1, stop + 1), n, key=lambda place: count(text[:place]))]

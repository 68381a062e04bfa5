"""What the tools give: values with a schema, and the same as text that a model reads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from pydantic import BaseModel, Field

from colbert_core.serve.agents.budget import as_json, count_json_tokens, count_tokens


class Result(BaseModel, ABC):
    """What a tool gives."""

    notes: list[str] = Field(default_factory=list, description="What to know about this answer, and how to get the rest.")

    def as_text(self) -> str:
        """The answer as text."""
        return "\n\n".join([*self._paragraphs(), *self.notes])

    def tokens(self) -> int:
        """About how many tokens the answer takes, as text or as values, whichever takes more."""
        return max(count_tokens(self.as_text()), count_json_tokens(self.model_dump(mode="json")))

    @abstractmethod
    def _paragraphs(self) -> list[str]:
        """The answer in paragraphs, without its notes."""


class Found(BaseModel):
    """A passage that was found: the part of it that matched."""

    rank: int = Field(description="1 for the best.")
    id: str = Field(description="What get_passage and explain take.")
    relevance: float = Field(description="How well it matches; higher is better. 0 for a blank query.")
    text: str = Field(description="The part that matched, with sentences around it; the whole passage if it is short.")
    start: int = Field(description="Where this part begins in the passage, in characters.")
    end: int = Field(description="Where it ends.")
    characters: int = Field(description="How many characters the whole passage has.")
    metadata: dict[str, Any] = Field(default_factory=dict)
    metadata_left_out: list[str] = Field(default_factory=list, description="Metadata that are too long to be shown here.")

    def as_text(self) -> str:
        """The passage as text."""
        part = "" if self.end - self.start >= self.characters else f" · characters {self.start}-{self.end} of {self.characters}"
        head = f"[{self.rank}] id: {self.id} · relevance {self.relevance}{part}"
        return "\n".join([head, *_metadata_lines(self.metadata, self.metadata_left_out), self.text])

    def tokens(self) -> int:
        """About how many tokens it takes, as text or as values, whichever takes more."""
        return max(count_tokens(self.as_text()), count_json_tokens(self.model_dump(mode="json"))) + 1


class SearchResult(Result):
    """Passages that were found, best first."""

    collection: str
    hits: list[Found] = Field(description="Best first.")
    left_out: list[str] = Field(default_factory=list, description="Ids of further hits that did not fit, best first.")

    def _paragraphs(self) -> list[str]:
        n = len(self.hits)
        head = f"{n} passage{'' if n == 1 else 's'} of the collection {self.collection!r}, best first:"
        if not n:
            return [f"No passage of the collection {self.collection!r} was found."]
        return [head, *(hit.as_text() for hit in self.hits)]


class PassageResult(Result):
    """A passage, or a part of a long one."""

    collection: str
    id: str
    text: str = Field(description="The passage from offset to end.")
    offset: int = Field(description="Where this text begins in the passage, in characters.")
    end: int = Field(description="Where it ends.")
    characters: int = Field(description="How many characters the whole passage has.")
    next_offset: int | None = Field(description="The offset to ask for to read on; null at the end of the passage.")
    metadata: dict[str, Any] = Field(default_factory=dict, description="Given with the first part only.")
    metadata_left_out: list[str] = Field(default_factory=list, description="Metadata that are too long to be shown.")

    def _paragraphs(self) -> list[str]:
        head = f"id: {self.id} · characters {self.offset}-{self.end} of {self.characters}"
        return ["\n".join([head, *_metadata_lines(self.metadata, self.metadata_left_out)]), self.text]


class Matched(BaseModel):
    """Words of a passage that match words of a query."""

    words: str = Field(description="Words of the passage.")
    terms: list[str] = Field(description="Words of the query that they match.")
    similarity: float = Field(description="From -1 to 1; 1 for the same meaning.")
    start: int = Field(description="Where the words begin in the passage, in characters.")
    end: int


class ExplainResult(Result):
    """Why a passage matches a query."""

    collection: str
    id: str
    relevance: float
    start: int = Field(description="Where the part of the passage that matches best begins, in characters.")
    end: int
    matches: list[Matched] = Field(description="In the order of the passage.")
    unmatched: list[str] = Field(description="Words of the query that nothing in this part matches.")

    def _paragraphs(self) -> list[str]:
        head = f"id: {self.id} · relevance {self.relevance} · best part: characters {self.start}-{self.end}"
        lines = [f"- {each.words!r} matches {', '.join(each.terms)} ({each.similarity})" for each in self.matches]
        matches = "\n".join(["Words of the passage that match words of the query:", *lines]) if lines else "No word matches."
        unmatched = f"Words of the query that nothing matches: {', '.join(self.unmatched)}" if self.unmatched else ""
        return [head, matches, *([unmatched] if unmatched else [])]


class MetadataName(BaseModel):
    """A field that metadata have."""

    name: str = Field(description="As a filter names it, such as year or author.name.")
    types: dict[str, int] = Field(description="How many passages have a value of which type.")
    examples: list[Any] = Field(description="Some of its values.")

    def as_text(self) -> str:
        """The field as a line."""
        types = ", ".join(f"{name} in {count}" for name, count in self.types.items())
        examples = f"; for example {', '.join(map(as_json, self.examples))}" if self.examples else ""
        return f"  - {self.name}: {types}{examples}"


class CollectionAbout(BaseModel):
    """What is in a collection."""

    name: str
    passages: int | None = Field(description="How many; null if the collection cannot be opened.")
    modes: list[str] = Field(default_factory=list, description="What search takes as its mode.")
    fields: list[MetadataName] = Field(default_factory=list, description="Metadata that where filters by.")
    fields_left_out: bool = Field(default=False, description="Whether there are more fields.")
    problem: str | None = Field(default=None, description="Why the collection cannot be used.")

    def as_text(self) -> str:
        """The collection as lines."""
        if self.problem is not None:
            return f"{self.name}: {self.problem}"
        head = f"{self.name}: {self.passages} passages; modes {', '.join(self.modes)}"
        fields = [field.as_text() for field in self.fields]
        more = ["  - and more fields"] if self.fields_left_out else []
        none = [] if fields or more else ["  no metadata"]
        return "\n".join([head, *fields, *more, *none])


class CollectionsResult(Result):
    """Which collections there are."""

    collections: list[CollectionAbout]
    next: str | None = Field(
        default=None, description="What to give as after to list those that follow; null if there are no more."
    )

    def _paragraphs(self) -> list[str]:
        return [collection.as_text() for collection in self.collections] or ["There is no collection."]


class AddResult(Result):
    """What was added."""

    collection: str
    added: int = Field(description="How many passages were added or replaced.")
    passages: int = Field(description="How many the collection has now.")

    def _paragraphs(self) -> list[str]:
        return [f"{self.added} added or replaced; the collection {self.collection!r} has {self.passages} passages now."]


def _metadata_lines(metadata: dict[str, Any], left_out: list[str]) -> list[str]:
    lines = [f"metadata: {as_json(metadata)}"] if metadata else []
    return [*lines, *([f"metadata left out: {', '.join(left_out)}"] if left_out else [])]

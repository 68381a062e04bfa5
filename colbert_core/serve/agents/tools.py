"""What each tool of an agent does, over the indexes of a catalogue. Nothing here knows the protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from colbert_core.errors import ColBERTError
from colbert_core.index.blank_query import hits_of_blank_query
from colbert_core.search.surroundings import widen
from colbert_core.serve.agents.budget import end_of_piece, fitting_metadata
from colbert_core.serve.agents.problems import sentence_of
from colbert_core.serve.agents.results import (
    AddResult,
    CollectionAbout,
    CollectionsResult,
    ExplainResult,
    Found,
    Matched,
    MetadataName,
    PassageResult,
    SearchResult,
)
from colbert_core.serve.catalogue import mode_of
from colbert_core.storage.aside import some_names
from colbert_core.text.blank import is_blank
from colbert_core.types import Passage, check_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from colbert_core.cluster import ShardedIndex
    from colbert_core.index.index import Index
    from colbert_core.serve.catalogue import Catalogue
    from colbert_core.serve.limits import Limits
    from colbert_core.types import Hit, Mode

    AnyIndex = Index | ShardedIndex

R = TypeVar("R", PassageResult, ExplainResult, Found)

MAX_TOKENS = 4000
LEAST_TOKENS = 200

# Kept free for notes and what stands around the hits; of small answers a quarter.
_RESERVE = 160
# Characters of a part that is shown around what matched: at least, and at most, which are about 500 tokens.
_SHORTEST_PART, _LONGEST_PART = 400, 2000
# Of a hit's share, and of a passage's, for its metadata.
_METADATA_SHARE = 0.25
# Ids of hits that did not fit, and characters that they have together.
_MOST_IDS, _LONGEST_IDS = 10, 160
_MOST_FIELDS = 50


class Tools:
    """The tools: each takes plain values, and gives a result of at most so many tokens."""

    def __init__(self, catalogue: Catalogue, limits: Limits, *, max_tokens: int = MAX_TOKENS) -> None:
        """Serve these indexes.

        Args:
            catalogue: the indexes.
            limits: of a query's length, and of k.
            max_tokens: most tokens of an answer; a call may ask for less.

        Raises:
            ValueError: so few tokens hold no answer.
        """
        if max_tokens < LEAST_TOKENS:
            raise ValueError(f"max_tokens is {max_tokens}, and an answer needs at least {LEAST_TOKENS}.")
        self.catalogue, self.limits, self.max_tokens = catalogue, limits, max_tokens

    def search(
        self,
        query: str,
        collection: str | None = None,
        k: int = 10,
        where: dict[str, Any] | None = None,
        mode: Mode | None = None,
        min_relevance: float | None = None,
        max_tokens: int | None = None,
    ) -> SearchResult:
        """Find the passages that match best, or those that a filter matches where the query is blank.

        Raises:
            ValueError, TypeError: an argument is wrong.
            ColBERTError: the index cannot be searched.
        """
        budget = self._budget(max_tokens)
        self._check_query(query)
        self.limits.check_k(k)
        name, index = self._index(collection)
        notes = []
        hits = hits_of_blank_query(index, [query], k, where=where, min_relevance=min_relevance)
        if hits is None:
            hits = index.search(query, k, where=where, min_relevance=min_relevance, mode=mode_of(index, mode))
        elif not where:
            notes.append("The query is blank and there is no filter, so nothing was looked for; give words, or where.")
        elif hits:
            notes.append("The query is blank, so these are passages that the filter matches, in no order of relevance.")
        if not hits:
            notes += _odd_conditions(index, where)
        return _fitting_hits(name, hits, notes, budget)

    def get_passage(
        self,
        id: str,  # noqa: A002
        collection: str | None = None,
        offset: int = 0,
        max_tokens: int | None = None,
    ) -> PassageResult:
        """Give a passage whole, or a part of it from an offset on.

        Raises:
            ValueError: there is no such passage, or it ends before the offset.
            ColBERTError: the index cannot be read.
        """
        budget = self._budget(max_tokens)
        name, index = self._index(collection)
        passage = _passage(name, index, id)
        if not 0 <= offset <= len(passage.text):
            raise ValueError(f"offset is {offset}, and the passage has {len(passage.text)} characters; give 0 to that.")
        metadata: dict[str, Any] = {}
        left_out: list[str] = []
        if not offset:
            metadata, left_out = fitting_metadata(passage.metadata, int(budget * _METADATA_SHARE))

        def piece(tokens: int) -> PassageResult:
            end = end_of_piece(passage.text, offset, tokens)
            is_last = end >= len(passage.text)
            return PassageResult(
                collection=name,
                id=id,
                text=passage.text[offset:end],
                offset=offset,
                end=end,
                characters=len(passage.text),
                next_offset=None if is_last else end,
                metadata=metadata,
                metadata_left_out=left_out,
                notes=[] if is_last else [f"The passage goes on: call get_passage with offset={end} to read on."],
            )

        return _shrunk(piece, budget)

    def explain(
        self,
        query: str,
        id: str,  # noqa: A002
        collection: str | None = None,
        max_tokens: int | None = None,
    ) -> ExplainResult:
        """Tell which words of a passage match which words of a query.

        Raises:
            ValueError: the query is blank, or there is no such passage.
            ColBERTError: the index cannot be searched.
        """
        budget = self._budget(max_tokens)
        self._check_query(query)
        if is_blank(query):
            raise ValueError("The query is blank, so there is nothing to explain; give the words that were searched for.")
        name, index = self._index(collection)
        passage = _passage(name, index, id)
        evidence = index.explain(query, passage, mode="hybrid" if index.has_words() else "maxsim")
        start, end = evidence.window
        strongest = sorted(evidence.highlights, key=lambda mark: -mark.weight)

        def of(tokens: int) -> ExplainResult:
            n = min(len(strongest), tokens // 20 + 1)
            shown = sorted(strongest[:n], key=lambda mark: mark.start)
            unmatched = list(evidence.unmatched[: tokens // 5 + 1])
            is_cut = n < len(strongest) or len(unmatched) < len(evidence.unmatched)
            return ExplainResult(
                collection=name,
                id=id,
                relevance=round(evidence.relevance, 4),
                start=start,
                end=end,
                matches=[
                    Matched(
                        words=evidence.text[mark.start : mark.end],
                        terms=list(mark.terms),
                        similarity=round(mark.similarity, 4),
                        start=mark.start,
                        end=mark.end,
                    )
                    for mark in shown
                ],
                unmatched=unmatched,
                notes=[f"Only the {n} strongest of {len(strongest)} matches are shown."] if is_cut else [],
            )

        return _shrunk(of, budget)

    def list_collections(
        self, collection: str | None = None, after: str | None = None, max_tokens: int | None = None
    ) -> CollectionsResult:
        """Tell which collections there are, how large, and by which metadata they can be filtered.

        Raises:
            ValueError: there is no such collection.
        """
        budget = self._budget(max_tokens)
        names = self.catalogue.names()
        if collection is not None:
            self._check_name(collection, names)
            names = [collection]
        result = CollectionsResult(collections=[])
        for name in names:
            if after is not None and name <= after:
                continue
            about = self._about(name)
            result.collections.append(about)
            while result.tokens() + _RESERVE > budget and about.fields and (collection or len(result.collections) == 1):
                about.fields.pop()
                about.fields_left_out = True
            if result.tokens() + _RESERVE > budget and len(result.collections) > 1:
                result.collections.pop()
                result.next = result.collections[-1].name
                result.notes.append(f"There are more collections: call list_collections with after={result.next!r}.")
                break
        return result

    def add_passages(self, passages: Sequence[Passage], collection: str | None = None) -> AddResult:
        """Add passages, or replace those whose ids are known.

        Raises:
            ValueError: there are none, or too many.
            ColBERTError: the index cannot be changed.
        """
        if not 0 < len(passages) <= self.limits.passages:
            raise ValueError(f"There are {len(passages)} passages; give 1 to {self.limits.passages} of them in one call.")
        name, index = self._index(collection)
        added = index.add(passages, progress=False)
        return AddResult(collection=name, added=len(set(added)), passages=index.count())

    def _about(self, name: str) -> CollectionAbout:
        try:
            index = self.catalogue.get(name)
            modes = ["hybrid", "maxsim", "words"] if index.has_words() else ["maxsim"]
            fields = index.fields(limit=_MOST_FIELDS)
            return CollectionAbout(
                name=name,
                passages=index.count(),
                modes=modes,
                fields=[MetadataName(name=each.path, types=each.types, examples=list(each.examples)) for each in fields],
                fields_left_out=fields.next is not None,
            )
        except (ColBERTError, OSError) as error:  # the others can be used all the same
            return CollectionAbout(name=name, passages=None, problem=sentence_of(error))

    def _index(self, collection: str | None) -> tuple[str, AnyIndex]:
        names = self.catalogue.names()
        if collection is None:
            if len(names) != 1:
                raise ValueError(f"Say which collection; those are {some_names(names)}.")
            collection = names[0]
        self._check_name(collection, names)
        return collection, self.catalogue.get(collection)

    def _check_name(self, collection: str, names: list[str]) -> None:
        if collection not in names:
            raise ValueError(f"There is no collection {collection!r:.100}; those are {some_names(names)}.")

    def _check_query(self, query: str) -> None:
        self.limits.check_queries([check_text(query, "The query")])

    def _budget(self, max_tokens: int | None) -> int:
        if max_tokens is None:
            return self.max_tokens
        if max_tokens < LEAST_TOKENS:
            raise ValueError(f"max_tokens is {max_tokens}, and an answer needs at least {LEAST_TOKENS}; leave it out.")
        return min(max_tokens, self.max_tokens)


def _passage(name: str, index: AnyIndex, id_: str) -> Passage:
    (passage,) = index.get([check_text(id_, "id")])
    if passage is None:
        raise ValueError(f"There is no passage {id_!r:.100} in the collection {name!r}; take an id that search gave.")
    return passage


def _odd_conditions(index: AnyIndex, where: dict[str, Any] | None) -> list[str]:
    """What a filter that found nothing asks for and no passage has, such as a field that is spelt wrong."""
    if not where:
        return []
    return list(dict.fromkeys(index.complaints(where)))[:3]


def _fitting_hits(name: str, hits: Sequence[Hit], notes: list[str], budget: int) -> SearchResult:
    """The hits that fit, best first; each is a part of its passage, and the first is there in any case."""
    left = budget - SearchResult(collection=name, hits=[], notes=notes).tokens() - min(_RESERVE, budget // 4)
    share = left // max(len(hits), 1)
    parts: list[Found] = []
    for hit in hits:
        found = _part(hit, share)
        if found.tokens() > left and not parts:
            found = _first_part(hit, left)
        if found.tokens() > left and parts:
            break
        left -= found.tokens()
        parts.append(found)
    result = _with_notes(name, parts, hits, notes, budget)
    while (over := result.tokens() - budget) > 0 and parts and (len(parts) > 1 or len(parts[0].text) > 1):
        if len(parts) > 1:
            parts.pop()
        else:
            parts = [_first_part(hits[0], max(parts[0].tokens() - over, 1))]
            if len(parts[0].text) == len(result.hits[0].text):  # what is over is not text
                break
        result = _with_notes(name, parts, hits, notes, budget)
    return result


def _with_notes(name: str, parts: list[Found], hits: Sequence[Hit], notes: list[str], budget: int) -> SearchResult:
    """The result, with what to know of the hits that are not there, and of those of which a part is."""
    rest = hits[len(parts) :]
    ids = _some_ids(rest)
    said = []
    if rest:
        named = f" (ids {', '.join(ids)})" if ids else ""
        said = [f"{len(rest)} more did not fit into {budget} tokens{named}; get_passage reads one, and where leaves some out."]
    elif any(found.end - found.start < found.characters for found in parts):
        said = ["Of long passages only the part that matched is shown; get_passage gives the rest."]
    return SearchResult(collection=name, hits=list(parts), left_out=ids, notes=[*notes, *said])


def _part(hit: Hit, share: int) -> Found:
    """What matched of a passage, with the sentences around it that its share of the tokens has room for."""
    metadata, left_out = fitting_metadata(hit.passage.metadata, max(int(share * _METADATA_SHARE), 50))
    most = min(max(share * 3, _SHORTEST_PART), _LONGEST_PART)  # 3 of the 4 characters of a token; the rest is around them
    return _found(hit, widen(hit.passage.text, hit.span, most), metadata, left_out)


def _first_part(hit: Hit, tokens: int) -> Found:
    """As much of the part that matched as there is room for."""
    start, _ = hit.span
    text = hit.passage.text

    def of(tokens: int) -> Found:
        return _found(hit, (start, end_of_piece(text, start, tokens)), {}, [f"{name:.80}" for name in hit.passage.metadata][:3])

    return _shrunk(of, tokens)


def _found(hit: Hit, span: tuple[int, int], metadata: dict[str, Any], left_out: list[str]) -> Found:
    start, end = span
    return Found(
        rank=hit.rank,
        id=hit.passage.id,
        relevance=round(hit.value, 4),
        text=hit.passage.text[start:end],
        start=start,
        end=end,
        characters=len(hit.passage.text),
        metadata=metadata,
        metadata_left_out=left_out,
    )


def _some_ids(hits: Sequence[Hit]) -> list[str]:
    """The first ids that are short together."""
    ids: list[str] = []
    for hit in hits[:_MOST_IDS]:
        if sum(map(len, ids)) + len(hit.passage.id) > _LONGEST_IDS:
            break
        ids.append(hit.passage.id)
    return ids


def _shrunk(make: Callable[[int], R], budget: int) -> R:
    """What ``make`` gives for as many tokens of content as the whole then takes no more than the budget."""
    tokens = budget
    result = make(tokens)
    while (over := result.tokens() - budget) > 0 and tokens > 1:
        tokens = max(min(tokens - over, int(tokens * 0.9)), 1)
        result = make(tokens)
    return result

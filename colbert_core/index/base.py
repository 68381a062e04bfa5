"""What an index on one machine and one in shards have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.checks import check_count, check_relevance, check_similarity
from colbert_core.index.advice import name_in_a_filter
from colbert_core.index.reports import MetadataField
from colbert_core.index.restriction import Restriction
from colbert_core.metadata import dump_metadata
from colbert_core.search.lexical import by_words
from colbert_core.storage.fields import TYPES
from colbert_core.text.blank import check_queries
from colbert_core.types import Hit, Page, Passage, check_text
from colbert_core.vectors.embeddings import query_matrices

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Self

    from numpy.typing import NDArray

    from colbert_core.evidence.evidence import Evidence
    from colbert_core.model.fingerprint import EncoderFingerprint, LazyEncoder
    from colbert_core.search.config import SearchConfig
    from colbert_core.search.lexical import ByWords
    from colbert_core.storage.fields import Outline, Survey
    from colbert_core.types import Mode, Query, TokenEncoder, Where

# How far the length of a row may be from 1, as for the query vectors of an encoder.
_UNIT_ERROR = 1e-2
# Characters of a string that is an example of a field's values.
_LONGEST_EXAMPLE = 100


class IndexBase(ABC):
    """An index with an encoder that is loaded when it is first needed."""

    _encoder: LazyEncoder

    @property
    def made_with(self) -> EncoderFingerprint:
        """Where the vectors come from."""
        return self._encoder.fingerprint

    @property
    def encoder(self) -> TokenEncoder:
        """What encodes texts; loaded at first use where the index was opened without one.

        Raises:
            EncoderMismatchError: the index holds vectors from elsewhere, or its encoder cannot be loaded or has changed.
        """
        return self._encoder.get()

    @property
    def encoder_name(self) -> str | None:
        """Name of the encoder the index was made with, which is not loaded for it; None for vectors from elsewhere."""
        return self.made_with.name

    @property
    def dim(self) -> int:
        """Components of every vector."""
        return self.made_with.dim

    def search(
        self,
        query: Query,
        k: int = 10,
        *,
        where: Where | None = None,
        ids: Iterable[str] | None = None,
        min_relevance: float | None = None,
        config: SearchConfig | None = None,
        exact: bool = False,
        evidence: bool = False,
        mode: Mode = "maxsim",
        weight: float | None = None,
    ) -> list[Hit]:
        """Find the passages that match a query best.

        Args:
            query: text, or its vectors, *Shape:* (n_q, dim); rows are scaled to length 1.
            k: most hits, at least 1; there are exactly min(k, number of matching passages) unless ``min_relevance`` drops some.
            where: only passages whose metadata match: ``{"year": {"$gte": 2020}, "lang": "en"}``, by the operators of
                ``colbert_core.storage.filters``; or a function of a passage, which is called for every passage (of an index
                in memory, while it is locked; of one in shards, in their processes). A ``FilterWarning`` says where a condition
                names a field that no passage has, or a type that none of its values has.
            ids: only passages with these ids; an empty list matches none.
            min_relevance: least relevance of a hit, from 0 to 1.
            config: how much of a compressed index to look at; None chooses by k.
            exact: score every passage that may be found. Scores are the same either way.
            evidence: give each hit the ``evidence`` of its window, as ``explain`` does; the query must be text.
            mode: "maxsim" ranks by vectors; "hybrid" by relevance + weight * coverage of the query's words, which finds
                identifiers and rare names as well, and ``min_relevance`` is of that sum; "words" by coverage alone, among the
                passages that have one of the words, and loads no model.
            weight: of the coverage in hybrid mode, from 0 to 1; None for .1 to .5, by how rare the words of the query are.

        Returns:
            Hits, best first, equal scores by id; none from an empty index.

        Raises:
            TypeError: the query is neither a string nor an array, or no string where evidence is wanted; k is no whole number,
                or a filter's value is of a wrong type.
            ValueError: the query is blank, k is below 1, vectors are of another dim, zero or not finite, or a filter's
                operator is unknown.
            EncoderMismatchError: the query is text and the index has no encoder.
            DamagedIndexError: a file of the index has changed.
        """
        (hits,) = self.search_many(
            [query],
            k,
            where=where,
            ids=ids,
            min_relevance=min_relevance,
            config=config,
            exact=exact,
            evidence=evidence,
            mode=mode,
            weight=weight,
        )
        return hits

    def search_many(
        self,
        queries: Iterable[Query],
        k: int = 10,
        *,
        where: Where | None = None,
        ids: Iterable[str] | None = None,
        min_relevance: float | None = None,
        config: SearchConfig | None = None,
        exact: bool = False,
        evidence: bool = False,
        mode: Mode = "maxsim",
        weight: float | None = None,
    ) -> list[list[Hit]]:
        """``search`` for several queries over one state of the index, by as many threads as ``set_num_threads`` allows.

        Texts are encoded together, in batches of other shapes than alone, so scores may differ in their last digits.
        """
        queries = _query_list(queries)
        if evidence and (without_words := [query for query in queries if not isinstance(query, str)]):
            kind = type(without_words[0]).__name__
            raise TypeError(f"evidence needs the words of each query, got a {kind}; search by text for it.")
        k, min_relevance = check_count(k, "k"), check_relevance(min_relevance, "min_relevance")
        restriction, words = Restriction(where, ids), by_words(mode, weight, queries)
        matrices = self._matrices(queries, None if evidence else words)
        texts = [str(query) for query in queries] if evidence else None
        return self._hits(
            matrices, k, restriction, config=config, exact=exact, min_relevance=min_relevance, texts=texts, words=words
        )

    def search_mean(
        self,
        queries: Iterable[Query],
        k: int = 10,
        *,
        where: Where | None = None,
        ids: Iterable[str] | None = None,
        min_relevance: float | None = None,
        config: SearchConfig | None = None,
        exact: bool = False,
        mode: Mode = "maxsim",
        weight: float | None = None,
    ) -> list[Hit]:
        """Find the passages that match several queries best on average, such as a question and made-up answers to it (HyDE).

        The best of each query are looked at, twice as many each time, until no other passage can have a higher mean (the
        threshold algorithm of Fagin, Lotem and Naor, PODS 2001, section 4).

        Args:
            queries: at least one, each as in ``search``; so are the other arguments.
            k: most hits.
            where: as in ``search``.
            ids: as in ``search``.
            min_relevance: of the mean.
            config: for each query.
            exact: as in ``search``.
            mode: as in ``search``.
            weight: as in ``search``.

        Returns:
            Hits, best first; score, relevance and coverage are means over the queries, and the span is that of the query that
            matches best.

        Raises:
            ValueError: there are no queries; otherwise as ``search``.
        """
        queries = _query_list(queries)
        k, min_relevance = check_count(k, "k"), check_relevance(min_relevance, "min_relevance")
        restriction, words = Restriction(where, ids), by_words(mode, weight, queries)
        if not queries:
            raise ValueError("There are no queries to search by; give at least one.")
        matrices = self._matrices(queries, words)
        return self._mean(matrices, k, restriction, config=config, exact=exact, min_relevance=min_relevance, words=words)

    def explain(
        self,
        query: str,
        passage: str | Passage | Hit,
        *,
        min_similarity: float | None = None,
        mode: Mode = "maxsim",
    ) -> Evidence:
        """Show which words of a passage answer which words of a query, in the window of the passage that scores highest.

        The vectors are those that the index keeps, so the similarities add up to the score that a search gives. Where they
        were pooled, or the index is in shards, the passage is encoded anew.

        Args:
            query: text.
            passage: a passage of the index: its id, itself, or a hit.
            min_similarity: cosine from which a word of the query counts as found, and below which no word of the passage is
                marked, from -1 to 1. None leaves both to the lifts: by how much a cosine exceeds what is to be expected.
            mode: as in ``search``; where words rank, those that query and passage share are evidence as well.

        Raises:
            TypeError: the query is not a string.
            ValueError: the query is blank, the threshold is out of range, there is no such mode or no passage with this id, or
                the index was made without words.
            EncoderMismatchError: the index has no encoder.
            DamagedIndexError: a file of the index has changed.
        """
        if not isinstance(query, str):
            raise TypeError(f"explain needs the words of the query, got a {type(query).__name__}.")
        check_similarity(min_similarity)
        passage = passage.passage if isinstance(passage, Hit) else passage
        if not isinstance(passage, str | Passage):
            raise TypeError(f"passage must be an id, a Passage or a Hit, got {passage!r:.80}.")
        words = by_words(mode, None, [query])
        return self._explain(query, passage, min_similarity, by_words=words is not None)

    def passages(
        self,
        where: Where | None = None,
        *,
        ids: Iterable[str] | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> Page[Passage]:
        """The passages of the index, or those that a filter matches, in the order in which they were added.

        Each page is of the newest moment, and the pages together have every passage that stays as it is meanwhile just once.
        One that is added or replaced meanwhile comes at the end, also if an earlier page had it; one that is deleted is gone.

        Args:
            where: as in ``search``.
            ids: only passages with these ids.
            limit: most passages, at least 1; None for all, whose texts are in memory together.
            after: the ``next`` of the page before, to go on behind it; None for the first page.

        Returns:
            The passages. Their ``next`` is what to give as ``after`` for those that follow, None if there are no more. An index
            in shards gives them shard by shard.

        Raises:
            TypeError: ``ids`` is one string, limit is no whole number, or a filter's value is of a wrong type.
            ValueError: limit is below 1, ``after`` is of another index, or a filter's operator is unknown.

        Example:
            >>> index = Index.create()
            >>> index.add([Passage(f"p{n}", f"Page {n} is about cats.") for n in range(3)])
            ['p0', 'p1', 'p2']
            >>> page = index.passages(limit=2)
            >>> [passage.id for passage in page], [passage.id for passage in index.passages(limit=2, after=page.next)]
            (['p0', 'p1'], ['p2'])
        """
        return self._page(Restriction(where, ids), None if limit is None else check_count(limit, "limit"), after)

    def count(self, where: Where | None = None) -> int:
        """How many passages there are, or how many of them a filter matches. No text is read, but for a function.

        Raises:
            TypeError, ValueError: the filter is wrong; see ``search``.
        """
        return self._count(Restriction(where))

    def fields(self, *, limit: int = 1000, after: str | None = None) -> Page[MetadataField]:
        """Which fields the metadata of the passages have, in the order of their names.

        Args:
            limit: most fields, at least 1. 1,000 of them take .1 s, and to count their values as much for each million.
            after: the ``next`` of the page before, to go on behind it; None for the first page.

        Returns:
            The fields. Their ``next`` is what to give as ``after`` for those that follow, None if there are no more.

        Raises:
            TypeError: limit is no whole number, or ``after`` no string.
            ValueError: limit is below 1.
        """
        limit = check_count(limit, "limit", "fields")
        if after is not None:
            check_text(after, "after")
        outline = self._outline(limit + 1, after)
        paths = list(outline)[:limit]
        return Page([_field(path, outline[path]) for path in paths], paths[-1] if len(outline) > limit else None)

    def update_metadata(
        self,
        metadata: Mapping[str, Any],
        *,
        where: Where | None = None,
        ids: Iterable[str] | None = None,
        remove: Iterable[str] = (),
    ) -> int:
        """Change metadata of passages that are in the index; their texts and vectors stay, and nothing is encoded.

        All of it is one commit (in an index in shards, one of each shard). The passages keep their places among the others.

        Args:
            metadata: keys to write, with their values; a value that is there is replaced, dicts and lists as a whole, and
                other keys stay. None is a value like any other: it is kept as null.
            where: the passages whose metadata match, as in ``search``; ``{}`` matches all.
            ids: the passages with these ids; unknown ones are no error. With ``where``, those that are both.
            remove: keys to take out; one that a passage does not have is no error.

        Returns:
            How many passages have other metadata now than before.

        Raises:
            TypeError: there is neither ``where`` nor ``ids``, metadata hold what JSON cannot, or keys are no strings.
            ValueError: a key is both written and removed, there is nothing to change, or a filter's operator is unknown.
            DamagedIndexError: a passage is not what was written; none is changed then.
            IndexLockedError: another writer was busy for longer than the timeout.
            IndexWriteError: the disk is full.

        Example:
            >>> index = Index.create()
            >>> index.add([Passage("a", "Cats purr.", {"lang": "en", "draft": True}), Passage("b", "Dogs bark.")])
            ['a', 'b']
            >>> index.update_metadata({"year": 2024}, ids=["a"], remove=["draft"])
            1
            >>> index.get(["a"])[0].metadata
            {'lang': 'en', 'year': 2024}
        """
        if where is None and ids is None:
            raise TypeError(
                "update_metadata takes where={...} or ids=[...], to say of which passages; where={} is all of them."
            )
        if not isinstance(metadata, Mapping):
            raise TypeError(f"metadata must be a dict, got {type(metadata).__name__}: {metadata!r:.80}")
        written, removed = dict(metadata), _key_list(remove)
        dump_metadata(written, "The metadata")
        if both := [key for key in removed if key in written]:
            raise ValueError(f"{both[0]!r} is to be both written and removed; name it once.")
        if not written and not removed:
            raise ValueError("There is nothing to change: metadata is empty, and no key is to be removed.")
        return self._update_metadata(Restriction(where, ids), written, removed)

    def _matrices(self, queries: list[Query], words: ByWords | None = None) -> list[NDArray[np.float32]]:
        """The vectors of queries; none where words alone rank, once the queries are checked."""
        if words is not None and words.alone:
            check_queries([check_text(text, f"Query {place}").strip() for place, text in enumerate(words.texts)])
            return []
        return query_matrices(queries, self.dim, self._encoder.get)

    @abstractmethod
    def _hits(
        self,
        matrices: Sequence[NDArray[np.float32]],
        k: int,
        restriction: Restriction,
        *,
        config: SearchConfig | None,
        exact: bool,
        min_relevance: float | None,
        texts: Sequence[str] | None = None,
        words: ByWords | None = None,
    ) -> list[list[Hit]]:
        """The best passages for each matrix, unit rows; with their evidence where the queries' texts are given."""

    @abstractmethod
    def _mean(
        self,
        matrices: Sequence[NDArray[np.float32]],
        k: int,
        restriction: Restriction,
        *,
        config: SearchConfig | None,
        exact: bool,
        min_relevance: float | None,
        words: ByWords | None = None,
    ) -> list[Hit]:
        """The best passages by the mean over at least one matrix, unit rows."""

    @abstractmethod
    def _explain(self, query: str, passage: str | Passage, min_similarity: float | None, *, by_words: bool) -> Evidence:
        """The evidence of a passage, or of the one with this id."""

    @abstractmethod
    def _survey(self, paths: Sequence[str], value: str | None = None) -> Survey:
        """Which fields there are; the kinds of some, and those that have a string for a value."""

    @abstractmethod
    def _page(self, restriction: Restriction, limit: int | None, after: str | None) -> Page[Passage]:
        """The first passages that may be found, behind those of the page before."""

    @abstractmethod
    def _count(self, restriction: Restriction) -> int:
        """How many passages may be found."""

    @abstractmethod
    def _outline(self, limit: int, after: str | None) -> Outline:
        """What the passages have in the first fields behind a path, by their order."""

    @abstractmethod
    def _update_metadata(self, restriction: Restriction, metadata: dict[str, Any], remove: list[str]) -> int:
        """Write keys, and remove others, in the metadata of the passages that may be found; how many have changed."""

    @abstractmethod
    def has_words(self) -> bool:
        """Whether hybrid search is to be had; not so of an index that was made without words, or before there were any."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what the index holds. A closed index cannot be used any more; closing it again is no error."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _query_list(queries: Iterable[Query]) -> list[Query]:
    """Return several queries as a list.

    Raises:
        TypeError: they are a single query.
    """
    if isinstance(queries, str) or hasattr(queries, "__array__"):
        raise TypeError(f"queries must be a list, got one {type(queries).__name__}; use search for a single query.")
    return list(queries)


def _key_list(keys: Iterable[str]) -> list[str]:
    """Return keys of metadata as a list.

    Raises:
        TypeError: they are one string, or something else than strings.
    """
    if isinstance(keys, str):
        raise TypeError(f"remove must be a list of keys, got one str; write [{keys!r}].")
    return [check_text(key, "A key to remove") for key in keys]


def _field(path: str, kinds: dict[str, tuple[int, list[Any]]]) -> MetadataField:
    """Tell of a field by what its values are."""
    types = {name: kinds[kind][0] for kind, name in TYPES.items() if kind in kinds}
    examples = [_example(kind, value) for kind, (_, values) in kinds.items() for value in values]
    return MetadataField(name_in_a_filter(path), types, sum(types.values()), examples)


def _example(kind: str, value: Any) -> Any:
    if kind in "bB":
        return bool(value)
    return f"{value[:_LONGEST_EXAMPLE]}…" if isinstance(value, str) and len(value) > _LONGEST_EXAMPLE else value


def check_unit_matrices(matrices: Iterable[NDArray[np.float32]], dim: int) -> Sequence[NDArray[np.float32]]:
    """Return query matrices that can be scored as they are.

    Args:
        matrices: *Shape:* (n_q, dim) each, float32, unit rows.
        dim: components that are wanted.

    Raises:
        ValueError: one is not.
    """
    checked = list(matrices)
    for position, matrix in enumerate(checked):
        is_matrix = isinstance(matrix, np.ndarray) and matrix.ndim == 2 and matrix.dtype == np.float32
        if not is_matrix or not len(matrix) or matrix.shape[1] != dim:
            got = f"{getattr(matrix, 'dtype', type(matrix).__name__)} {getattr(matrix, 'shape', '')}"
            raise ValueError(f"Query {position} must be float32 of shape (n, {dim}) with n >= 1, got {got}.")
        lengths = np.linalg.norm(matrix, axis=1)
        if not np.allclose(lengths, 1, atol=_UNIT_ERROR):
            raise ValueError(
                f"Query {position} must have rows of length 1, got lengths from {lengths.min():g} to {lengths.max():g}; "
                "use search_many, which scales them."
            )
    return checked

"""What an index on one machine and one in shards have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from colbert_core.checks import check_count, check_share, id_list
from colbert_core.index.advice import complaint, name_in_a_filter
from colbert_core.index.reports import MetadataField
from colbert_core.index.restriction import Restriction
from colbert_core.index.searching import SearchableIndex
from colbert_core.metadata import dump_metadata
from colbert_core.storage.fields import TYPES
from colbert_core.types import Page, Passage, check_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from os import PathLike
    from typing import Self

    import numpy as np
    from numpy.typing import NDArray

    from colbert_core.index.reports import IndexStats, Tuning, Verification
    from colbert_core.index.writing import FileChanges
    from colbert_core.storage.fields import Outline, Survey
    from colbert_core.storage.sources import Source
    from colbert_core.types import Query, TokenEmbeddings, Where

# Characters of a string that is an example of a field's values.
_LONGEST_EXAMPLE = 100


class IndexBase(SearchableIndex):
    """What an ``Index`` and a ``colbert_core.cluster.ShardedIndex`` have in common, which is nearly everything."""

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

    def complaints(self, where: Where) -> list[str]:
        """What is odd about a filter: a field that no passage has, or a type that none of its values has.

        A search says so once, as a ``FilterWarning``. Nothing is said of a function, nor by an index without passages.

        Raises:
            TypeError, ValueError: the filter is wrong; see ``search``.
        """
        expected = Restriction(where).expected
        survey = self._survey([each.path for each in expected])
        return [said for each in expected if (said := complaint(each, survey))] if survey.n_passages else []

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

    def embeddings(self, ids: Iterable[str]) -> list[NDArray[np.float32]]:
        """The vectors of these passages as the index keeps them, those of all windows one after the other.

        Returns:
            For each id *Shape:* (n_tokens, dim), float32, unit rows; n_tokens differs, and is 0 where nothing can be read.

        Raises:
            TypeError: ``ids`` is one string.
            ValueError: there is no passage with an id.
        """
        wanted = id_list(ids)
        found = self._embeddings(wanted)
        unknown = [passage_id for passage_id, vectors in zip(wanted, found, strict=True) if vectors is None]
        if unknown:
            raise ValueError(f"There is no passage with the id {unknown[0]!r} ({len(unknown)} of {len(wanted)} are unknown).")
        return [vectors for vectors in found if vectors is not None]

    def tune(
        self,
        target_recall: float = 0.95,
        *,
        k: int = 10,
        queries: Iterable[Query] | None = None,
        progress: bool | None = None,
    ) -> Tuning:
        """Find the quickest search that finds enough of what scoring every passage would find.

        Args:
            target_recall: part of the ``k`` best passages that has to be found on average, from 0 to 1.
            k: hits that are wanted.
            queries: texts or matrices like those to come, fifty or more; None takes 50 passages, each as a query of up to 32
                of its own vectors.
            progress: show a bar; None shows it on a terminal or in a notebook once a second has passed.

        Returns:
            The config with its measured recall and time, on the CPU; of an index in shards, the time until their answers are
            merged. The last one that is tried scores everything.

        Raises:
            ValueError: the index is empty, or there are no queries.
        """
        target_recall, k = check_share(target_recall, "target_recall"), check_count(k, "k")
        matrices = None if queries is None else self._matrices(list(queries))
        if matrices == [] or not len(self):
            raise ValueError(f"{self!r} cannot be tuned without {'queries' if matrices == [] else 'passages'}; give some.")
        return self._tune(matrices, k, target_recall, progress)

    def verify(self, n_queries: int = 20, *, progress: bool | None = None) -> Verification:
        """Check every checksum, that all parts fit together, and how much a plain search finds.

        Args:
            n_queries: how many passages are sampled, each as a query of up to 32 of its own vectors.
            progress: show a bar; None shows it on a terminal or in a notebook once a second has passed.
        """
        return self._verify(check_count(n_queries, "n_queries", "queries"), progress)

    @abstractmethod
    def save(self, path: str | PathLike[str], *, overwrite: bool = False) -> None:
        """Write a copy of the newest state to a folder."""

    @abstractmethod
    def add(
        self,
        passages: Iterable[Passage],
        *,
        embeddings: Iterable[NDArray[np.float32]] | TokenEmbeddings | None = None,
        pool_factor: float = 1,
        progress: bool | None = None,
    ) -> list[str]:
        """Add passages; one whose id is known already replaces the old one."""

    @abstractmethod
    def delete(self, ids: Iterable[str]) -> int:
        """Delete passages by id; how many are gone."""

    @abstractmethod
    def delete_where(self, where: Where) -> int:
        """Delete the passages that a filter matches; how many are gone."""

    @abstractmethod
    def clear(self) -> None:
        """Delete all passages."""

    @abstractmethod
    def compact(self, *, progress: bool | None = None) -> None:
        """Put segments together, and give the room of deleted passages back."""

    @abstractmethod
    def get(self, ids: Iterable[str]) -> list[Passage | None]:
        """The passages with these ids, in their order; None where there is none."""

    @abstractmethod
    def ids(self, where: Where | None = None) -> list[str]:
        """The ids of all passages, or of those that a filter matches."""

    @abstractmethod
    def stats(self) -> IndexStats:
        """Figures of the newest state."""

    @abstractmethod
    def __contains__(self, passage_id: object) -> bool:
        """Whether there is a passage with this id."""

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
    def _embeddings(self, ids: Sequence[str]) -> list[NDArray[np.float32] | None]:
        """The vectors of these passages, *Shape:* (n_tokens, dim) each, float32; None where there is no such passage."""

    @abstractmethod
    def _tune(self, matrices: list[NDArray[np.float32]] | None, k: int, target_recall: float, progress: bool | None) -> Tuning:
        """The quickest search that finds enough; without matrices by passages of the index."""

    @abstractmethod
    def _verify(self, n_queries: int, progress: bool | None) -> Verification:
        """What is wrong, and the recall by so many passages of the index."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of passages."""

    # What keeps an index in step with folders

    @abstractmethod
    def _sources(self) -> list[tuple[Source, int]]:
        """The files that the index was made of, by their names, each with the number of its passages that are left."""

    @abstractmethod
    def _owners(self, ids: Sequence[str]) -> dict[str, str]:
        """The name of the file of each of these passages that is of one."""

    @abstractmethod
    def _next_row(self) -> Any:
        """Where the next passage will lie, for ``FileChanges.whole``."""

    @abstractmethod
    def _put_files(self, passages: Sequence[Passage], files: FileChanges) -> None:
        """Add passages of files, replacing those that these files gave before."""

    @abstractmethod
    def _refit_if_due(self, first: int, *, progress: bool | None) -> None:
        """Compress what has become large enough, from so many tokens on, if the codec is one that may change."""

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

"""Change an index in shards: each shard gets what belongs to it, in a commit of its own."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from colbert_core.checks import id_list
from colbert_core.cluster.calls import shard_list
from colbert_core.cluster.layout import Layout, shard_of
from colbert_core.cluster.reading import ReadableShards
from colbert_core.cluster.refitting import Refit, refit, take_extension
from colbert_core.errors import ClusterError, DamagedIndexError, IndexExistsError, ReadOnlyIndexError
from colbert_core.index.batches import dump_all
from colbert_core.index.restriction import Restriction
from colbert_core.index.writing import FileChanges, add_in_batches, renamed
from colbert_core.paths import as_path
from colbert_core.progress import progress_bar
from colbert_core.storage.aside import folder_aside, is_free
from colbert_core.storage.durable import disk_errors, sync_file, sync_folder
from colbert_core.types import TokenEmbeddings
from colbert_core.vectors.embeddings import embeddings_of, of_owner, token_ends
from colbert_core.vectors.pooling import check_factor, pool_embeddings
from colbert_core.vectors.segment import merged_segment

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from os import PathLike

    from numpy.typing import NDArray

    from colbert_core.cluster.calls import Calls
    from colbert_core.storage.sources import Source
    from colbert_core.types import Passage, Where
    from colbert_core.vectors.segment import Segment


# Passages of a file that no file has: the next sync reads it again, whatever is left of it.
_INTERRUPTED = -1


class WritableShards(ReadableShards):
    """The writing half of a ``ShardedIndex``."""

    @classmethod
    def create(cls, *_: Any, **__: Any) -> NoReturn:
        """Refused: the codec of all shards is fitted to passages, so ``colbert_core.cluster.build`` makes them together.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            "ShardedIndex.create is not to be had: the codec of all shards is fitted to their passages. Make the index with "
            "colbert_core.cluster.build or `colbert cluster build`, and open it with ShardedIndex.open."
        )

    @classmethod
    def convert(cls, *_: Any, **__: Any) -> NoReturn:
        """Refused: an index of another library lies on one machine, and becomes an ``Index`` there.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            "ShardedIndex.convert is not to be had: use Index.convert; or make shards of the texts with "
            "colbert_core.cluster.build, which encodes them."
        )

    def add(
        self,
        passages: Iterable[Passage],
        *,
        embeddings: Iterable[NDArray[np.float32]] | TokenEmbeddings | None = None,
        pool_factor: float = 1,
        progress: bool | None = None,
    ) -> list[str]:
        """Add passages; one whose id is known already replaces the old one. As ``Index.add``, with the codec that is there.

        They are encoded here; for millions there is ``build``. ``refit`` gives the codec of a collection that has grown more
        centroids.

        Args:
            passages: with ids that differ from each other.
            embeddings: their vectors, if they were made elsewhere.
            pool_factor: keep about 1 / pool_factor of each passage's vectors; a larger one of ``build`` counts.
            progress: show a bar; None shows it on a terminal or in a notebook once a second has passed.

        Returns:
            Their ids, in the order given.

        Raises:
            TypeError, ValueError: as ``Index.add``.
            PartialAddError: any error after some were added; ``added`` says which.
        """
        return add_in_batches(
            passages,
            embeddings,
            dim=self.dim,
            encode=lambda texts, bar: self.encoder.encode_passages(texts, progress=bar),
            commit=partial(self._commit, of_encoder=embeddings is None or isinstance(embeddings, TokenEmbeddings)),
            pool_factor=max(check_factor(pool_factor), self._pool_factor),
            progress=progress,
            in_order=False,
        )

    def _commit(
        self, batch: list[Passage], _: list[str], windows: TokenEmbeddings, added: list[str], *, of_encoder: bool
    ) -> None:
        """Add passages to their shards; ``added`` learns the ids of those that are in, whatever happens.

        What is not of an encoder is sent as an array for each passage, so that a blank text keeps its vectors.
        """
        ends = token_ends(windows)
        places: dict[int, list[int]] = {}
        for place, passage in enumerate(batch):
            places.setdefault(shard_of(passage.id, len(self._replicas)), []).append(place)
        calls = {
            shard: (
                "add",
                ([batch[place] for place in of_shard],),
                {
                    "embeddings": embeddings_of(windows, of_shard)
                    if of_encoder
                    else [of_owner(windows, place, ends).vectors for place in of_shard],
                    "refit": False,
                    "progress": False,
                },
            )
            for shard, of_shard in places.items()
        }
        done, missing = self._replicas.attempt(calls, wait=True)
        added += [passage.id for passage in batch if shard_of(passage.id, len(self._replicas)) in done]
        if missing:
            raise self._replicas.unavailable(missing)

    def delete(self, ids: Iterable[str]) -> int:
        """Delete passages by id; unknown ids are no error.

        Returns:
            How many passages are gone. Those of a shard that was lost after it had deleted them, and asked again, do not count.
        """
        routed = self._route(list(dict.fromkeys(id_list(ids))))
        return sum(self._replicas.ask({shard: ("delete", (of_shard,), {}) for shard, of_shard in routed.items()}).values())

    def delete_where(self, where: Where) -> int:
        """Delete the passages that a filter matches; ``{}`` matches all of them.

        Returns:
            As ``delete``.
        """
        self._advise(Restriction(where))
        return sum(self._replicas.ask_all("delete_where", where))

    def _update_metadata(self, restriction: Restriction, metadata: dict[str, Any], remove: list[str]) -> int:
        """Those of a shard that was lost after it had changed them, and asked again, do not count."""
        self._advise(restriction)
        shards: Iterable[int] = range(len(self._replicas))
        routed = None if restriction.ids is None else self._route(restriction.ids)
        calls = {
            shard: (
                "update_metadata",
                (metadata,),
                {"where": restriction.where, "ids": None if routed is None else routed[shard], "remove": remove},
            )
            for shard in (shards if routed is None else routed)
        }
        return sum(self._replicas.ask(calls).values())

    def _sources(self) -> list[tuple[Source, int]]:
        """The files that the index was made of; shards that say different things of one were interrupted between them.

        A shard knows of the files that have passages in it. The home of a file, which its name hashes to, knows of it always,
        so a file is in as a whole if all who know of it agree, its home does, and together they have all of its passages.
        """
        told: dict[str, dict[int, tuple[Source, int]]] = {}
        for shard, sources in enumerate(self._replicas.ask_all("_sources")):
            for source, left in sources:
                told.setdefault(source.name, {})[shard] = source, left
        merged = []
        for name, entries in sorted(told.items()):
            known, left = [source for source, _ in entries.values()], sum(left for _, left in entries.values())
            is_whole = self._home(name) in entries and known.count(known[0]) == len(known)
            merged.append((known[0] if is_whole else replace(known[0], n_passages=_INTERRUPTED), left))
        return merged

    def _home(self, name: str) -> int:
        """The shard that knows of a file in any case."""
        return shard_of(name, len(self._replicas))

    def _owners(self, ids: Sequence[str]) -> dict[str, str]:
        calls: Calls = {shard: ("_owners", (of_shard,), {}) for shard, of_shard in self._route(ids).items()}
        return {passage_id: owner for owners in self._replicas.ask(calls).values() for passage_id, owner in owners.items()}

    def _next_row(self) -> list[int]:
        return self._replicas.ask_all("_next_row")

    def _put_files(self, passages: Sequence[Passage], files: FileChanges) -> None:
        """Add passages of files, in one commit of each shard that has something of them."""
        if files.moved:
            self._move_files(files.moved)
        windows = None
        if passages:
            dump_all(passages)  # a mistake is found before the encoder takes its time
            windows = self.encoder.encode_passages([passage.text for passage in passages], progress=False)
            windows = pool_embeddings(windows, self._pool_factor)
        places: dict[int, list[int]] = {shard: [] for shard in self._shards}
        for place, passage in enumerate(passages):
            places[shard_of(passage.id, len(self._replicas))].append(place)
        calls: Calls = {
            shard: (
                "_put_part",
                (
                    [passages[place] for place in of_shard],
                    embeddings_of(windows, of_shard) if windows is not None and of_shard else None,
                    self._part_of(files, shard, [files.owners[place] for place in of_shard]),
                    [name for name in files.sources if self._home(name) == shard],
                ),
                {},
            )
            for shard, of_shard in places.items()
        }
        self._replicas.ask(calls if files.sources else {})

    @staticmethod
    def _part_of(files: FileChanges, shard: int, owners: Sequence[str]) -> FileChanges:
        whole = {name: None if rows is None else rows[shard] for name, rows in files.whole.items()}
        return FileChanges(owners, files.sources, whole)

    def _move_files(self, moved: Mapping[str, Source]) -> None:
        """Give passages of files that have moved their new ids, by which they belong to other shards, with their vectors."""
        taken = self._replicas.ask_all("_take_files", list(moved))
        take_extension(self._replicas)
        passages: list[Passage] = []
        owners: list[str] = []
        segments: list[Segment] = []
        for of_passages, old_passages, segment in taken:
            if segment is not None:
                segments.append(replace(segment, pids=segment.pids + len(passages)))
            passages += [renamed(each, old, moved[old]) for old, each in zip(of_passages, old_passages, strict=True)]
            owners += [moved[old].name for old in of_passages]
        sources = {**dict.fromkeys(moved), **{source.name: source for source in moved.values()}}
        calls: dict[int, tuple[str, tuple[Any, ...], dict[str, Any]]] = {}
        for shard in self._shards:
            places = [place for place, each in enumerate(passages) if shard_of(each.id, len(self._replicas)) == shard]
            files = FileChanges([owners[place] for place in places], sources, dict.fromkeys(moved))
            home = [name for name in sources if self._home(name) == shard]
            calls[shard] = "_put_part", ([passages[place] for place in places], _windows_of(segments, places), files, home), {}
        self._replicas.ask(calls)

    def _refit_if_due(self, first: int, *, progress: bool | None) -> None:
        """The codec stays; ``refit`` is what adds centroids."""

    def refit(self, *, progress: bool | None = None) -> Refit:
        """Give the codec more centroids, if the collection has grown fourfold since it was fitted.

        An ``Index`` does this by itself in ``add``. Here it is a step of its own, since it takes minutes for millions of tokens
        and a commit of every shard. Vectors that are there stay as they are, and score what they scored, to the last digit;
        what is added from then on is compressed with less error.

        Searches and writers go on meanwhile. A call that was interrupted leaves shards with the old codec and shards with the
        new one; all of them can be searched and added to, but ``save``, ``publish`` and ``split`` want one codec. Called again
        it goes on with the codec that the first call made.

        Args:
            progress: show a bar; None shows it on a terminal or in a notebook once a second has passed.

        Returns:
            What was done; ``added`` is 0 where it was not time.

        Raises:
            IndexLockedError: somebody else refits, or a writer was busy for long.
            ReadOnlyIndexError: the index is published.
            ClusterError: shards have different codecs.
            ShardUnavailableError: a shard gave no answer in time.
            IndexWriteError: the disk is full or failed.
        """
        return refit(self._replicas, progress=progress)

    def clear(self) -> None:
        """Delete all passages. The codec stays, since every shard compresses with it."""
        self._replicas.ask_all("delete_where", {})

    def compact(self, *, progress: bool | None = None) -> None:
        """Put each shard into one segment, without what was deleted, and give the room back. The codec stays.

        All shards do it at once, for as long as it takes: ``timeout`` is for those that are lost meanwhile.

        Args:
            progress: show a bar; None shows it on a terminal or in a notebook once a second has passed.
        """
        with progress_bar("Compacting", len(self._replicas), "shard", progress) as bar:
            self._replicas.ask_all("_merge", patiently=True)
            bar.update(len(self._replicas))

    def save(self, path: str | PathLike[str], *, overwrite: bool = False) -> None:
        """Write a copy of all shards to a folder, which ``ShardedIndex.open`` opens.

        Each shard is copied as it is at one moment, and all of them at about the same: what is written meanwhile may be in the
        copy of one shard and not yet in that of another.

        Args:
            path: a folder that is new or empty, under a path that every node sees.
            overwrite: do nothing if ``path`` is where the index is already. Another one is never overwritten: shards cannot be
                replaced in one step.

        Raises:
            IndexExistsError: there is something at ``path``.
            ReadOnlyIndexError: the index is published; ``restore`` makes a folder of it.
            ClusterError: a refit is not done.
            DamagedIndexError: nodes wrote their shards where they are not seen from here.
        """
        target, layout = as_path(path).absolute(), self._replicas.layout
        if not isinstance(layout, Layout):
            raise ReadOnlyIndexError(
                f"{layout.folder} is published; colbert_core.cluster.restore makes a folder of it, with every file checked."
            )
        if overwrite and target.resolve() == layout.folder.resolve():  # also through a link
            return
        if not is_free(target):
            raise IndexExistsError(
                f"{target} holds something already, and shards are not overwritten; name a folder that is new or empty."
            )
        with contextlib.ExitStack() as stack:
            with disk_errors(target):
                copy = Layout(stack.enter_context(folder_aside(target)) / "new")
                copy.folder.mkdir()
            calls: Calls = {shard: ("save", (copy.shard(shard),), {}) for shard in self._shards}
            layout.check_refit()
            before = self._codecs()
            self._replicas.ask(calls, patiently=True)
            if len(before | self._codecs()) > 1:  # some copies may have the old one, and some the new one
                raise ClusterError(f"{layout.folder} was refit while it was saved; save it again.")
            if missing := copy.missing(len(self._replicas)):
                raise DamagedIndexError(
                    f"Shards {shard_list(missing)} were saved, but are not below {target}: every node has to see that path."
                )
            with disk_errors(target):
                if layout.codec.is_file():
                    shutil.copyfile(layout.codec, copy.codec)
                    sync_file(copy.codec)
                copy.write(layout.read())
                copy.folder.rename(target)  # an empty folder gives way
                sync_folder(target.parent)

    def _codecs(self) -> set[str | None]:
        """The ids of the codecs that shards have."""
        return {about.codec for about in self._replicas.ask_all("about")}


def _windows_of(segments: Sequence[Segment], places: Sequence[int]) -> Segment | None:
    """The windows of some passages, with pids that count from 0; None if they have none.

    Args:
        segments: windows of all passages, in the order of their pids.
        places: the passages, ascending.
    """
    pids = np.array(places, np.int64)
    chosen = [(segment, kept) for segment in segments if (kept := segment.find(pids)).any()]
    if not chosen:
        return None
    merged = merged_segment(chosen)
    return replace(merged, pids=np.searchsorted(pids, merged.pids).astype(np.int64))

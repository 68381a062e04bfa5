"""Add, delete and compress: what an index writes, each batch in one commit."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.checks import check_ids, check_passages
from colbert_core.errors import DamagedIndexError, IndexLockedError, PartialAddError
from colbert_core.index.batches import batched, dump_all
from colbert_core.index.compaction import (
    compress,
    plan_commit,
    plan_extension,
    plan_merge,
    plan_recompression,
    sample_vectors,
)
from colbert_core.index.restriction import Restriction
from colbert_core.index.settings import stored_settings
from colbert_core.index.state import damage_named
from colbert_core.memory import give_back
from colbert_core.metadata import dump_metadata
from colbert_core.progress import progress_bar
from colbert_core.storage.changes import Changes
from colbert_core.types import Passage, TokenEmbeddings
from colbert_core.vectors.codec import MOST_CENTROIDS, ResidualCodec, count_centroids, sample_size
from colbert_core.vectors.embeddings import vectors_for, without_blank
from colbert_core.vectors.pooling import check_factor, pool_embeddings
from colbert_core.vectors.segment import Segment, as_segment

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from colbert_core.index.foreign import ForeignIndex
    from colbert_core.index.versions import Versions
    from colbert_core.storage.sources import Source
    from colbert_core.storage.store import Store
    from colbert_core.storage.transaction import Reader, Writer
    from colbert_core.types import Where

# Passages stay uncompressed up to here: scoring all of them takes 10 ms, and a codec would have little to learn from.
FIRST_FIT = 2**17
# An add that goes on longer is compressed in the middle; up to there, a codec that sees all of it is worth the room.
FIRST_FIT_AMID = 2**20
# ``compact`` compresses from here on: fewer vectors than centroids' worth teach nothing.
SMALLEST_FIT = 2**10
# A codec gets more centroids when the collection has grown so many times.
_GROWTH = 4
# Passages whose metadata are changed together.
_READ_AT_A_TIME = 1000
# How often a function chooses among passages again because metadata changed meanwhile.
_TRIES = 100


@dataclass(frozen=True)
class FileChanges:
    """What a commit does to the files that passages are of.

    Attributes:
        owners: for each passage added, the name of its file; none where passages are of no file.
        sources: what is known of files now, by their names; None forgets one.
        whole: names of files that are in as a whole with this commit, or gone: their passages of before go. For a file of
            several commits there is the first row that stays, in shards the first of each; None for those of this commit.
        moved: what is known of files that lie elsewhere now, by their old names; their passages get the new name.
    """

    owners: Sequence[str] = ()
    sources: Mapping[str, Source | None] = field(default_factory=dict)
    whole: Mapping[str, Any] = field(default_factory=dict)
    moved: Mapping[str, Source] = field(default_factory=dict)

    def stale_rows(self, reader: Reader, first: int) -> Iterator[int]:
        """The rows that go, if the first row of this commit is ``first``."""
        rows = reader.sources.rows_of(name for name, start in self.whole.items() if start is None)
        yield from (row for row in rows if row < first)
        for name, start in self.whole.items():
            if start is not None:
                yield from (row for row in reader.sources.rows_of([name]) if row < start)

    def renamed_passages(self, reader: Reader) -> Iterator[tuple[int, Passage, str]]:
        """Row, passage and new metadata of what is of the files that have moved."""
        for old, source in self.moved.items():
            rows = reader.sources.rows_of([old])
            for row, passage in zip(rows, reader.passages(rows), strict=True):
                new = renamed(passage, old, source)
                yield row, Passage(new.id, new.text), dump_metadata(new.metadata, f"Metadata of passage {new.id!r}")


def renamed(passage: Passage, old: str, source: Source) -> Passage:
    """A passage of a file that was moved, as it is where the file is now.

    Args:
        passage: of the file.
        old: name of the file before.
        source: what is known of the file now.
    """
    start = f"{old}#"
    new_id = f"{source.name}#{passage.id.removeprefix(start)}" if passage.id.startswith(start) else passage.id
    was = {"source": old, "document_id": old}
    metadata = {key: source.name if was.get(key) == value else value for key, value in passage.metadata.items()}
    metadata |= {"path": source.path} if "path" in metadata else {}
    return Passage(new_id, passage.text, metadata)


NO_FILES = FileChanges()


def add_in_batches(
    passages: Iterable[Passage],
    embeddings: Iterable[NDArray[np.float32]] | TokenEmbeddings | None,
    *,
    dim: int,
    encode: Callable[[list[str], bool | None], TokenEmbeddings],
    commit: Callable[[list[Passage], list[str], TokenEmbeddings, list[str]], None],
    pool_factor: float,
    progress: bool | None,
    label: str = "Adding",
    in_order: bool = True,
    refit: Callable[[int], None] | None = None,
) -> list[str]:
    """Check, encode and commit passages, some thousand at most at a time; the one loop behind every ``add``.

    Args:
        passages: a list is checked before anything is added; a stream as it comes.
        embeddings: their vectors, if they were made elsewhere.
        dim: components of every vector.
        encode: gives the vectors of texts; its second argument says whether to show a bar.
        commit: adds a batch with its metadata as JSON and its windows; it appends to the last list the ids of those that are
            in, whatever happens.
        pool_factor: keep about 1 / pool_factor of each passage's vectors.
        progress: show a bar; None shows it on a terminal or in a notebook once a second has passed.
        label: of the bar.
        in_order: a batch that fails adds nothing, so that what was added is the beginning of ``passages``.
        refit: compresses what has become large enough, from a number of tokens on; called after each batch. None does not.

    Returns:
        The ids, in the order given.

    Raises:
        TypeError, ValueError: passages, embeddings or the factor are wrong.
        PartialAddError: any error after some passages were added.
    """
    pool_factor = check_factor(pool_factor)
    total = len(passages) if isinstance(passages, (list, tuple)) else None
    if total is not None or isinstance(passages, Passage):
        passages = check_passages(passages)
        check_ids(Counter(passage.id for passage in passages))
        dump_all(passages)
    vectors = vectors_for(passages, embeddings, dim) if embeddings is not None else None
    # Of vectors without tokens nobody knows which are a model's own.
    n_protected = None if embeddings is None or isinstance(embeddings, TokenEmbeddings) else 0
    added: list[str] = []
    seen: set[str] = set()
    batches = batched(passages)
    batch: list[Passage] | None = []
    try:
        batch = next(batches, None)
        following = next(batches, None) if batch else None
        is_alone = following is None  # then the encoder's own bar shows more
        with progress_bar(label, total, "passage", False if is_alone else progress) as bar:
            while batch:
                ids = [passage.id for passage in batch]
                check_ids(Counter(ids), seen)
                metadata = dump_all(batch)  # before the encoder takes its time: nobody can change them any more
                if vectors is not None:
                    windows = vectors(batch)
                else:
                    windows = encode([passage.text for passage in batch], progress if is_alone else False)
                    windows.check(len(batch), dim)
                commit(batch, metadata, pool_embeddings(windows, pool_factor, n_protected), added)
                seen.update(ids)
                bar.update(len(batch))
                del windows
                give_back()
                batch, following = following, next(batches, None) if following else None
                if refit is not None:
                    refit(FIRST_FIT_AMID if batch else FIRST_FIT)
                    give_back()
        if vectors is not None:
            vectors([])
    except Exception as error:
        if not added:
            raise
        where = ""
        if in_order:
            rest = "all of them" if batch is None and total in (None, len(added)) else "the next ones are not"
            where = f", up to {added[-1]!r}; {rest}"
        reason = str(error).replace("; the index is as before", "")  # which is true of the step that failed, not of this call
        raise PartialAddError(f"{len(added)} passages of this call are in the index{where}: {reason}", added) from error
    except KeyboardInterrupt as interrupt:
        where = f", up to {added[-1]!r}" if in_order and added else ""
        interrupt.add_note(f"{len(added)} passages of this call are in the index{where}.")
        raise
    return added


def commit_batch(
    store: Store,
    versions: Versions,
    passages: Sequence[Passage],
    metadata: list[str],
    windows: TokenEmbeddings | Segment | None,
    added: list[str],
    *,
    of_encoder: bool = False,
    files: FileChanges = NO_FILES,
) -> None:
    """Add passages whose windows are known, in one commit.

    Args:
        store: the passages and files.
        versions: of the same index.
        passages: with ids that differ.
        metadata: of these passages, as JSON.
        windows: of these passages, with pids that count from 0; None for no passages.
        added: learns their ids once they are in.
        of_encoder: an encoder made the windows of the texts: a passage with nothing to read is kept without any, so that no
            search finds it.
        files: what becomes of the files that passages are of, in the same commit.
    """
    ids = [passage.id for passage in passages]
    if of_encoder and isinstance(windows, TokenEmbeddings):
        windows = without_blank(windows, [passage.text for passage in passages])
    segment = as_segment(windows) if isinstance(windows, TokenEmbeddings) else windows
    codec = versions.read(lambda view: view.state).snapshot.codec
    small = segment and compress(segment, codec)  # before the lock, for it takes time
    with damage_named(versions.name), store.write() as writer:
        state, first = versions.state(writer), writer.about()["next_row"]
        if writer.last_row() >= first or any((part.segment.pids[-1:] >= first).any() for part in state.snapshot.parts):
            raise DamagedIndexError(f"{versions.name} is damaged: row {first} is taken; restore it from a copy.")
        if segment is not None and state.snapshot.codec is not codec:
            small = compress(segment, state.snapshot.codec)
        if small is not None and small.codes is not None and state.snapshot.codec is not None:
            state.snapshot.codec.check_codes(small.codes)  # they may be those of another shard
        removed = sorted({*writer.rows_of(ids).values(), *files.stale_rows(writer, first)})
        changes = plan_commit(writer, state, np.array(removed, np.int64), small and replace(small, pids=small.pids + first))
        changes = replace(changes, added=passages, metadata=metadata, removed=removed)
        renamed = {old: source.name for old, source in files.moved.items()}
        sources = {**files.sources, **{source.name: source for source in files.moved.values()}}
        changes = replace(changes, changed=list(files.renamed_passages(writer)), renamed=renamed)
        writer.commit(replace(changes, sources=sources, owners=files.owners))
        added += ids


def commit_part(
    store: Store,
    versions: Versions,
    passages: Sequence[Passage],
    windows: TokenEmbeddings | Segment | None,
    files: FileChanges,
    home: Collection[str],
) -> None:
    """Add what belongs to one of several shards of what is known of files, in one commit; none if that is nothing.

    A shard knows of the files that have passages in it, and of those that it is the home of.

    Args:
        store: the passages and files.
        versions: of the same index.
        passages: those of this shard.
        windows: of these passages, with pids that count from 0; None for no passages.
        files: what becomes of all files; the owners are those of these passages.
        home: names of the files that are known here in any case.
    """
    here = versions.read(lambda view: view.reader.sources.known(list(files.sources))) | {*home, *files.owners}
    sources = {name: source for name, source in files.sources.items() if name in here}
    if not sources:
        return
    kept = {*home, *files.owners}
    for name, start in files.whole.items():
        if name in sources and start is None and name not in kept:
            sources[name] = None  # it has no passages here any more
    mine = replace(files, sources=sources, whole={name: start for name, start in files.whole.items() if name in sources})
    commit_batch(store, versions, passages, dump_all(passages), windows, [], of_encoder=True, files=mine)


def delete_ids(store: Store, versions: Versions, ids: Iterable[str]) -> int:
    """Delete the passages with these ids; how many they were."""
    return _write_to_those(store, versions, Restriction(ids=ids), partial(_delete, versions))


def delete_where(store: Store, versions: Versions, where: Where) -> int:
    """Delete the passages that a filter matches; how many they were.

    Raises:
        TypeError, ValueError: the filter is wrong.
    """
    if where is None:
        raise TypeError("A filter is a dict such as {'year': 2024}, got None; {} matches all passages.")
    return _write_to_those(store, versions, Restriction(where), partial(_delete, versions))


def _delete(versions: Versions, writer: Writer, pids: NDArray[np.int64]) -> int:
    if len(pids):
        changes = plan_commit(writer, versions.state(writer), pids, None)
        writer.commit(replace(changes, removed=pids.tolist()))
    return len(pids)


def update_metadata(
    store: Store, versions: Versions, restriction: Restriction, metadata: dict[str, Any], remove: Sequence[str]
) -> int:
    """Change the metadata of passages where they are, in one commit; how many have other metadata now.

    Args:
        store: the passages and files.
        versions: of the same index.
        restriction: which passages; by a filter, by ids or by both.
        metadata: keys to write with their values.
        remove: keys to take out.

    Raises:
        DamagedIndexError: a passage is not what was written.
        IndexLockedError: a writer was busy for long, or changed metadata all the time while a function chose among passages.
    """

    def change(writer: Writer, pids: NDArray[np.int64]) -> int:
        n_changed = 0

        def counted() -> Iterator[tuple[int, Passage, str]]:
            nonlocal n_changed
            for n_changed, entry in enumerate(entries, 1):  # noqa: B007
                yield entry

        entries = _changed(writer, pids.tolist(), metadata, remove)
        first = next(entries, None)
        if first is None:
            return 0
        entries = chain([first], entries)
        writer.commit(Changes(changed=counted()))
        return n_changed

    return _write_to_those(store, versions, restriction, change)


def _changed(
    writer: Writer, pids: list[int], metadata: dict[str, Any], remove: Sequence[str]
) -> Iterator[tuple[int, Passage, str]]:
    """Those of the passages that get other metadata, with their pids and the new metadata as JSON.

    Raises:
        DamagedIndexError: one is not what was written. A new checksum would hide that.
    """
    for start in range(0, len(pids), _READ_AT_A_TIME):
        chunk = pids[start : start + _READ_AT_A_TIME]
        if problems := writer.changed(chunk):
            raise DamagedIndexError(f"Nothing was changed: {problems[0]}; run verify, and restore the index from a copy.")
        for pid, passage in zip(chunk, writer.passages(chunk), strict=True):
            new = {key: value for key, value in (passage.metadata | metadata).items() if key not in remove}
            subject = f"Metadata of passage {passage.id!r}"
            before, now = dump_metadata(passage.metadata, subject), dump_metadata(new, subject)
            if before != now:
                yield pid, passage, now


def _write_to_those(
    store: Store, versions: Versions, restriction: Restriction, write: Callable[[Writer, NDArray[np.int64]], int]
) -> int:
    """Choose passages and do something to them, under one lock; what ``write`` says of it.

    A function of the user's may take long, so it chooses before the index is locked. What is replaced meanwhile has a new pid
    and is left out; where metadata have changed meanwhile, it chooses again.

    Raises:
        IndexLockedError: another writer was busy for long, or changed metadata each time.
    """
    by_function = restriction.by_function
    for _ in range(_TRIES):
        before = versions.read(lambda view: view.reader.metadata_changed()) if by_function else 0
        chosen = versions.read(lambda view: restriction.pids(view.reader)) if by_function else None
        with damage_named(versions.name), store.write() as writer:
            versions.check_identity(writer)
            if not by_function:
                chosen = restriction.pids(writer, versions.advice)
            elif writer.metadata_changed() != before:
                continue
            assert chosen is not None
            return write(writer, np.intersect1d(chosen, np.array(writer.rows(), np.int64)) if by_function else chosen)
    raise IndexLockedError(
        f"{versions.name} got other metadata {_TRIES} times while a function chose among its passages; filter by conditions, "
        "or while fewer writers are at work."
    )


def clear_passages(store: Store, versions: Versions) -> None:
    """Delete all passages, and the codec that was fitted to them, in one commit."""
    with damage_named(versions.name), store.write() as writer:
        state, pids = versions.state(writer), writer.rows()
        writer.commit(
            Changes(
                about={"codec_tokens": None, "codec_given": 0},
                removed=pids,
                tombstones=np.union1d(pids, writer.dead()).tolist(),
                dropped=[file.name for file in (*state.files, state.codec_file) if file],
            ),
        )


def merge_segments(store: Store, versions: Versions) -> None:
    """Put all segments into one without dead windows and all words into one piece, in one commit, if that is not done already.

    Words that are still to be counted, since the index was made before there were any, come with the commit, as with every one.
    """
    with damage_named(versions.name), store.write() as writer:
        state = versions.state(writer)
        is_in_pieces = len(state.files) > 1 or any(not part.live.all() for part in state.snapshot.parts)
        if is_in_pieces or writer.words.is_due() or writer.words.count_pieces() > 1:
            changes = plan_merge(writer, state) if is_in_pieces else Changes()
            writer.commit(replace(changes, join_words=True))


def import_foreign(store: Store, versions: Versions, foreign: ForeignIndex, progress: bool | None) -> None:
    """Fill an empty index with what another library built: its codec, codes and residuals."""
    take_codec(store, foreign.codec, fitted_on=foreign.n_tokens)
    with progress_bar("Importing", len(foreign), "passage", progress) as bar:
        for batch in foreign.batches():
            commit_batch(store, versions, batch.passages, dump_all(batch.passages), batch.windows, [])
            bar.update(len(batch.passages))


def take_codec(store: Store, codec: ResidualCodec, *, fitted_on: int | None) -> None:
    """Compress everything with a codec from elsewhere.

    Args:
        store: of an index that is empty.
        codec: of the index's dim and bits.
        fitted_on: tokens that it was fitted to, so that it gets more centroids when the index has outgrown it; None keeps it
            as it is for ever.
    """
    with store.write() as writer:
        file = writer.put("codec", 0, {name: [array] for name, array in codec.to_arrays().items()})
        writer.commit(Changes(about={"codec_tokens": fitted_on, "codec_given": int(fitted_on is None)}, files=[file]))


def refit_due(n_tokens: int, n_centroids: int | None, fitted_on: int | None, *, is_given: bool, first: int) -> int | None:
    """How many centroids to fit now, or to add; None if it is not time.

    Args:
        n_tokens: live tokens of the index.
        n_centroids: of its codec; None while it is uncompressed.
        fitted_on: tokens that the codec was fitted to; None while there is no codec, or where it was given.
        is_given: the codec came with the index, and stays as it is.
        first: tokens from which an uncompressed index gets a codec.
    """
    wanted = count_centroids(n_tokens)
    if n_centroids is None:
        return wanted if n_tokens >= first else None
    if is_given or fitted_on is None or n_centroids + wanted > MOST_CENTROIDS:
        return None
    return wanted if n_tokens >= max(_GROWTH * fitted_on, 1) else None


def refit_if_due(store: Store, versions: Versions, nbits: int, first: int, progress: bool | None) -> None:
    """Compress an index that has become large enough, and give a codec that it has outgrown more centroids.

    Centroids are found outside the write lock. If another writer is busy for long, or has done it, a later add will.

    Args:
        store: the passages and files.
        versions: of the same index.
        nbits: bits per component of a compressed vector.
        first: tokens from which an uncompressed index gets a codec.
        progress: show a bar; None shows it on a terminal or in a notebook once a second has passed.
    """
    state, about = versions.read(lambda view: (view.state, stored_settings(view.reader.about(), versions.name)))
    n_tokens, codec = state.live_tokens(), state.snapshot.codec
    fitted_on = about["codec_tokens"]
    # Indexes made before the setting was kept: a codec without the tokens that it was fitted to was given.
    is_given = bool(about.get("codec_given")) or (codec is not None and fitted_on is None)
    wanted = refit_due(n_tokens, None if codec is None else len(codec.centroids), fitted_on, is_given=is_given, first=first)
    if wanted is None:
        return
    with damage_named(versions.name):
        sample = sample_vectors(state.snapshot, sample_size(wanted))
    new = ResidualCodec.fit(sample, wanted, nbits) if codec is None else codec.extended(sample, wanted)
    try:
        with damage_named(versions.name), store.write() as writer:
            now = versions.state(writer)
            if now.codec_file != state.codec_file or not now.files:
                return
            plan = plan_recompression(writer, now, new, progress) if codec is None else plan_extension(writer, now, new)
            plan.about["codec_tokens"] = n_tokens
            writer.commit(plan)
    except IndexLockedError:
        return

"""Put the passages of a sharded index into another number of shards. Nothing is encoded again, and no vector is decompressed.

Codes and residuals go over as they are, so every passage scores what it scored before. The index that is split stays as it is.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.checks import check_count
from colbert_core.cluster.layout import Layout, shard_of
from colbert_core.errors import ClusterError, DamagedIndexError, IndexExistsError, UnsupportedIndexError
from colbert_core.index.batches import dump_all
from colbert_core.index.extension import codec_bytes
from colbert_core.index.index import Index
from colbert_core.index.writing import commit_batch, take_codec
from colbert_core.paths import as_path
from colbert_core.progress import progress_bar
from colbert_core.storage.aside import folder_begun, is_free
from colbert_core.storage.durable import disk_errors, put_in_place, step, write_json
from colbert_core.storage.incoming import read_json_file
from colbert_core.storage.store import Store, made_aside
from colbert_core.vectors.segment import Segment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike
    from pathlib import Path

    from numpy.typing import NDArray

    from colbert_core.cluster.layout import Settings
    from colbert_core.index.state import State
    from colbert_core.storage.transaction import Writer
    from colbert_core.vectors.codec import ResidualCodec

_log = logging.getLogger(__name__)

# Says of which moment the shards in an unfinished folder are.
_ORIGIN = "split.json"
# Passages in one commit of a new shard.
_BATCH = 4096
_TIMEOUT = 60.0
# Settings that an index gets by itself.
_OWN = {"identity", "generation", "next_row", "metadata_changed"}


def split(folder: str | PathLike[str], out: str | PathLike[str], *, shards: int, progress: bool | None = None) -> Settings:
    """Make a sharded index of another one, in another number of shards; its folder is there once it is whole.

    Texts, metadata, codes and residuals go over as they are: searches that score every passage find the same, to the last
    digit. The old index stays, and is searched meanwhile; who wants to write to it waits. Write to the new one from then on:
    what the old one gets later is not in it. Called again after an interruption it goes on with the shards that are missing,
    or begins anew if the old index has changed since.

    Args:
        folder: what ``build`` or ``split`` made.
        out: the folder to make, new or empty.
        shards: how many there are to be, more than before or fewer.
        progress: show a bar; None shows it on a terminal or in a notebook once a second has passed.

    Returns:
        What was made, as ``cluster.json`` keeps it.

    Raises:
        ValueError: ``shards`` is below 1, or what there are.
        IndexNotFoundError: there is no sharded index.
        IndexExistsError: there is something at ``out``.
        IndexLockedError: somebody else was writing to a shard for a minute.
        ReadOnlyIndexError: the old folder cannot be written to from here, so that nobody can be kept from writing.
        DamagedIndexError: a shard is missing, or not what was written.
        ClusterError: shards have different codecs, as while a refit is not done.
        IndexWriteError: the disk is full or failed.
    """
    check_count(shards, "shards", "shards")
    layout, target = Layout(as_path(folder).absolute()), as_path(out).absolute()
    settings = layout.read_finished()
    if shards == settings.shards:
        raise ValueError(f"{layout.folder} is in {shards} shards already; name another number, or copy it.")
    if not is_free(target):
        raise IndexExistsError(f"{target} exists already; name a folder that is new or empty.")
    with contextlib.ExitStack() as stack, disk_errors(target):
        olds = [_locked(stack, layout.shard(number), shards) for number in range(settings.shards)]
        codec = _common_codec(layout, olds)
        n_passages = sum(len(old.rows) for old in olds)
        new = Layout(folder_begun(target))
        _begin(new, {"folder": str(layout.folder), "shards": shards, "moments": [list(old.writer.moment_of()) for old in olds]})
        with progress_bar("Splitting", n_passages, "passage", progress) as bar:
            for number in range(shards):
                if not new.shard(number).is_dir():
                    with made_aside(new.shard(number)) as aside:
                        _fill(aside, number, olds, codec)
                    step("shard made")
                bar.update(sum(int((old.targets == number).sum()) for old in olds))
        if codec is not None:
            new.codec.write_bytes(codec_bytes(codec))
        fitted_on = None if codec is None else settings.fitted_on(sum(old.state.live_tokens() for old in olds), n_passages)
        settings = replace(settings, shards=shards, passages=n_passages, codec_tokens=fitted_on)
        new.write(settings)
        if not is_free(target):
            raise IndexExistsError(f"{target} has come into being meanwhile; name another folder.")
        step("split")
        (new.folder / _ORIGIN).unlink()
        put_in_place(new.folder, target)
    return settings


@dataclass(frozen=True)
class _Old:
    """A shard that is split, while nobody can write to it.

    Attributes:
        index: the shard.
        writer: holds its write lock.
        state: its vectors.
        rows: of its passages, *Shape:* (n,), int64, ascending.
        targets: the new shard of each, *Shape:* (n,), uint16.
    """

    index: Index
    writer: Writer
    state: State
    rows: NDArray[np.int64]
    targets: NDArray[np.uint16]


def _locked(stack: contextlib.ExitStack, folder: Path, shards: int) -> _Old:
    """Open a shard and keep everybody from writing to it, until the stack ends.

    Raises:
        DamagedIndexError: a file of it is not what was written; a new checksum would hide that.
        UnsupportedIndexError: its passages are of files that `colbert sync` knows.
    """
    index = stack.enter_context(Index.open(folder, timeout=_TIMEOUT))
    writer = stack.enter_context(index._store.write())
    problems = [problem for file in writer.files() for problem in writer.check(file)] + writer.changed_settings()
    if problems:
        raise DamagedIndexError(f"Nothing was split: {problems[0]}; restore {folder} from a copy.")
    if writer.sources.all():
        raise UnsupportedIndexError(f"{folder} is kept in step with files, which an index in shards cannot be; build it anew.")
    rows = writer.rows()
    targets = np.fromiter((shard_of(passage_id, shards) for passage_id in writer.ids(rows)), np.uint16, len(rows))
    return _Old(index, writer, index._versions.state(writer), np.array(rows, np.int64), targets)


def _common_codec(layout: Layout, olds: list[_Old]) -> ResidualCodec | None:
    """The codec that all shards have; None for none."""
    first = olds[0]
    for number, old in enumerate(olds):
        if old.index.codec_id != first.index.codec_id or not old.index.made_with.agrees_with(first.index.made_with):
            raise ClusterError(
                f"Shards 0 and {number} of {layout.folder} have different codecs or models, so their codes mean different "
                "vectors; finish the refit if one is under way, or build them again."
            )
    return first.state.snapshot.codec


def _begin(new: Layout, origin: dict[str, Any]) -> None:
    """Keep what an interrupted call has made, if it made that of the same moment of the same index."""
    path = new.folder / _ORIGIN
    with contextlib.suppress(FileNotFoundError, ValueError):
        if read_json_file(path) == origin:
            return
    if any(new.folder.iterdir()):
        _log.warning("What an interrupted call has made at %s is of another moment; it is made anew.", new.folder)
        shutil.rmtree(new.folder)
        new.folder.mkdir()
    write_json(path, origin)


def _fill(folder: Path, number: int, olds: list[_Old], codec: ResidualCodec | None) -> None:
    """Make a new shard of the passages that belong there."""
    about = {key: value for key, value in olds[0].writer.about().items() if key not in _OWN}
    with Index(Store.create(folder, about, overwrite=False, timeout=_TIMEOUT), None) as index:
        if codec is not None:
            take_codec(index._store, codec, fitted_on=about.get("codec_tokens"))
        for old in olds:
            rows = old.rows[old.targets == number]
            for chunk in (rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)):
                if problems := old.writer.changed(chunk.tolist()):
                    raise DamagedIndexError(f"Nothing was split: {problems[0]}; restore {old.index!r} from a copy.")
                passages = old.writer.passages(chunk.tolist())
                windows = _windows_of(old.state, chunk)
                commit_batch(index._store, index._versions, passages, dump_all(passages), windows, [])


def _windows_of(state: State, rows: NDArray[np.int64]) -> Segment | None:
    """The windows of some passages as they lie on the disk, with pids that count from 0; None if they have none.

    Args:
        state: of the index.
        rows: the passages, *Shape:* (n,), ascending.
    """
    pieces = list(_pieces(state, rows))
    if not pieces:
        return None
    names = ("pids", "spans", "doclens", "vectors", "codes", "residuals", "lengths", "shifts")
    columns = {name: [getattr(piece, name) for piece in pieces] for name in names}
    joined: dict[str, Any] = {name: np.concatenate(column) for name, column in columns.items() if column[0] is not None}
    return Segment(**joined)


def _pieces(state: State, rows: NDArray[np.int64]) -> Iterator[Segment]:
    for part in state.snapshot.parts:
        segment = part.segment
        windows = segment.windows_of(rows)
        windows = windows[part.live[windows]]
        if not len(windows):
            continue
        tokens = segment.tokens_of(windows)
        by_token: dict[str, Any] = {name: getattr(segment, name) for name in ("vectors", "codes", "residuals", "lengths")}
        piece = Segment(
            np.searchsorted(rows, segment.pids[windows]).astype(np.int64),
            segment.spans[windows],
            segment.doclens[windows],
            **{name: None if array is None else array[tokens] for name, array in by_token.items()},
            shifts=None if segment.shifts is None else segment.shifts[windows],
        )
        yield piece if state.snapshot.codec is None else piece.with_shifts(state.snapshot.codec)

"""The newest state of an index: its segments are mapped once for each generation, and every read shares them."""

from __future__ import annotations

import contextlib
import threading
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

from colbert_core.errors import DamagedIndexError, IndexLockedError, StorageError
from colbert_core.index.compaction import bury
from colbert_core.index.state import State, damage_named
from colbert_core.index.view import View
from colbert_core.storage.changes import StaleRead
from colbert_core.vectors.codec import ResidualCodec
from colbert_core.vectors.segment import Segment
from colbert_core.vectors.snapshot import Part, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from colbert_core.index.restriction import Restriction
    from colbert_core.model.fingerprint import LazyEncoder
    from colbert_core.storage.changes import File
    from colbert_core.storage.store import Store
    from colbert_core.storage.transaction import Reader

T = TypeVar("T")

# How often a read starts again because a writer replaced what it was reading.
_TRIES = 100


class Versions:
    """Gives every read one moment of the index, and starts it again when a writer replaced a part of that moment."""

    def __init__(
        self,
        store: Store,
        name: str,
        identity: str,
        *,
        dim: int,
        nbits: int | None,
        device: str | None,
        encoder: LazyEncoder,
    ) -> None:
        """Take what does not change while an index is open.

        Args:
            store: the passages and files.
            name: the index, for messages.
            identity: which index this is; an index that was overwritten has another one.
            dim: components of every vector.
            nbits: bits per component of a compressed vector; None where vectors are kept as they are.
            device: PyTorch's name of where searches score; None for the CPU.
            encoder: what encodes texts for evidence.
        """
        self.name, self.device = name, device
        self._store, self._identity, self._dim, self._nbits, self._encoder = store, identity, dim, nbits, encoder
        self._newest: State | None = None
        self.renew_lock()

    def renew_lock(self) -> None:
        """Make a new lock: after a fork, a thread that the child does not have may hold the old one."""
        self._lock = threading.Lock()

    def forget(self) -> None:
        """Let go of the mapped segments."""
        self._newest = None

    def read(self, work: Callable[[View], T], restriction: Restriction | None = None) -> T:
        """Do some work on the newest moment; again, if another thread or process replaced a part of it meanwhile.

        Args:
            work: asks the view; it may be called several times.
            restriction: which passages may be found; None for all.

        Raises:
            StorageError: another index has taken the place of this one.
            IndexLockedError: every one of 100 tries was overtaken by a writer.
        """
        for _ in range(_TRIES):
            try:
                with self._store.read() as reader:
                    self.check_identity(reader)
                    return work(View(reader, self.state, restriction, self.device, self._encoder, self.name))
            except StaleRead:
                continue
        raise IndexLockedError(
            f"{self.name} changed {_TRIES} times while it was read; read it while fewer writers are at work."
        )

    def copy_to(self, folder: Path, *, overwrite: bool) -> None:
        """Write a copy of the newest state to a folder; again, if a writer replaced a part of it meanwhile.

        Raises:
            IndexExistsError: there is something at the folder.
            IndexLockedError: every one of 100 tries was overtaken by a writer.
        """
        for _ in range(_TRIES):
            with contextlib.suppress(StaleRead), damage_named(self.name):
                self._store.copy(folder, overwrite=overwrite, check=self.check_identity)
                return
        raise IndexLockedError(
            f"{self.name} changed {_TRIES} times while it was copied; save it while fewer writers are at work."
        )

    def check_identity(self, reader: Reader) -> int:
        """Return the reader's generation, if this is still the index that was opened.

        Raises:
            StorageError: it is another one.
        """
        identity, generation = reader.moment_of()
        if identity != self._identity:
            raise StorageError(f"{self.name} was overwritten with a new one; open it again.")
        return generation

    def state(self, reader: Reader) -> State:
        """Return the vectors of the reader's generation. Segments that are mapped already are used again.

        Raises:
            DamagedIndexError: a file cannot be used.
            StaleRead: a writer replaced a file meanwhile.
        """
        with reader.moment(), self._lock:
            generation = self.check_identity(reader)
            known = self._newest
            if known is not None and known.generation == generation:
                return known
            files, codec_files = reader.files("segment"), reader.files("codec")
            if len(codec_files) > 1:
                raise DamagedIndexError(f"{self.name} is damaged: it has {len(codec_files)} codecs; restore it from a copy.")
            codec_file = codec_files[0] if codec_files else None
            codec = self._codec(reader, codec_file, known)
            parts = self._parts(reader, files, codec, known, generation)
            state = State(generation, Snapshot(parts, codec), tuple(files), codec_file)
            if known is None or known.generation < generation:
                self._newest = state
            return state

    def _codec(self, reader: Reader, file: File | None, known: State | None) -> ResidualCodec | None:
        if known is not None and file == known.codec_file:
            return known.snapshot.codec
        if file is None:
            return None
        codec: ResidualCodec = _made_of(file, ResidualCodec.from_arrays, reader.load(file))
        if (codec.dim, codec.nbits) != (self._dim, self._nbits):
            raise DamagedIndexError(
                f"The codec of {self.name[0].lower()}{self.name[1:]} has dim {codec.dim} and {codec.nbits} bits; "
                "restore it from a copy."
            )
        return codec

    def _parts(
        self, reader: Reader, files: Sequence[File], codec: ResidualCodec | None, known: State | None, generation: int
    ) -> tuple[Part, ...]:
        mapped = {} if known is None else dict(zip((file.name for file in known.files), known.snapshot.parts, strict=True))
        # A later state has lost windows that are still live in this generation.
        is_later = known is not None and known.generation > generation
        dead, parts = reader.dead(), []
        for file in files:
            part = mapped.get(file.name)
            if part is None:
                part = Part.whole(_made_of(file, Segment.from_arrays, reader.load(file), self._dim, codec))
            elif is_later:
                part = Part.whole(part.segment)
            parts.append(bury(part, dead))
        filled = [part.segment.pids for part in parts if len(part.segment.pids)]
        if any(pids[-1] >= following[0] for pids, following in pairwise(filled)):
            raise DamagedIndexError(f"{self.name} is damaged: a passage lies in two segments; restore it from a copy.")
        return tuple(parts)


def _made_of(file: File, make: Callable[..., Any], *arguments: Any) -> Any:
    """Make something of a file's arrays.

    Raises:
        DamagedIndexError: they do not fit together.
    """
    try:
        return make(*arguments)
    except ValueError as error:
        raise DamagedIndexError(f"File {file.name} of the index is damaged: {error}; restore the index from a copy.") from None

"""The newest state of an index: its segments are mapped once for each generation, and every read shares them."""

from __future__ import annotations

import contextlib
import threading
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

from colbert_core.errors import DamagedIndexError, IndexLockedError, StorageError
from colbert_core.index.advice import Advice
from colbert_core.index.compaction import bury
from colbert_core.index.lexicon import Lexicon
from colbert_core.index.settings import stored_settings
from colbert_core.index.state import State, damage_named
from colbert_core.index.view import View
from colbert_core.model.fingerprint import EncoderFingerprint
from colbert_core.storage.changes import StaleRead
from colbert_core.storage.transaction import Writer
from colbert_core.vectors.codec import ResidualCodec
from colbert_core.vectors.segment import Segment
from colbert_core.vectors.snapshot import Part, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from colbert_core.index.restriction import Restriction
    from colbert_core.model.fingerprint import LazyEncoder
    from colbert_core.storage.changes import File
    from colbert_core.storage.opened import FileId
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
        about: Mapping[str, Any],
        *,
        file: FileId | None,
        device: str | None,
        encoder: LazyEncoder,
    ) -> None:
        """Take what does not change while an index is open.

        Args:
            store: the passages and files.
            name: the index, for messages.
            about: its settings; an index that was overwritten has another identity.
            file: which file its database is; None in memory.
            device: PyTorch's name of where searches score; None for the CPU.
            encoder: what encodes texts for evidence.
        """
        self.name, self.device = name, device
        self.advice: Advice | None = Advice()
        self.shards = 1  # of so many parts of a collection this is one
        self._store, self._identity, self._dim, self._encoder = store, about["identity"], about["dim"], encoder
        self._nbits: dict[str, int | None] = {about["identity"]: about["nbits"]}  # of each index that has been read here
        self._file = file
        self._newest: State | None = None
        self._newest_words: Lexicon | None = None
        self.renew_lock()

    def renew_lock(self) -> None:
        """Make a new lock: after a fork, a thread that the child does not have may hold the old one."""
        self._lock = threading.Lock()

    def forget(self) -> None:
        """Let go of the mapped segments."""
        self._newest = self._newest_words = None

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
                    moment = (reader, self.state, self.words, restriction)
                    return work(View(*moment, self.device, self._encoder, self.name, self.advice, self.shards))
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

    def check_identity(self, reader: Reader) -> tuple[str, int]:
        """Return which index the reader sees and its generation, if this is still the index that was opened.

        Reads go on with a new index that was put in its place, if the same encoder made it; writes do not, for they were meant
        for another one.

        Raises:
            StorageError: it is another one.
        """
        identity, generation = reader.moment_of()
        if isinstance(reader, Writer):
            is_known = identity == self._identity
        else:
            is_known = identity in self._nbits or self._follows(reader, identity)
        if not is_known:
            raise StorageError(f"{self.name} was overwritten with a new one; open it again.")
        return identity, generation

    def _follows(self, reader: Reader, identity: str) -> bool:
        """Go on with the index of this reader; whether that can be: another folder was put here, and vectors mean the same."""
        made_by, file = self._encoder.fingerprint, reader.connection.file_id
        if file == self._file or made_by.probe is None:
            return False
        about = reader.about()
        if about.get("dim") != self._dim or not made_by.agrees_with(EncoderFingerprint.from_about(about, self.name)):
            return False
        self._nbits[identity] = stored_settings(about, self.name)["nbits"]
        self._file = file
        return True

    def words(self, reader: Reader) -> Lexicon:
        """Return the words of the reader's generation, read once for all searches of it.

        Raises:
            ValueError: the index was made without words.
            UnsupportedIndexError: it has none yet.
        """
        with reader.moment(), self._lock:
            moment = self.check_identity(reader)
            known = self._newest_words
            if known is not None and known.moment == moment:
                return known
            lexicon = Lexicon(reader, moment)
            if known is None or known.moment[0] != moment[0] or known.moment[1] < moment[1]:
                self._newest_words = lexicon
            return lexicon

    def state(self, reader: Reader) -> State:
        """Return the vectors of the reader's generation. Segments that are mapped already are used again.

        Raises:
            DamagedIndexError: a file cannot be used.
            StaleRead: a writer replaced a file meanwhile.
        """
        with reader.moment(), self._lock:
            identity, generation = self.check_identity(reader)
            known = self._newest
            if known is not None and known.identity != identity:
                known = None
            if known is not None and known.generation == generation:
                return known
            files, codec_files = reader.files("segment"), reader.files("codec")
            if len(codec_files) > 1:
                raise DamagedIndexError(f"{self.name} is damaged: it has {len(codec_files)} codecs; restore it from a copy.")
            codec_file = codec_files[0] if codec_files else None
            codec = self._codec(reader, codec_file, known, self._nbits[identity])
            parts = self._parts(reader, files, codec, known, generation)
            state = State(identity, generation, Snapshot(parts, codec), tuple(files), codec_file)
            if known is None or known.generation < generation:
                self._newest = state
            return state

    def _codec(self, reader: Reader, file: File | None, known: State | None, nbits: int | None) -> ResidualCodec | None:
        if known is not None and file == known.codec_file:
            return known.snapshot.codec
        if file is None:
            return None
        codec: ResidualCodec = _made_of(file, ResidualCodec.from_arrays, reader.load(file))
        if (codec.dim, codec.nbits) != (self._dim, nbits):
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

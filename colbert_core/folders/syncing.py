"""Bring an index in step with folders of files: only what has changed is read, and encoded."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from os import PathLike
from typing import TYPE_CHECKING, Any, NoReturn

from colbert_core.checks import check_count
from colbert_core.documents.files import LATEST
from colbert_core.documents.part import UnreadableFileError
from colbert_core.documents.pieces import read_file
from colbert_core.errors import MissingExtraError
from colbert_core.folders.planning import make_plan
from colbert_core.folders.reports import Problem, SyncReport
from colbert_core.index.writing import FIRST_FIT, FIRST_FIT_AMID, FileChanges
from colbert_core.memory import give_back
from colbert_core.paths import as_path
from colbert_core.progress import progress_bar
from colbert_core.storage.sources import Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from colbert_core.documents.files import FoundFile
    from colbert_core.documents.pieces import Splitter
    from colbert_core.folders.planning import Known, Plan
    from colbert_core.index.base import IndexBase
    from colbert_core.types import Passage

# A commit ends at either: about 60,000 tokens, ten seconds of encoding on two cores. With a commit for each file, 1,000 files
# of five passages took 28 s for the commits alone.
_MOST_CHARACTERS, _MOST_PASSAGES = 2**18, 1024
# The passages of a file up to this size are in memory together; a larger one is read twice, first to see that all of it can be.
_LARGEST_WHOLE = 2**24
# A time that no file has, of one that is not in as a whole.
_UNFINISHED = -LATEST - 1


def sync(
    paths: Iterable[str | PathLike[str]] | str | PathLike[str],
    index: IndexBase,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    piece_tokens: int | None = None,
    remove: bool = True,
    strict: bool = False,
    dry_run: bool = False,
    progress: bool | None = None,
) -> SyncReport:
    """Bring an index in step with folders: read what is new or has changed, and remove what is gone.

    A file has changed if its size or its time is another, and then its content. It is in the index as a whole or not at all,
    in its old state or the new one; an interrupted run keeps the files that are in, and the next one goes on. A file that
    cannot be read is named in the report, and stops nothing.

    Passages have ids ``folder/path#n``, by the name of the folder and the path from there, however the folder is written; a
    file given alone has its name in place of that, unless it lies in a folder of the index. Hidden files, and what a
    .gitignore leaves out, are not read; links to folders are not followed.

    Args:
        paths: a folder or several, or files.
        index: where the passages go, an ``Index`` or a ``colbert_core.cluster.ShardedIndex``, whose shards each commit what is
            theirs of a file. Passages that came by other ways are left alone.
        include: patterns as in .gitignore, such as "*.md" or "docs/**": only files that match one are read.
        exclude: the same: files and folders that match one are left out.
        piece_tokens: most tokens of a piece; None for what a file was cut by before, else as many as the encoder reads.
        remove: remove the passages of files that are gone, or left out by now.
        strict: read everything before anything is changed, and raise an error if a file cannot be read.
        dry_run: change nothing, and read no more than it takes to tell what would be done.
        progress: show a bar; None shows it on a terminal or in a notebook once a second has passed.

    Raises:
        ValueError: there is no such folder, two have the same name, a folder of the index has no files any more, or, with
            ``strict``, a file cannot be read.
        TypeError: the index's encoder cannot split texts.
    """
    piece_tokens = None if piece_tokens is None else check_count(piece_tokens, "piece_tokens", "tokens")
    listed = [paths] if isinstance(paths, str | PathLike) else list(paths)
    include, exclude = ([one] if isinstance(one, str) else list(one) for one in (include, exclude))
    known: Known = {source.name: (source, left) for source, left in index._sources()}
    plan = make_plan([as_path(path) for path in listed], known, include, exclude, piece_tokens)
    run = _Run(index, known, plan, piece_tokens)
    if remove:
        run.look_for_moved()
    if dry_run:
        run.foresee(remove=remove)
    else:
        if strict:
            run.try_all()
        run.do(remove=remove, progress=progress)
    return run.report


@dataclass
class _Batch:
    """What the next commit does."""

    passages: list[Passage] = field(default_factory=list)
    owners: list[str] = field(default_factory=list)
    sources: dict[str, Source | None] = field(default_factory=dict)
    whole: dict[str, Any] = field(default_factory=dict)
    moved: dict[str, Source] = field(default_factory=dict)
    characters: int = 0

    def add(self, passages: Iterable[Passage], owner: str) -> None:
        for passage in passages:
            self.passages.append(passage)
            self.owners.append(owner)
            self.characters += len(passage.text)

    @property
    def is_full(self) -> bool:
        return self.characters >= _MOST_CHARACTERS or len(self.passages) >= _MOST_PASSAGES


class _Run:
    def __init__(self, index: IndexBase, known: Known, plan: Plan, piece_tokens: int | None) -> None:
        self.report = SyncReport(unchanged=plan.unchanged, problems=list(plan.problems), ignored=plan.ignored)
        self._index, self._known, self._plan, self._piece_tokens = index, known, plan, piece_tokens
        self._batch = _Batch()
        # A folder that was cut in a way of its own goes on to be.
        self._usual_tokens = max((source.piece_tokens for source, _ in known.values()), default=0)

    # What is to be done

    def look_for_moved(self) -> None:
        """Find out which new files are files of the index that lay elsewhere, under the same last name.

        What they hold is encoded already: a passage begins with that name, and not with the folders.
        """
        lost = {
            (source.sha256, source.name.rpartition("/")[2]): source
            for source in self._plan.gone
            if source.n_passages == self._known[source.name][1] > 0 and self._tokens_of(source) == source.piece_tokens
        }
        likely = {(source.size, name) for (_, name), source in lost.items()}
        for file in self._plan.due:
            name = file.name.rpartition("/")[2]
            if file.name in self._known or (file.size, name) not in likely:
                continue
            with suppress(_UnreadError):
                source = lost.get((digest := _digest(file), name))
                if source is not None and not self._is_named_by_path(source):
                    del lost[digest, name]
                    moved = replace(source, name=file.name, path=file.place, mtime=file.mtime)
                    self._batch.moved[source.name] = moved
                    self.report.moved[source.name] = file.name
        there = {source.name for source in self._batch.moved.values()}
        self._plan.due = [file for file in self._plan.due if file.name not in there]
        self._plan.gone = [source for source in self._plan.gone if source.name not in self._batch.moved]

    def _is_named_by_path(self, source: Source) -> bool:
        """Whether the passages of a file begin with all of its path, as those of source code do."""
        return any("language" in passage.metadata for passage in self._index.passages({"source": source.name}, limit=1))

    def foresee(self, *, remove: bool) -> None:
        """Say what would be done."""
        for file in self._plan.due:
            source, left = self._known.get(file.name, (None, 0))
            if source is None:
                self.report.added.append(file.name)
            elif self._is_content_as_before(source, left, replace(source, sha256=_digest(file))):
                self.report.unchanged += 1
            else:
                self.report.changed.append(file.name)
        if remove:
            self.report.removed += [source.name for source in self._plan.gone]

    def try_all(self) -> None:
        """Read everything that is due.

        Raises:
            ValueError: something cannot be read, or could not be before and is unchanged.
        """
        problems = list(self._plan.problems)
        for file in self._plan.due:
            try:
                for _ in self._read(file):
                    pass
            except _UnreadError as error:
                problems.append(error.problem)
        for problem in problems:
            if problem.is_failure:
                raise ValueError(f"{problem.message} Nothing was changed.")

    # Do it

    def do(self, *, remove: bool, progress: bool | None) -> None:
        self._commit()  # what has moved, before new files take the names
        with progress_bar("Reading", len(self._plan.due), "file", progress) as bar:
            for file in self._plan.due:
                self._take(file)
                bar.update(1)
            if remove:
                gone = [source.name for source in self._plan.gone]
                self._batch.sources |= dict.fromkeys(gone)
                self._batch.whole |= dict.fromkeys(gone)
                self.report.removed += gone
            self._commit()
            self._index._refit_if_due(FIRST_FIT, progress=progress)

    def _take(self, file: FoundFile) -> None:
        source, left = self._known.get(file.name, (None, 0))
        state = Source(file.name, file.place, file.size, file.mtime, piece_tokens=self._tokens_of(source))
        try:
            state = replace(state, sha256=_digest(file))
            if source is not None and self._is_content_as_before(source, left, state):
                self._finish(replace(state, n_passages=source.n_passages), keep=True)
                self.report.unchanged += 1
                return
            n_passages = self._put(file, state)
        except _UnreadError as error:
            self.report.problems.append(error.problem)
            # The old passages of a file that cannot be read now stay, and the next run tries again.
            if source is None or source.problem or not error.problem.is_failure:
                self._finish(replace(state, problem=f"{error.problem.kind}: {error.problem.message}"))
            return
        suffix = file.path.suffix.lower() or "no suffix"
        self.report.read[suffix] = self.report.read.get(suffix, 0) + 1
        (self.report.added if source is None else self.report.changed).append(file.name)
        self.report.n_passages += n_passages

    def _put(self, file: FoundFile, state: Source) -> int:
        """Read a file into the batch, or into several; return how many passages it gives."""
        if file.size > _LARGEST_WHOLE:
            stream, seen = self._read(file), set[str]()
            while chunk := list(islice(stream, _MOST_PASSAGES)):
                self._check_ids(chunk, file.name, seen)
            return self._put_in_turns(self._read(file), state) if seen else self._put_none(file)
        passages = list(self._read(file))
        if not passages:
            self._put_none(file)
        self._check_ids(passages, file.name, set())
        if len(passages) > _MOST_PASSAGES:
            return self._put_in_turns(iter(passages), state)
        self._batch.add(passages, file.name)
        self._finish(replace(state, n_passages=len(passages)))
        return len(passages)

    def _put_none(self, file: FoundFile) -> NoReturn:
        raise _UnreadError(Problem(file.name, "empty", f"{file.name} has no text."))

    def _put_in_turns(self, passages: Iterator[Passage], state: Source) -> int:
        self._commit()
        start, n_passages = self._index._next_row(), 0
        while chunk := list(islice(passages, _MOST_PASSAGES)):
            self._batch.sources[state.name] = replace(state, mtime=_UNFINISHED)
            self._batch.add(chunk, state.name)
            n_passages += len(chunk)
            self._commit()
        self._batch.whole[state.name] = start
        self._finish(replace(state, n_passages=n_passages), keep=True)
        return n_passages

    def _finish(self, state: Source, *, keep: bool = False) -> None:
        """Note what is known of a file now; unless they are to be kept, its passages of before go with the next commit."""
        self._batch.sources[state.name] = state
        if not keep:
            self._batch.whole[state.name] = None
        if self._batch.is_full:
            self._commit()

    def _commit(self) -> None:
        batch, self._batch = self._batch, _Batch()
        if batch.sources or batch.moved:
            self._index._put_files(batch.passages, FileChanges(batch.owners, batch.sources, batch.whole, batch.moved))
            self._index._refit_if_due(FIRST_FIT_AMID, progress=False)
            give_back()

    # Look at files

    def _read(self, file: FoundFile) -> Iterator[Passage]:
        """Read the passages of a file.

        Raises:
            _UnreadError: it cannot be read.
        """
        source, _ = self._known.get(file.name, (None, 0))
        about = {"path": file.place, **_time_of(file)}
        splitter, piece_tokens = self._splitter(), self._tokens_of(source) or None
        try:
            yield from read_file(file.path, file.name, splitter, piece_tokens=piece_tokens, metadata=about)
        except Exception as error:  # whatever a reader of a damaged file raises
            raise _UnreadError(_problem_of(file, error)) from error

    def _splitter(self) -> Splitter:
        encoder: Any = self._index.encoder
        if not hasattr(encoder, "split"):
            raise TypeError(f"The encoder {encoder!r:.80} cannot split files; add passages with Index.add.")
        return encoder  # type: ignore[no-any-return]

    def _tokens_of(self, source: Source | None) -> int:
        if self._piece_tokens is not None:
            return self._piece_tokens
        return self._usual_tokens if source is None else source.piece_tokens

    def _is_content_as_before(self, source: Source, left: int, state: Source) -> bool:
        return (
            (source.sha256, source.piece_tokens) == (state.sha256, state.piece_tokens)
            and left == source.n_passages
            and source.mtime != _UNFINISHED
            and not source.problem
        )

    def _check_ids(self, passages: Sequence[Passage], name: str, seen: set[str]) -> None:
        """Make sure that no two passages of a file, or of two files, have the same id.

        Args:
            passages: some of the file.
            name: of the file.
            seen: ids that came before; it learns those of these passages.

        Raises:
            _UnreadError: two have.
        """
        for passage in passages:
            if passage.id in seen:
                message = f"{name} has the id {passage.id!r:.200} twice; give each its own."
                raise _UnreadError(Problem(name, "duplicate", message))
            seen.add(passage.id)
        gone = {source.name for source in self._plan.gone}
        waiting = zip(self._batch.passages, self._batch.owners, strict=True)
        owners = self._index._owners([passage.id for passage in passages]) | {passage.id: owner for passage, owner in waiting}
        for passage in passages:
            owner = owners.get(passage.id, name)
            if owner != name and owner not in gone:
                message = f"{name} has the id {passage.id!r:.200}, which is also in {owner}; give each its own."
                raise _UnreadError(Problem(name, "duplicate", message))


class _UnreadError(Exception):
    """A file that cannot be read."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def _problem_of(file: FoundFile, error: Exception) -> Problem:
    """Say what is wrong with a file, by what reading it raised."""
    if isinstance(error, UnreadableFileError):
        return Problem(file.name, error.kind, str(error))
    if isinstance(error, MissingExtraError):
        return Problem(file.name, "extra", str(error))
    if isinstance(error, OSError):
        return Problem(file.name, "unreadable", f"{file.path}: {error.strerror or error}.")
    kind = "invalid" if isinstance(error, ValueError) else "damaged"
    message = str(error) if kind == "invalid" else f"{file.path} is damaged ({type(error).__name__}: {error!s:.200})."
    return Problem(file.name, kind, message)


def _time_of(file: FoundFile) -> dict[str, str]:
    """The time of a file as metadata; none where it is beyond what can be kept."""
    if abs(file.mtime) == LATEST:
        return {}
    return {"mtime": (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=file.mtime // 10**9)).isoformat()}


def _digest(file: FoundFile) -> str:
    try:
        with file.path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise _UnreadError(_problem_of(file, error)) from error

"""What became of the files of folders."""

from __future__ import annotations

from dataclasses import dataclass, field

# A file of these kinds has nothing to read, which is no fault of it.
_HARMLESS = {"binary", "empty", "generated", "no text", "too large"}


@dataclass(frozen=True, slots=True)
class Problem:
    """A file that gave no passages.

    Attributes:
        name: of the file, as in ids.
        kind: one or two words, such as "binary" or "encrypted".
        message: what is wrong, and what helps.
    """

    name: str
    kind: str
    message: str

    @property
    def is_failure(self) -> bool:
        """Whether there is something to mend; a picture or an empty file needs nothing."""
        return self.kind not in _HARMLESS


@dataclass
class SyncReport:
    """What a sync did, or would do.

    Attributes:
        added: names of files that are new.
        changed: names of files that were read anew.
        moved: files that were found elsewhere with the same content, old name to new one.
        removed: names of files that are gone, and whose passages are gone from the index.
        unchanged: how many files are as they were.
        problems: the files that gave no passages, in this run or an earlier one.
        ignored: how many files and folders were left out, by the reason: hidden, .gitignore, by pattern, link to a folder.
        read: how many files were read in this run, by suffix.
        n_passages: how many passages were added or replaced.
    """

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    moved: dict[str, str] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    unchanged: int = 0
    problems: list[Problem] = field(default_factory=list)
    ignored: dict[str, int] = field(default_factory=dict)
    read: dict[str, int] = field(default_factory=dict)
    n_passages: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether every file was read, or has nothing to read."""
        return not any(problem.is_failure for problem in self.problems)

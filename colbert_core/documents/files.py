"""Which files of a folder are read: all but hidden ones and those that .gitignore or patterns leave out."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from colbert_core.text.lines import check_no_pipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pathspec import GitIgnoreSpec

    Ignoring = tuple[tuple[str, GitIgnoreSpec], ...]

STREAMED = (".txt", ".md", ".jsonl", ".tsv", ".parquet")
"""Kinds that are read from remote storage and by a cluster as well."""

_IGNORE = ".gitignore"

LATEST = 2**63 - 1
"""The last time that SQLite keeps, in 2262; a file may have a later one, by mistake."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file of a folder.

    Attributes:
        place: its path, absolute.
        name: the name of the folder, and the path from there, with slashes on every system.
        size: bytes.
        mtime: when it was last changed, in nanoseconds since 1970; at most ``LATEST``, and at least its negative.
    """

    place: str
    name: str
    size: int
    mtime: int

    @property
    def path(self) -> Path:
        """Its path. 8,000 of them take as long as looking for the files, and few have changed."""
        return Path(self.place)


@dataclass
class Found:
    """What a walk through a folder came upon.

    Attributes:
        files: those to read, by their names.
        ignored: how many files and folders were left out, by the reason.
        unreadable: names of what could not be looked into, each with the reason.
    """

    files: list[FoundFile] = field(default_factory=list)
    ignored: dict[str, int] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)


def found_file(place: str, name: str, status: os.stat_result) -> FoundFile:
    """Describe a file by what the system says of it."""
    return FoundFile(place, name, status.st_size, min(max(status.st_mtime_ns, -LATEST), LATEST))


def walk(folder: Path, prefix: str, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Found:
    """Find the files of a folder and of the folders in it. Links to folders are not followed.

    Args:
        folder: absolute.
        prefix: what the names of the files begin with, without a slash.
        include: patterns as in .gitignore: only files that match one are read; all files without patterns.
        exclude: the same: files and folders that match one are left out.
    """
    return _Walk(folder, prefix, include, exclude).run()


class _Walk:
    def __init__(self, folder: Path, prefix: str, include: Sequence[str], exclude: Sequence[str]) -> None:
        from pathspec import GitIgnoreSpec  # here, as searching needs none

        self._prefix = prefix
        self._wanted = GitIgnoreSpec.from_lines(include) if include else None
        self._unwanted = GitIgnoreSpec.from_lines(exclude)
        self._found = Found()
        self._waiting = [(str(folder), "", _rules_above(folder))]  # folders, with their place below the first one

    def run(self) -> Found:
        while self._waiting:
            directory, within, ignoring = self._waiting.pop()
            try:
                with os.scandir(directory) as entries:
                    listed = list(entries)
                ignoring = _with_rules_of(directory, ignoring)
            except OSError as error:
                self._found.unreadable[f"{self._prefix}/{within}".rstrip("/")] = error.strerror or str(error)
                continue
            for entry in listed:
                place = f"{within}{entry.name}{'/' * entry.is_dir(follow_symlinks=False)}"
                if reason := self._why_not(entry, place, ignoring):
                    self._found.ignored[reason] = self._found.ignored.get(reason, 0) + 1
                elif place.endswith("/"):
                    self._waiting.append((entry.path, place, ignoring))
                else:
                    self._add(entry, f"{self._prefix}/{place}")
        self._found.files.sort(key=lambda file: file.name)
        return self._found

    def _why_not(self, entry: os.DirEntry[str], place: str, ignoring: Ignoring) -> str:
        """Say why a file or folder is left out; "" if it is not."""
        is_folder = place.endswith("/")
        if entry.name.startswith("."):
            return "hidden"
        if self._unwanted.match_file(place) or (self._wanted and not is_folder and not self._wanted.match_file(place)):
            return "by pattern"
        if _is_ignored(f"{entry.path}{'/' * is_folder}", ignoring):
            return _IGNORE
        return "link to a folder" if not is_folder and entry.is_dir() else ""

    def _add(self, entry: os.DirEntry[str], name: str) -> None:
        try:
            name.encode()
            status = entry.stat()
            if not stat.S_ISREG(status.st_mode):
                check_no_pipe(Path(entry.path))
        except UnicodeEncodeError:
            self._found.unreadable[name.encode(errors="backslashreplace").decode()] = "its name is no Unicode text"
        except (OSError, ValueError) as error:
            self._found.unreadable[name] = getattr(error, "strerror", None) or str(error)
        else:
            self._found.files.append(found_file(entry.path, name, status))


def _rules_above(folder: Path) -> Ignoring:
    """The rules of .gitignore files above a folder, within the repository that it lies in; none outside of one."""
    above = [folder, *folder.parents]
    top = next((number for number, each in enumerate(above) if (each / ".git").exists()), 0)
    rules: Ignoring = ()
    for each in reversed(above[1 : top + 1]):
        rules = _with_rules_of(str(each), rules)
    return rules


def _with_rules_of(directory: str, ignoring: Ignoring) -> Ignoring:
    from pathspec import GitIgnoreSpec

    file = Path(directory, _IGNORE)
    if not file.is_file():
        return ignoring
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    return (*ignoring, (directory, GitIgnoreSpec.from_lines(lines)))


def _is_ignored(path: str, ignoring: Ignoring) -> bool:
    """Tell whether the nearest rule that says something of a path leaves it out; a folder's path ends with a slash."""
    for directory, rules in reversed(ignoring):
        verdict = rules.check_file(path[len(directory) :].lstrip("/" + os.sep)).include
        if verdict is not None:
            return verdict
    return False


def find_files(path: Path, suffixes: tuple[str, ...] = STREAMED) -> list[Path]:
    """Find the files below a folder that have one of some suffixes; of a file, the file itself. Hidden ones are left out.

    Raises:
        ValueError: there is nothing there, or nothing that can be read.
    """
    if path.is_file():
        if path.suffix.lower() not in suffixes:
            raise ValueError(f"{path} is none of {', '.join(suffixes)}.")
        return [path]
    check_no_pipe(path)
    if not path.is_dir():
        raise ValueError(f"There is no file or folder {path}.")
    files = sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in suffixes
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)  # .venv, .git
    )
    if not files:
        raise ValueError(f"{path} holds no {', '.join(suffixes)} file.")
    return files

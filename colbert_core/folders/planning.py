"""What has changed in folders since an index was made of them; nothing is read but file names, sizes and times."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from colbert_core.documents.files import Found, FoundFile, found_file, walk
from colbert_core.folders.reports import Problem
from colbert_core.text.lines import check_no_pipe

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from colbert_core.storage.sources import Source

    Known = dict[str, tuple[Source, int]]
    """The files of an index by their names, each with the number of its passages that are left."""

TRY_AGAIN = ("extra", "duplicate", "unreadable")
"""Kinds of problems that may be gone though the file is as before: a package was installed, another file gave up an
id, permission was given."""


@dataclass
class Plan:
    """What is to be done for an index to be in step with folders.

    Attributes:
        due: files to look into: new ones, and those whose size, time or pieces are others than in the index.
        gone: files of the index that are no longer there.
        unchanged: how many files are as they were.
        problems: what could not be read before and is unchanged, and what cannot be looked into now.
        ignored: how many files and folders were left out, by the reason.
    """

    due: list[FoundFile] = field(default_factory=list)
    gone: list[Source] = field(default_factory=list)
    unchanged: int = 0
    problems: list[Problem] = field(default_factory=list)
    ignored: dict[str, int] = field(default_factory=dict)


def make_plan(
    paths: Iterable[Path], known: Known, include: Sequence[str], exclude: Sequence[str], piece_tokens: int | None
) -> Plan:
    """Compare folders and files with what an index knows.

    Args:
        paths: folders, and files.
        known: the files that the index was made of.
        include: as in ``walk``.
        exclude: as in ``walk``.
        piece_tokens: most tokens of a piece; None for what each file was cut by before.

    Raises:
        ValueError: there is no such folder or file, two of them have the same name, or a folder has nothing to read that
            was full before.
    """
    plan, names, seen = Plan(), _names_of_paths(known), set()
    for path, prefix in _with_prefixes(paths, known).items():
        found = walk(path, prefix, include, exclude) if path.is_dir() else _alone(path, prefix)
        _check_not_emptied(path, prefix, found, known)
        for reason, count in found.ignored.items():
            plan.ignored[reason] = plan.ignored.get(reason, 0) + count
        plan.problems += [Problem(name, "unreadable", f"{name}: {reason}.") for name, reason in found.unreadable.items()]
        for file in found.files:
            if file.place in names:
                file = replace(file, name=names[file.place])
            if file.name in seen:
                continue
            seen.add(file.name)
            source, left = known.get(file.name, (None, 0))
            if source is None or not _is_as_before(source, left, file, piece_tokens):
                plan.due.append(file)
                continue
            plan.unchanged += 1
            if source.problem:
                kind, _, message = source.problem.partition(": ")
                plan.problems.append(Problem(source.name, kind, message))
        if path.is_dir():
            plan.gone += [source for source in _below(path, prefix, found, known) if source.name not in seen]
    return plan


def _is_as_before(source: Source, left: int, file: FoundFile, piece_tokens: int | None) -> bool:
    return (
        (source.size, source.mtime, source.path) == (file.size, file.mtime, file.place)
        and left == source.n_passages
        and piece_tokens in (None, source.piece_tokens)
        and not source.problem.startswith(TRY_AGAIN)
    )


def _alone(path: Path, name: str) -> Found:
    return Found([found_file(str(path), name, path.stat())])


def _below(folder: Path, prefix: str, found: Found, known: Known) -> Iterable[Source]:
    """The files of the index that are of a folder, without those that are in a folder that cannot be looked into."""
    hidden = tuple(f"{name}/" for name in found.unreadable) + tuple(found.unreadable)
    for source, _ in known.values():
        is_below = source.name.startswith(f"{prefix}/") or source.path.startswith(f"{folder}{os.sep}")
        if is_below and not source.name.startswith(hidden):
            yield source


def _check_not_emptied(path: Path, prefix: str, found: Found, known: Known) -> None:
    n_known = sum(1 for _ in _below(path, prefix, found, known)) if path.is_dir() and not found.files else 0
    if n_known:
        raise ValueError(
            f"{path} has no file to read, and the index has {n_known} from there: is a drive not mounted, or a pattern wrong? "
            "If they are gone for good, make the index anew with colbert index --overwrite."
        )


def _names_of_paths(known: Known) -> dict[str, str]:
    return {source.path: source.name for source, _ in known.values()}


def _with_prefixes(paths: Iterable[Path], known: Known) -> dict[Path, str]:
    """What the names of the files of each folder begin with; the name itself of a file. What is within another is left out.

    A folder gives its own name to its files, so that the names do not depend on how the folder is written. What lies in a
    folder that the index knows is named as its part.
    """
    targets: list[Path] = []
    for path in paths:
        check_no_pipe(path)
        if not path.exists():
            raise ValueError(f"There is no file or folder {path}.")
        targets.append(path.resolve())
    targets = [path for path in dict.fromkeys(targets) if not any(other in path.parents for other in targets)]
    folders, names = _known_folders(known), _names_of_paths(known)
    prefixes: dict[Path, str] = {}
    taken: dict[str, Path] = {}
    for path in targets:
        above = next((folder for folder in (path, *path.parents) if folder in folders), None)
        if above is not None:
            prefix = "/".join([folders[above], *path.relative_to(above).parts])
        else:
            prefix = names.get(str(path), path.name) or "root"
            before = next((folder for folder, name in folders.items() if name == prefix), None)
            if before is not None and before.is_dir():
                raise ValueError(f"The index has a folder named {prefix!r} already, {before}, and {_SAME_NAME}")
            other = Path(known[prefix][0].path) if prefix in known else path
            if other != path and other.exists():
                raise ValueError(f"The index has a file named {prefix!r} already, {other}, and {_SAME_NAME}")
        if prefix in taken:
            raise ValueError(f"{taken[prefix]} and {path} would both be named {prefix!r}, and {_SAME_NAME}")
        prefixes[path], taken[prefix] = prefix, path
    return prefixes


_SAME_NAME = "ids begin with that name; give a folder that both are in, or rename one."


def _known_folders(known: Known) -> dict[Path, str]:
    """The folders that the index was made of, each with its name."""
    folders: dict[str, str] = {}
    for source, _ in known.values():
        prefix, slash, rest = source.name.partition("/")
        ending = os.sep + rest.replace("/", os.sep)
        if slash and source.path.endswith(ending):
            folders[source.path[: -len(ending)]] = prefix
    return {Path(folder): prefix for folder, prefix in folders.items()}

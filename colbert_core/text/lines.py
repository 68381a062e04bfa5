"""Lines of text files with their places, which go into messages of errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

T = TypeVar("T")


def check_no_pipe(path: Path) -> None:
    """Check that a path is no pipe, device or socket, of which nobody knows whether it ever ends.

    Raises:
        ValueError: it is one.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ValueError(f"{path} is a pipe, a device or a socket, and no file; write what it gives into a file first.")


def numbered_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Read the lines of a file that are not blank, in UTF-8 with or without a byte order mark.

    Yields:
        The place of each line, such as "corpus.jsonl, line 3", and its text without the line's end.

    Raises:
        ValueError: the file is in another encoding, or is no file.
    """
    check_no_pipe(path)
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield f"{path}, line {number}", line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}); convert it first.") from None


def read_at(place: str, read: Callable[[Any], T], record: Any) -> T:
    """Return ``read(record)``.

    Raises:
        ValueError: ``read`` raises a ValueError or TypeError; the message begins with the place.
    """
    try:
        return read(record)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{place}: {error}") from None

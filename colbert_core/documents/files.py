"""Which files of a folder are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from colbert_core.text.lines import check_no_pipe

if TYPE_CHECKING:
    from pathlib import Path

STREAMED = (".txt", ".md", ".jsonl", ".tsv", ".parquet")


def find_files(path: Path, suffixes: tuple[str, ...] = STREAMED) -> list[Path]:
    """Find the files below a folder that can be read; of a file, the file itself. Hidden files and folders are passed over.

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

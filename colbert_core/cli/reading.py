"""What commands read: an index, passages of lines, of files and folders, and the demonstration that comes with the package."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import colbert_core
from colbert_core import cluster

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from colbert_core import Index, Passage, SyncReport, TokenEncoder
    from colbert_core.cluster import ShardedIndex


def index_place(text: str) -> Path | str:
    """What a command calls an index: a folder, or the address at which one is published."""
    return text if "://" in text else Path(text)


def open_index(place: Path | str, encoder: str | TokenEncoder | None = None) -> Index | ShardedIndex:
    """Open the index in a folder, in one piece or in shards, or the one that is published at an address."""
    place = index_place(place) if isinstance(place, str) else place
    if isinstance(place, str) or cluster.is_cluster(place):
        return cluster.ShardedIndex.open(place, encoder)
    return colbert_core.Index.open(place, encoder)


def need_passages(index: Index, report: SyncReport, paths: Sequence[Path]) -> None:
    """Make sure that files gave something to search.

    Raises:
        ValueError: they gave nothing; the message says why.
    """
    if not len(index):
        reason = report.problems[0].message if report.problems else "there are no files, or they are hidden or left out."
        raise ValueError(f"No passages in {', '.join(map(str, paths))}: {reason}")


def read_passages(lines: Sequence[str], source: str) -> Iterator[Passage]:
    """Read passages from lines of plain text or JSON. Blank lines are passed over.

    Args:
        lines: each a text, or an object with "text" and perhaps "id" and "metadata".
        source: name of the file, for errors.

    Raises:
        ValueError: a line is no passage; the message has its number.
    """
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text:
            continue
        try:
            record: dict[str, Any] = json.loads(text) if text.startswith("{") else {"text": text}
            json.dumps(record, ensure_ascii=False, allow_nan=False).encode()  # what --json prints again must be valid
        except (ValueError, RecursionError) as error:
            raise ValueError(f"Line {number} of {source} is no valid text or JSON object: {error}") from None
        if "text" not in record:
            raise ValueError(f'Line {number} of {source} has no "text"; its keys are {", ".join(record) or "none"}.')
        name, metadata = record.get("id"), record.get("metadata")
        try:
            yield colbert_core.Passage(
                str(number if name is None else name), record["text"], {} if metadata is None else metadata
            )
        except (ValueError, TypeError) as error:
            raise ValueError(f"Line {number} of {source}: {error}") from None


def demo_passages() -> list[Passage]:
    """Read the passages of the demonstration."""
    return [
        colbert_core.Passage(record["id"], f"{record['title']}. {record['text']}", {"title": record["title"]})
        for record in _read_demo("passages.jsonl")
    ]


def demo_questions() -> list[dict[str, Any]]:
    """Read the questions of the demonstration: "question", and "answer_id" for the passage that answers it."""
    return _read_demo("questions.jsonl")


def _read_demo(name: str) -> list[dict[str, Any]]:
    lines = resources.files("colbert_core").joinpath("quickstart", name).read_text(encoding="utf-8").strip().split("\n")
    return [json.loads(line) for line in lines]

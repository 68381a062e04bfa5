"""Passages in batches, each of which is encoded and committed together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from colbert_core.checks import check_passages
from colbert_core.metadata import dump_metadata

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from colbert_core.types import Passage

# A batch ends at either: about 60,000 tokens, 30 MB of vectors, ten seconds of encoding on two cores.
_BATCH_CHARACTERS = 2**18
_BATCH_PASSAGES = 1024


def batched(passages: Iterable[Passage]) -> Iterator[list[Passage]]:
    """Divide a stream of passages into batches that are worth encoding together; no more than one is kept in memory.

    Raises:
        TypeError: an item is no passage. The batches before it have been given.
    """
    batch: list[Passage] = []
    characters = 0
    for passage in passages:
        (checked,) = check_passages([passage])
        batch.append(checked)
        characters += len(checked.text)
        if characters >= _BATCH_CHARACTERS or len(batch) >= _BATCH_PASSAGES:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def dump_all(passages: Iterable[Passage]) -> list[str]:
    """Write the metadata of each passage as JSON.

    Raises:
        TypeError, ValueError: metadata hold what an index cannot keep.
    """
    return [dump_metadata(passage.metadata, f"Metadata of passage {passage.id!r}") for passage in passages]

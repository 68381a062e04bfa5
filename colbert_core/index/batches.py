"""Passages, as many at a time as one commit takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from colbert_core.checks import check_passages
from colbert_core.storage.filters import dump_metadata

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from colbert_core.types import Passage

# One commit of ``add``: about 60,000 tokens, 30 MB of vectors, ten seconds of encoding on two cores.
_BATCH_CHARACTERS = 2**18
_BATCH_PASSAGES = 1024


def batched(passages: Iterable[Passage]) -> Iterator[list[Passage]]:
    """Passages as many at a time as one commit takes; metadata are copied, so that nobody changes them meanwhile."""
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
    """The metadata of passages as JSON.

    Raises:
        TypeError, ValueError: a value is nothing that JSON can hold.
    """
    return [dump_metadata(passage.metadata, f"Metadata of passage {passage.id!r}") for passage in passages]

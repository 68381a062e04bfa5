"""What an index is made and opened with, checked."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

from colbert_core.checks import check_count
from colbert_core.errors import DamagedIndexError
from colbert_core.storage.words import has_fts5, words_setting
from colbert_core.text.words import analyser
from colbert_core.vectors.codec import NBITS
from colbert_core.vectors.pooling import check_factor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from colbert_core.types import TokenEncoder
    from colbert_core.vectors.codec import ResidualCodec

logger = logging.getLogger(__name__)

# Of any model there is; more is a mistake.
_LARGEST_DIM = 2**16


def vector_settings(
    encoder: TokenEncoder | None,
    dim: int | None,
    nbits: int | None,
    codec: ResidualCodec | None,
    *,
    in_memory: bool,
    pool_factor: float = 1,
) -> dict[str, Any]:
    """What an index keeps of its vectors.

    Args:
        encoder: what makes them; None for vectors from elsewhere.
        dim: components of a vector; None for the encoder's.
        nbits: bits per component, 32 for uncompressed; None for the codec's, or else 4 on disk and 32 in memory.
        codec: what compresses them from the first passage on; None for one that is fitted later.
        in_memory: where the index is.
        pool_factor: about 1 / pool_factor of the vectors of what is added are kept.

    Raises:
        TypeError: dim is no whole number, or pool_factor no number.
        ValueError: dim, nbits or pool_factor is out of range, or the encoder or the codec has another dim.
    """
    if dim is not None:
        check_count(dim, "dim", "components", _LARGEST_DIM)
    if dim is not None and encoder is not None and encoder.dim != dim:
        raise ValueError(
            f"dim is {dim}, but the encoder {getattr(encoder, 'name', encoder)!r} makes vectors of dim {encoder.dim}."
        )
    if nbits is None:
        nbits = codec.nbits if codec is not None else 32 if in_memory else 4
    if isinstance(nbits, bool) or nbits not in (*NBITS, 32):
        raise ValueError(f"nbits must be 1, 2, 4, 8, or 32 for uncompressed vectors, got {nbits!r}.")
    width = dim if encoder is None else encoder.dim
    kept = None if nbits == 32 else int(nbits)
    if codec is not None and (codec.dim, codec.nbits) != (width, kept):
        raise ValueError(
            f"The codec is for dim {codec.dim} and {codec.nbits} bits, the index for dim {width} and {nbits} bits; "
            "give one codec and encoder that belong together."
        )
    return {
        "dim": None if width is None else int(width),
        "nbits": kept,
        "codec_tokens": None,
        "codec_given": 0,
        "pool_factor": check_factor(pool_factor),
    }


def stored_settings(about: Mapping[str, Any], index: str) -> Mapping[str, Any]:
    """Return what an index says of itself, if an index can be so. One of before there were pool factors keeps all vectors.

    Args:
        about: its settings.
        index: its name, for messages.

    Raises:
        DamagedIndexError: it cannot.
    """
    dim, nbits, tokens = (about.get(name) for name in ("dim", "nbits", "codec_tokens"))
    factor = 1.0 if about.get("pool_factor") is None else about["pool_factor"]
    if not isinstance(dim, int) or not 1 <= dim <= _LARGEST_DIM:
        problem = f"its dim is {dim!r:.80}, not 1 to {_LARGEST_DIM}"
    elif "nbits" not in about or (nbits is not None and nbits not in NBITS):
        problem = f"its nbits are {about.get('nbits', 'missing')!r:.80}, not 1, 2, 4, 8 or none"
    elif tokens is not None and not (isinstance(tokens, int) and 0 <= tokens < 2**62):
        problem = f"its codec is fitted to {tokens!r:.80} tokens"
    elif about.get("codec_given") not in (None, 0, 1):
        problem = f"its codec is given: {about['codec_given']!r:.80}"
    elif not isinstance(factor, (int, float)) or not 1 <= factor < math.inf:
        problem = f"its pool_factor is {factor!r:.80}, not 1 or more"
    else:
        return {**about, "codec_tokens": tokens, "pool_factor": float(factor)}
    raise DamagedIndexError(f"{index} is damaged: {problem}; restore it from a copy.")


def check_words(words: str | bool | None, *, has_texts: bool) -> str:
    """Return what an index keeps of how it counts words.

    Args:
        words: name of an analyser, False for no words, or None for what is usual.
        has_texts: an encoder makes vectors of the passages' texts.

    Raises:
        ValueError: there is no such analyser, or this Python's SQLite cannot index words.
    """
    if words is False or (words is None and not has_texts):
        return words_setting(None)
    if words is None and not has_fts5():
        logger.warning("The SQLite of this Python was built without FTS5, so the index has no words for hybrid search.")
        return words_setting(None)
    name = analyser("english" if words is None else str(words)).name
    if not has_fts5():
        raise ValueError("The SQLite of this Python was built without FTS5, which counts words; use words=False.")
    return words_setting(name)


def check_timeout(timeout: float) -> float:
    """Return a number of seconds that a writer may wait.

    Raises:
        ValueError: it is no number, or below 0.
    """
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0:
        raise ValueError(f"timeout is a number of seconds, at least 0, got {timeout!r}.")
    return timeout


def check_device(device: str | None) -> str | None:
    """Return the name of a device that is there.

    Raises:
        ValueError: there is no such device.
    """
    if device is not None:
        from colbert_core.search.torch_scorer import resolved_device  # here, because it imports torch

        resolved_device(device)
    return device

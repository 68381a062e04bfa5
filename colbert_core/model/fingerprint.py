"""The fingerprint of the encoder that made an index: kept with the index, to load the encoder again and to check another."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.errors import CheckpointError, CheckpointNotFoundError, DamagedIndexError, EncoderMismatchError
from colbert_core.threads import new_lock
from colbert_core.types import is_encoder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from colbert_core.types import TokenEncoder

# This text is encoded when an index is made, and again when an encoder is given to it. The same model in another precision
# gives vectors with a cosine of at least .9988.
_PROBE = "The same words, encoded again, tell one model from another."
_SAME = 0.98


@dataclass(frozen=True)
class EncoderFingerprint:
    """Tells which encoder made the vectors of an index.

    Attributes:
        index: name of the index, for messages.
        dim: components of a vector.
        name: name of the encoder; None for vectors from elsewhere.
        origin: arguments that load the encoder again; None if it cannot be loaded by name.
        probe: *Shape:* (n, dim), float32, the encoder's vectors of a known text; None if they are not known.
    """

    index: str
    dim: int
    name: str | None
    origin: dict[str, Any] | None
    probe: NDArray[np.float32] | None

    @classmethod
    def from_about(cls, about: Mapping[str, Any], index: str) -> EncoderFingerprint:
        """Read what ``about_encoder`` returned and an index kept.

        Raises:
            DamagedIndexError: the index holds something else.
        """
        try:
            encoder = json.loads(about["encoder"]) if about["encoder"] else {"name": None, "origin": None}
            probe = None if about["probe"] is None else np.frombuffer(about["probe"], np.float32).reshape(-1, about["dim"])
            name, origin = encoder["name"], encoder["origin"]
            if not isinstance(name, str | None):
                raise TypeError(f"its name is {name!r:.80}")
            with np.errstate(over="ignore", invalid="ignore"):
                is_unit = probe is None or np.allclose(np.linalg.norm(probe, axis=1), 1, atol=1e-2)  # False for a NaN as well
            if not is_unit:
                raise ValueError("its probe has vectors that are not of length 1")
            return cls(index, int(about["dim"]), name, origin, probe)
        except (KeyError, ValueError, TypeError, RecursionError) as error:
            raise DamagedIndexError(f"{index} is damaged: what it says of its encoder cannot be read ({error!r}).") from None

    @property
    def encoder(self) -> str:
        """Name of the encoder, for messages."""
        return "vectors from elsewhere" if self.name is None else repr(self.name)

    def agrees_with(self, other: EncoderFingerprint) -> bool:
        """Tell whether the vectors of two indexes come from the same model, in whatever precision."""
        if self.probe is None or other.probe is None:
            return (self.name, self.dim, self.probe is None) == (other.name, other.dim, other.probe is None)
        return self.probe.shape == other.probe.shape and float((self.probe * other.probe).sum(axis=1).min()) >= _SAME

    def check(self, encoder: TokenEncoder) -> None:
        """Make sure that an encoder makes the same vectors as those in the index.

        Raises:
            EncoderMismatchError: it makes others.
        """
        made_with = self.encoder if self.name is None else f"the encoder {self.name!r}"
        name = getattr(encoder, "name", encoder)
        given = "what has that name now" if name == self.name is not None else f"the encoder {name!r:.200}"
        if encoder.dim != self.dim:
            raise EncoderMismatchError(
                f"{self.index} was made with {made_with}, of dim {self.dim}, but {given} has dim {encoder.dim}; "
                "open it with the one it was made with."
            )
        if self.probe is None:
            return
        vectors = encoder.encode_passages([_PROBE], progress=False).vectors
        if vectors.shape != self.probe.shape or float((vectors * self.probe).sum(axis=1).min()) < _SAME:
            raise EncoderMismatchError(
                f"{self.index} was made with {made_with}, and {given} gives other vectors for the same text; "
                "open it with the one it was made with, or make a new index."
            )

    def load(self) -> TokenEncoder:
        """Load the encoder again, from this machine: a name that comes with an index never makes it fetch something.

        Raises:
            EncoderMismatchError: there was none, it is not here or cannot be loaded, or it is another one now.
            DamagedIndexError: the index says something of it that no version of this package wrote.
        """
        if self.name is None:
            raise EncoderMismatchError(
                f"{self.index} was made for vectors from elsewhere, without an encoder; give vectors in place of texts, "
                "or open it with the encoder that makes them."
            )
        if self.origin is None:
            raise EncoderMismatchError(
                f"{self.index} was made with the encoder {self.name!r}, which has no name to load it by; pass it to Index.open."
            )
        # A file from elsewhere must not be able to ask for code to be run: only these settings, only of these kinds.
        none = type(None)
        words, numbers = (str, none), (int, none)
        kinds: dict[str, tuple[type, ...]] = {"name": words, "language": words, "late_chunking": (bool,)}
        kinds |= dict.fromkeys(("query_length", "passage_length", "dim"), numbers)
        origin = self.origin
        if not isinstance(origin, dict) or any(type(value) not in kinds.get(key, ()) for key, value in origin.items()):
            raise DamagedIndexError(f"{self.index} says of its encoder what no version of this package writes: {origin!r:.200}")
        from colbert_core.model.encoder import Encoder  # here, so that opening an index does not import torch

        try:
            # On Windows such a name is a folder of another machine, which would be told who is asking.
            if os.name == "nt" and str(origin.get("name")).startswith(("\\\\", "//")):
                raise CheckpointNotFoundError("It is on another machine.")
            encoder = Encoder.from_pretrained(**origin, local_files_only=True)
        except CheckpointError as error:
            elsewhere = isinstance(error, CheckpointNotFoundError)
            hint = f" (encoder={self.name!r}): nothing is fetched only because an index names it" if elsewhere else ""
            raise EncoderMismatchError(
                f"{self.index} was made with the encoder {self.name!r}, which cannot be loaded; "
                f"pass it to Index.open{hint}. ({error})"
            ) from error
        self.check(encoder)
        return encoder


Provenance = EncoderFingerprint  # its name in pickles of version 0.1.0


class LazyEncoder:
    """The encoder of an index: the one it was opened with, or the one it was made with, loaded at first use, once.

    Attributes:
        fingerprint: of the encoder the index was made with.
        loaded: the encoder, or None as long as nobody has needed it.
    """

    def __init__(self, fingerprint: EncoderFingerprint, encoder: TokenEncoder | None) -> None:
        """Check an encoder that is given.

        Raises:
            EncoderMismatchError: it is not the one the index was made with.
        """
        if encoder is not None:
            fingerprint.check(encoder)
        self.fingerprint = fingerprint
        self.loaded = encoder
        self.renew_lock()

    def get(self) -> TokenEncoder:
        """Return the encoder, loaded by the first thread that asks while the others wait.

        Raises:
            EncoderMismatchError: the index holds vectors from elsewhere, or its encoder cannot be loaded or has changed.
        """
        with self._lock:
            if self.loaded is None:
                self.loaded = self.fingerprint.load()
            return self.loaded

    def renew_lock(self) -> None:
        """Call this in a forked process: there the old lock may be held by a thread of the parent, for ever."""
        self._lock = new_lock()


def loaded_encoder(encoder: str | PathLike[str] | TokenEncoder | None) -> TokenEncoder:
    """Load an encoder by name, or the one in the box for None. A loaded one is returned as it is, without importing torch."""
    if not isinstance(encoder, str | PathLike | None) and is_encoder(encoder):
        return encoder
    from colbert_core.model.encoder import as_encoder

    return as_encoder(encoder)


def about_encoder(encoder: TokenEncoder | None, named: str | None = None) -> dict[str, Any]:
    """Collect what an index keeps of its encoder: how to load it again, and its vectors of a known text.

    Args:
        encoder: the encoder; None for vectors from elsewhere.
        named: name of the checkpoint that made vectors from elsewhere, if it is known.
    """
    if encoder is None:
        about = None if named is None else json.dumps({"name": named, "origin": {"name": named}})
        return {"encoder": about, "probe": None}
    probe = encoder.encode_passages([_PROBE], progress=False).check(1, encoder.dim)
    about = json.dumps(
        {"name": str(getattr(encoder, "name", type(encoder).__name__)), "origin": getattr(encoder, "origin", None)}
    )
    return {"encoder": about, "probe": probe.vectors.tobytes()}

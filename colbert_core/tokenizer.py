"""Text to the token ids of one checkpoint, with the characters each token came from. It neither cuts nor pads."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.errors import CheckpointError, CheckpointNotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray


_VOCABULARY_FILES = ("tokenizer.json", "vocab.*", "*.model")


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of one text, without the model's own ([CLS] and such).

    Attributes:
        ids: *Shape:* (n_tokens,), int64.
        spans: *Shape:* (n_tokens, 2), int32, the characters of each token, half-open.
        word_starts: *Shape:* (n_tokens,), bool, whether a word starts at the token.
    """

    ids: NDArray[np.int64]
    spans: NDArray[np.int32]
    word_starts: NDArray[np.bool_]


class Tokenizer:
    """A checkpoint's tokenizer. Safe to share between threads: nothing in it changes after construction.

    Attributes:
        prefix_ids: ids that the model expects before the text, [CLS] in BERT.
        suffix_ids: ids that the model expects after the text, [SEP] in BERT.
        mask_id: id of the token that pads a query (query augmentation), or None.
        pad_id: id that fills a batch; never attended to.
        size: number of known tokens, added ones included.
    """

    def __init__(self, hf_tokenizer: Any) -> None:
        """Take a fast tokenizer of transformers; its truncation and padding settings are not used.

        Raises:
            CheckpointError: it is a slow tokenizer, which has no character offsets.
        """
        if not getattr(hf_tokenizer, "is_fast", False):
            raise CheckpointError(
                f"{type(hf_tokenizer).__name__} has no fast version, so it gives no character offsets; "
                "save the checkpoint with a tokenizer.json (tokenizer.save_pretrained of a fast tokenizer)."
            )
        # A copy: truncation and padding are state of the backend, and the caller may go on using theirs.
        self._backend = type(hf_tokenizer.backend_tokenizer).from_str(hf_tokenizer.backend_tokenizer.to_str())
        self._backend.no_truncation()
        self._backend.no_padding()

        probe = self._backend.encode("a")
        special = probe.special_tokens_mask
        n_prefix = special.index(0) if 0 in special else len(special)
        self.prefix_ids: list[int] = probe.ids[:n_prefix]
        self.suffix_ids: list[int] = [i for i, is_special in zip(probe.ids, special, strict=True) if is_special][n_prefix:]
        self.mask_id: int | None = hf_tokenizer.mask_token_id
        self.pad_id: int = hf_tokenizer.pad_token_id if hf_tokenizer.pad_token_id is not None else 0
        self.size: int = self._backend.get_vocab_size(with_added_tokens=True)

    @classmethod
    def from_folder(cls, folder: Path, *, trust_remote_code: bool = False) -> Tokenizer:
        """Read the tokenizer files of a checkpoint.

        Raises:
            CheckpointNotFoundError: there are none.
            CheckpointError: they cannot be read.
        """
        from transformers import AutoTokenizer

        # Without any of these transformers makes a tokenizer of five special tokens, to which every word is unknown.
        if not any(next(folder.glob(pattern), None) for pattern in _VOCABULARY_FILES):
            raise CheckpointNotFoundError(
                f"{folder} has no tokenizer ({', '.join(_VOCABULARY_FILES)}); the download or copy is not complete."
            )
        try:
            hf_tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
        # The Rust parser raises a bare Exception for a damaged tokenizer.json, and transformers a dozen kinds around it.
        except Exception as error:
            raise CheckpointError(
                f"The tokenizer in {folder} cannot be read ({type(error).__name__}: {error}); "
                "copy tokenizer.json and tokenizer_config.json, or vocab.txt, there again."
            ) from error
        return cls(hf_tokenizer)

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """Tokenize whole texts, however long."""
        return [
            Tokens(
                ids=np.array(encoding.ids, np.int64),
                spans=np.array(encoding.offsets, np.int32).reshape(-1, 2),
                word_starts=_word_starts(encoding.word_ids),
            )
            for encoding in self._backend.encode_batch(list(texts), add_special_tokens=False)
        ]

    def token_id(self, token: str) -> int:
        """Id of a marker such as "[unused0]".

        Raises:
            CheckpointError: the vocabulary does not hold it.
        """
        found: int | None = self._backend.token_to_id(token)
        if found is None:
            raise CheckpointError(
                f"The checkpoint's recipe marks texts with {token!r}, which its tokenizer of {self.size} tokens does not "
                "know; the tokenizer files belong to another checkpoint."
            )
        return found

    def punctuation_ids(self) -> NDArray[np.int64]:
        """Ids of the 32 ASCII punctuation characters, as Stanford ColBERT's skiplist finds them: the first piece of each."""
        encodings = self._backend.encode_batch(list(string.punctuation), add_special_tokens=False)
        return np.unique([encoding.ids[0] for encoding in encodings if encoding.ids])


def _word_starts(word_ids: list[int | None]) -> NDArray[np.bool_]:
    """A token starts a word unless it belongs to the same word as the one before it."""
    words = np.array([-1 if word is None else word for word in word_ids], np.int64)
    return np.concatenate([np.ones(min(1, len(words)), np.bool_), words[1:] != words[:-1]])

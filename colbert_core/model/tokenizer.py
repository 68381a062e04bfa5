"""Tokenize texts for one checkpoint, with the characters of each token. Nothing is cut or padded."""

from __future__ import annotations

import copy
import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.errors import CheckpointError, CheckpointNotFoundError, UnsupportedCheckpointError
from colbert_core.model import japanese
from colbert_core.model.wordpiece import WordPiece, read_wordpiece
from colbert_core.storage.incoming import read_json_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray


# The largest vocabularies have a quarter of a million tokens, in files of 30 MB.
_LARGEST_ID, _LARGEST_FILE = 2**24, 2**28
_FILES = ("tokenizer.json", "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json")
_VOCABULARY_FILES = ("tokenizer.json", "vocab.*", "*.model")


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of one text, without the model's own ([CLS] and such).

    Attributes:
        ids: *Shape:* (n_tokens,), int64.
        spans: *Shape:* (n_tokens, 2), int32, the characters of each token, half-open, without blanks before them. A
            byte-level tokenizer may make several tokens of one character; each of them has the whole character.
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
        mask_id: id of the tokenizer's mask token, or None.
        eos_id: id of its end-of-sequence token, or None.
        pad_id: id that fills a batch; never attended to.
        has_pad: whether that is a padding token, not the first of the vocabulary in place of one.
        unknown_id: id that stands for what the vocabulary does not know, or None.
        size: number of known tokens, added ones included.
    """

    def __init__(self, hf_tokenizer: Any, *, lowercase: bool = False) -> None:
        """Wrap a tokenizer of transformers. Its settings for truncation and padding are not used.

        Args:
            hf_tokenizer: kept for ``save``, and never changed; or one that ``read_wordpiece`` returned.
            lowercase: lower-case texts first.

        Raises:
            UnsupportedCheckpointError: it is written in Python, does not tell the characters of its tokens, and is not the
                Japanese one.
        """
        self._hf_tokenizer = hf_tokenizer
        self._backend = _backend_of(hf_tokenizer, lowercase=lowercase)
        probe = self._backend.encode("a")
        special = probe.special_tokens_mask
        n_prefix = special.index(0) if 0 in special else len(special)
        self.prefix_ids: list[int] = probe.ids[:n_prefix]
        self.suffix_ids: list[int] = [i for i, is_special in zip(probe.ids, special, strict=True) if is_special][n_prefix:]
        self.mask_id: int | None = hf_tokenizer.mask_token_id
        self.eos_id: int | None = hf_tokenizer.eos_token_id
        self.unknown_id: int | None = hf_tokenizer.unk_token_id
        self.pad_id: int = hf_tokenizer.pad_token_id if hf_tokenizer.pad_token_id is not None else 0
        self.has_pad = hf_tokenizer.pad_token_id is not None
        self.size: int = self._backend.get_vocab_size(with_added_tokens=True)
        largest = max(self._backend.get_vocab(with_added_tokens=True).values(), default=-1)
        self.n_ids: int = 1 + max(largest, self.pad_id, self.mask_id or 0, self.eos_id or 0)

    @classmethod
    def from_folder(cls, folder: Path, *, lowercase: bool = False, trust_remote_code: bool = False) -> Tokenizer:
        """Read the tokenizer files of a checkpoint.

        Raises:
            CheckpointNotFoundError: there are none.
            CheckpointError: they cannot be read.
        """
        # Without any of these transformers makes a tokenizer of five special tokens, to which every word is unknown.
        if not any(next(folder.glob(pattern), None) for pattern in _VOCABULARY_FILES):
            raise CheckpointNotFoundError(
                f"{folder} has no tokenizer ({', '.join(_VOCABULARY_FILES)}); the download or copy is not complete."
            )
        files = _read_files(folder)
        japanese.check_packages(folder, files["tokenizer_config.json"])
        with _readable(folder):
            plain = read_wordpiece(folder, files)
            return cls(plain or _load(folder, trust_remote_code=trust_remote_code), lowercase=lowercase)

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files so that transformers 4 and 5 can read them."""
        self._full().save_pretrained(str(folder))
        # Version 5 writes two names that version 4 does not know; it reads the old ones as well.
        file = folder / "tokenizer_config.json"
        config = json.loads(file.read_text(encoding="utf-8"))
        if config.get("tokenizer_class") == "TokenizersBackend":
            config["tokenizer_class"] = "PreTrainedTokenizerFast"
        if isinstance(config.get("extra_special_tokens"), list):
            config["additional_special_tokens"] = config.pop("extra_special_tokens")
        file.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def with_special(self, tokens: Iterable[str], *, lowercase: bool) -> Tokenizer:
        """Copy the tokenizer so that it finds these tokens in texts: "[unused0]" is then one token, not five."""
        from tokenizers import AddedToken

        wanted = [token for token in tokens if self.ids_of(token) != [self.token_id(token)]]
        hf_tokenizer = copy.deepcopy(self._full())
        if wanted:
            added = [AddedToken(token, normalized=False, special=True) for token in wanted]
            hf_tokenizer.add_special_tokens({"additional_special_tokens": added})
        return Tokenizer(hf_tokenizer, lowercase=lowercase)

    def _full(self) -> Any:
        """Return the tokenizer of transformers.

        Raises:
            CheckpointError: the files that it would be read from are gone or damaged.
        """
        if not isinstance(self._hf_tokenizer, WordPiece):
            return self._hf_tokenizer
        folder = self._hf_tokenizer.folder
        if not folder.is_dir():  # transformers would look for a model of that name on the hub
            raise CheckpointNotFoundError(f"The tokenizer was loaded from {folder}, which is gone; put it back.")
        with _readable(folder):
            return _load(folder)

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """Tokenize whole texts, however long."""
        return [
            Tokens(
                ids=np.array(encoding.ids, np.int64),
                spans=_without_blanks(np.array(encoding.offsets, np.int32).reshape(-1, 2), text),
                word_starts=_word_starts(encoding.word_ids),
            )
            for text, encoding in zip(texts, self._backend.encode_batch(list(texts), add_special_tokens=False), strict=True)
        ]

    def ids_of(self, text: str) -> list[int]:
        """Tokenize one text to ids."""
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def tokens_of(self, ids: Sequence[int]) -> list[str]:
        """Look up tokens by their ids; added tokens are written as they were added, "[Q] " and not "[q] "."""
        added = self._backend.get_added_tokens_decoder()
        return [added[number].content if number in added else str(self._backend.id_to_token(number)) for number in ids]

    def pieces(self) -> list[str]:
        """Decode every token of the vocabulary to the characters that it stands for."""
        decoded: list[str] = self._backend.decode_batch([[number] for number in range(self.n_ids)], skip_special_tokens=True)
        return decoded

    def token_id(self, token: str) -> int:
        """Look up the id of a marker such as "[unused0]".

        Raises:
            CheckpointError: the vocabulary does not hold it.
        """
        number: int | None = self._backend.token_to_id(token)
        if number is None:
            raise CheckpointError(
                f"The recipe needs the token {token!r}, which its tokenizer of {self.size} tokens does not know; "
                "the tokenizer files belong to another checkpoint, or the recipe is not this model's."
            )
        return number

    def first_piece_ids(self, words: Iterable[str]) -> list[int]:
        """List the id of the first piece of each word. Stanford ColBERT finds the tokens it skips in this way."""
        encodings = self._backend.encode_batch(list(words), add_special_tokens=False)
        return [encoding.ids[0] for encoding in encodings if encoding.ids]

    def known_ids(self, tokens: Iterable[str]) -> list[int]:
        """List the ids of those tokens that are in the vocabulary."""
        numbers = (self._backend.token_to_id(token) for token in tokens)
        return [number for number in numbers if number is not None]


def _backend_of(hf_tokenizer: Any, *, lowercase: bool) -> Any:
    """Return what tokenizes, without truncation and padding."""
    if type(hf_tokenizer).__name__ == japanese.CLASS:
        return japanese.JapaneseBackend(hf_tokenizer, lowercase=lowercase)
    if not getattr(hf_tokenizer, "is_fast", False):
        raise UnsupportedCheckpointError(
            f"The tokenizer {type(hf_tokenizer).__name__} is written in Python and does not tell which characters a token "
            f"stands for; read are those that come as a tokenizer.json, and {japanese.CLASS}. Use another checkpoint."
        )
    backend = hf_tokenizer.backend_tokenizer
    if not isinstance(hf_tokenizer, WordPiece):
        # A copy: truncation and padding are state of the backend, and the caller may still use the original.
        backend = type(backend).from_str(backend.to_str())
    backend.no_truncation()
    backend.no_padding()
    if lowercase:
        from tokenizers import normalizers

        own = backend.normalizer
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *([] if own is None else [own])])
    return backend


def _load(folder: Path, *, trust_remote_code: bool = False) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=trust_remote_code)


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Say that the tokenizer of a folder cannot be read, whatever goes wrong.

    The Rust parser raises a bare Exception for a damaged tokenizer.json, and transformers a dozen kinds around it. When it
    panics, what is raised is no Exception.
    """
    try:
        yield
    except (CheckpointError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise CheckpointError(
            f"The tokenizer in {folder} cannot be read ({type(error).__name__}: {error}); "
            "copy tokenizer.json and tokenizer_config.json, or vocab.txt, there again."
        ) from error


def _read_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the objects in a tokenizer's JSON files, by name; an empty one for a file that is not there.

    Raises:
        CheckpointError: one cannot be read, or gives a token a number beyond any vocabulary: the backend makes lists as long as
            that number.
    """
    files: dict[str, dict[str, Any]] = {}
    numbers: list[Any] = []
    try:
        for name in _FILES:
            file = folder / name
            content = read_json_file(file, _LARGEST_FILE, "utf-8-sig") if file.is_file() else {}
            if not isinstance(content, dict):
                raise TypeError(f"{name} holds a {type(content).__name__}")
            files[name] = content
            if name == "added_tokens.json":
                numbers += content.values()
                continue
            numbers += (content.get("added_tokens_decoder") or {}).keys()
            numbers += [entry["id"] for entry in content.get("added_tokens") or []]
            vocabulary = (content.get("model") or {}).get("vocab")
            numbers += vocabulary.values() if isinstance(vocabulary, dict) else []
        largest = max((int(number) for number in numbers), default=0)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"The tokenizer in {folder} cannot be read ({error!r:.200}); copy it there again.") from error
    if largest > _LARGEST_ID:
        raise CheckpointError(f"The tokenizer in {folder} has a token with the number {largest}; copy it there again.")
    return files


def _word_starts(word_ids: list[int | None]) -> NDArray[np.bool_]:
    """Tell which tokens start a word: those that do not belong to the word of the token before them."""
    words = np.array([-1 if word is None else word for word in word_ids], np.int64)
    return np.concatenate([np.ones(min(1, len(words)), np.bool_), words[1:] != words[:-1]])


def _without_blanks(spans: NDArray[np.int32], text: str) -> NDArray[np.int32]:
    """Move starts behind blanks: byte-level and SentencePiece tokenizers count the blank before a word as part of it."""
    starts = spans[:, 0].tolist()
    if not any(text[start : start + 1].isspace() for start in starts):
        return spans
    for row, (start, end) in enumerate(spans.tolist()):
        piece = text[start:end]
        if piece and not piece.isspace():
            spans[row, 0] = end - len(piece.lstrip())
    return spans

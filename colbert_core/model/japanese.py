"""Transformers' BertJapaneseTokenizer, with the characters of each token, which it does not tell by itself.

It has no tokenizer.json: MeCab, Sudachi or Juman++ cuts a text into words, and each word is cut into pieces of the
vocabulary. The characters of a word are found again in the text by what normalization leaves of both.
"""

from __future__ import annotations

import copy
import importlib.util
import inspect
import logging
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from colbert_core.errors import CheckpointError
from colbert_core.threads import new_lock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)

CLASS = "BertJapaneseTokenizer"

# What each way of finding words imports, and what pip is to install for it.
_PACKAGES = {
    "mecab": {"fugashi": "fugashi"},
    "sudachi": {"sudachipy": "SudachiPy", "sudachidict_core": "SudachiDict-core"},
    "jumanpp": {"rhoknp": "rhoknp"},
}
_DICTIONARIES = {"unidic_lite": "unidic-lite", "ipadic": "ipadic", "unidic": "unidic"}
# A word that is not where the one before it ended is looked for within so many characters.
_NEAR = 20


class _Piece(str):
    """A piece that knows its word: the number of it in the text, and how it is written."""

    number: int
    word: str


@dataclass(frozen=True)
class Encoding:
    """What the Rust backend returns of one text, as far as ``Tokenizer`` asks for it."""

    ids: list[int]
    offsets: list[tuple[int, int]] = field(default_factory=list)
    word_ids: list[int | None] = field(default_factory=list)
    special_tokens_mask: list[int] = field(default_factory=list)


class JapaneseBackend:
    """Answers what ``Tokenizer`` asks the Rust backend of other tokenizers. Threads take turns: MeCab serves one at a time."""

    def __init__(self, hf_tokenizer: Any, *, lowercase: bool = False) -> None:
        """Take a BertJapaneseTokenizer, which stays as it is; lowercase: lower-case texts first."""
        self._tokenizer = copy.copy(hf_tokenizer)
        self._tokenizer._tokenize = self._pieces
        self._lowercase = lowercase
        self._vocabulary: dict[str, int] = hf_tokenizer.get_vocab()
        self._lock = new_lock()
        self._n_words = 0

    def encode(self, text: str, add_special_tokens: bool = True) -> Encoding:
        """Tokenize one text; with the model's own tokens around it only ids and special_tokens_mask are told."""
        with self._lock:
            self._n_words = 0
            pieces = self._tokenizer.tokenize(text.lower() if self._lowercase else text)
        ids: list[int] = self._tokenizer.convert_tokens_to_ids(pieces)
        if add_special_tokens:
            mask = self._tokenizer.get_special_tokens_mask(ids)
            return Encoding(self._tokenizer.build_inputs_with_special_tokens(ids), special_tokens_mask=mask)
        words: list[int | None] = [piece.number if isinstance(piece, _Piece) else None for piece in pieces]
        return Encoding(ids, list(_spans(text, pieces, self._tokenizer.unk_token)), words)

    def encode_batch(self, texts: Sequence[str], add_special_tokens: bool = True) -> list[Encoding]:
        """Tokenize texts."""
        return [self.encode(text, add_special_tokens) for text in texts]

    def decode_batch(self, sequences: Sequence[Sequence[int]], skip_special_tokens: bool = True) -> list[str]:
        """Write each sequence of ids as text."""
        special = {*self._tokenizer.all_special_ids} if skip_special_tokens else set()
        return [
            "".join(_surface(str(self.id_to_token(number))) for number in numbers if number not in special)
            for numbers in sequences
        ]

    def get_vocab(self, with_added_tokens: bool = True) -> dict[str, int]:  # noqa: ARG002 - as the Rust backend has it
        """Return the ids of all tokens."""
        return self._vocabulary

    def get_vocab_size(self, with_added_tokens: bool = True) -> int:  # noqa: ARG002
        """Count all tokens."""
        return len(self._vocabulary)

    def get_added_tokens_decoder(self) -> dict[int, Any]:
        """Return the added tokens by their ids."""
        return dict(self._tokenizer.added_tokens_decoder)

    def token_to_id(self, token: str) -> int | None:
        """Look up a token; None if the vocabulary does not hold it."""
        return self._vocabulary.get(token)

    def id_to_token(self, number: int) -> str:
        """Look up an id."""
        return str(self._tokenizer.convert_ids_to_tokens(number))

    def _pieces(self, text: str, **_: Any) -> list[_Piece]:
        """Cut a part of a text that holds no added token; called by the tokenizer, which looks for those."""
        own = self._tokenizer
        words = own.word_tokenizer.tokenize(text, never_split=own.all_special_tokens) if own.do_word_tokenize else [text]
        found: list[_Piece] = []
        for word in words:
            for piece in own.subword_tokenizer.tokenize(word) if own.do_subword_tokenize else [word]:
                found.append(_Piece(piece))
                found[-1].number, found[-1].word = self._n_words, word
            self._n_words += 1
        return found


def check_packages(folder: Path, config: dict[str, Any]) -> None:
    """Make sure that what a Japanese tokenizer needs beside transformers is installed.

    Args:
        folder: of the checkpoint, for the message.
        config: its tokenizer_config.json.

    Raises:
        CheckpointError: a package is missing; the message is one line that names all that pip is to install.
    """
    if config.get("tokenizer_class") != CLASS or not config.get("do_word_tokenize", True):
        return
    kind = config.get("word_tokenizer_type", "basic")
    needed = dict(_PACKAGES.get(kind, {}))
    if kind == "mecab":
        stated = config.get("mecab_kwargs") or {}
        dictionary = stated["mecab_dic"] if "mecab_dic" in stated else _usual_dictionary()
        if "mecab_dic" not in stated:
            logger.warning(
                "The tokenizer in %s names no dictionary for MeCab; it is read with %s, as this version of transformers does. "
                "The first models of cl-tohoku were made with ipadic: then add mecab_kwargs={'mecab_dic': 'ipadic'} to its "
                "tokenizer_config.json.",
                folder, dictionary,
            )  # fmt: skip
        needed |= {dictionary: _DICTIONARIES[dictionary]} if dictionary in _DICTIONARIES else {}
    if config.get("subword_tokenizer_type") == "sentencepiece":
        needed["sentencepiece"] = "sentencepiece"
    if any(importlib.util.find_spec(module) is None for module in needed):
        extra = " (or colbert-retrievers[japanese])" if {*needed} == {"fugashi", "unidic_lite"} else ""
        raise CheckpointError(
            f"The tokenizer in {folder} finds Japanese words by {kind} and needs packages that are not installed: "
            f"pip install {' '.join(needed.values())}{extra}"
        )


def _usual_dictionary() -> str | None:
    """Name the dictionary that this version of transformers takes where none is named: ipadic in old ones, then unidic_lite."""
    from transformers.models.bert_japanese.tokenization_bert_japanese import MecabTokenizer

    return inspect.signature(MecabTokenizer).parameters["mecab_dic"].default  # type: ignore[no-any-return]


def _spans(text: str, pieces: Sequence[str], unknown: str) -> Iterator[tuple[int, int]]:
    """Yield the characters of each piece, half-open; a character that became several pieces is each one's."""
    bare = [_bare(letter) for letter in text]
    origins = [place for place, letters in enumerate(bare) for _ in letters]  # of each character of what is left of the text
    left = "".join(bare)
    cursor = 0  # in what is left

    def span(start: int, end: int) -> tuple[int, int]:
        if start < end:
            first, last = origins[start], origins[end - 1] + 1
        else:  # a piece of marks that normalization takes away
            last = origins[start - 1] + 1 if start else 0
            first = last
        while last < len(text) and not bare[last] and not _is_blank(text[last]):  # marks upon the last character
            last += 1
        return first, max(last, min(first + 1, len(text)))

    for group in _by_word(pieces):
        word = _bare(group[0].word if isinstance(group[0], _Piece) else group[0])
        start = left.find(word, cursor, cursor + len(word) + _NEAR)
        if start < 0:  # a word that is written otherwise than in the text
            start = cursor
        end = min(start + len(word), len(left))
        lengths = _lengths(group, unknown)
        at = start
        for length in lengths or [0] * len(group):
            yield span(at, min(at + length, end)) if lengths else span(start, end)
            at = min(at + length, end)
        cursor = end


def _lengths(group: Sequence[str], unknown: str) -> list[int] | None:
    """Tell how long what is left of each piece of a word is; None if that cannot be told, and each has the whole word."""
    word = group[0].word if isinstance(group[0], _Piece) else group[0]
    if len(group) == 1:
        return [len(_bare(word))]
    lengths = [len(_bare(_surface(piece))) for piece in group]
    if unknown in group:  # of a tokenizer of characters; others have one unknown piece for the whole word
        characters = unicodedata.normalize("NFKC", word)
        lengths = [len(_bare(letter)) for letter in characters] if len(characters) == len(group) else []
    return lengths if lengths and sum(lengths) == len(_bare(word)) else None


def _by_word(pieces: Sequence[str]) -> Iterator[list[str]]:
    """Yield the pieces of each word together; an added token is by itself."""
    group: list[str] = []
    for piece in pieces:
        if group and not (isinstance(piece, _Piece) and isinstance(group[0], _Piece) and piece.number == group[0].number):
            yield group
            group = []
        group.append(piece)
    if group:
        yield group


def _surface(piece: str) -> str:
    """Take off the marks that tell where in a word a piece was."""
    return piece.removeprefix("##").removeprefix("▁") or piece


def _bare(text: str) -> str:
    """Leave what all ways of normalizing agree on: compatible forms, no case, no marks upon letters, no blanks."""
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return "".join(letter for letter in decomposed if not _is_blank(letter) and unicodedata.category(letter) != "Mn")


def _is_blank(letter: str) -> bool:
    return letter.isspace() or unicodedata.category(letter) in ("Cc", "Cf") or letter == "\N{REPLACEMENT CHARACTER}"

"""Which scripts a checkpoint's vocabulary can read, and a warning for texts in one that it cannot.

A model of English meets Chinese or Greek without a word: it has a piece for single letters, and [UNK] for the rest. What it
finds then has a relevance like any other, and is mostly wrong.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from colbert_core.model.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

# A vocabulary reads a script if it has so many pieces of two or more of its letters. That of bert-base-uncased has 8 of
# Cyrillic, 4 of Greek, 2 of Arabic, and 27,533 of Latin; vocabularies that were made for a script have thousands.
_PIECES = 300
# Chinese and Japanese are read character by character: 244 in bert-base-uncased, 4,000 and more in models of these languages.
_CHARACTERS = 2000
_HAN = "Han"
_NAMES = {"CJK": _HAN, "HIRAGANA": _HAN, "KATAKANA": _HAN, "KATAKANA-HIRAGANA": _HAN, "IDEOGRAPHIC": _HAN}
# Letters beyond Latin; dashes, quotes, symbols and emoji lie elsewhere.
_FOREIGN = (
    "[\u0370-\u1dff\u2e80-\ufaff\ufb13-\ufdff\ufe70-\ufefc\uff66-\uffdc"
    "\U00010000-\U0001cfff\U0001e000-\U0001efff\U00020000-\U0003ffff]"
)
_LETTER, _WORD = re.compile(_FOREIGN), re.compile(f"{_FOREIGN}{{2}}")
# Of each text so many characters are looked at, and figures are those of so many texts.
_LOOKED_AT, _SAMPLED = 1000, 20
_MULTILINGUAL = "jinaai/jina-colbert-v2 (with trust_remote_code=True) or intfloat/multilingual-e5-small (untrained)"


class Scripts:
    """The scripts of one checkpoint. Warns once for each that it meets and does not read."""

    def __init__(self, tokenizer: Tokenizer, name: str) -> None:
        """Remember the tokenizer; nothing is looked at before the first text that is not in Latin letters.

        Args:
            tokenizer: the checkpoint's.
            name: of the checkpoint, for messages.
        """
        self._tokenizer = tokenizer
        self._name = name
        self._told: set[str] = set()

    @cached_property
    def read(self) -> tuple[str, ...]:
        """Names of the scripts that the vocabulary reads, such as "Latin"; "Han" stands for Chinese and Japanese."""
        pieces: Counter[str] = Counter()
        han: set[str] = set()
        for piece in self._tokenizer.pieces():
            letters = [character for character in piece if character.isalpha()]
            scripts = {script_of(letter) for letter in letters}
            if scripts == {_HAN}:
                han.update(letters)
            elif len(letters) > 1 and len(scripts) == 1:
                pieces.update(scripts)
        alphabets = {script for script, count in pieces.items() if count >= _PIECES and script}
        return tuple(sorted(alphabets | ({_HAN} if len(han) >= _CHARACTERS else set())))

    def warn(self, texts: Sequence[str], what: str) -> None:
        """Warn of texts in a script that the checkpoint does not read, once for each script.

        Args:
            texts: what was given to encode.
            what: "queries" or "passages".
        """
        unread: dict[str, list[str]] = {}
        for text in texts:
            if not text.isascii() and (script := _main_script(text[:_LOOKED_AT])) and script not in self._told | {*self.read}:
                unread.setdefault(script, []).append(text)
        for script, theirs in unread.items():
            self._told.add(script)
            unknown, single = self._shares([text[:_LOOKED_AT] for text in theirs[:_SAMPLED]])
            logger.warning(
                "The model %s does not read the %s script, in which %d of %d %s are written (it reads %s): of their tokens "
                "%.0f %% are unknown to it and %.0f %% are single characters. What it finds for them is mostly chance; use a "
                "multilingual checkpoint, such as %s.",
                self._name, script, len(theirs), len(texts), what, ", ".join(self.read) or "none", 100 * unknown,
                100 * single, _MULTILINGUAL,
            )  # fmt: skip

    def _shares(self, texts: list[str]) -> tuple[float, float]:
        """The shares of tokens that the vocabulary does not know, and that stand for one character or less."""
        tokens = self._tokenizer.encode(texts)
        ids, spans = np.concatenate([text.ids for text in tokens]), np.concatenate([text.spans for text in tokens])
        if not len(ids):
            return 1.0, 0.0
        is_unknown = ids == self._tokenizer.unknown_id
        is_single = (spans[:, 1] - spans[:, 0] <= 1) & ~is_unknown
        return float(is_unknown.mean()), float(is_single.mean())


def script_of(letter: str) -> str:
    """The name of a letter's script, such as "Greek"; "Han" for Chinese and Japanese; "" where Unicode names none."""
    words = unicodedata.name(letter, "").split()
    if words[:1] in (["FULLWIDTH"], ["HALFWIDTH"]):
        words = words[1:]
    return _NAMES.get(words[0], words[0].title()) if words else ""


def _main_script(text: str) -> str:
    """The script of more than half of a text's letters, if it is not Latin; "" otherwise."""
    foreign = _LETTER.findall(text)
    if 2 * len(foreign) <= sum(map(str.isalpha, text)):
        return ""
    script, count = _most(script_of(letter) for letter in foreign if letter.isalpha())
    is_formula = script != _HAN and not _WORD.search(text)  # such as "α + β"
    return script if 2 * count > len(foreign) and not is_formula else ""


def _most(names: Iterable[str]) -> tuple[str, int]:
    return max(Counter(names).items(), key=lambda entry: entry[1], default=("", 0))

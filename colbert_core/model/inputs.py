"""Build the token sequences that a model reads of texts, and choose the vectors that stay, by the recipe of a checkpoint.

No model runs here. The encoder computes one vector for each token.
"""

from __future__ import annotations

import string
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from colbert_core.errors import CheckpointError, UnsupportedCheckpointError
from colbert_core.text import splitter
from colbert_core.text.metadata import beside_own
from colbert_core.types import Passage, check_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from numpy.typing import NDArray

    from colbert_core.model.checkpoint import EncoderConfig
    from colbert_core.model.tokenizer import Tokenizer, Tokens

# Texts tokenized at a time: enough for the tokenizer's threads, few enough to keep a long list's token objects small.
_TOKENIZE_AT_A_TIME = 1024

# Part of a window that its neighbour repeats, so that an answer on a cut is whole in one of them.
_WINDOW_OVERLAP = 1 / 8

# The copy of a checkpoint must make the same inputs of these texts as the original.
_PROBES = (
    "cat",
    "What animation studio did Miyazaki found?",
    ' A blank first, (brackets); and "quotes"!\nA second line.',
    "Ünïcode, 日本語 and \N{CAT FACE} too",
    "A sentence that is cut somewhere. " * 40,
)


@dataclass(frozen=True, slots=True)
class Window:
    """A query, or a passage or part of one: some of the vectors of a sequence.

    Attributes:
        kept: *Shape:* (n_vectors,), intp, positions in the sequence whose vectors stay.
        token_spans: *Shape:* (n_vectors, 2), int32, the characters of each; empty for tokens that are not the text's.
        span: the characters of the whole.
        owner: position of its text in the caller's list.
    """

    kept: NDArray[np.intp]
    token_spans: NDArray[np.int32]
    span: tuple[int, int]
    owner: int


@dataclass(frozen=True, slots=True)
class ModelInput:
    """One row of token ids that the model reads at once.

    Attributes:
        ids: *Shape:* (length,), int64.
        attended: how many leading tokens may be attended to.
        windows: the windows that its vectors belong to; several with late chunking.
        n_cut: number of tokens of the text that did not fit.
    """

    ids: NDArray[np.int64]
    attended: int
    windows: tuple[Window, ...]
    n_cut: int = 0


class InputBuilder:
    """Builds the inputs of one checkpoint from queries and passages. It never changes.

    Attributes:
        config: the recipe of the checkpoint.
        tokenizer: the checkpoint's.
        skipped: *Shape:* (n,), int64, ids of tokens whose vectors are dropped.
        augmentation_id: id of the token that fills queries up; None if queries are not filled up.
        query_prefix: ids that stand before the text of a query.
        passage_prefix: ids that stand before the text of a passage.
        marker_is_second: the marker is put behind the first token whatever that is, so behind the first token of the text
            where the tokenizer puts none before it. So PyLate and Stanford ColBERT do: they put it at the second place.
    """

    def __init__(
        self, config: EncoderConfig, tokenizer: Tokenizer, *, most_tokens: int, name: str, late_chunking: bool = False
    ) -> None:
        """Check that recipe, tokenizer and backbone fit each other.

        Args:
            config: the checkpoint's recipe.
            tokenizer: the checkpoint's.
            most_tokens: the longest sequence that the backbone reads.
            name: for messages.
            late_chunking: read a long passage with as much context as the backbone takes, and cut the vectors into windows
                instead of the text.

        Raises:
            CheckpointError: the tokenizer lacks a token that the recipe needs, or adds none of its own.
            ValueError: a length leaves no room for text or is more than the backbone reads; late chunking without context.
        """
        has_own = tokenizer.prefix_ids or tokenizer.suffix_ids
        if not has_own and (config.format != "pylate" or None in (config.query_marker, config.passage_marker)):
            raise CheckpointError(
                f"{name}: the tokenizer adds no tokens of its own, such as [CLS] and [SEP], so an empty text would have no "
                "vector; save it with its post-processor."
            )
        self.config = config
        self.tokenizer = tokenizer
        self._name = name
        self.augmentation_id = self._augmentation_id(name) if config.augment_queries else None
        self.marker_is_second = not tokenizer.prefix_ids and config.format in ("pylate", "stanford")
        self.query_prefix = self._with_marker(config.query_marker)
        self.passage_prefix = self._with_marker(config.passage_marker)
        self.skipped = np.array(self.skipped_ids(config, tokenizer), np.int64)

        self._query_room = self._room("query_length", self.query_prefix, config.query_prompt, most_tokens, name)
        self._passage_room = self._room("passage_length", self.passage_prefix, config.passage_prompt, most_tokens, name)
        self._context = most_tokens - config.passage_length if late_chunking else 0
        if late_chunking and self.marker_is_second and config.passage_marker is not None:
            raise ValueError(
                f"late_chunking is not possible with {name}: its marker stands behind the first token of a window."
            )
        if late_chunking and not self._context:
            raise ValueError(
                f"late_chunking for {name} needs a backbone that reads more than one window, but it reads {most_tokens} "
                f"tokens and passage_length is {config.passage_length}; pass a smaller passage_length."
            )

    @staticmethod
    def skipped_ids(config: EncoderConfig, tokenizer: Tokenizer) -> list[int]:
        """List the ids of the tokens whose vectors are dropped, ascending."""
        by_rule = tokenizer.first_piece_ids(string.punctuation) if config.skip_punctuation else []
        return sorted({*by_rule, *tokenizer.known_ids(config.skip_tokens)})

    def check_equal(self, other: InputBuilder, format: str) -> None:
        """Make sure that another builder makes the same inputs of some texts, long and short, in several scripts.

        Raises:
            UnsupportedCheckpointError: it does not.
        """
        for text in _PROBES:
            for own, copied in ((self.queries([text]), other.queries([text])), (self.passages([text]), other.passages([text]))):
                for a, b in zip(own, copied, strict=True):
                    pairs = zip(a.windows, b.windows, strict=True)
                    same_kept = all(np.array_equal(x.kept, y.kept) for x, y in pairs)
                    if not (np.array_equal(a.ids, b.ids) and a.attended == b.attended and same_kept):
                        meant, made = self.tokenizer.tokens_of(a.ids.tolist()), other.tokenizer.tokens_of(b.ids.tolist())
                        raise UnsupportedCheckpointError(
                            f"The {format} format cannot hold {self._name}: of {text[:40]!r} it would make the tokens {made}, "
                            f"where {meant} are meant. Another format may."
                        )

    def example(self) -> dict[str, Any]:
        """Show what becomes of a query: its ids, their tokens, and which of them may be attended to."""
        query = _PROBES[1]
        (built,) = self.queries([query])
        ids = built.ids.tolist()
        attention = [int(i < built.attended) for i in range(len(ids))]
        return {"query": query, "ids": ids, "tokens": self.tokenizer.tokens_of(ids), "attention": attention}

    def queries(self, texts: list[str]) -> Iterator[ModelInput]:
        """Yield ``[CLS] marker prompt text [SEP]`` and the masks that fill it up, for each text; longer texts are cut."""
        config, suffix = self.config, self.tokenizer.suffix_ids
        for owner, (prompt, text) in enumerate(self._tokenized(texts, config.query_prompt)):
            n_kept = min(len(text.ids), self._query_room - len(prompt.ids))
            own = [*self.query_prefix, *prompt.ids, *text.ids[:n_kept], *suffix]
            n_masks = max((config.augmentation_length or config.query_length) - len(own), 0) if config.augment_queries else 0
            ids = np.array([*own, *[self.augmentation_id] * n_masks], np.int64)
            end = len(texts[owner])
            before = np.zeros((len(self.query_prefix) + len(prompt.ids), 2), np.int32)
            spans = np.concatenate([before, text.spans[:n_kept], np.full((len(suffix) + n_masks, 2), end, np.int32)])
            if config.query_marker is not None:
                self._place_marker(ids[: len(own)], spans[: len(own)])
            kept = np.flatnonzero(self._stays(ids)) if config.skip_in_queries else np.arange(int(config.skip_first), len(ids))
            window = Window(kept, spans[kept], (0, end), owner)
            attended = len(ids) if config.attend_to_augmentation else len(own)
            yield ModelInput(ids, attended, (window,), n_cut=len(text.ids) - n_kept)

    def passages(self, texts: list[str]) -> Iterator[ModelInput]:
        """Yield ``[CLS] marker prompt window [SEP]`` for each window of each text, in their order."""
        suffix = self.tokenizer.suffix_ids
        for owner, (prompt, tokens) in enumerate(self._tokenized(texts, self.config.passage_prompt)):
            cuts = list(self._cuts(texts[owner], tokens, self._passage_room - len(prompt.ids)))
            windows = [window for _, _, inside in cuts for window in inside]
            spans = iter(splitter.character_spans(windows, tokens.spans, len(texts[owner])))
            before = [*self.passage_prefix, *prompt.ids]
            for first, last, inside in cuts:
                ids = np.array([*before, *tokens.ids[first:last], *suffix], np.int64)
                if self.config.passage_marker is not None:
                    self._place_marker(ids)
                is_kept = self._stays(ids)
                yield ModelInput(
                    ids,
                    len(ids),
                    tuple(self._window(tokens, (first, a, b), is_kept, len(before), next(spans), owner) for a, b in inside),
                )

    @property
    def piece_tokens(self) -> int:
        """Most tokens of a piece of a document."""
        return self._passage_room - len(self.tokenizer.ids_of(self.config.passage_prompt))

    def split(
        self, text: str, document_id: str, *, size: int | None = None, overlap: int = 0, metadata: dict[str, Any] | None = None
    ) -> list[Passage]:
        """Cut a document into passages, as ``Encoder.split`` describes."""
        if not check_text(document_id, "document_id"):
            raise ValueError("document_id is empty; give the document a name.")
        room = self.piece_tokens
        size = room if size is None else size
        for name, value in (("size", size), ("overlap", overlap)):
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} must be a whole number of tokens, got {value!r}.")
        if not 1 <= size <= room:
            raise ValueError(f"size={size} must be from 1 to {room} tokens, what {self._name} reads of a passage at once.")
        (tokens,) = self.tokenizer.encode([text])
        return [
            Passage(
                f"{document_id}#{number}",
                text[start:end],
                beside_own(metadata or {}, {"document_id": document_id, "start": start, "end": end}),
            )
            for number, (start, end) in enumerate(splitter.passages(text, tokens.spans, tokens.word_starts, size, overlap), 1)
        ]

    def _cuts(self, text: str, tokens: Tokens, room: int) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
        """Yield the token ranges that the model reads at once, each with the ranges of the windows in it."""
        windows = splitter.windows(text, tokens.spans, tokens.word_starts, room, int(room * _WINDOW_OVERLAP))
        if not self._context:
            yield from ((first, last, [(first, last)]) for first, last in windows)
            return
        # As many windows together as leave half a window of context before and behind them.
        budget = room + self._context
        most = max(self._context, room)
        group: list[tuple[int, int]] = []
        for window in [*windows, None]:
            if group and (window is None or window[1] - group[0][0] > most):
                first = max(group[0][0] - (budget - (group[-1][1] - group[0][0])) // 2, 0)
                yield first, min(first + budget, len(tokens.ids)), group
                group = []
            if window is not None:
                group.append(window)

    def _window(
        self,
        tokens: Tokens,
        cut: tuple[int, int, int],
        is_kept: NDArray[np.bool_],
        n_before: int,
        span: tuple[int, int],
        owner: int,
    ) -> Window:
        """Make the window of tokens a to b of a text.

        The input begins with token ``first`` of the text; its own tokens around the text belong to every window.
        """
        first, a, b = cut
        places = np.concatenate(
            [
                np.arange(n_before),
                np.arange(n_before + a - first, n_before + b - first),
                np.arange(len(is_kept) - len(self.tokenizer.suffix_ids), len(is_kept)),
            ]
        )
        own_before = np.full((n_before, 2), span[0], np.int32)
        own_after = np.full((len(self.tokenizer.suffix_ids), 2), span[1], np.int32)
        spans = np.concatenate([own_before, tokens.spans[a:b], own_after])
        if self.config.passage_marker is not None:
            self._place_marker(spans)
        stays = is_kept[places]
        return Window(places[stays], spans[stays], span, owner)

    def _place_marker(self, *rows: NDArray[Any]) -> None:
        """Put the marker, which stands first, behind the token that follows it, where it is at the second place."""
        for row in rows:
            if self.marker_is_second and len(row) > 1:
                row[:2] = row[1::-1].copy()

    def _stays(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell of each token of a sequence whether its vector stays. *Shape:* (length,)."""
        stays = ~np.isin(ids, self.skipped)
        stays[: int(self.config.skip_first)] = False
        return stays

    def _tokenized(self, texts: list[str], prompt: str) -> Iterator[tuple[Tokens, Tokens]]:
        """Yield the tokens of the prompt and those of the text, for each text; spans count from the beginning of the text.

        Prompt and text are tokenized as one string, since a byte-level tokenizer joins a blank to the word behind it. A
        token that has characters of both belongs to the text.
        """
        for first in range(0, len(texts), _TOKENIZE_AT_A_TIME):
            for tokens in self.tokenizer.encode([prompt + text for text in texts[first : first + _TOKENIZE_AT_A_TIME]]):
                n_prompt = int(np.searchsorted(tokens.spans[:, 1], len(prompt), side="right")) if prompt else 0
                spans = np.maximum(tokens.spans - np.int32(len(prompt)), 0)
                yield (
                    replace(
                        tokens, ids=tokens.ids[:n_prompt], spans=spans[:n_prompt], word_starts=tokens.word_starts[:n_prompt]
                    ),
                    replace(
                        tokens, ids=tokens.ids[n_prompt:], spans=spans[n_prompt:], word_starts=tokens.word_starts[n_prompt:]
                    ),
                )

    def _with_marker(self, marker: str | None) -> list[int]:
        """List the ids before the text: the model's own, and the marker behind the first of them."""
        prefix = self.tokenizer.prefix_ids
        if marker is None:
            return prefix
        try:
            return [*prefix[:1], self.tokenizer.token_id(marker), *prefix[1:]]
        except CheckpointError as error:
            default = " (PyLate's default, where its file states none)" if self.config.format == "pylate" else ""
            raise CheckpointError(f"{self._name}: the recipe puts {marker!r} before texts{default}. {error}") from error

    @staticmethod
    def augmentation_id_of(config: EncoderConfig, tokenizer: Tokenizer) -> int | None:
        """Find the id of the token that fills queries up; None if there is none.

        PyLate and sentence-transformers use the end-of-sequence token where there is no mask token, PyLate then the padding.
        """
        if config.augmentation_token is not None:
            return tokenizer.token_id(config.augmentation_token)
        found = [tokenizer.mask_id]
        found += [tokenizer.eos_id] if config.format in ("pylate", "sentence-transformers") else []
        found += [tokenizer.pad_id] if config.format == "pylate" and tokenizer.has_pad else []
        return next((number for number in found if number is not None), None)

    def _augmentation_id(self, name: str) -> int:
        number = self.augmentation_id_of(self.config, self.tokenizer)
        if number is None:
            raise CheckpointError(
                f"{name}: the recipe fills queries with a mask token, and the tokenizer has none; the tokenizer files "
                "belong to another checkpoint, or tokenizer_config.json lacks its mask_token."
            )
        return number

    def _room(self, setting: str, prefix: list[int], prompt: str, most_tokens: int, name: str) -> int:
        """Count the tokens of prompt and text that fit into a sequence."""
        length: object = getattr(self.config, setting)
        if not isinstance(length, int):
            raise TypeError(f"{setting} must be a whole number of tokens, got {length!r}.")
        around = len(prefix) + len(self.tokenizer.suffix_ids)
        own = around + len(self.tokenizer.ids_of(prompt))
        if not own < length <= most_tokens:
            raise ValueError(
                f"{setting}={length} for {name} must be from {own + 1} (its own {own} tokens and one of text) to "
                f"{most_tokens} (what its backbone reads)."
            )
        return length - around


def respelled(config: EncoderConfig, tokenizer: Tokenizer, format: str) -> tuple[EncoderConfig, Tokenizer]:
    """Express a recipe in another format, as far as that format can, and return it with the tokenizer that goes with it.

    Stanford ColBERT and PyLate insert a marker by its id; in sentence-transformers it stands in the text. Stanford names
    the skipped tokens by a rule; the others list them.
    """
    skipped = InputBuilder.skipped_ids(config, tokenizer)
    by_rule = sorted({*tokenizer.first_piece_ids(string.punctuation)})
    changes: dict[str, Any] = {"format": format}
    if config.skip_first and format == "sentence-transformers" and not skipped:
        # By its id, since that format skips by the vocabulary. A passage that spells "[CLS]" out loses that vector, too.
        skipped = sorted(set(tokenizer.prefix_ids[:1]))
        changes |= {"skip_first": False, "skip_in_queries": True}
    if format == "stanford" and skipped in ([], by_rule):
        changes |= {
            "skip_punctuation": bool(skipped),
            "skip_tokens": (),
            "skip_in_queries": bool(skipped) and config.skip_in_queries,
        }
    if format != "stanford":
        changes |= {"skip_punctuation": False, "skip_tokens": tuple(tokenizer.tokens_of(skipped))}
    markers = [config.query_marker, config.passage_marker]
    prompts = [config.query_prompt, config.passage_prompt]
    if format == "sentence-transformers":
        tokenizer = tokenizer.with_special([marker for marker in markers if marker], lowercase=config.lowercase)
        prompts = [
            _spelled(tokenizer, marker, prompt) if marker else prompt for marker, prompt in zip(markers, prompts, strict=True)
        ]
        markers = [None, None]
    else:
        for side, (marker, prompt) in enumerate(zip(markers, prompts, strict=True)):
            ids = tokenizer.ids_of(prompt)
            if marker is None and len(ids) == 1:
                markers[side], prompts[side] = tokenizer.tokens_of(ids)[0], ""
    if config.augment_queries and config.augmentation_token is None and tokenizer.mask_id is None and format != "pylate":
        filler = InputBuilder.augmentation_id_of(config, tokenizer)
        changes["augmentation_token"] = None if filler is None else tokenizer.tokens_of([filler])[0]
    changes |= {
        "query_marker": markers[0],
        "passage_marker": markers[1],
        "query_prompt": prompts[0],
        "passage_prompt": prompts[1],
    }
    return replace(config, **changes), tokenizer


def _spelled(tokenizer: Tokenizer, marker: str, prompt: str) -> str:
    """Write marker and prompt as text that the tokenizer reads as the marker; with a blank if that makes no difference."""
    wanted = [[tokenizer.token_id(marker), *tokenizer.ids_of(prompt + text)] for text in _PROBES]
    for text_before in (f"{marker.rstrip()} {prompt}", marker + prompt):
        if [tokenizer.ids_of(text_before + text) for text in _PROBES] == wanted:
            return text_before
    return marker + prompt  # check_equal will say that it is not the same


def as_list(texts: Iterable[str]) -> list[str]:
    """List texts.

    Raises:
        TypeError: it is one text, whose letters are surely not meant.
    """
    if isinstance(texts, str):
        raise TypeError(f"texts must be a list of strings, got one str; write [{texts!r:.40}].")
    return list(texts)
